//! `merch-store gateway`: backends behind one address.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::config::{self, BackendUrl, Config, InvalidConfig, SettingsFile};
use crate::gateway::Gateway;
use crate::gateway::admin::{self, Admin, Reload, Token};
use crate::gateway::upstream::{RetryBudget, Upstreams, system_lookup};
use crate::lifecycle::{Ended, Lifecycle, Signals};
use crate::limits::Limiter;
use crate::telemetry;

use super::serve::{cors, keep_metrics, raise_file_limit};
use super::terminal::announce;
use super::{Common, address, exit_code, limits, listen, reload};

/// Flags of `gateway`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  merch-store gateway --backend http://127.0.0.1:8080 --backend http://127.0.0.1:8081
  merch-store gateway --address 0.0.0.0:80 --config /etc/merch.toml
  MERCH__GATEWAY__BACKENDS=http://a:8080,http://b:8080 merch-store gateway")]
pub struct GatewayArgs {
    /// Where to listen, IP:PORT; port 0 takes any free one [gateway.address].
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    address: Option<SocketAddr>,
    /// A server to pass requests on to, http://host:port; once for each [gateway.backends].
    #[arg(long = "backend", value_name = "URL", value_parser = NonEmptyStringValueParser::new())]
    backends: Vec<String>,
}

/// Where a gateway will serve: connections wait until it does.
pub(super) struct Doors {
    gateway: TcpListener,
    admin: Option<TcpListener>,
}

/// A gateway that serves.
pub struct Server {
    address: SocketAddr,
    scheme: &'static str,
    backends: Vec<BackendUrl>,
    admin: Option<SocketAddr>,
    upstreams: Upstreams,
    limiter: Limiter,
    reloads: Option<mpsc::Receiver<Reload>>,
    lifecycle: Lifecycle,
    deadline: Duration,
}

/// Serves until a signal comes or a task dies: exit code 0 only if everything was finished.
pub(super) async fn run(
    args: GatewayArgs,
    common: Common,
    signals: Signals,
) -> anyhow::Result<ExitCode> {
    super::follow_log_file_at_hangup()?;
    let config = args.load(&common)?;
    let _logging = telemetry::start_logging(&config.log)?;
    raise_file_limit("gateway.max_connections", 2 * config.gateway.max_connections.get());

    let lifecycle = Lifecycle::default();
    signals.end(&lifecycle);
    let mut server = Server::start(&config, lifecycle).await?;
    server.reload_with(move || {
        common.config.as_deref().map_or(Ok(()), SettingsFile::check_again)?;
        args.load(&common)
    })?;
    let announced = announce(&(server.banner() + "\n"), &server.lifecycle);
    let ended = server.wait().await;
    announced?;
    Ok(exit_code(ended))
}

impl GatewayArgs {
    fn load(&self, common: &Common) -> Result<Config, InvalidConfig> {
        let address = self.address.map(|address| ("gateway.address", address.to_string()));
        let backends =
            (!self.backends.is_empty()).then(|| ("gateway.backends", self.backends.join(",")));
        common.load(address.into_iter().chain(backends))
    }
}

impl Doors {
    /// Takes the addresses that `settings` name.
    pub(super) async fn open(settings: &config::Gateway) -> anyhow::Result<Doors> {
        let gateway = listen(settings.address, "--address or gateway.address").await?;
        let admin = match settings.admin.address {
            Some(address) => Some(listen(address, "gateway.admin.address").await?),
            None => None,
        };
        Ok(Doors { gateway, admin })
    }
}

impl Server {
    /// Starts everything that `config` asks for, unless `lifecycle` ends meanwhile; requests are
    /// answered when this returns.
    pub async fn start(config: &Config, lifecycle: Lifecycle) -> anyhow::Result<Server> {
        reload::check_backends(config)?;
        Server::start_behind(Doors::open(&config.gateway).await?, config, lifecycle).await
    }

    /// The same behind `doors` that are open already.
    pub(super) async fn start_behind(
        doors: Doors,
        config: &Config,
        lifecycle: Lifecycle,
    ) -> anyhow::Result<Server> {
        let assembling = Server::assemble(doors, config, lifecycle.clone());
        let started = lifecycle.unless_ending(assembling).await;
        if started.is_err() {
            // Tasks that run already must not cry over their own end.
            lifecycle.end();
        }
        started
    }

    async fn assemble(
        doors: Doors,
        config: &Config,
        lifecycle: Lifecycle,
    ) -> anyhow::Result<Server> {
        telemetry::metrics();
        let settings = &config.gateway;
        let address = doors.gateway.local_addr()?;
        let admin = doors.admin.as_ref().map(TcpListener::local_addr).transpose()?;
        let (reloads_sender, reloads) = mpsc::channel(1);
        let limits = limits::of_gateway(config, &lifecycle).await?;
        lifecycle.spawn("metrics", keep_metrics(lifecycle.clone()));
        lifecycle.spawn("repeats", super::tell_repeats(lifecycle.clone()));
        let upstreams = Upstreams::start(
            &settings.backends,
            &settings.upstream,
            system_lookup(),
            Some(address),
            &lifecycle,
        );
        let upstreams = upstreams.await.context("gateway.backends")?;
        let budget = RetryBudget::new(settings.upstream.retry_budget);
        let limiter = limits.gate.limiter().clone();
        let shutdown = &config.shutdown;
        let cors = cors(config);
        Gateway::new(
            settings,
            shutdown,
            limits.gate,
            cors,
            upstreams.clone(),
            budget,
            lifecycle.clone(),
        )
        .context("gateway.tls_certificate and gateway.tls_key")?
        .start(doors.gateway)?;
        if let (Some(listener), Some(token)) = (doors.admin, &settings.admin.token) {
            let admin = Admin {
                upstreams: upstreams.clone(),
                limits: limits.own,
                token: Token::new(token),
                reloads: reloads_sender,
            };
            lifecycle.spawn("admin", admin::serve(listener, admin, lifecycle.clone()));
        }
        Ok(Server {
            address,
            scheme: if settings.tls_certificate.is_some() { "https" } else { "http" },
            backends: settings.backends.clone(),
            admin,
            upstreams,
            limiter,
            reloads: Some(reloads),
            lifecycle,
            deadline: config.shutdown.grace + config.shutdown.deadline,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What clients on this machine call it.
    pub fn url(&self) -> String {
        super::url(self.scheme, self.address)
    }

    /// Where the admin API listens, if it does.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// Reads the settings again with `load` at each SIGHUP, and when the admin API is asked
    /// to; can be called once.
    pub fn reload_with(
        &mut self,
        load: impl Fn() -> Result<Config, InvalidConfig> + Send + 'static,
    ) -> std::io::Result<()> {
        if let Some(reloads) = self.reloads.take() {
            let reloading = reload::keep_reloading(
                signal(SignalKind::hangup())?,
                reloads,
                load,
                self.upstreams.clone(),
                self.limiter.clone(),
                self.lifecycle.clone(),
            );
            self.lifecycle.spawn("reload", reloading);
        }
        Ok(())
    }

    /// The handle by which it is asked to end.
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    /// Serves until it is asked to end, and then until everything is finished.
    pub async fn wait(mut self) -> Ended {
        // Where nobody reads the settings again, whoever asks for it is told so.
        drop(self.reloads.take());
        let ended = self.lifecycle.wait(self.deadline).await;
        telemetry::tell_all_repeats();
        tracing::info!("stopped");
        ended
    }

    /// What somebody who has just started it wants to know.
    fn banner(&self) -> String {
        let backends: Vec<String> = self.backends.iter().map(BackendUrl::to_string).collect();
        let admin = self.admin.map_or_else(String::new, |address| {
            format!("\n  admin     {}/docs", super::url("http", address))
        });
        format!(
            "merch-store {}\n  gateway   {}\n  backends  {}{admin}",
            env!("CARGO_PKG_VERSION"),
            self.url(),
            backends.join(", ")
        )
    }
}
