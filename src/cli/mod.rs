//! The command line: one file a subcommand, each the place where its world is put together.

mod audit;
mod database;
mod echo;
pub mod environment;
pub mod gateway;
mod identity;
pub mod limits;
mod migrate;
mod openapi;
mod postman;
mod reload;
mod seed;
pub mod serve;
mod terminal;
mod up;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::builder::NonEmptyStringValueParser;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::interval;

use crate::config::{Config, InvalidConfig, SettingsFile, address};
use crate::lifecycle::{Ended, Interrupted, Lifecycle, Signals};
use crate::telemetry::{self, Logging};

pub use terminal::complain;

/// The exit code for arguments that are not understood.
const USAGE: u8 = 2;

/// How often to say what was only counted.
const TELL_INTERVAL: Duration = Duration::from_secs(5);

/// A company's internal merch shop: coins, thanks and hoodies.
///
/// Without a subcommand it serves. Without a configuration it starts a private PostgreSQL,
/// keeps its data below ./data, and answers on http://localhost:8080.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::ServeArgs,
    #[command(flatten)]
    common: Common,
}

const EXAMPLES: &str = "\
Examples:
  merch-store                                  start a shop, with nothing set up
  merch-store --address 0.0.0.0:80             the same, for everybody to reach
  merch-store serve --config /etc/merch.toml   a replica, configured by a file
  merch-store gateway --backend http://a:8080  in front of replicas
  merch-store up --replicas 3                  all of it on one machine
  merch-store audit                            prove that no coin was lost

Every setting can be given in a file or in the environment: see config/default.toml, or
print it with `merch-store serve --show-config`.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the shop (the default).
    Serve(serve::ServeArgs),
    /// Put replicas, or any other HTTP servers, behind one address.
    Gateway(gateway::GatewayArgs),
    /// Start a database, replicas and a gateway on this machine, to see them at work.
    Up(up::UpArgs),
    /// Answer every request with what it was, to try a gateway.
    Echo(echo::EchoArgs),
    /// Change the database's schema, or look at its state.
    Migrate(migrate::MigrateArgs),
    /// End all tokens after a restore.
    Identity(identity::IdentityArgs),
    /// Create users user1 to userN, all alike, for load tests.
    Seed(seed::SeedArgs),
    /// Prove that no coin was lost or minted.
    Audit(audit::AuditArgs),
    /// Print an API as an OpenAPI 3.1 document, or as a Postman collection.
    Openapi(openapi::OpenapiArgs),
}

/// Settings that every subcommand knows.
#[derive(Args, Debug)]
struct Common {
    /// Read settings from this TOML file.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The data folder of a shop with a private PostgreSQL [data_dir].
    #[arg(long, global = true, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// Use this PostgreSQL; MERCH__DATABASE__URL keeps its password out of sight
    /// [database.url].
    #[arg(long, global = true, value_name = "URL",
          value_parser = NonEmptyStringValueParser::new())]
    database_url: Option<String>,
}

impl Common {
    /// What the file that `--config` names says.
    fn file(&self) -> Result<Option<SettingsFile>, InvalidConfig> {
        self.config.as_deref().map(SettingsFile::read).transpose()
    }

    /// The settings, with `flags` (pairs of a key and its value) on top.
    fn load(
        &self,
        flags: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<Config, InvalidConfig> {
        self.load_with(self.file()?.as_ref(), flags)
    }

    /// The same, of which `file` says what `--config` names.
    fn load_with(
        &self,
        file: Option<&SettingsFile>,
        flags: impl IntoIterator<Item = (&'static str, String)>,
    ) -> Result<Config, InvalidConfig> {
        let url = self.database_url.clone().map(|url| ("database.url", url));
        let mut config = Config::load(file, url.into_iter().chain(flags))?;
        if let Some(path) = &self.data_dir {
            // Not by way of the settings, which are text: a path may be any bytes.
            config.data_dir.clone_from(path);
        }
        Ok(config)
    }

    /// The settings for a command that is not a server, and its log: only of what went wrong.
    fn load_for_tool(&self) -> anyhow::Result<(Config, Logging)> {
        let mut config = self.load([])?;
        if config.log.level.trim().eq_ignore_ascii_case("info") {
            config.log.level = "warn".into();
        }
        // The file is the server's, which may be running.
        config.log.file = None;
        let logging = telemetry::start_logging(&config.log)?;
        Ok((config, logging))
    }
}

/// From here on SIGHUP, which would end the process, has its log's file looked for at once; for
/// commands that serve.
fn follow_log_file_at_hangup() -> std::io::Result<()> {
    let mut hangups = signal(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            telemetry::follow_log_file();
        }
    });
    Ok(())
}

/// Says now and then how often a message came that was not said, until `lifecycle` ends.
async fn tell_repeats(lifecycle: Lifecycle) {
    let mut ticks = interval(TELL_INTERVAL);
    loop {
        tokio::select! {
            () = lifecycle.ending() => return,
            _ = ticks.tick() => telemetry::tell_repeats(),
        }
    }
}

/// Listens on `address`, of which `setting` is what an operator can change.
async fn listen(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.with_context(|| format!("cannot listen on {address}; give another one as {setting}"))
}

/// What a browser on this machine calls a server that listens on `address`.
fn url(scheme: &str, address: SocketAddr) -> String {
    if address.ip().is_loopback() || address.ip().is_unspecified() {
        format!("{scheme}://localhost:{}", address.port())
    } else {
        format!("{scheme}://{address}")
    }
}

/// Runs the command that the arguments name.
pub async fn run() -> anyhow::Result<ExitCode> {
    let signals = Signals::listen()?;
    let (command, common) = match Cli::try_parse().and_then(Cli::command_and_settings) {
        Ok(understood) => understood,
        Err(error) => return usage(&error),
    };
    let ran = match command {
        Command::Serve(args) => serve::run(args, common, signals).await,
        Command::Gateway(args) => gateway::run(args, common, signals).await,
        Command::Up(args) => up::run(args, common, signals).await,
        Command::Echo(args) => echo::run(args, common, signals).await,
        Command::Migrate(args) => migrate::run(args, common, signals).await,
        Command::Identity(args) => identity::run(args, common, signals).await,
        Command::Seed(args) => seed::run(args, common, signals).await,
        Command::Audit(_) => audit::run(common, signals).await,
        Command::Openapi(args) => openapi::run(args),
    };
    ran.or_else(|error| error.downcast::<Interrupted>().map(Interrupted::exit_code))
}

impl Cli {
    /// What to run, and with which of the settings that every subcommand knows, wherever they
    /// stand. Flags of `serve` stand for themselves, or after `serve`.
    fn command_and_settings(self) -> Result<(Command, Common), clap::Error> {
        match (self.command, self.serve.first_given()) {
            (Some(_), Some(flag)) => {
                let why = format!(
                    "{flag} is a flag of `serve`, which another subcommand has no use for here; \
                     write flags after the subcommand that they are for"
                );
                Err(Cli::command().error(ErrorKind::ArgumentConflict, why))
            }
            (command, _) => Ok((command.unwrap_or(Command::Serve(self.serve)), self.common)),
        }
    }
}

fn exit_code(ended: Ended) -> ExitCode {
    match ended {
        Ended::Cleanly => ExitCode::SUCCESS,
        Ended::Badly => ExitCode::FAILURE,
    }
}

/// Help and the version are results; anything else is what is wrong with the arguments.
fn usage(error: &clap::Error) -> anyhow::Result<ExitCode> {
    let written = error.print();
    if error.use_stderr() {
        return Ok(ExitCode::from(USAGE));
    }
    terminal::printed(written)?;
    Ok(ExitCode::SUCCESS)
}
