//! The backends that may be picked, as they were when something last changed. Requests read
//! it without a lock; whatever changes with every request is in the backends' own counters.

use std::sync::Arc;
use std::time::Duration;

use crate::config::Strategy;

use super::backend::{Backend, BackendId};
use super::selection::{self, View};

/// Candidates, never changed after it is made.
#[derive(Debug, Default)]
pub struct Snapshot {
    strategy: Strategy,
    candidates: Box<[Candidate]>,
    /// For round robin: positions in `candidates`.
    schedule: Box<[u16]>,
}

/// A backend and its weight as the slow start has it.
#[derive(Debug)]
pub struct Candidate {
    pub backend: Arc<Backend>,
    pub weight: u32,
}

impl Snapshot {
    /// Makes everything ready that can be before the requests come.
    pub fn new(strategy: Strategy, candidates: Vec<Candidate>) -> Snapshot {
        let weights: Vec<u32> = candidates.iter().map(|candidate| candidate.weight).collect();
        let schedule = match strategy {
            Strategy::RoundRobin => selection::schedule(&weights),
            Strategy::LeastConnections | Strategy::P2cEwma => Box::default(),
        };
        Snapshot { strategy, candidates: candidates.into(), schedule }
    }

    /// Whether nobody can be picked.
    pub fn is_empty(&self) -> bool {
        self.candidates.is_empty()
    }

    /// The candidate for the request number `turn`, none of those in `tried`. `now` and
    /// `random` are only asked for when the strategy needs them.
    pub fn choose(
        &self,
        tried: &[BackendId],
        turn: usize,
        now: impl FnOnce() -> Duration,
        random: impl FnOnce() -> u64,
    ) -> Option<&Arc<Backend>> {
        let count = self.candidates.len();
        let usable = |at: usize| !tried.contains(&self.candidates[at].backend.id());
        let view = |at: usize, latency: f32| {
            let Candidate { backend, weight } = &self.candidates[at];
            View { weight: *weight, in_flight: backend.in_flight(), latency, usable: usable(at) }
        };
        let chosen = match self.strategy {
            Strategy::RoundRobin => selection::round_robin(&self.schedule, turn, usable),
            Strategy::LeastConnections => {
                selection::least_connections(count, turn, |at| view(at, 0.0))
            }
            Strategy::P2cEwma => {
                let now = now();
                let latency = |at: usize| self.candidates[at].backend.latency.seconds(now);
                selection::p2c_ewma(count, random(), |at| view(at, latency(at)))
            }
        };
        chosen.map(|at| &self.candidates[at].backend)
    }
}
