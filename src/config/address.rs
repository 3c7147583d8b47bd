//! Addresses as the settings have them: of a server to pass requests on to, and of proxies that
//! are believed. What could be read as something else than was meant is refused.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::values::shown;

/// The largest share of requests that a backend may be given; more would say nothing that 1
/// to 100 cannot.
const MAX_WEIGHT: u32 = 100;

/// `http://host:port`, the port being 80 if it is left out, and perhaps `#weight=3`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendUrl {
    /// A name or an address, without the brackets of IPv6.
    pub host: String,
    pub port: u16,
    /// The share of requests relative to that of the others, 1 to 100; 1 if it is left out.
    pub weight: u32,
}

impl BackendUrl {
    /// The socket address, unless the host is a name that must be looked up.
    pub fn address(&self) -> Option<SocketAddr> {
        let ip: IpAddr = self.host.parse().ok()?;
        // IPv4 in IPv6's clothes is the same place.
        Some(SocketAddr::new(ip.to_canonical(), self.port))
    }

    /// What it is called: `host:port`, always spelt the same.
    pub fn name(&self) -> String {
        match self.address() {
            Some(address) => address.to_string(),
            None => format!("{}:{}", self.host, self.port),
        }
    }

    /// The same place with another share; `None` if there is no such share.
    pub fn with_weight(self, weight: u32) -> Option<BackendUrl> {
        (1..=MAX_WEIGHT).contains(&weight).then_some(BackendUrl { weight, ..self })
    }
}

/// Addresses written as one (`10.0.0.1`, `[::1]`) or as a range (`10.0.0.0/8`,
/// `10.0.0.0/255.0.0.0`), whose address may be any in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(pub IpNet);

/// A prefix below which translators embed addresses of IPv4 (RFC 6052).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TranslationPrefix(pub Ipv6Net);

impl FromStr for BackendUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<BackendUrl, String> {
        let shown = shown(text);
        let wrong = || format!("{shown} is not http://host:port or http://host:port#weight=3");
        let (url, weight) = match text.split_once("#weight=") {
            Some((url, weight)) => (url, number(weight).ok_or_else(wrong)?),
            None => (text, 1),
        };
        let (scheme, authority) = url.split_once("://").ok_or_else(wrong)?;
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let (host, port) = match authority.rsplit_once(':') {
            // The last colon of an address in brackets is not before a port.
            Some((host, port)) if !port.ends_with(']') => (host, number(port).ok_or_else(wrong)?),
            _ => (authority, 80),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let well_formed = match bare {
            Some(address) => address.parse::<Ipv6Addr>().is_ok(),
            None => is_name(host) || host.parse::<std::net::Ipv4Addr>().is_ok(),
        };
        if !scheme.eq_ignore_ascii_case("http") || !well_formed || port == 0 {
            return Err(wrong());
        }
        let host = bare.unwrap_or(host).to_ascii_lowercase();
        let url = BackendUrl { host, port, weight: 1 }.with_weight(weight).ok_or_else(wrong)?;
        if url.address().is_some_and(|address| address.ip().is_unspecified()) {
            return Err(format!("{shown} is where to listen; name an address to connect to"));
        }
        Ok(url)
    }
}

impl fmt::Display for BackendUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let brackets = self.host.contains(':');
        let (open, close) = if brackets { ("[", "]") } else { ("", "") };
        write!(f, "http://{open}{}{close}:{}", self.host, self.port)
    }
}

/// A number of nothing but digits: other parsers take a sign.
fn number<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Whether `host` can be looked up, and could not be read as an address: `127.1`, `0x7f000001`
/// and `010.0.0.1` can, in more than one way.
fn is_name(host: &str) -> bool {
    let of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let is_label = |it: &str| (1..=63).contains(&it.len()) && it.bytes().all(of_name);
    let is_number = |it: &str| {
        let digits = it.strip_prefix("0x").or(it.strip_prefix("0X"));
        let is_hexadecimal = |it: &str| it.bytes().all(|byte| byte.is_ascii_hexdigit());
        it.bytes().all(|byte| byte.is_ascii_digit()) || digits.is_some_and(is_hexadecimal)
    };
    let labels = host.strip_suffix('.').unwrap_or(host);
    host.len() <= 254
        && labels.split('.').all(is_label)
        && !labels.split('.').next_back().is_some_and(is_number)
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Network, String> {
        let network = network(text).ok_or_else(|| {
            let shown = shown(text);
            format!("{shown} is neither an address nor a range such as 10.0.0.0/8 or fd00::/8")
        })?;
        if network.addr().is_unspecified() && network.prefix_len() == network.max_prefix_len() {
            return Err(format!("{text:?} is nobody's address; {}/0 is everybody", network.addr()));
        }
        Ok(Network(network))
    }
}

impl FromStr for TranslationPrefix {
    type Err = String;

    fn from_str(text: &str) -> Result<TranslationPrefix, String> {
        match network(text) {
            // The ninth octet is never part of an address of IPv4, so it must be free.
            Some(IpNet::V6(prefix))
                if [32, 40, 48, 56, 64, 96].contains(&prefix.prefix_len())
                    && prefix.network().octets()[8] == 0 =>
            {
                Ok(TranslationPrefix(prefix.trunc()))
            }
            _ => Err(format!(
                "{} is not a prefix of IPv6 with 32, 40, 48, 56, 64 or 96 bits, such as \
                 64:ff9b::/96",
                shown(text)
            )),
        }
    }
}

/// The addresses that `text` means; IPv4 in IPv6's clothes is IPv4, as clients are.
fn network(text: &str) -> Option<IpNet> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let bare = address.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let address: IpAddr = match bare {
        Some(address) => address.parse::<Ipv6Addr>().ok()?.into(),
        None => address.parse().ok()?,
    };
    let length = match length {
        None => IpNet::from(address).max_prefix_len(),
        Some(length) => match (length.parse(), address) {
            (Ok(mask @ IpAddr::V4(_)), IpAddr::V4(_))
            | (Ok(mask @ IpAddr::V6(_)), IpAddr::V6(_)) => ipnet::ip_mask_to_prefix(mask).ok()?,
            (Ok(_), _) => return None,
            (Err(_), _) => number(length)?,
        },
    };
    match address.to_canonical() {
        IpAddr::V4(inner) if address.is_ipv6() => {
            Ipv4Net::new(inner, length.checked_sub(96)?).ok().map(IpNet::V4)
        }
        address => IpNet::new(address, length).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_of_a_backend_is_a_scheme_a_host_and_a_port() {
        for (text, host, port, weight, name) in [
            ("http://127.0.0.1:8080", "127.0.0.1", 8080, 1, "127.0.0.1:8080"),
            ("http://Shop-1.internal:80/", "shop-1.internal", 80, 1, "shop-1.internal:80"),
            ("http://shop#weight=100", "shop", 80, 100, "shop:80"),
            ("http://[::1]:8080", "::1", 8080, 1, "[::1]:8080"),
            ("http://[0:0::1]", "0:0::1", 80, 1, "[::1]:80"),
            ("HTTP://LOCALHOST:08080", "localhost", 8080, 1, "localhost:8080"),
            ("http://[::FFFF:10.0.0.1]:1", "::ffff:10.0.0.1", 1, 1, "10.0.0.1:1"),
            ("http://shop.example.:80", "shop.example.", 80, 1, "shop.example.:80"),
            ("http://my_shop-1:80", "my_shop-1", 80, 1, "my_shop-1:80"),
            ("http://10.0.0.1.nip.io", "10.0.0.1.nip.io", 80, 1, "10.0.0.1.nip.io:80"),
        ] {
            let url: BackendUrl = text.parse().unwrap();
            assert_eq!(url, BackendUrl { host: host.into(), port, weight }, "{text}");
            assert_eq!(url.name(), name, "{text}");
        }
        for text in [
            "",
            "shop:80",
            "https://shop",
            "http://",
            "http://:80",
            "http://shop:0",
            "http://shop:65536",
            "http://user@shop",
            "http://shop/api",
            "http://::1:80",
            "http://[shop]:80",
            "http://shop#weight=0",
            "http://shop#weight=101",
            "http://shop#weight=",
            "http://shop#3",
            "http://sh op",
            "http://shop:",
            "http://shop:+80",
            "http://shop:80:80",
            "http://shop#weight=+3",
            "http://127.1",
            "http://010.0.0.1",
            "http://0x7f000001",
            "http://2130706433",
            "http://10.0.0.256",
            "http://10.0.0.0/8",
            "http://10.*",
            "http://a..b",
            "http://.",
            "http://[fe80::1%eth0]:80",
            "http://[10.0.0.1]",
            "http://[::1",
            "http://0.0.0.0:80",
            "http://[::]:80",
            "http://[::ffff:0.0.0.0]:80",
            "//shop",
        ] {
            assert!(text.parse::<BackendUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_network_is_an_address_or_a_range() {
        for (text, same) in [
            ("10.0.0.1", "10.0.0.1/32"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.1/8", "10.0.0.1/8"),
            ("10.0.0.0/255.0.0.0", "10.0.0.0/8"),
            ("10.0.0.0/0.0.0.0", "10.0.0.0/0"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
            ("::1", "::1/128"),
            ("[::1]", "::1/128"),
            ("[fd00::]/8", "fd00::/8"),
            ("FD00::/8", "fd00::/8"),
            ("fd00::/ff00::", "fd00::/8"),
            ("::ffff:10.0.0.1", "10.0.0.1/32"),
            ("[::ffff:10.0.0.1]", "10.0.0.1/32"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
        ] {
            assert_eq!(text.parse(), Ok(Network(same.parse().unwrap())), "{text}");
        }
        for text in [
            "",
            "10",
            "10.*",
            "10.0.0",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/-8",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "10.0.0.0 /8",
            "10.0.0.0-10.0.0.9",
            "10.0.0.0/255.0.255.0",
            "10.0.0.0/ff00::",
            "fd00::/255.0.0.0",
            "010.0.0.1",
            "10.0.0.1:80",
            "[10.0.0.1]",
            "[::1]:80",
            "[::1",
            "fd00::/129",
            "fe80::1%eth0",
            "::ffff:10.0.0.0/64",
            "0.0.0.0",
            "::",
            "::ffff:0.0.0.0",
            "localhost",
            "private",
            "http://10.0.0.1",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_prefix_of_translated_addresses_has_one_of_six_lengths() {
        for text in ["64:ff9b::/96", "[64:ff9b::]/96", "64:ff9b:1::/48", "64:ff9b:1:2::5/64"] {
            assert!(text.parse::<TranslationPrefix>().is_ok(), "{text}");
        }
        for text in ["64:ff9b::", "64:ff9b::/95", "64:ff9b::/128", "10.0.0.0/8", "::ffff:0:0/96"] {
            assert!(text.parse::<TranslationPrefix>().is_err(), "{text}");
        }
        assert!("64:ff9b:0:0:100::/96".parse::<TranslationPrefix>().is_err());
    }
}
