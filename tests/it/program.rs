//! The program as somebody runs it: starts with nothing set up, ends when asked to, and
//! comes back from being killed.

use std::path::Path;
use std::time::Duration;

use reqwest::Client;
use tokio::task::JoinSet;

use crate::support::person::PASSWORD;
use crate::support::process::{command, is_running, postmaster_pid};
use crate::support::{Person, Process, Reply, TestDatabase, eventually};

/// A shop on a private PostgreSQL, in the data folder at `data`.
async fn private_shop(data: &Path) -> Process {
    Process::serve(&["--data-dir", data.to_str().unwrap()], &[]).await
}

async fn alice_at(shop: &Process) -> Person {
    Person::logs_in(&Client::new(), &shop.base, "alice", PASSWORD).await
}

#[tokio::test]
async fn a_shop_without_configuration_starts_serves_and_keeps_its_data() {
    // Like a home: nobody else may enter it, the database's user included.
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");

    let shop = private_shop(&data).await;
    let said = &shop.banner;
    for expected in [env!("CARGO_PKG_VERSION"), "/docs", data.to_str().unwrap(), "PostgreSQL"] {
        assert!(said.contains(expected), "{expected} is missing: {said}");
    }
    let alice = alice_at(&shop).await;
    alice.buys("cup").await.is_done();
    shop.signal("TERM");
    assert_eq!(shop.exit_code().await, Some(0));

    let shop = private_shop(&data).await;
    let alice = alice.at(&shop.base);
    assert_eq!((alice.coins().await, alice.owns("cup").await), (980, 1));
    shop.signal("INT");
    assert_eq!(shop.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_data_folder_has_one_shop_and_tools_share_its_database() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let data = data.to_str().unwrap();
    let shop = private_shop(Path::new(data)).await;
    alice_at(&shop).await.buys("pen").await.is_done();

    let second = command(&["serve", "--address", "127.0.0.1:0", "--data-dir", data]);
    let second = { second }.output().await.unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains(data) && said.contains(&format!("pid {}", shop.pid())), "{said}");

    let audit = command(&["audit", "--data-dir", data]).output().await.unwrap();
    let said = String::from_utf8(audit.stdout).unwrap();
    assert_eq!(audit.status.code(), Some(0), "{said}");
    assert!(said.contains("the books are honest"), "{said}");
    shop.signal("TERM");
    assert_eq!(shop.exit_code().await, Some(0));

    // Nobody serves any more: the tool starts the database by itself.
    let status = command(&["migrate", "status", "--data-dir", data]).output().await.unwrap();
    assert_eq!(status.status.code(), Some(0), "{status:?}");
}

#[tokio::test]
async fn a_shop_killed_together_with_its_database_recovers_and_loses_nothing() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let mut shop = private_shop(&data).await;
    let alice = alice_at(&shop).await;
    for _ in 0..5 {
        alice.buys("pen").await.is_done();
    }
    let postmaster = postmaster_pid(&data).unwrap();
    shop.signal("KILL");
    crate::support::process::send_signal("KILL", postmaster);
    eventually("the database is dead", async || !is_running(postmaster)).await;
    assert_eq!(shop.ends().await, None);

    let shop = private_shop(&data).await;
    let alice = alice.at(&shop.base);
    assert_eq!((alice.coins().await, alice.owns("pen").await), (950, 5));
}

#[tokio::test]
async fn a_killed_shop_takes_its_database_along() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let shop = private_shop(&data).await;
    let postmaster = postmaster_pid(&data).unwrap();
    assert!(is_running(postmaster));
    shop.signal("KILL");
    eventually("the database has ended", async || !is_running(postmaster)).await;
}

#[tokio::test]
async fn a_killed_private_database_is_started_again() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let shop = private_shop(&data).await;
    let alice = alice_at(&shop).await;
    let first = postmaster_pid(&data).unwrap();
    crate::support::process::send_signal("KILL", first);
    eventually("there is another one", async || {
        postmaster_pid(&data).is_some_and(|pid| pid != first)
    })
    .await;
    eventually("purchases are possible again", async || alice.buys("pen").await.status == 200)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shop_that_is_asked_to_end_drops_no_request_and_says_first_that_it_is_not_ready() {
    let database = TestDatabase::fresh().await;
    let shop = Process::replica(database.url().as_str()).await;
    let alice = alice_at(&shop).await;

    let mut clients = JoinSet::new();
    for _ in 0..8 {
        let alice = alice.clone();
        clients.spawn(async move {
            let mut done = 0;
            loop {
                // A connection for each request: it is refused, or answered.
                let client = Client::builder().pool_max_idle_per_host(0).build().unwrap();
                let request = alice.with_client(&client).request(reqwest::Method::GET, "/api/info");
                match Reply::try_to(request).await {
                    Ok(reply) => {
                        assert_eq!(reply.status, 200, "{reply:?}");
                        done += 1;
                    }
                    Err(error) if error.is_connect() => return done,
                    Err(error) => panic!("an accepted request was dropped: {error:?}"),
                }
            }
        });
    }
    shop.signal("TERM");
    let client = Client::new();
    let ready = client.get(format!("{}/health/ready", shop.base));
    eventually("it says that it is not ready", async || {
        let reply = Reply::to(ready.try_clone().unwrap()).await;
        reply.status == 503 && reply.json()["code"] == "shutting_down"
    })
    .await;
    for done in clients.join_all().await {
        assert!(done > 0);
    }
    assert_eq!(shop.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_deadline_ends_the_wait_for_a_request_that_does_not_end() {
    let database = TestDatabase::fresh().await;
    let environment = [
        ("MERCH__DATABASE__URL", database.url().as_str()),
        ("MERCH__AUTH__JWT_SECRET", crate::support::shop::SECRET),
        ("MERCH__SHUTDOWN__GRACE_MS", "0"),
        ("MERCH__SHUTDOWN__DEADLINE_MS", "200"),
        ("MERCH__HTTP__REQUEST_TIMEOUT_MS", "600000"),
        ("MERCH__DATABASE__STATEMENT_TIMEOUT_MS", "600000"),
    ];
    let shop = Process::serve(&[], &environment).await;
    let alice = alice_at(&shop).await;
    // Somebody holds the turn, so this purchase waits for ever.
    let mut holder = database.connect().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE writer_turn IN EXCLUSIVE MODE")
        .execute(&mut holder)
        .await
        .unwrap();
    let purchase = tokio::spawn(async move {
        let request = alice.request(reqwest::Method::GET, "/api/buy/pen");
        Reply::try_to(request).await
    });
    eventually("the purchase waits for its turn", async || {
        let sql = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event_type = 'Lock'";
        database.number(sql).await == 1
    })
    .await;
    shop.signal("TERM");
    assert_eq!(shop.exit_code().await, Some(1));
    assert!(purchase.await.unwrap().is_err());
}

#[tokio::test]
async fn bad_settings_are_refused_at_start_with_the_name_of_the_key() {
    for (key, value, named) in [
        ("MERCH__HTTP__BODY_LIMIT", "large", "http.body_limit"),
        ("MERCH__HTTP__COLOUR", "red", "colour"),
        ("MERCH__DATABASE__URL", "postgres://localhost/shop", "MERCH__AUTH__JWT_SECRET"),
        ("MERCH__DATABASE__URL", "mysql://root:hunter2@localhost/shop", "auth.jwt_secret"),
        ("MERCH__LOG__LEVEL", "merch_store=loud", "log.level"),
    ] {
        let mut program = command(&["serve", "--address", "127.0.0.1:0"]);
        let output = program.env(key, value).output().await.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{key}={value}: {said}");
        assert!(said.starts_with("error: ") && said.contains(named), "{key}={value}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[tokio::test]
async fn every_command_has_help_with_examples() {
    for arguments in [
        &["--help"][..],
        &["serve", "--help"],
        &["migrate", "--help"],
        &["seed", "--help"],
        &["audit", "--help"],
        &["openapi", "--help"],
        &["gateway", "--help"],
        &["echo", "--help"],
        &["up", "--help"],
    ] {
        let output = command(arguments).output().await.unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(said.contains("Examples:"), "{arguments:?}: {said}");
    }
}

#[tokio::test]
async fn a_database_that_comes_late_is_waited_for() {
    let database = TestDatabase::fresh().await;
    let proxy = crate::support::proxy::Proxy::start(database.url()).await;
    proxy.goes_away();
    let url = database.url_through(proxy.port());
    let starting = Process::replica(url.as_str());
    let arriving = async {
        proxy.is_refusing_somebody().await;
        proxy.comes_back();
    };
    let together = async { tokio::join!(starting, arriving).0 };
    let shop = tokio::time::timeout(Duration::from_secs(60), together).await.unwrap();
    alice_at(&shop).await.buys("pen").await.is_done();
}
