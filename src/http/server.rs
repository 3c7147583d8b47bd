//! Connections: limits on slow clients that `axum::serve` does not offer, and an end that
//! drops no request.

use std::io;
use std::num::NonZeroUsize;
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
use crate::web::path;

use super::limits::Peer;
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
    /// Whether requests are told where they come from, as a `Peer`.
    pub tell_peer: bool,
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
    accept_on_workers("http", listener, accepting, lifecycle, move |stream, peer, closing| {
        let peer = options.tell_peer.then(|| Peer(peer.ip()));
        connection(stream, peer, http1, router.clone(), closing)
    })
}

/// Serves one connection until either side ends it.
async fn connection(
    stream: TcpStream,
    peer: Option<Peer>,
    options: Http1Options,
    router: Router,
    closing: CancellationToken,
) {
    let open = gauge!("merch_http_connections");
    open.increment(1);
    let router = TowerToHyperService::new(router);
    let refused = serve_http1(stream, options, &closing, async |mut request: Request<_>| {
        path::settle(request.uri_mut());
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer);
        }
        let Ok(response) = router.call(request).await;
        response
    });
    if let Some(status) = refused.await {
        observe::count_refused(status);
    }
    open.decrement(1);
}
