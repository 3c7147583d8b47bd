//! What commands that work on a shop say where there is none, or another release's.

use std::process::Output;

use sqlx::Connection;

use crate::support::TestDatabase;
use crate::support::process::command;
use crate::support::shop::SECRET;

/// Every command that looks at a shop that is there, or changes it.
const TOOLS: [&[&str]; 5] = [
    &["audit"],
    &["seed", "--users", "1"],
    &["migrate", "status"],
    &["migrate", "down"],
    &["identity", "renew"],
];

async fn runs(arguments: &[&str], database: &TestDatabase) -> Output {
    let mut command = command(arguments);
    command.env("MERCH__DATABASE__URL", database.url().as_str());
    command.env("MERCH__AUTH__JWT_SECRET", SECRET).output().await.unwrap()
}

fn complaint(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

#[tokio::test]
async fn no_tool_makes_a_shop_of_a_folder_without_one() {
    let home = tempfile::tempdir().unwrap();
    let (missing, empty) = (home.path().join("missing/folder"), home.path().join("empty"));
    std::fs::create_dir(&empty).unwrap();
    let file = home.path().join("file");
    std::fs::write(&file, "").unwrap();
    for folder in [&missing, &empty, &file] {
        for arguments in TOOLS {
            let mut command = command(arguments);
            let output = command.arg("--data-dir").arg(folder).output().await.unwrap();
            let said = complaint(&output);
            assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
            let named = format!("error: there is no shop in {}; ", folder.display());
            assert!(said.starts_with(&named), "{arguments:?}: {said}");
        }
    }
    assert!(!missing.exists() && empty.read_dir().unwrap().next().is_none());
}

#[tokio::test]
async fn a_database_without_a_schema_is_said_to_be_one() {
    for (arguments, exit_code, said) in [
        (&["audit"][..], 1, "there is no schema yet"),
        (&["identity", "renew"], 1, "there is no schema yet"),
        (&["migrate", "down"], 0, "nothing to do: the schema is empty"),
        (&["migrate", "down", "--all"], 0, "nothing to do: the schema is empty"),
        (&["migrate", "status"], 1, "pending"),
    ] {
        let database = TestDatabase::blank().await;
        let output = runs(arguments, &database).await;
        let all = complaint(&output).to_owned() + str::from_utf8(&output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(exit_code), "{arguments:?}: {all}");
        assert!(all.contains(said) && !all.contains("relation"), "{arguments:?}: {all}");
    }
}

#[tokio::test]
async fn the_schema_of_a_newer_release_is_left_alone_and_named() {
    let database = TestDatabase::fresh().await;
    let mut connection = database.connect().await;
    let sql = "INSERT INTO _sqlx_migrations
               (version, description, success, checksum, execution_time)
               VALUES (20991231235959, 'a name that is longer than any of ours, and ünïcode',
                       true, '\\x00', 0)";
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    for arguments in [
        &["audit"][..],
        &["seed", "--users", "1"],
        &["identity", "renew"],
        &["migrate", "up"],
        &["migrate", "down"],
        &["serve", "--address", "127.0.0.1:0"],
    ] {
        let output = runs(arguments, &database).await;
        let said = complaint(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        for named in ["newer than this program", "20991231235959", "merch-store migrate down"] {
            assert!(said.contains(named), "{arguments:?}: {said}");
        }
    }
    let output = runs(&["migrate", "status"], &database).await;
    assert_eq!(output.status.code(), Some(1));
    let lines: Vec<&str> = str::from_utf8(&output.stdout).unwrap().lines().collect();
    assert!(lines.last().unwrap().contains("UNKNOWN"), "{lines:?}");
    let columns = |word: &str| lines.iter().filter_map(|line| line.find(word)).collect::<Vec<_>>();
    let states = [columns(" applied"), columns(" UNKNOWN")].concat();
    assert!(states.iter().all(|column| *column == states[0]), "{lines:?}");
}
