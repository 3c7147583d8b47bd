//! Which backend gets a request, and how we know that it is well.
//!
//! A request reads a `snapshot` without a lock, and `selection` picks from it by pure
//! functions. What it then meets goes into the backend's own counters; only failures reach
//! the `table`, where `health` says what they come to and `membership` who is in it at
//! all. Whatever changes there becomes the next snapshot. `supervise` runs the tasks that
//! ask: health checks (`check`) and name lookups (`resolve`), one each, so that none of
//! them can hold up another.
//!
//! `docs/decisions/0014-ejection.md` says when a backend is sent away and how it returns.

mod backend;
mod check;
mod health;
mod latency;
mod membership;
mod resolve;
mod retry_budget;
mod selection;
mod snapshot;
mod supervise;
mod table;

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use hyper::StatusCode;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::config::{self, BackendUrl};
use crate::lifecycle::Lifecycle;

use health::Cause;
use membership::Arrival;
use resolve::LookupError;
use snapshot::Snapshot;
use table::Table;

pub use backend::{Backend, BackendId};
pub use health::State;
pub use membership::{AddError, UnknownBackend};
pub use resolve::{Addresses, Itself, Lookup, system_lookup};
pub use retry_budget::RetryBudget;
pub use table::{BackendStatus, CheckStatus};

/// The backends of a gateway; a handle that is cheap to clone.
#[derive(Clone)]
pub struct Upstreams(Arc<Shared>);

struct Shared {
    /// Who may be picked.
    snapshot: ArcSwap<Snapshot>,
    /// Requests picked for so far: whose turn it is.
    turn: AtomicUsize,
    table: Mutex<Table>,
    lookup: Lookup,
    /// Where the gateway itself listens, which is nobody's backend.
    own: Option<SocketAddr>,
    /// What latencies are dated by.
    start: Instant,
    /// Raised by one with each change in the table.
    version: watch::Sender<u64>,
    /// There is something to start, or something is due earlier than it was.
    wake: Notify,
}

/// A backend that a request goes to; counted as under way on it until this is dropped.
#[derive(Debug)]
pub struct Picked {
    /// Who it is.
    pub backend: Arc<Backend>,
    since: Instant,
    upstreams: Upstreams,
}

/// Configured backends, and where the new ones among them lead.
#[derive(Debug)]
pub struct Found {
    all: Vec<BackendUrl>,
    new: Vec<(BackendUrl, Vec<SocketAddr>)>,
}

/// How a request failed at its backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection could be made: refused, unreachable, or not in time.
    Connect,
    /// The connection broke before the answer was complete, or what came was not HTTP.
    Broken,
    /// There was a connection, and no answer in time.
    TimedOut,
}

impl Upstreams {
    /// Starts with the configured `backends` of a gateway that listens at `own`, and with the tasks
    /// that watch over them until `lifecycle` ends. Host names are looked up with `lookup`, all at
    /// once, before this returns; one that leads nowhere yet is a warning.
    pub async fn start(
        backends: &[BackendUrl],
        options: &config::Upstream,
        lookup: Lookup,
        own: Option<SocketAddr>,
        lifecycle: &Lifecycle,
    ) -> Result<Upstreams, Itself> {
        let options = Arc::new(options.clone());
        let upstreams = Upstreams(Arc::new(Shared {
            snapshot: ArcSwap::default(),
            turn: AtomicUsize::new(0),
            table: Mutex::new(Table::new(options)),
            lookup,
            own,
            start: Instant::now(),
            version: watch::Sender::new(0),
            wake: Notify::new(),
        }));
        let found = upstreams.find(backends).await?;
        upstreams.change(|table, now| arrive(table, found.new, true, now));
        let supervising = supervise::supervise(upstreams.clone(), lifecycle.clone());
        lifecycle.spawn("upstreams", supervising);
        Ok(upstreams)
    }

    /// A backend for one request, none of those in `tried`; `None` if nobody is left.
    pub fn pick(&self, tried: &[BackendId]) -> Option<Picked> {
        let since = Instant::now();
        loop {
            let turn = self.0.turn.fetch_add(1, Ordering::Relaxed);
            let snapshot = self.0.snapshot.load();
            let clock = || since.saturating_duration_since(self.0.start);
            let backend = snapshot.choose(tried, turn, clock, rand::random)?.clone();
            let entered = backend.enter();
            let picked = Picked { backend, since, upstreams: self.clone() };
            // It was closed a moment ago, and so there is a snapshot without it.
            if entered {
                return Some(picked);
            }
        }
    }

    /// Whether there is a backend that would be picked.
    pub fn is_ready(&self) -> bool {
        !self.0.snapshot.load().is_empty()
    }

    /// What every backend is like now.
    pub fn status(&self) -> Vec<BackendStatus> {
        self.table().status(Instant::now())
    }

    /// Changes when anything in `status` does, requests under way and latencies apart.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.version.subscribe()
    }

    /// Adds a backend, or every backend behind a host name. They get requests when they have
    /// passed a check.
    pub async fn add(&self, origin: BackendUrl) -> Result<(), AddError> {
        let addresses = match self.look_up(&origin).await {
            Ok(located) => located.addresses,
            Err(LookupError::Itself(itself)) => return Err(AddError::Itself(itself)),
            Err(LookupError::Nowhere(error)) => {
                tracing::warn!(source = origin.name(), %error, "not added: its name leads nowhere");
                return Err(AddError::Unresolved);
            }
        };
        let arrival = Arrival { configured: false, presumed: false };
        self.change(|table, now| table.add(origin, &addresses, arrival, now))
    }

    /// Gives the backend of this name, or all those of this host name, no more requests;
    /// they leave when those under way are finished.
    pub fn drain(&self, name: &str) -> Result<(), UnknownBackend> {
        self.change(|table, _| table.drain(name))
    }

    /// Removes the backend of this name, or all those of this host name, at once; requests
    /// under way go on.
    pub fn remove(&self, name: &str) -> Result<(), UnknownBackend> {
        self.change(|table, _| table.remove(name))
    }

    /// Looks up where those of `backends` lead that are not here; nothing changes yet.
    pub async fn find(&self, backends: &[BackendUrl]) -> Result<Found, Itself> {
        let mut lookups = tokio::task::JoinSet::new();
        let unknown = self.table().unknown(backends);
        for (at, origin) in unknown.into_iter().enumerate() {
            let upstreams = self.clone();
            lookups.spawn(async move { (at, upstreams.look_up(&origin).await, origin) });
        }
        let mut found = lookups.join_all().await;
        // In the order in which they were written, not that of the answers.
        found.sort_by_key(|(at, ..)| *at);
        let mut new = Vec::new();
        for (_, looked_up, origin) in found {
            let addresses = match looked_up {
                Ok(located) => located.addresses,
                Err(LookupError::Itself(itself)) => return Err(itself),
                // An empty list is what leads nowhere yet.
                Err(LookupError::Nowhere(error)) => {
                    tracing::warn!(source = origin.name(), %error, "cannot look up backends; trying again");
                    Vec::new()
                }
            };
            new.push((origin, addresses));
        }
        Ok(Found { all: backends.to_vec(), new })
    }

    /// Goes on with changed settings: configured backends that are not among those `found` are
    /// drained, new ones join, and what was added at runtime stays. There is no moment
    /// without anybody in between; if only new ones are left, they get requests at once.
    pub fn reconfigure(&self, found: Found, options: &config::Upstream) {
        let options = Arc::new(options.clone());
        self.change(|table, now| {
            table.reconfigure(options, &found.all, now);
            let presumed = !table.has_available();
            arrive(table, found.new, presumed, now);
        });
    }

    fn failed(&self, backend: &Backend, cause: Cause) {
        let ejected = self.table().failed(backend.id(), cause, Instant::now());
        if ejected {
            self.change(|_, _| ());
        }
    }

    /// Changes the table, and then everything that follows from it.
    fn change<T>(&self, change: impl FnOnce(&mut Table, Instant) -> T) -> T {
        let now = Instant::now();
        let mut table = self.table();
        let result = change(&mut table, now);
        table.report();
        self.0.snapshot.store(Arc::new(table.snapshot(now)));
        // From here on nobody is picked who drains.
        table.dismiss();
        drop(table);
        self.0.version.send_modify(|version| *version = version.wrapping_add(1));
        self.0.wake.notify_one();
        result
    }

    /// Nothing panics while it has the table, so it is never left half-changed.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds configured backends, each with the addresses that it leads to.
fn arrive(
    table: &mut Table,
    found: Vec<(BackendUrl, Vec<SocketAddr>)>,
    presumed: bool,
    now: Instant,
) {
    let arrival = Arrival { configured: true, presumed };
    for (origin, addresses) in found {
        let name = origin.name();
        if let Err(error) = table.add(origin, &addresses, arrival, now) {
            tracing::warn!(backend = name, %error, "a configured backend was not added");
        }
    }
}

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstreams").field("snapshot", &self.0.snapshot).finish_non_exhaustive()
    }
}

impl Picked {
    /// The backend answered, with its head after `latency`: 502, 503 and 504 count against it.
    pub fn answered(&self, status: StatusCode, latency: Duration) {
        let clock = self.since.saturating_duration_since(self.upstreams.0.start) + latency;
        let backend = &self.backend;
        if is_unavailable(status) {
            backend.latency.observe_failure(latency, clock);
            self.upstreams.failed(backend, Cause::Unavailable);
            return;
        }
        backend.latency.observe(latency, clock);
    }

    /// All of its answer with this `status` has come: unless that counts against it, what went
    /// before is forgiven.
    pub fn completed(&self, status: StatusCode) {
        if self.backend.is_suspected() && !is_unavailable(status) {
            self.upstreams.table().served(self.backend.id());
        }
    }

    /// The request failed before it was answered, or while.
    pub fn failed(&self, failure: Failure) {
        let (now, backend) = (Instant::now(), &self.backend);
        let cause = match failure {
            Failure::Connect => Cause::Connect,
            Failure::Broken => Cause::Broken,
            Failure::TimedOut => Cause::TimedOut,
        };
        let clock = now.saturating_duration_since(self.upstreams.0.start);
        backend.latency.observe_failure(now.saturating_duration_since(self.since), clock);
        self.upstreams.failed(backend, cause);
    }
}

fn is_unavailable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 502..=504)
}

impl Drop for Picked {
    fn drop(&mut self) {
        if self.backend.leave() {
            self.upstreams.change(|_, _| ());
        }
    }
}
