//! What is measured: a private PostgreSQL with 100,000 people, and replicas of the shop as
//! processes of their own, of this build or of another one.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use merch_store::auth::token::Tokens;
use merch_store::data_folder::DataFolder;
use merch_store::private_postgres::PrivatePostgres;
use merch_store::shop::{AccountId, BooksId, Owner, Username};
use merch_store::storage::{Database, DatabaseOptions};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

use super::processes::{cpu_of, cpu_of_family};

/// How many people there are: `user1` and so on, with account numbers in the same order.
pub const PEOPLE: u32 = 100_000;
/// The password of all of them.
pub const PASSWORD: &str = "password";
const SECRET: &str = "the secret of the benchmark, nobody else's";

/// The database and everybody's tokens.
pub struct World {
    pub url: String,
    /// `Authorization` values, by account number less one.
    pub tokens: Arc<Vec<String>>,
    program: PathBuf,
    postgres: PrivatePostgres,
    folder: DataFolder,
    home: PathBuf,
}

/// A replica of the shop.
pub struct Replica {
    pub address: SocketAddr,
    process: Child,
}

impl World {
    /// Starts a PostgreSQL on an empty folder and has this program fill it, or another one.
    pub async fn new(other: Option<&Path>) -> anyhow::Result<World> {
        let program = other.unwrap_or(Path::new(env!("CARGO_BIN_EXE_merch-store"))).to_owned();
        eprintln!("preparing: a private PostgreSQL with {PEOPLE} people of {}", program.display());
        let name = match other {
            None => format!("merch-store-bench-{}", std::process::id()),
            Some(_) => format!("merch-store-bench-{}-other", std::process::id()),
        };
        let home = std::env::temp_dir().join(name);
        let folder = DataFolder::take(&home)?;
        let postgres = PrivatePostgres::start(&folder).await?;
        let url = postgres.url();
        run(&program, &url, &["migrate", "up"])?;
        let people = PEOPLE.to_string();
        run(&program, &url, &["seed", "--users", &people, "--password", PASSWORD])?;

        // Tokens of releases without an identity of the database do not name it.
        let books = Database::new(DatabaseOptions::from_url(&url)?).books_fetch().await;
        let books = books.map_or(BooksId(Uuid::nil()), |books| books.id);
        let tokens = Tokens::new(&SECRET.into(), None, Duration::from_secs(86_400));
        let now = SystemTime::UNIX_EPOCH.elapsed()?;
        let tokens = (1..=PEOPLE)
            .map(|number| {
                let username = Username::parse(&format!("user{number}")).expect("a username");
                let account = AccountId(number.into());
                tokens.issue(&Owner { account, username, books }, now)
            })
            .collect();
        Ok(World { url, tokens: Arc::new(tokens), program, postgres, folder, home })
    }

    /// Starts a replica with settings as they come, but for those named here.
    pub fn replica(&self, settings: &[(&str, &str)]) -> anyhow::Result<Replica> {
        let mut process = Command::new(&self.program)
            .args(["serve", "--address", "127.0.0.1:0"])
            .env("MERCH__DATABASE__URL", &self.url)
            .env("MERCH__AUTH__JWT_SECRET", SECRET)
            .env("MERCH__LOG__LEVEL", "warn")
            .envs(settings.iter().copied())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = process.stdout.take().expect("piped");
        for line in BufReader::new(stdout).lines() {
            if let Some(port) = line?.strip_prefix("  shop  http://localhost:") {
                let address = SocketAddr::from(([127, 0, 0, 1], port.parse()?));
                return Ok(Replica { address, process });
            }
        }
        anyhow::bail!("the replica did not start")
    }

    /// Runs SQL that is not part of a measurement.
    pub async fn execute(&self, sql: &str) -> anyhow::Result<()> {
        let mut connection = PgConnection::connect(&self.url).await?;
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
        connection.close().await?;
        Ok(())
    }

    /// Processor time of the whole PostgreSQL so far.
    pub fn postgres_cpu(&self) -> Duration {
        let pid_file = self.folder.path().join("postgres/postmaster.pid");
        let pid_file = std::fs::read_to_string(pid_file).unwrap_or_default();
        let postmaster = pid_file.lines().next().and_then(|pid| pid.parse().ok()).unwrap_or(0);
        cpu_of_family(postmaster)
    }

    /// The folder of the server's socket, for programs that connect by themselves.
    pub fn socket_folder(&self) -> &str {
        self.url.split_once("host=").expect("a private PostgreSQL listens on a socket").1
    }

    pub async fn close(self) -> anyhow::Result<()> {
        self.postgres.stop().await;
        drop(self.folder);
        std::fs::remove_dir_all(self.home)?;
        Ok(())
    }
}

impl Replica {
    /// Its processor time so far.
    pub fn cpu(&self) -> Duration {
        cpu_of(self.process.id())
    }

    /// Its resident memory, in MiB.
    pub fn resident_mib(&self) -> f64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.process.id()));
        let pages = statm.ok().and_then(|text| text.split(' ').nth(1)?.parse::<f64>().ok());
        pages.map_or(f64::NAN, |pages| pages * 4096.0 / 1024.0 / 1024.0)
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        // It holds nothing that the next one needs.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Has `program` do something to the database, and is told only if it fails.
fn run(program: &Path, url: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    let output = command.args(arguments).env("MERCH__DATABASE__URL", url).output();
    let output = output.with_context(|| format!("cannot run {}", program.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{} {arguments:?}: {said}", program.display());
    Ok(())
}
