//! The log: a reader that asks for what is behind its cursor and not beyond the head sees
//! every row once, however the writers' transactions overlap. So that these tests can fail,
//! the ways of numbering that are not used here are tried as well, and miss rows.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, join_all};
use merch_store::shop::ledger::{Action, Command, Order, execute};
use merch_store::shop::{
    AccountId, Amount, BooksId, Fingerprint, IdempotencyKey, ItemName, Owner, Username,
};
use merch_store::storage::{
    Attempt, Audit, Database, DatabaseOptions, ReplayLimits, Seed, StorageError, Transaction,
    Writer,
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
const TRANSACTIONS_EACH: usize = 3;

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

impl Turns {
    fn are_taken_by(self, number: usize) -> bool {
        match self {
            Turns::All => true,
            Turns::None => false,
            Turns::Every2nd => number.is_multiple_of(2),
        }
    }
}

/// Lets so many writers write at once and follows what they do: the rows that were shown, and
/// those that they committed.
async fn run<'a>(
    database: &'a TestDatabase,
    turns: Turns,
    writer: impl Fn(usize, bool, StdRng) -> BoxFuture<'a, ()>,
) -> (BTreeSet<i64>, BTreeSet<i64>) {
    let seed: u64 = rand::random();
    println!("{turns:?}: seed {seed}");
    let finished = AtomicBool::new(false);
    let writing = async {
        let writers = (0..WRITERS).map(|number| {
            let rng = StdRng::seed_from_u64(seed.wrapping_add(number as u64));
            writer(number, turns.are_taken_by(number), rng)
        });
        join_all(writers).await;
        finished.store(true, Ordering::Release);
    };
    let (shown, ()) = tokio::join!(follow(database, &finished), writing);
    (shown, committed(database).await)
}

async fn hesitate(rng: &mut StdRng) {
    sleep(rng.random_range(Duration::ZERO..HESITATION)).await;
}

/// One writer's batch, and how long to hesitate before it writes and before it commits.
struct Batch {
    commands: Vec<Command>,
    hesitations: [Duration; 2],
    /// It thinks better of it after it has written.
    rolls_back: bool,
}

impl Batch {
    /// Two pens, one of them under a key, and a newcomer.
    fn random(rng: &mut StdRng, books: BooksId) -> Batch {
        let mut pen = |key| {
            let number = rng.random_range(1..=WRITERS as i64);
            let username = Username::parse(&format!("user{number}")).unwrap();
            let by = Owner { account: AccountId(number), username, books };
            let item = ItemName::parse("pen").unwrap();
            Command::Order(Order { by, action: Ok(Action::Purchase { item }), key })
        };
        let name = Uuid::new_v4().to_string();
        let key = IdempotencyKey::parse(name.as_bytes()).unwrap();
        let newcomer = Command::OpenAccount {
            username: Username::parse(&name).unwrap(),
            password_hash: "nobody logs in with this".into(),
        };
        let commands = vec![pen(None), newcomer, pen(Some((key, Fingerprint([0; 32]))))];
        let hesitations = [(); 2].map(|()| rng.random_range(Duration::ZERO..HESITATION));
        Batch { commands, hesitations, rolls_back: rng.random_bool(0.2) }
    }
}

/// What the engine does with a batch, at random speed.
fn hesitantly<'a>(transaction: &'a mut Transaction<'_>, batch: &'a Batch) -> Attempt<'a, ()> {
    Box::pin(async move {
        let ledger = transaction.ledger_fetch(&batch.commands).await?;
        sleep(batch.hesitations[0]).await;
        let (answers, changes) = execute(ledger, &batch.commands);
        assert!(answers.iter().all(|answer| answer.result.is_ok()), "{answers:?}");
        transaction.ledger_write(&changes).await?;
        sleep(batch.hesitations[1]).await;
        match batch.rolls_back {
            true => Err(StorageError::Unexpected("rolled back".into())),
            false => Ok(()),
        }
    })
}

/// Writes batches of its own until so many are committed.
async fn writes_batches(database: &TestDatabase, takes_turns: bool, mut rng: StdRng) {
    let proxy = Proxy::start(database.url()).await;
    if !takes_turns {
        proxy.inject(Stage::Begin, Fault::Raise("0A000"));
    }
    let url = database.url_through(proxy.port());
    let database = Database::new(DatabaseOptions::from_url(url.as_str()).unwrap());
    let books = database.books_fetch().await.unwrap().id;
    let mut writer = Writer::new(&database, Uuid::new_v4());
    let mut committed = 0;
    while committed < TRANSACTIONS_EACH {
        let batch = Batch::random(&mut rng, books);
        match writer.run("test", LIMITS, &batch, hesitantly).await {
            Ok(()) => committed += 1,
            Err(StorageError::Unexpected(_)) if batch.rolls_back => {}
            Err(error) => panic!("{error}"),
        }
    }
    proxy.has_injected_everything();
    writer.close().await;
}

/// Makes users in bulk, of whom nobody else makes any.
async fn seeds(database: &TestDatabase, number: usize, mut rng: StdRng) {
    let mut seed = Seed::connect(&database.options()).await.unwrap();
    for part in 0..TRANSACTIONS_EACH {
        let first = u32::try_from(1000 * (number + 1) + 10 * part).unwrap();
        let coins = Amount::new(10).unwrap();
        seed.users_insert_many(first, first + 9, coins, "hash").await.unwrap();
        hesitate(&mut rng).await;
    }
    seed.finish().await.unwrap();
}

/// Writes as the release before does: its rows are numbered by default.
async fn writes_without_numbers(database: &TestDatabase, takes_turns: bool, mut rng: StdRng) {
    let mut connection = database.connect().await;
    // Those who do not take turns meet in any order.
    sqlx::raw_sql("SET deadlock_timeout = '20ms'").execute(&mut connection).await.unwrap();
    let mut committed = 0;
    while committed < TRANSACTIONS_EACH {
        let (from, to) = (rng.random_range(1..=32), rng.random_range(33..=64));
        let key = Uuid::new_v4();
        let statements = [
            "BEGIN ISOLATION LEVEL SERIALIZABLE".to_owned(),
            match takes_turns {
                true => "LOCK TABLE writer_turn IN EXCLUSIVE MODE".to_owned(),
                false => "SELECT".to_owned(),
            },
            format!("SELECT coins FROM balance WHERE user_id IN ({from}, {to})"),
            format!(
                "WITH moved AS (
                     UPDATE balance SET version = version + 1,
                            coins = coins + CASE user_id WHEN {from} THEN -2 ELSE 2 END
                     WHERE user_id IN ({from}, {to})
                 ), remembered AS (
                     INSERT INTO idempotency_keys (user_id, key, fingerprint, outcome)
                     VALUES ({from}, '{key}', '', 'done')
                 )
                 INSERT INTO history (from_id, to_id, amount)
                 VALUES ({from}, {to}, 1), ({from}, {to}, 1)"
            ),
            if rng.random_bool(0.2) { "ROLLBACK" } else { "COMMIT" }.to_owned(),
        ];
        if runs(&mut connection, &statements, &mut rng).await && statements[4] == "COMMIT" {
            committed += 1;
        }
    }
    connection.close().await.unwrap();
}

/// Runs `statements`, hesitating in between: whether all went well.
async fn runs(
    connection: &mut PgConnection,
    statements: &[impl AsRef<str>],
    rng: &mut StdRng,
) -> bool {
    for statement in statements {
        let statement = AssertSqlSafe(statement.as_ref().to_owned());
        if sqlx::raw_sql(statement).execute(&mut *connection).await.is_err() {
            sqlx::raw_sql("ROLLBACK").execute(connection).await.unwrap();
            return false;
        }
        hesitate(rng).await;
    }
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_by_the_head_misses_nothing_that_any_writer_commits() {
    for turns in [Turns::All, Turns::None, Turns::Every2nd] {
        let database = TestDatabase::fresh().await;
        Bank::open(&database, WRITERS, 1_000_000).await;
        // Of every eight writers one seeds and two are of the release before.
        let writer = |number: usize, takes_turns, rng| match number / 2 % 8 {
            0 => seeds(&database, number, rng).boxed(),
            1 | 2 => writes_without_numbers(&database, takes_turns, rng).boxed(),
            _ => writes_batches(&database, takes_turns, rng).boxed(),
        };
        let (shown, committed) = run(&database, turns, writer).await;
        assert_eq!(shown, committed, "{turns:?}");
        assert_eq!(shown.last(), Some(&(shown.len() as i64)), "no gaps: {turns:?}");
        // Accounts; then of each eight pairs of writers 10 users a transaction of the first,
        // 2 movements of the next two, and 3 of the others.
        let pairs = WRITERS / 8;
        let rows = WRITERS + pairs * TRANSACTIONS_EACH * (10 + 2 * 2 + 5 * 3);
        assert_eq!(shown.len(), rows, "{turns:?}");
        assert_eq!(Audit::run(&database.options()).await.unwrap().lies, []);
    }
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
        for turns in [Turns::None, Turns::Every2nd] {
            let database = TestDatabase::fresh().await;
            database.execute("CREATE SEQUENCE sequence").await;
            let writer = |_, takes_turns, rng| {
                writes_wrongly(&database, statements, takes_turns, rng).boxed()
            };
            let (shown, committed) = run(&database, turns, writer).await;
            let missed = committed.difference(&shown).count();
            assert!(missed > 0, "{mistake}, {turns:?}: nothing was missed");
        }
    }
}

/// Runs `statements` again and again; what loses is left out.
async fn writes_wrongly(
    database: &TestDatabase,
    statements: &[&'static str],
    takes_turns: bool,
    mut rng: StdRng,
) {
    let mut connection = database.connect().await;
    for _ in 0..8 {
        let mut statements = statements.to_vec();
        let begin = statements.iter().position(|it| it.starts_with("BEGIN")).unwrap();
        if takes_turns {
            statements.insert(begin + 1, "LOCK TABLE writer_turn IN EXCLUSIVE MODE");
        }
        if rng.random_bool(0.2) {
            let commit = statements.iter().position(|it| *it == "COMMIT").unwrap();
            statements[commit] = "ROLLBACK";
        }
        runs(&mut connection, &statements, &mut rng).await;
    }
    connection.close().await.unwrap();
}
