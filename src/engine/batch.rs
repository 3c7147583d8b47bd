//! The writer: takes what queued up, has it committed, tells everybody.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use metrics::{counter, histogram};
use tokio::time::{Instant, sleep, timeout};

use crate::shop::ledger::{Answer, Command};
use crate::storage::{Database, Writer};
use crate::telemetry::is_news;

use super::commit::{commit, say_away};
use super::queue::{EngineError, EngineOptions, Queue, Submission};

/// How often an idle writer makes sure that the database is still there.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// The pause between attempts to reach a database that went away: a random part of this.
const RECONNECT_PAUSE: Duration = Duration::from_millis(200);

/// The same between attempts to write into one that answers and takes nothing, as one with a
/// full disk does: each leaves its lines in the server's log.
const WRITE_PAUSE: Duration = Duration::from_secs(2);

/// The one task that writes.
pub(super) struct WriterTask {
    pub queue: Queue,
    pub writer: Writer,
    pub database: Database,
    /// Whether the database takes what is written, for those who ask before they order.
    pub writable: Arc<AtomicBool>,
    pub options: EngineOptions,
}

impl WriterTask {
    /// Runs until every [`super::Engine`] is dropped and the queue is empty.
    pub async fn run(mut self) {
        let mut waiting = Vec::with_capacity(self.options.max_batch);
        loop {
            while !waiting.is_empty() {
                self.carry_out(&mut waiting).await;
            }
            let taken = {
                let taking = pin!(self.queue.take_many(&mut waiting, self.options.max_batch));
                timeout(HEARTBEAT, taking).await
            };
            match taken {
                Ok(0) => break,
                Ok(_) => {}
                Err(_idle) => {
                    if let Err(error) = self.writer.ensure_connected().await {
                        say_away(&error.to_string());
                        self.wait_for_database().await;
                    }
                }
            }
        }
        self.writer.close().await;
    }

    /// Commits the first of those who wait as one batch and answers them. Commands that come
    /// while the writer waits for its turn are part of it, up to its weight; what is beyond
    /// that goes on waiting.
    async fn carry_out(&mut self, waiting: &mut Vec<Submission>) {
        // Nobody was told anything about a command whose client has gone.
        waiting.retain(|submission| !submission.answer.is_closed());
        if waiting.is_empty() {
            return;
        }
        refusing(&mut self.queue, &self.database, self.writer.take_turn()).await;
        let (mut weight, mut taken) = (0, 0);
        while weight < self.options.max_batch
            && let Some(submission) = waiting.get(taken)
        {
            weight += submission.command.weight();
            taken += 1;
        }
        let (mut commands, mut answers): (Vec<Command>, Vec<_>) = waiting
            .drain(..taken)
            .map(|submission| (submission.command, submission.answer))
            .unzip();
        while weight < self.options.max_batch
            && let Some(submission) = self.next_in_queue()
        {
            weight += submission.command.weight();
            commands.push(submission.command);
            answers.push(submission.answer);
        }
        histogram!("merch_engine_batch_size").record(commands.len() as f64);
        let results = {
            let committing = commit(&mut self.writer, &commands, &self.options);
            refusing(&mut self.queue, &self.database, committing).await
        };
        let away = results.contains(&Err(EngineError::Unavailable))
            || results.contains(&Err(EngineError::OutcomeUnknown));
        if away {
            self.database.set_available(false);
        }
        for (answer, result) in answers.into_iter().zip(results) {
            count(&result);
            // The client may have hung up meanwhile; what was done stays done.
            let _ = answer.send(result);
        }
        if away {
            for submission in waiting.drain(..) {
                refuse(submission);
            }
            self.wait_for_database().await;
        }
    }

    /// The next command on the queue whose client is still there.
    fn next_in_queue(&mut self) -> Option<Submission> {
        loop {
            let submission = self.queue.take_waiting()?;
            if !submission.answer.is_closed() {
                return Some(submission);
            }
        }
    }

    /// Refuses everything until the database takes what is written, or everybody has gone.
    async fn wait_for_database(&mut self) {
        self.database.set_available(false);
        let since = Instant::now();
        let mut returning = pin!(until_writable(&mut self.writer, &self.database, &self.writable));
        loop {
            tokio::select! {
                biased;
                () = &mut returning => break,
                taken = self.queue.take() => match taken {
                    Some(submission) => refuse(submission),
                    None => return,
                },
            }
        }
        if is_news("database back", "") {
            tracing::info!(after = ?since.elapsed(), "database back");
        }
    }
}

/// Tries until `database` takes what is written; as soon as it answers, it is there for readers.
async fn until_writable(writer: &mut Writer, database: &Database, writable: &AtomicBool) {
    loop {
        let pause = match writer.ensure_connected().await {
            Ok(()) => match writer.ensure_writable().await {
                Ok(()) => break,
                Err(error) => {
                    say_away(&error.to_string());
                    writable.store(false, Ordering::Relaxed);
                    database.set_available(true);
                    WRITE_PAUSE
                }
            },
            Err(_) => {
                database.set_available(false);
                RECONNECT_PAUSE
            }
        };
        sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
    }
    writable.store(true, Ordering::Relaxed);
    database.set_available(true);
}

/// Does `work`, which may wait for a database that has gone; those in the queue need not.
async fn refusing<T>(queue: &mut Queue, database: &Database, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            Some(submission) = queue.take(), if !database.is_available() => refuse(submission),
            () = database.went_away(), if database.is_available() => {}
        }
    }
}

fn refuse(submission: Submission) {
    let refused = Err(EngineError::Unavailable);
    count(&refused);
    // The client may have hung up already.
    let _ = submission.answer.send(refused);
}

fn count(result: &Result<Answer, EngineError>) {
    match result {
        Ok(Answer { result: Err(refusal), .. }) => {
            counter!("merch_engine_refusals_total", "code" => refusal.code()).increment(1);
        }
        Ok(_) => {}
        Err(error) => {
            error.counted();
        }
    }
}
