//! The backends, and whose turn it is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::StatusCode;

/// A backend's number, never given to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BackendId(u64);

/// A server that requests are passed on to.
#[derive(Debug)]
pub struct Backend {
    id: BackendId,
    address: SocketAddr,
    name: String,
    authority: String,
}

impl Backend {
    /// Its number.
    pub fn id(&self) -> BackendId {
        self.id
    }

    /// `address:port`, for logs and metrics.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `host:port` as the operator wrote it: the `Host` of a request that brings none.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Whether it is no backend any more: connections kept for it can go.
    pub fn is_gone(&self) -> bool {
        false
    }
}

/// How an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection was made.
    Connect,
    /// The connection broke, or what came was no answer.
    Broken,
    /// No answer came in time.
    TimedOut,
}

/// All backends; a cheap handle.
#[derive(Clone, Debug)]
pub struct Upstreams(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    backends: Vec<Arc<Backend>>,
    next: AtomicUsize,
}

/// A backend that a request was given to, until this is dropped.
#[derive(Debug)]
pub struct Picked {
    /// Whom to ask.
    pub backend: Arc<Backend>,
}

/// How many requests may be tried again.
#[derive(Clone, Debug)]
pub struct RetryBudget;

impl Upstreams {
    /// Backends by authority and address.
    pub fn new(backends: impl IntoIterator<Item = (String, SocketAddr)>) -> Upstreams {
        let backends = backends.into_iter().zip(0..).map(|((authority, address), id)| {
            let (id, name) = (BackendId(id), address.to_string());
            Arc::new(Backend { id, address, name, authority })
        });
        Upstreams(Arc::new(Shared { backends: backends.collect(), next: AtomicUsize::new(0) }))
    }

    /// Whose turn it is among those that were not `tried`.
    pub fn pick(&self, tried: &[BackendId]) -> Option<Picked> {
        let backends = &self.0.backends;
        let first = self.0.next.fetch_add(1, Ordering::Relaxed);
        let turns = (0..backends.len()).map(|turn| &backends[(first + turn) % backends.len()]);
        let backend = turns.into_iter().find(|backend| !tried.contains(&backend.id()))?;
        Some(Picked { backend: backend.clone() })
    }

    /// Whether there is a backend that could be asked.
    pub fn is_ready(&self) -> bool {
        !self.0.backends.is_empty()
    }
}

impl Picked {
    /// The backend gave an answer.
    pub fn answered(&self, _status: StatusCode, _latency: Duration) {}

    /// The backend gave none.
    pub fn failed(&self, _failure: Failure) {}
}

impl RetryBudget {
    /// A request arrived.
    pub fn request(&self) {}

    /// Whether a request may be tried once more.
    pub fn try_retry(&self) -> bool {
        true
    }
}
