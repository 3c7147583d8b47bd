//! What every route answers when it cannot do what it was asked: a status, a code, and no
//! words of a database's.

use std::time::Duration;

use futures::future::{Either, select};
use reqwest::Method;

use crate::support::proxy::{Fault, Stage};
use crate::support::raw;
use crate::support::{Reply, TestShop};

/// Longer than a test holds a lock, however busy the machine is.
const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_path_that_does_not_exist_is_not_found() {
    let shop = TestShop::open().await;
    let alice = shop.logs_in("alice").await;
    for path in [
        "/",
        "/api",
        "/api/",
        "/api/buy",
        "/api/buy/",
        "/api/buy/cup/cup",
        "/api/Info",
        "/api/info//",
        "/api//info",
        "/api/sendcoin",
        "/health",
        "/%00",
        "/%FF",
    ] {
        for method in [Method::GET, Method::POST] {
            let reply = Reply::to(alice.request(method.clone(), path)).await;
            assert_eq!(reply.status, 404, "{method} {path}");
            reply.is_error(404, "not_found");
        }
    }
    // A path that is none at all.
    let request = "OPTIONS * HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n";
    let answer = raw::answer(shop.address, request).await;
    assert_eq!(raw::status(&answer), 404, "{answer}");
    // Whatever serves the page has errors of its own, which nobody should see.
    shop.gets("/docs/no-such-file").await.is_error(404, "not_found");
    assert_eq!(alice.coins().await, 1000);
}

#[tokio::test]
async fn a_method_that_a_path_does_not_know_is_refused_with_those_it_does() {
    let shop = TestShop::open().await;
    let alice = shop.logs_in("alice").await;
    for (path, known) in [
        ("/api/auth", "POST"),
        ("/api/sendCoin", "POST"),
        ("/api/info", "GET,HEAD"),
        ("/api/buy/cup", "GET,POST"),
        ("/api/merch", "GET,HEAD"),
        ("/api/history", "GET,HEAD"),
        ("/api/history/summary", "GET,HEAD"),
        ("/api/openapi.json", "GET,HEAD"),
        ("/health/live", "GET,HEAD"),
        ("/health/ready", "GET,HEAD"),
        ("/metrics", "GET,HEAD"),
        ("/docs/", "GET,HEAD"),
    ] {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"] {
            if known.contains(method) {
                continue;
            }
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let reply = Reply::to(alice.request(method.clone(), path)).await;
            assert_eq!(reply.header("allow"), Some(known), "{method} {path}");
            reply.is_error(405, "method_not_allowed");
        }
    }
    assert_eq!(alice.coins().await, 1000);
}

#[tokio::test]
async fn json_is_json_whatever_its_content_type() {
    let shop = TestShop::open().await;
    let (alice, bob) = (shop.logs_in("alice").await, shop.logs_in("bob").await);
    let types = [
        None,
        Some("application/json"),
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("image/png"),
        Some("no type at all"),
    ];
    for content_type in types {
        let send = |body: &'static str| {
            let mut request = alice.request(Method::POST, "/api/sendCoin");
            if let Some(content_type) = content_type {
                request = request.header("Content-Type", content_type);
            }
            Reply::to(request.body(body))
        };
        send(r#"{"toUser": "bob", "amount": 1, "note": "thanks"}"#).await.is_done();
        send("toUser=bob&amount=1").await.is_error(400, "invalid_request");
        send(r#"{"toUser": "bob", "amount": 1"#).await.is_error(400, "invalid_request");
    }
    assert_eq!(bob.coins().await, 1000 + types.len() as i64);
}

#[tokio::test]
async fn a_body_over_the_limit_is_too_large() {
    let shop = TestShop::with(|config| config.http.body_limit = 200).await;
    let alice = shop.logs_in("alice").await;
    for path in ["/api/auth", "/api/sendCoin"] {
        let post = |length: usize| {
            let body = format!("{:length$}", r#"{"toUser": "bob", "amount": 1}"#);
            Reply::to(alice.request(Method::POST, path).body(body))
        };
        // One byte less is merely not what was expected.
        assert_eq!(post(200).await.status, 400, "{path}");
        post(201).await.is_error(413, "body_too_large");
    }
    // A body that does not say how long it is.
    let head = "POST /api/auth HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    let body = format!("c9\r\n{}\r\n0\r\n\r\n", " ".repeat(201));
    let answer = raw::answer(shop.address, format!("{head}{body}")).await;
    assert_eq!(raw::status(&answer), 413, "{answer}");
    assert!(answer.contains(r#""code":"body_too_large""#), "{answer}");
}

#[tokio::test]
async fn a_full_hashing_queue_sends_logins_away_at_once() {
    let shop = TestShop::with(|config| {
        config.auth.hash_threads = 1;
        config.auth.hash_queue = 0;
        config.database.statement_timeout = LONG;
    });
    let shop = shop.await;
    let alice = shop.logs_in("alice").await;
    // Whoever has the only place looks for a user while nobody may.
    let lock = shop.database.lock("users").await;
    let bob = shop.authenticates("bob", "correct horse");
    let refused = async {
        shop.database.has_waiting(1).await;
        shop.authenticates("carol", "correct horse").await
    };
    let (bob, refused) = match select(Box::pin(bob), Box::pin(refused)).await {
        Either::Right((refused, bob)) => {
            drop(lock);
            (bob.await, refused)
        }
        Either::Left((bob, _)) => panic!("{bob:?}"),
    };
    assert_eq!(refused.header("retry-after"), Some("1"));
    refused.is_error(503, "hashing_queue_full");
    assert_eq!(bob.status, 200, "{bob:?}");
    assert_eq!(alice.coins().await, 1000);
}

#[tokio::test]
async fn a_full_queue_sends_orders_away_at_once() {
    let shop = TestShop::with(|config| {
        config.engine.queue_capacity = 1.try_into().unwrap();
        config.database.statement_timeout = LONG;
    });
    let shop = shop.await;
    let alice = shop.logs_in("alice").await;
    let lock = shop.database.lock("writer_turn").await;
    // One is being carried out, one waits, one is too many.
    let first = alice.buys("pen");
    let rest = async {
        shop.database.has_waiting(1).await;
        match select(Box::pin(alice.buys("pen")), Box::pin(alice.buys("pen"))).await {
            Either::Left((refused, waiting)) | Either::Right((refused, waiting)) => {
                drop(lock);
                (refused, waiting.await)
            }
        }
    };
    let (first, (refused, waiting)) = tokio::join!(first, rest);
    assert_eq!(refused.header("retry-after"), Some("1"));
    refused.is_error(503, "queue_full");
    first.is_done();
    waiting.is_done();
    assert_eq!((alice.coins().await, alice.owns("pen").await), (980, 2));
    shop.is_honest().await;
}

#[tokio::test]
async fn what_goes_wrong_in_the_database_is_not_the_clients_fault_nor_its_business() {
    let (shop, proxy) =
        TestShop::behind_proxy(|config| config.engine.max_attempts = 2.try_into().unwrap()).await;
    let (alice, bob) = (shop.logs_in("alice").await, shop.logs_in("bob").await);
    for (stage, sqlstate, times, status, code) in [
        // It kept losing against other transactions.
        (Stage::Commit, "40001", 2, 503, "contention"),
        (Stage::Write, "40P01", 2, 503, "contention"),
        // Out of memory, a disk full, an internal error, a table that is gone.
        (Stage::Write, "53100", 2, 503, "database_away"),
        (Stage::Write, "XX000", 1, 500, "internal"),
        (Stage::Fetch, "42P01", 1, 500, "internal"),
        // A COMMIT that failed is no success.
        (Stage::Commit, "XX000", 1, 500, "internal"),
        (Stage::Commit, "23514", 1, 500, "internal"),
    ] {
        for _ in 0..times {
            proxy.inject(stage, Fault::Raise(sqlstate));
        }
        let reply = alice.sends("bob", 10).await;
        proxy.has_injected_everything();
        assert_eq!(reply.header("retry-after").is_some(), status == 503, "{sqlstate}");
        for word in ["injected", sqlstate, "SQL", "sqlx", "Postgres", "transaction"] {
            assert!(!reply.text.contains(word), "{reply:?}");
        }
        reply.is_error(status, code);
        shop.is_ready().await;
    }
    assert_eq!((alice.coins().await, bob.coins().await), (1000, 1000));
    alice.sends("bob", 10).await.is_done();
    shop.is_honest().await;
}
