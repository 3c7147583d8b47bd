//! Limits at gateways that are processes of their own: where they are kept, when they are in
//! force elsewhere, and what becomes of clients while Redis is away.

use std::time::{Duration, Instant};

use reqwest::{Client, Method};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Backend, Process, Reply, TestDatabase, TestRedis, eventually};

const TOKEN: &str = "the token of the integration tests";

/// Settings, as the environment has them.
type Settings = Vec<(&'static str, String)>;

/// A gateway before `backend`, and somebody who asks it from this machine.
struct Gateway {
    process: Process,
    client: Client,
}

impl Gateway {
    async fn start(backend: &Backend, settings: &Settings) -> Gateway {
        let base = [
            ("MERCH__GATEWAY__ADMIN__ADDRESS", "127.0.0.1:0"),
            ("MERCH__GATEWAY__ADMIN__TOKEN", TOKEN),
            ("MERCH__GATEWAY__UPSTREAM__HEALTH__PATH", ""),
            ("MERCH__SHUTDOWN__GRACE_MS", "0"),
        ];
        let more = settings.iter().map(|(key, value)| (*key, value.as_str()));
        let environment: Vec<_> = base.into_iter().chain(more).collect();
        let url = format!("http://{}", backend.address);
        let process = Process::gateway(&["--backend", &url], &environment).await;
        Gateway { process, client: Client::new() }
    }

    async fn asks(&self) -> Reply {
        Reply::to(self.client.get(&self.process.base)).await
    }

    /// The limit that an answer names, as capacity and seconds; none without a limit.
    async fn policy(&self) -> Option<String> {
        Some(self.asks().await.header("ratelimit-policy")?.to_owned())
    }

    async fn admin(&self, method: Method, path: &str, body: Option<Value>) -> Reply {
        let url = format!("{}{path}", self.process.admin());
        let request = self.client.request(method, url).bearer_auth(TOKEN);
        Reply::to(match body {
            Some(body) => request.json(&body),
            None => request,
        })
        .await
    }

    /// Whether it says that its buckets are `mode`.
    async fn is(&self, mode: &str) -> bool {
        let metrics = self.admin(Method::GET, "/metrics", None).await.text;
        metrics.contains(&format!("merch_limits_mode{{mode=\"{mode}\"}} 1"))
    }

    async fn becomes(&self, mode: &str) {
        eventually(&format!("buckets are {mode}"), async || self.is(mode).await).await;
    }
}

/// Where gateways keep limits of clients' own.
enum Home {
    Postgres(TestDatabase, TestRedis),
    Redis(TestRedis),
    File(TempDir),
}

impl Home {
    fn settings(&self) -> Settings {
        let nobody_else = ("MERCH__LIMITS__RATE_PER_SEC", "0".to_owned());
        // So that no answer is too late for a machine that is busy.
        let patient = ("MERCH__LIMITS__REDIS_TIMEOUT_MS", "30000".to_owned());
        let redis = |redis: &TestRedis| ("MERCH__LIMITS__REDIS_URL", redis.url());
        match self {
            Home::Postgres(database, other) => {
                let url = ("MERCH__DATABASE__URL", database.url().to_string());
                vec![nobody_else, patient, url, redis(other)]
            }
            Home::Redis(server) => vec![nobody_else, patient, redis(server)],
            Home::File(folder) => {
                vec![nobody_else, ("MERCH__DATA_DIR", folder.path().to_str().unwrap().to_owned())]
            }
        }
    }

    /// How many limits are kept there.
    async fn holds(&self) -> i64 {
        let in_redis = async |redis: &TestRedis| -> i64 {
            redis.command(&["HLEN", "{merch-store:limits}"]).await.unwrap()
        };
        match self {
            Home::Postgres(database, other) => {
                assert_eq!(in_redis(other).await, 0, "Redis is for buckets alone");
                database.number("SELECT count(*) FROM client_limits").await
            }
            Home::Redis(redis) => in_redis(redis).await,
            Home::File(folder) => {
                let text = std::fs::read(folder.path().join("limits.json")).unwrap();
                let content: Value = serde_json::from_slice(&text).unwrap();
                content["limits"].as_array().unwrap().len() as i64
            }
        }
    }
}

/// A limit is created, changed and deleted at one gateway; another has it within a second, and
/// both still have it after they were started again.
async fn one_rule_for_all(home: Home) {
    let backend = Backend::named("one").await;
    let settings = home.settings();
    let here = Gateway::start(&backend, &settings).await;
    let there = Gateway::start(&backend, &settings).await;
    assert_eq!((here.policy().await, there.policy().await), (None, None));

    let limit = |capacity: u32, rate: u32| json!({"client_id": "127.0.0.1", "capacity": capacity, "rate_per_sec": rate});
    let create = async || {
        here.admin(Method::POST, "/limits/create", Some(limit(1_000, 500))).await.status == 201
    };
    // It may be that the schema is still being made, or that Redis is not found yet.
    eventually("it is created", create).await;
    let since = Instant::now();
    assert_eq!(here.policy().await.as_deref(), Some("\"default\";q=1000;w=2"));
    let in_force = async |gateway: &Gateway, policy: Option<&str>| {
        eventually("it is in force", async || gateway.policy().await.as_deref() == policy).await;
    };
    in_force(&there, Some("\"default\";q=1000;w=2")).await;
    assert!(since.elapsed() < Duration::from_secs(1), "after {:?}", since.elapsed());
    assert_eq!(home.holds().await, 1);
    for gateway in [&here, &there] {
        let path = "/limits/get?client_id=127.0.0.1";
        assert_eq!(gateway.admin(Method::GET, path, None).await.json(), limit(1_000, 500));
    }

    let update = there.admin(Method::PUT, "/limits/update", Some(limit(2_000, 500))).await;
    assert_eq!(update.status, 204, "{update:?}");
    in_force(&here, Some("\"default\";q=2000;w=4")).await;

    for gateway in [here, there] {
        gateway.process.signal("TERM");
        assert_eq!(gateway.process.exit_code().await, Some(0));
    }
    let here = Gateway::start(&backend, &settings).await;
    let there = Gateway::start(&backend, &settings).await;
    in_force(&here, Some("\"default\";q=2000;w=4")).await;
    in_force(&there, Some("\"default\";q=2000;w=4")).await;
    let path = "/limits/delete?client_id=127.0.0.1";
    assert_eq!(there.admin(Method::DELETE, path, None).await.status, 204);
    in_force(&here, None).await;
    assert_eq!(home.holds().await, 0);
}

#[tokio::test]
async fn with_a_database_limits_are_kept_in_it_and_in_force_on_every_gateway() {
    // Without even a schema: a gateway may be the first to need it.
    one_rule_for_all(Home::Postgres(TestDatabase::blank().await, TestRedis::start().await)).await;
}

#[tokio::test]
async fn with_redis_alone_limits_are_kept_in_it_and_in_force_on_every_gateway() {
    one_rule_for_all(Home::Redis(TestRedis::start().await)).await;
}

#[tokio::test]
async fn with_neither_limits_are_kept_in_the_data_folder() {
    one_rule_for_all(Home::File(tempfile::tempdir().unwrap())).await;
}

/// How long a request would wait for Redis, if one did.
const PATIENCE: Duration = Duration::from_secs(2);

/// Three gateways that share buckets of a thousand, which hardly fill again.
async fn three_gateways(backend: &Backend, redis: &TestRedis, folder: &TempDir) -> Vec<Gateway> {
    let settings = vec![
        ("MERCH__LIMITS__REDIS_URL", redis.url()),
        ("MERCH__LIMITS__REDIS_TIMEOUT_MS", PATIENCE.as_millis().to_string()),
        ("MERCH__LIMITS__CAPACITY", "1000".to_owned()),
        ("MERCH__LIMITS__RATE_PER_SEC", "1".to_owned()),
        ("MERCH__DATA_DIR", folder.path().to_str().unwrap().to_owned()),
    ];
    let mut gateways = Vec::new();
    for _ in 0..3 {
        gateways.push(Gateway::start(backend, &settings).await);
    }
    gateways
}

/// What each gateway says is left, asked in turn.
async fn left(gateways: &[Gateway]) -> Vec<u32> {
    let mut left = Vec::new();
    for gateway in gateways {
        let reply = gateway.asks().await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let standing = reply.header("ratelimit").unwrap();
        let rest = standing.strip_prefix("\"default\";r=").unwrap();
        left.push(rest.split(';').next().unwrap().parse().unwrap());
    }
    left
}

/// Waits until each of them counts what the others were asked.
async fn all_share(gateways: &[Gateway]) {
    for gateway in gateways {
        gateway.becomes("shared").await;
    }
    // Asked again where a token came back in between.
    let counts_down = async || left(gateways).await.is_sorted_by(|before, after| before > after);
    eventually("they share", counts_down).await;
}

/// All are answered, by buckets of each gateway's own, and at most the one request that finds
/// out waits.
async fn nobody_waits(gateways: &[Gateway]) {
    let since = Instant::now();
    for _ in 0..40 {
        left(gateways).await;
    }
    let most = PATIENCE * (gateways.len() as u32 + 2);
    assert!(since.elapsed() < most, "120 requests took {:?}", since.elapsed());
    for gateway in gateways {
        gateway.becomes("local").await;
    }
    // They were asked alike, so they come to the same: within what came back in between.
    let left = left(gateways).await;
    let most = left.iter().max().unwrap() - left.iter().min().unwrap();
    assert!(most <= 2 + since.elapsed().as_secs() as u32, "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_gateways_whose_redis_hangs_or_dies_notice_nothing() {
    let (backend, folder) = (Backend::named("one").await, tempfile::tempdir().unwrap());
    let mut redis = TestRedis::start().await;
    let gateways = three_gateways(&backend, &redis, &folder).await;
    all_share(&gateways).await;

    redis.freezes();
    nobody_waits(&gateways).await;
    redis.thaws();
    all_share(&gateways).await;

    redis.dies();
    nobody_waits(&gateways).await;
    redis.comes_back().await;
    all_share(&gateways).await;
    // Each came back once: beside theirs there is the connection that asks.
    let clients: String = redis.command(&["CLIENT", "LIST"]).await.unwrap();
    assert!(clients.lines().count() <= 4, "{clients}");
    let stats: String = redis.command(&["INFO", "stats"]).await.unwrap();
    let made = stats.lines().find_map(|it| it.strip_prefix("total_connections_received:"));
    let made: u32 = made.unwrap().trim().parse().unwrap();
    assert!((5..=8).contains(&made), "{stats}");
}
