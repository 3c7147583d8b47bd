//! A backend as the operator writes it: `http://host:port#weight=3`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use hyper::Uri;

/// The share that a backend has unless told otherwise.
const DEFAULT_WEIGHT: u32 = 1;

/// The largest share; more would say nothing that 1 to 100 cannot.
pub const MAX_WEIGHT: u32 = 100;

/// Where a backend, or all the backends behind one host name, can be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    host: String,
    port: u16,
    weight: u32,
}

/// Why a text is no origin; meant for whoever wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a backend: it must be http://HOST:PORT, with #weight=1 to #weight=100 if you like"
)]
pub struct InvalidOrigin(String);

impl Origin {
    /// The same place with another share; `None` if there is no such share.
    pub fn with_weight(self, weight: u32) -> Option<Origin> {
        (1..=MAX_WEIGHT).contains(&weight).then_some(Origin { weight, ..self })
    }

    /// The host name or address, IPv6 without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, 80 if none was given.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The share relative to the others, 1 to 100.
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// The socket address, unless the host is a name that must be looked up.
    pub fn address(&self) -> Option<SocketAddr> {
        let ip: IpAddr = self.host.parse().ok()?;
        Some(SocketAddr::new(ip, self.port))
    }

    /// What it is called: `host:port`.
    pub fn name(&self) -> String {
        match self.address() {
            Some(address) => address.to_string(),
            None => format!("{}:{}", self.host, self.port),
        }
    }
}

impl FromStr for Origin {
    type Err = InvalidOrigin;

    fn from_str(text: &str) -> Result<Origin, InvalidOrigin> {
        parse(text).ok_or_else(|| InvalidOrigin(text.into()))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

fn parse(text: &str) -> Option<Origin> {
    let (url, weight) = match text.split_once('#') {
        Some((url, fragment)) => (url, fragment.strip_prefix("weight=")?.parse().ok()?),
        None => (text, DEFAULT_WEIGHT),
    };
    let url: Uri = url.parse().ok()?;
    let authority = url.authority()?;
    let has_more = authority.as_str().contains('@') || url.path() != "/" || url.query().is_some();
    if url.scheme_str() != Some("http") || has_more {
        return None;
    }
    // A port that is there but is none must not become the default.
    let after_host = authority.as_str().strip_prefix(authority.host())?;
    let port = match after_host.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|port| *port != 0)?,
        None => 80,
    };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let host = host.to_ascii_lowercase();
    Origin { host, port, weight }.with_weight(weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_become_names_addresses_and_weights() {
        for (text, name, is_address, weight) in [
            ("http://127.0.0.1:8081", "127.0.0.1:8081", true, 1),
            ("http://127.0.0.1:8081/", "127.0.0.1:8081", true, 1),
            ("http://[::1]:8081", "[::1]:8081", true, 1),
            ("http://Shop:8080#weight=100", "shop:8080", false, 100),
            ("http://shop.example", "shop.example:80", false, 1),
        ] {
            let origin: Origin = text.parse().unwrap();
            assert_eq!(origin.name(), name, "{text}");
            assert_eq!(origin.address().is_some(), is_address, "{text}");
            assert_eq!(origin.weight(), weight, "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "",
            "shop",
            "shop:8080",
            "https://shop:8443",
            "http://",
            "http://user:secret@shop",
            "http://shop/api",
            "http://shop?x=1",
            "http://shop:0",
            "http://shop:99999",
            "http://shop:x",
            "http://shop#weight=0",
            "http://shop#weight=101",
            "http://shop#3",
        ] {
            assert!(text.parse::<Origin>().is_err(), "{text}");
        }
    }
}
