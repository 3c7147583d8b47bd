//! One spelling for every path that is one of ours.

use std::borrow::Cow;

use ::http::Uri;
use ::http::uri::PathAndQuery;

use super::target::is_unreserved;

/// Spells the path of `uri` as routes are spelt; see [`settled`].
pub fn settle(uri: &mut Uri) {
    let Cow::Owned(mut path) = settled(uri.path()) else { return };
    if let Some(query) = uri.query() {
        path.push('?');
        path += query;
    }
    let mut parts = std::mem::take(uri).into_parts();
    // Without escapes a path is one as much as it was with them.
    parts.path_and_query = PathAndQuery::try_from(path).ok().or(parts.path_and_query);
    *uri = Uri::from_parts(parts).unwrap_or_default();
}

/// `path` without escapes of what needs none (RFC 3986, 6.2.2.2) and without a slash at its
/// end. Nothing else is made equal: an escaped slash is no slash, dots and empty segments lead
/// nowhere, and nothing is decoded twice.
pub fn settled(path: &str) -> Cow<'_, str> {
    let is_slashed = path.len() > 1 && path.ends_with('/');
    if !is_slashed && memchr::memchr(b'%', path.as_bytes()).is_none() {
        return Cow::Borrowed(path);
    }
    let mut settled = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((plain, escaped)) = rest.split_once('%') {
        settled += plain;
        let hidden = escaped.get(..2).filter(|it| it.bytes().all(|it| it.is_ascii_hexdigit()));
        let hidden = hidden.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        rest = match hidden.filter(|byte| is_unreserved(*byte)) {
            Some(byte) => {
                settled.push(char::from(byte));
                &escaped[2..]
            }
            None => {
                settled.push('%');
                escaped
            }
        };
    }
    settled += rest;
    if settled.len() > 1 && settled.ends_with('/') {
        settled.pop();
    }
    Cow::Owned(settled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_one_spelling_and_what_is_another_path_stays_one() {
        for (path, expected) in [
            ("/", "/"),
            ("*", "*"),
            ("", ""),
            ("/api/info", "/api/info"),
            ("/api/%69nfo", "/api/info"),
            ("/%61%70%69/info", "/api/info"),
            ("/api/%69%6E%66%6f", "/api/info"),
            ("/api/info/", "/api/info"),
            ("/api/%69nfo/", "/api/info"),
            ("/api/buy/t%2Dshirt", "/api/buy/t-shirt"),
            ("/api/buy/%7e%5F%2e", "/api/buy/~_."),
            ("/api/buy/", "/api/buy"),
            // Only one slash, and only a slash.
            ("//", "/"),
            ("/api/info//", "/api/info/"),
            ("/api//info", "/api//info"),
            ("/api%2Finfo", "/api%2Finfo"),
            ("/api/info%2F", "/api/info%2F"),
            ("/api/info%2f/", "/api/info%2f"),
            // Not twice.
            ("/api/%2569nfo", "/api/%2569nfo"),
            ("/api/%%36%39nfo", "/api/%69nfo"),
            // No escapes at all.
            ("/%", "/%"),
            ("/%6", "/%6"),
            ("/%zz/%6g", "/%zz/%6g"),
            ("/%+6/%-1", "/%+6/%-1"),
            ("/%\u{e9}9", "/%\u{e9}9"),
            // What needs its escape.
            ("/%00%0a%20%25%3b%3f%23%5c%c3%a9%FF", "/%00%0a%20%25%3b%3f%23%5c%c3%a9%FF"),
            // Dots are dots, and lead nowhere.
            ("/x/%2e%2E/info", "/x/../info"),
            ("/api/./info", "/api/./info"),
            ("/api/info;v=1", "/api/info;v=1"),
        ] {
            assert_eq!(settled(path), expected, "{path}");
        }
        assert!(matches!(settled("/api/info"), Cow::Borrowed(_)));
    }

    #[test]
    fn what_else_a_target_says_stays_as_it_is() {
        for (target, expected) in [
            ("/%61?b=%63/&d=?", "/a?b=%63/&d=?"),
            ("/a/?", "/a?"),
            ("/a/?b", "/a?b"),
            ("http://Shop:80/%61/?b", "http://Shop:80/a?b"),
            ("/a?b/", "/a?b/"),
            ("http://shop/", "http://shop/"),
        ] {
            let mut uri: Uri = target.parse().unwrap();
            settle(&mut uri);
            assert_eq!(uri.to_string(), expected, "{target}");
        }
    }
}
