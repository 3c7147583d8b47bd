//! Connections: where the database is, how a session is set up, whether it is there at all.

use std::pin::Pin;
use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::sync::watch;

use super::StorageError;
use super::names::{Known, Names};

/// Where the database is and how long to wait for it.
#[derive(Clone, Debug)]
pub struct DatabaseOptions {
    connect: PgConnectOptions,
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
    pool: PgPool,
    available: watch::Sender<bool>,
    options: DatabaseOptions,
    names: Names,
}

impl DatabaseOptions {
    /// Options for the database at `url`, with waits that suit a person at a terminal; the
    /// URL's `sslmode` is honoured. The error never repeats the URL, which holds a password.
    pub fn from_url(url: &str) -> Result<DatabaseOptions, StorageError> {
        let not_a_url = || StorageError::Unexpected("not a URL like postgres://host/name".into());
        if !["postgres://", "postgresql://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(not_a_url());
        }
        let connect = PgConnectOptions::from_str(url)
            .map_err(|_| not_a_url())?
            .application_name("merch-store")
            .disable_statement_logging();
        Ok(DatabaseOptions {
            connect,
            max_connections: 4,
            acquire_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(60),
        })
    }

    /// The same, in another database of the same server.
    pub fn with_database(mut self, name: &str) -> DatabaseOptions {
        self.connect = self.connect.database(name);
        self
    }

    /// The database for people: where it is, without user or password.
    pub fn location(&self) -> String {
        let name = self.connect.get_database().unwrap_or_default();
        match self.connect.get_socket() {
            Some(socket) => format!("PostgreSQL at {}, database {name}", socket.display()),
            None => format!(
                "PostgreSQL at {}:{}, database {name}",
                self.connect.get_host(),
                self.connect.get_port()
            ),
        }
    }

    /// One connection outside the pool, its session set up like any other.
    pub(super) async fn connect(&self) -> Result<PgConnection, StorageError> {
        let connecting = async {
            let mut connection = self.connect.connect().await?;
            set_up(&mut connection, self.statement_timeout).await?;
            Ok::<_, sqlx::Error>(connection)
        };
        tokio::time::timeout(self.acquire_timeout, connecting)
            .await
            .map_err(|_| StorageError::Unavailable("no connection in time".into()))?
            .map_err(StorageError::from)
    }
}

impl Database {
    /// A pool for `options`; nothing is connected before the first use.
    pub fn new(options: DatabaseOptions) -> Database {
        let statement_timeout = options.statement_timeout;
        let pool = PgPoolOptions::new()
            .max_connections(options.max_connections)
            .acquire_timeout(options.acquire_timeout)
            .test_before_acquire(false)
            // A connection in constant use has just proven itself; an idle one has not.
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for > Duration::from_secs(1) {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .after_connect(move |connection, _| Box::pin(set_up(connection, statement_timeout)))
            .connect_lazy_with(options.connect.clone());
        Database { pool, available: watch::Sender::new(true), options, names: Names::new() }
    }

    /// What is known of accounts without asking.
    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    /// Since when what is remembered of this database may be believed.
    pub fn known(&self) -> Known {
        self.names.known()
    }

    /// What the pool was made from.
    pub fn options(&self) -> &DatabaseOptions {
        &self.options
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
    /// A connection that broke while nobody used it is not the statement's fault: it runs
    /// again on the next one, so it must bear to be run twice.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        statement: impl for<'c> Fn(&'c mut PgConnection) -> Running<'c, T> + Send + Sync + 'static,
    ) -> Result<T, StorageError> {
        if !self.is_available() {
            return Err(StorageError::Unavailable("the database is away".into()));
        }
        let (pool, options) = (self.pool.clone(), self.options.clone());
        let running = tokio::spawn(async move {
            // All connections may have broken at once; the one after them is new.
            let mut broken = 0;
            loop {
                let mut connection = pool.acquire().await?;
                // The server gives up first, so that it can say why.
                let patience = options.statement_timeout + Duration::from_secs(1);
                match tokio::time::timeout(patience, statement(&mut connection)).await {
                    Ok(Err(sqlx::Error::Io(_))) if broken < options.max_connections => broken += 1,
                    Ok(result) => return result.map_err(StorageError::from),
                    Err(_silent) => {
                        // Back in the pool, it would be waited for by the next one.
                        connection.close_on_drop();
                        return Err(StorageError::Unavailable("the server went silent".into()));
                    }
                }
            }
        });
        match running.await {
            Ok(result) => result,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }
}

/// A statement under way on a connection.
pub(super) type Running<'c, T> = Pin<Box<dyn Future<Output = Result<T, sqlx::Error>> + Send + 'c>>;

/// Limits that keep one stuck session from holding up the others, then the planner: every
/// statement here is a handful of look-ups by index, and must stay so on tables that have
/// not been analysed yet.
async fn set_up(
    connection: &mut PgConnection,
    statement_timeout: Duration,
) -> Result<(), sqlx::Error> {
    let limits = format!(
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL READ COMMITTED; \
         SET statement_timeout = {0}; SET lock_timeout = {0}; \
         SET idle_in_transaction_session_timeout = 2000",
        statement_timeout.as_millis(),
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(limits)).execute(&mut *connection).await?;
    let planner = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; \
                   SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off";
    if let Err(error) = sqlx::raw_sql(planner).execute(connection).await {
        match error {
            // Another engine than PostgreSQL's, with a planner of its own.
            sqlx::Error::Database(said) => tracing::debug!(%said, "planner settings left alone"),
            error => return Err(error),
        }
    }
    Ok(())
}
