//! Which host a request is for, and what of it.

use std::net::Ipv6Addr;

use ::http::header::{HOST, HeaderMap};
use ::http::uri::Authority;
use ::http::{Method, Uri, Version};

use super::Unfit;

/// Refuses a request that is not for exactly one host, or not for a path there. A host in the
/// target wins against `Host` in HTTP/1 (RFC 9112, 3.2.2), and in HTTP/2 they must be the same
/// (RFC 9113, 8.3.1). Only HTTP/1.0 may do without one.
pub(super) fn check(
    method: &Method,
    uri: &Uri,
    version: Version,
    headers: &HeaderMap,
) -> Result<(), Unfit> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next().map(|host| host.as_bytes());
    if hosts.next().is_some() || host.is_some_and(|host| !is_host(host)) {
        return Err(Unfit::Host);
    }
    let authority = uri.authority().map(|authority| Authority::as_str(authority).as_bytes());
    let is_named = match version {
        Version::HTTP_10 => true,
        Version::HTTP_2 => host.is_some() || authority.is_some(),
        _ => host.is_some(),
    };
    let differs = |authority: &[u8]| {
        version == Version::HTTP_2 && host.is_some_and(|host| !host.eq_ignore_ascii_case(authority))
    };
    if !is_named || authority.is_some_and(|it| !is_host(it) || differs(it)) {
        return Err(Unfit::Host);
    }
    let is_target = match uri.scheme_str() {
        Some(scheme) => ["http", "https"].contains(&scheme) && uri.path().starts_with('/'),
        None if *method == Method::CONNECT => authority.is_some(),
        None => uri.path().starts_with('/') || (*method == Method::OPTIONS && uri.path() == "*"),
    };
    is_target.then_some(()).ok_or(Unfit::Target)
}

/// Whether `host` is a host, with or without a port, that everybody reads as the same one: a
/// name, an IPv4 address, or an IPv6 address in brackets and without a zone (RFC 3986, 3.2.2).
/// A comma is not taken for part of a name: what joins lines puts it between two.
pub(super) fn is_host(text: &[u8]) -> bool {
    if let Some(rest) = text.strip_prefix(b"[") {
        let Some(end) = memchr::memchr(b']', rest) else { return false };
        let address = std::str::from_utf8(&rest[..end]).unwrap_or_default();
        return address.parse::<Ipv6Addr>().is_ok() && is_port(&rest[end + 1..]);
    }
    let (host, port) = text.split_at(memchr::memchr(b':', text).unwrap_or(text.len()));
    !host.is_empty() && is_name(host) && is_port(port)
}

/// Nothing, or a colon and up to 65535; the number may be left out.
fn is_port(text: &[u8]) -> bool {
    let Some(digits) = text.strip_prefix(b":") else { return text.is_empty() };
    let port = digits.iter().try_fold(0_u16, |port, digit| {
        let digit = char::from(*digit).to_digit(10)?;
        port.checked_mul(10)?.checked_add(digit as u16)
    });
    port.is_some()
}

fn is_name(mut text: &[u8]) -> bool {
    loop {
        text = match text {
            [] => return true,
            [b'%', high, low, rest @ ..] => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                let (Some(high), Some(low)) = (digit(high), digit(low)) else { return false };
                // What an escape hides must not be a delimiter, nor what no name has.
                let hidden = (high * 16 + low) as u8;
                if !is_unreserved(hidden) && hidden.is_ascii() {
                    return false;
                }
                rest
            }
            [byte, rest @ ..] if is_unreserved(*byte) || b"!$&'()*+;=".contains(byte) => rest,
            _ => return false,
        }
    }
}

/// Whether `byte` means the same with and without an escape (RFC 3986, 2.3).
pub(super) fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use ::http::HeaderValue;

    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
        for host in [
            "shop",
            "Shop.Example",
            "shop.example.",
            "shop_1.example-2.com:8080",
            "127.0.0.1",
            "127.0.0.1:80",
            "[::1]",
            "[2001:db8::7]:443",
            "[::ffff:192.0.2.1]:1",
            "localhost:",
            "localhost:0",
            "localhost:00080",
            "localhost:65535",
            "xn--bcher-kva.example",
            "b%C3%BCcher.example",
            "%6cocalhost",
        ] {
            assert!(is_host(host.as_bytes()), "{host}");
        }
        for host in [
            "",
            ":",
            ":80",
            " ",
            "a b",
            "a\tb",
            "a,b",
            "a, b",
            "a,",
            "user@a",
            "user:password@a",
            "@a",
            "a/b",
            "/a",
            "a?b",
            "a#b",
            "a\\b",
            "http://a",
            "a:80:80",
            "a:port",
            "a:-1",
            "a:+80",
            "a:8 0",
            "a:65536",
            "a:99999999999999999999",
            "::1",
            "[::1",
            "::1]",
            "[]",
            "[]:80",
            "[::1]80",
            "[::1]:x",
            "[[::1]]",
            "a[::1]",
            "[127.0.0.1]",
            "[shop]",
            "[::1%25eth0]",
            "[::1%eth0]",
            "[fe80::1%1]:80",
            "[v1.a]",
            "a%",
            "a%2",
            "a%zz",
            "a%00",
            "a%2f",
            "a%40b",
            "a%3a80",
            "a\"b",
            "<a>",
            "{a}",
            "a|b",
            "a^b",
            "a`b",
            "\u{e9}",
            "a\0b",
            "a\x7f",
        ] {
            assert!(!is_host(host.as_bytes()), "{host:?}");
        }
    }

    /// What becomes of a request with these hosts.
    fn checked(
        version: Version,
        method: &str,
        target: &str,
        hosts: &[&'static str],
    ) -> Result<(), Unfit> {
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, HeaderValue::from_static(host));
        }
        check(&method.parse().unwrap(), &target.parse().unwrap(), version, &headers)
    }

    #[test]
    fn a_request_is_for_one_host_and_what_is_there() {
        const V10: Version = Version::HTTP_10;
        const V11: Version = Version::HTTP_11;
        const V2: Version = Version::HTTP_2;
        for (version, method, target, hosts, expected) in [
            (V11, "GET", "/", &["a"][..], Ok(())),
            (V11, "GET", "/", &[], Err(Unfit::Host)),
            (V11, "GET", "/", &[""], Err(Unfit::Host)),
            (V11, "GET", "/", &["a", "a"], Err(Unfit::Host)),
            (V11, "GET", "/", &["a", "b"], Err(Unfit::Host)),
            (V11, "GET", "/", &["a, a"], Err(Unfit::Host)),
            (V11, "OPTIONS", "*", &["a"], Ok(())),
            (V11, "GET", "*", &["a"], Err(Unfit::Target)),
            (V11, "GET", "a:80", &["a:80"], Err(Unfit::Target)),
            (V11, "CONNECT", "a:80", &["a:80"], Ok(())),
            (V11, "CONNECT", "/", &["a"], Err(Unfit::Target)),
            // The target's host wins, and Host must be there and be one all the same.
            (V11, "GET", "http://a/", &["a"], Ok(())),
            (V11, "GET", "http://a/", &["b"], Ok(())),
            (V11, "GET", "https://a:1/", &["a"], Ok(())),
            (V11, "GET", "http://a/", &[], Err(Unfit::Host)),
            (V11, "GET", "http://a/", &["a", "a"], Err(Unfit::Host)),
            (V11, "GET", "http://a/", &["u@a"], Err(Unfit::Host)),
            (V11, "GET", "http://u@a/", &["a"], Err(Unfit::Host)),
            (V11, "GET", "http://a:x/", &["a"], Err(Unfit::Host)),
            (V11, "GET", "ftp://a/", &["a"], Err(Unfit::Target)),
            (V10, "GET", "/", &[], Ok(())),
            (V10, "GET", "/", &["a"], Ok(())),
            (V10, "GET", "/", &[""], Err(Unfit::Host)),
            (V10, "GET", "/", &["a", "a"], Err(Unfit::Host)),
            (V10, "GET", "http://a/", &[], Ok(())),
            (V2, "GET", "http://a/", &[], Ok(())),
            (V2, "GET", "http://a/", &["A"], Ok(())),
            (V2, "GET", "http://a/", &["b"], Err(Unfit::Host)),
            (V2, "GET", "http://a/", &["a", "a"], Err(Unfit::Host)),
            (V2, "GET", "http://u@a/", &[], Err(Unfit::Host)),
            (V2, "GET", "/", &["a"], Ok(())),
            (V2, "GET", "/", &[], Err(Unfit::Host)),
        ] {
            // The reader of URIs refuses some before.
            if target.parse::<Uri>().is_err() {
                continue;
            }
            let place = format!("{version:?} {method} {target} {hosts:?}");
            assert_eq!(checked(version, method, target, hosts), expected, "{place}");
        }
    }
}
