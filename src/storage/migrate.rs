//! The schema's history: numbered up/down pairs in `migrations/`, embedded in the binary.

mod change;

use sqlx::migrate::{Migration, Migrator};
use tokio::time::timeout;

use super::door::READ_COMMITTED;
use super::error::silent;
use super::session::{Purpose, Session};
use super::{DatabaseOptions, StorageError, rights};

use change::NO_LIMITS;

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

/// What a way back would lose, asked before the first step of many: its number, the question, and
/// what there is.
const LOSSES: [(i64, &str, &str); 1] = [(
    7,
    "SELECT EXISTS (SELECT FROM history WHERE ref IS NOT NULL OR actor_id IS NOT NULL
                    OR (from_id IS NOT NULL AND to_id IS NULL AND item_id IS NULL))",
    "refunds, reversals, corrections or grants by somebody, which the release before would take for \
     something else",
)];

/// A shop and a gateway ask something each second: those that do not meanwhile are none, but what a
/// pooler keeps for whoever comes next.
const WATCH: &str = "SELECT pg_sleep(2)";

/// The other sessions of this program, and whether they did anything since this transaction began.
const SESSIONS: &str = "
    SELECT 'pid ' || pid || coalesce(' from ' || host(client_addr), ''),
           coalesce(state, '') <> 'idle' OR state_change > now()
    FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
    AND application_name LIKE 'merch-store%' ORDER BY pid";

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
            if self.change(migration).await? {
                applied.push(migration.version);
            }
        }
        Ok(applied)
    }

    /// Reverts the newest `count` migrations, newest first: their versions. What their
    /// tables held is gone. Nothing is reverted where one of them must not be.
    pub async fn down(&mut self, count: usize) -> Result<Vec<i64>, StorageError> {
        let mut versions: Vec<i64> = self.applied().await?.iter().map(|it| it.version).collect();
        versions.sort_unstable_by(|a, b| b.cmp(a));
        versions.truncate(count);
        let mut ways_back = Vec::new();
        for version in &versions {
            ways_back.push(way_back(*version).ok_or_else(|| unknown(*version))?);
            self.check_losses(*version).await?;
        }
        for way_back in ways_back {
            self.change(way_back).await?;
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
        let looking = self.session.ask(|statements| {
            let sql = "SELECT to_regclass('users') IS NOT NULL";
            Box::pin(sqlx::query_scalar(sql).fetch_one(statements))
        });
        if !looking.await? {
            return Ok(0);
        }
        let counting = self.session.ask(|statements| {
            Box::pin(sqlx::query_scalar("SELECT count(*) FROM users").fetch_one(statements))
        });
        counting.await
    }

    /// The other sessions that this program uses on the database, whichever role they have: a word
    /// a session, by which an operator finds it. Takes two seconds where there are any, and
    /// behind a pooler.
    pub async fn other_sessions(&mut self) -> Result<Vec<String>, StorageError> {
        let looking = self.session.ask(|statements| {
            Box::pin(sqlx::query_as::<_, (String, bool)>(SESSIONS).fetch_all(statements))
        });
        // Behind a pooler somebody else may be on the very session that this ran on.
        if looking.await?.is_empty() && self.session.is_direct() {
            return Ok(Vec::new());
        }
        let patience = self.session.patience();
        let watched = timeout(patience, self.watch()).await.unwrap_or_else(|_| Err(silent()));
        let watched = watched.map_err(|error| StorageError::from(error).at(&self.location))?;
        Ok(watched.into_iter().filter(|(_, is_used)| *is_used).map(|(word, _)| word).collect())
    }

    /// Keeps the server's session for a while, so that others need another one.
    async fn watch(&mut self) -> Result<Vec<(String, bool)>, sqlx::Error> {
        let begin = self.session.transaction(READ_COMMITTED, WATCH);
        self.session.execute(begin).await?;
        let seen = sqlx::query_as(SESSIONS).fetch_all(self.session.statements()).await?;
        self.session.execute("COMMIT").await?;
        Ok(seen)
    }

    /// Makes sure that the role may do all that serving takes.
    pub async fn check_rights(&mut self) -> Result<(), StorageError> {
        match rights::missing(&mut self.session).await?.as_slice() {
            [] => Ok(()),
            missing => Err(self.lacks(&missing.join(", "))),
        }
    }

    /// Whether the server may lose what it has acknowledged when its machine fails: the
    /// settings that say so.
    pub async fn dangers(&mut self) -> Result<Vec<String>, StorageError> {
        let asking = self.session.ask(|statements| {
            let sql = "SELECT name FROM pg_settings
                       WHERE name IN ('fsync', 'full_page_writes') AND setting = 'off'
                       ORDER BY name";
            Box::pin(sqlx::query_scalar(sql).fetch_all(statements))
        });
        asking.await
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

    /// What was applied; nothing where there is no record. Changes and locks nothing.
    async fn applied(&mut self) -> Result<Vec<Applied>, StorageError> {
        let looking = self.session.ask(|statements| {
            // What is in a schema that the role may not use is not found by its name alone.
            let sql = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL,
                              (SELECT min(nspname::text) FROM pg_class JOIN pg_namespace
                               ON pg_namespace.oid = relnamespace
                               WHERE relname = '_sqlx_migrations'
                               AND NOT has_schema_privilege(pg_namespace.oid, 'USAGE'))";
            Box::pin(sqlx::query_as(sql).fetch_one(statements))
        });
        match looking.await? {
            (true, _) => {}
            (false, None::<String>) => return Ok(Vec::new()),
            (false, Some(schema)) => {
                return Err(self.lacks(&format!("USAGE on SCHEMA {schema}")));
            }
        }
        let reading = self.session.ask(|statements| {
            let sql = "SELECT version, checksum FROM _sqlx_migrations ORDER BY version";
            Box::pin(sqlx::query_as(sql).fetch_all(statements))
        });
        let rows: Vec<(i64, Vec<u8>)> = reading.await?;
        Ok(rows.into_iter().map(|(version, checksum)| Applied { version, checksum }).collect())
    }

    /// Fails if there is what the way back of migration `version` would lose.
    async fn check_losses(&mut self, version: i64) -> Result<(), StorageError> {
        for (_, sql, what) in LOSSES.iter().filter(|(losing, ..)| *losing == version) {
            let is_there = self.looks_through(sql).await;
            if is_there.map_err(|error| StorageError::from(error).at(&self.location))? {
                return Err(StorageError::Unusable(format!(
                    "{}: migration {version:04} cannot be reverted, and nothing was: the history \
                     has {what}; stay with this release",
                    self.location
                )));
            }
        }
        Ok(())
    }

    /// The answer of a statement that may read all of the history, and takes what that takes.
    async fn looks_through(&mut self, sql: &'static str) -> Result<bool, sqlx::Error> {
        let begin = self.session.transaction(READ_COMMITTED, NO_LIMITS);
        self.session.execute(begin).await?;
        let answer = sqlx::query_scalar(sql).fetch_one(self.session.statements()).await?;
        self.session.execute("COMMIT").await?;
        Ok(answer)
    }

    fn lacks(&self, rights: &str) -> StorageError {
        StorageError::Unusable(format!(
            "{}: the role lacks {rights}; docs/DATABASE.md has the GRANTs that it needs",
            self.location
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

fn way_back(version: i64) -> Option<&'static Migration> {
    MIGRATOR.iter().find(|it| it.version == version && it.migration_type.is_down_migration())
}

fn unknown(version: i64) -> StorageError {
    StorageError::Unexpected(format!(
        "migration {version:04} was applied by a newer release, and this one does not know it"
    ))
}
