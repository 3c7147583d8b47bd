//! One change of the schema: apart from all others, and tried again where it did not get a lock.

use std::time::Duration;

use sqlx::migrate::Migration;
use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};
use tokio::time::{Instant, sleep};

use crate::telemetry::is_news;

use super::super::StorageError;
use super::super::door::{READ_COMMITTED, TURN};
use super::super::error::words;
use super::super::session::Session;
use super::{MAKE_RECORD, Migrations, way_back};

/// Those who change the schema at once wait for each other here. A lock of the transaction's:
/// one of the session's would stay with a pooler. In short waits, because one that goes on
/// holds a snapshot, which an index that is built concurrently waits for, and deadlocks.
const WAIT_FOR_OTHERS: &str = "SET LOCAL lock_timeout = '20ms';
                               SELECT pg_advisory_xact_lock(4783208161327654);
                               SET LOCAL lock_timeout = 0;";

/// The same where there is no transaction.
const TRY_LOCK: &str = "SELECT pg_try_advisory_lock(4783208161327654)";
const UNLOCK: &str = "SELECT pg_advisory_unlock(4783208161327654)";

/// Who waits for the writers' turn keeps all of them waiting behind.
const TURN_TIMEOUT: &str = "SET LOCAL lock_timeout = '200ms'";

/// A migration takes what it takes.
pub(super) const NO_LIMITS: &str = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0;
                         SET LOCAL idle_in_transaction_session_timeout = 0;";

/// The longest pause before a change is tried again.
const PAUSE: Duration = Duration::from_millis(250);

/// After so long an operator is told what is waited for.
const SILENCE: Duration = Duration::from_secs(1);

/// What became of one attempt.
enum Attempt {
    /// It is done, or was done by another process: `false`.
    Done(bool),
    /// Another process changes the schema.
    OthersFirst,
}

/// What keeps a change waiting, in words, and for how long that is borne.
struct Obstacle {
    what: &'static str,
    patience: Duration,
}

/// A large shop's index takes its time.
const OTHERS: Obstacle = Obstacle {
    what: "another process changes the schema: one of the sessions of `merch-store` in \
           pg_stat_activity",
    patience: Duration::from_secs(600),
};

const LOCKS: Obstacle = Obstacle {
    what: "somebody holds a lock that the migration needs: a long transaction in pg_stat_activity",
    patience: Duration::from_secs(60),
};

impl Migrations {
    /// Carries `migration` out, whichever way it leads; `false` where another process has applied
    /// it meanwhile. It is tried again where it did not get a lock in the time that it allows
    /// itself: to go on waiting would keep everybody else waiting behind it.
    pub(super) async fn change(
        &mut self,
        migration: &'static Migration,
    ) -> Result<bool, StorageError> {
        tracing::debug!(migration.version, "changing the schema");
        self.refuse_behind_a_pooler(migration).await?;
        let (started, mut first_lost) = (Instant::now(), None);
        loop {
            let (Obstacle { what, patience }, since) =
                match attempt(&mut self.session, migration).await {
                    Ok(Attempt::Done(changed)) => return Ok(changed),
                    Ok(Attempt::OthersFirst) => (OTHERS, started),
                    Err(error) if lost_a_lock(&error) => {
                        (LOCKS, *first_lost.get_or_insert_with(Instant::now))
                    }
                    Err(error) => return Err(self.cannot(migration, error)),
                };
            let version = migration.version;
            if since.elapsed() > patience {
                return Err(StorageError::TooSlow(format!(
                    "{}: migration {version:04} was given up after {patience:?}: {what}",
                    self.location
                )));
            }
            if since.elapsed() > SILENCE && is_news("the migration waits", what) {
                tracing::warn!(version, "the migration waits: {what}");
            }
            sleep(PAUSE.mul_f64(rand::random())).await;
        }
    }

    /// What is done outside a transaction, so as to keep nobody waiting, cannot be done through a
    /// pooler. Where nobody is waiting it need not.
    async fn refuse_behind_a_pooler(&mut self, migration: &Migration) -> Result<(), StorageError> {
        let is_up = !migration.migration_type.is_down_migration();
        if self.session.is_direct() || !migration.no_tx || !is_up || self.people().await? == 0 {
            return Ok(());
        }
        Err(StorageError::Unusable(format!(
            "{}: migration {:04} cannot run behind a pooler without keeping the shop from its \
             history; run `merch-store migrate up` once with the server's own address",
            self.location, migration.version
        )))
    }

    /// Why `migration` was not applied or reverted, with what to do about it.
    fn cannot(&self, migration: &Migration, error: sqlx::Error) -> StorageError {
        // No right on a table, or on the schema that it is to be made in.
        if !matches!(code(&error).as_deref(), Some("42501" | "3F000")) {
            return StorageError::from(error).at(&self.location);
        }
        StorageError::Unusable(format!(
            "{}: migration {:04} is to be applied or reverted, and this role may not ({}); run \
             `merch-store migrate` as the owner of the tables",
            self.location,
            migration.version,
            words(&error)
        ))
    }
}

/// Tries once: in a transaction, or outside where the migration's first line says so.
async fn attempt(
    session: &mut Session,
    migration: &'static Migration,
) -> Result<Attempt, sqlx::Error> {
    if migration.no_tx && session.is_direct() {
        return outside(session, migration).await;
    }
    let begin = session.transaction(READ_COMMITTED, NO_LIMITS);
    session.execute(begin).await?;
    let result = inside(session, migration).await;
    match result {
        Ok(Attempt::Done(_)) => session.execute("COMMIT").await?,
        // If this fails, too, the session ends and the transaction with it.
        _ => drop(session.execute("ROLLBACK").await),
    }
    result
}

/// The whole of the transaction, from the locks on. A migration that takes the writers' turn has
/// it first of all: a writer whose turn it is must find nothing locked.
async fn inside(
    session: &mut Session,
    migration: &'static Migration,
) -> Result<Attempt, sqlx::Error> {
    match session.execute(WAIT_FOR_OTHERS).await {
        Err(error) if lost_a_lock(&error) => return Ok(Attempt::OthersFirst),
        waited => waited?,
    }
    if migration.sql.as_str().contains(TURN) {
        let in_turn = format!("{TURN_TIMEOUT}; {TURN}; SET LOCAL lock_timeout = 0");
        session.execute(AssertSqlSafe(in_turn)).await?;
    }
    carry_out(session, migration).await.map(Attempt::Done)
}

/// The same outside a transaction, while no other process changes the schema.
async fn outside(
    session: &mut Session,
    migration: &'static Migration,
) -> Result<Attempt, sqlx::Error> {
    session.execute("SET statement_timeout = 0; SET lock_timeout = 0").await?;
    if !sqlx::query_scalar::<_, bool>(TRY_LOCK).fetch_one(session.statements()).await? {
        return Ok(Attempt::OthersFirst);
    }
    let result = carry_out(session, migration).await;
    // If this fails, the session ends and the lock with it.
    let _ = session.execute(UNLOCK).await;
    result.map(Attempt::Done)
}

/// Runs `migration` and keeps the record, unless that has it already: `false`.
async fn carry_out(
    session: &mut Session,
    migration: &'static Migration,
) -> Result<bool, sqlx::Error> {
    let version = migration.version;
    if migration.migration_type.is_down_migration() {
        session.execute(text(session, migration)).await?;
        let forgetting = sqlx::query("DELETE FROM _sqlx_migrations WHERE version = $1");
        return forgetting.bind(version).execute(session.statements()).await.map(|_| true);
    }
    session.execute(MAKE_RECORD).await?;
    let applied =
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM _sqlx_migrations WHERE version = $1)");
    if applied.bind(version).fetch_one(session.statements()).await? {
        return Ok(false);
    }
    if migration.no_tx
        && let Some(way_back) = way_back(version)
    {
        // An attempt without a transaction may have left something half-way.
        session.execute(text(session, way_back)).await?;
    }
    session.execute(text(session, migration)).await?;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES ($1, $2, true, $3, 0)",
    )
    .bind(version)
    .bind(&*migration.description)
    .bind(&*migration.checksum)
    .execute(session.statements())
    .await?;
    Ok(true)
}

/// What there is to run: behind a pooler, where all runs in a transaction, nothing concurrently.
fn text(session: &Session, migration: &Migration) -> SqlStr {
    match migration.no_tx && !session.is_direct() {
        true => AssertSqlSafe(migration.sql.as_str().replace(" CONCURRENTLY", "")).into_sql_str(),
        false => migration.sql.clone(),
    }
}

/// Whether a lock was not to be had in time, or only for another transaction.
fn lost_a_lock(error: &sqlx::Error) -> bool {
    matches!(code(error).as_deref(), Some("55P03" | "40P01" | "40001"))
}

fn code(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}
