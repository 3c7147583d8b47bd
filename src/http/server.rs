//! Connections: limits on slow clients that `axum::serve` does not offer, and an end that
//! drops no request.

use std::io;
use std::num::NonZeroUsize;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use metrics::gauge;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::accept::{AcceptOptions, Activity, accept_on_workers, keep};
use crate::lifecycle::Lifecycle;

use super::limits::Peer;

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
    let mut http = http1::Builder::new();
    // The time for a head is the connection's idle time, which costs requests no timer. Answers
    // are small: copying one is cheaper than writing it in pieces.
    http.header_read_timeout(None).max_buf_size(options.header_limit).writev(false);
    let accepting = AcceptOptions {
        max_connections: options.max_connections,
        grace: options.grace,
        patience: options.header_timeout,
    };
    accept_on_workers("http", listener, accepting, lifecycle, move |stream, peer, closing| {
        let peer = options.tell_peer.then(|| Peer(peer.ip()));
        connection(http.clone(), stream, peer, router.clone(), options.header_timeout, closing)
    })
}

/// Serves one connection until either side ends it, until it was idle for so long, or until
/// `closing` and the request under way is answered.
async fn connection(
    http: http1::Builder,
    stream: TcpStream,
    peer: Option<Peer>,
    router: Router,
    idle: Duration,
    closing: CancellationToken,
) {
    let open = gauge!("merch_http_connections");
    open.increment(1);
    let activity = Activity::new();
    let service = {
        let (router, activity) = (TowerToHyperService::new(router), activity.clone());
        service_fn(move |mut request: Request<Incoming>| {
            if let Some(peer) = peer {
                request.extensions_mut().insert(peer);
            }
            let busy = activity.begin();
            let answered = router.call(request);
            async move {
                let answer = answered.await;
                drop(busy);
                answer
            }
        })
    };
    let serving = http.serve_connection(TokioIo::new(activity.watch(stream)), service);
    if let Err(error) = keep(serving, &activity, idle, &closing).await {
        tracing::debug!(%error, "connection ended");
    }
    open.decrement(1);
}
