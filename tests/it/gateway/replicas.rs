//! Replicas of the shop behind a gateway, all of them processes of their own, under load:
//! what becomes of customers when a replica is killed, and when everything is restarted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use merch_store::storage::Audit;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::support::shop::Bank;
use crate::support::{Person, Process, Reply, TestDatabase, eventually};

const TOKEN: &str = "the token of the integration tests";

/// Customers at once; each does one thing after the other, again and again.
const CUSTOMERS: usize = 24;

/// More than anybody spends here.
const COINS: i64 = 1_000_000;

/// What a pen costs.
const PEN: i64 = 10;

/// Three replicas on one database, and a gateway before them.
struct Chain {
    database: TestDatabase,
    people: Vec<Person>,
    replicas: Vec<Process>,
    gateway: Process,
    settings: NamedTempFile,
    grace_ms: &'static str,
}

impl Chain {
    /// With `upstream` for how the gateway watches its backends, and replicas that serve for
    /// `grace_ms` after they were asked to end.
    async fn open(upstream: &'static str, grace_ms: &'static str) -> Chain {
        let database = TestDatabase::fresh().await;
        let people = Bank::open(&database, CUSTOMERS, COINS).await;
        let mut replicas = Vec::new();
        for _ in 0..3 {
            let url = database.url().as_str();
            replicas.push(Process::replica_at("127.0.0.1:0", url, grace_ms).await);
        }
        let settings = NamedTempFile::new().unwrap();
        let backends: Vec<_> = replicas.iter().map(|replica| &*replica.base).collect();
        write(&settings, &backends, upstream);
        let path = settings.path().to_str().unwrap();
        let environment = [
            ("MERCH__LIMITS__RATE_PER_SEC", "0"),
            ("MERCH__GATEWAY__ADMIN__ADDRESS", "127.0.0.1:0"),
            ("MERCH__GATEWAY__ADMIN__TOKEN", TOKEN),
        ];
        let gateway = Process::gateway(&["--config", path], &environment).await;
        let people = people.iter().map(|person| person.at(&gateway.base)).collect();
        Chain { database, people, replicas, gateway, settings, grace_ms }
    }

    /// Sends all customers in.
    fn rush(&self) -> Rush {
        let rush = Rush::default();
        let mut customers = JoinSet::new();
        for (at, person) in self.people.iter().enumerate() {
            let neighbour = self.people[(at + 1) % CUSTOMERS].name.clone();
            customers.spawn(shop_until_told(person.clone(), neighbour, rush.counts.clone()));
        }
        Rush { customers, ..rush }
    }

    /// Starts replica number `which` again, at the address it had.
    async fn restart(&mut self, which: usize) {
        let address = address_of(&self.replicas[which]);
        eventually("the port is free", async || TcpListener::bind(&address).await.is_ok()).await;
        let url = self.database.url().as_str();
        self.replicas[which] = Process::replica_at(&address, url, self.grace_ms).await;
    }

    async fn admin(&self, method: Method, path: &str) -> Reply {
        let url = format!("{}{path}", self.gateway.admin());
        Reply::to(Client::new().request(method, url).bearer_auth(TOKEN)).await
    }

    /// The state of the replica at `address`; none if the gateway does not know it.
    async fn state_of(&self, address: &str) -> Option<String> {
        let backends = self.admin(Method::GET, "/backends").await.json();
        let mut backends = backends["backends"].as_array().unwrap().iter();
        let backend: &Value = backends.find(|backend| backend["name"] == *address)?;
        Some(backend["state"].as_str().unwrap().to_owned())
    }

    async fn becomes(&self, address: &str, state: &str) {
        eventually(state, async || self.state_of(address).await.as_deref() == Some(state)).await;
    }

    /// The books are honest, and everybody has and has given what they were told, once: so
    /// many rounds of it.
    async fn is_honest_after(&self, rounds: &[i64]) {
        let audit = Audit::run(&self.database.options()).await.unwrap();
        assert_eq!(audit.lies, [], "{:?}", audit.totals);
        for (at, person) in self.people.iter().enumerate() {
            let giver = (at + CUSTOMERS - 1) % CUSTOMERS;
            assert_eq!(person.owns("pen").await, rounds[at], "{}", person.name);
            let coins = COINS - (PEN + 1) * rounds[at] + rounds[giver];
            assert_eq!(person.coins().await, coins, "{}", person.name);
        }
    }
}

/// Customers at their business.
#[derive(Default)]
struct Rush {
    counts: Arc<Counts>,
    customers: JoinSet<(String, i64)>,
}

#[derive(Default)]
struct Counts {
    done: AtomicUsize,
    failures: std::sync::Mutex<Vec<String>>,
    is_over: AtomicBool,
}

impl Rush {
    /// Waits until so much more was done.
    async fn goes_on(&self, much: usize) {
        let enough = self.counts.done.load(Ordering::Relaxed) + much;
        eventually("customers are served", async || {
            self.counts.done.load(Ordering::Relaxed) >= enough
        })
        .await;
    }

    /// What failed, and how many rounds each customer was told to have made.
    async fn ends(self, people: &[Person]) -> (Vec<String>, Vec<i64>) {
        self.counts.is_over.store(true, Ordering::Relaxed);
        let rounds = self.customers.join_all().await;
        let of = |person: &Person| rounds.iter().find(|(name, _)| *name == person.name).unwrap().1;
        let failures = std::mem::take(&mut *self.counts.failures.lock().unwrap());
        (failures, people.iter().map(of).collect())
    }
}

/// Looks, buys a pen and gives a coin away, round after round; who is not told that it is done
/// asks again with the same key. Returns how many rounds were.
async fn shop_until_told(person: Person, neighbour: String, counts: Arc<Counts>) -> (String, i64) {
    let mut rounds = 0;
    let attempt = async |what: &str, request| match Reply::try_to(request).await {
        Ok(reply) if reply.status == 200 => {
            counts.done.fetch_add(1, Ordering::Relaxed);
            true
        }
        answer => {
            counts.failures.lock().unwrap().push(format!("{what}: {answer:?}"));
            false
        }
    };
    while !counts.is_over.load(Ordering::Relaxed) {
        attempt("info", person.request(Method::GET, "/api/info")).await;
        let purchase = || {
            let request = person.request(Method::GET, "/api/buy/pen");
            request.header("Idempotency-Key", format!("pen {rounds}"))
        };
        while !attempt("buy", purchase()).await {}
        let gift = || {
            let body = json!({"toUser": neighbour, "amount": 1});
            let request = person.request(Method::POST, "/api/sendCoin").json(&body);
            request.header("Idempotency-Key", format!("gift {rounds}"))
        };
        while !attempt("send", gift()).await {}
        rounds += 1;
    }
    (person.name, rounds)
}

fn address_of(replica: &Process) -> String {
    let address = replica.base.strip_prefix("http://").unwrap();
    address.parse::<SocketAddr>().unwrap().to_string()
}

fn write(settings: &NamedTempFile, backends: &[&str], upstream: &str) {
    let text = format!("[gateway]\nbackends = {backends:?}\n{upstream}");
    std::fs::write(settings.path(), text).unwrap();
}

/// Checks are too slow to notice anything within a second: requests do.
const KILLED: &str = "
[gateway.upstream]
slow_start_ms = 500
[gateway.upstream.health]
interval_ms = 1000
timeout_ms = 5000
";

#[tokio::test]
async fn a_replica_that_is_killed_is_missed_by_nobody() {
    let mut chain = Chain::open(KILLED, "0").await;
    let killed = address_of(&chain.replicas[1]);
    let rush = chain.rush();
    rush.goes_on(20 * CUSTOMERS).await;

    let since = Instant::now();
    chain.replicas[1].signal("KILL");
    chain.becomes(&killed, "ejected").await;
    assert!(since.elapsed() < Duration::from_secs(1), "ejected after {:?}", since.elapsed());
    rush.goes_on(20 * CUSTOMERS).await;

    chain.restart(1).await;
    chain.becomes(&killed, "healthy").await;
    let metrics = format!("{}/metrics", chain.replicas[1].base);
    eventually("it has its share again", async || {
        let metrics = Reply::to(Client::new().get(&metrics)).await.text;
        metrics.contains("merch_http_requests_total{route=\"/api/info\",status=\"200\"}")
    })
    .await;
    rush.goes_on(20 * CUSTOMERS).await;

    let (failures, rounds) = rush.ends(&chain.people).await;
    assert!(failures.is_empty(), "{failures:?}");
    chain.is_honest_after(&rounds).await;
}

/// A replica that is no longer ready is noticed long before it stops to serve.
const RESTARTED: &str = "
[gateway.upstream]
slow_start_ms = 500
[gateway.upstream.health]
interval_ms = 100
timeout_ms = 5000
fall = 2
";

#[tokio::test]
async fn a_restart_of_everything_in_turn_fails_no_request() {
    let mut chain = Chain::open(RESTARTED, "3000").await;
    let rush = chain.rush();
    for which in 0..3 {
        rush.goes_on(5 * CUSTOMERS).await;
        let address = address_of(&chain.replicas[which]);
        chain.replicas[which].signal("TERM");
        chain.becomes(&address, "unhealthy").await;
        assert_eq!(chain.replicas[which].ends().await, Some(0));
        chain.restart(which).await;
        chain.becomes(&address, "healthy").await;
    }

    // The gateway goes on with one replica less, and then with all of them again.
    let backends: Vec<_> = chain.replicas.iter().map(|replica| replica.base.clone()).collect();
    let backends: Vec<_> = backends.iter().map(String::as_str).collect();
    let last = address_of(&chain.replicas[2]);
    for (backends, state) in [(&backends[..2], None), (&backends[..], Some("healthy"))] {
        write(&chain.settings, backends, RESTARTED);
        assert_eq!(chain.admin(Method::POST, "/reload").await.status, 204);
        eventually("the settings are in force", async || {
            chain.state_of(&last).await.as_deref() == state
        })
        .await;
        rush.goes_on(5 * CUSTOMERS).await;
    }

    let (failures, rounds) = rush.ends(&chain.people).await;
    assert!(failures.is_empty(), "{failures:?}");
    chain.is_honest_after(&rounds).await;
}
