//! What the history refers to exists and stays, though no row of it is checked by itself.

use std::time::Duration;

use merch_store::shop::ledger::{Changes, Destination, Entry};
use merch_store::shop::{AccountId, Amount, Coins, LogNumber};
use merch_store::storage::{Attempt, Database, ReplayLimits, StorageError, Transaction, Writer};
use sqlx::{AssertSqlSafe, Connection};
use uuid::Uuid;

use crate::support::shop::Bank;
use crate::support::{TestDatabase, TestShop};

const LIMITS: ReplayLimits = ReplayLimits {
    max_attempts: 2,
    replay_deadline: Duration::from_secs(60),
    outcome_deadline: Duration::from_secs(60),
};

fn write<'a>(transaction: &'a mut Transaction<'_>, changes: &'a Changes) -> Attempt<'a, ()> {
    Box::pin(transaction.ledger_write(changes))
}

#[tokio::test]
async fn a_batch_that_names_somebody_without_a_balance_is_not_written() {
    let database = TestDatabase::fresh().await;
    Bank::open(&database, 2, 100).await;
    let stranger = AccountId(3);
    for (from, to) in [(AccountId(1), stranger), (stranger, AccountId(2))] {
        let changes = Changes {
            head: (LogNumber(2), LogNumber(3)),
            balances: [from, to].map(|account| (account, Coins::new(50).unwrap())).into(),
            entries: vec![Entry {
                number: LogNumber(3),
                from,
                to: Destination::Account(to),
                amount: Amount::new(50).unwrap(),
            }],
            ..Changes::default()
        };
        let mut writer = Writer::new(&Database::new(database.options()), Uuid::new_v4());
        let written = writer.run("test", LIMITS, &changes, write).await;
        assert!(matches!(written, Err(StorageError::Unexpected(_))), "{written:?}");
    }
    assert_eq!(database.number("SELECT count(*) FROM history WHERE from_id IS NOT NULL").await, 0);
    assert_eq!(database.number("SELECT count(*) FROM balance WHERE coins <> 100").await, 0);
    assert_eq!(database.number("SELECT id FROM log_head").await, 2);
}

#[tokio::test]
async fn a_batch_that_was_read_before_another_one_wrote_is_not_written() {
    let database = TestDatabase::fresh().await;
    Bank::open(&database, 2, 100).await;
    for head in [0, 1, 3, 100] {
        let changes = Changes {
            head: (LogNumber(head), LogNumber(head + 1)),
            balances: [(AccountId(1), Coins::new(50).unwrap())].into(),
            ..Changes::default()
        };
        let mut writer = Writer::new(&Database::new(database.options()), Uuid::new_v4());
        let written = writer.run("test", LIMITS, &changes, write).await;
        assert!(matches!(written, Err(StorageError::Conflict { .. })), "{head}: {written:?}");
    }
    assert_eq!(database.number("SELECT coins FROM balance WHERE user_id = 1").await, 100);
}

#[tokio::test]
async fn people_and_items_of_the_history_are_neither_removed_nor_renamed() {
    let shop = TestShop::open().await;
    let (alice, bob) = (shop.logs_in("alice").await, shop.logs_in("bob").await);
    alice.sends(&bob.name, 5).await.is_done();
    alice.buys("cup").await.is_done();
    let everything = "DELETE FROM inventory; DELETE FROM balance; DELETE FROM idempotency_keys";
    for sql in [
        "DELETE FROM users WHERE username = 'bob'",
        "UPDATE users SET id = id + 10 WHERE username = 'bob'",
        "UPDATE users SET username = 'rob' WHERE username = 'bob'",
        "TRUNCATE users CASCADE",
        "DELETE FROM merch WHERE name = 'cup'",
        "UPDATE merch SET id = id + 100 WHERE name = 'cup'",
        "UPDATE merch SET name = 'mug' WHERE name = 'cup'",
        "TRUNCATE merch CASCADE",
    ] {
        let mut connection = shop.database.connect().await;
        let sql = format!("{everything}; {sql}");
        let refused = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await;
        let code = refused.unwrap_err().into_database_error().unwrap().code().unwrap().into_owned();
        assert_eq!(code, "23001", "restrict_violation");
        connection.close().await.unwrap();
    }
    shop.database.execute("UPDATE merch SET price = 21 WHERE name = 'cup'").await;
    shop.database.execute("UPDATE users SET password_hash = '' WHERE username = 'bob'").await;
}
