//! A shop inside the test's own process.

use std::net::SocketAddr;

use merch_store::cli::serve::Server;
use merch_store::config::Config;
use merch_store::lifecycle::Lifecycle;
use merch_store::storage::Audit;
use reqwest::{Client, Method, RequestBuilder};

use super::person::{PASSWORD, Person, Reply, authenticate};
use super::{TestDatabase, proxy::Proxy};

/// Signs the tokens of every shop in these tests, so that replicas accept each other's.
pub const SECRET: &str = "the secret of the integration tests";

/// A running shop on a database of its own.
pub struct TestShop {
    pub base: String,
    pub address: SocketAddr,
    pub client: Client,
    pub database: TestDatabase,
    pub lifecycle: Lifecycle,
    // Serves until the test's runtime ends.
    _server: tokio::task::JoinHandle<merch_store::lifecycle::Ended>,
}

/// Settings of a shop on the database at `url`, for one of many tests at once.
pub fn config(url: &str) -> Config {
    let settings = [
        ("http.address", "127.0.0.1:0"),
        ("database.url", url),
        ("database.max_connections", "4"),
        ("auth.jwt_secret", SECRET),
        ("shutdown.grace_ms", "0"),
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

    async fn start(database: TestDatabase, config: &Config) -> TestShop {
        let server = Server::start(config).await.unwrap();
        let address = server.address();
        TestShop {
            base: format!("http://{address}"),
            address,
            client: Client::new(),
            database,
            lifecycle: server.lifecycle().clone(),
            _server: tokio::spawn(server.wait()),
        }
    }

    /// Where another shop on the same database serves, with settings of its own.
    pub async fn replica(&self, change: impl FnOnce(&mut Config)) -> String {
        let mut config = config(self.database.url().as_str());
        change(&mut config);
        let server = Server::start(&config).await.unwrap();
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

    /// The books are honest.
    pub async fn is_honest(&self) {
        let audit = Audit::run(&self.database.options()).await.unwrap();
        assert_eq!(audit.lies, [], "{:?}", audit.totals);
    }
}
