//! A command that the database will not have: it fails alone.

use futures::future::join_all;
use merch_store::storage::Audit;

use crate::support::person::Reply;
use crate::support::shop::{Bank, SECRET};
use crate::support::{Process, TestDatabase, TestShop, eventually};

use super::HeldUp;

const ORDERS: usize = 20;
const UNLUCKY: i64 = 13;

/// A constraint that the ledger knows nothing of.
const POISON: &str = "ALTER TABLE history ADD CONSTRAINT poison CHECK (amount <> 13)";

#[tokio::test]
async fn a_poisoned_command_fails_alone_and_its_neighbours_do_not_notice() {
    for poisoned in [&[0][..], &[7], &[ORDERS - 1], &[3, 4, 15]] {
        let database = TestDatabase::fresh().await;
        database.execute(POISON).await;
        let people = Bank::open(&database, ORDERS + 2, 1000).await;
        // A process of its own, so that its metrics tell of nobody else's queue.
        let url = database.url().as_str();
        let settings = [
            ("MERCH__DATABASE__URL", url),
            ("MERCH__DATABASE__STATEMENT_TIMEOUT_MS", "60000"),
            ("MERCH__HTTP__REQUEST_TIMEOUT_MS", "60000"),
            ("MERCH__AUTH__JWT_SECRET", SECRET),
            ("MERCH__LOG__LEVEL", "off"),
        ];
        let shop = Process::serve(&[], &settings).await;
        let people: Vec<_> = people.iter().map(|person| person.at(&shop.base)).collect();
        let [first, recipient] = [&people[ORDERS], &people[ORDERS + 1]];

        let mut held_up = HeldUp::writers_of(&database).await;
        let letting_go = async {
            held_up.is_waited_for().await;
            let orders = join_all((0..ORDERS).map(|number| {
                let amount = if poisoned.contains(&number) { UNLUCKY } else { 20 };
                people[number].sends_once(&recipient.name, amount, "once")
            }));
            let releasing = async {
                let queued = format!("merch_engine_queue_depth {ORDERS}\n");
                eventually("all orders are on the queue", async || {
                    people[0].gets("/metrics").await.text.contains(&queued)
                })
                .await;
                held_up.release().await;
            };
            tokio::join!(orders, releasing).0
        };
        let (first, replies) = tokio::join!(first.buys("pen"), letting_go);

        first.is_done();
        for (number, reply) in replies.iter().enumerate() {
            if poisoned.contains(&number) {
                is_a_failure_without_details(reply);
            } else {
                reply.is_done();
            }
        }
        let neighbours = i64::try_from(ORDERS - poisoned.len()).unwrap();
        assert_eq!(recipient.coins().await, 1000 + 20 * neighbours);
        let audit = Audit::run(&database.options()).await.unwrap();
        assert_eq!(audit.lies, [], "{poisoned:?}");

        // A failure is not remembered: the same request may succeed another day.
        database.execute("ALTER TABLE history DROP CONSTRAINT poison").await;
        for number in poisoned {
            let again = people[*number].sends_once(&recipient.name, UNLUCKY, "once").await;
            again.is_done();
            assert_eq!(again.header("idempotency-replayed"), None);
        }
    }
}

fn is_a_failure_without_details(reply: &Reply) {
    reply.is_error(500, "internal");
    let said = reply.text.to_lowercase();
    for word in ["poison", "constraint", "history", "violat", "sql", "database", "check"] {
        assert!(!said.contains(word), "{reply:?}");
    }
}

#[tokio::test]
async fn a_constraint_that_says_no_where_the_ledger_said_yes_is_a_refusal_by_its_name() {
    let shop = TestShop::open().await;
    let alice = shop.logs_in("alice").await;
    shop.logs_in("bob").await;
    shop.database
        .execute(
            "ALTER TABLE balance DROP CONSTRAINT balance_coins_not_negative;
             ALTER TABLE balance ADD CONSTRAINT balance_coins_not_negative CHECK (coins >= 800)",
        )
        .await;
    alice.buys("hoody").await.is_error(400, "insufficient_coins");
    alice.sends("bob", 201).await.is_error(400, "insufficient_coins");
    alice.sends("bob", 200).await.is_done();
    assert_eq!(alice.coins().await, 800);
    shop.is_honest().await;
}
