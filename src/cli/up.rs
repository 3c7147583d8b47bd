//! `merch-store up`: a database, replicas and the gateway on one machine, as the quickest way
//! to see them at work.
//!
//! The gateway is served by this process. Replicas have processes of their own, because killing
//! one is what people will try.

mod replica;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use secrecy::ExposeSecret;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, SettingsFile};
use crate::lifecycle::{Ended, Lifecycle, Signals};
use crate::private_postgres::MAX_CONNECTIONS;
use crate::storage::DatabaseOptions;
use crate::telemetry;

use super::database::OwnDatabase;
use super::serve::raise_file_limit;
use super::terminal::{announce, spinner};
use super::{Common, address, gateway};

use replica::Replica;

/// More than anybody has to see; the private PostgreSQL has connections for them.
const MOST_REPLICAS: i64 = 16;

/// Connections that replicas must leave to the gateway, to tools, and to those that a killed
/// replica leaves behind for a moment.
const OTHER_CONNECTIONS: u32 = 30;

/// What a replica may take to end besides its own waits: closing its connections.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);

/// Flags of `up`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  merch-store up
  merch-store up --replicas 5 --address 0.0.0.0:80
  merch-store up --replicas 2 --data-dir /tmp/shop --config /etc/merch.toml

Kill a replica (`kill -9 PID`, the pids are printed): the others go on answering, and it is
started again. Ctrl-C stops everything.")]
pub struct UpArgs {
    /// How many replicas.
    #[arg(long, value_name = "NUMBER", default_value_t = 3,
          value_parser = clap::value_parser!(u16).range(1..=MOST_REPLICAS))]
    replicas: u16,
    /// Where the gateway listens, IP:PORT; port 0 takes any free one [gateway.address].
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    address: Option<SocketAddr>,
}

/// Serves until a signal comes: exit code 0 only if everything was finished.
pub async fn run(args: UpArgs, common: Common, signals: Signals) -> anyhow::Result<ExitCode> {
    let address = args.address.map(|address| ("gateway.address", address.to_string()));
    super::follow_log_file_at_hangup()?;
    let file = common.file()?;
    let mut config = common.load_with(file.as_ref(), address)?;
    let _logging = telemetry::start_logging(&config.log)?;
    raise_file_limit("gateway.max_connections", 2 * config.gateway.max_connections.get());
    // Before the database: an address that is taken should not cost a minute.
    let doors = gateway::Doors::open(&config.gateway).await?;
    let lifecycle = Lifecycle::default();
    signals.end(&lifecycle);

    let own = start_database(args.replicas, &mut config, &lifecycle).await?;
    let starting = start_all(args.replicas, file.as_ref(), &mut config, doors, lifecycle.clone());
    let (server, replicas) = match lifecycle.unless_ending(starting).await {
        Ok(started) => started,
        Err(error) => {
            if let Some(own) = own {
                own.postgres.stop().await;
            }
            return Err(error);
        }
    };
    let banner = banner(&config, &server, &replicas, own.as_ref())?;
    let announced = announce(&banner, &lifecycle);
    let patience = config.shutdown.grace + config.shutdown.deadline + CLOSE_DEADLINE;
    let clean = wait(server, replicas, own, &lifecycle, patience).await;
    telemetry::tell_all_repeats();
    tracing::info!("everything stopped");
    announced?;
    Ok(if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Starts the private PostgreSQL, unless `config` names another one: from here on that is where
/// the database is, with its folder's secret if there is none.
async fn start_database(
    replicas: u16,
    config: &mut Config,
    lifecycle: &Lifecycle,
) -> anyhow::Result<Option<OwnDatabase>> {
    if config.database.url.is_some() {
        return Ok(None);
    }
    check_connections(replicas, config.database.max_connections.get())?;
    let own = lifecycle.unless_ending(OwnDatabase::start(&config.data_dir)).await?;
    config.database.url = Some(own.postgres.url().into());
    if config.auth.jwt_secret.is_none() {
        config.auth.jwt_secret = Some(own.folder.secret()?);
    }
    Ok(Some(own))
}

/// Keeps everything running until `lifecycle` ends, and then until all is finished, which replicas
/// have `patience` for: whether it was.
async fn wait(
    server: gateway::Server,
    replicas: Vec<Replica>,
    mut own: Option<OwnDatabase>,
    lifecycle: &Lifecycle,
    patience: Duration,
) -> bool {
    let ending = CancellationToken::new();
    let mut kept = JoinSet::new();
    for replica in replicas {
        kept.spawn(replica.keep(ending.clone(), patience));
    }
    let watching = async {
        if let Some(own) = &mut own
            && let Err(error) = own.postgres.keep_running(lifecycle).await
        {
            tracing::error!(%error, "the private PostgreSQL does not come back");
            lifecycle.fail();
        }
    };
    // In the order of a request's way: nothing is taken from under what is still under way.
    let (ended, ()) = tokio::join!(server.wait(), watching);
    let mut clean = ended == Ended::Cleanly;
    let closing = async {
        ending.cancel();
        while let Some(stopped) = kept.join_next().await {
            clean &= stopped.unwrap_or(false);
        }
        if let Some(own) = own {
            own.postgres.stop().await;
        }
    };
    tokio::select! {
        () = closing => {}
        // Dropped, replicas are killed and the private PostgreSQL stops by itself.
        () = lifecycle.ended() => clean = false,
    }
    clean
}

/// Starts the replicas and then, with them behind it, the gateway. Dropped, they are killed.
async fn start_all(
    number: u16,
    file: Option<&SettingsFile>,
    config: &mut Config,
    doors: gateway::Doors,
    lifecycle: Lifecycle,
) -> anyhow::Result<(gateway::Server, Vec<Replica>)> {
    let mut replicas = Vec::new();
    let progress = spinner("starting replicas");
    for at in 1..=number {
        progress.set_message(format!("starting replica {at} of {number}"));
        let name = format!("replica-{at}");
        let command = serve_command(config, file, &name)?;
        replicas.push(Replica::start(name, command).await?);
    }
    progress.finish_and_clear();
    let backends = replicas.iter().map(|it| format!("http://{}", it.address()).parse());
    config.gateway.backends = backends.collect::<Result<_, _>>().map_err(anyhow::Error::msg)?;
    let server = gateway::Server::start_behind(doors, config, lifecycle).await?;
    Ok((server, replicas))
}

/// Whether so many replicas with pools of `pool` connections fit the private PostgreSQL.
fn check_connections(replicas: u16, pool: u32) -> anyhow::Result<()> {
    // One more is the writer's.
    let needed = u64::from(replicas) * (u64::from(pool) + 1);
    let there = MAX_CONNECTIONS - OTHER_CONNECTIONS;
    anyhow::ensure!(
        needed <= u64::from(there),
        "{replicas} replicas with {pool} + 1 connections each need {needed}, and the private \
         PostgreSQL has {there} for them; lower --replicas or database.max_connections"
    );
    Ok(())
}

/// This program as the replica `name`, on the database and with the secret that `config` has.
fn serve_command(
    config: &Config,
    file: Option<&SettingsFile>,
    name: &str,
) -> anyhow::Result<Command> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(program);
    command.args(["serve", "--leashed"]);
    // What a file says goes by the environment, which beats a file here as there: a pipe could
    // not be read again, and all replicas get the same for as long as this runs.
    let given: Vec<String> =
        std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect();
    for (name, value) in file.map(SettingsFile::variables).unwrap_or_default() {
        if !given.iter().any(|given| given.eq_ignore_ascii_case(&name)) {
            command.env(name, value);
        }
    }
    let secrets = [
        ("MERCH__DATABASE__URL", &config.database.url),
        ("MERCH__AUTH__JWT_SECRET", &config.auth.jwt_secret),
    ];
    for (key, value) in secrets {
        if let Some(value) = value {
            command.env(key, value.expose_secret());
        }
    }
    if let Some(file) = &config.log.file {
        // Processes that share a file would put it aside under each other's hands.
        let mut named = file.as_os_str().to_owned();
        named.push(".");
        named.push(name);
        command.env("MERCH__LOG__FILE", named);
    }
    // The gateway writes a line a request, with the replica's address in it, and holds clients
    // to their limits; for a replica there is one client only.
    command.env("MERCH__LOG__ACCESS", "false").env("MERCH__LIMITS__SERVE", "false");
    Ok(command)
}

/// What somebody who has just started it wants to know.
fn banner(
    config: &Config,
    server: &gateway::Server,
    replicas: &[Replica],
    own: Option<&OwnDatabase>,
) -> anyhow::Result<String> {
    let url = server.url();
    let mut lines = vec![
        format!("merch-store {}", env!("CARGO_PKG_VERSION")),
        format!("  gateway    {url}"),
        format!("  docs       {url}/docs"),
    ];
    for replica in replicas {
        let (name, address, pid) = (replica.name(), replica.address(), replica.pid());
        lines.push(format!("  {name:<9}  http://{address}  pid {pid}"));
    }
    if let Some(address) = server.admin_address() {
        lines.push(format!("  admin      {}/docs", super::url("http", address)));
    }
    lines.push(match (own, &config.database.url) {
        (Some(own), _) => format!("  data       {}", own.describe()),
        (None, Some(url)) => {
            format!("  data       {}", DatabaseOptions::from_url(url.expose_secret())?.location())
        }
        (None, None) => String::new(),
    });
    Ok(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_replicas_as_there_may_be_fit_the_private_postgresql() {
        let pool = Config::load(None, []).unwrap().database.max_connections.get();
        assert!(check_connections(MOST_REPLICAS as u16, pool).is_ok());
        assert!(check_connections(3, 55).is_ok());
        let error = check_connections(3, 56).unwrap_err().to_string();
        assert!(error.contains("171") && error.contains("database.max_connections"), "{error}");
        assert!(check_connections(1, u32::MAX).is_err());
    }
}
