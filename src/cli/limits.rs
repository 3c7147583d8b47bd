//! The limits that a gateway, or a shop that asks for them, puts together from its settings.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::time::sleep;

use crate::config::{Config, InvalidConfig, LimitsKey};
use crate::lifecycle::Lifecycle;
use crate::limits::{
    Gate, KeyBy, Limit, Limiter, LimiterOptions, LimitsFile, Link, Nat64, OwnLimits, Store,
    Subjects,
};
use crate::storage::{Database, DatabaseOptions, Migrations, StorageError};
use crate::telemetry::is_news;

use super::database::{check_not_foreign, database_at};

/// Connections for limits: a poll, and a change beside it.
const CONNECTIONS: u32 = 2;

/// How long to wait before trying again to bring the schema up to date.
const PAUSE: Duration = Duration::from_secs(1);

/// Limits that are in force and kept so.
pub struct Limits {
    /// Asks for a token for each request.
    pub gate: Gate,
    /// For the admin API.
    pub own: OwnLimits,
}

/// The limits of a gateway: those of clients' own live in PostgreSQL if there is a
/// `database.url`, else in Redis if there is a `limits.redis_url`, else in a file in the data
/// folder. Neither server needs to be there yet.
pub async fn of_gateway(config: &Config, lifecycle: &Lifecycle) -> anyhow::Result<Limits> {
    let database = config.database.url.as_ref().map(|url| {
        let mut options = database_at(url)?;
        options.max_connections = CONNECTIONS;
        options.acquire_timeout = config.database.acquire_timeout;
        options.statement_timeout = config.database.statement_timeout;
        anyhow::Ok(Database::new(options))
    });
    let database = database.transpose()?;
    if let Some(database) = &database {
        refuse_if_unusable(database.options()).await?;
    }
    if let Some(database) = database.as_ref().filter(|_| config.database.migrate) {
        let migrating = migrate(database.options().clone());
        let lifecycle = lifecycle.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = migrating => {}
                () = lifecycle.ending() => {}
            }
        });
    }
    if config.limits.key == LimitsKey::Header
        && config.gateway.drop_underscore_headers
        && config.limits.header.contains('_')
    {
        let why = "gateway.drop_underscore_headers leaves out what has this name";
        return Err(InvalidConfig::new("limits.header", why).into());
    }
    start(config, database, config.auth.jwt_secret.as_ref(), lifecycle)
}

/// The limits of a shop, whose tokens are signed with `secret`.
pub fn of_shop(
    config: &Config,
    database: &Database,
    secret: &SecretString,
    lifecycle: &Lifecycle,
) -> anyhow::Result<Limits> {
    start(config, Some(database.clone()), Some(secret), lifecycle)
}

fn start(
    config: &Config,
    database: Option<Database>,
    secret: Option<&SecretString>,
    lifecycle: &Lifecycle,
) -> anyhow::Result<Limits> {
    let settings = &config.limits;
    let link = settings.redis_url.as_ref().map(|url| {
        Link::new(url.expose_secret(), settings.redis_timeout)
            .map_err(|error| InvalidConfig::new("limits.redis_url", error))
    });
    let link = link.transpose()?;
    if let Some(link) = link.clone() {
        keep("redis", lifecycle, async move { link.keep().await });
    }
    let limiter = Limiter::new(LimiterOptions {
        default: default(config)?,
        most_keys: settings.max_keys,
        shared: link.clone(),
        nat64: Nat64::new(settings.nat64_prefixes.iter().map(|it| it.0).collect()),
    });
    let store = match (database, link) {
        (Some(database), _) => Store::Postgres(database.into()),
        (None, Some(link)) => Store::Redis(link),
        (None, None) => Store::File(LimitsFile::new(config.data_dir.clone())),
    };
    let own = OwnLimits::new(store, limiter.clone());
    let kept = own.clone();
    keep("limits", lifecycle, async move { kept.keep().await });
    Ok(Limits { gate: Gate::new(limiter, key_by(config, secret)?), own })
}

/// The limit of clients without one of their own, as the settings have it.
pub fn default(config: &Config) -> Result<Option<Limit>, InvalidConfig> {
    let limits = &config.limits;
    match limits.rate_per_sec {
        0 => Ok(None),
        rate => Limit::new(limits.capacity, rate)
            .map(Some)
            .map_err(|error| InvalidConfig::new("limits", error)),
    }
}

fn key_by(config: &Config, secret: Option<&SecretString>) -> Result<KeyBy, InvalidConfig> {
    match config.limits.key {
        LimitsKey::Address => Ok(KeyBy::Address),
        LimitsKey::Header => KeyBy::header(&config.limits.header)
            .ok_or_else(|| InvalidConfig::new("limits.header", "not the name of a header")),
        LimitsKey::JwtSubject => {
            let missing = "needed to verify the tokens of limits.key = \"jwt_subject\"";
            let secret = secret.ok_or_else(|| InvalidConfig::new("auth.jwt_secret", missing))?;
            let previous = config.auth.jwt_previous_secret.as_ref();
            Ok(KeyBy::Subject(Subjects::new(secret, previous).into()))
        }
    }
}

/// Runs `task`, which never ends by itself, until everything ends.
fn keep(
    name: &'static str,
    lifecycle: &Lifecycle,
    task: impl Future<Output = ()> + Send + 'static,
) {
    let ending = lifecycle.clone();
    lifecycle.spawn(name, async move {
        tokio::select! {
            () = ending.ending() => {}
            () = task => {}
        }
    });
}

/// What no waiting mends is said at start.
async fn refuse_if_unusable(options: &DatabaseOptions) -> Result<(), StorageError> {
    match Migrations::connect(options).await {
        Err(error @ StorageError::Unusable(_)) => return Err(error),
        Err(error) => tracing::warn!(%error, "starting without the database"),
        Ok(migrations) => migrations.close().await,
    }
    Ok(())
}

/// Brings the schema up to date once the database is there; the gateway does not wait for it. It
/// ends, and says why, at what no waiting mends.
pub async fn migrate(options: DatabaseOptions) {
    loop {
        match migrate_now(&options).await {
            Ok(applied) => {
                for version in applied {
                    tracing::info!(version, "migration applied");
                }
                return;
            }
            Err(error) if may_heal(&error) => {
                let why = error.to_string();
                if is_news("cannot migrate the database yet", &why) {
                    tracing::warn!(why, "cannot migrate the database yet");
                }
            }
            Err(error) => {
                let why = error.to_string();
                tracing::error!(why, "cannot migrate the database; start again to try again");
                return;
            }
        }
        sleep(PAUSE).await;
    }
}

async fn migrate_now(options: &DatabaseOptions) -> anyhow::Result<Vec<i64>> {
    let mut migrations = Migrations::connect(options).await?;
    check_not_foreign(&migrations.status().await?, &options.location())?;
    let applied = migrations.up().await?;
    migrations.close().await;
    Ok(applied)
}

/// Whether a migration may succeed later that failed with `error`.
fn may_heal(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(
            StorageError::Unavailable(_) | StorageError::TooSlow(_) | StorageError::Conflict { .. }
        )
    )
}
