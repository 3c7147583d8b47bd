//! The schema's history: numbered up/down pairs in `migrations/`, embedded in the binary.

use std::time::Duration;

use sqlx::migrate::{Migration, Migrator};
use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};
use tokio::time::{Instant, sleep};

use super::error::words;
use super::session::{Purpose, Session};
use super::{DatabaseOptions, StorageError, rights};

static MIGRATOR: Migrator = sqlx::migrate!();

/// The record of what was applied, where sqlx's own commands look for it.
const MAKE_RECORD: &str = "CREATE TABLE IF NOT EXISTS _sqlx_migrations (
    version        bigint PRIMARY KEY,
    description    text NOT NULL,
    installed_on   timestamptz NOT NULL DEFAULT now(),
    success        boolean NOT NULL,
    checksum       bytea NOT NULL,
    execution_time bigint NOT NULL
)";

/// Those who change the schema at once wait for each other here. A lock of the transaction's:
/// one of the session's would stay with a pooler. In short waits, because one that goes on
/// holds a snapshot, which an index that is built concurrently waits for, and deadlocks.
const WAIT_FOR_OTHERS: &str = "SET LOCAL lock_timeout = '20ms';
                               SELECT pg_advisory_xact_lock(4783208161327654);
                               SET LOCAL lock_timeout = 0;";

/// The same where there is no transaction.
const TRY_LOCK: &str = "SELECT pg_try_advisory_lock(4783208161327654)";
const UNLOCK: &str = "SELECT pg_advisory_unlock(4783208161327654)";

/// The longest pause before others are waited for again, and before a migration that did not get
/// a lock in its own time is tried again.
const PAUSE: Duration = Duration::from_millis(250);

/// For how long that is done.
const PATIENCE: Duration = Duration::from_secs(60);

/// A migration takes what it takes.
const NO_LIMITS: &str = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0;
                         SET LOCAL idle_in_transaction_session_timeout = 0;";

/// A session that looks at the schema, or changes it.
#[derive(Debug)]
pub struct Migrations {
    session: Session,
    location: String,
}

/// One migration, as `migrate status` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedMigration {
    /// The number that its file begins with.
    pub version: i64,
    /// The rest of its file's name, or words to say that it is unknown here.
    pub name: String,
    /// Whether the database has it, and as we know it.
    pub state: MigrationState,
}

/// How a migration of this binary and the database's record of it compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationState {
    /// The database has it, and by this text.
    Applied,
    /// The database does not have it yet; `migrate up` applies it.
    Pending,
    /// Applied, but not by this text: the file was edited after it had landed.
    Altered,
    /// Applied by a newer release; this binary does not know it.
    Unknown,
}

impl Migrations {
    /// Connects; nothing is changed or locked before something has to be.
    pub async fn connect(options: &DatabaseOptions) -> Result<Migrations, StorageError> {
        let session = Session::connect(options, Purpose::Look).await?;
        Ok(Migrations { session, location: options.location() })
    }

    /// The same for the shop, which needs a server that takes what is written.
    pub async fn connect_to_serve(options: &DatabaseOptions) -> Result<Migrations, StorageError> {
        let session = Session::connect(options, Purpose::Work).await?;
        Ok(Migrations { session, location: options.location() })
    }

    /// Applies every pending migration, each in a transaction of its own; processes that do
    /// so at once wait for each other. Returns the versions that were applied.
    pub async fn up(&mut self) -> Result<Vec<i64>, StorageError> {
        let mut applied = Vec::new();
        for migration in self.pending().await? {
            if self.apply(migration).await.map_err(|error| self.cannot(migration, error))? {
                applied.push(migration.version);
            }
        }
        Ok(applied)
    }

    /// Reverts the newest `count` migrations, newest first: their versions. What their
    /// tables held is gone.
    pub async fn down(&mut self, count: usize) -> Result<Vec<i64>, StorageError> {
        let mut versions: Vec<i64> = self.applied().await?.iter().map(|it| it.version).collect();
        versions.sort_unstable_by(|a, b| b.cmp(a));
        versions.truncate(count);
        for version in &versions {
            let way_back = MIGRATOR
                .iter()
                .find(|it| it.version == *version && it.migration_type.is_down_migration())
                .ok_or_else(|| unknown(*version))?;
            let reverting = self.change(way_back, async |session, sql| {
                session.execute(sql).await?;
                let forgetting = sqlx::query("DELETE FROM _sqlx_migrations WHERE version = $1");
                forgetting.bind(way_back.version).execute(session.statements()).await.map(|_| true)
            });
            reverting.await.map_err(|error| self.cannot(way_back, error))?;
        }
        Ok(versions)
    }

    /// Every migration that this binary or the database knows, oldest first.
    pub async fn status(&mut self) -> Result<Vec<AppliedMigration>, StorageError> {
        let applied = self.applied().await?;
        let mut status: Vec<AppliedMigration> = ours()
            .map(|ours| {
                let state = match applied.iter().find(|theirs| theirs.version == ours.version) {
                    None => MigrationState::Pending,
                    Some(theirs) if *theirs.checksum == *ours.checksum => MigrationState::Applied,
                    Some(_) => MigrationState::Altered,
                };
                let name = ours.description.to_string();
                AppliedMigration { version: ours.version, name, state }
            })
            .collect();
        let unknown = applied.iter().filter(|theirs| !MIGRATOR.version_exists(theirs.version));
        status.extend(unknown.map(|theirs| AppliedMigration {
            version: theirs.version,
            name: "unknown to this release".into(),
            state: MigrationState::Unknown,
        }));
        status.sort_unstable_by_key(|migration| migration.version);
        Ok(status)
    }

    /// How many people would lose what they have if everything were reverted.
    pub async fn people(&mut self) -> Result<i64, StorageError> {
        let looking = self.session.run(|statements| {
            let sql = "SELECT to_regclass('users') IS NOT NULL";
            Box::pin(sqlx::query_scalar(sql).fetch_one(statements))
        });
        if !looking.await? {
            return Ok(0);
        }
        let counting = self.session.run(|statements| {
            Box::pin(sqlx::query_scalar("SELECT count(*) FROM users").fetch_one(statements))
        });
        Ok(counting.await?)
    }

    /// The other sessions of this program on the database, whichever role they have: a word a
    /// session, by which an operator finds it.
    pub async fn other_sessions(&mut self) -> Result<Vec<String>, StorageError> {
        let asking = self.session.run(|statements| {
            let sql = "SELECT 'pid ' || pid || coalesce(' from ' || host(client_addr), '')
                       FROM pg_stat_activity
                       WHERE datname = current_database() AND pid <> pg_backend_pid()
                       AND application_name LIKE 'merch-store%' ORDER BY pid";
            Box::pin(sqlx::query_scalar(sql).fetch_all(statements))
        });
        Ok(asking.await?)
    }

    /// Makes sure that the role may do all that serving takes.
    pub async fn check_rights(&mut self) -> Result<(), StorageError> {
        let missing = rights::missing(&mut self.session).await;
        match missing.map_err(|error| StorageError::from(error).at(&self.location))?.as_slice() {
            [] => Ok(()),
            missing => Err(StorageError::Unusable(format!(
                "{}: the role lacks {}; docs/DATABASE.md has the GRANTs that it needs",
                self.location,
                missing.join(", ")
            ))),
        }
    }

    /// Whether the server may lose what it has acknowledged when its machine fails: the
    /// settings that say so.
    pub async fn dangers(&mut self) -> Result<Vec<String>, StorageError> {
        let asking = self.session.run(|statements| {
            let sql = "SELECT name FROM pg_settings
                       WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off'
                       ORDER BY name";
            Box::pin(sqlx::query_scalar(sql).fetch_all(statements))
        });
        Ok(asking.await?)
    }

    /// Hangs up.
    pub async fn close(self) {
        self.session.close().await;
    }

    /// Those of this binary that the database lacks, oldest first; an error if it has others
    /// than this binary.
    async fn pending(&mut self) -> Result<Vec<&'static Migration>, StorageError> {
        let applied = self.applied().await?;
        for theirs in &applied {
            let ours = ours().find(|ours| ours.version == theirs.version);
            match ours {
                None => return Err(unknown(theirs.version)),
                Some(ours) if *ours.checksum != *theirs.checksum => {
                    return Err(StorageError::Unexpected(format!(
                        "migration {:04} was edited after it had been applied",
                        theirs.version
                    )));
                }
                Some(_) => {}
            }
        }
        let is_pending = |ours: &&Migration| applied.iter().all(|it| it.version != ours.version);
        Ok(ours().filter(is_pending).collect())
    }

    /// Applies `migration`, unless another process was quicker: `false`. It is tried again where
    /// it did not get a lock in the time that it allows itself: to go on waiting would keep
    /// everybody else waiting behind it.
    async fn apply(&mut self, migration: &'static Migration) -> Result<bool, sqlx::Error> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let applied = self.change(migration, async |session, sql| {
                session.execute(MAKE_RECORD).await?;
                let applied = sqlx::query_scalar(
                    "SELECT EXISTS (SELECT FROM _sqlx_migrations WHERE version = $1)",
                );
                if applied.bind(migration.version).fetch_one(session.statements()).await? {
                    return Ok(false);
                }
                if migration.no_tx {
                    clear(session, migration.version).await?;
                }
                session.execute(sql).await?;
                sqlx::query(
                    "INSERT INTO _sqlx_migrations
                     (version, description, success, checksum, execution_time)
                     VALUES ($1, $2, true, $3, 0)",
                )
                .bind(migration.version)
                .bind(&*migration.description)
                .bind(&*migration.checksum)
                .execute(session.statements())
                .await?;
                Ok(true)
            });
            match applied.await {
                Err(error) if lost_a_lock(&error) && Instant::now() < deadline => {}
                applied => return applied,
            }
            sleep(PAUSE.mul_f64(rand::random())).await;
        }
    }

    /// Runs `work` on `migration` and its text while no other process changes the schema: in a
    /// transaction, or outside where its first line says so.
    async fn change(
        &mut self,
        migration: &'static Migration,
        work: impl AsyncFnOnce(&mut Session, SqlStr) -> Result<bool, sqlx::Error>,
    ) -> Result<bool, sqlx::Error> {
        tracing::debug!(migration.version, "changing the schema");
        let session = &mut self.session;
        let sql = migration.sql.clone();
        if migration.no_tx && session.is_direct() {
            return outside(session, async |session| work(session, sql).await).await;
        }
        // Behind a pooler there is no session to do it in: a transaction has to do, and what is
        // done keeps others waiting a little longer.
        let sql = match migration.no_tx {
            true => AssertSqlSafe(sql.as_str().replace(" CONCURRENTLY", "")).into_sql_str(),
            false => sql,
        };
        wait_for_others(session).await?;
        let result = async {
            let done = work(session, sql).await?;
            session.execute("COMMIT".into_sql_str()).await?;
            Ok(done)
        };
        let result = result.await;
        if result.is_err() {
            // If this fails, too, the session ends and the transaction with it.
            let _ = session.execute("ROLLBACK").await;
        }
        result
    }

    /// What was applied; nothing where there is no record. Changes and locks nothing.
    async fn applied(&mut self) -> Result<Vec<Applied>, StorageError> {
        let looking = self.session.run(|statements| {
            let sql = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL";
            Box::pin(sqlx::query_scalar(sql).fetch_one(statements))
        });
        let located = |error: sqlx::Error| StorageError::from(error).at(&self.location);
        if !looking.await.map_err(located)? {
            return Ok(Vec::new());
        }
        let reading = self.session.run(|statements| {
            let sql = "SELECT version, checksum FROM _sqlx_migrations ORDER BY version";
            Box::pin(sqlx::query_as(sql).fetch_all(statements))
        });
        let rows: Vec<(i64, Vec<u8>)> = reading.await.map_err(located)?;
        Ok(rows.into_iter().map(|(version, checksum)| Applied { version, checksum }).collect())
    }

    /// Why `migration` was not applied or reverted, with what to do about it.
    fn cannot(&self, migration: &Migration, error: sqlx::Error) -> StorageError {
        let code = error.as_database_error().and_then(|said| said.code());
        if code.as_deref() != Some("42501") {
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

/// A row of the record.
struct Applied {
    version: i64,
    checksum: Vec<u8>,
}

/// The migrations of this binary on their way up, oldest first.
fn ours() -> impl Iterator<Item = &'static Migration> {
    MIGRATOR.iter().filter(|migration| !migration.migration_type.is_down_migration())
}

fn unknown(version: i64) -> StorageError {
    StorageError::Unexpected(format!(
        "migration {version:04} was applied by a newer release, and this one does not know it"
    ))
}

/// Begins a transaction in which no other process changes the schema. Read committed: what they
/// did before shows.
async fn wait_for_others(session: &mut Session) -> Result<(), sqlx::Error> {
    let begin = session.transaction("BEGIN ISOLATION LEVEL READ COMMITTED", NO_LIMITS);
    loop {
        session.execute(begin.clone()).await?;
        match session.execute(WAIT_FOR_OTHERS).await {
            Err(error) => {
                session.execute("ROLLBACK").await?;
                if !lost_a_lock(&error) {
                    return Err(error);
                }
            }
            Ok(()) => return Ok(()),
        }
        sleep(PAUSE.mul_f64(rand::random())).await;
    }
}

/// Runs `work` outside a transaction while no other process changes the schema.
async fn outside(
    session: &mut Session,
    work: impl AsyncFnOnce(&mut Session) -> Result<bool, sqlx::Error>,
) -> Result<bool, sqlx::Error> {
    session.execute("SET statement_timeout = 0; SET lock_timeout = 0").await?;
    while !sqlx::query_scalar::<_, bool>(TRY_LOCK).fetch_one(session.statements()).await? {
        sleep(PAUSE.mul_f64(rand::random())).await;
    }
    let result = work(session).await;
    // If this fails, the session ends and the lock with it.
    let _ = session.execute(UNLOCK).await;
    result
}

/// Removes what an attempt without a transaction may have left half-way, by the statement that
/// reverts it.
async fn clear(session: &mut Session, version: i64) -> Result<(), sqlx::Error> {
    let is_way_back =
        |it: &&Migration| it.version == version && it.migration_type.is_down_migration();
    match MIGRATOR.iter().find(is_way_back) {
        Some(way_back) if session.is_direct() => session.execute(way_back.sql.clone()).await,
        _ => Ok(()),
    }
}

/// Whether a lock was not to be had in time, or only for another transaction.
fn lost_a_lock(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|said| said.code());
    matches!(code.as_deref(), Some("55P03" | "40P01" | "40001"))
}
