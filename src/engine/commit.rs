//! A batch's way into the database: whole, once, or not at all.
//!
//! No balance changes outside this file.

use std::time::Duration;

use metrics::{counter, histogram};
use tokio::time::{Instant, sleep, timeout_at};

use crate::shop::ledger::{Answer, Command, execute};
use crate::storage::{Database, StorageError, Writer};
use crate::telemetry::is_news;

use super::queue::{EngineError, EngineOptions};

/// The longest pause before the first replay; it doubles with each one.
const FIRST_BACKOFF: Duration = Duration::from_millis(2);
const LONGEST_BACKOFF: Duration = Duration::from_millis(100);

type Outcome = Result<Answer, EngineError>;

/// Carries out `commands` and makes them durable: one outcome a command, in order. A batch
/// that fails for a reason of its own is halved until the culprit stands alone. `turn` is how
/// taking the writer's first turn went. Where it has to wait for the database to come back, it
/// tells `database`.
pub(super) async fn commit(
    writer: &mut Writer,
    mut turn: Result<(), StorageError>,
    commands: &[Command],
    database: &Database,
    options: &EngineOptions,
) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(commands.len());
    // Parts still to be committed, the first one last.
    let mut parts = vec![commands];
    while let Some(part) = parts.pop() {
        let turn = std::mem::replace(&mut turn, Ok(()));
        match commit_whole(writer, turn, part, database, options).await {
            Ok(answers) => outcomes.extend(answers.into_iter().map(Ok)),
            Err(Failure::All(error)) => {
                // What happened to this part would happen to the others as well.
                let rest = parts.drain(..).map(<[Command]>::len).sum::<usize>();
                outcomes.extend(std::iter::repeat_n(Err(error), part.len() + rest));
            }
            Err(Failure::Some(error)) => match part {
                [_] => outcomes.push(alone(&error)),
                _ => {
                    if is_news("splitting a batch that failed", &error.to_string()) {
                        let commands = part.len();
                        tracing::warn!(%error, commands, "splitting a batch that failed");
                    }
                    let (first, second) = part.split_at(part.len() / 2);
                    parts.extend([second, first]);
                }
            },
        }
    }
    outcomes
}

/// Why a batch was not committed.
enum Failure {
    /// It would have happened to any batch.
    All(EngineError),
    /// Something in it cannot be written.
    Some(StorageError),
}

/// Tries until the batch is committed, replaying it from the start whenever it lost
/// against another transaction.
async fn commit_whole(
    writer: &mut Writer,
    mut turn: Result<(), StorageError>,
    commands: &[Command],
    database: &Database,
    options: &EngineOptions,
) -> Result<Vec<Answer>, Failure> {
    let deadline = Instant::now() + options.replay_deadline;
    let mut backoff = FIRST_BACKOFF;
    let mut reconnected = false;
    let mut attempt = 1;
    loop {
        let error = match std::mem::replace(&mut turn, Ok(())) {
            Ok(()) => match try_once(writer, commands, database, options).await {
                Ok(answers) => return Ok(answers),
                Err(error) => error,
            },
            Err(error) => error,
        };
        match error {
            StorageError::Conflict { sqlstate } => {
                counter!("merch_engine_replays_total", "sqlstate" => sqlstate).increment(1);
                if attempt >= options.max_attempts || Instant::now() >= deadline {
                    return Err(Failure::All(EngineError::Contention));
                }
                // Full jitter: two writers that collided do not meet again.
                sleep(rand::random_range(Duration::ZERO..backoff)).await;
                backoff = (backoff * 2).min(LONGEST_BACKOFF);
                attempt += 1;
            }
            // An idle connection may have been cut long ago: worth one new one.
            StorageError::Unavailable(why) if !reconnected => {
                if is_news("a batch was not taken", &why) {
                    tracing::warn!(why, "a batch was not taken; replaying it once");
                }
                reconnected = true;
            }
            StorageError::Unavailable(why) | StorageError::Unusable(why) => {
                say_away(&why);
                return Err(Failure::All(EngineError::Unavailable));
            }
            StorageError::TooSlow(why) => {
                if is_news("a batch took too long", &why) {
                    tracing::error!(why, "a batch took too long");
                }
                return Err(Failure::All(EngineError::TooSlow));
            }
            StorageError::OutcomeUnknown(why) => {
                tracing::error!(why, "a batch's outcome is not known and was not found out");
                return Err(Failure::All(EngineError::OutcomeUnknown));
            }
            error @ (StorageError::Constraint(_) | StorageError::Unexpected(_)) => {
                return Err(Failure::Some(error));
            }
        }
    }
}

/// One transaction: read, decide, write, commit.
async fn try_once(
    writer: &mut Writer,
    commands: &[Command],
    database: &Database,
    options: &EngineOptions,
) -> Result<Vec<Answer>, StorageError> {
    let started = Instant::now();
    let mut transaction = writer.begin().await?;
    let batch = transaction.batch();
    let ledger = transaction.ledger_fetch(commands).await?;
    let (answers, changes) = execute(ledger, commands);
    if !changes.is_empty() {
        transaction.ledger_write(&changes).await?;
    }
    match transaction.commit().await {
        Ok(()) => {}
        Err(StorageError::OutcomeUnknown(why)) => {
            find_out(writer, batch, why, database, options).await?;
        }
        Err(error) => return Err(error),
    }
    histogram!("merch_engine_commit_seconds").record(started.elapsed());
    Ok(answers)
}

/// After a connection broke at COMMIT: `Ok` if the batch was committed, `Unavailable` if it
/// was not, `OutcomeUnknown` if the database does not come back in time to tell.
async fn find_out(
    writer: &mut Writer,
    batch: i64,
    why: String,
    database: &Database,
    options: &EngineOptions,
) -> Result<(), StorageError> {
    tracing::warn!(why, batch, "connection lost at COMMIT; asking what became of it");
    let deadline = Instant::now() + options.outcome_deadline;
    loop {
        match timeout_at(deadline, writer.was_committed(batch)).await {
            Ok(Ok(true)) => {
                database.set_available(true);
                tracing::info!(batch, "the batch was committed");
                return Ok(());
            }
            Ok(Ok(false)) => {
                database.set_available(true);
                tracing::info!(batch, "the batch was not committed");
                return Err(StorageError::Unavailable(why));
            }
            Ok(Err(error)) => {
                if matches!(error, StorageError::Unavailable(_) | StorageError::Unusable(_)) {
                    database.set_available(false);
                }
                sleep(LONGEST_BACKOFF).await;
            }
            Err(_deadline) => return Err(StorageError::OutcomeUnknown(why)),
        }
    }
}

/// Says that nothing can be committed from here on, and why.
pub(super) fn say_away(why: &str) {
    if is_news("database away", why) {
        tracing::error!(why, "database away; refusing until it is back");
    }
}

/// What the culprit is told: a refusal, if a constraint of the database spoke the shop's
/// language, or that it failed.
fn alone(error: &StorageError) -> Outcome {
    match error.refusal() {
        Some(refusal) => {
            if is_news("the database refused a command", &error.to_string()) {
                tracing::error!(%error, "the database refused what the ledger had allowed");
            }
            Ok(Answer { result: Err(refusal), replayed: false })
        }
        None => {
            if is_news("a command cannot be carried out", &error.to_string()) {
                tracing::error!(%error, "a command cannot be carried out");
            }
            Err(EngineError::Failed)
        }
    }
}
