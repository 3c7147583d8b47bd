//! Writers that take turns, and those of engines without LOCK TABLE, which collide and
//! replay instead.

use futures::future::join_all;
use merch_store::cli::serve::Server;
use merch_store::lifecycle::Lifecycle;

use crate::support::proxy::{Fault, Proxy, Stage};
use crate::support::shop::{Bank, config};
use crate::support::{TestDatabase, TestShop};

use super::{HeldUp, LONG};

const CLIENTS: usize = 8;
const ORDERS_EACH: usize = 15;

/// "Feature not supported" and "syntax error".
const NO_LOCK_TABLE: [&str; 2] = ["0A000", "42601"];

#[tokio::test]
async fn an_engine_without_lock_table_is_written_to_without_turns() {
    for sqlstate in NO_LOCK_TABLE {
        let (shop, proxy) = TestShop::behind_proxy(|_| {}).await;
        proxy.inject(Stage::Begin, Fault::Raise(sqlstate));
        let alice = shop.logs_in("alice").await;
        proxy.has_injected_everything();

        // It does not ask for a turn any more, so it is not held up either.
        let turn = HeldUp::writers_of(&shop.database).await;
        alice.buys("cup").await.is_done();
        turn.release().await;

        // Conflicts are replayed from BEGIN all the same.
        proxy.inject(Stage::Write, Fault::Raise("40001"));
        proxy.inject(Stage::Commit, Fault::Raise("40001"));
        alice.buys("cup").await.is_done();
        proxy.has_injected_everything();
        assert_eq!((alice.coins().await, alice.owns("cup").await), (960, 2), "{sqlstate}");
        shop.is_honest().await;
    }
}

#[tokio::test]
async fn a_turn_is_given_back_when_the_connection_that_had_it_breaks() {
    let (shop, proxy) = TestShop::behind_proxy(|_| {}).await;
    let alice = shop.logs_in("alice").await;
    // The server has locked the table when the writer loses it.
    proxy.inject(Stage::Begin, Fault::CutAfter);
    alice.buys("cup").await.is_done();
    proxy.has_injected_everything();
    assert_eq!(alice.owns("cup").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_shops_that_cannot_take_turns_both_make_progress() {
    let database = TestDatabase::fresh().await;
    let people = Bank::open(&database, CLIENTS + 1, 1_000_000).await;
    let hot = people[CLIENTS].name.as_str();
    let mut shops = Vec::new();
    for _ in 0..2 {
        let proxy = Proxy::start(database.url()).await;
        proxy.inject(Stage::Begin, Fault::Raise("0A000"));
        let mut config = config(database.url_through(proxy.port()).as_str());
        // That a batch may lose ten times in a row is not what is tested here.
        config.engine.max_attempts = 1000.try_into().unwrap();
        config.engine.replay_deadline = LONG;
        config.http.request_timeout = LONG;
        let server = Server::start(&config, Lifecycle::default()).await.unwrap();
        let base = format!("http://{}", server.address());
        tokio::spawn(server.wait());
        shops.push((base, proxy));
    }

    // Everybody uses both shops at once, and pays the same person.
    let clients = people[..CLIENTS].iter().flat_map(|person| {
        shops.iter().map(|(base, _)| {
            let person = person.at(base);
            async move {
                for _ in 0..ORDERS_EACH {
                    person.sends(hot, 3).await.is_done();
                    person.buys("pen").await.is_done();
                }
            }
        })
    });
    join_all(clients).await;

    for (_, proxy) in &shops {
        proxy.has_injected_everything();
    }
    let orders = i64::try_from(CLIENTS * 2 * ORDERS_EACH).unwrap();
    let hot = people[CLIENTS].at(&shops[0].0);
    assert_eq!(hot.coins().await, 1_000_000 + 3 * orders);
    let pens = "SELECT sum(quantity)::int8 FROM inventory";
    assert_eq!(database.number(pens).await, orders);
    // The one that opened the accounts wrote a single batch.
    let writers = "SELECT count(*) FROM writers WHERE batch > 1";
    assert_eq!(database.number(writers).await, 2, "both shops wrote");
    let audit = merch_store::storage::Audit::run(&database.options()).await.unwrap();
    assert_eq!(audit.lies, []);
}
