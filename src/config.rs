//! Settings: the built-in defaults, then a file, then the environment, then flags.
//!
//! `config/default.toml` is the manual; the types here only say what is well-formed.

#![expect(missing_docs, reason = "config/default.toml explains every key")]

mod address;
mod environment;
mod file;
mod gateway;
mod numbers;
mod origin;
mod sections;
mod upstream;
mod values;

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use config::{Environment, File, FileFormat, Source};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use values::{
    Choice, choice, list, listening_address, milliseconds, milliseconds_or_none, path_unless_empty,
    seconds, secret_unless_empty, switch,
};

use address::Network;

pub use address::{BackendUrl, TranslationPrefix};
pub use file::SettingsFile;
pub use gateway::{Gateway, MAX_BACKENDS, PathPattern};
pub use origin::Origin;
pub use upstream::{Admin, Ejection, HealthChecks, RetryBudget, Strategy, Upstream};
pub use values::{address, shown};

/// What is built in, with every key explained.
pub const DEFAULTS: &str = include_str!("../config/default.toml");

/// The shortest signing key: as long as the digest it is used with (RFC 7518, 3.2).
pub const MIN_SECRET_BYTES: usize = 32;

/// Every setting, well-formed.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub data_dir: PathBuf,
    pub http: Http,
    pub database: Database,
    pub auth: Auth,
    pub engine: Engine,
    pub info: Info,
    pub shutdown: Shutdown,
    pub log: Log,
    pub gateway: Gateway,
    pub limits: Limits,
}

/// `[http]`: where to listen, and limits on requests and connections.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    #[serde(deserialize_with = "listening_address")]
    pub address: SocketAddr,
    pub body_limit: usize,
    pub header_limit: usize,
    #[serde(rename = "header_timeout_ms", deserialize_with = "milliseconds")]
    pub header_timeout: Duration,
    #[serde(rename = "request_timeout_ms", deserialize_with = "milliseconds")]
    pub request_timeout: Duration,
    #[serde(deserialize_with = "list")]
    pub trusted_proxies: Vec<Network>,
    #[serde(deserialize_with = "list")]
    pub cors_origins: Vec<Origin>,
    pub max_connections: NonZeroUsize,
}

/// `[database]`: which PostgreSQL, and how long to wait for it. No URL: a private one.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    #[serde(deserialize_with = "secret_unless_empty")]
    pub url: Option<SecretString>,
    pub max_connections: NonZeroU32,
    #[serde(rename = "acquire_timeout_ms", deserialize_with = "milliseconds")]
    pub acquire_timeout: Duration,
    #[serde(rename = "statement_timeout_ms", deserialize_with = "milliseconds")]
    pub statement_timeout: Duration,
    #[serde(deserialize_with = "switch")]
    pub migrate: bool,
}

/// `[auth]`: signing keys, at least 32 bytes where given, and room for hashing.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    #[serde(deserialize_with = "secret_unless_empty")]
    pub jwt_secret: Option<SecretString>,
    #[serde(deserialize_with = "secret_unless_empty")]
    pub jwt_previous_secret: Option<SecretString>,
    #[serde(rename = "token_ttl_s", deserialize_with = "seconds")]
    pub token_ttl: Duration,
    pub hash_threads: usize,
    pub hash_queue: usize,
}

/// `[engine]`: limits of the queue, of a batch and of its replays.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Engine {
    pub queue_capacity: NonZeroUsize,
    pub max_batch: NonZeroUsize,
    pub max_attempts: NonZeroU32,
    #[serde(rename = "replay_deadline_ms", deserialize_with = "milliseconds")]
    pub replay_deadline: Duration,
    #[serde(rename = "outcome_deadline_ms", deserialize_with = "milliseconds")]
    pub outcome_deadline: Duration,
}

/// `[info]`: how much history `GET /api/info` shows, and how much of it is remembered.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Info {
    pub history_limit: u16,
    pub cache_bytes: usize,
}

/// `[shutdown]`: how long each step of the end may take.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shutdown {
    #[serde(rename = "grace_ms", deserialize_with = "milliseconds_or_none")]
    pub grace: Duration,
    #[serde(rename = "deadline_ms", deserialize_with = "milliseconds")]
    pub deadline: Duration,
}

/// `[log]`: what is logged; the level is parsed when logging starts.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub level: String,
    #[serde(deserialize_with = "choice")]
    pub format: LogFormat,
    #[serde(deserialize_with = "switch")]
    pub access: bool,
    #[serde(deserialize_with = "path_unless_empty")]
    pub file: Option<PathBuf>,
    pub file_max_bytes: u64,
}

/// For whom a line of the log is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Pretty,
    Json,
}

impl Choice for LogFormat {
    const CHOICES: &[(&str, LogFormat)] =
        &[("pretty", LogFormat::Pretty), ("json", LogFormat::Json)];
}

/// `[limits]`: how much each client may ask for, at the gateway or of a shop without one.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    pub capacity: u32,
    pub rate_per_sec: u32,
    #[serde(deserialize_with = "choice")]
    pub key: LimitsKey,
    pub header: String,
    #[serde(deserialize_with = "secret_unless_empty")]
    pub redis_url: Option<SecretString>,
    #[serde(rename = "redis_timeout_ms", deserialize_with = "milliseconds")]
    pub redis_timeout: Duration,
    pub max_keys: usize,
    #[serde(deserialize_with = "list")]
    pub nat64_prefixes: Vec<TranslationPrefix>,
    #[serde(deserialize_with = "switch")]
    pub serve: bool,
}

/// What clients are told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitsKey {
    Address,
    JwtSubject,
    Header,
}

impl Choice for LimitsKey {
    const CHOICES: &[(&str, LimitsKey)] = &[
        ("address", LimitsKey::Address),
        ("jwt_subject", LimitsKey::JwtSubject),
        ("header", LimitsKey::Header),
    ];
}

/// A setting that cannot be; `Display` names its key and is meant for the operator.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct InvalidConfig(String);

impl InvalidConfig {
    /// The value of `key` cannot be, because of `why`.
    pub fn new(key: &str, why: impl std::fmt::Display) -> InvalidConfig {
        InvalidConfig(format!("{key}: {why}"))
    }
}

impl Config {
    /// The settings; `overrides` are flags, as pairs of a key and its value.
    pub fn load(
        file: Option<&SettingsFile>,
        overrides: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<Config, InvalidConfig> {
        environment::check(std::env::vars_os())?;
        let environment = Environment::with_prefix("MERCH").prefix_separator("__").separator("__");
        Config::from_sources(file, environment, overrides)
    }

    fn from_sources(
        file: Option<&SettingsFile>,
        environment: Environment,
        overrides: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<Config, InvalidConfig> {
        let defaults = File::from_str(DEFAULTS, FileFormat::Toml);
        let defaults = config::Config::builder().add_source(defaults).build().map_err(invalid)?;
        let mut layers = config::Config::builder().add_source(defaults.clone());
        if let Some(file) = file {
            layers = layers.add_source(file.clone());
        }
        layers = layers.add_source(environment);
        for (key, value) in overrides {
            layers = layers.set_override(key, value).map_err(invalid)?;
        }
        let settings = layers.build().map_err(invalid)?;
        sections::check(&settings.cache, &defaults.cache)?;
        let numbers = numbers::read(&settings)?;
        let mut checked = config::Config::builder().add_source(settings);
        for (key, number) in numbers {
            checked = checked.set_override(key, number).map_err(invalid)?;
        }
        let checked = checked.build().map_err(invalid)?;
        let config: Config =
            checked.clone().try_deserialize().map_err(|error| invalid_in(&checked, error))?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), InvalidConfig> {
        if self.data_dir.as_os_str().is_empty() {
            return Err(InvalidConfig::new("data_dir", "it is empty; name a folder, such as data"));
        }
        let secrets = [
            ("auth.jwt_secret", &self.auth.jwt_secret),
            ("auth.jwt_previous_secret", &self.auth.jwt_previous_secret),
        ];
        for (key, secret) in secrets {
            if secret.as_ref().is_some_and(|it| it.expose_secret().len() < MIN_SECRET_BYTES) {
                return Err(InvalidConfig(format!(
                    "{key} must be at least {MIN_SECRET_BYTES} bytes long; \
                     `openssl rand -hex 32` makes a good one"
                )));
            }
        }
        self.gateway.check()
    }
}

fn invalid(error: config::ConfigError) -> InvalidConfig {
    InvalidConfig(error.to_string())
}

/// The same, with the place in a file where the value stands: an error of our own names only
/// its key.
fn invalid_in(settings: &config::Config, error: config::ConfigError) -> InvalidConfig {
    let place = match &error {
        config::ConfigError::At { origin: None, key: Some(key), .. } => place_of(settings, key),
        _ => None,
    };
    InvalidConfig(format!("{error}{}", place.unwrap_or_default()))
}

fn place_of(settings: &config::Config, key: &str) -> Option<String> {
    let mut section = settings.collect().ok()?;
    let (path, name) = key.rsplit_once('.').unwrap_or(("", key));
    for step in path.split('.').filter(|step| !step.is_empty()) {
        section = section.remove(step)?.into_table().ok()?;
    }
    section.get(name)?.origin().map(|origin| format!(" in {origin}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(environment: &[(&str, &str)], file: Option<&str>) -> Result<Config, String> {
        let variables = environment.iter().map(|(key, value)| (key.to_string(), value.to_string()));
        let source = Environment::with_prefix("MERCH")
            .prefix_separator("__")
            .separator("__")
            .source(Some(variables.collect()));
        let directory = tempfile::tempdir().unwrap();
        let file = file.map(|text| {
            let path = directory.path().join("shop.toml");
            std::fs::write(&path, text).unwrap();
            SettingsFile::read(&path).unwrap()
        });
        Config::from_sources(file.as_ref(), source, []).map_err(|error| error.to_string())
    }

    #[test]
    fn the_environment_beats_the_file_and_the_file_beats_the_defaults() {
        let file = "[engine]\nmax_batch = 7\n[log]\nlevel = 'debug'\n";
        let config = load(&[("MERCH__LOG__LEVEL", "warn")], Some(file)).unwrap();
        assert_eq!(config.log.level, "warn");
        assert_eq!(config.engine.max_batch.get(), 7);
        assert_eq!(config.engine.queue_capacity.get(), 1024);
    }

    #[test]
    fn a_setting_keeps_every_character_it_was_given() {
        let secret = "0123456789012345678901234567890123456789";
        let config = load(&[("MERCH__AUTH__JWT_SECRET", secret)], None).unwrap();
        assert_eq!(config.auth.jwt_secret.unwrap().expose_secret(), secret);
    }

    #[test]
    fn unknown_keys_and_bad_values_are_refused_by_name() {
        for (environment, named) in [
            (("MERCH__HTTP__PORT", "1"), "port"),
            (("MERCH__SHOP", "1"), "shop"),
            (("MERCH__HTTP__BODY_LIMIT", "large"), "http.body_limit"),
            (("MERCH__HTTP__ADDRESS", "here"), "http.address"),
            (("MERCH__ENGINE__MAX_BATCH", "0"), "engine.max_batch"),
            (("MERCH__ENGINE__MAX_BATCH", "1000000000"), "engine.max_batch"),
            (("MERCH__HTTP__HEADER_LIMIT", "4096"), "http.header_limit"),
            (
                ("MERCH__DATABASE__STATEMENT_TIMEOUT_MS", "9999999999"),
                "database.statement_timeout_ms",
            ),
            (("MERCH__ENGINE__REPLAY_DEADLINE_MS", "0"), "engine.replay_deadline_ms"),
            (("MERCH__LOG__FORMAT", "xml"), "log.format"),
            (("MERCH__LOG__FILE_MAX_BYTES", "100"), "log.file_max_bytes"),
            (("MERCH__INFO__HISTORY_LIMIT", "0"), "info.history_limit"),
            (("MERCH__AUTH__JWT_SECRET", "short"), "auth.jwt_secret"),
            (("MERCH__AUTH__JWT_PREVIOUS_SECRET", "short"), "auth.jwt_previous_secret"),
            (("MERCH__GATEWAY__BACKENDS", "https://shop"), "gateway.backends"),
            (("MERCH__GATEWAY__BACKENDS", "http://shop/api"), "gateway.backends"),
            (("MERCH__HTTP__TRUSTED_PROXIES", "10.0.0.0/40"), "http.trusted_proxies"),
            (("MERCH__HTTP__CORS_ORIGINS", "*"), "http.cors_origins"),
            (("MERCH__HTTP__CORS_ORIGINS", "https://a,null"), "http.cors_origins"),
            (("MERCH__HTTP__CORS_ORIGINS", "https://a/"), "http.cors_origins"),
            (("MERCH__GATEWAY__TRUSTED_PROXIES", "10.0.0.0/40"), "gateway.trusted_proxies"),
            (("MERCH__GATEWAY__HIDDEN_PATHS", "metrics"), "gateway.hidden_paths"),
            (("MERCH__GATEWAY__TLS_CERTIFICATE", "cert.pem"), "gateway.tls_key"),
            (("MERCH__LIMITS__CAPACITY", "0"), "limits.capacity"),
            (("MERCH__LIMITS__RATE_PER_SEC", "1000001"), "limits.rate_per_sec"),
            (("MERCH__LIMITS__RATE_PER_SEC", "0.5"), "limits.rate_per_sec"),
            (("MERCH__LIMITS__KEY", "cookie"), "limits.key"),
            (("MERCH__LIMITS__MAX_KEYS", "1"), "limits.max_keys"),
            (("MERCH__LIMITS__NAT64_PREFIXES", "64:ff9b::/95"), "limits.nat64_prefixes"),
        ] {
            let error = load(&[environment], None).unwrap_err();
            assert!(error.contains(named), "{environment:?}: {error}");
        }
        for file in ["data_dir = ''", "database = 1", "[gateway]\nadmin = []"] {
            let error = load(&[], Some(file)).unwrap_err();
            let named = ["data_dir: it is empty", "database: it is a", "gateway.admin: it is a"];
            assert!(named.iter().any(|named| error.starts_with(named)), "{file}: {error}");
        }
        let error = load(&[], Some("[http]\nadress = '0.0.0.0:80'\n")).unwrap_err();
        assert!(error.contains("adress"), "{error}");
    }

    #[test]
    fn a_switch_is_written_as_people_write_one_and_nothing_else_is_one() {
        for (written, expected) in [
            ("true", Some(true)),
            ("'on'", Some(true)),
            ("' Yes '", Some(true)),
            ("1", Some(true)),
            ("false", Some(false)),
            ("'OFF'", Some(false)),
            ("'no'", Some(false)),
            ("'0'", Some(false)),
            ("2", None),
            ("1.0", None),
            ("''", None),
            ("'perhaps'", None),
            ("[true]", None),
        ] {
            let config = load(&[], Some(&format!("[log]\naccess = {written}\n")));
            assert_eq!(config.as_ref().ok().map(|it| it.log.access), expected, "{written}");
            let refused = config.err().is_none_or(|said| said.contains("neither true nor false"));
            assert!(refused, "{written}");
        }
    }

    #[test]
    fn a_secret_where_it_does_not_belong_is_refused_without_being_shown() {
        let url = "postgres://merch:hunter2@db/shop";
        for (key, value, said) in [
            ("MERCH__DATABASE", url, "database: it is a section, not one value (the environment)"),
            ("MERCH__DATABASE", url, "max_connections"),
            ("MERCH__DATABASE", url, "MERCH__DATABASE__ and its name"),
            ("MERCH__AUTH", "hunter2", "auth: it is a section"),
            ("MERCH__GATEWAY__ADMIN", "hunter2", "as MERCH__GATEWAY__ADMIN__ and its name"),
            ("MERCH__GATEWAY__BACKENDS", "http://u:hunter2@shop", "\"http://...@shop\" is not"),
            ("MERCH__GATEWAY__BACKENDS", "http://a,http://u:hun,ter2@shop", "because of an @"),
            ("MERCH__HTTP__CORS_ORIGINS", "https://u:hunter2@shop", "\"https://...@shop\" is not"),
            ("MERCH__HTTP__TRUSTED_PROXIES", "u:hunter2@10.0.0.1", "\"...@10.0.0.1\" is neither"),
            ("MERCH__HTTP__ADDRESS", url, "\"postgres://...@db/shop\" is not IP:PORT"),
            ("MERCH__HTTP__BODY_LIMIT", url, "\"postgres://...@db/shop\" is not a whole"),
            ("MERCH__LOG__FORMAT", url, "\"postgres://...@db/shop\" is none of"),
            ("MERCH__DATABASE__MIGRATE", url, "\"postgres://...@db/shop\" is neither true nor"),
            ("MERCH__LOG__ACCESS", "u:hun://ter2@x", "\"...@x\" is neither true nor false"),
        ] {
            let error = load(&[(key, value)], None).unwrap_err();
            assert!(error.contains(said), "{key}={value}: {error}");
            assert!(!error.contains("hun") && !error.contains("ter2"), "{key}={value}: {error}");
        }
        let error = load(&[], Some(&format!("\ndatabase = '{url}'\n"))).unwrap_err();
        assert!(error.contains("shop.toml, line 2)") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn secrets_do_not_show_when_the_configuration_is_debugged() {
        let environment = [
            ("MERCH__DATABASE__URL", "postgres://merch:hunter2@db/shop"),
            ("MERCH__AUTH__JWT_SECRET", "hunter2hunter2hunter2hunter2hunter2"),
        ];
        let config = load(&environment, None).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
