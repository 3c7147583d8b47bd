//! Where results go, and what a command does when they cannot go there.
#![cfg(target_os = "linux")] // Elsewhere there is no /dev/full.

use std::fs::File;
use std::process::{Output, Stdio};

use crate::support::TestDatabase;
use crate::support::process::command;

/// Every command that prints a result, in an order in which each succeeds on a database with a
/// schema and without people.
const RESULTS: [&[&str]; 16] = [
    &["--help"],
    &["-h"],
    &["--version"],
    &["help"],
    &["help", "migrate"],
    &["migrate", "down", "--help"],
    &["--show-config"],
    &["serve", "--show-config"],
    &["openapi"],
    &["openapi", "--api", "admin"],
    &["openapi", "--format", "postman"],
    &["migrate", "status"],
    &["migrate", "up"],
    &["audit"],
    &["seed", "--users", "0"],
    &["migrate", "down"],
];

/// Every command that serves.
const SERVERS: [&[&str]; 5] = [
    &["--address", "127.0.0.1:0"],
    &["serve", "--address", "127.0.0.1:0"],
    &["gateway", "--address", "127.0.0.1:0", "--backend", "http://127.0.0.1:1"],
    &["up", "--address", "127.0.0.1:0", "--replicas", "1"],
    &["echo", "--address", "127.0.0.1:0"],
];

/// Runs the program with its results going to `stdout` and everything else to `stderr`.
async fn run(
    arguments: &[&str],
    database: &TestDatabase,
    stdout: impl Into<Stdio>,
    stderr: impl Into<Stdio>,
) -> Output {
    let mut command = command(arguments);
    command.env("MERCH__DATABASE__URL", database.url().as_str());
    command.env("MERCH__AUTH__JWT_SECRET", crate::support::shop::SECRET);
    command.env("MERCH__SHUTDOWN__GRACE_MS", "0");
    command.stdout(stdout).stderr(stderr).spawn().unwrap().wait_with_output().await.unwrap()
}

fn full_device() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

fn said(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

#[tokio::test]
async fn a_result_that_finds_no_room_is_an_error() {
    let database = TestDatabase::fresh().await;
    for arguments in RESULTS.iter().chain(&SERVERS) {
        let output = run(arguments, &database, full_device(), Stdio::piped()).await;
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        let last = said.lines().last().unwrap();
        let error = "error: cannot write to standard output: No space left on device";
        assert!(last.starts_with(error), "{arguments:?}: {said}");
    }
}

#[tokio::test]
async fn a_reader_who_has_seen_enough_is_no_error() {
    let database = TestDatabase::fresh().await;
    for arguments in RESULTS {
        let (reader, gone) = std::io::pipe().unwrap();
        drop(reader);
        let output = run(arguments, &database, gone, Stdio::piped()).await;
        assert_eq!((output.status.code(), said(&output)), (Some(0), ""), "{arguments:?}");
    }
}

#[tokio::test]
async fn a_complaint_that_finds_no_room_leaves_the_exit_code() {
    let database = TestDatabase::fresh().await;
    let nowhere = "--database-url=postgres://127.0.0.1:1/shop";
    for (arguments, exit_code) in [
        (&["audit"][..], 0),
        (&["audit", nowhere], 1),
        (&["migrate", "status", nowhere], 1),
        (&["serve", "--config", "/nowhere/shop.toml"], 1),
        (&["--colour"], 2),
        (&["migrate"], 2),
    ] {
        let (reader, gone) = std::io::pipe().unwrap();
        drop(reader);
        for stderr in [Stdio::from(full_device()), Stdio::from(gone)] {
            let output = run(arguments, &database, Stdio::piped(), stderr).await;
            assert_eq!(output.status.code(), Some(exit_code), "{arguments:?}");
        }
        let output = run(arguments, &database, full_device(), full_device()).await;
        assert_ne!(output.status.code(), Some(0), "{arguments:?}");
        assert!(output.status.code() <= Some(2), "{arguments:?}: {output:?}");
    }
}

#[tokio::test]
async fn closed_standard_streams_are_no_panic() {
    for (redirections, exit_code) in [(">&-", 0), ("2>&-", 0), (">&- 2>&- <&-", 0)] {
        let mut shell = tokio::process::Command::new("sh");
        let script = format!("exec \"$0\" openapi {redirections}");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_merch-store")]);
        let output = shell.output().await.unwrap();
        assert_eq!(output.status.code(), Some(exit_code), "{redirections}: {output:?}");
    }
}
