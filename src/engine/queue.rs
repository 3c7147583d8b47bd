//! The way in: a handle that many requests share, and a queue with an end to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use metrics::{Gauge, counter, gauge};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

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
    /// Those of the queue that everybody may take.
    places: Arc<Semaphore>,
    database: Database,
    writable: Arc<AtomicBool>,
    depth: Gauge,
}

/// Who asks for a command, as far as the queue cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
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
    /// Its place on the queue, if that is one of everybody's, until it is taken from there.
    pub place: Option<OwnedSemaphorePermit>,
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
    ) -> (Engine, mpsc::Receiver<Submission>) {
        let (queue, submissions) = mpsc::channel(capacity + TEAM_PLACES);
        let places = Arc::new(Semaphore::new(capacity));
        (Engine { queue, places, database, writable, depth: depth() }, submissions)
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
        } else if self.places.available_permits() == 0 {
            Err(EngineError::QueueFull.counted())
        } else {
            Ok(())
        }
    }

    /// Has `command` carried out for `asker`. The answer comes after it is durable; dropping the wait
    /// may or may not stop the command.
    pub async fn submit(&self, asker: Asker, command: Command) -> Result<Answer, EngineError> {
        if !self.can_write() {
            return Err(EngineError::Unavailable.counted());
        }
        let place = match asker {
            Asker::Employee => match self.places.clone().try_acquire_owned() {
                Ok(place) => Some(place),
                Err(_) => return Err(EngineError::QueueFull.counted()),
            },
            Asker::Team => None,
        };
        let (sender, receiver) = oneshot::channel();
        self.queue.try_send(Submission { command, answer: sender, place }).map_err(|error| {
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

/// How many commands wait for the writer.
pub(super) fn depth() -> Gauge {
    gauge!("merch_engine_queue_depth")
}
