//! The one door to a transaction that moves coins.

use std::time::Duration;

use sqlx::{SqlSafeStr, SqlStr};
use uuid::Uuid;

use crate::shop::Books;

use super::error::{leaves_session, words};
use super::identity::books_fetch;
use super::session::{Purpose, Session, Statements};
use super::{Database, StorageError};

/// The session through which this process writes: one connection, made again when it
/// breaks. Whatever a method was doing when it failed, the next [`Writer::begin`] starts
/// from a clean session.
#[derive(Debug)]
pub struct Writer {
    pub(super) database: Database,
    session: Option<Session>,
    /// How a transaction begins on that session, and how one in which it is our turn.
    begin: SqlStr,
    begin_in_turn: SqlStr,
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
            database: database.clone(),
            session: None,
            begin: "".into_sql_str(),
            begin_in_turn: "".into_sql_str(),
            id,
            batch: 0,
            in_transaction: false,
            has_turn: false,
            takes_turns: true,
        }
    }

    /// Makes sure that there is a session, and that its server answers and takes writes.
    pub async fn ensure_connected(&mut self) -> Result<(), StorageError> {
        self.reset().await;
        if let Some(session) = self.session.as_mut() {
            let patience = patience(&self.database);
            let alive = tokio::time::timeout(patience, session.check_again()).await;
            if matches!(alive, Ok(Ok(()))) {
                return Ok(());
            }
            self.leave();
        }
        let session = Session::connect(self.database.options(), Purpose::Work).await?;
        self.begin = session.transaction(BEGIN, "");
        self.begin_in_turn = session.transaction(BEGIN, TURN);
        self.session = Some(session);
        // It may lead to another server than before, or to what that server held long ago.
        self.takes_turns = true;
        let books = self.books_fetch().await?;
        self.database.names().learn_anew(books);
        Ok(())
    }

    async fn books_fetch(&mut self) -> Result<Books, sqlx::Error> {
        let patience = patience(&self.database);
        let session = self.session.as_mut().ok_or(sqlx::Error::WorkerCrashed)?;
        let asking = session.run(|statements| Box::pin(books_fetch(statements)));
        let books = tokio::time::timeout(patience, asking).await;
        self.unless_left(books.unwrap_or_else(|_| Err(silent())))
    }

    /// Waits for this writer's turn, inside a new transaction. The snapshot is taken by the
    /// first statement after that, so it shows what the writer before us committed.
    pub async fn take_turn(&mut self) -> Result<(), StorageError> {
        self.reset().await;
        if self.session.is_none() {
            self.ensure_connected().await?;
        }
        self.in_transaction = true;
        if self.takes_turns {
            match self.execute(self.begin_in_turn.clone()).await {
                Err(sqlx::Error::Database(said)) if is_not_supported(said.code().as_deref()) => {
                    self.execute("ROLLBACK".into_sql_str()).await?;
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

    /// Makes sure that there is room for what is written: a few pages of rows, which are taken
    /// back.
    pub async fn ensure_writable(&mut self) -> Result<(), StorageError> {
        self.in_transaction = true;
        let sql = "BEGIN; INSERT INTO writers (id, batch)
                          SELECT gen_random_uuid(), 0 FROM generate_series(1, 400)";
        let written = self
            .within_patience(async |connection| sqlx::raw_sql(sql).execute(connection).await)
            .await;
        self.reset().await;
        written?;
        Ok(())
    }

    /// Whether batch `batch` of this writer was committed: asked after a connection broke
    /// at COMMIT. The answer is final, because asking writes the row that the batch wrote
    /// and so waits for its transaction to end.
    pub async fn was_committed(&mut self, batch: i64) -> Result<bool, StorageError> {
        self.ensure_connected().await?;
        let id = self.id;
        let patience = patience(&self.database);
        let session = self.session.as_mut().ok_or(sqlx::Error::WorkerCrashed)?;
        let asking = session.run(move |statements| {
            let sql = "INSERT INTO writers (id, batch) VALUES ($1, 0)
                       ON CONFLICT (id) DO UPDATE SET batch = writers.batch
                       RETURNING batch";
            Box::pin(sqlx::query_scalar(sql).bind(id).fetch_one(statements))
        });
        let committed: Result<i64, sqlx::Error> =
            tokio::time::timeout(patience, asking).await.unwrap_or_else(|_| Err(silent()));
        Ok(self.unless_left(committed)? >= batch)
    }

    /// Hangs up politely; the server has nothing left to clean.
    pub async fn close(mut self) {
        self.reset().await;
        if let Some(session) = self.session.take() {
            session.close().await;
        }
    }

    /// Runs a statement of the transaction under way, but not for ever: a server that went
    /// silent is left.
    pub(super) async fn within_patience<T>(
        &mut self,
        work: impl AsyncFnOnce(Statements<'_>) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        let patience = patience(&self.database);
        let session = self.session.as_mut().ok_or(sqlx::Error::WorkerCrashed)?;
        let result = tokio::time::timeout(patience, work(session.statements())).await;
        self.unless_left(result.unwrap_or_else(|_| Err(silent())))
    }

    async fn begin_out_of_turn(&mut self) -> Result<(), StorageError> {
        match self.execute(self.begin.clone()).await {
            Err(sqlx::Error::Database(said)) if is_not_supported(said.code().as_deref()) => {
                let why = words(&sqlx::Error::Database(said));
                self.leave();
                Err(StorageError::Unavailable(format!("{why}: is this a standby?")))
            }
            begun => Ok(begun?),
        }
    }

    async fn execute(&mut self, sql: SqlStr) -> Result<(), sqlx::Error> {
        let patience = patience(&self.database);
        let session = self.session.as_mut().ok_or(sqlx::Error::WorkerCrashed)?;
        let result = tokio::time::timeout(patience, session.execute(sql)).await;
        self.unless_left(result.unwrap_or_else(|_| Err(silent())))
    }

    /// Passes `result` on, and leaves the session if it says that there is a better one.
    fn unless_left<T>(&mut self, result: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        if result.as_ref().is_err_and(leaves_session) {
            self.leave();
        }
        result
    }

    /// Leaves the session, and has the readers leave theirs: where the writer's server went,
    /// theirs may have gone, too.
    pub(super) fn leave(&mut self) {
        self.session = None;
        self.database.leave();
    }

    /// Leaves whatever transaction was under way; if that fails, leaves the session.
    async fn reset(&mut self) {
        self.has_turn = false;
        if std::mem::take(&mut self.in_transaction)
            && self.session.is_some()
            && self.execute("ROLLBACK".into_sql_str()).await.is_err()
        {
            self.leave();
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
        match self.writer.execute("COMMIT".into_sql_str()).await {
            Ok(()) => {
                self.writer.in_transaction = false;
                Ok(())
            }
            Err(error) => match StorageError::at_commit(error) {
                StorageError::OutcomeUnknown(why) => {
                    self.writer.leave();
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

const BEGIN: &str = "BEGIN ISOLATION LEVEL SERIALIZABLE";
const TURN: &str = "LOCK TABLE writer_turn IN EXCLUSIVE MODE";

/// How long a statement is waited for: the server gives up first, so that it can say why.
fn patience(database: &Database) -> Duration {
    database.options().statement_timeout + Duration::from_secs(1)
}

fn silent() -> sqlx::Error {
    sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())
}

/// "Feature not supported" or "syntax error": how engines without LOCK TABLE answer it, and a
/// standby a serializable transaction.
fn is_not_supported(sqlstate: Option<&str>) -> bool {
    matches!(sqlstate, Some("0A000" | "42601"))
}
