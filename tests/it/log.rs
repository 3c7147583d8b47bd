//! The log: a reader that asks for what is behind its cursor and not beyond the head sees
//! every row once, however the writers' transactions overlap. So that these tests can fail,
//! the ways of numbering that are not used here are tried as well, and miss rows.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use merch_store::shop::ledger::{Action, Command, Order, execute};
use merch_store::shop::{AccountId, BooksId, ItemName, Owner, Username};
use merch_store::storage::{
    Attempt, Audit, Database, ReplayLimits, StorageError, Transaction, Writer,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::time::sleep;
use uuid::Uuid;

use crate::support::TestDatabase;
use crate::support::proxy::{Fault, Proxy, Stage};
use crate::support::shop::Bank;

const WRITERS: usize = 64;
const BATCHES_EACH: usize = 3;

/// The longest that a writer hesitates between two statements.
const HESITATION: Duration = Duration::from_millis(4);

const LIMITS: ReplayLimits = ReplayLimits {
    max_attempts: u32::MAX,
    replay_deadline: Duration::from_secs(600),
    outcome_deadline: Duration::from_secs(60),
};

/// What a client that follows the log asks: the head, and the rows behind a cursor.
const FOLLOW: &str = "
    SELECT log_head.id, coalesce(array_agg(history.id) FILTER (WHERE history.id IS NOT NULL), '{}')
    FROM log_head LEFT JOIN history ON history.id > $1 AND history.id <= log_head.id
    GROUP BY log_head.id";

/// Follows the log of `database` until `finished`, and once more: the rows that it was shown.
async fn follow(database: &TestDatabase, finished: &AtomicBool) -> BTreeSet<i64> {
    let mut connection = database.connect().await;
    let mut shown = BTreeSet::new();
    let mut cursor = 0_i64;
    loop {
        let last = finished.load(Ordering::Acquire);
        let (head, rows): (i64, Vec<i64>) =
            sqlx::query_as(FOLLOW).bind(cursor).fetch_one(&mut connection).await.unwrap();
        for row in rows {
            assert!(shown.insert(row), "row {row} is shown once");
        }
        assert!(head >= cursor, "the head never goes back");
        cursor = head;
        if last {
            connection.close().await.unwrap();
            return shown;
        }
    }
}

/// All rows of the history that were committed.
async fn committed(database: &TestDatabase) -> BTreeSet<i64> {
    let mut connection = database.connect().await;
    let rows: Vec<i64> =
        sqlx::query_scalar("SELECT id FROM history").fetch_all(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    rows.into_iter().collect()
}

/// How the writers of a run keep out of each other's way.
#[derive(Clone, Copy, Debug)]
enum Turns {
    All,
    None,
    Every2nd,
}

/// One writer's batch, and how long to hesitate before it writes and before it commits.
struct Batch {
    commands: Vec<Command>,
    hesitations: [Duration; 2],
    /// It thinks better of it after it has written.
    rolls_back: bool,
}

impl Batch {
    fn random(rng: &mut StdRng, books: BooksId) -> Batch {
        let mut pen = || {
            let number = rng.random_range(1..=WRITERS as i64);
            let username = Username::parse(&format!("user{number}")).unwrap();
            let by = Owner { account: AccountId(number), username, books };
            let item = ItemName::parse("pen").unwrap();
            Command::Order(Order { by, action: Ok(Action::Purchase { item }), key: None })
        };
        let commands = (0..3).map(|_| pen()).collect();
        let hesitations = [(); 2].map(|()| rng.random_range(Duration::ZERO..HESITATION));
        Batch { commands, hesitations, rolls_back: rng.random_bool(0.2) }
    }
}

/// What the engine does with a batch, at random speed.
fn hesitantly<'a>(transaction: &'a mut Transaction<'_>, batch: &'a Batch) -> Attempt<'a, ()> {
    Box::pin(async move {
        let ledger = transaction.ledger_fetch(&batch.commands).await?;
        sleep(batch.hesitations[0]).await;
        let (_, changes) = execute(ledger, &batch.commands);
        transaction.ledger_write(&changes).await?;
        sleep(batch.hesitations[1]).await;
        match batch.rolls_back {
            true => Err(StorageError::Unexpected("rolled back".into())),
            false => Ok(()),
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_by_the_head_misses_nothing_that_any_writer_commits() {
    for turns in [Turns::All, Turns::None, Turns::Every2nd] {
        let database = TestDatabase::fresh().await;
        Bank::open(&database, WRITERS, 1_000_000).await;
        let seed: u64 = rand::random();
        println!("{turns:?}: seed {seed}");
        let finished = AtomicBool::new(false);
        let writing = async {
            let writers = (0..WRITERS).map(|number| {
                let takes_turns = match turns {
                    Turns::All => true,
                    Turns::None => false,
                    Turns::Every2nd => number % 2 == 0,
                };
                let rng = StdRng::seed_from_u64(seed.wrapping_add(number as u64));
                write(&database, rng, takes_turns)
            });
            let batches: usize = join_all(writers).await.into_iter().sum();
            finished.store(true, Ordering::Release);
            batches
        };
        let (shown, batches) = tokio::join!(follow(&database, &finished), writing);

        assert_eq!(shown, committed(&database).await, "{turns:?}, seed {seed}");
        assert_eq!(shown.len(), WRITERS + 3 * batches, "grants and pens: seed {seed}");
        assert_eq!(shown.last(), Some(&(shown.len() as i64)), "no gaps: seed {seed}");
        assert_eq!(Audit::run(&database.options()).await.unwrap().lies, []);
    }
}

/// Writes batches of its own until so many are committed: how many there are.
async fn write(database: &TestDatabase, mut rng: StdRng, takes_turns: bool) -> usize {
    let proxy = Proxy::start(database.url()).await;
    if !takes_turns {
        proxy.inject(Stage::Begin, Fault::Raise("0A000"));
    }
    let url = database.url_through(proxy.port());
    let options = merch_store::storage::DatabaseOptions::from_url(url.as_str()).unwrap();
    let database = Database::new(options);
    let books = database.books_fetch().await.unwrap().id;
    let mut writer = Writer::new(&database, Uuid::new_v4());
    let mut committed = 0;
    while committed < BATCHES_EACH {
        let batch = Batch::random(&mut rng, books);
        match writer.run("test", LIMITS, &batch, hesitantly).await {
            Ok(()) => committed += 1,
            Err(StorageError::Unexpected(_)) if batch.rolls_back => {}
            Err(error) => panic!("{error}"),
        }
    }
    proxy.has_injected_everything();
    writer.close().await;
    committed
}

/// Ways to number rows that look right. Each is what one transaction runs, a statement at a
/// time, with pauses; `sequence` is there for them.
const MISTAKES: [(&str, &[&str]); 3] = [
    (
        "numbers from a sequence, and a head that says how far it is",
        &[
            "BEGIN ISOLATION LEVEL SERIALIZABLE",
            "INSERT INTO history (id, to_id, amount) VALUES (nextval('sequence'), 1, 1)",
            "COMMIT",
            "UPDATE log_head SET id = greatest(id, (SELECT max(id) FROM history))",
        ],
    ),
    (
        "numbers drawn before the snapshot, the head moved last",
        &[
            "SELECT set_config('test.number', nextval('sequence')::text, false)",
            "BEGIN ISOLATION LEVEL READ COMMITTED",
            "INSERT INTO history (id, to_id, amount)
             VALUES (current_setting('test.number')::int8, 1, 1)",
            "UPDATE log_head SET id = greatest(id, current_setting('test.number')::int8)",
            "COMMIT",
        ],
    ),
    (
        "numbers that each session keeps a stock of",
        &[
            "ALTER SEQUENCE sequence CACHE 16",
            "BEGIN ISOLATION LEVEL READ COMMITTED",
            "WITH new AS (
                 INSERT INTO history (id, to_id, amount) VALUES (nextval('sequence'), 1, 1)
                 RETURNING id
             )
             UPDATE log_head SET id = greatest(log_head.id, new.id) FROM new",
            "COMMIT",
        ],
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_do_not_come_from_the_head_are_missed_by_its_readers() {
    for (mistake, statements) in MISTAKES {
        let database = TestDatabase::fresh().await;
        database.execute("CREATE SEQUENCE sequence").await;
        let finished = AtomicBool::new(false);
        let writing = async {
            let writers = (0..16).map(|number| {
                let rng = StdRng::seed_from_u64(number);
                let connection = database.connect();
                async move { repeat(connection.await, statements, rng).await }
            });
            join_all(writers).await;
            finished.store(true, Ordering::Release);
        };
        let (shown, ()) = tokio::join!(follow(&database, &finished), writing);
        let missed = committed(&database).await.difference(&shown).count();
        assert!(missed > 0, "{mistake}: nothing was missed");
    }
}

/// Runs `statements` again and again, hesitating in between; what loses is left out.
async fn repeat(mut connection: PgConnection, statements: &[&'static str], mut rng: StdRng) {
    for _ in 0..20 {
        for statement in statements {
            let statement = AssertSqlSafe(*statement);
            if sqlx::raw_sql(statement).execute(&mut connection).await.is_err() {
                sqlx::raw_sql("ROLLBACK").execute(&mut connection).await.unwrap();
                break;
            }
            sleep(rng.random_range(Duration::ZERO..HESITATION)).await;
        }
    }
    connection.close().await.unwrap();
}
