//! The schema's way up, down and up again, and what `migrate` says of it.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{ExitStatus, Output};

use futures::future::join_all;
use merch_store::shop::CATALOGUE;
use merch_store::storage::{Audit, MigrationState, Migrations};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use sqlx::{AssertSqlSafe, Connection};

use crate::support::process::command;
use crate::support::shop::{Bank, Replica};
use crate::support::{TestDatabase, TestShop};

/// Everything in the database that is ours and what it looks like, a line each.
const OUR_THINGS: &str = "
    SELECT relkind::text || ' ' || relname || coalesce(' ' || pg_get_indexdef(i.indexrelid), '')
           || coalesce(' ' || array_to_string(reloptions, ','), '') AS thing
    FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    LEFT JOIN pg_index i ON i.indexrelid = c.oid
    WHERE nspname = 'public' AND relname NOT LIKE '\\_sqlx%'
    UNION ALL
    SELECT 'column ' || table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable
           || ' ' || coalesce(column_default, '') || ' ' || coalesce(collation_name, '')
    FROM information_schema.columns
    WHERE table_schema = 'public' AND table_name NOT LIKE '\\_sqlx%'
    UNION ALL
    SELECT 'constraint ' || conname || ' ' || pg_get_constraintdef(oid)
    FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND conname NOT LIKE '\\_sqlx%'
    UNION ALL
    SELECT 'function ' || proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'type ' || typname FROM pg_type
    WHERE typnamespace = 'public'::regnamespace AND typtype IN ('d', 'e')
    ORDER BY thing";

async fn our_things(database: &TestDatabase) -> Vec<String> {
    texts(database, OUR_THINGS).await
}

async fn texts(database: &TestDatabase, sql: &'static str) -> Vec<String> {
    let mut connection = database.connect().await;
    let texts = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    texts
}

async fn catalogue(database: &TestDatabase) -> Vec<(String, i64)> {
    let mut connection = database.connect().await;
    let items = sqlx::query_as("SELECT name, price FROM merch ORDER BY id");
    let items = items.fetch_all(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    items
}

fn ours() -> Vec<(String, i64)> {
    CATALOGUE.map(|(name, price)| (name.into(), price)).into()
}

async fn migrate(database: &TestDatabase, arguments: &[&str]) -> Output {
    let mut all = vec!["migrate"];
    all.extend(arguments);
    all.extend(["--database-url", database.url().as_str()]);
    command(&all).output().await.unwrap()
}

#[track_caller]
fn said(output: &Output, exit_code: i32) -> String {
    assert_eq!(output.status.code(), Some(exit_code), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The numbers of all migrations in the folder, in order.
fn versions() -> Vec<i64> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    let mut versions = Vec::new();
    for name in &names {
        if let Some(stem) = name.strip_suffix(".up.sql") {
            assert!(names.contains(&format!("{stem}.down.sql")), "{name} has no way down");
            let (number, words) = stem.split_once('_').unwrap();
            assert_eq!(number.len(), 4, "{name}");
            assert!(words.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            versions.push(number.parse().unwrap());
        } else {
            let stem = name.strip_suffix(".down.sql").expect("an up or a down migration");
            assert!(names.contains(&format!("{stem}.up.sql")), "{name} has no way up");
        }
    }
    versions.sort_unstable();
    versions
}

#[test]
fn every_migration_has_a_way_back_and_numbers_have_no_gaps() {
    let versions = versions();
    assert!(!versions.is_empty());
    let last = i64::try_from(versions.len()).unwrap();
    assert_eq!(versions, (1..=last).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_schema_goes_up_and_down_and_up_again_as_if_it_had_never_gone_down() {
    let database = TestDatabase::blank().await;
    let (upwards, downwards) = (versions(), versions().into_iter().rev().collect::<Vec<_>>());
    let mut migrations = Migrations::connect(&database.options()).await.unwrap();
    assert_eq!(migrations.up().await.unwrap(), upwards);
    assert_eq!(migrations.up().await.unwrap(), [0; 0], "there is nothing left to do");
    let first_time = our_things(&database).await;
    assert!(first_time.contains(&"r history".to_owned()), "{first_time:?}");
    assert_eq!(catalogue(&database).await, ours());

    assert_eq!(migrations.down(usize::MAX).await.unwrap(), downwards);
    assert_eq!(our_things(&database).await, [""; 0]);
    assert_eq!(migrations.down(1).await.unwrap(), [0; 0], "there is nothing left to revert");

    assert_eq!(migrations.up().await.unwrap(), upwards);
    // One step down and up again, for every number of steps.
    for steps in 1..=upwards.len() {
        assert_eq!(migrations.down(steps).await.unwrap(), downwards[..steps]);
        assert_eq!(migrations.up().await.unwrap(), upwards[upwards.len() - steps..]);
    }
    assert_eq!(our_things(&database).await, first_time);
    assert_eq!(catalogue(&database).await, ours());
    migrations.close().await;
}

#[tokio::test]
async fn a_catalogue_that_comes_back_finds_what_was_bought_from_it() {
    let shop = TestShop::open().await;
    let people = Bank::open(&shop.database, 3, 1000).await;
    let people: Vec<_> = people.iter().map(|person| person.at(&shop.base)).collect();
    people[0].buys("cup").await.is_done();
    people[0].sends("user2", 30).await.is_done();
    people[1].buys("pink-hoody").await.is_done();
    let before = [people[0].info().await, people[1].info().await];

    let database = shop.closes().await;
    let down_to_the_schema = (versions().len() - 1).to_string();
    said(&migrate(&database, &["down", "--yes", "--count", &down_to_the_schema]).await, 0);
    let left = catalogue(&database).await;
    assert_eq!(left, [("cup".into(), 20), ("pink-hoody".into(), 500)], "what somebody owns stays");

    said(&migrate(&database, &["up"]).await, 0);
    let audit = Audit::run(&database.options()).await.unwrap();
    assert_eq!(audit.lies, []);
    assert_eq!(catalogue(&database).await, ours());
    let shop = TestShop::on(database).await;
    // The identity went down too: they are given new tokens.
    let people = Bank::open(&shop.database, 3, 1000).await;
    let people: Vec<_> = people.iter().map(|person| person.at(&shop.base)).collect();
    people[2].buys("pen").await.is_done();
    assert_eq!([people[0].info().await, people[1].info().await], before);
    shop.is_honest().await;
}

#[tokio::test]
async fn a_used_shop_can_be_reverted_altogether_and_opened_anew() {
    let database = TestDatabase::fresh().await;
    let mut shop = Replica::start(database.url().as_str()).await;
    shop.seed(2, 100).await;
    shop.people[0].sends_once("user2", 10, "a key").await.is_done();
    shop.people[1].buys("cup").await.is_done();
    shop.stop().await;

    let text = said(&migrate(&database, &["down", "--all", "--yes"]).await, 0);
    let reverted: String =
        versions().into_iter().rev().map(|version| format!("reverted {version:04}\n")).collect();
    assert_eq!(text, reverted);
    assert_eq!(our_things(&database).await, [""; 0]);
    let text = said(&migrate(&database, &["down", "--all"]).await, 0);
    assert_eq!(text, "nothing to do: the schema is empty\n");

    // It migrates when it starts.
    let mut shop = Replica::start(database.url().as_str()).await;
    shop.seed(1, 50).await;
    shop.people[0].buys("cup").await.is_done();
    assert_eq!(shop.people[0].coins().await, 30);
    shop.stop().await;
}

#[tokio::test]
async fn people_lose_what_they_have_only_if_that_is_meant() {
    let shop = TestShop::open().await;
    shop.logs_in("alice").await;
    let (database, all) = (shop.closes().await, ["down", "--all"]);
    let before = our_things(&database).await;
    for arguments in [&["down"][..], &all, &["down", "--count", "1"]] {
        let output = migrate(&database, arguments).await;
        let error = String::from_utf8(output.stderr.clone()).unwrap();
        assert_eq!(said(&output, 1), "");
        assert!(error.contains("people (1)") && error.contains("--yes"), "{error}");
        assert!(error.contains(database.name()), "{error}");
        assert_eq!(our_things(&database).await, before);
    }

    for (answer, exit_code) in [("no\n", 1), ("\n", 1), ("yess\n", 1), ("\u{4}", 1), ("yes\n", 0)] {
        assert_eq!(our_things(&database).await, before, "before {answer:?}");
        let (ended, shown) = at_a_terminal(&database, &all, answer).await;
        assert_eq!(ended.code(), Some(exit_code), "{answer:?}: {shown}");
        assert!(shown.contains("Type yes"), "{shown}");
    }
    assert_eq!(our_things(&database).await, [""; 0]);
}

/// Runs `migrate` at a terminal where somebody types `answer`: how it ends, and what is shown.
async fn at_a_terminal(
    database: &TestDatabase,
    arguments: &[&str],
    answer: &str,
) -> (ExitStatus, String) {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
    let open = || OpenOptions::new().read(true).write(true).open(&name).unwrap();
    let mut ours = File::from(terminal);
    let mut child = {
        let mut all = vec!["migrate"];
        all.extend(arguments);
        all.extend(["--database-url", database.url().as_str()]);
        let mut command = command(&all);
        command.stdin(open()).stdout(open()).stderr(open()).spawn().unwrap()
    };
    ours.write_all(answer.as_bytes()).unwrap();
    let reading = tokio::task::spawn_blocking(move || {
        let mut shown = Vec::new();
        // A terminal that nobody holds open any longer is an error to read from.
        let _ = ours.read_to_end(&mut shown);
        String::from_utf8_lossy(&shown).into_owned()
    });
    (child.wait().await.unwrap(), reading.await.unwrap())
}

#[tokio::test]
async fn nothing_is_reverted_under_a_shop_that_is_connected() {
    let shop = TestShop::open().await;
    let alice = shop.logs_in("alice").await;
    // And a role that sees little of others' sessions.
    let role = shop.database.name();
    shop.database.execute(&format!("CREATE ROLE {role}")).await;
    let mut url = shop.database.url().clone();
    url.query_pairs_mut().append_pair("options[role]", role);
    for url in [shop.database.url(), &url] {
        for arguments in [&["down", "--yes"][..], &["down", "--all", "--yes"], &["down"]] {
            let mut all = vec!["migrate", "--database-url", url.as_str()];
            all.extend(arguments);
            let output = command(&all).output().await.unwrap();
            assert_eq!(output.status.code(), Some(1), "{output:?}");
            let error = String::from_utf8(output.stderr).unwrap();
            assert!(
                error.contains("merch-store is connected") && error.contains("pid "),
                "{error}"
            );
        }
    }
    alice.buys("pen").await.is_done();

    let database = shop.closes().await;
    said(&migrate(&database, &["down", "--yes"]).await, 0);
    database.execute(&format!("DROP ROLE {}", database.name())).await;
}

#[tokio::test]
async fn status_tells_what_is_pending_applied_altered_and_unknown() {
    let database = TestDatabase::blank().await;
    let text = said(&migrate(&database, &["status"]).await, 1);
    assert_eq!(text.matches("pending").count(), versions().len(), "{text}");

    let text = said(&migrate(&database, &["up"]).await, 0);
    assert!(text.starts_with("applied 0001\napplied 0002\n"), "{text}");
    let text = said(&migrate(&database, &["up"]).await, 0);
    assert_eq!(text, "nothing to do: the schema is up to date\n");
    let text = said(&migrate(&database, &["status"]).await, 0);
    assert_eq!(text.matches("applied").count(), versions().len(), "{text}");

    database.execute("UPDATE _sqlx_migrations SET checksum = '\\x00' WHERE version = 1").await;
    let newer = "INSERT INTO _sqlx_migrations VALUES (9000, 'later', now(), true, '\\x00', 0)";
    database.execute(newer).await;
    let text = said(&migrate(&database, &["status"]).await, 1);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("0001 ") && lines[0].contains("ALTERED"), "{text}");
    assert!(lines[1].starts_with("0002 ") && lines[1].ends_with("applied"), "{text}");
    let last = lines.last().unwrap();
    assert!(last.starts_with("9000 ") && last.contains("UNKNOWN"), "{text}");

    let mut migrations = Migrations::connect(&database.options()).await.unwrap();
    let states = migrations.status().await.unwrap().into_iter().map(|it| (it.version, it.state));
    let states: Vec<_> = states.collect();
    assert_eq!(states[0], (1, MigrationState::Altered));
    assert_eq!(states[1], (2, MigrationState::Applied));
    assert_eq!(states.last(), Some(&(9000, MigrationState::Unknown)));
    migrations.close().await;
}

#[tokio::test]
async fn a_schema_that_is_not_as_it_was_left_is_not_touched() {
    for sql in [
        "UPDATE _sqlx_migrations SET checksum = '\\x00' WHERE version = 1",
        "INSERT INTO _sqlx_migrations VALUES (9000, 'later', now(), true, '\\x00', 0)",
    ] {
        let database = TestDatabase::fresh().await;
        database.execute("DELETE FROM _sqlx_migrations WHERE version = 2").await;
        database.execute(sql).await;
        let before = our_things(&database).await;
        let output = migrate(&database, &["up"]).await;
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.starts_with("error: ") && error.contains("migration"), "{error}");
        assert_eq!(our_things(&database).await, before);
        let applied = "SELECT count(*) FROM _sqlx_migrations WHERE version = 2";
        assert_eq!(database.number(applied).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_who_migrate_at_once_wait_for_each_other() {
    let database = TestDatabase::blank().await;
    for output in join_all((0..4).map(|_| migrate(&database, &["up"]))).await {
        said(&output, 0);
    }
    assert_eq!(catalogue(&database).await, ours());

    // Closer together than processes ever start.
    for _ in 0..5 {
        let database = TestDatabase::blank().await;
        let mut sessions = Vec::new();
        for _ in 0..8 {
            sessions.push(Migrations::connect(&database.options()).await.unwrap());
        }
        let all_at_once = sessions.into_iter().map(|mut session| {
            tokio::spawn(async move {
                let applied = session.up().await;
                session.close().await;
                applied
            })
        });
        for applied in join_all(all_at_once).await {
            applied.unwrap().unwrap();
        }
        assert_eq!(catalogue(&database).await, ours());
    }
}

/// The migrations by which the history was numbered anew, from the newest on.
const NUMBERING: usize = 3;

/// The schema of the release before that.
async fn before_numbering() -> (TestDatabase, Migrations) {
    let database = TestDatabase::fresh().await;
    let mut migrations = Migrations::connect(&database.options()).await.unwrap();
    migrations.down(NUMBERING).await.unwrap();
    (database, migrations)
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
    migrations.down(1).await.unwrap();
    database.execute("CREATE INDEX history_ref_key ON history (amount)").await;
    assert_eq!(migrations.up().await.unwrap().len(), 1);
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
        assert!(refused.contains("history_is_of_the_release_before"), "{refused}");
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
