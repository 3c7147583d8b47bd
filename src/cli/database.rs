//! The database that a command works on: the one that was named, or the private one.

use std::path::Path;

use anyhow::Context;
use secrecy::{ExposeSecret, SecretString};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::Config;
use crate::data_folder::{DataFolder, DataFolderError};
use crate::lifecycle::{Lifecycle, Signals};
use crate::private_postgres::PrivatePostgres;
use crate::storage::{AppliedMigration, DatabaseOptions, MigrationState};

use super::terminal::spinner;

/// A PostgreSQL of our own, and the folder that it lives in.
pub struct OwnDatabase {
    /// Held for as long as the server may run: no other process starts one on this data.
    pub folder: DataFolder,
    /// Stopped politely by [`PrivatePostgres::stop`]; dropped, it ends by itself, unwaited for.
    pub postgres: PrivatePostgres,
}

impl OwnDatabase {
    /// Takes the data folder and starts the private PostgreSQL in it.
    pub async fn start(data_dir: &Path) -> anyhow::Result<OwnDatabase> {
        let folder = DataFolder::take(data_dir)?;
        let progress = spinner("starting the private PostgreSQL");
        let postgres = PrivatePostgres::start(&folder).await?;
        progress.finish_and_clear();
        Ok(OwnDatabase { folder, postgres })
    }

    /// Where the data is and what keeps it.
    pub fn describe(&self) -> String {
        let (folder, version) = (self.folder.path().display(), self.postgres.version());
        format!("{folder} (private PostgreSQL {version})")
    }
}

/// Where the database at `url` is. What its TLS needs must be there from the start: it does
/// not come by being waited for.
pub fn database_at(url: &SecretString) -> anyhow::Result<DatabaseOptions> {
    let options = DatabaseOptions::from_url(url.expose_secret()).context("database.url")?;
    for (name, path) in &options.files {
        let named = || format!("database.url: {name} {}", path.display());
        let pem = std::fs::read(path).with_context(named)?;
        let found = match *name {
            "sslkey" => PrivateKeyDer::from_pem_slice(&pem).map(drop),
            _ => CertificateDer::from_pem_slice(&pem).map(drop),
        };
        found.map_err(|error| anyhow::anyhow!("{}: {error}", named()))?;
    }
    Ok(options)
}

/// A tool's database. A private one that a running shop owns is shared with that shop;
/// otherwise it is started, and stopped after the work.
pub struct ToolDatabase {
    /// Where it is, with waits that suit a person at a terminal.
    options: DatabaseOptions,
    own: Option<OwnDatabase>,
}

impl ToolDatabase {
    /// The database that `database.url` names, else the one in `data_dir`; its schema may be old.
    async fn open(config: &Config) -> anyhow::Result<ToolDatabase> {
        if let Some(url) = &config.database.url {
            return Ok(ToolDatabase { options: database_at(url)?, own: None });
        }
        let (url, own) = match OwnDatabase::start(&config.data_dir).await {
            Ok(own) => (own.postgres.url(), Some(own)),
            Err(error) => {
                let taken = matches!(error.downcast_ref(), Some(DataFolderError::Taken { .. }));
                match PrivatePostgres::url_of_running(&config.data_dir) {
                    Some(url) if taken => (url, None),
                    _ => return Err(error),
                }
            }
        };
        Ok(ToolDatabase { options: DatabaseOptions::from_url(&url)?, own })
    }

    /// Opens the database, does `work` with it, and closes it however that ends. A signal ends the
    /// work: what was not committed by then never was.
    pub async fn lend<T>(
        config: &Config,
        signals: Signals,
        work: impl AsyncFnOnce(&DatabaseOptions) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let lifecycle = Lifecycle::default();
        signals.end(&lifecycle);
        let database = lifecycle.unless_ending(ToolDatabase::open(config)).await?;
        let done = lifecycle.unless_ending(work(&database.options)).await;
        tokio::select! {
            () = database.close() => {}
            // Dropped, the private PostgreSQL stops by itself.
            () = lifecycle.ended() => {}
        }
        done
    }

    /// Stops the private PostgreSQL if [`ToolDatabase::open`] started it.
    async fn close(self) {
        if let Some(own) = self.own {
            own.postgres.stop().await;
        }
    }
}

/// Fails where no database is named and no shop has ever been in the data folder: a folder whose
/// name was mistyped must not become an empty shop.
pub fn check_shop_is_there(config: &Config) -> anyhow::Result<()> {
    let folder = &config.data_dir;
    let is_there = config.database.url.is_some() || PrivatePostgres::has_data(folder);
    anyhow::ensure!(
        is_there,
        "there is no shop in {}; --data-dir or --database-url names another one, and \
         `merch-store` or `merch-store migrate up` makes one",
        std::path::absolute(folder).unwrap_or_else(|_| folder.clone()).display()
    );
    Ok(())
}

/// Fails unless the schema at `place`, whose state is `status`, is the one of this program.
pub fn check_schema(status: &[AppliedMigration], place: &str) -> anyhow::Result<()> {
    check_not_foreign(status, place)?;
    let pending = status.iter().filter(|it| it.state == MigrationState::Pending).count();
    anyhow::ensure!(
        pending < status.len(),
        "there is no schema yet in {place}; run `merch-store migrate up`"
    );
    anyhow::ensure!(
        pending == 0,
        "the schema in {place} is older than this program ({pending} migrations are pending); run \
         `merch-store migrate up`"
    );
    Ok(())
}

/// Fails if the schema is another release's: what this program would do with it is anybody's
/// guess.
pub fn check_not_foreign(status: &[AppliedMigration], place: &str) -> anyhow::Result<()> {
    let versions = |state: MigrationState| {
        let of_state = status.iter().filter(|migration| migration.state == state);
        of_state.map(|it| format!("{:04}", it.version)).collect::<Vec<_>>().join(", ")
    };
    let (unknown, altered) = (versions(MigrationState::Unknown), versions(MigrationState::Altered));
    anyhow::ensure!(
        unknown.is_empty(),
        "the schema in {place} is newer than this program, which does not know migration \
         {unknown}; run the release that applied it, or take the schema back with that one: \
         `merch-store migrate down`"
    );
    anyhow::ensure!(
        altered.is_empty(),
        "migration {altered} of the schema in {place} is not what this program has by that \
         number: its file was edited, or the schema is another program's; run the release that \
         applied it"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_that_is_not_ours_is_told_from_one_that_is_old_or_missing() {
        use MigrationState::{Altered, Applied, Pending, Unknown};
        for (states, said) in [
            (&[Applied, Applied][..], None),
            (&[Pending, Pending], Some("there is no schema yet in here; run `merch-store")),
            (&[Applied, Pending], Some("older than this program (1 migrations are pending)")),
            (
                &[Applied, Unknown],
                Some("newer than this program, which does not know migration 0002"),
            ),
            (&[Pending, Unknown], Some("newer than this program")),
            (&[Altered, Applied], Some("migration 0001 of the schema in here is not what")),
        ] {
            let status: Vec<AppliedMigration> = (1..)
                .zip(states)
                .map(|(version, state)| AppliedMigration {
                    version,
                    name: "x".into(),
                    state: *state,
                })
                .collect();
            let checked = check_schema(&status, "here").map_err(|error| error.to_string());
            match said {
                None => assert_eq!(checked, Ok(())),
                Some(said) => assert!(checked.clone().unwrap_err().contains(said), "{checked:?}"),
            }
        }
    }
}
