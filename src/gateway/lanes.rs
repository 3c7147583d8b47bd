//! What the gateway keeps for each backend: its connections and its counters.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use metrics::{Counter, counter};
use tokio::time::interval;

use crate::lifecycle::Lifecycle;

use super::client::{ClientOptions, Pool};
use super::observe::Answers;
use super::upstream::{Backend, BackendId};

/// How often connections are looked at that nobody uses.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The way to one backend.
#[derive(Debug)]
pub struct Lane {
    /// Who is at its end.
    pub backend: Arc<Backend>,
    /// Its connections.
    pub pool: Arc<Pool>,
    /// Its counters.
    pub answers: Arc<Answers>,
    /// Requests that it did not answer.
    pub misses: Counter,
}

/// The ways to all backends.
#[derive(Debug)]
pub struct Lanes {
    options: ClientOptions,
    lanes: RwLock<HashMap<BackendId, Arc<Lane>>>,
}

impl Lanes {
    /// No ways yet; connections will have `options`.
    pub fn new(options: ClientOptions) -> Lanes {
        Lanes { options, lanes: RwLock::default() }
    }

    /// The way to `backend`.
    pub fn to(&self, backend: &Arc<Backend>) -> Arc<Lane> {
        let lanes = self.lanes.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(lane) = lanes.get(&backend.id()) {
            return lane.clone();
        }
        drop(lanes);
        let mut lanes = self.lanes.write().unwrap_or_else(PoisonError::into_inner);
        let lane = || {
            Arc::new(Lane {
                backend: backend.clone(),
                pool: Arc::new(Pool::new(backend.address(), self.options)),
                answers: Arc::new(Answers::of(backend.name(), backend.series().clone())),
                misses: backend.series().within(|| counter!("merch_gateway_misses_total")),
            })
        };
        lanes.entry(backend.id()).or_insert_with(lane).clone()
    }

    /// Closes connections that have been idle for too long, and forgets backends that are
    /// gone, until `lifecycle` ends.
    pub async fn sweep(&self, lifecycle: Lifecycle) {
        let mut ticks = interval(SWEEP_INTERVAL);
        loop {
            tokio::select! {
                () = lifecycle.ending() => return,
                _ = ticks.tick() => {}
            }
            let mut lanes = self.lanes.write().unwrap_or_else(PoisonError::into_inner);
            lanes.retain(|_, lane| {
                if lane.backend.is_gone() {
                    lane.pool.clear();
                }
                lane.pool.sweep() || !lane.backend.is_gone()
            });
        }
    }
}
