//! The gateway: replicas of any HTTP server behind one address. It knows nothing of the shop.
//!
//! A request's way through, in reading order:
//!
//! - `listener`: a client's connection, TLS (`tls`), HTTP/1.1 or HTTP/2. `wire` looks at the
//!   bytes of HTTP/1.1 before anything else does.
//! - `proxy`: the story of one request. `headers` and `via` make its head fit for a backend,
//!   `paths` knows which ones are hidden, `answer` has the words of refusals.
//! - `forward`: to a backend ([`upstream`] says to which) and perhaps to another.
//! - `client`: the connections to one backend, with `lanes` to each.
//! - `request_body` and `response_body`: on their way; `upgrade`: what comes of a 101.
//! - `observe`: what is written down.
//!
//! [`admin`] is the operator's way in, on an address of its own.

pub mod admin;
mod answer;
mod client;
pub mod echo;
mod exchange;
mod forward;
mod headers;
mod http1;
mod lanes;
mod listener;
mod observe;
mod paths;
mod proxy;
mod request_body;
mod response_body;
mod tls;
mod upgrade;
pub mod upstream;
mod via;
mod wire;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::accept::{AcceptOptions, accept_on_workers};
use crate::config;
use crate::lifecycle::Lifecycle;
use crate::limits::Gate;
use crate::web::cors::Cors;
use crate::web::forwarded::Trusted;

use client::ClientOptions;
use forward::Forwarder;
use listener::LinkOptions;
use paths::Paths;
use proxy::{Proxy, ProxyOptions};
use upstream::{RetryBudget, Upstreams};

pub use tls::{InvalidCertificate, Tls};

/// A gateway that is put together, and not yet listening.
pub struct Gateway {
    proxy: Arc<Proxy>,
    tls: Option<Arc<Tls>>,
    accepting: AcceptOptions,
    link: LinkOptions,
    lifecycle: Lifecycle,
}

impl Gateway {
    /// Puts a gateway to `upstreams` together, for what `gate` lets through.
    pub fn new(
        config: &config::Gateway,
        shutdown: &config::Shutdown,
        gate: Gate,
        cors: Option<Cors>,
        upstreams: Upstreams,
        budget: RetryBudget,
        lifecycle: Lifecycle,
    ) -> Result<Gateway, InvalidCertificate> {
        let client = ClientOptions {
            connections: config.backend_connections.get(),
            idle: config.backend_idle,
            connect_timeout: config.connect_timeout,
            response_timeout: config.response_timeout,
            body_timeout: config.body_timeout,
        };
        let spending = Paths::new(config.spending_paths.clone());
        let forwarder = Forwarder::new(upstreams, budget, client, spending);
        let options = ProxyOptions {
            trusted: Trusted::new(config.trusted_proxies.iter().map(|it| it.0).collect()),
            cors,
            hidden: Paths::new(config.hidden_paths.clone()),
            header_limit: config.header_limit,
            body_limit: config.body_limit,
            body_timeout: config.body_timeout,
            drop_underscore_headers: config.drop_underscore_headers,
            access_log: config.access_log,
        };
        let tls = match (&config.tls_certificate, &config.tls_key) {
            (Some(certificate), Some(key)) => {
                Some(Arc::new(Tls::load(certificate.clone(), key.clone())?))
            }
            _ => None,
        };
        Ok(Gateway {
            proxy: Arc::new(Proxy::new(options, gate, forwarder, lifecycle.clone())),
            tls,
            accepting: AcceptOptions {
                max_connections: config.max_connections,
                grace: shutdown.grace,
                patience: config.header_timeout,
            },
            link: LinkOptions {
                header_limit: config.header_limit,
                header_timeout: config.header_timeout,
                tunnel_timeout: config.tunnel_timeout,
                tunnel_drain: tunnel_drain(shutdown),
            },
            lifecycle,
        })
    }

    /// Starts to serve on `listener`, until the lifecycle ends: then still for the grace
    /// period, then no new connections, and out when the last request is answered. Fails
    /// where there are no threads to be had.
    pub fn start(self, listener: TcpListener) -> io::Result<()> {
        let Gateway { proxy, tls, accepting, link, lifecycle } = self;
        let keeping = proxy.clone();
        lifecycle.spawn("backend connections", async move { keeping.keep().await });
        if let Some(tls) = tls.clone() {
            let ending = lifecycle.clone();
            lifecycle.spawn("certificate", async move { tls.keep_current(ending).await });
        }
        accept_on_workers(
            "gateway",
            listener,
            accepting,
            &lifecycle,
            move |stream, peer, closing| {
                listener::serve(stream, peer, proxy.clone(), tls.clone(), link, closing)
            },
        )
    }
}

/// Tunnels have no end of their own; half of the time is for them, so that they do not make
/// the end of the process an unclean one.
fn tunnel_drain(shutdown: &config::Shutdown) -> Duration {
    shutdown.deadline / 2
}
