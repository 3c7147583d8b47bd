//! `Idempotency-Key`: a request that is sent again is carried out once.

use futures::future::join_all;
use reqwest::Method;
use reqwest::header::HeaderValue;
use serde_json::json;

use crate::support::proxy::{Fault, Stage};
use crate::support::{Reply, TestShop, eventually};

const REPLAYED: &str = "idempotency-replayed";

#[tokio::test]
async fn a_request_that_is_sent_again_gets_the_first_answer_and_costs_nothing() {
    let shop = TestShop::open().await;
    let (alice, bob) = (shop.logs_in("alice").await, shop.logs_in("bob").await);
    for replayed in [None, Some("true"), Some("true")] {
        let bought = alice.buys_once("cup", "a cup for the desk").await;
        let sent = alice.sends_once("bob", 100, "thanks").await;
        for reply in [bought, sent] {
            assert_eq!(reply.header(REPLAYED), replayed, "{reply:?}");
            reply.is_done();
        }
    }
    assert_eq!((alice.coins().await, alice.owns("cup").await), (880, 1));
    assert_eq!(bob.coins().await, 1100);
    shop.is_honest().await;
}

#[tokio::test]
async fn a_request_that_is_sent_many_times_at_once_is_carried_out_once() {
    let shop = TestShop::open().await;
    let alice = shop.logs_in("alice").await;
    let replies = join_all((0..20).map(|_| alice.buys_once("cup", "one cup"))).await;
    replies.iter().for_each(Reply::is_done);
    let first = replies.iter().filter(|reply| reply.header(REPLAYED).is_none());
    assert_eq!(first.count(), 1);
    assert_eq!((alice.coins().await, alice.owns("cup").await), (980, 1));
    shop.is_honest().await;
}

#[tokio::test]
async fn a_key_stands_for_one_request_only() {
    let shop = TestShop::open().await;
    let (alice, _bob) = (shop.logs_in("alice").await, shop.logs_in("bob").await);
    alice.sends_once("bob", 10, "key").await.is_done();
    let replies = [
        alice.sends_once("bob", 11, "key").await,
        alice.sends_once("carol", 10, "key").await,
        alice.sends_once("bob", 0, "key").await,
        alice.buys_once("cup", "key").await,
        alice.buys_once("mug", "key").await,
    ];
    for reply in replies {
        assert_eq!(reply.header(REPLAYED), None);
        reply.is_error(422, "idempotency_key_reused");
    }
    // The refusal did not take the key's first answer away.
    assert_eq!(alice.sends_once("bob", 10, "key").await.header(REPLAYED), Some("true"));
    assert_eq!(alice.coins().await, 990);
}

#[tokio::test]
async fn the_same_request_may_be_spelled_differently() {
    let shop = TestShop::open().await;
    let (alice, bob) = (shop.logs_in("alice").await, shop.logs_in("bob").await);
    let bodies =
        [r#"{"toUser":"bob","amount":10}"#, r#" { "amount" : 10 , "toUser" : "\u0062ob" } "#];
    for (body, replayed) in bodies.into_iter().zip([None, Some("true")]) {
        let request = alice.request(Method::POST, "/api/sendCoin").header("Idempotency-Key", "a");
        let reply = Reply::to(request.body(body)).await;
        assert_eq!(reply.header(REPLAYED), replayed, "{body}");
        reply.is_done();
    }
    for (method, replayed) in [(Method::GET, None), (Method::POST, Some("true"))] {
        let request = alice.request(method, "/api/buy/cup").header("Idempotency-Key", "b");
        let reply = Reply::to(request).await;
        assert_eq!(reply.header(REPLAYED), replayed);
        reply.is_done();
    }
    assert_eq!((alice.coins().await, bob.coins().await), (970, 1010));
}

#[tokio::test]
async fn everybody_has_keys_of_their_own() {
    let shop = TestShop::open().await;
    let (alice, bob) = (shop.logs_in("alice").await, shop.logs_in("bob").await);
    for person in [&alice, &bob] {
        let reply = person.buys_once("cup", "key").await;
        assert_eq!(reply.header(REPLAYED), None);
        reply.is_done();
        assert_eq!(person.owns("cup").await, 1);
    }
}

#[tokio::test]
async fn a_refusal_is_remembered_like_a_success() {
    let shop = TestShop::open().await;
    let (alice, bob) = (shop.logs_in("alice").await, shop.logs_in("bob").await);
    for replayed in [None, Some("true")] {
        let refusals = [
            (alice.sends_once("bob", 2000, "much").await, "insufficient_coins"),
            (alice.sends_once("carol", 1, "whom").await, "unknown_recipient"),
            (alice.sends_once("alice", 1, "self").await, "self_transfer"),
            (alice.sends_once("bob", 0, "zero").await, "invalid_amount"),
            (alice.buys_once("mug", "mug").await, "unknown_item"),
            (alice.buys_once("t_shirt", "shirt").await, "unknown_item"),
            (
                Reply::to(
                    alice
                        .request(Method::POST, "/api/sendCoin")
                        .header("Idempotency-Key", "body")
                        .body("{}"),
                )
                .await,
                "invalid_request",
            ),
        ];
        for (reply, code) in refusals {
            assert_eq!(reply.header(REPLAYED), replayed, "{code}");
            reply.is_error(400, code);
        }
        // What was refused would be possible now, but the answer was given.
        bob.sends("alice", 500).await.is_done();
        shop.logs_in("carol").await;
    }
    alice.sends_once("carol", 1, "another key").await.is_done();
}

#[tokio::test]
async fn what_the_shop_did_not_decide_is_not_remembered() {
    let (shop, proxy) =
        TestShop::behind_proxy(|config| config.engine.max_attempts = 1.try_into().unwrap()).await;
    let alice = shop.logs_in("alice").await;
    let nobody = shop.request(Method::GET, "/api/buy/cup").header("Idempotency-Key", "key");
    Reply::to(nobody).await.is_error(401, "unauthorized");
    proxy.inject(Stage::Commit, Fault::Raise("40001"));
    alice.buys_once("cup", "key").await.is_error(503, "contention");
    proxy.inject(Stage::Write, Fault::Raise("XX000"));
    alice.buys_once("cup", "key").await.is_error(500, "internal");
    proxy.has_injected_everything();

    let reply = alice.buys_once("cup", "key").await;
    assert_eq!(reply.header(REPLAYED), None);
    reply.is_done();
    assert_eq!((alice.coins().await, alice.owns("cup").await), (980, 1));
    shop.is_honest().await;
}

#[tokio::test]
async fn a_key_is_1_to_255_printable_ascii_characters_given_once() {
    let shop = TestShop::open().await;
    let alice = shop.logs_in("alice").await;
    let (longest, too_long) = ("k".repeat(255), "k".repeat(256));
    for key in ["k", "0b9f-17 {}~", longest.as_str()] {
        alice.buys_once("pen", key).await.is_done();
    }
    for key in [b"".as_slice(), too_long.as_bytes(), b"tab\there", b"\xd0\xba", b"\xff"] {
        for (method, path) in [(Method::GET, "/api/buy/pen"), (Method::POST, "/api/sendCoin")] {
            let key = HeaderValue::from_bytes(key).unwrap();
            let request = alice.request(method, path).header("Idempotency-Key", key);
            let request = request.json(&json!({"toUser": "alice", "amount": 1}));
            Reply::to(request).await.is_error(400, "invalid_request");
        }
    }
    let twice = alice.request(Method::GET, "/api/buy/pen");
    let twice = twice.header("Idempotency-Key", "a").header("Idempotency-Key", "b");
    Reply::to(twice).await.is_error(400, "invalid_request");
    assert_eq!(alice.owns("pen").await, 3);
}

#[tokio::test]
async fn a_key_is_forgotten_after_a_week_and_not_before() {
    let shop = TestShop::open().await;
    let alice = shop.logs_in("alice").await;
    alice.buys_once("pen", "old").await.is_done();
    alice.buys_once("pen", "young").await.is_done();
    for (key, age) in [("old", "7 days 1 minute"), ("young", "6 days 23 hours")] {
        let ages = format!(
            "UPDATE idempotency_keys SET created_at = now() - interval '{age}' WHERE key = '{key}'"
        );
        shop.database.execute(&ages).await;
    }
    // A shop tidies up when it starts.
    shop.replica(|_| {}).await;
    let keys = "SELECT count(*) FROM idempotency_keys";
    eventually("the old key is forgotten", async || shop.database.number(keys).await == 1).await;
    assert_eq!(alice.buys_once("pen", "young").await.header(REPLAYED), Some("true"));
    assert_eq!(alice.buys_once("pen", "old").await.header(REPLAYED), None);
    assert_eq!(alice.owns("pen").await, 3);
}

#[tokio::test]
async fn a_key_that_a_replica_of_the_release_before_used_again_has_no_number_of_another_request() {
    let shop = TestShop::open().await;
    let (alice, _bob) = (shop.logs_in("alice").await, shop.logs_in("bob").await);
    let first = alice.sends_once("bob", 10, "key").await;
    assert_eq!(
        alice.sends_once("bob", 10, "key").await.header("location"),
        first.header("location")
    );
    assert!(first.header("location").is_some());
    // Seven days later, as it writes it: the number is not among what it knows.
    shop.database
        .execute(
            "INSERT INTO idempotency_keys (user_id, key, fingerprint, outcome)
             SELECT user_id, key, fingerprint, outcome FROM idempotency_keys
             ON CONFLICT (user_id, key)
             DO UPDATE SET fingerprint = excluded.fingerprint, outcome = excluded.outcome,
                           created_at = excluded.created_at",
        )
        .await;
    let replayed = alice.sends_once("bob", 10, "key").await;
    replayed.is_done();
    assert_eq!(replayed.header(REPLAYED), Some("true"));
    assert_eq!(replayed.header("location"), None);
}
