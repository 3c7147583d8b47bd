//! `merch-store gateway`: backends behind one address.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::net::{TcpListener, lookup_host};

use crate::config::{BackendUrl, Config};
use crate::gateway::Gateway;
use crate::gateway::upstream::{RetryBudget, Upstreams};
use crate::lifecycle::{Ended, Lifecycle};
use crate::telemetry;

use super::limits;
use super::serve::{keep_metrics, raise_file_limit};

/// Flags of `gateway`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  merch-store gateway --backend http://127.0.0.1:8080 --backend http://127.0.0.1:8081
  merch-store gateway --address 0.0.0.0:80 --config /etc/merch.toml
  MERCH__GATEWAY__BACKENDS=http://a:8080,http://b:8080 merch-store gateway")]
pub struct GatewayArgs {
    /// Where to listen, IP:PORT; port 0 takes any free one [gateway.address].
    #[arg(long, value_name = "ADDRESS")]
    address: Option<SocketAddr>,
    /// A server to pass requests on to, http://host:port; once for each [gateway.backends].
    #[arg(long = "backend", value_name = "URL")]
    backends: Vec<String>,
    /// Read settings from this TOML file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// A gateway that serves.
pub struct Server {
    address: SocketAddr,
    scheme: &'static str,
    backends: Vec<BackendUrl>,
    lifecycle: Lifecycle,
    deadline: Duration,
}

/// Serves until a signal comes or a task dies: exit code 0 only if everything was finished.
pub async fn run(args: GatewayArgs) -> anyhow::Result<ExitCode> {
    let address = args.address.map(|address| ("gateway.address", address.to_string()));
    let backends =
        (!args.backends.is_empty()).then(|| ("gateway.backends", args.backends.join(",")));
    let config = Config::load(args.config.as_deref(), address.into_iter().chain(backends))?;
    telemetry::start_logging(&config.log)?;
    raise_file_limit("gateway.max_connections", 2 * config.gateway.max_connections.get());

    let server = Server::start(&config).await?;
    server.lifecycle.end_on_signals()?;
    super::print(&(server.banner() + "\n"))?;
    Ok(match server.wait().await {
        Ended::Cleanly => ExitCode::SUCCESS,
        Ended::Badly => ExitCode::FAILURE,
    })
}

impl Server {
    /// Starts everything that `config` asks for; requests are answered when this returns.
    pub async fn start(config: &Config) -> anyhow::Result<Server> {
        telemetry::metrics();
        let settings = &config.gateway;
        anyhow::ensure!(
            !settings.backends.is_empty(),
            "there is no backend; name them with --backend http://host:port or in gateway.backends"
        );
        let listener = TcpListener::bind(settings.address)
            .await
            .with_context(|| format!("cannot listen on {} (gateway.address)", settings.address))?;
        let address = listener.local_addr()?;
        let upstreams = Upstreams::new(resolve(&settings.backends).await?);

        let lifecycle = Lifecycle::default();
        lifecycle.spawn("metrics", keep_metrics(lifecycle.clone()));
        let limits = limits::of_gateway(config, &lifecycle)?;
        let shutdown = &config.shutdown;
        Gateway::new(settings, shutdown, limits.gate, upstreams, RetryBudget, lifecycle.clone())?
            .start(listener);
        Ok(Server {
            address,
            scheme: if settings.tls_certificate.is_some() { "https" } else { "http" },
            backends: settings.backends.clone(),
            lifecycle,
            deadline: config.shutdown.grace + config.shutdown.deadline,
        })
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
    pub async fn wait(self) -> Ended {
        let ended = self.lifecycle.wait(self.deadline).await;
        tracing::info!("stopped");
        ended
    }

    /// What somebody who has just started it wants to know.
    fn banner(&self) -> String {
        let backends: Vec<String> = self.backends.iter().map(BackendUrl::to_string).collect();
        format!(
            "merch-store {}\n  gateway   {}\n  backends  {}",
            env!("CARGO_PKG_VERSION"),
            super::url(self.scheme, self.address),
            backends.join(", ")
        )
    }
}

/// The first address of each backend.
async fn resolve(backends: &[BackendUrl]) -> anyhow::Result<Vec<(String, SocketAddr)>> {
    let mut resolved = Vec::new();
    for backend in backends {
        let unknown = || format!("cannot find {backend} (gateway.backends)");
        let mut found =
            lookup_host((backend.host.as_str(), backend.port)).await.with_context(unknown)?;
        let address = found.next().with_context(unknown)?;
        let authority = backend.to_string().trim_start_matches("http://").to_owned();
        resolved.push((authority, address));
    }
    Ok(resolved)
}
