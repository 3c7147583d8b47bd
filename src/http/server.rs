//! The accept loop. It is ours because limits on slow clients belong here: a head that
//! does not arrive, an answer that is not read, more connections than there is room for.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use metrics::gauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::lifecycle::Lifecycle;

/// Limits of the accept loop.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// The largest request head, in bytes; hyper wants at least 8192.
    pub header_limit: usize,
    /// How long a head may take, from the connection's last answer on.
    pub header_timeout: Duration,
    pub max_connections: NonZeroUsize,
    /// How long to go on accepting after the end was asked for.
    pub grace: Duration,
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
    let connections = GracefulShutdown::new();
    let open = gauge!("merch_http_connections");

    let mut closing = std::pin::pin!(async {
        lifecycle.ending().await;
        tokio::time::sleep(options.grace).await;
    });
    loop {
        let accepting = async {
            let place = places.clone().acquire_owned().await.expect("never closed");
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            () = &mut closing => break,
            accepted = accepting => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: some will be free in a moment.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        set_up(&stream, options.header_timeout);
        let service = TowerToHyperService::new(router.clone());
        let serving = connections.watch(http.serve_connection(TokioIo::new(stream), service));
        let open = open.clone();
        tokio::spawn(async move {
            open.increment(1);
            if let Err(error) = serving.await {
                tracing::debug!(%error, "connection ended");
            }
            open.decrement(1);
            drop(place);
        });
    }
    drop(listener);
    connections.shutdown().await;
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
