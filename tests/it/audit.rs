//! `merch-store audit`: it believes honest books, and no others.

use std::collections::HashMap;
use std::process::Output;

use futures::future::join_all;
use merch_store::storage::Audit;

use crate::support::process::command;
use crate::support::shop::Bank;
use crate::support::{Person, TestDatabase, TestShop};

async fn audit(database: &TestDatabase) -> Output {
    command(&["audit", "--database-url", database.url().as_str()]).output().await.unwrap()
}

/// What it printed, a line at a time, without the padding.
fn lines(output: &Output) -> Vec<String> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

/// user1 has 850 coins, two cups and a pen; user2 has 1100 coins.
async fn some_trade() -> (TestShop, Vec<Person>) {
    let shop = TestShop::open().await;
    let people = Bank::open(&shop.database, 2, 1000).await;
    let people: Vec<Person> = people.iter().map(|person| person.at(&shop.base)).collect();
    people[0].sends("user2", 100).await.is_done();
    for item in ["cup", "pen", "cup"] {
        people[0].buys(item).await.is_done();
    }
    (shop, people)
}

#[tokio::test]
async fn honest_books_are_believed_and_added_up() {
    let (shop, _) = some_trade().await;
    let output = audit(&shop.database).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let lines = lines(&output);
    let totals = [
        "users 2",
        "movements 6",
        "granted 2000 coins",
        "corrected 0 coins",
        "held 1950 coins",
        "spent 50 coins on 3 items",
        "refunded 0 coins",
        "transferred 100 coins",
    ];
    assert_eq!(lines[..8], totals);
    assert!(lines[8].starts_with("the books are honest ("), "{lines:?}");
    assert_eq!(lines.len(), 9, "{lines:?}");
}

#[tokio::test]
async fn a_shop_where_nothing_happened_yet_is_honest() {
    let database = TestDatabase::fresh().await;
    let output = audit(&database).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(lines(&output)[..2], ["users 0", "movements 0"]);
}

#[tokio::test]
async fn every_kind_of_lie_is_found_and_named() {
    for (lie, sql, said) in [
        (
            "a wrong balance",
            "UPDATE balance SET coins = 851 WHERE user_id = 1",
            &[
                "LIE: user 1 (user1) holds 851 coins, but the history says 850",
                "LIE: 2000 coins were granted, but 1951 are held and 50 were spent",
            ][..],
        ),
        (
            "coins that were moved without a trace",
            "UPDATE balance SET coins = coins - 1 WHERE user_id = 1;
             UPDATE balance SET coins = coins + 1 WHERE user_id = 2",
            &[
                "LIE: user 1 (user1) holds 849 coins, but the history says 850",
                "LIE: user 2 (user2) holds 1101 coins, but the history says 1100",
            ],
        ),
        (
            "a missing balance",
            "DELETE FROM balance WHERE user_id = 2",
            &[
                "LIE: user 2 (user2) has no balance, but the history says 1100",
                "LIE: 2000 coins were granted, but 850 are held and 50 were spent",
            ],
        ),
        (
            "another number of items than was bought",
            "UPDATE inventory SET quantity = 3 WHERE item_id = 2",
            &["LIE: user 1 owns 3 of item 2, but bought 2"],
        ),
        (
            "an item without a purchase",
            "INSERT INTO inventory VALUES (2, 5, 1)",
            &["LIE: user 2 owns 1 of item 5, but bought 0"],
        ),
        (
            "a purchase without its item",
            "DELETE FROM inventory WHERE item_id = 4",
            &["LIE: user 1 owns 0 of item 4, but bought 1"],
        ),
        (
            "none of an item, in a row of its own",
            "ALTER TABLE inventory DROP CONSTRAINT inventory_quantity_positive;
             INSERT INTO inventory VALUES (2, 5, 0)",
            &["LIE: inventory of user 2 is 0"],
        ),
        (
            "a transfer removed from the history",
            "DELETE FROM history WHERE from_id = 1 AND to_id = 2",
            &[
                "LIE: user 1 (user1) holds 850 coins, but the history says 950",
                "LIE: user 2 (user2) holds 1100 coins, but the history says 1000",
            ],
        ),
        (
            "a grant removed from the history",
            "DELETE FROM history WHERE from_id IS NULL AND to_id = 2",
            &[
                "LIE: user 2 (user2) holds 1100 coins, but the history says 100",
                "LIE: 1000 coins were granted, but 1950 are held and 50 were spent",
            ],
        ),
        (
            "a purchase removed from the history",
            "DELETE FROM history WHERE item_id = 4",
            &[
                "LIE: user 1 (user1) holds 850 coins, but the history says 860",
                "LIE: user 1 owns 1 of item 4, but bought 0",
                "LIE: 2000 coins were granted, but 1950 are held and 40 were spent",
            ],
        ),
        (
            "a negative balance with a history to it",
            "ALTER TABLE balance DROP CONSTRAINT balance_coins_not_negative;
             INSERT INTO history (from_id, to_id, amount) VALUES (2, 1, 1105);
             UPDATE balance SET coins = CASE user_id WHEN 1 THEN 1955 ELSE -5 END",
            &["LIE: balance of user 2 is -5"],
        ),
        (
            "a negative movement with balances to it",
            "ALTER TABLE history DROP CONSTRAINT history_amount_positive;
             INSERT INTO history (id, from_id, to_id, amount) VALUES (500, 1, 2, -5);
             UPDATE log_head SET id = 500;
             UPDATE balance SET coins = CASE user_id WHEN 1 THEN 855 ELSE 1095 END",
            &["LIE: movement 500 is of -5 coins"],
        ),
        (
            "coins of somebody who does not exist",
            "ALTER TABLE balance DROP CONSTRAINT balance_user_fkey;
             INSERT INTO balance VALUES (77, 500)",
            &[
                "LIE: user 77, who does not exist, holds 500 coins, but the history says 0",
                "LIE: 2000 coins were granted, but 2450 are held and 50 were spent",
            ],
        ),
        (
            "coins minted as a second grant",
            "INSERT INTO history (to_id, amount) VALUES (1, 500);
             UPDATE balance SET coins = coins + 500 WHERE user_id = 1",
            &["LIE: user 1 was granted coins 2 times"],
        ),
        (
            "a number beyond the head",
            "INSERT INTO history (id, from_id, to_id, amount) VALUES (9, 1, 2, 5);
             UPDATE balance SET coins = coins - 5 WHERE user_id = 1;
             UPDATE balance SET coins = coins + 5 WHERE user_id = 2",
            &["LIE: movement 9 is beyond the head of the log, 6"],
        ),
        (
            "a head that was put back",
            "UPDATE log_head SET id = 5",
            &["LIE: movement 6 is beyond the head of the log, 5"],
        ),
        (
            "a number that was given out twice",
            "ALTER TABLE history DROP CONSTRAINT history_pkey;
             UPDATE history SET id = 3 WHERE id = 6",
            &["LIE: number 3 was given out 2 times"],
        ),
        (
            "a number from before the first",
            "INSERT INTO history (id, to_id, amount, actor_id) VALUES (0, 1, 5, 2);
             UPDATE balance SET coins = coins + 5 WHERE user_id = 1",
            &["LIE: movement 0 has a number from before the log"],
        ),
        (
            "a grant by somebody who does not exist",
            "INSERT INTO history (to_id, amount, actor_id) VALUES (1, 500, 77);
             UPDATE balance SET coins = coins + 500 WHERE user_id = 1",
            &["LIE: movement 7 was made by user 77, who does not exist"],
        ),
        (
            "a grant by somebody without its coins",
            "INSERT INTO history (to_id, amount, actor_id) VALUES (1, 500, 2)",
            &[
                "LIE: user 1 (user1) holds 850 coins, but the history says 1350",
                "LIE: 2500 coins were granted, but 1950 are held and 50 were spent",
            ],
        ),
        (
            "an item that there never was, bought and given back",
            "INSERT INTO history (from_id, item_id, amount) VALUES (1, 99, 5);
             INSERT INTO history (to_id, item_id, amount, ref) VALUES (1, 99, 5, 7)",
            &[
                "LIE: movement 7 is about item 99, which does not exist",
                "LIE: movement 8 is about item 99, which does not exist",
            ],
        ),
        ("a log without a head", "DELETE FROM log_head", &["LIE: the log has 0 heads"]),
        (
            "a movement of no kind",
            "ALTER TABLE history DROP CONSTRAINT history_shape;
             INSERT INTO history (amount) VALUES (5)",
            &["LIE: movement 7 is of no kind"],
        ),
        (
            "a correction without its coins",
            "INSERT INTO history (from_id, amount, actor_id) VALUES (1, 50, 2)",
            &[
                "LIE: user 1 (user1) holds 850 coins, but the history says 800",
                "LIE: 2000 coins were granted and 50 taken back, but 1950 are held and 50 were spent",
            ],
        ),
        (
            "a refund without its coins",
            "INSERT INTO history (to_id, item_id, amount, ref)
             SELECT from_id, item_id, amount, id FROM history WHERE item_id = 4;
             DELETE FROM inventory WHERE item_id = 4",
            &[
                "LIE: user 1 (user1) holds 850 coins, but the history says 860",
                "LIE: 2000 coins were granted, but 1950 are held and 50 were spent, 10 of them refunded",
            ],
        ),
        (
            "a refund that left the piece where it was",
            "INSERT INTO history (to_id, item_id, amount, ref)
             SELECT from_id, item_id, amount, id FROM history WHERE item_id = 4;
             UPDATE balance SET coins = coins + 10 WHERE user_id = 1",
            &["LIE: user 1 owns 1 of item 4, but bought 0"],
        ),
        (
            "a refund to another person than the buyer",
            "INSERT INTO history (to_id, item_id, amount, ref)
             SELECT 2, item_id, amount, id FROM history WHERE item_id = 4;
             UPDATE balance SET coins = coins + 10 WHERE user_id = 2",
            &[
                "LIE: refund 7 does not undo movement 5",
                "LIE: user 2 owns 0 of item 4, but bought -1",
            ],
        ),
        (
            "a refund of more than was paid",
            "INSERT INTO history (to_id, item_id, amount, ref)
             SELECT from_id, item_id, 11, id FROM history WHERE item_id = 4;
             UPDATE balance SET coins = coins + 11 WHERE user_id = 1;
             DELETE FROM inventory WHERE item_id = 4",
            &["LIE: refund 7 does not undo movement 5"],
        ),
        (
            "a reversal of what was never sent",
            "INSERT INTO history (from_id, to_id, amount, ref) VALUES (2, 1, 100, 5);
             UPDATE balance SET coins = CASE user_id WHEN 1 THEN 950 ELSE 1000 END",
            &["LIE: reversal 7 does not undo movement 5"],
        ),
        (
            "a transfer that was undone twice",
            "DROP INDEX history_ref_key;
             INSERT INTO history (from_id, to_id, amount, ref)
             SELECT to_id, from_id, amount, id FROM history, generate_series(1, 2)
             WHERE to_id IS NOT NULL AND from_id IS NOT NULL;
             UPDATE balance SET coins = CASE user_id WHEN 1 THEN 1050 ELSE 900 END",
            &["LIE: movement 3 was undone 2 times"],
        ),
    ] {
        let (shop, _) = some_trade().await;
        shop.database.execute(sql).await;
        let output = audit(&shop.database).await;
        let lines = lines(&output);
        assert_eq!(output.status.code(), Some(1), "{lie}: {lines:?}");
        for lie in said {
            assert!(lines.iter().any(|line| line == lie), "{lie}: {lines:?}");
        }
        let told = lines.iter().filter(|line| line.starts_with("LIE: ")).count();
        assert_eq!(told, said.len(), "{lie}: {lines:?}");
        let verdict = lines.last().unwrap();
        let expected = format!("the books lie in {told} places or more (");
        assert!(verdict.starts_with(&expected), "{lie}: {verdict}");
    }
}

#[tokio::test]
async fn a_grant_by_somebody_is_no_second_starting_grant() {
    let (shop, _) = some_trade().await;
    let grant = "INSERT INTO history (to_id, amount, actor_id) VALUES (1, 500, 2);
                 UPDATE balance SET coins = coins + 500 WHERE user_id = 1";
    shop.database.execute(grant).await;
    let output = audit(&shop.database).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(lines(&output)[2], "granted 2500 coins");
}

#[tokio::test]
async fn a_thousand_lies_of_a_kind_are_told_by_ten() {
    let database = TestDatabase::fresh().await;
    Bank::open(&database, 1000, 5).await;
    database.execute("UPDATE balance SET coins = 6").await;
    let audit = Audit::run(&database.options()).await.unwrap();
    assert_eq!(audit.lies.len(), 11, "ten balances and the sum: {:?}", audit.lies);
}

#[tokio::test]
async fn a_shop_in_use_is_audited_without_a_false_alarm() {
    let shop = TestShop::open().await;
    let people = Bank::open(&shop.database, 10, 1_000_000).await;
    let trading = join_all(people.iter().enumerate().map(|(number, person)| {
        let person = person.at(&shop.base);
        let next = people[(number + 1) % people.len()].name.clone();
        async move {
            loop {
                person.sends(&next, 7).await.is_done();
                person.buys("pen").await.is_done();
            }
        }
    }));
    let auditing = async {
        let mut movements = Vec::new();
        // Until so much has happened between audits that they had every chance to be wrong.
        while movements.len() < 3 || movements[movements.len() - 1] < movements[0] + 100 {
            let output = audit(&shop.database).await;
            let lines = lines(&output);
            assert_eq!(output.status.code(), Some(0), "{lines:?}");
            let totals: HashMap<&str, &str> =
                lines.iter().filter_map(|line| line.split_once(' ')).collect();
            movements.push(totals["movements"].parse::<i64>().unwrap());
        }
    };
    tokio::select! {
        _ = trading => unreachable!("trade goes on"),
        () = auditing => {}
    }
}
