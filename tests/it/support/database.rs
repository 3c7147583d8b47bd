//! Databases: one a test, copied from a template that has the schema.
//!
//! The server is the one that `MERCH_TEST_DATABASE_URL` names, else a container where a
//! Docker engine answers, else a private PostgreSQL below `target/`.

use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use merch_store::data_folder::DataFolder;
use merch_store::private_postgres::PrivatePostgres;
use merch_store::storage::{DatabaseOptions, Migrations};
use reqwest::Url;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use testcontainers::core::{IntoContainerPort, WaitFor};
use testcontainers::runners::AsyncRunner;
use testcontainers::{ContainerAsync, GenericImage, ImageExt, ReuseDirective};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::OnceCell;

use super::eventually;

/// A fresh database with the schema in it; dropped with this.
pub struct TestDatabase {
    name: String,
    url: Url,
}

/// The server that all tests of this process share, for as long as the process lives.
struct Server {
    url: Url,
    _private: Option<(DataFolder, PrivatePostgres)>,
    _container: Option<ContainerAsync<GenericImage>>,
}

static SERVER: OnceCell<Server> = OnceCell::const_new();
static CREATED: AtomicU32 = AtomicU32::new(0);

impl TestDatabase {
    /// A database with the schema and nothing else.
    pub async fn fresh() -> TestDatabase {
        TestDatabase::copy_of(&template_name()).await
    }

    /// A database without even a schema.
    pub async fn blank() -> TestDatabase {
        TestDatabase::copy_of("template0").await
    }

    /// A database without a schema that keeps its text in `encoding`.
    pub async fn in_encoding(encoding: &str) -> TestDatabase {
        TestDatabase::copy_of(&format!("template0 LOCALE 'C' ENCODING '{encoding}'")).await
    }

    /// A copy of the database `template`, to which nobody is connected.
    pub async fn copy_of(template: &str) -> TestDatabase {
        let server = server().await;
        let name = new_name();
        admin(&server.url, &format!("CREATE DATABASE {name} TEMPLATE {template}")).await;
        let mut url = server.url.clone();
        url.set_path(&name);
        TestDatabase { name, url }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The same database by way of a TCP port on this machine.
    pub fn url_through(&self, port: u16) -> Url {
        let mut url = self.url.clone();
        url.set_query(Some("sslmode=disable"));
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(port)).unwrap();
        url
    }

    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect(self.url.as_str()).await.unwrap()
    }

    /// All of it as SQL, as an operator's backup has it.
    pub async fn dump(&self) -> Vec<u8> {
        let mut dump = self.program("pg_dump").await;
        let output = dump.args(["--dbname", self.url.as_str()]).output().await.unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    }

    /// Runs what [`TestDatabase::dump`] made.
    pub async fn restore(&self, dump: &[u8]) {
        let mut restore = self.program("psql").await;
        restore.args(["--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", self.url.as_str()]);
        let mut restore = restore.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut stdin = restore.stdin.take().unwrap();
        stdin.write_all(dump).await.unwrap();
        drop(stdin);
        assert!(restore.wait().await.unwrap().success());
    }

    /// A client program of PostgreSQL's, of the server's version where it is on this machine.
    async fn program(&self, name: &str) -> Command {
        let mut connection = self.connect().await;
        let folder = "SELECT setting FROM pg_config() WHERE name = 'BINDIR'";
        let folder: String = sqlx::query_scalar(folder).fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        let program = Path::new(&folder).join(name);
        Command::new(if program.exists() { program } else { name.into() })
    }

    pub fn options(&self) -> DatabaseOptions {
        DatabaseOptions::from_url(self.url.as_str()).unwrap()
    }

    /// Runs SQL as somebody with a database shell would.
    pub async fn execute(&self, sql: &str) {
        let mut connection = self.connect().await;
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    }

    /// Keeps everybody else out of `table` until the connection is closed.
    pub async fn lock(&self, table: &str) -> PgConnection {
        let mut connection = self.connect().await;
        let lock = format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
        sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut connection).await.unwrap();
        connection
    }

    /// Waits until `sessions` sessions wait for a lock.
    pub async fn has_waiting(&self, sessions: i64) {
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND database = \
                       (SELECT oid FROM pg_database WHERE datname = current_database())";
        let what = format!("{sessions} sessions wait for a lock");
        eventually(&what, async || self.number(waiting).await == sessions).await;
    }

    /// The one number that `sql` selects.
    pub async fn number(&self, sql: &'static str) -> i64 {
        let mut connection = self.connect().await;
        let number = sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        number
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let url = SERVER.get().unwrap().url.clone();
        run_apart(url, format!("DROP DATABASE {} WITH (FORCE)", self.name));
    }
}

/// A role of the server that may log in and nothing else; dropped with this, which must be
/// before the database that it has rights in.
pub struct TestRole {
    pub name: String,
    /// The database, as this role.
    pub url: Url,
    database: Url,
}

impl TestRole {
    pub async fn of(database: &TestDatabase) -> TestRole {
        let name = new_name();
        database.execute(&format!("CREATE ROLE {name} LOGIN PASSWORD 'merch'")).await;
        let mut url = database.url().clone();
        url.set_username(&name).unwrap();
        url.set_password(Some("merch")).unwrap();
        TestRole { name, url, database: database.url().clone() }
    }
}

impl Drop for TestRole {
    fn drop(&mut self) {
        let sql = format!("DROP OWNED BY {0}; DROP ROLE {0}", self.name);
        run_apart(self.database.clone(), sql);
    }
}

fn new_name() -> String {
    let number = CREATED.fetch_add(1, Ordering::Relaxed);
    format!("merch_test_{}_{number}", std::process::id())
}

/// Runs `sql` in a thread of its own, because this one may be in the middle of a runtime.
fn run_apart(url: Url, sql: String) {
    let running = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(admin(&url, &sql));
    });
    if !std::thread::panicking() {
        running.join().unwrap();
    }
}

async fn server() -> &'static Server {
    SERVER
        .get_or_init(|| async {
            let server = find_server().await;
            make_template(&server.url).await;
            server
        })
        .await
}

async fn find_server() -> Server {
    if let Ok(url) = std::env::var("MERCH_TEST_DATABASE_URL") {
        let url = url.parse().expect("MERCH_TEST_DATABASE_URL is a URL");
        return Server { url, _private: None, _container: None };
    }
    if let Some(container) = start_container().await {
        let host = container.get_host().await.unwrap();
        let port = container.get_host_port_ipv4(5432.tcp()).await.unwrap();
        let url = format!("postgres://postgres:merch@{host}:{port}/postgres").parse().unwrap();
        return Server { url, _private: None, _container: Some(container) };
    }
    let folder = take_data_folder();
    let postgres = PrivatePostgres::start(&folder).await.expect("a PostgreSQL for the tests");
    let url = postgres.url().parse().unwrap();
    Server { url, _private: Some((folder, postgres)), _container: None }
}

/// A container that is kept for the next run, if there is a Docker engine at all.
async fn start_container() -> Option<ContainerAsync<GenericImage>> {
    GenericImage::new("postgres", "17-alpine")
        .with_exposed_port(5432.tcp())
        // Once for the cluster's initialisation, once for good.
        .with_wait_for(WaitFor::message_on_stdout("init process complete"))
        .with_wait_for(WaitFor::message_on_stderr("ready to accept connections"))
        .with_env_var("POSTGRES_PASSWORD", "merch")
        .with_cmd(["postgres", "-c", "max_connections=200"])
        .with_container_name("merch-store-tests")
        .with_reuse(ReuseDirective::Always)
        .start()
        .await
        .ok()
}

/// A folder below `target/` that no other test run is using.
fn take_data_folder() -> DataFolder {
    (1..100)
        .map(|number| Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("postgres-{number}")))
        .find_map(|path| DataFolder::take(&path).ok())
        .expect("a data folder for the tests' PostgreSQL")
}

fn template_name() -> String {
    format!("merch_test_template_{}", std::process::id())
}

/// Makes the template, and removes what earlier runs could not.
async fn make_template(server: &Url) {
    let mut connection = PgConnection::connect(server.as_str()).await.unwrap();
    let left: Vec<String> = sqlx::query_scalar(
        "SELECT datname FROM pg_database WHERE datname LIKE 'merch\\_test\\_%'
         AND NOT EXISTS (SELECT 1 FROM pg_stat_activity
                         WHERE pg_stat_activity.datname = pg_database.datname)",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    connection.close().await.unwrap();
    // Another run may be at work on the same server: only a private one is ours alone.
    if server.query().is_some_and(|query| query.contains("host=")) {
        for name in left {
            admin(server, &format!("DROP DATABASE IF EXISTS {name}")).await;
        }
    }

    admin(server, &format!("CREATE DATABASE {} TEMPLATE template0", template_name())).await;
    let mut url = server.clone();
    url.set_path(&template_name());
    let options = DatabaseOptions::from_url(url.as_str()).unwrap();
    let mut migrations = Migrations::connect(&options).await.unwrap();
    migrations.up().await.unwrap();
    migrations.close().await;
}

async fn admin(server: &Url, sql: &str) {
    let mut connection = PgConnection::connect(server.as_str()).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}
