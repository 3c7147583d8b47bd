//! `GET /api/history` and its summary: every movement of somebody's coins.

use merch_store::storage::Audit;
use serde_json::{Value, json};

use crate::support::{Person, TestShop};

#[tokio::test]
async fn every_movement_is_there_newest_first() {
    let shop = TestShop::open().await;
    let (alice, bob) = (shop.logs_in("alice").await, shop.logs_in("bob").await);
    alice.sends("bob", 30).await.is_done();
    bob.sends("alice", 40).await.is_done();
    alice.buys("cup").await.is_done();
    alice.buys("pink-hoody").await.is_done();
    alice.buys("pink-hoody").await.is_error(400, "insufficient_coins");

    let page = alice.gets("/api/history").await.json();
    assert_eq!(page["nextCursor"], Value::Null);
    let mut movements = page["movements"].as_array().unwrap().clone();
    let times: Vec<String> = movements
        .iter_mut()
        .map(|movement| {
            movement.as_object_mut().unwrap().remove("at").unwrap().as_str().unwrap().to_owned()
        })
        .collect();
    assert!(times.iter().all(|at| at.starts_with("20") && at.ends_with('Z')), "{times:?}");
    assert_eq!(
        movements,
        [
            // Bob's grant is number 2.
            json!({"id": 6, "type": "purchase", "item": "pink-hoody", "amount": 500, "ref": null}),
            json!({"id": 5, "type": "purchase", "item": "cup", "amount": 20, "ref": null}),
            json!({"id": 4, "type": "received", "fromUser": "bob", "amount": 40, "ref": null}),
            json!({"id": 3, "type": "sent", "toUser": "bob", "amount": 30, "ref": null}),
            json!({"id": 1, "type": "grant", "amount": 1000, "ref": null}),
        ]
    );
}

#[tokio::test]
async fn pages_follow_each_other_through_all_of_it_and_nothing_else() {
    let shop = TestShop::open().await;
    let (alice, bob) = (shop.logs_in("alice").await, shop.logs_in("bob").await);
    for amount in 1..=6 {
        alice.sends("bob", amount).await.is_done();
        bob.sends("alice", 10 * amount).await.is_done();
        bob.buys("socks").await.is_done();
        alice.buys("pen").await.is_done();
    }
    let all = alice.gets("/api/history?limit=100").await.json();
    let all = all["movements"].as_array().unwrap().clone();
    assert_eq!(all.len(), 19);
    assert_eq!(all.iter().map(effect).sum::<i64>(), alice.coins().await);

    for limit in [1, 4, 18, 19, 20] {
        let (pages, movements) = turns_pages(&alice, limit).await;
        assert_eq!(movements, all, "{limit} a page");
        assert_eq!(pages, 19_usize.div_ceil(limit), "{limit} a page");
    }
}

#[tokio::test]
async fn a_page_has_50_movements_unless_one_asks_for_up_to_100() {
    let shop = TestShop::open().await;
    let alice = shop.logs_in("alice").await;
    for _ in 0..100 {
        alice.buys("pen").await.is_done();
    }
    for (query, expected) in [
        ("", 50),
        ("?", 50),
        ("?limit=1", 1),
        ("?limit=100", 100),
        ("?limit=%35", 5),
        ("?limit=007", 7),
        ("?&&limit=3&", 3),
        // What clients send beside is theirs.
        ("?page=2&limit=2&_=%FF&limits=x", 2),
        ("?a=b?c", 50),
    ] {
        let page = alice.gets(&format!("/api/history{query}")).await.json();
        assert_eq!(page["movements"].as_array().unwrap().len(), expected, "{query}");
        assert!(page["nextCursor"].is_string(), "{query}");
    }
}

#[tokio::test]
async fn a_cursor_keeps_its_place_while_coins_move() {
    let shop = TestShop::open().await;
    let alice = shop.logs_in("alice").await;
    for item in ["pen", "cup", "book"] {
        alice.buys(item).await.is_done();
    }
    let first = alice.gets("/api/history?limit=2").await.json();
    alice.buys("wallet").await.is_done();
    let cursor = first["nextCursor"].as_str().unwrap();
    let second = alice.gets(&format!("/api/history?limit=2&cursor={cursor}")).await.json();
    let items = |page: &Value| -> Vec<Value> {
        page["movements"].as_array().unwrap().iter().map(|it| it["item"].clone()).collect()
    };
    assert_eq!(items(&first), ["book", "cup"]);
    assert_eq!(items(&second), [json!("pen"), Value::Null]);
    assert_eq!(second["nextCursor"], Value::Null);
}

#[tokio::test]
async fn somebody_elses_cursor_opens_only_ones_own_history() {
    let shop = TestShop::open().await;
    let (alice, bob) = (shop.logs_in("alice").await, shop.logs_in("bob").await);
    bob.buys("pen").await.is_done();
    bob.buys("cup").await.is_done();
    let cursor = bob.gets("/api/history?limit=1").await.json()["nextCursor"].take();
    let path = format!("/api/history?cursor={}", cursor.as_str().unwrap());
    let movements = alice.gets(&path).await.json()["movements"].take();
    let kinds: Vec<&Value> = movements.as_array().unwrap().iter().map(|it| &it["type"]).collect();
    assert_eq!(kinds, ["grant"]);
}

#[tokio::test]
async fn a_bad_limit_or_cursor_is_refused() {
    let shop = TestShop::open().await;
    let alice = shop.logs_in("alice").await;
    for query in [
        "limit=0",
        "limit=101",
        "limit=-1",
        "limit=65537",
        "limit=ten",
        "limit=1.5",
        "limit=",
        "limit",
        "limit=+5",
        "limit=%2B5",
        "limit=%205",
        "limit=5%20",
        "limit=%00",
        "limit=5%00",
        "limit=0x5",
        "limit=5e1",
        "limit=%EF%BC%95",
        "limit=99999999999999999999",
        "limit=%zz",
        "limit=%",
        "limit=5?",
        "limit[]=5&limit=x",
        "cursor=a&cursor=a",
        "cursor=%",
        "cursor=%zz",
        "limit=1&limit=2",
        "cursor=7",
        "cursor=AAAA",
        "cursor=not%20base64!",
        "cursor=AAAAAAAAAAAAAAAAAAAA",
        "cursor=%FF",
        "limit=ten&cursor=AAAA",
    ] {
        let reply = alice.gets(&format!("/api/history?{query}")).await;
        assert_eq!(reply.status, 400, "{query}");
        reply.is_error(400, "invalid_request");
    }
}

#[tokio::test]
async fn an_empty_cursor_is_the_first_page() {
    let shop = TestShop::open().await;
    let alice = shop.logs_in("alice").await;
    shop.logs_in("bob").await;
    alice.sends("bob", 1).await.is_done();
    let first = alice.gets("/api/history?limit=1").await.json();
    for query in ["cursor=&limit=1", "limit=1&cursor=", "limit=1&cursor"] {
        let reply = alice.gets(&format!("/api/history?{query}")).await;
        assert_eq!(reply.json(), first, "{query}");
    }
}

#[tokio::test]
async fn the_summary_adds_up_transfers_by_counterparty() {
    let shop = TestShop::open().await;
    let alice = shop.logs_in("alice").await;
    let nothing = json!({"received": [], "sent": []});
    assert_eq!(alice.gets("/api/history/summary").await.json(), nothing);

    let (bob, carol) = (shop.logs_in("bob").await, shop.logs_in("carol").await);
    for amount in [1, 2, 3] {
        alice.sends("bob", amount).await.is_done();
    }
    alice.sends("carol", 5).await.is_done();
    carol.sends("alice", 7).await.is_done();
    alice.buys("cup").await.is_done();

    let summaries = [
        (
            &alice,
            json!({
                "received": [{"fromUser": "carol", "amount": 7, "transfers": 1}],
                "sent": [
                    {"toUser": "bob", "amount": 6, "transfers": 3},
                    {"toUser": "carol", "amount": 5, "transfers": 1},
                ],
            }),
        ),
        (
            &bob,
            json!({
                "received": [{"fromUser": "alice", "amount": 6, "transfers": 3}],
                "sent": [],
            }),
        ),
    ];
    for (person, summary) in summaries {
        let reply = person.gets("/api/history/summary").await;
        assert_eq!((reply.status.as_u16(), reply.json()), (200, summary), "{}", person.name);
    }
}

/// Follows the cursors to the end: how many pages there were, and what was on them.
async fn turns_pages(person: &Person, limit: usize) -> (usize, Vec<Value>) {
    let mut movements = Vec::new();
    let mut path = format!("/api/history?limit={limit}");
    for page in 1..100 {
        let mut body = person.gets(&path).await.json();
        movements.append(body["movements"].as_array_mut().unwrap());
        match body["nextCursor"].as_str() {
            Some(cursor) => path = format!("/api/history?limit={limit}&cursor={cursor}"),
            None => return (page, movements),
        }
    }
    panic!("the pages do not end");
}

/// What a movement does to a balance.
fn effect(movement: &Value) -> i64 {
    let amount = movement["amount"].as_i64().unwrap();
    match movement["type"].as_str().unwrap() {
        "grant" | "received" => amount,
        _ => -amount,
    }
}

#[tokio::test]
async fn a_movement_has_an_address_which_both_sides_can_look_at_and_others_cannot() {
    let shop = TestShop::open().await;
    let (alice, bob) = (shop.logs_in("alice").await, shop.logs_in("bob").await);
    let carol = shop.logs_in("carol").await;
    let sent = alice.sends_once("bob", 30, "thanks").await;
    let bought = alice.buys("cup").await;
    let [sent_to, bought_at] = [&sent, &bought].map(|reply| reply.header("location").unwrap());
    let replayed = alice.sends_once("bob", 30, "thanks").await;
    assert_eq!(replayed.header("location"), Some(sent_to));

    for (person, path, expected) in [
        (
            &alice,
            sent_to,
            json!({"id": 4, "type": "sent", "toUser": "bob", "amount": 30, "ref": null}),
        ),
        (
            &bob,
            sent_to,
            json!({"id": 4, "type": "received", "fromUser": "alice", "amount": 30, "ref": null}),
        ),
        (
            &alice,
            bought_at,
            json!({"id": 5, "type": "purchase", "item": "cup", "amount": 20, "ref": null}),
        ),
        (&carol, "/api/history/3", json!({"id": 3, "type": "grant", "amount": 1000, "ref": null})),
    ] {
        let mut movement = person.gets(path).await.json();
        let at = movement.as_object_mut().unwrap().remove("at");
        assert!(at.is_some_and(|at| at.is_string()));
        assert_eq!(movement, expected, "{path} of {}", person.name);
    }
    for (person, path) in [
        (&carol, sent_to),
        (&bob, bought_at),
        (&bob, "/api/history/1"),
        (&alice, "/api/history/0"),
        (&alice, "/api/history/-1"),
        (&alice, "/api/history/6"),
        (&alice, "/api/history/9223372036854775807"),
        (&alice, "/api/history/9223372036854775808"),
        (&alice, "/api/history/four"),
        (&alice, "/api/history/4.0"),
        (&alice, "/api/history/+4"),
        (&alice, "/api/history/%2B4"),
        (&alice, "/api/history/04"),
        (&alice, "/api/history/-0"),
        (&alice, "/api/history/%FF"),
    ] {
        person.gets(path).await.is_error(404, "not_found");
    }
    assert_eq!(shop.gets("/api/history/1").await.status, 401);
}

/// Movements that no request makes yet, as a company's administration will make them.
const BY_HAND: &str = "
    INSERT INTO history (to_id, amount, actor_id) VALUES (1, 7, 3);
    INSERT INTO history (from_id, amount, actor_id) VALUES (1, 5, 3);
    INSERT INTO history (from_id, to_id, amount, ref, actor_id)
    SELECT to_id, from_id, amount, id, 3 FROM history WHERE amount = 30;
    INSERT INTO history (to_id, item_id, amount, ref, actor_id)
    SELECT from_id, item_id, amount, id, 3 FROM history WHERE amount = 20;
    DELETE FROM inventory;
    UPDATE balance SET coins = 1002, version = version + 1 WHERE user_id = 1;
    UPDATE balance SET coins = 1000, version = version + 1 WHERE user_id = 2";

#[tokio::test]
async fn coins_that_were_moved_by_hand_are_shown_for_what_they_are() {
    let shop = TestShop::open().await;
    let (alice, bob) = (shop.logs_in("alice").await, shop.logs_in("bob").await);
    shop.logs_in("carol").await;
    alice.sends("bob", 30).await.is_done();
    alice.buys("cup").await.is_done();
    shop.database.execute(BY_HAND).await;

    let kinds = |page: Value| -> Vec<Value> {
        let mut movements = page["movements"].as_array().unwrap().clone();
        for movement in &mut movements {
            movement.as_object_mut().unwrap().remove("at");
        }
        movements
    };
    let refund = json!({"id": 9, "type": "refund", "item": "cup", "amount": 20, "ref": 5});
    let back = json!({"id": 8, "type": "reversal", "fromUser": "bob", "amount": 30, "ref": 4});
    let correction = json!({"id": 7, "type": "correction", "amount": 5, "ref": null});
    let grant = json!({"id": 6, "type": "grant", "amount": 7, "ref": null});
    let hers = kinds(alice.gets("/api/history").await.json());
    assert_eq!(hers[..4], [refund.clone(), back, correction, grant]);
    let his = kinds(bob.gets("/api/history").await.json());
    assert_eq!(
        his[0],
        json!({"id": 8, "type": "reversal", "toUser": "alice", "amount": 30, "ref": 4})
    );
    let mut alone = alice.gets("/api/history/9").await.json();
    alone.as_object_mut().unwrap().remove("at");
    assert_eq!(alone, refund);
    // Page by page, too: each kind is in the index that its question reads.
    let mut paged = Vec::new();
    let mut path = "/api/history?limit=1".to_owned();
    loop {
        let page = alice.gets(&path).await.json();
        let next = page["nextCursor"].as_str().map(str::to_owned);
        paged.extend(kinds(page));
        match next {
            Some(cursor) => path = format!("/api/history?limit=1&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(paged, hers);

    let info = alice.info().await;
    assert_eq!(info["coins"], 1002);
    assert_eq!(info["inventory"], json!([]));
    let (received, sent) = (&info["coinHistory"]["received"], &info["coinHistory"]["sent"]);
    assert_eq!(*received, json!([{"fromUser": "bob", "amount": 30}]));
    assert_eq!(*sent, json!([{"toUser": "bob", "amount": 30}]));
    let summary = alice.gets("/api/history/summary").await.json();
    let total = |side: &str| json!([{side: "bob", "amount": 30, "transfers": 1}]);
    assert_eq!(summary, json!({"received": total("fromUser"), "sent": total("toUser")}));

    let audit = Audit::run(&shop.database.options()).await.unwrap();
    assert_eq!(audit.lies, []);
    let totals = audit.totals;
    assert_eq!((totals.granted, totals.corrected, totals.refunded), (3007, 5, 20));
    assert_eq!((totals.held, totals.spent, totals.transferred, totals.items), (3002, 20, 60, 0));
}

#[tokio::test]
async fn a_purchase_of_what_is_in_no_catalogue_is_still_a_purchase() {
    let shop = TestShop::open().await;
    let alice = shop.logs_in("alice").await;
    shop.database.execute("INSERT INTO history (from_id, item_id, amount) VALUES (1, 99, 5)").await;
    let movement = alice.gets("/api/history?limit=1").await.json()["movements"][0].take();
    assert_eq!((&movement["type"], &movement["item"]), (&json!("purchase"), &json!("")));
}
