//! The one door to a transaction that writes: its name, isolation, turn, replays and metrics.

use std::pin::Pin;
use std::time::Duration;

use metrics::{counter, histogram};
use sqlx::{SqlSafeStr, SqlStr};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use uuid::Uuid;

use crate::telemetry::is_news;

use super::error::{leaves_session, silent, words};
use super::identity::books_fetch;
use super::session::{Purpose, Running, Session, Statements};
use super::{Database, DatabaseOptions, StorageError};

/// How a transaction begins that writes coins: as if it were alone.
const SERIALIZABLE: &str = "BEGIN ISOLATION LEVEL SERIALIZABLE";

/// One that sees what others have done by then: a change of the schema, and single statements that
/// a pooler must not take apart.
pub(super) const READ_COMMITTED: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

/// One that reads for long, and all of it at one moment.
pub(super) const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// Waits for the turn among the writers of all processes, and has it until the transaction ends.
pub(super) const TURN: &str = "LOCK TABLE writer_turn IN EXCLUSIVE MODE";

/// A few pages of rows.
const TRY_ROOM: &str = "/* ensure_writable */ INSERT INTO writers (id, batch)
                        SELECT gen_random_uuid(), 0 FROM generate_series(1, 400)";

/// The longest pause before the first replay; it doubles with each one.
const FIRST_BACKOFF: Duration = Duration::from_millis(2);
const LONGEST_BACKOFF: Duration = Duration::from_millis(100);

/// How often, and how long, a transaction is tried.
#[derive(Clone, Copy, Debug)]
pub struct ReplayLimits {
    /// Attempts that lose against other transactions, at most.
    pub max_attempts: u32,
    /// For how long it is replayed, at most.
    pub replay_deadline: Duration,
    /// For how long the outcome of a broken COMMIT is looked for.
    pub outcome_deadline: Duration,
}

/// What a transaction does with its input, once for each attempt.
pub type Work<I, T> = for<'a> fn(&'a mut Transaction<'_>, &'a I) -> Attempt<'a, T>;

/// One attempt under way.
pub type Attempt<'a, T> = Pin<Box<dyn Future<Output = Result<T, StorageError>> + Send + 'a>>;

/// The session through which this process writes: one connection, made again when it breaks.
/// Whatever a transaction was doing when it failed, the next one starts from a clean session.
#[derive(Debug)]
pub struct Writer {
    pub(super) database: Database,
    connection: Option<Connection>,
    state: State,
    /// This writer's name in the `writers` table.
    id: Uuid,
    /// The number of the batch under way or last tried.
    batch: i64,
    /// Whether this process remembers what it has read, and so has to know of which books.
    remembers: bool,
}

#[derive(Debug)]
struct Connection {
    session: Session,
    /// How a transaction begins on that session, and how one in which it is our turn.
    begin: SqlStr,
    begin_in_turn: SqlStr,
    /// Whether writers of several processes take turns here, by locking a table.
    takes_turns: bool,
}

/// What the session is in the middle of.
#[derive(Debug)]
enum State {
    /// Of nothing.
    Idle,
    /// It was to wait for its turn, for the next transaction, and this is what came of it.
    Turn(Result<(), StorageError>),
    /// Of a transaction.
    InTransaction,
}

/// A SERIALIZABLE transaction; dropped before it is committed, it never was.
#[derive(Debug)]
pub struct Transaction<'writer> {
    pub(super) writer: &'writer mut Writer,
    /// Something was written, under the writer's batch number.
    wrote: bool,
}

impl Writer {
    /// A writer named `id` for `database`, not connected yet.
    pub fn new(database: &Database, id: Uuid) -> Writer {
        Writer {
            database: database.clone(),
            connection: None,
            state: State::Idle,
            id,
            batch: 0,
            remembers: true,
        }
    }

    /// One for a tool, which remembers nothing of what it reads.
    pub(super) fn for_a_tool(options: &DatabaseOptions) -> Writer {
        let database = Database::new(options.clone());
        Writer { remembers: false, ..Writer::new(&database, Uuid::new_v4()) }
    }

    /// Makes sure that there is a session, and that its server answers and takes writes.
    pub async fn ensure_connected(&mut self) -> Result<(), StorageError> {
        self.reset().await;
        if let Some(connection) = self.connection.as_mut() {
            let patience = self.database.options().patience();
            let alive = timeout(patience, connection.session.check_again()).await;
            if matches!(alive, Ok(Ok(()))) {
                return Ok(());
            }
            self.leave();
        }
        let session = Session::connect(self.database.options(), Purpose::Work).await?;
        let (begin, begin_in_turn) =
            (session.transaction(SERIALIZABLE, ""), session.transaction(SERIALIZABLE, TURN));
        // It may lead to another server than before, or to what that server held long ago.
        self.connection = Some(Connection { session, begin, begin_in_turn, takes_turns: true });
        if self.remembers {
            let books = self.ask(|statements| Box::pin(books_fetch(statements))).await;
            // A session of which this is not known is none.
            let books = books.inspect_err(|_| self.connection = None)?;
            self.database.names().learn_anew(books);
        }
        Ok(())
    }

    /// Makes sure that there is room for what is written: a few pages of rows, which are taken
    /// back.
    pub async fn ensure_writable(&mut self) -> Result<(), StorageError> {
        let connection = self.connection.as_ref().ok_or(sqlx::Error::WorkerCrashed)?;
        let trying = connection.session.transaction(READ_COMMITTED, TRY_ROOM);
        self.state = State::InTransaction;
        let written = self.execute(trying).await;
        self.reset().await;
        Ok(written?)
    }

    /// Waits for this writer's turn, so that a batch can be closed when it has come. What came
    /// of it is told by the next [`Writer::run`].
    pub async fn take_turn(&mut self) {
        let turn = self.begin().await;
        self.state = State::Turn(turn);
    }

    /// Runs `work` on `input` as the transaction `name` and commits it. It is run again from the
    /// start whenever it lost against another transaction, within `limits`, and once on a new
    /// connection if the one it had was lost; so `work` must bear to be run again, and nothing
    /// that it did the time before is left. `work` must sign what it writes with the writer's
    /// batch number: that is how the outcome of a COMMIT whose answer was lost is found out.
    pub async fn run<I: ?Sized, T>(
        &mut self,
        name: &'static str,
        limits: ReplayLimits,
        input: &I,
        work: Work<I, T>,
    ) -> Result<T, StorageError> {
        let deadline = Instant::now() + limits.replay_deadline;
        let mut backoff = FIRST_BACKOFF;
        let mut attempts = 1;
        let mut reconnected = false;
        loop {
            let error = match self.attempt(name, limits, input, work).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            match error {
                StorageError::Conflict { ref sqlstate } => {
                    let labels = [("transaction", name.into()), ("sqlstate", sqlstate.clone())];
                    counter!("merch_transaction_replays_total", &labels).increment(1);
                    if attempts >= limits.max_attempts || Instant::now() >= deadline {
                        return Err(error);
                    }
                    // Full jitter: two writers that collided do not meet again.
                    sleep(rand::random_range(Duration::ZERO..backoff)).await;
                    backoff = (backoff * 2).min(LONGEST_BACKOFF);
                    attempts += 1;
                }
                // An idle connection may have been cut long ago: worth one new one.
                StorageError::Unavailable(why) if !reconnected => {
                    if is_news("a transaction was not taken", &why) {
                        tracing::warn!(name, why, "a transaction was not taken; replaying it once");
                    }
                    reconnected = true;
                }
                error => return Err(error),
            }
        }
    }

    /// Hangs up politely; the server has nothing left to clean.
    pub async fn close(mut self) {
        self.reset().await;
        if let Some(connection) = self.connection.take() {
            connection.session.close().await;
        }
    }

    /// One transaction: begin, work, commit.
    async fn attempt<I: ?Sized, T>(
        &mut self,
        name: &'static str,
        limits: ReplayLimits,
        input: &I,
        work: Work<I, T>,
    ) -> Result<T, StorageError> {
        match std::mem::replace(&mut self.state, State::InTransaction) {
            State::Turn(turn) => turn?,
            before => {
                self.state = before;
                self.begin().await?;
            }
        }
        self.batch += 1;
        let started = Instant::now();
        let mut transaction = Transaction { writer: self, wrote: false };
        let value = work(&mut transaction, input).await?;
        match transaction.commit().await {
            Ok(()) => {}
            Err(StorageError::OutcomeUnknown(why)) => self.find_out(why, limits).await?,
            Err(error) => return Err(error),
        }
        histogram!("merch_transaction_seconds", "transaction" => name).record(started.elapsed());
        Ok(value)
    }

    /// Begins a transaction in this writer's turn. The snapshot is taken by the first statement
    /// after that, so it shows what the writer before us committed.
    async fn begin(&mut self) -> Result<(), StorageError> {
        self.reset().await;
        if self.connection.is_none() {
            self.ensure_connected().await?;
        }
        self.state = State::InTransaction;
        let Some(connection) = &self.connection else {
            return Err(sqlx::Error::WorkerCrashed.into());
        };
        let (begin, begin_in_turn) = (connection.begin.clone(), connection.begin_in_turn.clone());
        if connection.takes_turns {
            match self.execute(begin_in_turn).await {
                Err(sqlx::Error::Database(said)) if is_not_supported(said.code().as_deref()) => {
                    self.execute("ROLLBACK".into_sql_str()).await?;
                }
                begun => return Ok(begun?),
            }
        }
        match self.execute(begin).await {
            Err(sqlx::Error::Database(said)) if is_not_supported(said.code().as_deref()) => {
                let why = words(&sqlx::Error::Database(said));
                self.leave();
                return Err(StorageError::Unavailable(format!("{why}: is this a standby?")));
            }
            begun => begun?,
        }
        if let Some(connection) = &mut self.connection
            && std::mem::take(&mut connection.takes_turns)
        {
            tracing::info!("no LOCK TABLE here: writers will collide and replay");
        }
        Ok(())
    }

    /// After a connection broke at COMMIT: `Ok` if the batch was committed, `Unavailable` if it
    /// was not, `OutcomeUnknown` if the database does not come back in time to tell. Readers
    /// are told whether it is there.
    async fn find_out(&mut self, why: String, limits: ReplayLimits) -> Result<(), StorageError> {
        let batch = self.batch;
        tracing::warn!(why, batch, "connection lost at COMMIT; asking what became of it");
        let deadline = Instant::now() + limits.outcome_deadline;
        loop {
            match timeout_at(deadline, self.was_committed(batch)).await {
                Ok(Ok(committed)) => {
                    self.database.set_available(true);
                    tracing::info!(batch, committed, "what became of the batch is known");
                    return if committed { Ok(()) } else { Err(StorageError::Unavailable(why)) };
                }
                Ok(Err(error)) => {
                    if matches!(error, StorageError::Unavailable(_) | StorageError::Unusable(_)) {
                        self.database.set_available(false);
                    }
                    sleep(LONGEST_BACKOFF).await;
                }
                Err(_deadline) => return Err(StorageError::OutcomeUnknown(why)),
            }
        }
    }

    /// Whether batch `batch` of this writer was committed. The answer is final, because asking
    /// writes the row that the batch wrote and so waits for its transaction to end.
    async fn was_committed(&mut self, batch: i64) -> Result<bool, StorageError> {
        self.ensure_connected().await?;
        let id = self.id;
        let committed: i64 = self
            .ask(move |statements| {
                let sql = "INSERT INTO writers (id, batch) VALUES ($1, 0)
                           ON CONFLICT (id) DO UPDATE SET batch = writers.batch
                           RETURNING batch";
                Box::pin(sqlx::query_scalar(sql).bind(id).fetch_one(statements))
            })
            .await?;
        Ok(committed >= batch)
    }

    /// Runs one statement that belongs to no transaction.
    pub(super) async fn ask<T>(
        &mut self,
        statement: impl for<'c> FnOnce(Statements<'c>) -> Running<'c, T>,
    ) -> Result<T, sqlx::Error> {
        let patience = self.database.options().patience();
        let connection = self.connection.as_mut().ok_or(sqlx::Error::WorkerCrashed)?;
        let result = timeout(patience, connection.session.run(statement)).await;
        self.unless_left(result.unwrap_or_else(|_| Err(silent())))
    }

    /// Runs a statement of the transaction under way, but not for ever: a server that went
    /// silent is left.
    pub(super) async fn within_patience<T>(
        &mut self,
        work: impl AsyncFnOnce(Statements<'_>) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        let patience = self.database.options().patience();
        let connection = self.connection.as_mut().ok_or(sqlx::Error::WorkerCrashed)?;
        let result = timeout(patience, work(connection.session.statements())).await;
        self.unless_left(result.unwrap_or_else(|_| Err(silent())))
    }

    /// Runs `sql`, which has no parameters.
    pub(super) async fn execute(&mut self, sql: SqlStr) -> Result<(), sqlx::Error> {
        let patience = self.database.options().patience();
        let connection = self.connection.as_mut().ok_or(sqlx::Error::WorkerCrashed)?;
        let result = timeout(patience, connection.session.execute(sql)).await;
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
        self.connection = None;
        self.database.leave();
    }

    /// Leaves whatever transaction was under way; if that fails, leaves the session.
    async fn reset(&mut self) {
        let was_idle = matches!(self.state, State::Idle);
        self.state = State::Idle;
        if !was_idle
            && self.connection.is_some()
            && self.execute("ROLLBACK".into_sql_str()).await.is_err()
        {
            self.leave();
        }
    }
}

impl Transaction<'_> {
    /// What signs all that it writes: the writer's name and the number of the batch. By the row in
    /// `writers` that has both the outcome of a lost COMMIT is found out.
    pub(super) fn signature(&mut self) -> (Uuid, i64) {
        self.wrote = true;
        (self.writer.id, self.writer.batch)
    }

    /// Commits. [`StorageError::OutcomeUnknown`] only where there was something to commit.
    async fn commit(self) -> Result<(), StorageError> {
        let Err(error) = self.writer.execute("COMMIT".into_sql_str()).await else {
            self.writer.state = State::Idle;
            return Ok(());
        };
        match StorageError::at_commit(error) {
            StorageError::OutcomeUnknown(why) => {
                self.writer.leave();
                Err(if self.wrote {
                    StorageError::OutcomeUnknown(why)
                } else {
                    StorageError::Unavailable(why)
                })
            }
            plain => Err(plain),
        }
    }
}

/// "Feature not supported" or "syntax error": how engines without LOCK TABLE answer it, and a
/// standby a serializable transaction.
fn is_not_supported(sqlstate: Option<&str>) -> bool {
    matches!(sqlstate, Some("0A000" | "42601"))
}
