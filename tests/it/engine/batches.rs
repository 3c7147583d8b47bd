//! What queues up while the writer is busy becomes one transaction.

use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, join_all};
use futures::poll;
use merch_store::engine::{self, Engine, EngineError, EngineOptions, Party, TEAM_PLACES};
use merch_store::shop::ledger::{Action, Answer, Command, Order, Receipt, Refusal};
use merch_store::shop::{
    AccountId, Amount, BooksId, Fingerprint, IdempotencyKey, ItemName, LogNumber, Owner, Username,
};
use merch_store::storage::{Audit, Database, DatabaseOptions, ReplayLimits, Writer};
use uuid::Uuid;

use crate::support::TestDatabase;
use crate::support::proxy::{Fault, Proxy, Stage};
use crate::support::shop::Bank;

use super::{HeldUp, LONG};

/// The answer to what became row `number` of the log.
fn done(number: i64) -> Result<Answer, EngineError> {
    let result = Ok(Receipt::Done(Some(LogNumber(number))));
    Ok(Answer { result, replayed: false })
}

fn options() -> EngineOptions {
    EngineOptions {
        queue_capacity: 100,
        max_batch: 100,
        replay: ReplayLimits { max_attempts: 10, replay_deadline: LONG, outcome_deadline: LONG },
    }
}

/// An engine without a shop around it, its writer a task of the test's.
fn start(database: &TestDatabase, options: EngineOptions) -> Engine {
    let mut connection = database.options();
    connection.statement_timeout = LONG;
    let database = Database::new(connection);
    let writer = Writer::new(&database, Uuid::new_v4());
    let (engine, writing) = engine::start(database, writer, options);
    tokio::spawn(writing);
    engine
}

/// The people of a bank, known by their numbers.
#[derive(Clone, Copy)]
struct People(BooksId);

impl People {
    async fn of(database: &TestDatabase) -> People {
        People(Database::new(database.options()).books_fetch().await.unwrap().id)
    }

    fn order(self, by: i64, action: Action) -> Command {
        let username = Username::parse(&format!("user{by}")).unwrap();
        let by = Owner { account: AccountId(by), username, books: self.0 };
        Command::Order(Order { by, action: Ok(action), key: None })
    }

    fn buys(self, by: i64, item: &str) -> Command {
        self.order(by, Action::Purchase { item: ItemName::parse(item).unwrap() })
    }

    fn sends(self, by: i64, to: i64, amount: i64) -> Command {
        let to = Username::parse(&format!("user{to}")).unwrap();
        self.order(by, Action::Transfer { to, amount: Amount::new(amount).unwrap() })
    }
}

/// Puts `commands` on the queue in their order; their answers are still to come.
async fn queue(
    engine: &Engine,
    commands: impl IntoIterator<Item = Command>,
) -> Vec<BoxFuture<'_, Result<Answer, EngineError>>> {
    let mut answers = Vec::new();
    for command in commands {
        let mut answer = engine.submit(Party::Employee, command).boxed();
        assert!(poll!(&mut answer).is_pending(), "the writer is held up");
        answers.push(answer);
    }
    answers
}

#[tokio::test]
async fn what_queues_up_while_the_writer_is_busy_becomes_one_transaction() {
    // The first one too: it is still waiting for its turn.
    for (max_batch, transactions) in [(100, 1), (51, 1), (50, 2), (20, 3), (1, 51)] {
        let database = TestDatabase::fresh().await;
        Bank::open(&database, 51, 1000).await;
        let people = People::of(&database).await;
        let engine = start(&database, EngineOptions { max_batch, ..options() });
        let mut held_up = HeldUp::writers_of(&database).await;
        let first = queue(&engine, [people.buys(51, "pen")]).await;
        held_up.is_waited_for().await;
        let rest = queue(&engine, (1..=50).map(|by| people.buys(by, "cup"))).await;
        held_up.release().await;

        // After the 51 starting grants.
        assert_eq!(join_all(first).await, [done(52)]);
        assert_eq!(join_all(rest).await, (53..=102).map(done).collect::<Vec<_>>());
        let written = "SELECT count(DISTINCT xmin::text) FROM history WHERE item_id IS NOT NULL";
        assert_eq!(database.number(written).await, transactions, "max_batch {max_batch}");
        let audit = Audit::run(&database.options()).await.unwrap();
        assert_eq!((audit.lies, audit.totals.items), (vec![], 51));
    }
}

#[tokio::test]
async fn a_batch_is_carried_out_in_the_order_in_which_it_queued_up() {
    let database = TestDatabase::fresh().await;
    Bank::open(&database, 4, 10).await;
    let people = People::of(&database).await;
    let engine = start(&database, options());
    let mut held_up = HeldUp::writers_of(&database).await;
    let first = queue(&engine, [people.buys(4, "pen")]).await;
    held_up.is_waited_for().await;
    // Coins that pass through two pairs of hands before they are spent.
    let chain = [
        people.sends(3, 1, 20),
        people.sends(1, 2, 10),
        people.sends(2, 3, 20),
        people.sends(3, 1, 30),
        people.buys(1, "cup"),
    ];
    let rest = queue(&engine, chain).await;
    held_up.release().await;

    assert_eq!(join_all(first).await, [done(5)]);
    let too_few = Ok(Answer { result: Err(Refusal::InsufficientCoins), replayed: false });
    assert_eq!(join_all(rest).await, [too_few, done(6), done(7), done(8), done(9)]);
    let written = "SELECT count(DISTINCT xmin::text) FROM history WHERE id > 5";
    assert_eq!(database.number(written).await, 1);
    let audit = Audit::run(&database.options()).await.unwrap();
    assert_eq!((audit.lies, audit.totals.held), (vec![], 10));
}

#[tokio::test]
async fn an_order_whose_client_gave_up_in_the_queue_is_not_carried_out() {
    let database = TestDatabase::fresh().await;
    Bank::open(&database, 3, 100).await;
    let people = People::of(&database).await;
    let engine = start(&database, options());
    let mut held_up = HeldUp::writers_of(&database).await;
    let first = queue(&engine, [people.buys(1, "pen")]).await;
    held_up.is_waited_for().await;
    let gave_up = queue(&engine, [people.buys(2, "cup")]).await;
    let waited = queue(&engine, [people.buys(3, "cup")]).await;
    drop(gave_up);
    held_up.release().await;

    assert_eq!((join_all(first).await, join_all(waited).await), (vec![done(4)], vec![done(5)]));
    let coins = "SELECT coins FROM balance WHERE user_id = 2";
    assert_eq!(database.number(coins).await, 100);
}

#[tokio::test]
async fn the_writer_finishes_the_queue_before_it_stops() {
    let database = TestDatabase::fresh().await;
    Bank::open(&database, 30, 100).await;
    let people = People::of(&database).await;
    let mut connection = database.options();
    connection.statement_timeout = LONG;
    let pool = Database::new(connection);
    let writer = Writer::new(&pool, Uuid::new_v4());
    let options = EngineOptions { max_batch: 7, ..options() };
    let (engine, writing) = engine::start(pool, writer, options);
    let answers: Vec<_> = (1..=30)
        .map(|by| {
            let engine = engine.clone();
            tokio::spawn(
                async move { engine.submit(Party::Employee, people.buys(by, "pen")).await },
            )
        })
        .collect();
    drop(engine);
    writing.await;
    let mut numbers = Vec::new();
    for answer in answers {
        match answer.await.unwrap() {
            Ok(Answer { result: Ok(Receipt::Done(Some(number))), .. }) => numbers.push(number.0),
            other => panic!("{other:?}"),
        }
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (31..=60).collect::<Vec<_>>());
    assert_eq!(database.number("SELECT sum(quantity)::int8 FROM inventory").await, 30);
}

#[tokio::test]
async fn a_batch_ends_at_a_weight_of_rows_whatever_commands_they_are_of() {
    // Twenty purchases of one row, ten with a key of two, five sign-ups of three: 55 rows, of
    // which the last command has three.
    for (max_batch, transactions) in [(53, 1), (52, 2), (20, 3), (1, 35)] {
        let database = TestDatabase::fresh().await;
        Bank::open(&database, 30, 1000).await;
        let people = People::of(&database).await;
        let engine = start(&database, EngineOptions { max_batch, ..options() });
        let mut held_up = HeldUp::writers_of(&database).await;
        let first = queue(&engine, [people.buys(1, "pen")]).await;
        held_up.is_waited_for().await;
        let keyed = (21..=30).map(|by| match people.buys(by, "pen") {
            Command::Order(order) => {
                let key = IdempotencyKey::parse(b"once").unwrap();
                Command::Order(Order { key: Some((key, Fingerprint([0; 32]))), ..order })
            }
            other => other,
        });
        let newcomers = (1..=5).map(|number| Command::OpenAccount {
            username: Username::parse(&format!("newcomer{number}")).unwrap(),
            password_hash: "hash".into(),
        });
        let commands = (2..=20).map(|by| people.buys(by, "pen")).chain(keyed).chain(newcomers);
        let rest = queue(&engine, commands).await;
        held_up.release().await;
        join_all(first).await;
        for answer in join_all(rest).await {
            assert!(answer.is_ok_and(|answer| answer.result.is_ok()));
        }
        let written = "SELECT count(DISTINCT xmin::text) FROM history WHERE id > 30";
        assert_eq!(database.number(written).await, transactions, "max_batch {max_batch}");
    }
}

#[tokio::test]
async fn only_the_half_of_a_batch_whose_commit_was_lost_has_an_unknown_outcome() {
    let database = TestDatabase::fresh().await;
    Bank::open(&database, 5, 100).await;
    let people = People::of(&database).await;
    let proxy = Proxy::start(database.url()).await;
    let url = database.url_through(proxy.port());
    let through = Database::new(DatabaseOptions::from_url(url.as_str()).unwrap());
    let writer = Writer::new(&through, Uuid::new_v4());
    let replay = ReplayLimits { outcome_deadline: Duration::ZERO, ..options().replay };
    let (engine, writing) = engine::start(through, writer, EngineOptions { replay, ..options() });
    tokio::spawn(writing);
    let mut held_up = HeldUp::writers_of(&database).await;
    let first = queue(&engine, [people.buys(1, "pen")]).await;
    held_up.is_waited_for().await;
    let rest = queue(&engine, (2..=5).map(|by| people.buys(by, "pen"))).await;
    // The batch fails for a reason of its own; the first of its halves loses its COMMIT.
    proxy.inject(Stage::Write, Fault::Raise("XX000"));
    proxy.inject(Stage::Commit, Fault::AwayAfter);
    held_up.release().await;

    let unknown = [Err(EngineError::OutcomeUnknown), Err(EngineError::OutcomeUnknown)];
    let mut told = join_all(first).await;
    told.extend(join_all(rest).await);
    assert_eq!(told[..2], unknown);
    assert_eq!(told[2..], [(); 3].map(|()| Err(EngineError::Unavailable)));
    proxy.has_injected_everything();
    assert_eq!(database.number("SELECT count(*) FROM history WHERE item_id = 4").await, 2);
}

#[tokio::test]
async fn a_full_queue_has_places_left_for_the_team_and_not_for_others() {
    let database = TestDatabase::fresh().await;
    Bank::open(&database, 3, 1_000_000).await;
    let people = People::of(&database).await;
    let engine = start(&database, EngineOptions { queue_capacity: 4, max_batch: 1, ..options() });
    let mut held_up = HeldUp::writers_of(&database).await;
    let first = queue(&engine, [people.buys(1, "pen")]).await;
    held_up.is_waited_for().await;
    let everybody = queue(&engine, (0..4).map(|_| people.buys(2, "pen"))).await;

    let full = Err(EngineError::QueueFull);
    assert_eq!(engine.admit(), Err(EngineError::QueueFull));
    assert_eq!(engine.submit(Party::Employee, people.buys(2, "pen")).await, full);
    let mut team = Vec::new();
    for _ in 0..TEAM_PLACES {
        let mut answer = engine.submit(Party::Team, people.buys(3, "pen")).boxed();
        assert!(poll!(&mut answer).is_pending());
        team.push(answer);
        assert_eq!(engine.submit(Party::Employee, people.buys(2, "pen")).await, full);
    }
    assert_eq!(engine.submit(Party::Team, people.buys(3, "pen")).await, full);

    held_up.release().await;
    for answer in join_all(first.into_iter().chain(everybody).chain(team)).await {
        assert!(answer.is_ok_and(|answer| answer.result.is_ok()));
    }
    assert_eq!(engine.admit(), Ok(()));
}
