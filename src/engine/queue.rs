//! The way in: a handle that many requests share, and a queue with an end to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use metrics::{Gauge, counter, gauge};
use tokio::sync::{mpsc, oneshot};

use crate::shop::ledger::{Answer, Command};
use crate::storage::{Database, ReplayLimits};

/// Places of the queue that are kept for the merch team, besides those of everybody: people
/// who buy cannot keep the team from what would help them.
pub const TEAM_PLACES: usize = 32;

/// The engine's limits.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Commands of everybody that may wait at once; one more is refused.
    pub queue_capacity: usize,
    /// The weight at which a batch ends: see [`Command::weight`].
    pub max_batch: usize,
    /// How often, and how long, a batch is tried.
    pub replay: ReplayLimits,
}

/// A handle on the engine. When the last one is dropped, the writer finishes what is on
/// the queue and stops.
#[derive(Clone, Debug)]
pub struct Engine {
    queue: mpsc::Sender<Submission>,
    places: Places,
    database: Database,
    writable: Arc<AtomicBool>,
    depth: Gauge,
}

/// The writer's end of the queue.
pub(super) struct Queue {
    submissions: mpsc::Receiver<Submission>,
    places: Places,
    depth: Gauge,
}

/// The places of the queue that everybody may take, and how many of them are taken.
#[derive(Clone, Debug)]
struct Places {
    capacity: usize,
    taken: Arc<AtomicUsize>,
}

/// For whom a command is carried out, as far as the queue cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// Somebody who buys or sends; finds the queue full before the team does.
    Employee,
    /// The merch team.
    Team,
}

/// A command and the place where its answer is waited for.
#[derive(Debug)]
pub(super) struct Submission {
    pub command: Command,
    pub answer: oneshot::Sender<Result<Answer, EngineError>>,
    /// For whom; an employee's place is given back when this is taken from the queue.
    pub party: Party,
}

/// Why a command got no answer from the ledger. Unless it says otherwise, it changed
/// nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// As many commands wait as may wait; it was refused at once.
    #[error("the queue is full")]
    QueueFull,
    /// The database is known to be away, or went away before anything was committed.
    #[error("the database is away")]
    Unavailable,
    /// The database is there, but it did not carry the batch out in time.
    #[error("the database is too slow")]
    TooSlow,
    /// Its batch lost against other transactions until the attempts or the time ran out.
    #[error("too many conflicts with other transactions")]
    Contention,
    /// The database went away at COMMIT and did not come back in time to tell.
    #[error("the database went away before it said whether this was done")]
    OutcomeUnknown,
    /// The database rejects this command by itself; the log says why.
    #[error("the command cannot be carried out")]
    Failed,
}

impl Engine {
    /// A handle, and the end of the queue that the writer takes from.
    pub(super) fn new(
        database: Database,
        writable: Arc<AtomicBool>,
        capacity: usize,
    ) -> (Engine, Queue) {
        let (queue, submissions) = mpsc::channel(capacity + TEAM_PLACES);
        let places = Places { capacity, taken: Arc::default() };
        let depth = gauge!("merch_engine_queue_depth");
        let taken = Queue { submissions, places: places.clone(), depth: depth.clone() };
        (Engine { queue, places, database, writable, depth }, taken)
    }

    /// Whether the database took what the writer last tried to write; `true` before that. One
    /// with a full disk does not, though it has what readers need.
    pub fn can_write(&self) -> bool {
        self.database.is_available() && self.writable.load(Ordering::Relaxed)
    }

    /// Refuses at once what [`Engine::submit`] would refuse as things stand: for callers who
    /// have work to do before they know their command.
    pub fn admit(&self) -> Result<(), EngineError> {
        if !self.can_write() {
            Err(EngineError::Unavailable.counted())
        } else if self.places.are_taken() {
            Err(EngineError::QueueFull.counted())
        } else {
            Ok(())
        }
    }

    /// Has `command` carried out for `party`. The answer comes after it is durable; dropping the
    /// wait may or may not stop the command.
    pub async fn submit(&self, party: Party, command: Command) -> Result<Answer, EngineError> {
        if !self.can_write() {
            return Err(EngineError::Unavailable.counted());
        }
        if party == Party::Employee && !self.places.take() {
            return Err(EngineError::QueueFull.counted());
        }
        let (sender, receiver) = oneshot::channel();
        self.queue.try_send(Submission { command, answer: sender, party }).map_err(|error| {
            self.places.give_back(usize::from(party == Party::Employee));
            match error {
                mpsc::error::TrySendError::Full(_) => EngineError::QueueFull.counted(),
                mpsc::error::TrySendError::Closed(_) => EngineError::Unavailable.counted(),
            }
        })?;
        self.depth.increment(1);
        // A writer that died may have been in the middle of COMMIT.
        receiver.await.unwrap_or_else(|_| Err(EngineError::OutcomeUnknown.counted()))
    }
}

impl Queue {
    /// Waits for a command, then takes up to `most` of those that wait; 0 once every
    /// [`Engine`] is dropped.
    pub async fn take_many(&mut self, into: &mut Vec<Submission>, most: usize) -> usize {
        let before = into.len();
        let taken = self.submissions.recv_many(into, most).await;
        self.have_left(&into[before..]);
        taken
    }

    /// Waits for one; `None` once every [`Engine`] is dropped.
    pub async fn take(&mut self) -> Option<Submission> {
        let taken = self.submissions.recv().await;
        self.have_left(taken.as_slice());
        taken
    }

    /// One that waits already.
    pub fn take_waiting(&mut self) -> Option<Submission> {
        let taken = self.submissions.try_recv().ok();
        self.have_left(taken.as_slice());
        taken
    }

    fn have_left(&self, taken: &[Submission]) {
        self.depth.decrement(taken.len() as f64);
        self.places.give_back(taken.iter().filter(|it| it.party == Party::Employee).count());
    }
}

impl Places {
    fn are_taken(&self) -> bool {
        self.taken.load(Ordering::Relaxed) >= self.capacity
    }

    /// Takes one, if one is free.
    fn take(&self) -> bool {
        let free = |taken: usize| (taken < self.capacity).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free).is_ok()
    }

    fn give_back(&self, places: usize) {
        self.taken.fetch_sub(places, Ordering::Relaxed);
    }
}

impl EngineError {
    /// The same, after the metrics have heard of it.
    pub(super) fn counted(self) -> EngineError {
        let error = match self {
            EngineError::QueueFull => "queue_full",
            EngineError::Unavailable => "unavailable",
            EngineError::TooSlow => "too_slow",
            EngineError::Contention => "contention",
            EngineError::OutcomeUnknown => "outcome_unknown",
            EngineError::Failed => "failed",
        };
        counter!("merch_engine_errors_total", "error" => error).increment(1);
        self
    }
}
