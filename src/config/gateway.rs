//! `[gateway]`: the replicas' front door.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

use super::InvalidConfig;
use super::address::{BackendUrl, Network};
use super::upstream::{Admin, Upstream};
use super::values::{list, listening_address, milliseconds, path_unless_empty, shown, switch};

/// Backends that a gateway has room for.
pub const MAX_BACKENDS: usize = 256;

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
    #[serde(deserialize_with = "switch")]
    pub drop_underscore_headers: bool,
    #[serde(deserialize_with = "switch")]
    pub access_log: bool,
    pub upstream: Upstream,
    pub admin: Admin,
}

impl Gateway {
    pub(super) fn check(&self) -> Result<(), InvalidConfig> {
        if self.backends.len() > MAX_BACKENDS {
            let why = format!("these are {}, and may be {MAX_BACKENDS}", self.backends.len());
            return Err(InvalidConfig::new("gateway.backends", why));
        }
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

/// A path, or with `/*` at its end everything below one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathPattern {
    /// This path alone.
    Exactly(String),
    /// What begins with this, which ends in a slash.
    Below(String),
}

impl FromStr for PathPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<PathPattern, String> {
        let path = text.strip_suffix("/*").unwrap_or(text);
        if !text.starts_with('/') || path.contains(['*', '?', '#', '%']) {
            let shown = shown(text);
            return Err(format!("{shown} is not a path such as /metrics or /health/*"));
        }
        Ok(match text.strip_suffix('*') {
            Some(folder) if folder.ends_with('/') => PathPattern::Below(folder.to_owned()),
            _ => PathPattern::Exactly(text.to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_path_or_all_below_one() {
        for (text, pattern) in [
            ("/metrics", PathPattern::Exactly("/metrics".into())),
            ("/health/*", PathPattern::Below("/health/".into())),
            ("/*", PathPattern::Below("/".into())),
        ] {
            assert_eq!(text.parse(), Ok(pattern), "{text}");
        }
        for text in ["metrics", "", "*", "/a*", "/*/b", "/a/*/*", "/*/*", "/a?b", "/%61"] {
            assert!(text.parse::<PathPattern>().is_err(), "{text}");
        }
    }
}
