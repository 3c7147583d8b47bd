//! Tunnels: what comes of a connection after a backend's `101 Switching Protocols`.

use std::time::Duration;

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio_util::sync::CancellationToken;

use super::client::{Connection, Place};
use super::noted::{Noted, Notes};
use super::observe::Record;

/// Both ends of a tunnel, once the client has its 101.
#[derive(Debug)]
pub struct Tunnel {
    client: OnUpgrade,
    backend: Noted,
    /// What the backend sent right after its 101.
    first: Bytes,
    place: Place,
    record: Record,
}

impl Tunnel {
    /// Ties `client` to the backend at the other end of `connection`; nothing if that has
    /// ended.
    pub fn new(client: OnUpgrade, connection: Box<Connection>, record: Record) -> Option<Tunnel> {
        let (backend, first, place) = connection.into_tunnel()?;
        Some(Tunnel { client, backend, first, place, record })
    }

    /// Carries bytes both ways until both sides have closed, or one broke, or nothing has
    /// come for `idle` (at most twice that), or `drain` has passed since `closing`.
    pub async fn run(self, idle: Duration, drain: Duration, closing: CancellationToken) {
        let Tunnel { client, mut backend, first, place: _place, mut record } = self;
        let Ok(client) = client.await else { return };
        let mut client = TokioIo::new(client);
        let notes = backend.watch().clone();
        let carrying = async {
            client.write_all(&first).await?;
            copy_bidirectional(&mut client, &mut backend).await
        };
        let ended = tokio::select! {
            carried = carrying => carried.inspect_err(|error| {
                tracing::debug!(%error, "a tunnel broke");
            }),
            () = stands_still(&notes, idle) => return,
            () = drained(drain, closing) => return,
        };
        if let Ok((_, bytes)) = ended {
            record.count(bytes as usize);
        }
    }
}

async fn stands_still(notes: &Notes, idle: Duration) {
    loop {
        notes.clear();
        tokio::time::sleep(idle).await;
        if !notes.sent() && !notes.received() {
            return;
        }
    }
}

async fn drained(drain: Duration, closing: CancellationToken) {
    closing.cancelled().await;
    tokio::time::sleep(drain).await;
}
