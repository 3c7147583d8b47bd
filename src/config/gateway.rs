//! `[gateway]`: the replicas' front door.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de};

use super::upstream::{Admin, Upstream};
use super::values::{listening_address, milliseconds, path_unless_empty};
use super::{InvalidConfig, within};

/// Backends that a gateway has room for.
pub const MAX_BACKENDS: usize = 256;

/// The largest share of requests that a backend may be given; more would say nothing that 1
/// to 100 cannot.
const MAX_WEIGHT: u32 = 100;

/// `[gateway]`: where it listens, what is behind it, and limits on both.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    #[serde(deserialize_with = "listening_address")]
    pub address: SocketAddr,
    #[serde(deserialize_with = "list")]
    pub backends: Vec<BackendUrl>,
    #[serde(deserialize_with = "path_unless_empty")]
    pub tls_certificate: Option<PathBuf>,
    #[serde(deserialize_with = "path_unless_empty")]
    pub tls_key: Option<PathBuf>,
    pub max_connections: NonZeroUsize,
    pub header_limit: usize,
    #[serde(rename = "header_timeout_ms", deserialize_with = "milliseconds")]
    pub header_timeout: Duration,
    pub body_limit: u64,
    #[serde(rename = "connect_timeout_ms", deserialize_with = "milliseconds")]
    pub connect_timeout: Duration,
    #[serde(rename = "response_timeout_ms", deserialize_with = "milliseconds")]
    pub response_timeout: Duration,
    #[serde(rename = "body_timeout_ms", deserialize_with = "milliseconds")]
    pub body_timeout: Duration,
    #[serde(rename = "tunnel_timeout_ms", deserialize_with = "milliseconds")]
    pub tunnel_timeout: Duration,
    pub backend_connections: NonZeroUsize,
    #[serde(rename = "backend_idle_ms", deserialize_with = "milliseconds")]
    pub backend_idle: Duration,
    #[serde(deserialize_with = "list")]
    pub trusted_proxies: Vec<Network>,
    #[serde(deserialize_with = "list")]
    pub hidden_paths: Vec<PathPattern>,
    #[serde(deserialize_with = "list")]
    pub spending_paths: Vec<PathPattern>,
    pub drop_underscore_headers: bool,
    pub access_log: bool,
    pub upstream: Upstream,
    pub admin: Admin,
}

impl Gateway {
    pub(super) fn check(&self) -> Result<(), InvalidConfig> {
        // hyper takes no less, sockets no more.
        within("gateway.header_limit", self.header_limit, 8192..=1 << 24)?;
        within("gateway.max_connections", self.max_connections.get(), 1..=1_000_000)?;
        within("gateway.backend_connections", self.backend_connections.get(), 1..=1_000_000)?;
        within("number of gateway.backends", self.backends.len(), 0..=MAX_BACKENDS)?;
        for (at, backend) in self.backends.iter().enumerate() {
            if self.backends[..at].iter().any(|other| other.name() == backend.name()) {
                let why = format!("{} is named twice", backend.name());
                return Err(InvalidConfig::new("gateway.backends", why));
            }
        }
        match (&self.tls_certificate, &self.tls_key) {
            (Some(_), None) => return Err(InvalidConfig::new("gateway.tls_key", "is missing")),
            (None, Some(_)) => {
                return Err(InvalidConfig::new("gateway.tls_certificate", "is missing"));
            }
            _ => {}
        }
        self.upstream.check()?;
        self.admin.check()
    }
}

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
        Some(SocketAddr::new(ip, self.port))
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

/// Addresses written as one (`10.0.0.1`) or as a range (`10.0.0.0/8`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(pub IpNet);

/// A path, or with `/*` at its end everything below one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathPattern {
    /// This path alone.
    Exactly(String),
    /// What begins with this, which ends in a slash.
    Below(String),
}

impl FromStr for BackendUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<BackendUrl, String> {
        let wrong = || format!("{text:?} is not http://host:port or http://host:port#weight=3");
        let (url, weight) = match text.split_once("#weight=") {
            Some((url, weight)) => (url, weight.parse().map_err(|_| wrong())?),
            None => (text, 1),
        };
        let authority = url.strip_prefix("http://").ok_or_else(wrong)?;
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let (host, port) = match authority.rsplit_once(':') {
            // The last colon of an address in brackets is not before a port.
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| wrong())?)
            }
            _ => (authority, 80),
        };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let well_formed = match bare {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => {
                !host.is_empty()
                    && host
                        .bytes()
                        .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
            }
        };
        if !well_formed || port == 0 {
            return Err(wrong());
        }
        let host = bare.unwrap_or(host).to_ascii_lowercase();
        BackendUrl { host, port, weight: 1 }.with_weight(weight).ok_or_else(wrong)
    }
}

impl fmt::Display for BackendUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let brackets = self.host.contains(':');
        let (open, close) = if brackets { ("[", "]") } else { ("", "") };
        write!(f, "http://{open}{}{close}:{}", self.host, self.port)
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Network, String> {
        let address = text.parse::<std::net::IpAddr>().map(IpNet::from);
        address
            .or_else(|_| text.parse())
            .map(Network)
            .map_err(|_| format!("{text:?} is neither an address nor a range such as 10.0.0.0/8"))
    }
}

impl FromStr for PathPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<PathPattern, String> {
        if !text.starts_with('/') || text.trim_end_matches("/*").contains(['*', '?', '#', '%']) {
            return Err(format!("{text:?} is not a path such as /metrics or /health/*"));
        }
        Ok(match text.strip_suffix('*') {
            Some(folder) if folder.ends_with('/') => PathPattern::Below(folder.to_owned()),
            _ => PathPattern::Exactly(text.to_owned()),
        })
    }
}

/// A list in a file; in the environment and in flags, items with commas between them.
fn list<'de, D, T>(value: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err = String>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        List(Vec<String>),
        Text(String),
    }
    let items = match Written::deserialize(value)? {
        Written::List(items) => items,
        Written::Text(text) => text.split(',').map(|item| item.trim().to_owned()).collect(),
    };
    let given = items.iter().filter(|item| !item.is_empty());
    given.map(|item| item.parse().map_err(de::Error::custom)).collect()
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
        ] {
            assert!(text.parse::<BackendUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_network_is_an_address_or_a_range() {
        for (text, same) in [
            ("10.0.0.1", "10.0.0.1/32"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("::1", "::1/128"),
            ("fd00::/8", "fd00::/8"),
        ] {
            assert_eq!(text.parse(), Ok(Network(same.parse().unwrap())), "{text}");
        }
        for text in ["", "10", "10.0.0.0/33", "localhost"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_pattern_is_a_path_or_all_below_one() {
        for (text, pattern) in [
            ("/metrics", PathPattern::Exactly("/metrics".into())),
            ("/health/*", PathPattern::Below("/health/".into())),
            ("/*", PathPattern::Below("/".into())),
        ] {
            assert_eq!(text.parse(), Ok(pattern), "{text}");
        }
        for text in ["metrics", "", "*", "/a*", "/*/b", "/a?b", "/%61"] {
            assert!(text.parse::<PathPattern>().is_err(), "{text}");
        }
    }
}
