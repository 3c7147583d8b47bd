//! `merch-store echo`: a backend for trying a gateway.

use std::net::SocketAddr;
use std::process::ExitCode;

use clap::Args;

use crate::gateway::echo;
use crate::http::{self, ServerOptions};
use crate::lifecycle::{Lifecycle, Signals};
use crate::telemetry;

use super::terminal::announce;
use super::{Common, address, exit_code};

/// Flags of `echo`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  merch-store echo
  merch-store echo --address 127.0.0.1:9001
  curl localhost:9000/hello -d '{\"example\": 123}'")]
pub struct EchoArgs {
    /// Where to listen, IP:PORT; port 0 takes any free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9000", value_parser = address)]
    address: SocketAddr,
}

/// Serves until a signal comes.
pub async fn run(args: EchoArgs, common: Common, signals: Signals) -> anyhow::Result<ExitCode> {
    super::follow_log_file_at_hangup()?;
    let config = common.load([])?;
    let _logging = telemetry::start_logging(&config.log)?;
    let listener = super::listen(args.address, "--address").await?;
    let address = listener.local_addr()?;
    let lifecycle = Lifecycle::default();
    signals.end(&lifecycle);
    lifecycle.spawn("repeats", super::tell_repeats(lifecycle.clone()));
    let options = ServerOptions {
        header_limit: config.http.header_limit,
        header_timeout: config.http.header_timeout,
        max_connections: config.http.max_connections,
        grace: config.shutdown.grace,
        trusted: None,
        limited: false,
    };
    http::start(listener, echo::router(), options, &lifecycle)?;
    let version = env!("CARGO_PKG_VERSION");
    let url = super::url("http", address);
    let announced = announce(&format!("merch-store {version}\n  echo  {url}\n"), &lifecycle);
    let ended = lifecycle.wait(config.shutdown.grace + config.shutdown.deadline).await;
    announced?;
    Ok(exit_code(ended))
}
