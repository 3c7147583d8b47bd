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
            Ok(()) => tracing::info!("the settings were read again"),
            Err(error) => tracing::error!(%error, "the settings are kept as they were"),
        }
        if let Some(answer) = answer {
            // Whoever asked may have hung up.
            let _ = answer.send(reloaded);
        }
    }
}

/// What a running gateway can change: its backends, how they are picked and watched, the limit
/// of clients without one of their own, and the log's level. Everything else waits for the
/// next start.
async fn put_in_force(
    config: &Config,
    upstreams: &Upstreams,
    limiter: &Limiter,
) -> Result<(), InvalidConfig> {
    // Whatever can be refused comes first.
    let limit = limits::default(config)?;
    telemetry::set_log_level(&config.log.level)?;
    limiter.set_default(limit);
    upstreams.reconfigure(&config.gateway.backends, &config.gateway.upstream).await;
    Ok(())
}
