//! What a database, a role or a URL may be set to: overridden where it would cost coins or
//! sense, and refused by name where it cannot be.

use crate::support::TestDatabase;
use crate::support::database::TestRole;
use crate::support::pgbouncer::PgBouncer;
use crate::support::process::command;
use crate::support::shop::{Replica, SECRET};

#[tokio::test]
async fn a_database_that_cannot_hold_every_letter_is_refused_by_every_command() {
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let database = TestDatabase::in_encoding(encoding).await;
        for arguments in [
            &["serve", "--address", "127.0.0.1:0"][..],
            &["gateway", "--address", "127.0.0.1:0", "--backend", "http://127.0.0.1:9"],
            &["migrate", "status"],
            &["migrate", "up"],
            &["seed"],
            &["audit"],
        ] {
            let mut program = command(arguments);
            program.env("MERCH__DATABASE__URL", database.url().as_str());
            let output = program.env("MERCH__AUTH__JWT_SECRET", SECRET).output().await.unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
            let name = database.url().path().trim_start_matches('/').to_owned();
            for expected in [encoding, "needs UTF8", "ENCODING 'UTF8'", &name] {
                assert!(said.contains(expected), "{arguments:?}: {expected}: {said}");
            }
        }
        let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
        assert_eq!(database.number(tables).await, 0);
    }
}

/// Everything that a role can be set to and that a shop must not notice.
const ODD: [&str; 14] = [
    "synchronous_commit = off",
    "default_transaction_isolation = 'serializable'",
    "client_encoding = 'LATIN1'",
    "standard_conforming_strings = off",
    "bytea_output = 'escape'",
    "DateStyle = 'SQL, DMY'",
    "IntervalStyle = 'sql_standard'",
    "TimeZone = 'Asia/Tokyo'",
    "statement_timeout = 1",
    "lock_timeout = 1",
    "idle_session_timeout = 1",
    "idle_in_transaction_session_timeout = 1",
    "enable_indexscan = off",
    "lc_messages = 'C'",
];

#[tokio::test]
async fn what_a_role_is_set_to_changes_nothing_and_every_commit_is_durable() {
    let database = TestDatabase::fresh().await;
    let role = TestRole::of(&database).await;
    database
        .execute(&format!(
            "GRANT ALL ON ALL TABLES IN SCHEMA public TO {0};
             GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {0};
             CREATE TABLE seen (commits text); GRANT ALL ON seen TO {0};
             CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 INSERT INTO seen SELECT current_setting('synchronous_commit'); RETURN NEW;
             END $$;
             CREATE TRIGGER see BEFORE INSERT ON history FOR EACH ROW EXECUTE FUNCTION see()",
            role.name
        ))
        .await;
    for setting in ODD {
        database.execute(&format!("ALTER ROLE {} SET {setting}", role.name)).await;
    }
    let pooler = PgBouncer::start(&role.url, "transaction", "").await;
    for (url, key) in [(&role.url, "a key"), (pooler.url(), "another key")] {
        let shop = Replica::patient(url.as_str()).await;
        let client = reqwest::Client::new();
        let maria = crate::support::Person::logs_in(&client, shop.base(), "Мария", "пароль").await;
        maria.buys_once("cup", key).await.is_done();
        assert_eq!(maria.buys_once("cup", key).await.status, 200);
        assert!(maria.gets("/api/history").await.text.contains("cup"));
        shop.stop().await;
        // Sessions of a pooler are what the pooler made them: these would end them at once.
        for setting in ["statement_timeout", "idle_session_timeout"] {
            database.execute(&format!("ALTER ROLE {} RESET {setting}", role.name)).await;
        }
    }
    let durable = "SELECT count(*) FROM seen WHERE commits = 'on'";
    assert_eq!(database.number(durable).await, 3);
    assert_eq!(database.number("SELECT count(*) FROM seen").await, 3);
}

#[tokio::test]
async fn a_role_that_may_only_read_can_audit_and_is_refused_by_name_elsewhere() {
    let database = TestDatabase::fresh().await;
    let role = TestRole::of(&database).await;
    let read_only = "SET default_transaction_read_only = on";
    database
        .execute(&format!(
            "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {0}; ALTER ROLE {0} {read_only}",
            role.name
        ))
        .await;
    let audit = command(&["audit", "--database-url", role.url.as_str()]).output().await.unwrap();
    assert_eq!(audit.status.code(), Some(0), "{audit:?}");
    let seed = command(&["seed", "--database-url", role.url.as_str()]).output().await.unwrap();
    let said = String::from_utf8(seed.stderr).unwrap();
    assert_eq!(seed.status.code(), Some(1), "{said}");
    assert!(said.contains("read-only"), "{said}");
}
