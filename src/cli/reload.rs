//! Other settings for a gateway that runs: read again at SIGHUP or when the admin API is
//! asked to, checked as at a start, and put in force without touching a connection.

use tokio::signal::unix::Signal;
use tokio::sync::mpsc;

use crate::config::{Config, InvalidConfig};
use crate::gateway::admin::Reload;
use crate::gateway::upstream::Upstreams;
use crate::lifecycle::Lifecycle;
use crate::limits::Limiter;
use crate::telemetry;

use super::limits;

/// What a running gateway can change, as `config/default.toml` has it, too. Everything else
/// waits for the next start.
const RELOADED: &str = "gateway.backends, gateway.upstream but its retry_budget, \
                        limits.capacity, limits.rate_per_sec, log.level";

/// Reads the settings with `load` each time it is asked to, until `lifecycle` ends. Settings
/// that cannot be are told to whoever asked, and everything stays as it was.
pub async fn keep_reloading(
    mut hangups: Signal,
    mut reloads: mpsc::Receiver<Reload>,
    load: impl Fn() -> Result<Config, InvalidConfig>,
    upstreams: Upstreams,
    limiter: Limiter,
    lifecycle: Lifecycle,
) {
    loop {
        let answer = tokio::select! {
            () = lifecycle.ending() => return,
            Some(()) = hangups.recv() => None,
            Some(answer) = reloads.recv() => Some(answer),
        };
        let reloaded = match load() {
            Ok(config) => put_in_force(&config, &upstreams, &limiter).await,
            Err(error) => Err(error),
        };
        match &reloaded {
            Ok(()) => tracing::info!("the settings were read again; in force now: {RELOADED}"),
            Err(error) => tracing::error!(%error, "the settings are kept as they were"),
        }
        if let Some(answer) = answer {
            // Whoever asked may have hung up.
            let _ = answer.send(reloaded);
        }
    }
}

/// Refuses settings without a backend, at a start as well: such a gateway would answer nothing
/// but 503, and a file that is empty, or only half written, names none.
pub fn check_backends(config: &Config) -> Result<(), InvalidConfig> {
    if config.gateway.backends.is_empty() {
        let why = "there is no backend; name them here or with --backend http://host:port";
        return Err(InvalidConfig::new("gateway.backends", why));
    }
    Ok(())
}

/// Puts in force what [`RELOADED`] names.
async fn put_in_force(
    config: &Config,
    upstreams: &Upstreams,
    limiter: &Limiter,
) -> Result<(), InvalidConfig> {
    // Whatever can be refused comes first.
    check_backends(config)?;
    let limit = limits::default(config)?;
    let found = upstreams.find(&config.gateway.backends).await;
    let found = found.map_err(|error| InvalidConfig::new("gateway.backends", error))?;
    telemetry::set_log_level(&config.log.level)?;
    limiter.set_default(limit);
    upstreams.reconfigure(found, &config.gateway.upstream);
    Ok(())
}
