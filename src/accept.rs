//! The accept loop. It is ours because limits belong here: connections at once, and an end
//! at which nobody is hung up on who was told that they are connected.

mod activity;
mod body;
mod courteous;
mod http1;
mod refused;
mod reset;
mod watched;
pub mod workers;

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::lifecycle::Lifecycle;
use crate::telemetry::is_news;

use workers::Workers;

pub use activity::{Activity, Busy, keep};
pub use body::{Arriving, answer};
pub use courteous::{Courteous, Protocols};
pub use http1::{Http1Options, serve_http1};
pub use reset::Socket;
pub use watched::{Watch, Watched};

/// Connections that the kernel may have ready for us (tokio listens with this backlog).
const KERNEL_QUEUE: usize = 1024;

/// Limits of the accept loop.
#[derive(Clone, Copy, Debug)]
pub struct AcceptOptions {
    /// Connections open at once; those beyond wait in the kernel's queue.
    pub max_connections: NonZeroUsize,
    /// How long to go on accepting after the end was asked for.
    pub grace: Duration,
    /// How long the kernel waits for a client to take what was sent.
    pub patience: Duration,
}

/// Runs `serve` for each connection until `lifecycle` ends: then still for the grace period,
/// then no new connections, and out when the last one has ended. The token that `serve` is
/// given says when to finish with the request under way.
pub async fn accept<F, Serving>(
    listener: TcpListener,
    options: AcceptOptions,
    lifecycle: Lifecycle,
    serve: F,
) where
    F: Fn(TcpStream, SocketAddr, CancellationToken) -> Serving,
    Serving: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(options.max_connections.get()));
    let connections = TaskTracker::new();
    let closing = CancellationToken::new();

    let admit = |(stream, peer): (TcpStream, SocketAddr), place: OwnedSemaphorePermit| {
        set_up(&stream, options.patience);
        let serving = serve(stream, peer, closing.clone());
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
            Ok(connection) => admit(connection, place),
            Err(error) => cool_down(error).await,
        }
    }
    // The kernel has told those in its queue that they are connected: they are let in too.
    for _ in 0..KERNEL_QUEUE {
        let Ok(place) = places.clone().try_acquire_owned() else { break };
        let accepted = tokio::time::timeout(Duration::ZERO, listener.accept()).await;
        let Ok(Ok(connection)) = accepted else { break };
        admit(connection, place);
    }
    drop(listener);
    closing.cancel();
    connections.close();
    connections.wait().await;
}

/// Waits after an `error`. Out of file descriptors, most likely: some will be free in a moment.
async fn cool_down(error: io::Error) {
    if is_news("cannot accept a connection", &error.to_string()) {
        tracing::warn!(%error, "cannot accept a connection");
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
}

/// Does the same as a task of `lifecycle`, and runs `serve` on threads of its own, one a core.
/// Fails where there are no threads to be had.
pub fn accept_on_workers<F, Serving>(
    name: &'static str,
    listener: TcpListener,
    options: AcceptOptions,
    lifecycle: &Lifecycle,
    serve: F,
) -> io::Result<()>
where
    F: Fn(TcpStream, SocketAddr, CancellationToken) -> Serving + Clone + Send + Sync + 'static,
    Serving: Future<Output = ()> + Send + 'static,
{
    let workers = Arc::new(Workers::start(name, lifecycle)?);
    let accepting = accept(listener, options, lifecycle.clone(), move |stream, peer, closing| {
        let (workers, serve) = (workers.clone(), serve.clone());
        async move { workers.run(stream, move |stream| serve(stream, peer, closing)).await }
    });
    lifecycle.spawn(name, accepting);
    Ok(())
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
