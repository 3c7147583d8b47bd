//! The migrations by which the history was numbered anew: beside a shop that goes on selling, and
//! back again.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

use merch_store::storage::Migrations;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::support::process::command;
use crate::support::{TestDatabase, TestShop};

async fn texts(database: &TestDatabase, sql: &'static str) -> Vec<String> {
    let mut connection = database.connect().await;
    let texts = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    texts
}

/// The migrations by which the history was numbered anew, from the newest on.
pub const NUMBERING: usize = 4;

/// The schema of the release before that.
pub async fn before_numbering() -> (TestDatabase, Migrations) {
    let database = TestDatabase::fresh().await;
    let mut migrations = Migrations::connect(&database.options()).await.unwrap();
    migrations.down(NUMBERING).await.unwrap();
    (database, migrations)
}

/// A writer that gives up its turn only when somebody waits for the next one, until `finished`.
async fn sells(mut connection: PgConnection, finished: &AtomicBool) {
    let begin = "BEGIN ISOLATION LEVEL SERIALIZABLE; LOCK TABLE writer_turn IN EXCLUSIVE MODE";
    let waiting = "SELECT count(*) FROM pg_locks
                   WHERE relation = 'writer_turn'::regclass AND NOT granted";
    let sell = "UPDATE idempotency_keys SET outcome = 'done';
                INSERT INTO history (to_id, amount) VALUES (1, 5); COMMIT";
    while !finished.load(Ordering::Acquire) {
        sqlx::raw_sql(begin).execute(&mut connection).await.unwrap();
        let mut others = 0_i64;
        while others == 0 && !finished.load(Ordering::Acquire) {
            others = sqlx::query_scalar(waiting).fetch_one(&mut connection).await.unwrap();
        }
        sqlx::raw_sql(sell).execute(&mut connection).await.unwrap();
    }
    connection.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_is_numbered_among_writers_of_whom_one_always_waits_for_its_turn() {
    let (database, mut migrations) = before_numbering().await;
    let finished = AtomicBool::new(false);
    let migrating = async {
        let applied = migrations.up().await;
        finished.store(true, Ordering::Release);
        applied
    };
    let writers = [database.connect().await, database.connect().await];
    let [first, second] = writers.map(|connection| sells(connection, &finished));
    let (applied, ..) = tokio::join!(migrating, first, second);
    assert_eq!(applied.unwrap().len(), NUMBERING);
    let numbers = "SELECT max(id) - count(*) + (SELECT id FROM log_head) - max(id) FROM history";
    assert_eq!(database.number(numbers).await, 0, "every row has the next number");
}

#[tokio::test]
async fn an_operator_is_told_what_a_migration_waits_for() {
    let database = TestDatabase::blank().await;
    let mut other = database.connect().await;
    let lock = "SELECT pg_advisory_lock(4783208161327654)";
    sqlx::raw_sql(lock).execute(&mut other).await.unwrap();
    let mut command = command(&["migrate", "up", "--database-url", database.url().as_str()]);
    let mut migrating = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut said = String::new();
    let mut stderr = BufReader::new(migrating.stderr.take().unwrap());
    stderr.read_line(&mut said).await.unwrap();
    assert!(said.contains("another process changes the schema"), "{said}");
    other.close().await.unwrap();
    assert!(migrating.wait().await.unwrap().success());
}

#[tokio::test]
async fn numbering_the_history_waits_for_its_readers_without_keeping_others_from_it() {
    let (database, mut migrations) = before_numbering().await;
    let mut reader = database.connect().await;
    let read = "BEGIN; SELECT count(*) FROM history";
    sqlx::raw_sql(read).execute(&mut reader).await.unwrap();
    let migrating = tokio::spawn(async move { migrations.up().await.unwrap() });

    // Each time that the migration waits for the reader, others wait behind it and get through.
    let mut other = database.connect().await;
    let mut waits = 0;
    while waits < 3 {
        let waiting = "SELECT count(*) FROM pg_locks
                       WHERE relation = 'history'::regclass AND NOT granted";
        let waiting: i64 = sqlx::query_scalar(waiting).fetch_one(&mut other).await.unwrap();
        waits += usize::from(waiting > 0);
        sqlx::raw_sql("SELECT count(*) FROM history").execute(&mut other).await.unwrap();
        assert!(!migrating.is_finished());
    }
    sqlx::raw_sql("COMMIT").execute(&mut reader).await.unwrap();
    assert_eq!(migrating.await.unwrap().len(), NUMBERING);
}

#[tokio::test]
async fn what_an_attempt_without_a_transaction_left_behind_is_made_anew() {
    let database = TestDatabase::fresh().await;
    let index = "SELECT pg_get_indexdef('history_ref_key'::regclass) || ' ' || indisvalid
                 FROM pg_index WHERE indexrelid = 'history_ref_key'::regclass";
    let made = texts(&database, index).await;
    assert!(made[0].ends_with(" true"), "{made:?}");
    let mut migrations = Migrations::connect(&database.options()).await.unwrap();
    migrations.down(2).await.unwrap();
    database.execute("CREATE INDEX history_ref_key ON history (amount)").await;
    assert_eq!(migrations.up().await.unwrap().len(), 2);
    assert_eq!(texts(&database, index).await, made);
}

#[tokio::test]
async fn the_release_before_is_not_given_a_history_that_it_would_misread() {
    for by_hand in [
        "INSERT INTO history (to_id, amount, actor_id) VALUES (1, 5, 2)",
        "INSERT INTO history (from_id, amount) VALUES (1, 5)",
        "INSERT INTO history (from_id, to_id, amount, ref) VALUES (2, 1, 5, 3)",
        "INSERT INTO history (to_id, item_id, amount, ref) VALUES (1, 2, 20, 4)",
    ] {
        let database = TestDatabase::fresh().await;
        database.execute(by_hand).await;
        let mut migrations = Migrations::connect(&database.options()).await.unwrap();
        let refused = migrations.down(NUMBERING).await.unwrap_err().to_string();
        assert!(refused.contains("0007 cannot be reverted"), "{refused}");
        // What is newer and could be reverted is still there.
        assert_eq!(migrations.up().await.unwrap(), [0; 0]);
        assert_eq!(
            database
                .number("SELECT count(*) FROM pg_class WHERE relname = 'history_ref_key'")
                .await,
            1
        );
        assert_eq!(database.number("SELECT count(*) FROM history").await, 1);
        assert_eq!(database.number("SELECT id FROM log_head").await, 1);
    }
}

#[tokio::test]
async fn numbers_go_on_where_they_were_through_down_and_up() {
    let shop = TestShop::open().await;
    let alice = shop.logs_in("alice").await;
    for _ in 0..5 {
        alice.buys("pen").await.is_done();
    }
    let database = shop.closes().await;
    let history = "SELECT string_agg(history::text, ' ' ORDER BY id) FROM history";
    let before = texts(&database, history).await;
    let mut migrations = Migrations::connect(&database.options()).await.unwrap();
    migrations.down(NUMBERING).await.unwrap();
    // As a replica of the release before writes it.
    database.execute("INSERT INTO history (to_id, amount) VALUES (1, 5)").await;
    assert_eq!(database.number("SELECT max(id) FROM history").await, 7);
    database.execute("DELETE FROM history WHERE id = 7").await;
    migrations.up().await.unwrap();
    assert_eq!(database.number("SELECT id FROM log_head").await, 6);
    assert_eq!(texts(&database, history).await, before);
    database.execute("INSERT INTO history (to_id, amount) VALUES (1, 5)").await;
    assert_eq!(database.number("SELECT id FROM log_head").await, 7);
}
