//! A gateway's database that is away, or that no waiting makes usable.

use std::fs::{self, File};
use std::time::Duration;

use merch_store::cli::limits::migrate;
use merch_store::storage::DatabaseOptions;
use tokio::time::timeout;

use crate::support::database::TestRole;
use crate::support::process::command;
use crate::support::{Process, TestDatabase, eventually};

#[tokio::test]
async fn a_gateway_stops_trying_to_migrate_what_cannot_be_migrated() {
    let (newer, edited) = (TestDatabase::fresh().await, TestDatabase::fresh().await);
    let record = "INSERT INTO _sqlx_migrations VALUES (9999, 'later', now(), true, '', 0)";
    newer.execute(record).await;
    edited.execute("UPDATE _sqlx_migrations SET checksum = '' WHERE version = 1").await;
    let owned = TestDatabase::blank().await;
    let role = TestRole::of(&owned).await;
    let of_role = DatabaseOptions::from_url(role.url.as_str()).unwrap();
    for (options, what) in
        [(newer.options(), "newer"), (edited.options(), "edited"), (of_role, "not its owner's")]
    {
        let ended = timeout(Duration::from_secs(60), migrate(options)).await;
        assert!(ended.is_ok(), "the schema is {what}");
    }
}

#[tokio::test]
async fn a_gateway_whose_database_is_away_says_so_once_and_then_how_often() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut gateway = command(&["gateway", "--address", "127.0.0.1:0"]);
    gateway.args(["--backend", "http://127.0.0.1:1"]);
    gateway.args(["--database-url", "postgres://merch@127.0.0.1:1/shop"]);
    gateway.stderr(File::create(&log).unwrap());
    let gateway = Process::start(gateway, ("  gateway   ", "\n  backends  ")).await;
    let said = || {
        let text = fs::read_to_string(&log).unwrap();
        let lines = text.lines().filter(|line| line.contains("cannot migrate the database"));
        lines.map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    eventually("it says how often it could not", async || said().len() >= 2).await;
    assert!(said()[1].contains(" times more in "), "{:?}", said());
    drop(gateway);
}
