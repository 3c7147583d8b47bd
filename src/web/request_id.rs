//! `X-Request-Id`: what the lines of all logs about one request have in common.

use ::http::header::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

/// The header.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that is taken over, in bytes.
const LONGEST: usize = 64;

/// The id that the client or a proxy gave, if it is one, short and plain, or a new one.
pub fn request_id(headers: &HeaderMap) -> HeaderValue {
    let mut given = headers.get_all(REQUEST_ID).iter();
    match (given.next(), given.next()) {
        (Some(id), None) if is_plain(id) => id.clone(),
        _ => {
            let mut text = Uuid::encode_buffer();
            let text = Uuid::new_v4().simple().encode_lower(&mut text);
            HeaderValue::from_str(text).expect("hexadecimal digits are a header value")
        }
    }
}

fn is_plain(id: &HeaderValue) -> bool {
    (1..=LONGEST).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_kept_if_it_is_the_only_one_and_short_and_plain() {
        let longest = "x".repeat(LONGEST);
        let too_long = "x".repeat(LONGEST + 1);
        for (given, kept) in [
            (&["7"][..], true),
            (&["{0b9f~17}"], true),
            (&[&longest], true),
            (&[], false),
            (&[""], false),
            (&["two words"], false),
            (&["a, b"], false),
            (&[&too_long], false),
            (&["a", "b"], false),
            (&["a", "a"], false),
        ] {
            let mut headers = HeaderMap::new();
            for id in given {
                headers.append(REQUEST_ID, id.parse().unwrap());
            }
            let id = request_id(&headers);
            assert!(is_plain(&id), "{id:?}");
            assert_eq!(given.iter().any(|it| id == *it), kept, "{given:?}: {id:?}");
        }
    }
}
