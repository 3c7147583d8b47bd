//! A role with rights on rows only: it serves where there is nothing to migrate, and can do no
//! more than docs/DATABASE.md grants it.

use std::path::Path;
use std::process::Output;

use sqlx::{Connection, PgConnection};

use crate::numbering::before_numbering;
use crate::support::TestDatabase;
use crate::support::database::TestRole;
use crate::support::process::command;
use crate::support::shop::{Bank, Replica, SECRET};

/// The GRANTs of the document, for `role`.
fn documented_grants(role: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/DATABASE.md");
    let document = std::fs::read_to_string(path).unwrap();
    let block = document.split("```sql\n").find(|block| block.starts_with("GRANT")).unwrap();
    let grants = block.split("```").next().unwrap().replace("TO shop;", &format!("TO {role};"));
    grants.replace("FOR ROLE owner", "FOR ROLE CURRENT_USER")
}

async fn run(role: &TestRole, arguments: &[&str]) -> Output {
    let mut program = command(arguments);
    program.env("MERCH__DATABASE__URL", role.url.as_str());
    program.env("MERCH__AUTH__JWT_SECRET", SECRET).output().await.unwrap()
}

#[track_caller]
fn refused(output: &Output) -> String {
    let said = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said
}

#[tokio::test]
async fn a_role_with_the_documented_rights_can_do_all_that_serving_takes_and_no_more() {
    let database = TestDatabase::fresh().await;
    let role = TestRole::of(&database).await;
    database.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC").await;
    database.execute(&documented_grants(&role.name)).await;

    let shop = Replica::start(role.url.as_str()).await;
    let people = Bank::open(&database, 2, 1000).await;
    let alice = people[0].at(shop.base());
    alice.buys("cup").await.is_done();
    alice.sends_once("user2", 5, "a key").await.is_done();
    assert_eq!(alice.coins().await, 975);

    for arguments in
        [&["migrate", "status"][..], &["audit"], &["seed", "--users", "9"], &["migrate", "up"]]
    {
        let output = run(&role, arguments).await;
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{arguments:?}");
    }
    for sql in [
        "CREATE TABLE mine ()",
        "DROP TABLE writer_turn",
        "ALTER TABLE history ADD COLUMN note text",
        "UPDATE history SET amount = 1",
        "DELETE FROM history",
        "TRUNCATE writer_turn",
        "DELETE FROM balance",
        "UPDATE users SET password_hash = ''",
        "UPDATE merch SET price = 1",
        "DELETE FROM _sqlx_migrations",
    ] {
        let mut connection = PgConnection::connect(role.url.as_str()).await.unwrap();
        let error = sqlx::raw_sql(sql).execute(&mut connection).await.unwrap_err();
        let code = error.as_database_error().and_then(|said| said.code()).unwrap();
        assert_eq!(code, "42501", "{sql}");
    }
    shop.stop().await;
}

#[tokio::test]
async fn a_role_that_lacks_a_right_is_refused_at_start_with_the_name_of_it() {
    let database = TestDatabase::fresh().await;
    let role = TestRole::of(&database).await;
    database.execute(&documented_grants(&role.name)).await;
    for (right, named) in [
        ("UPDATE ON writer_turn", "UPDATE on writer_turn"),
        ("INSERT ON history", "INSERT on history"),
        ("USAGE ON SEQUENCE users_id_seq", "USAGE on users_id_seq"),
    ] {
        database.execute(&format!("REVOKE {right} FROM {}", role.name)).await;
        let said = refused(&run(&role, &["serve", "--address", "127.0.0.1:0"]).await);
        assert!(said.contains(named) && said.contains("docs/DATABASE.md"), "{said}");
    }
    database.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC").await;
    database.execute(&format!("REVOKE USAGE ON SCHEMA public FROM {}", role.name)).await;
    for arguments in [&["serve", "--address", "127.0.0.1:0"][..], &["migrate", "status"]] {
        let said = refused(&run(&role, arguments).await);
        assert!(said.contains("the role lacks USAGE on SCHEMA public"), "{said}");
    }
}

#[tokio::test]
async fn a_role_with_the_documented_rights_goes_on_selling_while_a_newer_release_migrates() {
    let (database, mut migrations) = before_numbering().await;
    let role = TestRole::of(&database).await;
    // What the document had for the release before, and rights on what is to come.
    let grants = documented_grants(&role.name).replace("log_head, ", "");
    database.execute(&grants).await;
    migrations.up().await.unwrap();

    let mut replica = PgConnection::connect(role.url.as_str()).await.unwrap();
    let sell = "BEGIN ISOLATION LEVEL SERIALIZABLE; LOCK TABLE writer_turn IN EXCLUSIVE MODE;
                INSERT INTO history (to_id, amount) VALUES (1, 5); COMMIT";
    sqlx::raw_sql(sell).execute(&mut replica).await.unwrap();
    replica.close().await.unwrap();
    assert_eq!(database.number("SELECT id FROM log_head").await, 1);
}

#[tokio::test]
async fn a_role_that_may_not_migrate_is_told_what_there_is_to_migrate_and_changes_nothing() {
    let database = TestDatabase::blank().await;
    let role = TestRole::of(&database).await;
    let status = run(&role, &["migrate", "status"]).await;
    assert_eq!(status.status.code(), Some(1), "{status:?}");
    assert!(String::from_utf8(status.stdout).unwrap().starts_with("0001 "));
    for arguments in [&["serve", "--address", "127.0.0.1:0"][..], &["migrate", "up"], &["seed"]] {
        let said = refused(&run(&role, arguments).await);
        assert!(said.contains("migration 0001") && said.contains("as the owner"), "{said}");
    }
    // Nor is it told to choose a schema, where it may use none.
    database.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC").await;
    let said = refused(&run(&role, &["migrate", "up"]).await);
    assert!(said.contains("migration 0001") && said.contains("as the owner"), "{said}");
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(database.number(tables).await, 0);
}
