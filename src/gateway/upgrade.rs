//! Tunnels: what comes of a connection after a backend's `101 Switching Protocols`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::accept::{Watch, Watched};

use super::client::{Connection, Place};
use super::observe::Record;

/// Both ends of a tunnel, once the client has its 101.
#[derive(Debug)]
pub struct Tunnel {
    client: OnUpgrade,
    backend: TcpStream,
    /// What the backend sent right after its 101.
    first: Bytes,
    place: Place,
    record: Record,
}

impl Tunnel {
    /// Ties `client` to the backend at the other end of `connection`.
    pub fn new(client: OnUpgrade, connection: Box<Connection>, record: Record) -> Tunnel {
        let (backend, first, place) = connection.into_tunnel();
        Tunnel { client, backend, first, place, record }
    }

    /// Carries bytes both ways until both sides have closed, or one broke, or nothing has
    /// come for `idle` (at most twice that), or `drain` has passed since `closing`.
    pub async fn run(self, idle: Duration, drain: Duration, closing: CancellationToken) {
        let Tunnel { client, backend, first, place: _place, mut record } = self;
        let Ok(client) = client.await else { return };
        let mut client = TokioIo::new(client);
        let moved = Moved::default();
        let mut backend = Watched::new(backend, moved.clone());
        let carrying = async {
            client.write_all(&first).await?;
            copy_bidirectional(&mut client, &mut backend).await
        };
        let ended = tokio::select! {
            carried = carrying => carried.inspect_err(|error| {
                tracing::debug!(%error, "a tunnel broke");
            }),
            () = stands_still(&moved, idle) => return,
            () = drained(drain, closing) => return,
        };
        if let Ok((_, bytes)) = ended {
            record.count(bytes as usize);
        }
    }
}

/// Whether anything has gone through a tunnel lately.
#[derive(Clone, Debug, Default)]
struct Moved(Arc<AtomicBool>);

impl Watch for Moved {
    fn came(&mut self, _bytes: &[u8]) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn left(&mut self, _bytes: usize) {
        self.0.store(true, Ordering::Relaxed);
    }
}

async fn stands_still(moved: &Moved, idle: Duration) {
    loop {
        tokio::time::sleep(idle).await;
        if !moved.0.swap(false, Ordering::Relaxed) {
            return;
        }
    }
}

async fn drained(drain: Duration, closing: CancellationToken) {
    closing.cancelled().await;
    tokio::time::sleep(drain).await;
}
