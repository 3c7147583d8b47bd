//! `Authorization: Bearer <token>`, wherever a token is asked for.

use ::http::header::{AUTHORIZATION, HeaderMap};

/// What a request shows to be let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credentials<'a> {
    /// Nothing, or more than one thing, of which none counts.
    Nothing,
    /// Something without the word Bearer before it.
    Other,
    /// A token, and whether it is good is for its reader to say.
    Token(&'a [u8]),
}

impl<'a> Credentials<'a> {
    /// What `headers` show. The word Bearer is written in any case and ends with a space
    /// (RFC 9110, 11.4); a token in several parts is one token, and no good one.
    pub fn of(headers: &'a HeaderMap) -> Credentials<'a> {
        let mut lines = headers.get_all(AUTHORIZATION).iter();
        let (Some(line), None) = (lines.next(), lines.next()) else { return Credentials::Nothing };
        let line = line.as_bytes();
        let Some((scheme, rest)) = line.split_at_checked(BEARER.len()) else {
            return if line.is_empty() { Credentials::Nothing } else { Credentials::Other };
        };
        let token = rest.trim_ascii_start();
        match rest.first() {
            _ if !scheme.eq_ignore_ascii_case(BEARER) => Credentials::Other,
            None => Credentials::Nothing,
            Some(b' ') if token.is_empty() => Credentials::Nothing,
            Some(b' ') => Credentials::Token(token),
            Some(_) => Credentials::Other,
        }
    }

    /// The token, if there is one and it is text.
    pub fn token(self) -> Option<&'a str> {
        match self {
            Credentials::Token(token) => std::str::from_utf8(token).ok(),
            Credentials::Nothing | Credentials::Other => None,
        }
    }
}

const BEARER: &[u8] = b"bearer";

#[cfg(test)]
mod tests {
    use ::http::HeaderValue;

    use super::*;

    #[test]
    fn a_token_comes_after_the_word_bearer_and_a_space() {
        use Credentials::{Nothing, Other, Token};
        for (lines, shown) in [
            (&[][..], Nothing),
            (&[""], Nothing),
            (&["Bearer"], Nothing),
            (&["Bearer "], Nothing),
            (&["bEARER   "], Nothing),
            (&["Bearer a.b.c"], Token(b"a.b.c")),
            (&["bearer a"], Token(b"a")),
            (&["BEARER    a"], Token(b"a")),
            (&["Bearer a b"], Token(b"a b")),
            (&["Bearer a, Bearer b"], Token(b"a, Bearer b")),
            (&["Bearer\ta"], Other),
            (&["Bearera"], Other),
            (&["BearerX a"], Other),
            (&["Basic YTpi"], Other),
            (&["Token a"], Other),
            (&["a.b.c"], Other),
            (&["x"], Other),
            (&["Bearer a", "Bearer a"], Nothing),
            (&["Bearer a", "Basic b"], Nothing),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(AUTHORIZATION, HeaderValue::from_str(line).unwrap());
            }
            assert_eq!(Credentials::of(&headers), shown, "{lines:?}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_bytes(b"Bearer \xff").unwrap());
        assert_eq!(Credentials::of(&headers).token(), None);
    }
}
