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
use crate::storage::DatabaseOptions;

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
