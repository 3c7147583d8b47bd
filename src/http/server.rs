//! Connections: limits on slow clients that `axum::serve` does not offer, and an end that
//! drops no request.

use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use metrics::gauge;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::accept::{AcceptOptions, Http1Options, accept_on_workers, serve_http1};
use crate::lifecycle::Lifecycle;
use crate::web::forwarded::{Peer, Trusted};
use crate::web::path;

use super::asker::Asker;
use super::observe;

/// Limits on connections.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// The largest request head, in bytes; hyper wants at least 8192.
    pub header_limit: usize,
    /// How long a head may take, from the connection's last answer on.
    pub header_timeout: Duration,
    /// Connections open at once; those beyond wait in the kernel's queue.
    pub max_connections: NonZeroUsize,
    /// How long to go on accepting after the end was asked for.
    pub grace: Duration,
    /// The proxies whose word is taken for where a request comes from; a request is told then,
    /// by an `Asker`, where the access log wants to know.
    pub trusted: Option<Trusted>,
    /// Whether every request is told: clients are limited.
    pub limited: bool,
}

/// Starts to serve `router` on `listener`, until `lifecycle` ends: then still for the grace period,
/// then no new connections, and out when the last request is answered. Fails where there are no
/// threads to be had.
pub fn start(
    listener: TcpListener,
    router: Router,
    options: ServerOptions,
    lifecycle: &Lifecycle,
) -> io::Result<()> {
    let http1 =
        Http1Options { header_limit: options.header_limit, header_timeout: options.header_timeout };
    let accepting = AcceptOptions {
        max_connections: options.max_connections,
        grace: options.grace,
        patience: options.header_timeout,
    };
    let trusted = options.trusted.map(Arc::new);
    accept_on_workers("http", listener, accepting, lifecycle, move |stream, peer, closing| {
        let peer = trusted.clone().map(|trusted| (Peer::new(peer, "http", &trusted), trusted));
        connection(stream, peer, options.limited, http1, router.clone(), closing)
    })
}

/// Serves one connection until either side ends it.
async fn connection(
    stream: TcpStream,
    peer: Option<(Peer, Arc<Trusted>)>,
    limited: bool,
    options: Http1Options,
    router: Router,
    closing: CancellationToken,
) {
    let open = gauge!("merch_http_connections");
    open.increment(1);
    let router = TowerToHyperService::new(router);
    let refused = serve_http1(stream, options, &closing, async |mut request: Request<_>| {
        path::settle(request.uri_mut());
        if let Some((peer, trusted)) = &peer
            && (limited || observe::is_logging())
        {
            let asker = Asker::at(peer.client(request.headers(), trusted));
            request.extensions_mut().insert(asker);
        }
        let Ok(response) = router.call(request).await;
        response
    });
    if let Some(status) = refused.await {
        observe::count_refused(status);
    }
    open.decrement(1);
}
