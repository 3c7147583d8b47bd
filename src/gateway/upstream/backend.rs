//! One backend as requests see it: who it is, and counters that are changed without a lock.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio_util::sync::CancellationToken;

use crate::telemetry::{self, Series};

use super::latency::Latency;

/// Names a backend for as long as the process runs. One that leaves and returns is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId(pub(super) u64);

/// A server that requests can be sent to.
#[derive(Debug)]
pub struct Backend {
    id: BackendId,
    name: String,
    address: SocketAddr,
    authority: String,
    series: Arc<Series>,
    pub(super) latency: Latency,
    in_flight: AtomicU32,
    /// Set when it takes no new requests.
    closed: AtomicBool,
    /// Set while failures are counted against it, so that other answers need not look.
    suspected: AtomicBool,
    gone: CancellationToken,
}

impl Backend {
    pub(super) fn new(id: BackendId, address: SocketAddr, authority: String) -> Backend {
        Backend {
            id,
            name: address.to_string(),
            address,
            authority,
            series: telemetry::metrics().series("backend", &address.to_string()),
            latency: Latency::default(),
            in_flight: AtomicU32::new(0),
            closed: AtomicBool::new(false),
            suspected: AtomicBool::new(false),
            gone: CancellationToken::new(),
        }
    }

    /// Never given to another backend.
    pub fn id(&self) -> BackendId {
        self.id
    }

    /// `address:port`, for people, logs and the admin API; no two have the same at a time.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where to connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `host:port` as the operator wrote it: the `Host` of a request that brings none.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// What is counted of it, for as long as it is here.
    pub fn series(&self) -> &Arc<Series> {
        &self.series
    }

    /// Requests under way.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Resolves when it was removed, or drained to its end: connections kept for it can go.
    pub async fn gone(&self) {
        self.gone.cancelled().await;
    }

    /// Whether it was removed, or drained to its end.
    pub fn is_gone(&self) -> bool {
        self.gone.is_cancelled()
    }

    /// Counts a request; whether it may be made. Either way `leave` ends it.
    ///
    /// First counted, then looked, while `close` is first set and then the count looked at:
    /// one of both sees the other, so nothing is under way on a backend that is drained.
    pub(super) fn enter(&self) -> bool {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        !self.closed.load(Ordering::SeqCst)
    }

    /// A request is over; whether it was the last of a backend that takes no more.
    pub(super) fn leave(&self) -> bool {
        self.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 && self.closed.load(Ordering::SeqCst)
    }

    /// Takes no more requests; whether none is under way.
    pub(super) fn close(&self) -> bool {
        self.closed.store(true, Ordering::SeqCst);
        self.in_flight.load(Ordering::SeqCst) == 0
    }

    /// Takes requests again, unless it was dismissed.
    pub(super) fn reopen(&self) {
        self.closed.store(self.is_gone(), Ordering::SeqCst);
    }

    /// Takes no more requests, and is forgotten by everybody who waits for that.
    pub(super) fn dismiss(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.gone.cancel();
    }

    pub(super) fn is_suspected(&self) -> bool {
        self.suspected.load(Ordering::Relaxed)
    }

    pub(super) fn suspect(&self, suspected: bool) {
        self.suspected.store(suspected, Ordering::Relaxed);
    }
}
