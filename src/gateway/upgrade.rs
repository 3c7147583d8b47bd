//! Tunnels: who may have one, and what comes of a connection after a backend's
//! `101 Switching Protocols`.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::Body;
use hyper::header::{CONNECTION, HeaderMap, HeaderValue, UPGRADE};
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::accept::{Watch, Watched};
use crate::web::list::{items, items_of};

use super::client::{Connection, Place};
use super::observe::Record;

/// The protocols that a request offers to go on with, if it may: those of HTTP/1.1 and without a
/// body (RFC 9110, 7.8).
pub fn offer(request: &Request<impl Body>) -> Option<HeaderValue> {
    if request.version() != Version::HTTP_11 || !request.body().is_end_stream() {
        return None;
    }
    protocols(request.headers()).filter(|_| switches(request.headers()))
}

/// What a backend that answers 101 goes on with. An error if that is nothing of what it was
/// `offered`: the client would not know what it hears.
pub fn choice(
    answer: &HeaderMap,
    offered: Option<&HeaderValue>,
) -> Result<HeaderValue, &'static str> {
    let offered = offered.ok_or("101 to a request that asked for nothing of the kind")?;
    let is_offered = |it: &str| items_of(offered).any(|offered| offered.eq_ignore_ascii_case(it));
    if !items(answer, &UPGRADE).all(is_offered) {
        return Err("101 to a protocol that was not offered");
    }
    protocols(answer).filter(|_| switches(answer)).ok_or("101 without a protocol to switch to")
}

/// The protocols in a message's `Upgrade`, as one list. HTTP itself is not among them: through a
/// tunnel it would go past everything that is done here (h2c smuggling).
pub fn protocols(headers: &HeaderMap) -> Option<HeaderValue> {
    let is_http = |it: &&str| {
        it.get(..2).is_some_and(|it| it.eq_ignore_ascii_case("h2"))
            || it.get(..4).is_some_and(|it| it.eq_ignore_ascii_case("http"))
    };
    let is_plain =
        |it: &&str| it.bytes().all(|it| it.is_ascii_graphic() && !b"\"(),;".contains(&it));
    let passed: Vec<&str> =
        items(headers, &UPGRADE).filter(|it| !is_http(it) && is_plain(it)).collect();
    if passed.is_empty() {
        return None;
    }
    HeaderValue::from_str(&passed.join(", ")).ok()
}

/// Whether a message says that its connection is to be switched.
fn switches(headers: &HeaderMap) -> bool {
    items(headers, &CONNECTION).any(|it| it.eq_ignore_ascii_case("upgrade"))
}

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
    fn came(&mut self, _bytes: &[u8]) -> io::Result<()> {
        self.0.store(true, Ordering::Relaxed);
        Ok(())
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
