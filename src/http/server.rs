//! The accept loop. It is ours because limits on slow clients belong here: a head that
//! does not arrive, an answer that is not read, more connections than there is room for.

use std::net::SocketAddr;
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
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SetOnce};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::lifecycle::Lifecycle;

use super::limits::Peer;

/// How long a connection that was made while we were closing may take to ask for something.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// Connections that the kernel may have ready for us (tokio listens with this backlog).
const KERNEL_QUEUE: usize = 1024;

/// Limits of the accept loop.
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
    /// Whether requests are told where they come from, as a [`Peer`].
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
    let places = Arc::new(Semaphore::new(options.max_connections.get()));
    let connections = TaskTracker::new();
    let closing = CancellationToken::new();

    let admit = |(stream, peer): (TcpStream, SocketAddr), place: OwnedSemaphorePermit| {
        set_up(&stream, options.header_timeout);
        let peer = options.tell_peer.then(|| Peer(peer.ip()));
        let serving = connection(http.clone(), stream, peer, router.clone(), closing.clone());
        connections.spawn(async move {
            serving.await;
            drop(place);
        });
    };

    let mut grace = std::pin::pin!(async {
        lifecycle.ending().await;
        tokio::time::sleep(options.grace).await;
    });
    loop {
        let accepting = async {
            let place = places.clone().acquire_owned().await.expect("never closed");
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            accepted = accepting => accepted,
            () = &mut grace => break,
        };
        match accepted {
            Ok(accepted) => admit(accepted, place),
            Err(error) => {
                // Out of file descriptors, most likely: some will be free in a moment.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    // The kernel has told those in its queue that they are connected: they are let in too.
    for _ in 0..KERNEL_QUEUE {
        let Ok(place) = places.clone().try_acquire_owned() else { break };
        match tokio::time::timeout(Duration::ZERO, listener.accept()).await {
            Ok(Ok(accepted)) => admit(accepted, place),
            _ => break,
        }
    }
    drop(listener);
    closing.cancel();
    connections.close();
    connections.wait().await;
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

/// Small answers leave at once; a client that does not read them is dropped by the kernel.
fn set_up(stream: &TcpStream, patience: Duration) {
    let socket = socket2::SockRef::from(stream);
    let done = socket.set_tcp_nodelay(true);
    #[cfg(target_os = "linux")]
    let done = done.and(socket.set_tcp_user_timeout(Some(patience)));
    if let Err(error) = done {
        tracing::debug!(%error, ?patience, "cannot set socket options");
    }
}
