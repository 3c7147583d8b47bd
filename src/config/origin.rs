//! Origins of pages, as browsers write them.

use std::net::Ipv6Addr;
use std::str::FromStr;

use super::values::shown;

/// `https://shop.example`, with a port where it is not the scheme's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(pub String);

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Origin, String> {
        if ["*", "null"].contains(&text) {
            return Err(format!("{text:?} would be anybody's page; name each origin"));
        }
        let is_origin = text.split_once("://").is_some_and(|(scheme, host)| {
            let (host, port) = match host.rsplit_once(':') {
                Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
                _ => (host, None),
            };
            is_scheme(scheme) && is_host(host) && port.is_none_or(|port| is_port(scheme, port))
        });
        match is_origin {
            true => Ok(Origin(text.to_owned())),
            false => Err(format!(
                "{} is not an origin as browsers write it, such as https://shop.example or \
                 http://localhost:3000: lower case, no path, no slash at its end, no port that is \
                 the scheme's own",
                shown(text)
            )),
        }
    }
}

fn is_scheme(scheme: &str) -> bool {
    let is_in =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
    scheme.starts_with(|first: char| first.is_ascii_lowercase()) && scheme.bytes().all(is_in)
}

fn is_host(host: &str) -> bool {
    let is_in =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte);
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse().is_ok_and(|it: Ipv6Addr| it.to_string() == address),
        None => !host.is_empty() && host.bytes().all(is_in),
    }
}

fn is_port(scheme: &str, port: &str) -> bool {
    let own = [("http", 80), ("https", 443)];
    port.parse()
        .is_ok_and(|it: u16| it != 0 && it.to_string() == port && !own.contains(&(scheme, it)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_what_a_browser_would_send() {
        for text in [
            "https://shop.example",
            "http://localhost:3000",
            "http://127.0.0.1:8080",
            "https://[::1]:8443",
            "https://xn--bcher-kva.example",
            "https://shop.example:80",
            "chrome-extension://abcdefghijklmnop",
        ] {
            assert_eq!(text.parse(), Ok(Origin(text.into())));
        }
        for text in [
            "",
            "*",
            "null",
            "shop.example",
            "//shop.example",
            "https://",
            "https://*",
            "https://*.shop.example",
            "https://shop.example/",
            "https://shop.example/app",
            "https://shop.example?a",
            "https://shop.example#a",
            "https://user@shop.example",
            "https://shop.example:",
            "https://shop.example:0",
            "https://shop.example:443",
            "http://shop.example:80",
            "https://shop.example:08443",
            "https://shop.example:+1",
            "https://shop.example:65536",
            "HTTPS://shop.example",
            "https://Shop.example",
            "https://b\u{fc}cher.example",
            "https://shop example",
            "https://[0:0::1]",
            "https://[shop]",
            "https://::1",
            "https://a https://b",
        ] {
            assert!(text.parse::<Origin>().is_err(), "{text}");
        }
        assert!("*".parse::<Origin>().unwrap_err().contains("anybody"));
    }
}
