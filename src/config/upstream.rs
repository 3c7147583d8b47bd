//! `[gateway.upstream]` and `[gateway.admin]`: which backend is picked, how we know that it
//! is well, and where the operator changes that.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use ::http::uri::PathAndQuery;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::InvalidConfig;
use super::values::{
    Choice, address_unless_empty, choice, milliseconds, milliseconds_or_none, secret_unless_empty,
};

/// The shortest token that is not guessed over a network.
const MIN_TOKEN_BYTES: usize = 16;

/// `[gateway.upstream]`: how a backend is picked.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    #[serde(deserialize_with = "choice")]
    pub strategy: Strategy,
    #[serde(rename = "slow_start_ms", deserialize_with = "milliseconds_or_none")]
    pub slow_start: Duration,
    #[serde(rename = "dns_interval_ms", deserialize_with = "milliseconds")]
    pub dns_interval: Duration,
    pub health: HealthChecks,
    pub ejection: Ejection,
    pub retry_budget: RetryBudget,
}

/// How the gateway chooses among the backends that may be picked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// Everybody in turn, as often as their weights say.
    #[default]
    RoundRobin,
    /// Whoever has the fewest requests under way for their weight.
    LeastConnections,
    /// The better of two at random: latency times requests under way, for their weight.
    P2cEwma,
}

impl Choice for Strategy {
    const CHOICES: &[(&str, Strategy)] = &[
        ("round_robin", Strategy::RoundRobin),
        ("least_connections", Strategy::LeastConnections),
        ("p2c_ewma", Strategy::P2cEwma),
    ];
}

/// `[gateway.upstream.health]`: the questions that backends are asked; none without a path.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthChecks {
    pub path: String,
    #[serde(rename = "interval_ms", deserialize_with = "milliseconds")]
    pub interval: Duration,
    #[serde(rename = "timeout_ms", deserialize_with = "milliseconds")]
    pub timeout: Duration,
    pub rise: NonZeroU32,
    pub fall: NonZeroU32,
}

/// `[gateway.upstream.ejection]`: what a backend's failures at real requests come to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ejection {
    pub failures: NonZeroU32,
    pub connect_failures: NonZeroU32,
    #[serde(rename = "base_ms", deserialize_with = "milliseconds")]
    pub base: Duration,
    #[serde(rename = "max_ms", deserialize_with = "milliseconds")]
    pub max: Duration,
}

/// `[gateway.upstream.retry_budget]`: how many requests may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryBudget {
    pub percent: u32,
    pub per_second: u32,
}

/// `[gateway.admin]`: an address of its own, never without a token.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    #[serde(deserialize_with = "address_unless_empty")]
    pub address: Option<SocketAddr>,
    #[serde(deserialize_with = "secret_unless_empty")]
    pub token: Option<SecretString>,
}

impl Upstream {
    pub(super) fn check(&self) -> Result<(), InvalidConfig> {
        let path = &self.health.path;
        let is_path = path.starts_with('/')
            && path.parse::<PathAndQuery>().is_ok_and(|parsed| parsed.as_str() == path);
        if !path.is_empty() && !is_path {
            return Err(InvalidConfig::new(
                "gateway.upstream.health.path",
                "it must be a path such as /health/ready, escaped where a URL wants that, or empty \
                 for no checks",
            ));
        }
        if self.ejection.max < self.ejection.base {
            return Err(InvalidConfig::new(
                "gateway.upstream.ejection.max_ms",
                "it must not be less than base_ms",
            ));
        }
        Ok(())
    }
}

impl Admin {
    pub(super) fn check(&self) -> Result<(), InvalidConfig> {
        let is_short = |token: &SecretString| token.expose_secret().len() < MIN_TOKEN_BYTES;
        let why = match (&self.address, &self.token) {
            (Some(_), None) => "it is required with gateway.admin.address",
            (_, Some(token)) if is_short(token) => "it must be at least 16 bytes long",
            _ => return Ok(()),
        };
        let hint = "`openssl rand -hex 32` makes a good one";
        Err(InvalidConfig::new("gateway.admin.token", format!("{why}; {hint}")))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;

    fn load(settings: &[(&'static str, &str)]) -> Result<Config, String> {
        let settings = settings.iter().map(|(key, value)| (*key, (*value).to_owned()));
        Config::load(None, settings).map_err(|error| error.to_string())
    }

    #[test]
    fn there_is_no_admin_address_without_a_token() {
        let address = ("gateway.admin.address", "127.0.0.1:9000");
        for settings in [
            vec![address],
            vec![address, ("gateway.admin.token", "short")],
            vec![("gateway.admin.token", "short")],
        ] {
            let error = load(&settings).unwrap_err();
            assert!(error.contains("gateway.admin.token"), "{error}");
        }
        let token = ("gateway.admin.token", "0123456789abcdef");
        assert!(load(&[address, token]).unwrap().gateway.admin.address.is_some());
        assert!(load(&[]).unwrap().gateway.admin.address.is_none());
    }

    #[test]
    fn bad_values_are_refused_by_name() {
        for (key, value) in [
            ("gateway.backends", "http://a,http://A:80#weight=2"),
            ("gateway.upstream.strategy", "random"),
            ("gateway.upstream.health.path", "health"),
            ("gateway.upstream.health.path", "/health ready"),
            ("gateway.upstream.health.path", "/health#ready"),
            ("gateway.upstream.health.rise", "0"),
            ("gateway.upstream.health.interval_ms", "0"),
            ("gateway.upstream.ejection.max_ms", "1"),
            ("gateway.upstream.retry_budget.percent", "101"),
            ("gateway.admin.address", "here"),
        ] {
            let error = load(&[(key, value)]).unwrap_err();
            assert!(error.contains(key), "{key}: {error}");
        }
    }
}
