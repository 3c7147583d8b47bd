//! A shop inside the test's own process.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use merch_store::auth::token::Tokens;
use merch_store::cli::serve::Server;
use merch_store::config::Config;
use merch_store::lifecycle::{Ended, Lifecycle};
use merch_store::shop::{AccountId, Amount, Owner, Username};
use merch_store::storage::{Audit, Database, DatabaseOptions, Seed};
use reqwest::{Client, Method, RequestBuilder};
use sqlx::{Connection, PgConnection};
use tokio::task::JoinHandle;

use super::person::{PASSWORD, Person, Reply, authenticate};
use super::proxy::Proxy;
use super::{TestDatabase, eventually};

/// Signs the tokens of every shop in these tests, so that replicas accept each other's.
pub const SECRET: &str = "the secret of the integration tests";

/// A running shop on a database of its own.
pub struct TestShop {
    pub base: String,
    pub address: SocketAddr,
    pub client: Client,
    pub database: TestDatabase,
    pub lifecycle: Lifecycle,
    /// Serves until the test's runtime ends, or until it is closed.
    server: JoinHandle<Ended>,
}

/// Settings of a shop on the database at `url`, for one of many tests at once.
pub fn config(url: &str) -> Config {
    let settings = [
        ("http.address", "127.0.0.1:0"),
        ("database.url", url),
        ("database.max_connections", "4"),
        ("auth.jwt_secret", SECRET),
        ("shutdown.grace_ms", "0"),
        // The machine is busy with other tests: attempts are what they count, not seconds.
        ("engine.replay_deadline_ms", "30000"),
    ];
    Config::load(None, settings.map(|(key, value)| (key, value.to_owned()))).unwrap()
}

impl TestShop {
    /// A shop like any other.
    pub async fn open() -> TestShop {
        TestShop::with(|_| {}).await
    }

    /// A shop with settings of its own.
    pub async fn with(change: impl FnOnce(&mut Config)) -> TestShop {
        let database = TestDatabase::fresh().await;
        let mut config = config(database.url().as_str());
        change(&mut config);
        TestShop::start(database, &config).await
    }

    /// A shop whose connections to the database all go through a proxy.
    pub async fn behind_proxy(change: impl FnOnce(&mut Config)) -> (TestShop, Proxy) {
        let database = TestDatabase::fresh().await;
        let proxy = Proxy::start(database.url()).await;
        let mut config = config(database.url_through(proxy.port()).as_str());
        change(&mut config);
        (TestShop::start(database, &config).await, proxy)
    }

    /// A shop like any other on a database that is there already.
    pub async fn on(database: TestDatabase) -> TestShop {
        let config = config(database.url().as_str());
        TestShop::start(database, &config).await
    }

    async fn start(database: TestDatabase, config: &Config) -> TestShop {
        let server = Server::start(config, Lifecycle::default()).await.unwrap();
        let address = server.address();
        TestShop {
            base: format!("http://{address}"),
            address,
            client: Client::new(),
            database,
            lifecycle: server.lifecycle().clone(),
            server: tokio::spawn(server.wait()),
        }
    }

    /// Where another shop on the same database serves, with settings of its own.
    pub async fn replica(&self, change: impl FnOnce(&mut Config)) -> String {
        let mut config = config(self.database.url().as_str());
        change(&mut config);
        let server = Server::start(&config, Lifecycle::default()).await.unwrap();
        let base = format!("http://{}", server.address());
        tokio::spawn(server.wait());
        base
    }

    /// Somebody logs in with everybody's password.
    pub async fn logs_in(&self, name: &str) -> Person {
        Person::logs_in(&self.client, &self.base, name, PASSWORD).await
    }

    pub async fn authenticates(&self, name: &str, password: &str) -> Reply {
        authenticate(&self.client, &self.base, name, password).await
    }

    /// A request without a token.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    pub async fn gets(&self, path: &str) -> Reply {
        Reply::to(self.request(Method::GET, path)).await
    }

    /// Ends the shop and all its connections; the database stays.
    pub async fn closes(self) -> TestDatabase {
        self.lifecycle.end();
        assert_eq!(self.server.await.unwrap(), Ended::Cleanly);
        self.database
    }

    /// Waits until the shop is ready.
    pub async fn is_ready(&self) {
        eventually("the shop is ready", async || self.gets("/health/ready").await.status == 200)
            .await;
    }

    /// Waits until the shop knows that its database is away; from then on it says so at
    /// once, whatever `person` asks.
    pub async fn refuses_until_the_database_is_back(&self, person: &Person) {
        eventually("the shop is not ready", async || {
            self.gets("/health/ready").await.status == 503
        })
        .await;
        for reply in [
            person.buys("pen").await,
            person.sends("nobody", 1).await,
            person.gets("/api/info").await,
            self.authenticates("somebody", "password").await,
        ] {
            reply.is_error(503, "database_away");
            assert_eq!(reply.header("retry-after"), Some("1"));
        }
    }

    /// The books are honest.
    pub async fn is_honest(&self) {
        let audit = Audit::run(&self.database.options()).await.unwrap();
        assert_eq!(audit.lies, [], "{:?}", audit.totals);
    }
}

/// People with coins whom nobody had to log in: their tokens are made here.
pub struct Bank;

impl Bank {
    /// Opens `people` accounts named `user1` and so on with `coins` each.
    pub async fn open(database: &TestDatabase, people: usize, coins: i64) -> Vec<Person> {
        open_accounts(&database.options(), database.url().as_str(), people, coins).await
    }
}

async fn open_accounts(
    options: &DatabaseOptions,
    url: &str,
    people: usize,
    coins: i64,
) -> Vec<Person> {
    let mut seed = Seed::connect(options).await.unwrap();
    let last = people.try_into().unwrap();
    let coins = Amount::new(coins).unwrap();
    seed.users_insert_many(1, last, coins, "nobody logs in with this").await.unwrap();
    seed.finish().await.unwrap();

    let mut connection = PgConnection::connect(url).await.unwrap();
    let rows: Vec<(i64, String)> = sqlx::query_as("SELECT id, username FROM users ORDER BY id")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();

    let books = Database::new(options.clone()).books_fetch().await.unwrap().id;
    let client = Client::new();
    let tokens = Tokens::new(&SECRET.into(), None, Duration::from_secs(3600));
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    rows.into_iter()
        .map(|(id, name)| {
            let username = Username::parse(&name).unwrap();
            let token = tokens.issue(&Owner { account: AccountId(id), username, books }, now);
            Person::with_token(&client, &name, &token)
        })
        .collect()
}

/// A shop in this process on a database that the test looks after itself.
pub struct Replica {
    pub people: Vec<Person>,
    base: String,
    url: String,
    client: Client,
    lifecycle: Lifecycle,
    server: JoinHandle<Ended>,
}

impl Replica {
    pub async fn start(url: &str) -> Replica {
        Replica::with(url, |_| {}).await
    }

    /// One that waits for its database for as long as a busy machine may need.
    pub async fn patient(url: &str) -> Replica {
        let patience = Duration::from_secs(30);
        Replica::with(url, |config| {
            config.database.acquire_timeout = patience;
            config.database.statement_timeout = patience;
            config.http.request_timeout = 2 * patience;
        })
        .await
    }

    async fn with(url: &str, change: impl FnOnce(&mut Config)) -> Replica {
        let mut config = config(url);
        change(&mut config);
        let server = Server::start(&config, Lifecycle::default()).await.unwrap();
        Replica {
            people: Vec::new(),
            base: format!("http://{}", server.address()),
            url: url.into(),
            client: Client::new(),
            lifecycle: server.lifecycle().clone(),
            server: tokio::spawn(server.wait()),
        }
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    /// Opens accounts for so many people, at this shop.
    pub async fn seed(&mut self, people: usize, coins: i64) {
        let options = DatabaseOptions::from_url(&self.url).unwrap();
        let people = open_accounts(&options, &self.url, people, coins).await;
        self.people = people.iter().map(|person| person.at(&self.base)).collect();
    }

    /// Somebody logs in with everybody's password.
    pub async fn logs_in(&self, name: &str) -> Person {
        Person::logs_in(&self.client, &self.base, name, PASSWORD).await
    }

    pub async fn is_ready(&self) {
        self.readiness_becomes(200).await;
    }

    pub async fn is_not_ready(&self) {
        self.readiness_becomes(503).await;
    }

    async fn readiness_becomes(&self, status: u16) {
        eventually(&format!("readiness is {status}"), async || {
            let request = self.client.get(format!("{}/health/ready", self.base));
            Reply::to(request).await.status == status
        })
        .await;
    }

    /// Ends it as a signal would.
    pub async fn stop(self) {
        self.lifecycle.end();
        assert_eq!(self.server.await.unwrap(), Ended::Cleanly);
    }
}
