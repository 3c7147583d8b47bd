//! `POST /api/sendCoin`.

use futures::future::join_all;
use reqwest::Method;
use serde_json::json;

use crate::support::{Reply, TestShop};

#[tokio::test]
async fn coins_go_from_one_to_the_other_and_both_see_it() {
    let shop = TestShop::open().await;
    let (alice, bob) = (shop.logs_in("alice").await, shop.logs_in("bob").await);

    alice.sends("bob", 300).await.is_done();
    alice.sends("bob", 1).await.is_done();

    assert_eq!(
        alice.info().await,
        json!({
            "coins": 699,
            "inventory": [],
            "coinHistory": {
                "received": [],
                "sent": [{"toUser": "bob", "amount": 1}, {"toUser": "bob", "amount": 300}],
            },
        })
    );
    assert_eq!(bob.coins().await, 1301);
    shop.is_honest().await;
}

#[tokio::test]
async fn the_last_coin_can_be_sent_and_no_more() {
    let shop = TestShop::open().await;
    let (alice, bob) = (shop.logs_in("alice").await, shop.logs_in("bob").await);
    alice.sends("bob", 1001).await.is_error(400, "insufficient_coins");
    alice.sends("bob", 1000).await.is_done();
    alice.sends("bob", 1).await.is_error(400, "insufficient_coins");
    assert_eq!((alice.coins().await, bob.coins().await), (0, 2000));
    shop.is_honest().await;
}

#[tokio::test]
async fn an_amount_is_a_whole_number_of_coins_that_one_has() {
    let shop = TestShop::open().await;
    let (alice, bob) = (shop.logs_in("alice").await, shop.logs_in("bob").await);
    for (amount, code) in [
        ("0", "invalid_amount"),
        ("-1", "invalid_amount"),
        ("-9223372036854775808", "invalid_amount"),
        // 2^31, 2^32 - 100, 2^32 + 1, 2^63 - 1: what wraps elsewhere is merely too much.
        ("2147483648", "insufficient_coins"),
        ("4294967196", "insufficient_coins"),
        ("4294967297", "insufficient_coins"),
        ("9223372036854775807", "insufficient_coins"),
        // 2^63, 2^64 - 1, 2^64 + 1, -2^63 - 1.
        ("9223372036854775808", "invalid_request"),
        ("18446744073709551615", "invalid_request"),
        ("18446744073709551617", "invalid_request"),
        ("-9223372036854775809", "invalid_request"),
        ("1.5", "invalid_request"),
        ("100.0", "invalid_request"),
        ("1e2", "invalid_request"),
        ("1e30", "invalid_request"),
        ("1e999", "invalid_request"),
        ("NaN", "invalid_request"),
        ("010", "invalid_request"),
        ("\"10\"", "invalid_request"),
        ("null", "invalid_request"),
        ("true", "invalid_request"),
        ("[10]", "invalid_request"),
    ] {
        let body = format!(r#"{{"toUser": "bob", "amount": {amount}}}"#);
        let reply = Reply::to(alice.request(Method::POST, "/api/sendCoin").body(body)).await;
        assert_eq!(reply.json()["code"], code, "{amount}");
        reply.is_error(400, code);
    }
    assert_eq!((alice.coins().await, bob.coins().await), (1000, 1000));
    shop.is_honest().await;
}

#[tokio::test]
async fn a_recipient_is_somebody_else_who_exists() {
    let shop = TestShop::open().await;
    let alice = shop.logs_in("alice").await;
    let too_long = "x".repeat(256);
    for (to, code) in [
        ("alice", "self_transfer"),
        ("nobody", "unknown_recipient"),
        ("Alice", "unknown_recipient"),
        ("alice ", "unknown_recipient"),
        ("", "unknown_recipient"),
        ("al\0ice", "unknown_recipient"),
        (&too_long, "unknown_recipient"),
    ] {
        alice.sends(to, 10).await.is_error(400, code);
    }
    // Not even when there is nothing to gain by it.
    alice.sends("alice", 1000).await.is_error(400, "self_transfer");
    assert_eq!(alice.coins().await, 1000);
    shop.is_honest().await;
}

#[tokio::test]
async fn a_body_that_is_not_a_transfer_is_refused() {
    let shop = TestShop::open().await;
    let (alice, bob) = (shop.logs_in("alice").await, shop.logs_in("bob").await);
    for body in [
        "",
        "{",
        "null",
        "10",
        r#"["bob", 10]"#,
        "{}",
        r#"{"toUser": "bob"}"#,
        r#"{"amount": 10}"#,
        r#"{"touser": "bob", "amount": 10}"#,
        r#"{"to_user": "bob", "amount": 10}"#,
        r#"{"toUser": null, "amount": 10}"#,
        r#"{"toUser": 7, "amount": 10}"#,
        r#"{"toUser": "bob", "amount": 10, "amount": 20}"#,
        r#"{"toUser": "bob", "amount": 10} {}"#,
        r#"{"toUser": "\ud800", "amount": 10}"#,
    ] {
        let reply = Reply::to(alice.request(Method::POST, "/api/sendCoin").body(body)).await;
        assert_eq!(reply.status, 400, "{body}");
        reply.is_error(400, "invalid_request");
    }
    assert_eq!((alice.coins().await, bob.coins().await), (1000, 1000));
}

#[tokio::test]
async fn nobody_is_given_more_than_can_be_counted() {
    let shop = TestShop::open().await;
    let (alice, bob) = (shop.logs_in("alice").await, shop.logs_in("bob").await);
    let rich = "UPDATE balance SET coins = 9223372036854775807 - 10 WHERE user_id = \
                (SELECT id FROM users WHERE username = 'bob')";
    shop.database.execute(rich).await;
    alice.sends("bob", 11).await.is_error(400, "recipient_full");
    alice.sends("bob", 10).await.is_done();
    assert_eq!((alice.coins().await, bob.coins().await), (990, i64::MAX));
}

#[tokio::test]
async fn coins_sent_both_ways_at_once_neither_deadlock_nor_get_lost() {
    let shop = TestShop::open().await;
    let (alice, bob) = (shop.logs_in("alice").await, shop.logs_in("bob").await);
    let there = join_all((0..50).map(|_| alice.sends("bob", 3)));
    let back = join_all((0..50).map(|_| bob.sends("alice", 2)));
    let (there, back) = tokio::join!(there, back);
    there.iter().chain(&back).for_each(Reply::is_done);
    assert_eq!((alice.coins().await, bob.coins().await), (950, 1050));
    shop.is_honest().await;
}

#[tokio::test]
async fn coins_are_not_spent_twice_by_asking_twice_at_once() {
    let shop = TestShop::open().await;
    let (alice, bob) = (shop.logs_in("alice").await, shop.logs_in("bob").await);
    let replies = join_all((0..20).map(|_| alice.sends("bob", 300))).await;
    let (done, refused): (Vec<_>, Vec<_>) =
        replies.into_iter().partition(|reply| reply.status == 200);
    assert_eq!(done.len(), 3);
    refused.iter().for_each(|reply| reply.is_error(400, "insufficient_coins"));
    assert_eq!((alice.coins().await, bob.coins().await), (100, 1900));
    shop.is_honest().await;
}
