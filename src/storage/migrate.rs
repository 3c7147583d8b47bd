//! The schema's history: numbered up/down pairs in `migrations/`, embedded in the binary.

use sqlx::migrate::{Migrate, MigrateError, Migrator};
use sqlx::{Connection, PgConnection};

use super::{DatabaseOptions, StorageError};

static MIGRATOR: Migrator = sqlx::migrate!();

/// sqlx's own table of what was applied.
const APPLIED_TABLE: &str = "_sqlx_migrations";

/// A session that changes the schema.
#[derive(Debug)]
pub struct Migrations {
    connection: PgConnection,
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
    /// Connects without the limits of ordinary sessions: a migration takes what it takes.
    pub async fn connect(options: &DatabaseOptions) -> Result<Migrations, StorageError> {
        let mut connection = options.connect().await?;
        sqlx::raw_sql("SET statement_timeout = 0; SET lock_timeout = 0")
            .execute(&mut connection)
            .await?;
        Ok(Migrations { connection })
    }

    /// Applies every pending migration, each in a transaction of its own; processes that do
    /// so at once wait for each other. Returns the versions that were applied.
    pub async fn up(&mut self) -> Result<Vec<i64>, StorageError> {
        let before = self.applied_versions().await?;
        MIGRATOR.run_direct(None, &mut self.connection, false).await?;
        let after = self.applied_versions().await?;
        Ok(after.into_iter().filter(|version| !before.contains(version)).collect())
    }

    /// Reverts the newest `count` migrations, newest first: their versions. What their
    /// tables held is gone.
    pub async fn down(&mut self, count: usize) -> Result<Vec<i64>, StorageError> {
        let mut applied = self.applied_versions().await?;
        applied.sort_unstable_by(|a, b| b.cmp(a));
        let target = applied.get(count).copied().unwrap_or(0);
        applied.truncate(count);
        if !applied.is_empty() {
            MIGRATOR.undo(&mut self.connection, target).await?;
        }
        Ok(applied)
    }

    /// Every migration that this binary or the database knows, oldest first.
    pub async fn status(&mut self) -> Result<Vec<AppliedMigration>, StorageError> {
        self.ensure_table().await?;
        let applied = self.connection.list_applied_migrations(APPLIED_TABLE).await?;
        let ours =
            MIGRATOR.iter().filter(|migration| !migration.migration_type.is_down_migration());
        let mut status: Vec<AppliedMigration> = ours
            .map(|ours| {
                let state = match applied.iter().find(|theirs| theirs.version == ours.version) {
                    None => MigrationState::Pending,
                    Some(theirs) if theirs.checksum == ours.checksum => MigrationState::Applied,
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
        let there = sqlx::query_scalar("SELECT to_regclass('users') IS NOT NULL");
        if !there.fetch_one(&mut self.connection).await? {
            return Ok(0);
        }
        let people = sqlx::query_scalar("SELECT count(*) FROM users");
        Ok(people.fetch_one(&mut self.connection).await?)
    }

    /// The other sessions of this program on the database, whichever role they have: a word a
    /// session, by which an operator finds it.
    pub async fn other_sessions(&mut self) -> Result<Vec<String>, StorageError> {
        let sessions = sqlx::query_scalar(
            "SELECT 'pid ' || pid || coalesce(' from ' || host(client_addr), '')
             FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()
             AND application_name LIKE 'merch-store%' ORDER BY pid",
        );
        Ok(sessions.fetch_all(&mut self.connection).await?)
    }

    /// Hangs up.
    pub async fn close(self) {
        // Everything is committed; a connection that cannot be closed politely is dropped.
        let _ = self.connection.close().await;
    }

    async fn applied_versions(&mut self) -> Result<Vec<i64>, StorageError> {
        self.ensure_table().await?;
        let applied = self.connection.list_applied_migrations(APPLIED_TABLE).await?;
        Ok(applied.into_iter().map(|migration| migration.version).collect())
    }

    /// Makes the table of what was applied, under sqlx's own lock: CREATE TABLE IF NOT
    /// EXISTS fails where two sessions find at once that it does not.
    async fn ensure_table(&mut self) -> Result<(), StorageError> {
        self.connection.lock().await?;
        self.connection.ensure_migrations_table(APPLIED_TABLE).await?;
        self.connection.unlock().await?;
        Ok(())
    }
}

impl From<MigrateError> for StorageError {
    fn from(error: MigrateError) -> StorageError {
        match error {
            MigrateError::Execute(error) => error.into(),
            error => StorageError::Unexpected(error.to_string()),
        }
    }
}
