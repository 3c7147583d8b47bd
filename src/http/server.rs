//! Connections: limits on slow clients that `axum::serve` does not offer, and an end that
//! drops no request.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metrics::gauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::SetOnce;
use tokio_util::sync::CancellationToken;

use crate::accept::{AcceptOptions, accept};
use crate::lifecycle::Lifecycle;

use super::limits::Peer;

/// How long a connection that was made while we were closing may take to ask for something.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

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

/// Serves `router` on `listener` until `lifecycle` ends: then still for the grace period,
/// then no new connections, and out when the last request is answered.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    options: ServerOptions,
    lifecycle: Lifecycle,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(options.header_timeout)
        .max_buf_size(options.header_limit);
    let accepting = AcceptOptions {
        max_connections: options.max_connections,
        grace: options.grace,
        patience: options.header_timeout,
    };
    accept(listener, accepting, lifecycle, |stream, peer, closing| {
        let peer = options.tell_peer.then(|| Peer(peer.ip()));
        connection(http.clone(), stream, peer, router.clone(), closing)
    })
    .await;
}

/// Serves one connection until either side ends it, or until `closing` and the request
/// under way is answered.
async fn connection(
    http: http1::Builder,
    stream: TcpStream,
    peer: Option<Peer>,
    router: Router,
    closing: CancellationToken,
) {
    let open = gauge!("merch_http_connections");
    open.increment(1);
    let heard = Arc::new(SetOnce::new());
    let service = {
        let (router, heard) = (TowerToHyperService::new(router), heard.clone());
        service_fn(move |mut request: Request<Incoming>| {
            if let Some(peer) = peer {
                request.extensions_mut().insert(peer);
            }
            // All but the first time it is set already.
            let _ = heard.set(());
            router.call(request)
        })
    };
    let mut serving = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = closing.cancelled() => {
            // hyper hangs up on a connection without a request yet; it is on its way.
            let first_request = async {
                tokio::select! {
                    ended = &mut serving => Some(ended),
                    _ = heard.wait() => None,
                }
            };
            match tokio::time::timeout(FIRST_REQUEST, first_request).await {
                Ok(Some(ended)) => ended,
                Ok(None) | Err(_) => {
                    serving.as_mut().graceful_shutdown();
                    serving.await
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
    open.decrement(1);
}
