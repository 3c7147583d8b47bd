//! One connection to a server that the shop can use, and how statements run on it.
//!
//! Whether a pooler stands between is found out for each connection: it is opened with a mark
//! in its settings that only the server's own session can have. Behind a pooler each statement
//! may run in another session, so there is nothing that a session would have to remember: the
//! statements are not named, each runs in a transaction, and that begins with its settings.

use std::time::Duration;

use futures_core::Stream;
use sqlx::error::BoxDynError;
use sqlx::postgres::{
    PgArguments, PgConnection, PgQueryResult, PgRow, PgStatement, PgTypeInfo, Postgres,
};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Describe, Either, Execute, Executor, Row,
    SqlSafeStr, SqlStr,
};
use std::pin::Pin;

use super::door::READ_COMMITTED;
use super::error::{at_connect, is_about_settings, silent};
use super::{DatabaseOptions, StorageError};

/// What is asked of a server on each new connection.
const FACTS: &str = "SELECT coalesce(current_setting('merch_store.session', true), ''),
                            current_setting('server_encoding'), current_setting('client_encoding'),
                            current_setting('transaction_read_only')";

/// What is the shop's own, whatever the role or the database is set to: every statement here is a
/// handful of look-ups by index, and must stay so on tables that have not been analysed yet.
const SETTINGS: [(&str, &str); 6] = [
    ("idle_in_transaction_session_timeout", "2000"),
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
];

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The shop's work: the server must take what is written.
    Work,
    /// A look that a standby may answer, too.
    Look,
}

/// A connection and what is known of its server.
#[derive(Debug)]
pub(super) struct Session {
    connection: PgConnection,
    /// Nobody stands between: the session is ours alone, and keeps what it is told.
    direct: bool,
    /// What a transaction has to begin with behind a pooler; ends in a semicolon.
    local: String,
    /// Where its server is, for a person.
    location: String,
    patience: Duration,
}

impl Session {
    /// Connects, sees to it that the server can be used, and sets the session up.
    pub async fn connect(
        options: &DatabaseOptions,
        purpose: Purpose,
    ) -> Result<Session, StorageError> {
        let connecting = async {
            let mut session = Session::open(options).await?;
            session.check(options, purpose).await?;
            if session.direct {
                session.set_up(options.statement_timeout).await?;
            }
            Ok(session)
        };
        let connected = tokio::time::timeout(options.acquire_timeout, connecting).await;
        let at = options.location();
        match connected {
            Ok(connected) => connected.map_err(|error: Trouble| error.at(&at)),
            Err(_silent) => {
                let patience = options.acquire_timeout;
                Err(StorageError::Unavailable(format!("{at}: no connection within {patience:?}")))
            }
        }
    }

    async fn open(options: &DatabaseOptions) -> Result<Session, Trouble> {
        // A role's own limits must not end the session before it is set up.
        let limit = options.statement_timeout.as_millis().to_string();
        let settings = [
            ("merch_store.session", options.mark.as_str()),
            ("statement_timeout", &limit),
            ("idle_session_timeout", "0"),
        ];
        let marked = options.connect.clone().options(settings);
        let connection = match marked.connect().await {
            // Poolers take no settings along.
            Err(error) if is_about_settings(&error) => options.connect.connect().await?,
            connected => connected?,
        };
        Ok(Session {
            connection,
            direct: false,
            local: local_settings(options.statement_timeout),
            location: options.location(),
            patience: options.patience(),
        })
    }

    async fn check(&mut self, options: &DatabaseOptions, purpose: Purpose) -> Result<(), Trouble> {
        let facts = sqlx::raw_sql(FACTS).fetch_one(&mut self.connection).await?;
        let fact = |at: usize| facts.try_get::<String, _>(at);
        let (mark, encoding, client_encoding) = (fact(0)?, fact(1)?, fact(2)?);
        self.direct = mark == options.mark;
        let utf8 = |name: &str| matches!(name, "UTF8" | "utf8" | "UTF-8");
        if !utf8(&encoding) || !utf8(&client_encoding) {
            let wrong = if utf8(&encoding) { client_encoding } else { encoding };
            return Err(Trouble::Unusable(format!(
                "its encoding is {wrong}, and the shop needs UTF8; make another database with \
                 CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0"
            )));
        }
        if purpose == Purpose::Work && fact(3)? == "on" {
            return Err(Trouble::ReadOnly);
        }
        if !self.direct {
            self.check_pooler().await?;
        }
        Ok(())
    }

    /// A pooler must keep the statements of a transaction together.
    async fn check_pooler(&mut self) -> Result<(), Trouble> {
        match self.execute(self.transaction(READ_COMMITTED, "")).await {
            Err(sqlx::Error::Database(said)) if said.message().contains("statement pooling") => {
                Err(Trouble::Unusable(
                    "a pooler in statement mode stands before it, which lets no transaction \
                     through; pool_mode must be transaction or session"
                        .into(),
                ))
            }
            begun => {
                begun?;
                Ok(self.execute("ROLLBACK").await?)
            }
        }
    }

    /// Gives the session its settings, those that this server knows.
    async fn set_up(&mut self, statement_timeout: Duration) -> Result<(), sqlx::Error> {
        let timeout = statement_timeout.as_millis();
        let settings: String =
            SETTINGS.iter().map(|(name, value)| format!("('{name}', '{value}'), ")).collect();
        let sql = format!(
            "SELECT set_config(name, wanted, false)
             FROM (VALUES {settings}('statement_timeout', '{timeout}'), ('lock_timeout', '{timeout}'),
                          ('transaction_timeout', '0'),
                          ('default_transaction_isolation', 'read committed'),
                          ('synchronous_commit', CASE current_setting('synchronous_commit', true)
                               WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit', true)
                               END)) AS ours (setting_name, wanted)
             JOIN pg_settings ON name = setting_name"
        );
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.connection).await?;
        Ok(())
    }

    /// Whether the server still answers and still takes what is written.
    pub async fn check_again(&mut self) -> Result<(), sqlx::Error> {
        let row = sqlx::raw_sql("SELECT current_setting('transaction_read_only')");
        let row = row.fetch_one(&mut self.connection).await?;
        match row.try_get::<&str, _>(0)? {
            "on" => Err(sqlx::Error::Io(std::io::Error::other("the server is read-only now"))),
            _ => Ok(()),
        }
    }

    /// Whether no pooler stands between.
    pub fn is_direct(&self) -> bool {
        self.direct
    }

    /// How long a tool waits for a statement.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// The connection for one statement inside a transaction, or outside if it is direct.
    pub fn statements(&mut self) -> Statements<'_> {
        Statements { connection: &mut self.connection, named: self.direct }
    }

    /// Runs `sql`, which has no parameters, in one piece.
    pub async fn execute(&mut self, sql: impl SqlSafeStr) -> Result<(), sqlx::Error> {
        sqlx::raw_sql(sql).execute(&mut self.connection).await.map(|_| ())
    }

    /// `begin` followed by what a transaction needs here, and by `then`.
    pub fn transaction(&self, begin: &str, then: &str) -> SqlStr {
        let local = if self.direct { "" } else { &self.local };
        AssertSqlSafe(format!("{begin}; {local}{then}")).into_sql_str()
    }

    /// Runs one statement; behind a pooler in a transaction, which keeps it in one session.
    pub async fn run<T>(
        &mut self,
        statement: impl for<'c> FnOnce(Statements<'c>) -> Running<'c, T>,
    ) -> Result<T, sqlx::Error> {
        if self.direct {
            return statement(self.statements()).await;
        }
        let begin = self.transaction(READ_COMMITTED, "");
        self.execute(begin).await?;
        let result = statement(self.statements()).await;
        // Where this fails, too, the caller must not go on with this session.
        self.execute(if result.is_ok() { "COMMIT" } else { "ROLLBACK" }).await?;
        result
    }

    /// The same for a tool: not for ever, and an error says where.
    pub async fn ask<T>(
        &mut self,
        statement: impl for<'c> FnOnce(Statements<'c>) -> Running<'c, T>,
    ) -> Result<T, StorageError> {
        let result = tokio::time::timeout(self.patience, self.run(statement)).await;
        let result = result.unwrap_or_else(|_| Err(silent()));
        result.map_err(|error| StorageError::from(error).at(&self.location))
    }

    /// Hangs up politely.
    pub async fn close(self) {
        // Everything is committed; a connection that cannot be closed politely is dropped.
        let _ = self.connection.close().await;
    }
}

/// The settings of one transaction, for a session that is somebody else's a moment later.
fn local_settings(statement_timeout: Duration) -> String {
    let timeout = statement_timeout.as_millis();
    let settings: String =
        SETTINGS.iter().map(|(name, value)| format!("SET LOCAL {name} = {value}; ")).collect();
    format!(
        "SET LOCAL statement_timeout = {timeout}; SET LOCAL lock_timeout = {timeout}; \
         SET LOCAL synchronous_commit = on; {settings}"
    )
}

/// Why there is no session.
enum Trouble {
    Driver(sqlx::Error),
    Unusable(String),
    ReadOnly,
}

impl Trouble {
    fn at(self, location: &str) -> StorageError {
        match self {
            Trouble::Driver(error) => at_connect(&error, location),
            Trouble::Unusable(why) => StorageError::Unusable(format!("{location}: {why}")),
            Trouble::ReadOnly => StorageError::Unavailable(format!(
                "{location}: the server is read-only; is it a standby, or is \
                 default_transaction_read_only set for this role or database?"
            )),
        }
    }
}

impl From<sqlx::Error> for Trouble {
    fn from(error: sqlx::Error) -> Trouble {
        Trouble::Driver(error)
    }
}

/// A statement under way on a connection.
pub(super) type Running<'c, T> = BoxFuture<'c, Result<T, sqlx::Error>>;

/// Runs statements with parameters: named and kept in a session that is ours, else unnamed.
#[derive(Debug)]
pub(super) struct Statements<'c> {
    connection: &'c mut PgConnection,
    named: bool,
}

impl Statements<'_> {
    /// The same for one more statement.
    pub fn again(&mut self) -> Statements<'_> {
        Statements { connection: &mut *self.connection, named: self.named }
    }
}

impl<'c> Executor<'c> for Statements<'c> {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        self.connection.fetch_many(Statement { query, named: self.named })
    }

    fn fetch_optional<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        self.connection.fetch_optional(Statement { query, named: self.named })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, sqlx::Error>>
    where
        'c: 'e,
    {
        self.connection.prepare_with(sql, parameters)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, sqlx::Error>>
    where
        'c: 'e,
    {
        self.connection.describe(sql)
    }
}

type BoxFuture<'e, T> = Pin<Box<dyn Future<Output = T> + Send + 'e>>;
type BoxStream<'e, T> = Pin<Box<dyn Stream<Item = T> + Send + 'e>>;

struct Statement<E> {
    query: E,
    named: bool,
}

impl<'q, E: Execute<'q, Postgres>> Execute<'q, Postgres> for Statement<E> {
    fn sql(self) -> SqlStr {
        self.query.sql()
    }

    fn statement(&self) -> Option<&PgStatement> {
        self.query.statement()
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, BoxDynError> {
        self.query.take_arguments()
    }

    fn persistent(&self) -> bool {
        self.named && self.query.persistent()
    }
}
