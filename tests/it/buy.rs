//! `GET /api/buy/{item}`, and POST.

use futures::future::join_all;
use reqwest::Method;
use serde_json::json;

use crate::support::{Reply, TestShop};

#[tokio::test]
async fn every_item_is_had_for_its_price() {
    let shop = TestShop::open().await;
    let (alice, bob) = (shop.logs_in("alice").await, shop.logs_in("bob").await);
    bob.sends("alice", 420).await.is_done();
    let mut coins = 1420;
    for (item, price) in [
        ("t-shirt", 80),
        ("cup", 20),
        ("book", 50),
        ("pen", 10),
        ("powerbank", 200),
        ("hoody", 300),
        ("umbrella", 200),
        ("socks", 10),
        ("wallet", 50),
        ("pink-hoody", 500),
    ] {
        alice.buys(item).await.is_done();
        coins -= price;
        assert_eq!((alice.coins().await, alice.owns(item).await), (coins, 1), "{item}");
    }
    assert_eq!(coins, 0);
    shop.is_honest().await;
}

#[tokio::test]
async fn get_and_post_buy_the_same_and_neither_may_be_cached() {
    let shop = TestShop::open().await;
    let alice = shop.logs_in("alice").await;
    for (bought, method) in [(1, Method::GET), (2, Method::POST)] {
        let reply = Reply::to(alice.request(method, "/api/buy/cup")).await;
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        reply.is_done();
        assert_eq!(alice.owns("cup").await, bought);
    }
    assert_eq!(alice.coins().await, 960);
}

#[tokio::test]
async fn what_is_not_on_sale_cannot_be_bought() {
    let shop = TestShop::open().await;
    let alice = shop.logs_in("alice").await;
    let too_long = "x".repeat(65);
    for item in [
        "mug",
        "t_shirt",
        "pink_hoody",
        "T-shirt",
        "t-shirt-",
        "cup%20",
        "%20cup",
        "cup%00",
        "%00",
        "%FF",
        "cup%2F",
        "%D0%BA%D1%80%D1%83%D0%B6%D0%BA%D0%B0",
        "%27%20OR%201=1--",
        "2",
        &too_long,
    ] {
        for method in [Method::GET, Method::POST] {
            let reply = Reply::to(alice.request(method, &format!("/api/buy/{item}"))).await;
            assert_eq!(reply.status, 400, "{item}");
            reply.is_error(400, "unknown_item");
        }
    }
    assert_eq!(alice.coins().await, 1000);
    assert_eq!(alice.info().await["inventory"], json!([]));
}

#[tokio::test]
async fn what_one_cannot_pay_one_does_not_get() {
    let shop = TestShop::open().await;
    let alice = shop.logs_in("alice").await;
    alice.buys("pink-hoody").await.is_done();
    alice.buys("hoody").await.is_done();
    alice.buys("hoody").await.is_error(400, "insufficient_coins");
    alice.buys("umbrella").await.is_done();
    alice.buys("pen").await.is_error(400, "insufficient_coins");
    assert_eq!((alice.coins().await, alice.owns("hoody").await), (0, 1));
    assert_eq!(alice.owns("pen").await, 0);
    shop.is_honest().await;
}

#[tokio::test]
async fn looking_with_head_costs_nothing() {
    let shop = TestShop::open().await;
    let alice = shop.logs_in("alice").await;
    let reply = Reply::to(alice.request(Method::HEAD, "/api/buy/cup")).await;
    assert_eq!((reply.status.as_u16(), reply.text.as_str()), (405, ""));
    assert_eq!(reply.header("allow"), Some("GET,POST"));
    assert_eq!((alice.coins().await, alice.owns("cup").await), (1000, 0));
}

#[tokio::test]
async fn coins_pay_once_however_many_ask_at_once() {
    let shop = TestShop::open().await;
    let alice = shop.logs_in("alice").await;
    let replies = join_all((0..20).map(|_| alice.buys("hoody"))).await;
    let (done, refused): (Vec<_>, Vec<_>) =
        replies.into_iter().partition(|reply| reply.status == 200);
    assert_eq!(done.len(), 3);
    refused.iter().for_each(|reply| reply.is_error(400, "insufficient_coins"));
    assert_eq!((alice.coins().await, alice.owns("hoody").await), (100, 3));
    shop.is_honest().await;
}
