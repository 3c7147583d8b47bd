//! `merch-store serve`: the shop, put together.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use secrecy::SecretString;
use tokio::sync::oneshot;
use tokio::time::{Instant, interval, sleep, timeout};
use uuid::Uuid;

use crate::auth::password::Hasher;
use crate::auth::proof::Proofs;
use crate::auth::token::Tokens;
use crate::config::{Config, DEFAULTS};
use crate::engine::{self, EngineOptions};
use crate::http::{self, Catalogue, Infos, ServerOptions, Shop};
use crate::lifecycle::{Ended, Lifecycle, Signals};
use crate::storage::{Database, DatabaseOptions, Migrations, ReplayLimits, StorageError, Writer};
use crate::telemetry;
use crate::web::cors::Cors;
use crate::web::forwarded::Trusted;

use super::database::{OwnDatabase, check_not_foreign, check_schema, database_at};
use super::terminal::{announce, print, spinner};
use super::{Common, address, exit_code, limits, listen};

/// How long to wait at start for a database that is starting itself.
const DATABASE_DEADLINE: Duration = Duration::from_secs(30);

/// How long connections may take to end once nothing is under way on them.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// How often to forget what need not be remembered, and how much of it at a time.
const PURGE_INTERVAL: Duration = Duration::from_secs(600);
const PURGE_CHUNK: i64 = 1000;

/// How often metrics fold what was recorded into their histograms.
const METRICS_INTERVAL: Duration = Duration::from_secs(5);

/// Flags of `serve`, and of the program without a subcommand.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  merch-store serve
  merch-store serve --address 127.0.0.1:0 --data-dir /tmp/shop
  MERCH__DATABASE__URL=postgres://merch:secret@db/shop \\
  MERCH__AUTH__JWT_SECRET=$(openssl rand -hex 32) merch-store serve")]
pub struct ServeArgs {
    /// Where to listen, IP:PORT; port 0 takes any free one [http.address].
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    address: Option<SocketAddr>,
    /// Print the built-in settings, each with its explanation, and exit.
    #[arg(long)]
    show_config: bool,
    /// For `up`: end when standard input closes, which it does however the parent dies, and
    /// say nothing but the address.
    #[arg(long, hide = true)]
    leashed: bool,
}

/// A shop that serves.
pub struct Server {
    address: SocketAddr,
    lifecycle: Lifecycle,
    database: Database,
    own: Option<OwnDatabase>,
    deadline: Duration,
}

/// What a shop is the shop of: its database, and the key that signs its tokens.
struct Data {
    database: Database,
    secret: SecretString,
    own: Option<OwnDatabase>,
}

/// Serves until a signal comes or a task dies: exit code 0 only if everything was finished.
pub(super) async fn run(
    args: ServeArgs,
    common: Common,
    signals: Signals,
) -> anyhow::Result<ExitCode> {
    if args.show_config {
        print(DEFAULTS)?;
        return Ok(ExitCode::SUCCESS);
    }
    let address = args.address.map(|address| ("http.address", address.to_string()));
    super::follow_log_file_at_hangup()?;
    let config = common.load(address)?;
    let _logging = telemetry::start_logging(&config.log)?;
    raise_file_limit("http.max_connections", config.http.max_connections.get());

    let lifecycle = Lifecycle::default();
    signals.end(&lifecycle);
    if args.leashed {
        return run_leashed(&config, lifecycle).await;
    }
    let server = Server::start(&config, lifecycle).await?;
    let announced = announce(&(server.banner() + "\n"), &server.lifecycle);
    let ended = server.wait().await;
    announced?;
    Ok(exit_code(ended))
}

/// Serves, and ends when standard input closes, too.
async fn run_leashed(config: &Config, lifecycle: Lifecycle) -> anyhow::Result<ExitCode> {
    let (leash, leashed) = (standard_input_closed(), lifecycle.clone());
    tokio::spawn(async move {
        drop(leash.await);
        leashed.end();
    });
    let server = Server::start(config, lifecycle).await?;
    let announced = announce(&format!("{}\n", server.address), &server.lifecycle);
    let ended = server.wait().await;
    announced?;
    Ok(exit_code(ended))
}

/// Resolves, with an error, when nobody can write to standard input any more. A thread reads
/// it, because the runtime would not end while one of its own is reading.
fn standard_input_closed() -> oneshot::Receiver<Infallible> {
    let (held, closed) = oneshot::channel();
    std::thread::spawn(move || {
        let _held = held;
        // However reading ends, there is nobody at the other end.
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    });
    closed
}

impl ServeArgs {
    /// The first flag that was given, if one was.
    pub(super) fn first_given(&self) -> Option<&'static str> {
        let given = [
            ("--address", self.address.is_some()),
            ("--show-config", self.show_config),
            ("--leashed", self.leashed),
        ];
        given.into_iter().find_map(|(flag, is_given)| is_given.then_some(flag))
    }
}

impl Server {
    /// Starts everything that `config` asks for, unless `lifecycle` ends meanwhile; requests are
    /// answered when this returns.
    pub async fn start(config: &Config, lifecycle: Lifecycle) -> anyhow::Result<Server> {
        telemetry::metrics();
        // Before the database: a port that is taken should not cost a minute.
        let listener = listen(config.http.address, "--address or http.address").await?;
        let address = listener.local_addr()?;

        let Data { database, secret, own } = Data::open(config, &lifecycle).await?;
        let writer = Writer::new(&database, Uuid::new_v4());
        let (engine, writing) = engine::start(database.clone(), writer, engine_options(config));
        lifecycle.spawn_on_thread("writer", writing)?;
        let (versions, reading) = engine::read_versions(database.clone());
        lifecycle.spawn("versions", reading);
        lifecycle.spawn("purge", purge(database.clone(), lifecycle.clone()));
        lifecycle.spawn("metrics", keep_metrics(lifecycle.clone()));
        lifecycle.spawn("repeats", super::tell_repeats(lifecycle.clone()));

        let gate = match config.limits.serve {
            true => Some(limits::of_shop(config, &database, &secret, &lifecycle)?.gate),
            false => None,
        };
        let server = server_options(config, gate.is_some());
        let shop = Shop {
            engine,
            database: database.clone(),
            hasher: hasher(config),
            tokens: tokens(config, &secret),
            proofs: Proofs::default(),
            lifecycle: lifecycle.clone(),
            infos: Infos::new(config.info.cache_bytes, versions),
            catalogue: Catalogue::default(),
            history_limit: config.info.history_limit,
            body_limit: config.http.body_limit,
            request_timeout: config.http.request_timeout,
            access_log: config.log.access,
            cors: cors(config),
            gate,
        };
        http::start(listener, http::router(shop), server, &lifecycle)?;
        let deadline = config.shutdown.grace + config.shutdown.deadline;
        Ok(Server { address, lifecycle, database, own, deadline })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The handle by which it is asked to end.
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    /// Serves until it is asked to end, and then until everything is finished.
    pub async fn wait(mut self) -> Ended {
        let watching = async {
            if let Some(own) = &mut self.own
                && let Err(error) = own.postgres.keep_running(&self.lifecycle).await
            {
                tracing::error!(%error, "the private PostgreSQL does not come back");
                self.lifecycle.fail();
            }
        };
        let (ended, ()) = tokio::join!(self.lifecycle.wait(self.deadline), watching);
        let closing = async {
            // A server that went silent does not say goodbye either.
            if timeout(CLOSE_DEADLINE, self.database.close()).await.is_err() {
                tracing::warn!("leaving connections that do not end");
            }
            if let Some(own) = self.own {
                own.postgres.stop().await;
            }
        };
        tokio::select! {
            () = closing => {}
            // Dropped, the private PostgreSQL stops by itself.
            () = self.lifecycle.ended() => {}
        }
        telemetry::tell_all_repeats();
        tracing::info!("stopped");
        ended
    }

    /// What somebody who has just started it wants to know.
    fn banner(&self) -> String {
        let url = super::url("http", self.address);
        let data = match &self.own {
            Some(own) => own.describe(),
            None => self.database.options().location(),
        };
        format!(
            "merch-store {}\n  shop  {url}\n  docs  {url}/docs\n  data  {data}",
            env!("CARGO_PKG_VERSION")
        )
    }
}

impl Data {
    /// Opens what `config` names, and brings its schema up to date.
    async fn open(config: &Config, lifecycle: &Lifecycle) -> anyhow::Result<Data> {
        let (mut options, secret, own) = Data::find(config, lifecycle).await?;
        let preparing = prepare_schema(&options, config.database.migrate);
        if let Err(error) = lifecycle.unless_ending(preparing).await {
            if let Some(own) = own {
                own.postgres.stop().await;
            }
            return Err(error);
        }
        options.max_connections = config.database.max_connections.get();
        options.acquire_timeout = config.database.acquire_timeout;
        options.statement_timeout = config.database.statement_timeout;
        let database = Database::new(options);
        // Whose tokens are valid here.
        database.books_fetch().await.context("cannot read the database's identity")?;
        Ok(Data { database, secret, own })
    }

    /// Where the database is and the key is from: the settings, else the data folder.
    async fn find(
        config: &Config,
        lifecycle: &Lifecycle,
    ) -> anyhow::Result<(DatabaseOptions, SecretString, Option<OwnDatabase>)> {
        match (&config.database.url, &config.auth.jwt_secret) {
            (Some(url), Some(secret)) => Ok((database_at(url)?, secret.clone(), None)),
            (Some(_), None) => anyhow::bail!(
                "auth.jwt_secret is required with database.url, so that replicas accept each \
                 other's tokens; set MERCH__AUTH__JWT_SECRET, `openssl rand -hex 32` makes a \
                 good one"
            ),
            (None, secret) => {
                let starting = OwnDatabase::start(&config.data_dir);
                let own = lifecycle.unless_ending(starting).await?;
                let secret = secret.clone().map_or_else(|| own.folder.secret(), Ok)?;
                Ok((DatabaseOptions::from_url(&own.postgres.url())?, secret, Some(own)))
            }
        }
    }
}

/// A connection is an open file: allows as many as the system lets us have, and warns if those
/// are too few for the `connections` that the setting `key` comes to.
pub(super) fn raise_file_limit(key: &'static str, connections: usize) {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    let needed = connections as u64 + 100;
    if current.is_some_and(|files| files < needed) {
        tracing::warn!(files = current, needed, "`ulimit -n` is too low for {key}");
    }
}

/// Brings the schema up to date, or makes sure that it is, waiting for a database that is
/// still starting.
async fn prepare_schema(options: &DatabaseOptions, migrate: bool) -> anyhow::Result<()> {
    let progress = spinner("waiting for the database");
    let deadline = Instant::now() + DATABASE_DEADLINE;
    let mut migrations = loop {
        match Migrations::connect_to_serve(options).await {
            Ok(migrations) => break migrations,
            Err(StorageError::Unavailable(why)) if Instant::now() < deadline => {
                if telemetry::is_news("waiting for the database", &why) {
                    tracing::warn!(why, "waiting for the database");
                }
                sleep(Duration::from_secs(1)).await;
            }
            Err(error) => return Err(error).context("cannot reach the database"),
        }
    };
    progress.finish_and_clear();
    let (status, place) = (migrations.status().await?, options.location());
    if migrate {
        check_not_foreign(&status, &place)?;
        for version in migrations.up().await.context("cannot migrate the database")? {
            tracing::info!(version, "migration applied");
        }
    } else {
        check_schema(&status, &place).context("database.migrate is false")?;
    }
    migrations.check_rights().await?;
    for setting in migrations.dangers().await? {
        tracing::warn!("{setting} is off: this server loses coins when its machine fails");
    }
    migrations.close().await;
    Ok(())
}

/// Whose pages may read answers.
pub(super) fn cors(config: &Config) -> Option<Cors> {
    Cors::new(config.http.cors_origins.iter().map(|origin| origin.0.as_str()))
}

fn server_options(config: &Config, limited: bool) -> ServerOptions {
    let trusted = config.http.trusted_proxies.iter();
    ServerOptions {
        header_limit: config.http.header_limit,
        header_timeout: config.http.header_timeout,
        max_connections: config.http.max_connections,
        grace: config.shutdown.grace,
        trusted: Some(Trusted::new(trusted.map(|it| it.0).collect())),
        limited,
    }
}

fn engine_options(config: &Config) -> EngineOptions {
    EngineOptions {
        queue_capacity: config.engine.queue_capacity.get(),
        max_batch: config.engine.max_batch.get(),
        replay: ReplayLimits {
            max_attempts: config.engine.max_attempts.get(),
            replay_deadline: config.engine.replay_deadline,
            outcome_deadline: config.engine.outcome_deadline,
        },
    }
}

fn hasher(config: &Config) -> Hasher {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = match config.auth.hash_threads {
        0 => cores,
        threads => threads,
    };
    Hasher::new(threads, config.auth.hash_queue)
}

fn tokens(config: &Config, secret: &SecretString) -> Tokens {
    Tokens::new(secret, config.auth.jwt_previous_secret.as_ref(), config.auth.token_ttl)
}

/// Forgets old idempotency keys and writers, a little at a time.
async fn purge(database: Database, lifecycle: Lifecycle) {
    let mut ticks = interval(PURGE_INTERVAL);
    loop {
        tokio::select! {
            () = lifecycle.ending() => return,
            _ = ticks.tick() => {}
        }
        let mut purged = database.writers_purge().await;
        while purged.is_ok() && !lifecycle.is_ending() {
            purged = database.idempotency_keys_purge(PURGE_CHUNK).await;
            if matches!(purged, Ok(0)) {
                break;
            }
        }
        if let Err(error) = purged {
            tracing::warn!(%error, "cannot purge now; trying again later");
        }
    }
}

pub(super) async fn keep_metrics(lifecycle: Lifecycle) {
    let mut ticks = interval(METRICS_INTERVAL);
    loop {
        tokio::select! {
            () = lifecycle.ending() => return,
            _ = ticks.tick() => telemetry::metrics().run_upkeep(),
        }
    }
}
