//! `merch-store seed`: users in bulk.

use std::process::Output;

use crate::support::process::command;
use crate::support::{Person, TestDatabase, TestShop};

async fn seed(database: &TestDatabase, arguments: &[&str]) -> Output {
    let mut all = vec!["seed", "--database-url", database.url().as_str()];
    all.extend(arguments);
    command(&all).output().await.unwrap()
}

async fn seeds(database: &TestDatabase, arguments: &[&str]) -> String {
    let output = seed(database, arguments).await;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn users_are_made_alike_and_can_log_in() {
    let shop = TestShop::open().await;
    let arguments = ["--users", "2500", "--coins", "77", "--password", "open sesame"];
    let said = seeds(&shop.database, &arguments).await;
    assert!(said.starts_with("created 2500 users with 77 coins each in "), "{said}");
    assert!(said.ends_with("; 0 were there already\n"), "{said}");

    let alike = "SELECT count(*) FROM generate_series(1, 2500) AS number
                 JOIN users ON username = 'user' || number
                 JOIN balance ON user_id = users.id AND coins = 77";
    assert_eq!(shop.database.number(alike).await, 2500);
    assert_eq!(shop.database.number("SELECT count(*) FROM users").await, 2500);

    for name in ["user1", "user2500"] {
        let user = Person::logs_in(&shop.client, &shop.base, name, "open sesame").await;
        assert_eq!(user.coins().await, 77);
        user.buys("book").await.is_done();
    }
    shop.authenticates("user2", "another").await.is_error(401, "wrong_password");
    shop.is_honest().await;
}

#[tokio::test]
async fn users_who_are_there_already_are_left_as_they_are() {
    let shop = TestShop::open().await;
    let earlier = shop.logs_in("user3").await;
    let said = seeds(&shop.database, &["--users", "5", "--coins", "77"]).await;
    assert!(said.starts_with("created 4 users") && said.ends_with("; 1 were there already\n"));
    assert_eq!(earlier.coins().await, 1000);

    let user = Person::logs_in(&shop.client, &shop.base, "user1", "password").await;
    user.buys("book").await.is_done();
    let said = seeds(&shop.database, &["--users", "7", "--coins", "5", "--password", "new"]).await;
    assert!(said.starts_with("created 2 users") && said.ends_with("; 5 were there already\n"));
    assert_eq!(user.coins().await, 27);
    Person::logs_in(&shop.client, &shop.base, "user1", "password").await;
    shop.logs_in("user3").await;

    let said = seeds(&shop.database, &["--users", "7"]).await;
    assert!(said.starts_with("created 0 users") && said.ends_with("; 7 were there already\n"));
    let said = seeds(&shop.database, &["--users", "0"]).await;
    assert!(said.starts_with("created 0 users"), "{said}");
    shop.is_honest().await;
}

#[tokio::test]
async fn a_blank_database_gets_its_schema_first_and_the_books_add_up() {
    let database = TestDatabase::blank().await;
    // Together more coins than one account could hold.
    let most = i64::MAX.to_string();
    seeds(&database, &["--users", "3", "--coins", &most]).await;
    let audit = command(&["audit", "--database-url", database.url().as_str()]).output().await;
    let audit = audit.unwrap();
    let said = String::from_utf8(audit.stdout).unwrap();
    assert_eq!(audit.status.code(), Some(0), "{said}");
    assert!(said.contains(" 27670116110564327421 coins\n"), "{said}");
}

#[tokio::test]
async fn bad_arguments_are_refused_with_a_reason_before_anything_is_done() {
    let database = TestDatabase::blank().await;
    let long = "x".repeat(1025);
    for (argument, exit_code, reason) in [
        ("--coins=0", 2, "0 is not in 1.."),
        ("--coins=-3", 2, "-3 is not in 1.."),
        ("--coins=9223372036854775808", 2, "'--coins <COINS>'"),
        ("--coins=lots", 2, "'--coins <COINS>'"),
        ("--users=-1", 2, "'--users <N>'"),
        ("--users=many", 2, "'--users <N>'"),
        ("--users=4294967296", 2, "'--users <N>'"),
        ("--user=1", 2, "--user"),
        ("--password=", 1, "--password: password must not be empty"),
        ("--password= x", 1, "--password: password must not start or end with a space"),
        (&format!("--password={long}"), 1, "--password: password must be at most 1024 bytes long"),
    ] {
        let output = seed(&database, &[argument]).await;
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(exit_code), "{argument}: {said}");
        assert!(said.starts_with("error: ") && said.contains(reason), "{argument}: {said}");
        assert!(!said.contains(&long), "a password shows: {said}");
        assert_eq!(output.stdout, b"", "{argument}");
    }
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(database.number(tables).await, 0);
}
