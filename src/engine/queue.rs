//! The way in: a handle that many requests share, and a queue with an end to it.

use std::time::Duration;

use metrics::{Gauge, gauge};
use tokio::sync::{mpsc, oneshot};

use crate::shop::ledger::{Answer, Command};
use crate::storage::{Database, Writer};

use super::batch::WriterTask;

/// The engine's limits.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Commands that may wait at once; one more is refused.
    pub queue_capacity: usize,
    /// Commands in one transaction, at most.
    pub max_batch: usize,
    /// How often a batch that loses against other transactions is tried, at most.
    pub max_attempts: u32,
    /// For how long it is tried, at most.
    pub replay_deadline: Duration,
    /// For how long the outcome of a broken COMMIT is looked for.
    pub outcome_deadline: Duration,
}

/// A handle on the engine. When the last one is dropped, the writer finishes what is on
/// the queue and stops.
#[derive(Clone, Debug)]
pub struct Engine {
    queue: mpsc::Sender<Submission>,
    database: Database,
    depth: Gauge,
}

/// A command and the place where its answer is waited for.
#[derive(Debug)]
pub(super) struct Submission {
    pub command: Command,
    pub answer: oneshot::Sender<Result<Answer, EngineError>>,
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
    /// Its batch lost against other transactions until the attempts or the time ran out.
    #[error("too many conflicts with other transactions")]
    Contention,
    /// The database went away at COMMIT and did not come back in time to tell.
    #[error("the database went away before it said whether this was done")]
    OutcomeUnknown,
    /// The database rejects this command by itself, or the writer died; the log says why.
    #[error("the command cannot be carried out")]
    Failed,
}

/// Starts the engine on `database`: the handle, and the writer to be run as a task.
pub fn start(
    database: Database,
    writer: Writer,
    options: EngineOptions,
) -> (Engine, impl Future<Output = ()> + Send) {
    let (sender, receiver) = mpsc::channel(options.queue_capacity);
    let depth = gauge!("merch_engine_queue_depth");
    let engine = Engine { queue: sender, database: database.clone(), depth: depth.clone() };
    let task = WriterTask { queue: receiver, writer, database, options, depth };
    (engine, task.run())
}

impl Engine {
    /// Has `command` carried out. The answer comes after it is durable; dropping the wait
    /// may or may not stop the command.
    pub async fn submit(&self, command: Command) -> Result<Answer, EngineError> {
        if !self.database.is_available() {
            return Err(EngineError::Unavailable);
        }
        let (sender, receiver) = oneshot::channel();
        self.queue.try_send(Submission { command, answer: sender }).map_err(
            |error| match error {
                mpsc::error::TrySendError::Full(_) => EngineError::QueueFull,
                mpsc::error::TrySendError::Closed(_) => EngineError::Unavailable,
            },
        )?;
        self.depth.increment(1);
        receiver.await.unwrap_or(Err(EngineError::Failed))
    }
}
