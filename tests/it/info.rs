//! `GET /api/info`: what somebody has, owns, got and gave.

use futures::future::join_all;
use serde_json::{Value, json};

use crate::support::{Person, TestShop};

#[tokio::test]
async fn a_newcomer_has_coins_and_empty_lists() {
    let shop = TestShop::open().await;
    let nothing = json!({
        "coins": 1000,
        "inventory": [],
        "coinHistory": {"received": [], "sent": []},
    });
    assert_eq!(shop.logs_in("alice").await.info().await, nothing);
}

#[tokio::test]
async fn it_shows_what_was_bought_got_and_given() {
    let shop = TestShop::open().await;
    let (alice, bob) = (shop.logs_in("alice").await, shop.logs_in("bob").await);
    for item in ["pen", "cup", "pen", "t-shirt"] {
        alice.buys(item).await.is_done();
    }
    alice.sends("bob", 7).await.is_done();
    bob.sends("alice", 9).await.is_done();
    bob.sends("alice", 8).await.is_done();
    alice.buys("pink-hoody").await.is_done();
    // Refused, so it must leave nothing behind, not even a quantity of 0.
    alice.buys("pink-hoody").await.is_error(400, "insufficient_coins");
    alice.buys("hoody").await.is_done();
    alice.buys("powerbank").await.is_error(400, "insufficient_coins");

    let mut info = alice.info().await;
    let inventory = info["inventory"].as_array_mut().unwrap();
    inventory.sort_by_key(|entry| entry["type"].to_string());
    assert_eq!(
        info,
        json!({
            "coins": 90,
            "inventory": [
                {"type": "cup", "quantity": 1},
                {"type": "hoody", "quantity": 1},
                {"type": "pen", "quantity": 2},
                {"type": "pink-hoody", "quantity": 1},
                {"type": "t-shirt", "quantity": 1},
            ],
            "coinHistory": {
                "received": [{"fromUser": "bob", "amount": 8}, {"fromUser": "bob", "amount": 9}],
                "sent": [{"toUser": "bob", "amount": 7}],
            },
        })
    );
    shop.is_honest().await;
}

#[tokio::test]
async fn the_database_holds_no_inventory_of_zero_to_be_shown() {
    let shop = TestShop::open().await;
    shop.logs_in("alice").await.buys("cup").await.is_done();
    let mut connection = shop.database.connect().await;
    let emptied = sqlx::query("UPDATE inventory SET quantity = 0").execute(&mut connection).await;
    let error = emptied.unwrap_err().into_database_error().unwrap();
    assert_eq!(error.constraint(), Some("inventory_quantity_positive"));
}

#[tokio::test]
async fn history_is_the_newest_hundred_each_way() {
    let shop = TestShop::open().await;
    let (alice, bob) = (shop.logs_in("alice").await, shop.logs_in("bob").await);
    // A pattern that shows where it was cut.
    let amounts: Vec<i64> = (0..103).map(|number| 1 + number % 7).collect();
    for amount in &amounts {
        alice.sends("bob", *amount).await.is_done();
    }
    bob.sends("alice", 50).await.is_done();

    let newest: Vec<i64> = amounts.iter().rev().take(100).copied().collect();
    let (alice, bob) = (alice.info().await, bob.info().await);
    assert_eq!(amounts_of(&alice, "sent"), newest);
    assert_eq!(amounts_of(&bob, "received"), newest);
    assert_eq!(amounts_of(&alice, "received"), [50]);
    assert_eq!(amounts_of(&bob, "sent"), [50]);
}

#[tokio::test]
async fn the_length_of_the_history_is_a_setting() {
    let shop = TestShop::with(|config| config.info.history_limit = 2).await;
    let (alice, bob) = (shop.logs_in("alice").await, shop.logs_in("bob").await);
    for amount in [1, 2, 3] {
        alice.sends("bob", amount).await.is_done();
    }
    assert_eq!(amounts_of(&alice.info().await, "sent"), [3, 2]);
    assert_eq!(amounts_of(&bob.info().await, "received"), [3, 2]);
}

#[tokio::test]
async fn it_is_one_snapshot_while_coins_move() {
    let shop = TestShop::open().await;
    let (alice, bob) = (shop.logs_in("alice").await, shop.logs_in("bob").await);
    let moving = async {
        for amount in 1..=20 {
            let (there, back, bought) =
                tokio::join!(alice.sends("bob", amount), bob.sends("alice", 1), bob.buys("pen"));
            there.is_done();
            back.is_done();
            bought.is_done();
        }
    };
    let looking = async {
        for _ in 0..30 {
            for person in [&alice, &bob] {
                adds_up(&person.info().await);
            }
        }
    };
    tokio::join!(moving, looking);
    adds_up(&bob.info().await);
    assert_eq!(bob.owns("pen").await, 20);
}

#[tokio::test]
async fn everybody_sees_their_own() {
    let shop = TestShop::open().await;
    let people = join_all(["alice", "bob", "carol"].map(|name| shop.logs_in(name))).await;
    let [alice, bob, carol]: [Person; 3] = people.try_into().ok().unwrap();
    alice.sends("bob", 10).await.is_done();
    bob.sends("carol", 20).await.is_done();
    bob.buys("book").await.is_done();

    let held = join_all([&alice, &bob, &carol].map(Person::coins)).await;
    assert_eq!(held, [990, 940, 1020]);
    assert_eq!((alice.owns("book").await, bob.owns("book").await), (0, 1));
    let history = carol.info().await["coinHistory"].take();
    assert_eq!(history, json!({"received": [{"fromUser": "bob", "amount": 20}], "sent": []}));
}

fn amounts_of(info: &Value, way: &str) -> Vec<i64> {
    let entries = info["coinHistory"][way].as_array().unwrap();
    entries.iter().map(|entry| entry["amount"].as_i64().unwrap()).collect()
}

/// The coins are those of the start plus the history minus the pens.
#[track_caller]
fn adds_up(info: &Value) {
    let sum = |way| amounts_of(info, way).iter().sum::<i64>();
    let pens = info["inventory"][0]["quantity"].as_i64().unwrap_or(0);
    assert_eq!(info["coins"], 1000 + sum("received") - sum("sent") - 10 * pens, "{info}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_replica_gives_an_answer_older_than_an_acknowledged_change_on_another() {
    let shop = TestShop::open().await;
    let replicas = [shop.base.clone(), shop.replica(|_| {}).await];
    join_all((0..4).map(async |pair| {
        let giver = shop.logs_in(&format!("giver {pair}")).await;
        let taker = shop.logs_in(&format!("taker {pair}")).await;
        let at = |person: &Person| replicas.clone().map(|base| person.at(&base));
        let (giver, taker) = (at(&giver), at(&taker));
        for round in 1..=25 {
            giver[round % 2].sends(&taker[0].name, 1).await.is_done();
            if round % 5 == 0 {
                taker[0].buys("pen").await.is_done();
            }
            let pens = i64::try_from(round / 5).unwrap();
            let moved = i64::try_from(round).unwrap();
            // Asked twice: the second time there is an answer to remember.
            for _ in 0..2 {
                let infos = join_all(taker.iter().chain(&giver).map(Person::info)).await;
                for info in &infos[..2] {
                    assert_eq!(info["coins"], 1000 + moved - 10 * pens);
                    assert_eq!(info["coinHistory"]["received"].as_array().unwrap().len(), round);
                }
                for info in &infos[2..] {
                    assert_eq!(info["coins"], 1000 - moved);
                    assert_eq!(info["coinHistory"]["sent"].as_array().unwrap().len(), round);
                }
            }
        }
    }))
    .await;
}

#[tokio::test]
async fn what_does_not_fit_is_not_remembered_and_the_answers_are_the_same() {
    let shop = TestShop::with(|config| config.info.cache_bytes = 0).await;
    let alice = shop.logs_in("alice").await;
    for held in [990, 980] {
        alice.buys("pen").await.is_done();
        assert_eq!(alice.coins().await, held);
        assert_eq!(alice.coins().await, held);
    }
}
