//! The one door to a transaction that moves coins.

use std::time::Duration;

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::error::ends_session;
use super::identity::books_fetch;
use super::names::Names;
use super::{Database, DatabaseOptions, StorageError};

/// The session through which this process writes: one connection, made again when it
/// breaks. Whatever a method was doing when it failed, the next [`Writer::begin`] starts
/// from a clean session.
#[derive(Debug)]
pub struct Writer {
    options: DatabaseOptions,
    pub(super) names: Names,
    connection: Option<PgConnection>,
    /// This writer's name in the `writers` table.
    pub(super) id: Uuid,
    /// The number of the batch under way or last tried.
    pub(super) batch: i64,
    /// The session may be inside a transaction.
    in_transaction: bool,
    /// That transaction is waiting for [`Writer::begin`].
    has_turn: bool,
    /// Whether writers of several processes take turns, by locking a table.
    takes_turns: bool,
}

/// A SERIALIZABLE transaction; dropped before [`Transaction::commit`], it never was.
#[derive(Debug)]
pub struct Transaction<'writer> {
    pub(super) writer: &'writer mut Writer,
    /// Something was written, under the writer's batch number.
    pub(super) wrote: bool,
}

impl Writer {
    /// A writer named `id` for `database`, not connected yet.
    pub fn new(database: &Database, id: Uuid) -> Writer {
        Writer {
            options: database.options().clone(),
            names: database.names().clone(),
            connection: None,
            id,
            batch: 0,
            in_transaction: false,
            has_turn: false,
            takes_turns: true,
        }
    }

    /// Makes sure that there is a connection and that the server answers on it.
    pub async fn ensure_connected(&mut self) -> Result<(), StorageError> {
        self.reset().await;
        if self.connection.is_some() {
            let alive = self.within_patience(async |connection| connection.ping().await).await;
            if alive.is_ok() {
                return Ok(());
            }
            self.connection = None;
        }
        self.connection = Some(self.options.connect().await?);
        // It may lead to another server than before, or to what that server held long ago.
        self.takes_turns = true;
        let books = self.within_patience(books_fetch).await?;
        self.names.learn_anew(books);
        Ok(())
    }

    /// Waits for this writer's turn, inside a new transaction. The snapshot is taken by the
    /// first statement after that, so it shows what the writer before us committed.
    pub async fn take_turn(&mut self) -> Result<(), StorageError> {
        self.reset().await;
        if self.connection.is_none() {
            self.ensure_connected().await?;
        }
        self.in_transaction = true;
        if self.takes_turns {
            let begun = self.execute(
                "BEGIN ISOLATION LEVEL SERIALIZABLE; LOCK TABLE writer_turn IN EXCLUSIVE MODE",
            );
            match begun.await {
                Err(sqlx::Error::Database(said)) if is_not_supported(said.code().as_deref()) => {
                    self.execute("ROLLBACK").await?;
                    self.begin_out_of_turn().await?;
                    tracing::info!("no LOCK TABLE here: writers will collide and replay");
                    self.takes_turns = false;
                }
                begun => begun?,
            }
        } else {
            self.begin_out_of_turn().await?;
        }
        self.has_turn = true;
        Ok(())
    }

    /// The transaction in which it is this writer's turn; one that is not taken yet is waited
    /// for.
    pub async fn begin(&mut self) -> Result<Transaction<'_>, StorageError> {
        if !self.has_turn {
            self.take_turn().await?;
        }
        self.has_turn = false;
        self.batch += 1;
        Ok(Transaction { writer: self, wrote: false })
    }

    /// Whether batch `batch` of this writer was committed: asked after a connection broke
    /// at COMMIT. The answer is final, because asking writes the row that the batch wrote
    /// and so waits for its transaction to end.
    pub async fn was_committed(&mut self, batch: i64) -> Result<bool, StorageError> {
        self.ensure_connected().await?;
        let id = self.id;
        let committed: i64 = self
            .within_patience(async |connection| {
                sqlx::query_scalar(
                    "INSERT INTO writers (id, batch) VALUES ($1, 0)
                     ON CONFLICT (id) DO UPDATE SET batch = writers.batch
                     RETURNING batch",
                )
                .bind(id)
                .fetch_one(connection)
                .await
            })
            .await?;
        Ok(committed >= batch)
    }

    /// Hangs up politely; the server has nothing left to clean.
    pub async fn close(mut self) {
        self.reset().await;
        if let Some(connection) = self.connection.take() {
            // The server may be gone already, and we are leaving.
            let _ = connection.close().await;
        }
    }

    /// Runs `work` on the connection, but not for ever: a server that went silent is left.
    pub(super) async fn within_patience<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        let Some(connection) = self.connection.as_mut() else {
            return Err(sqlx::Error::WorkerCrashed);
        };
        // The server gives up first, so that it can say why.
        let patience = self.options.statement_timeout + Duration::from_secs(1);
        let result = tokio::time::timeout(patience, work(connection))
            .await
            .unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())));
        if result.as_ref().is_err_and(ends_session) {
            self.connection = None;
        }
        result
    }

    async fn begin_out_of_turn(&mut self) -> Result<(), StorageError> {
        match self.execute("BEGIN ISOLATION LEVEL SERIALIZABLE").await {
            Err(sqlx::Error::Database(said)) if is_not_supported(said.code().as_deref()) => {
                Err(StorageError::Unavailable(format!("{said}: is this a standby?")))
            }
            begun => Ok(begun?),
        }
    }

    async fn execute(&mut self, sql: &'static str) -> Result<(), sqlx::Error> {
        self.within_patience(async |connection| {
            sqlx::raw_sql(sql).execute(connection).await.map(|_| ())
        })
        .await
    }

    /// Leaves a connection on which the database is not the one that it was: the next one finds
    /// out which it is.
    pub(super) fn leave(&mut self) {
        self.connection = None;
    }

    /// Leaves whatever transaction was under way; if that fails, leaves the connection.
    async fn reset(&mut self) {
        self.has_turn = false;
        if std::mem::take(&mut self.in_transaction)
            && self.connection.is_some()
            && self.execute("ROLLBACK").await.is_err()
        {
            self.connection = None;
        }
    }
}

impl Transaction<'_> {
    /// The number under which `writers` will remember this transaction.
    pub fn batch(&self) -> i64 {
        self.writer.batch
    }

    /// Commits. [`StorageError::OutcomeUnknown`] only where there was something to commit.
    pub async fn commit(self) -> Result<(), StorageError> {
        match self.writer.execute("COMMIT").await {
            Ok(()) => {
                self.writer.in_transaction = false;
                Ok(())
            }
            Err(error) => match StorageError::at_commit(error) {
                StorageError::OutcomeUnknown(why) => {
                    self.writer.connection = None;
                    Err(if self.wrote {
                        StorageError::OutcomeUnknown(why)
                    } else {
                        StorageError::Unavailable(why)
                    })
                }
                plain => Err(plain),
            },
        }
    }
}

/// "Feature not supported" or "syntax error": how engines without LOCK TABLE answer it, and a
/// standby a serializable transaction.
fn is_not_supported(sqlstate: Option<&str>) -> bool {
    matches!(sqlstate, Some("0A000" | "42601"))
}
