//! The schema's history: numbered up/down pairs in `migrations/`, embedded in the binary.

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, Migrator};

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
/// one of the session's would stay with a pooler.
const WAIT_FOR_OTHERS: &str = "SELECT pg_advisory_xact_lock(4783208161327654);";

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
            let reverting = self.transaction(way_back, async |session| {
                session.execute(way_back.sql.clone()).await?;
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

    /// Applies `migration`, unless somebody else was quicker: `false`.
    async fn apply(&mut self, migration: &'static Migration) -> Result<bool, sqlx::Error> {
        self.transaction(migration, async |session| {
            session.execute(MAKE_RECORD).await?;
            let applied = sqlx::query_scalar(
                "SELECT EXISTS (SELECT FROM _sqlx_migrations WHERE version = $1)",
            );
            if applied.bind(migration.version).fetch_one(session.statements()).await? {
                return Ok(false);
            }
            session.execute(migration.sql.clone()).await?;
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
        })
        .await
    }

    /// Runs `work` on `migration` in a transaction while nobody else changes the schema.
    async fn transaction(
        &mut self,
        migration: &'static Migration,
        work: impl AsyncFnOnce(&mut Session) -> Result<bool, sqlx::Error>,
    ) -> Result<bool, sqlx::Error> {
        tracing::debug!(migration.version, "changing the schema");
        let session = &mut self.session;
        // Read committed: what others did while we waited shows.
        let begin = session.transaction("BEGIN ISOLATION LEVEL READ COMMITTED", NO_LIMITS);
        session.execute(begin).await?;
        let result = async {
            session.execute(WAIT_FOR_OTHERS).await?;
            let done = work(session).await?;
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
