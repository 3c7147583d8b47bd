//! Signals: heard from the first moment in every command, and what each of them comes to.

use std::fs;

use merch_store::storage::Audit;
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::support::process::{command, send_signal};
use crate::support::shop::SECRET;
use crate::support::{Person, Process, TestDatabase, eventually};

/// A command for the database behind `silence`, who takes connections and says nothing.
fn waiting_for(silence: &TcpListener, arguments: &[&str]) -> Command {
    let mut command = command(arguments);
    let port = silence.local_addr().unwrap().port();
    let url = format!("postgres://merch@127.0.0.1:{port}/merch?sslmode=disable");
    command.env("MERCH__DATABASE__URL", url).env("MERCH__AUTH__JWT_SECRET", SECRET);
    command
}

/// Handled, not left to the system, which has no defaults for the first process of a container:
/// there is an exit code.
#[tokio::test]
async fn a_command_that_waits_for_its_database_ends_at_a_signal() {
    let silence = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for arguments in [
        &["serve", "--address", "127.0.0.1:0"][..],
        &["up", "--replicas", "1", "--address", "127.0.0.1:0"],
        &["migrate", "up"],
        &["migrate", "status"],
        &["seed"],
        &["audit"],
    ] {
        for (signal, code) in [("TERM", 143), ("INT", 130)] {
            let mut waiting = waiting_for(&silence, arguments).spawn().unwrap();
            let _held = silence.accept().await.unwrap();
            send_signal(signal, waiting.id().unwrap().try_into().unwrap());
            let status = waiting.wait().await.unwrap();
            assert_eq!(status.code(), Some(code), "{arguments:?}, SIG{signal}");
        }
    }
}

#[tokio::test]
async fn a_server_that_has_nothing_to_wait_for_ends_in_order_at_a_signal() {
    for arguments in [
        &["gateway", "--address", "127.0.0.1:0", "--backend", "http://127.0.0.1:1"][..],
        &["echo", "--address", "127.0.0.1:0"],
    ] {
        for signal in ["TERM", "INT"] {
            let mut server = command(arguments);
            let mut server = server.stdout(std::process::Stdio::piped()).spawn().unwrap();
            let mut lines = server.stdout.take().unwrap();
            tokio::io::AsyncReadExt::read_u8(&mut lines).await.unwrap();
            send_signal(signal, server.id().unwrap().try_into().unwrap());
            assert_eq!(server.wait().await.unwrap().code(), Some(0), "{arguments:?}, SIG{signal}");
        }
    }
}

#[tokio::test]
async fn a_first_start_that_is_interrupted_can_be_made_again() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let arguments = ["serve", "--address", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()];
    let mut first = command(&arguments).spawn().unwrap();
    eventually("the cluster is being made", async || {
        fs::read_dir(&data).is_ok_and(|mut entries| {
            entries.any(|it| it.unwrap().file_name().to_string_lossy().starts_with("postgres"))
        })
    })
    .await;
    send_signal("TERM", first.id().unwrap().try_into().unwrap());
    assert!(matches!(first.wait().await.unwrap().code(), Some(0 | 143)));
    let shop = Process::serve(&["--data-dir", data.to_str().unwrap()], &[]).await;
    shop.signal("TERM");
    assert_eq!(shop.exit_code().await, Some(0));
}

#[tokio::test]
async fn a_seed_that_is_interrupted_leaves_honest_books_and_can_go_on() {
    let database = TestDatabase::fresh().await;
    let mut seed = command(&["seed", "--users", "1000000", "--database-url"]);
    let mut seed = seed.arg(database.url().as_str()).spawn().unwrap();
    eventually("some are there", async || database.number("SELECT count(*) FROM users").await > 0)
        .await;
    send_signal("TERM", seed.id().unwrap().try_into().unwrap());
    assert_eq!(seed.wait().await.unwrap().code(), Some(143));
    // What was under way is given up as soon as the server notices.
    let sql = "SELECT count(*) FROM pg_stat_activity
               WHERE datname = current_database() AND state = 'active'
                 AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
    eventually("nobody works there", async || database.number(sql).await == 0).await;
    assert_eq!(database.number("SELECT count(*) % 1000 FROM users").await, 0);
    let audit = Audit::run(&database.options()).await.unwrap();
    assert!(audit.lies.is_empty(), "{:?}", audit.lies);
}

#[tokio::test]
async fn a_hangup_has_the_log_opened_anew_and_nothing_ends() {
    let database = TestDatabase::fresh().await;
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let environment = [
        ("MERCH__DATABASE__URL", database.url().as_str()),
        ("MERCH__AUTH__JWT_SECRET", SECRET),
        ("MERCH__LOG__LEVEL", "info"),
        ("MERCH__LOG__FILE", log.to_str().unwrap()),
    ];
    let serve = Process::serve(&[], &environment).await;
    let up = ["--replicas", "1"];
    let up = Process::up(&up, &environment).await;
    for server in [serve, up] {
        let client = reqwest::Client::new();
        let alice = Person::logs_in(&client, &server.base, "alice", "correct horse").await;
        if log.exists() {
            fs::rename(&log, folder.path().join("aside")).unwrap();
        }
        server.signal("HUP");
        eventually("the log is there", async || log.exists()).await;
        server.signal("HUP");
        alice.buys("pen").await.is_done();
        server.signal("TERM");
        assert_eq!(server.exit_code().await, Some(0));
    }
}
