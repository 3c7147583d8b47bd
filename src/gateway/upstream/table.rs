//! Everything that is known of the backends, in one place behind one lock. Requests come
//! here only when something failed; `membership.rs` has who comes and goes.

use std::sync::Arc;

use metrics::{counter, gauge};
use serde::Serialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::config::{self, BackendUrl};
use crate::telemetry::is_news;

use super::backend::{Backend, BackendId};
use super::health::{Cause, Health, State};
use super::snapshot::{Candidate, Snapshot};

/// What one backend is like, for the operator.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct BackendStatus {
    /// What it is called here: its address and port.
    #[schema(example = "10.0.0.7:8080")]
    pub name: String,
    /// Where it listens.
    #[schema(example = "10.0.0.7:8080")]
    pub address: String,
    /// What it was added as: the same, or the host name that led to it.
    #[schema(example = "shop:8080")]
    pub source: String,
    /// Its share relative to the others, once it has started.
    pub weight: u32,
    /// What may be expected of it now.
    pub state: State,
    /// Requests under way.
    pub in_flight: u32,
    /// Requests that failed, since the last one that did not.
    pub consecutive_failures: u32,
    /// A moving average of its answers' latency, as of the last one; `null` until there is one.
    #[schema(example = 1.25)]
    pub latency_ms: Option<f64>,
    /// `null` until it was asked for the first time.
    pub last_check: Option<CheckStatus>,
}

/// How a backend answered when it was last asked whether it is well.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct CheckStatus {
    /// Whether the answer says that it is well.
    pub passed: bool,
    /// The status of the answer, or why there was none.
    #[schema(example = "200 OK")]
    pub outcome: String,
    /// How long ago that was.
    pub ago_ms: u64,
}

/// What the task of a backend or of a host name is to be started for.
#[derive(Clone, Debug)]
pub enum Job {
    /// Ask it again and again whether it is well.
    Check(Arc<Backend>),
    /// Look its addresses up again and again.
    Resolve(SourceId, BackendUrl, CancellationToken),
}

/// Names a source for as long as the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceId(pub(super) u64);

/// Every backend, with its health and where it came from.
#[derive(Debug)]
pub struct Table {
    pub(super) options: Arc<config::Upstream>,
    pub(super) entries: Vec<Entry>,
    pub(super) sources: Vec<Source>,
    pub(super) jobs: Vec<Job>,
    /// Out of the table, but the snapshot in use may still have them.
    pub(super) removed: Vec<Arc<Backend>>,
    pub(super) last_id: u64,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub backend: Arc<Backend>,
    pub source: SourceId,
    pub origin: String,
    pub weight: u32,
    pub health: Health,
    pub draining: bool,
    pub last_check: Option<(bool, String, Instant)>,
    /// The state that the log and the metrics know.
    pub reported: Option<State>,
}

/// Something that backends come from: an address, or a host name with several.
#[derive(Debug)]
pub(super) struct Source {
    pub id: SourceId,
    pub origin: BackendUrl,
    /// Whether it is in the configuration, and leaves with it.
    pub configured: bool,
    /// Addresses that the operator drained or removed: they stay away until the name has
    /// stopped leading to them.
    pub left_out: Vec<std::net::SocketAddr>,
    pub gone: CancellationToken,
}

impl Table {
    /// A table without backends.
    pub fn new(options: Arc<config::Upstream>) -> Table {
        Table {
            options,
            entries: Vec::new(),
            sources: Vec::new(),
            jobs: Vec::new(),
            removed: Vec::new(),
            last_id: 0,
        }
    }

    /// The settings in force.
    pub fn options(&self) -> &Arc<config::Upstream> {
        &self.options
    }

    /// A check of `id` came to `outcome`; whether that changed its state.
    pub fn checked(
        &mut self,
        id: BackendId,
        outcome: Result<String, String>,
        now: Instant,
    ) -> bool {
        let options = self.options.clone();
        let Some(entry) = self.entry(id) else { return false };
        let (name, before) = (entry.backend.name(), entry.health.state());
        let passed = outcome.is_ok();
        entry.health.checked(passed, now, &options);
        let result = if passed { "passed" } else { "failed" };
        entry.backend.series().within(|| {
            counter!("merch_gateway_health_checks_total", "result" => result).increment(1);
        });
        if let Err(outcome) = &outcome {
            // Once it is known to be down, every further time is no news.
            if before == State::Unhealthy {
                tracing::debug!(backend = name, outcome, "a backend is still down");
            } else {
                tracing::warn!(backend = name, outcome, "a backend failed its health check");
            }
        }
        entry.last_check = Some((passed, outcome.unwrap_or_else(|why| why), now));
        entry.health.state() != before
    }

    /// A request to `id` was answered after others had failed.
    pub fn served(&mut self, id: BackendId) {
        if let Some(entry) = self.entry(id) {
            entry.health.served();
            entry.backend.suspect(false);
        }
    }

    /// A request to `id` failed; whether it was ejected for that.
    ///
    /// The last one that may be picked never is. What may be overload ejects only while at
    /// least half of all remain: to send away whoever sheds load would give the others more.
    pub fn failed(&mut self, id: BackendId, cause: Cause, now: Instant) -> bool {
        let options = self.options.clone();
        let all = self.entries.iter().filter(|entry| !entry.draining).count();
        let others = self.entries.iter().filter(|entry| entry.backend.id() != id);
        let others = others.filter(|entry| entry.is_available()).count();
        let may_eject = if cause.may_be_overload() { others * 2 >= all } else { others > 0 };

        let Some(entry) = self.entry(id) else { return false };
        let deserves_it = entry.health.failed(cause, now, &options);
        let in_a_row = entry.health.failures();
        let (name, cause_name) = (entry.backend.name(), cause.as_str());
        entry.backend.suspect(true);
        if is_news("a backend failed a request", &format!("{name}: {cause_name}")) {
            tracing::warn!(
                backend = name,
                cause = cause_name,
                in_a_row,
                "a backend failed a request"
            );
        }
        if !deserves_it || entry.draining {
            return false;
        }
        if !may_eject {
            tracing::debug!(backend = name, "not ejected: too few would be left");
            return false;
        }
        let time = entry.health.eject(cause, now, &options);
        tracing::warn!(backend = name, cause = cause_name, ?time, "a backend is ejected");
        entry.backend.series().within(|| {
            counter!("merch_gateway_ejections_total", "cause" => cause_name).increment(1);
        });
        true
    }

    /// Does what is due at `now`.
    pub fn tick(&mut self, now: Instant) {
        for entry in &mut self.entries {
            entry.health.tick(now, &self.options);
        }
    }

    /// When something will be due without anything happening.
    pub fn next_tick(&self, now: Instant) -> Option<Instant> {
        self.entries.iter().filter_map(|entry| entry.health.next_tick(now, &self.options)).min()
    }

    /// Who may be picked. Those that were ejected may when nobody else is left: a request
    /// that may fail is better than one that does.
    pub fn snapshot(&self, now: Instant) -> Snapshot {
        let ejected = |entry: &Entry| entry.state() == State::Ejected;
        let mut candidates = self.candidates(now, Entry::is_available);
        if candidates.is_empty() {
            candidates = self.candidates(now, ejected);
        }
        Snapshot::new(self.options.strategy, candidates)
    }

    /// What every backend is like at `now`.
    pub fn status(&self, now: Instant) -> Vec<BackendStatus> {
        let status = |entry: &Entry| BackendStatus {
            name: entry.backend.name().to_owned(),
            address: entry.backend.address().to_string(),
            source: entry.origin.clone(),
            weight: entry.weight,
            state: entry.state(),
            in_flight: entry.backend.in_flight(),
            consecutive_failures: entry.health.failures(),
            latency_ms: entry.backend.latency.last().map(milliseconds),
            last_check: entry.last_check.as_ref().map(|(passed, outcome, at)| CheckStatus {
                passed: *passed,
                outcome: outcome.clone(),
                ago_ms: now.saturating_duration_since(*at).as_millis() as u64,
            }),
        };
        self.entries.iter().map(status).collect()
    }

    /// Tells the log and the metrics of every state that they do not know yet.
    pub fn report(&mut self) {
        for entry in &mut self.entries {
            let (state, name) = (entry.state(), entry.backend.name());
            if entry.reported == Some(state) {
                continue;
            }
            let before = entry.reported.replace(state).map(State::as_str);
            tracing::info!(backend = name, state = state.as_str(), before, "backend");
            if let Some(before) = before {
                show_state(&entry.backend, before, 0.0);
            }
            show_state(&entry.backend, state.as_str(), 1.0);
        }
    }

    pub(super) fn entry(&mut self, id: BackendId) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.backend.id() == id)
    }

    fn candidates(&self, now: Instant, which: impl Fn(&Entry) -> bool) -> Vec<Candidate> {
        let chosen = self.entries.iter().filter(|entry| which(entry));
        chosen
            .map(|entry| Candidate {
                backend: entry.backend.clone(),
                weight: entry.weight * entry.health.share(now, &self.options),
            })
            .collect()
    }
}

impl Entry {
    pub fn state(&self) -> State {
        if self.draining { State::Draining } else { self.health.state() }
    }

    /// Whether it may be picked whatever the others are like.
    pub fn is_available(&self) -> bool {
        matches!(self.state(), State::Healthy | State::SlowStart)
    }

    /// Shows nothing more of a backend that is out of the table.
    pub fn forget(&self) {
        tracing::info!(backend = self.backend.name(), "backend gone");
        if let Some(state) = self.reported {
            show_state(&self.backend, state.as_str(), 0.0);
        }
    }
}

/// To a microsecond: more was not measured.
fn milliseconds(seconds: f32) -> f64 {
    (f64::from(seconds) * 1e6).round() / 1e3
}

fn show_state(backend: &Backend, state: &'static str, value: f64) {
    backend.series().within(|| gauge!("merch_gateway_backend_state", "state" => state).set(value));
}
