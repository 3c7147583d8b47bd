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
        let (ended, shown) = at_a_terminal(&database, &all, async || answer).await;
        assert_eq!(ended.code(), Some(exit_code), "{answer:?}: {shown}");
        assert!(shown.contains("Type yes"), "{shown}");
    }
    assert_eq!(our_things(&database).await, [""; 0]);
}

/// Runs `migrate` at a terminal where somebody is asked and types what `answer` says: how it ends,
/// and what is shown.
async fn at_a_terminal(
    database: &TestDatabase,
    arguments: &[&str],
    answer: impl AsyncFnOnce() -> &'static str,
) -> (ExitStatus, String) {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
    let open = || OpenOptions::new().read(true).write(true).open(&name).unwrap();
    let ours = File::from(terminal);
    let mut child = {
        let mut all = vec!["migrate"];
        all.extend(arguments);
        all.extend(["--database-url", database.url().as_str()]);
        let mut command = command(&all);
        command.stdin(open()).stdout(open()).stderr(open()).spawn().unwrap()
    };
    let mut shown = String::new();
    while !shown.contains("Type yes") {
        let read = read_from(&ours).await;
        assert_ne!(read, "", "it ended before it asked: {shown}");
        shown.push_str(&read);
    }
    (&ours).write_all(answer().await.as_bytes()).unwrap();
    loop {
        match read_from(&ours).await {
            read if read.is_empty() => break,
            read => shown.push_str(&read),
        }
    }
    (child.wait().await.unwrap(), shown)
}

/// What comes next from `terminal`; nothing if nobody holds it open any longer.
async fn read_from(terminal: &File) -> String {
    let mut terminal = terminal.try_clone().unwrap();
    let reading = tokio::task::spawn_blocking(move || {
        let mut bytes = [0; 4096];
        let read = terminal.read(&mut bytes).unwrap_or(0);
        String::from_utf8_lossy(&bytes[..read]).into_owned()
    });
    reading.await.unwrap()
}

#[tokio::test]
async fn a_shop_that_comes_while_somebody_is_asked_keeps_its_schema() {
    let database = TestDatabase::fresh().await;
    Bank::open(&database, 1, 100).await;
    let before = our_things(&database).await;
    let mut shop = None;
    let (ended, shown) = at_a_terminal(&database, &["down", "--all"], async || {
        shop = Some(Replica::start(database.url().as_str()).await);
        "yes\n"
    })
    .await;
    assert_eq!(ended.code(), Some(1), "{shown}");
    assert!(shown.contains("merch-store is connected"), "{shown}");
    assert_eq!(our_things(&database).await, before);
    shop.unwrap().stop().await;
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
        let all = [&["down", "--yes"][..], &["down", "--all", "--yes"], &["down"]];
        let at_once = all.map(|arguments| {
            let mut command = command(&["migrate", "--database-url", url.as_str()]);
            command.args(arguments).output()
        });
        for output in join_all(at_once).await {
            let output = output.unwrap();
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
