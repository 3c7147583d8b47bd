//! A batch's way into the database: whole, once, or not at all.
//!
//! No balance changes outside this file.

use crate::shop::ledger::{Answer, Command, execute};
use crate::storage::{Attempt, StorageError, Transaction, Writer};
use crate::telemetry::is_news;

use super::queue::{EngineError, EngineOptions};

type Outcome = Result<Answer, EngineError>;

/// Carries out `commands` and makes them durable: one outcome a command, in order. A batch
/// that fails for a reason of its own is halved until the culprit stands alone.
pub(super) async fn commit(
    writer: &mut Writer,
    commands: &[Command],
    options: &EngineOptions,
) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(commands.len());
    // Parts still to be committed, the first one last.
    let mut parts = vec![commands];
    while let Some(part) = parts.pop() {
        match commit_part(writer, part, options).await {
            Ok(answers) => outcomes.extend(answers.into_iter().map(Ok)),
            Err(Failure::AnyBatch(error)) => {
                outcomes.extend(std::iter::repeat_n(Err(error), part.len()));
                // What happened to this part would happen to the others as well, but nothing
                // of them was tried.
                let rest = parts.drain(..).map(<[Command]>::len).sum();
                outcomes.extend(std::iter::repeat_n(Err(untried(error)), rest));
            }
            Err(Failure::ThisBatch(error)) => match part {
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
    AnyBatch(EngineError),
    /// Something in it cannot be written.
    ThisBatch(StorageError),
}

/// Commits one part in a transaction of its own, or says why that cannot be.
async fn commit_part(
    writer: &mut Writer,
    commands: &[Command],
    options: &EngineOptions,
) -> Result<Vec<Answer>, Failure> {
    match writer.run("commit_batch", options.replay, commands, carry_out).await {
        Ok(answers) => Ok(answers),
        Err(error @ (StorageError::Constraint(_) | StorageError::Unexpected(_))) => {
            Err(Failure::ThisBatch(error))
        }
        // Each replay was counted.
        Err(StorageError::Conflict { .. }) => Err(Failure::AnyBatch(EngineError::Contention)),
        Err(StorageError::Unavailable(why) | StorageError::Unusable(why)) => {
            say_away(&why);
            Err(Failure::AnyBatch(EngineError::Unavailable))
        }
        Err(StorageError::TooSlow(why)) => {
            if is_news("a batch took too long", &why) {
                tracing::error!(why, "a batch took too long");
            }
            Err(Failure::AnyBatch(EngineError::TooSlow))
        }
        Err(StorageError::OutcomeUnknown(why)) => {
            tracing::error!(why, "a batch's outcome is not known and was not found out");
            Err(Failure::AnyBatch(EngineError::OutcomeUnknown))
        }
    }
}

/// Read, decide, write.
fn carry_out<'a>(
    transaction: &'a mut Transaction<'_>,
    commands: &'a [Command],
) -> Attempt<'a, Vec<Answer>> {
    Box::pin(async move {
        let ledger = transaction.ledger_fetch(commands).await?;
        let (answers, changes) = execute(ledger, commands);
        if !changes.is_empty() {
            transaction.ledger_write(&changes).await?;
        }
        Ok(answers)
    })
}

/// What commands are told that would have met `error` too, if they had been tried.
fn untried(error: EngineError) -> EngineError {
    match error {
        EngineError::OutcomeUnknown => EngineError::Unavailable,
        error => error,
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
