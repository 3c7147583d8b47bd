//! The queue and the writer: what happens while the writer is held up, what a batch is, and
//! that one command that cannot be written does not take its neighbours down.

mod batches;
mod poison;
mod turns;

use std::time::Duration;

use futures::future::{Either, join_all, select};
use sqlx::{Connection, PgConnection};

use crate::support::shop::Bank;
use crate::support::{TestDatabase, TestShop, eventually};

/// Longer than any test takes: nothing here is to end because time ran out.
const LONG: Duration = Duration::from_secs(60);

/// It is nobody's turn to write, until this is released.
struct HeldUp {
    turn: PgConnection,
}

impl HeldUp {
    async fn writers_of(database: &TestDatabase) -> HeldUp {
        let mut turn = database.connect().await;
        let take = "BEGIN; LOCK TABLE writer_turn IN EXCLUSIVE MODE";
        sqlx::raw_sql(take).execute(&mut turn).await.unwrap();
        HeldUp { turn }
    }

    /// Waits until a writer has a batch and waits for its turn.
    async fn is_waited_for(&mut self) {
        let waiting = "SELECT count(*) FROM pg_locks
                       WHERE relation = 'writer_turn'::regclass AND NOT granted";
        eventually("a writer waits for its turn", async || {
            sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut self.turn).await.unwrap() > 0
        })
        .await;
    }

    async fn release(mut self) {
        sqlx::raw_sql("COMMIT").execute(&mut self.turn).await.unwrap();
        self.turn.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_says_when_to_come_back() {
    let shop = TestShop::with(|config| {
        config.engine.queue_capacity = 1.try_into().unwrap();
        config.database.statement_timeout = LONG;
        config.http.request_timeout = LONG;
    })
    .await;
    let people = Bank::open(&shop.database, 3, 100).await;
    let mut people: Vec<_> = people.iter().map(|person| person.at(&shop.base)).collect();
    let mut held_up = HeldUp::writers_of(&shop.database).await;

    // The writer takes the first order; there is room for one of the other two.
    let first = people.remove(0);
    let first = tokio::spawn(async move { first.buys("cup").await });
    held_up.is_waited_for().await;
    let [one, other] = [&people[0], &people[1]].map(|person| Box::pin(person.buys("cup")));
    // Only a refusal can come while nobody may write.
    let (refused, waiting) = match select(one, other).await {
        Either::Left(ended) | Either::Right(ended) => ended,
    };
    refused.is_error(503, "queue_full");
    assert_eq!(refused.header("retry-after"), Some("1"));

    held_up.release().await;
    first.await.unwrap().is_done();
    waiting.await.is_done();
    let coins = join_all(people.iter().map(|person| person.coins())).await;
    assert_eq!(coins.iter().sum::<i64>(), 180, "the one who was refused paid nothing: {coins:?}");
    shop.is_honest().await;
}
