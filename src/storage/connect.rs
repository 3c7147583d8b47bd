//! The database as readers see it: where it is, how long it is waited for, whether it is there.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::watch;

use super::StorageError;
use super::error::leaves_session;
use super::names::{Known, Names};
use super::pool::Pool;
use super::session::{Running, Statements};
use super::url::{self, InvalidUrl, Parsed};

/// Where the database is and how long to wait for it.
#[derive(Clone, Debug)]
pub struct DatabaseOptions {
    pub(super) connect: PgConnectOptions,
    /// What only sessions of ours know: see [`super::session`].
    pub(super) mark: String,
    /// Files that TLS needs, each under the name of its parameter in the URL.
    pub files: Vec<(&'static str, PathBuf)>,
    /// Connections for reading, at most.
    pub max_connections: u32,
    /// The longest wait for a free connection.
    pub acquire_timeout: Duration,
    /// The longest one statement may take.
    pub statement_timeout: Duration,
}

/// The database as readers see it: a pool, and whether there is any use in asking it.
#[derive(Clone, Debug)]
pub struct Database {
    pool: Arc<Pool>,
    available: watch::Sender<bool>,
    names: Names,
}

impl DatabaseOptions {
    /// Options for the database at `url`, with waits that suit a person at a terminal. The
    /// error never repeats the URL, which holds a password.
    pub fn from_url(url: &str) -> Result<DatabaseOptions, InvalidUrl> {
        let Parsed { connect, files } = url::parse(url)?;
        Ok(DatabaseOptions {
            connect: connect.disable_statement_logging(),
            mark: format!("{:032x}", rand::random::<u128>()),
            files,
            max_connections: 4,
            acquire_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(60),
        })
    }

    /// How long a statement is waited for: the server gives up first, so that it can say why.
    pub(super) fn patience(&self) -> Duration {
        self.statement_timeout + Duration::from_secs(1)
    }

    /// The database for people: where it is, without user or password.
    pub fn location(&self) -> String {
        let (host, port) = (self.connect.get_host(), self.connect.get_port());
        let name = self.connect.get_database().unwrap_or_default();
        match host {
            folder if folder.starts_with('/') => {
                format!("PostgreSQL at {folder} (port {port}), database {name}")
            }
            address if address.contains(':') => {
                format!("PostgreSQL at [{address}]:{port}, database {name}")
            }
            host => format!("PostgreSQL at {host}:{port}, database {name}"),
        }
    }
}

impl Database {
    /// A pool for `options`; nothing is connected before the first use.
    pub fn new(options: DatabaseOptions) -> Database {
        let pool = Arc::new(Pool::new(options));
        Database { pool, available: watch::Sender::new(true), names: Names::new() }
    }

    /// What is known of accounts without asking.
    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    /// Since when what is remembered of this database may be believed.
    pub fn known(&self) -> Known {
        self.names.known()
    }

    /// Leaves the server, with all that was remembered of it: the next statement goes
    /// wherever the address leads by then.
    pub(super) fn leave(&self) {
        self.pool.leave();
        self.names.forget();
    }

    /// What the pool was made from.
    pub fn options(&self) -> &DatabaseOptions {
        self.pool.options()
    }

    /// Whether the database answered when the writer last asked it; `true` before that.
    pub fn is_available(&self) -> bool {
        *self.available.borrow()
    }

    /// Tells all readers whether there is any use in asking.
    pub fn set_available(&self, available: bool) {
        self.available.send_replace(available);
    }

    /// Waits until the database is away.
    pub async fn went_away(&self) {
        // Cannot fail: the sender is `self.available`.
        let _ = self.available.subscribe().wait_for(|available| !available).await;
    }

    /// Closes the pool once nobody uses it.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Runs one statement in a task of its own, so that a client that hangs up in the middle
    /// of it cannot leave a connection in the middle of it too; at once refused while the
    /// database is known to be away, and not waited for when the server goes silent.
    ///
    /// A session that ended while nobody used it, or whose server is read-only by now, is not
    /// the statement's fault: it runs again on the next one, so it must bear to be run twice.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        statement: impl for<'c> Fn(Statements<'c>) -> Running<'c, T> + Send + Sync + 'static,
    ) -> Result<T, StorageError> {
        self.run_again(self.options().max_connections, statement).await
    }

    /// Runs a statement that does not bear to be run twice: one whose session ended, and which
    /// may have been carried out, is not sent again.
    pub(super) async fn run_once<T: Send + 'static>(
        &self,
        statement: impl for<'c> Fn(Statements<'c>) -> Running<'c, T> + Send + Sync + 'static,
    ) -> Result<T, StorageError> {
        self.run_again(0, statement).await
    }

    /// Runs a statement, and again on another session for so many that have ended.
    async fn run_again<T: Send + 'static>(
        &self,
        sessions: u32,
        statement: impl for<'c> Fn(Statements<'c>) -> Running<'c, T> + Send + Sync + 'static,
    ) -> Result<T, StorageError> {
        if !self.is_available() {
            return Err(StorageError::Unavailable("the database is away".into()));
        }
        let database = self.clone();
        let running = tokio::spawn(async move {
            let pool = &database.pool;
            // All sessions may have ended at once; the one after them is new.
            let mut left = 0;
            loop {
                let mut lent = pool.acquire().await?;
                let patience = pool.options().patience();
                let result = tokio::time::timeout(patience, lent.session().run(&statement)).await;
                let Ok(result) = result else {
                    return Err(StorageError::Unavailable("the server went silent".into()));
                };
                match result {
                    Err(error) if leaves_session(&error) => {
                        drop(lent);
                        if !matches!(error, sqlx::Error::Io(_)) {
                            // The server said so, of all its sessions.
                            database.leave();
                        }
                        if left >= sessions {
                            return Err(error.into());
                        }
                        left += 1;
                    }
                    result => {
                        pool.give_back(lent);
                        return result.map_err(StorageError::from);
                    }
                }
            }
        });
        match running.await {
            Ok(result) => result.map_err(|error| error.at(&self.options().location())),
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }
}
