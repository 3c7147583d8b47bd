//! `GET /metrics`: exact numbers, from a process of its own.

use std::collections::HashMap;

use reqwest::Client;

use crate::support::person::{PASSWORD, authenticate};
use crate::support::proxy::{Fault, Proxy, Stage};
use crate::support::shop::SECRET;
use crate::support::{Person, Process, Reply, TestDatabase, eventually};

#[tokio::test]
async fn the_numbers_tell_what_happened() {
    let database = TestDatabase::fresh().await;
    let proxy = Proxy::start(database.url()).await;
    let shop = Process::replica(database.url_through(proxy.port()).as_str()).await;
    let client = Client::new();
    let alice = Person::logs_in(&client, &shop.base, "alice", PASSWORD).await;
    authenticate(&client, &shop.base, "alice", "wrong").await.is_error(401, "wrong_password");
    for _ in 0..3 {
        alice.buys("pen").await.is_done();
    }
    alice.buys("mug").await.is_error(400, "unknown_item");
    alice.sends("alice", 1).await.is_error(400, "self_transfer");
    alice.sends("alice", 1).await.is_error(400, "self_transfer");
    proxy.inject(Stage::Commit, Fault::Raise("40001"));
    proxy.inject(Stage::Write, Fault::Raise("40P01"));
    alice.buys("cup").await.is_done();
    proxy.inject(Stage::Write, Fault::Raise("XX000"));
    alice.buys("cup").await.is_error(500, "internal");
    proxy.has_injected_everything();
    // Names that a client made up must not become names of metrics.
    for path in ["/no/such/path", "/api/buy/cup/cup"] {
        alice.gets(path).await.is_error(404, "not_found");
    }

    for _ in 0..3 {
        alice.info().await;
    }

    let replays = |sqlstate: &str| {
        let labels = format!(r#"transaction="commit_batch",sqlstate="{sqlstate}""#);
        format!("merch_transaction_replays_total{{{labels}}}")
    };
    let metrics = numbers(&client, &shop).await;
    for (name, expected) in [
        (r#"merch_http_requests_total{route="/api/auth",status="200"}"#, 1.0),
        (r#"merch_http_requests_total{route="/api/auth",status="401"}"#, 1.0),
        (r#"merch_http_requests_total{route="/api/buy/{item}",status="200"}"#, 4.0),
        (r#"merch_http_requests_total{route="/api/buy/{item}",status="400"}"#, 1.0),
        (r#"merch_http_requests_total{route="/api/buy/{item}",status="500"}"#, 1.0),
        (r#"merch_http_requests_total{route="/api/sendCoin",status="400"}"#, 2.0),
        (r#"merch_http_requests_total{route="unmatched",status="404"}"#, 2.0),
        (r#"merch_http_request_seconds_count{route="/api/buy/{item}"}"#, 6.0),
        (r#"merch_http_request_seconds_bucket{route="/api/sendCoin",le="+Inf"}"#, 2.0),
        // The account, four purchases, the broken one, three refusals.
        ("merch_engine_batch_size_count", 9.0),
        ("merch_engine_batch_size_sum", 9.0),
        (r#"merch_engine_batch_size_bucket{le="1"}"#, 9.0),
        (r#"merch_transaction_seconds_count{transaction="commit_batch"}"#, 8.0),
        (r#"merch_transaction_seconds_bucket{transaction="commit_batch",le="+Inf"}"#, 8.0),
        (&replays("40001"), 1.0),
        (&replays("40P01"), 1.0),
        (r#"merch_engine_refusals_total{code="unknown_item"}"#, 1.0),
        (r#"merch_engine_refusals_total{code="self_transfer"}"#, 2.0),
        (r#"merch_engine_errors_total{error="failed"}"#, 1.0),
        (r#"merch_info_answers_total{source="database"}"#, 1.0),
        (r#"merch_info_answers_total{source="memory"}"#, 2.0),
        ("merch_engine_queue_depth", 0.0),
        ("merch_hashing_queue_depth", 0.0),
    ] {
        assert_eq!(metrics.get(name), Some(&expected), "{name} in {metrics:#?}");
    }
    assert!(!metrics.keys().any(|name| name.contains("such")), "{metrics:#?}");
}

#[tokio::test]
async fn the_depths_of_the_queues_rise_and_fall() {
    let database = TestDatabase::fresh().await;
    let settings = [
        ("MERCH__DATABASE__URL", database.url().as_str()),
        ("MERCH__AUTH__JWT_SECRET", SECRET),
        // Longer than the lock below is held, however busy the machine is.
        ("MERCH__DATABASE__STATEMENT_TIMEOUT_MS", "60000"),
    ];
    let shop = Process::serve(&[], &settings).await;
    let client = Client::new();
    let alice = Person::logs_in(&client, &shop.base, "alice", PASSWORD).await;
    let reads = async |name: &str, expected: f64| {
        let read = async || numbers(&client, &shop).await.get(name) == Some(&expected);
        eventually(&format!("{name} is {expected}"), read).await;
    };

    let lock = database.lock("writer_turn, users").await;
    let first = alice.buys("pen");
    let rest = async {
        database.has_waiting(1).await;
        let waiting = async { tokio::join!(alice.buys("pen"), alice.buys("pen")) };
        let hashing = authenticate(&client, &shop.base, "alice", PASSWORD);
        let watching = async {
            reads("merch_engine_queue_depth", 2.0).await;
            reads("merch_hashing_queue_depth", 1.0).await;
            drop(lock);
        };
        tokio::join!(waiting, hashing, watching)
    };
    let (first, ((second, third), login, ())) = tokio::join!(first, rest);
    [first, second, third].iter().for_each(Reply::is_done);
    assert_eq!(login.status, 200, "{login:?}");

    reads("merch_engine_queue_depth", 0.0).await;
    reads("merch_hashing_queue_depth", 0.0).await;
    // The account, then three pens in one transaction: the first waited for its turn, too.
    let metrics = numbers(&client, &shop).await;
    assert_eq!(metrics["merch_engine_batch_size_count"], 2.0);
    assert_eq!(metrics["merch_engine_batch_size_sum"], 4.0);
}

#[tokio::test]
async fn every_family_says_what_it_is() {
    let database = TestDatabase::fresh().await;
    let shop = Process::replica(database.url().as_str()).await;
    let client = Client::new();
    Person::logs_in(&client, &shop.base, "alice", PASSWORD).await;
    let reply = Reply::to(client.get(format!("{}/metrics", shop.base))).await;
    assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let families: Vec<&str> = reply
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .collect();
    assert!(families.len() >= 6, "{families:?}");
    for family in families {
        assert!(reply.text.contains(&format!("# HELP {family} ")), "{family}");
    }
}

/// Every sample of the shop, by its name and labels.
async fn numbers(client: &Client, shop: &Process) -> HashMap<String, f64> {
    let reply = Reply::to(client.get(format!("{}/metrics", shop.base))).await;
    assert_eq!(reply.status, 200);
    let samples = reply.text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    samples
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}
