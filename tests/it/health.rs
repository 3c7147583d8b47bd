//! `GET /health/live` and `/health/ready`.

use std::time::Duration;

use serde_json::json;

use crate::support::{TestShop, eventually};

#[tokio::test]
async fn a_shop_that_serves_is_alive_and_ready() {
    let shop = TestShop::open().await;
    for path in ["/health/live", "/health/ready"] {
        let reply = shop.gets(path).await;
        assert_eq!((reply.status.as_u16(), reply.json()), (200, json!({"status": "ok"})));
    }
}

#[tokio::test]
async fn a_shop_that_is_about_to_stop_is_alive_and_not_ready_and_still_serves() {
    let shop = TestShop::with(|config| config.shutdown.grace = Duration::from_secs(60)).await;
    let alice = shop.logs_in("alice").await;
    shop.lifecycle.end();

    let reply = shop.gets("/health/ready").await;
    assert_eq!(reply.header("retry-after"), Some("1"));
    // Whoever is connected should look for another server.
    assert_eq!(reply.header("connection"), Some("close"));
    reply.is_error(503, "shutting_down");
    assert_eq!(shop.gets("/health/live").await.status, 200);
    alice.buys("cup").await.is_done();
    assert_eq!(alice.owns("cup").await, 1);
}

#[tokio::test]
async fn a_shop_without_its_database_is_alive_and_not_ready_until_it_is_back() {
    let (shop, proxy) = TestShop::behind_proxy(|_| {}).await;
    let alice = shop.logs_in("alice").await;
    let ready = async || shop.gets("/health/ready").await.status == 200;
    assert!(ready().await);

    proxy.goes_away();
    // Nobody orders anything: the heartbeat has to notice.
    eventually("the shop notices", async || !ready().await).await;
    let reply = shop.gets("/health/ready").await;
    assert_eq!(reply.header("retry-after"), Some("1"));
    reply.is_error(503, "database_away");
    assert_eq!(shop.gets("/health/live").await.status, 200);
    for reply in [
        alice.gets("/api/info").await,
        alice.gets("/api/history").await,
        alice.gets("/api/merch").await,
        alice.buys("cup").await,
        alice.sends("bob", 1).await,
        shop.authenticates("alice", "correct horse").await,
    ] {
        assert_eq!(reply.header("retry-after"), Some("1"));
        reply.is_error(503, "database_away");
    }

    proxy.comes_back();
    eventually("the shop is ready again", ready).await;
    alice.buys("cup").await.is_done();
    assert_eq!((alice.coins().await, alice.owns("cup").await), (980, 1));
    shop.is_honest().await;
}

/// As a full disk answers whoever needs room on it.
const FULL: &str = "
    CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100';
    END $$;
    CREATE TRIGGER full_disk BEFORE INSERT ON history EXECUTE FUNCTION full_disk();
    CREATE TRIGGER full_disk BEFORE INSERT ON writers EXECUTE FUNCTION full_disk();";

#[tokio::test]
async fn a_shop_whose_database_has_no_room_reads_on_and_is_not_ready_until_there_is() {
    let shop = TestShop::open().await;
    let alice = shop.logs_in("alice").await;
    let ready = async || shop.gets("/health/ready").await.status == 200;
    shop.database.execute(FULL).await;
    // An idle shop cannot know yet.
    assert!(ready().await);
    alice.buys("cup").await.is_error(503, "database_away");

    eventually("readers are let through", async || alice.gets("/api/info").await.status == 200)
        .await;
    shop.gets("/health/ready").await.is_error(503, "database_away");
    assert_eq!(shop.gets("/health/live").await.status, 200);
    alice.buys("cup").await.is_error(503, "database_away");
    assert_eq!(alice.owns("cup").await, 0);

    shop.database.execute("DROP FUNCTION full_disk CASCADE").await;
    // Nobody orders anything: it finds out by itself.
    eventually("the shop is ready again", ready).await;
    alice.buys("cup").await.is_done();
    assert_eq!((alice.coins().await, alice.owns("cup").await), (980, 1));
    shop.is_honest().await;
}
