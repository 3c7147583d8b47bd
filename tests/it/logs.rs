//! The log of a program in trouble: what repeats is counted, and a file that was moved comes back.

use std::fs::{self, File};
use std::process::Stdio;

use tokio::net::TcpStream;
use tokio::process::Command;

use crate::support::process::{SHOP, command, program};
use crate::support::shop::SECRET;
use crate::support::{Process, TestDatabase, eventually};

/// Where an echo says that it serves, and with what its banner ends.
const ECHO: (&str, &str) = ("  echo  ", "  echo  ");

#[tokio::test]
async fn a_server_without_file_descriptors_says_so_once_and_then_how_often() {
    let database = TestDatabase::fresh().await;
    let mut serve = command(&["serve", "--address", "127.0.0.1:0"]);
    serve.env("MERCH__DATABASE__URL", database.url().as_str());
    serve.env("MERCH__AUTH__JWT_SECRET", SECRET);
    let echo = command(&["echo", "--address", "127.0.0.1:0"]);
    tokio::join!(counts_what_repeats(serve, SHOP), counts_what_repeats(echo, ECHO));
}

async fn counts_what_repeats(server: Command, banner: (&str, &str)) {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 64; exec \"$@\"", "sh", program()]);
    shell.args(server.as_std().get_args()).kill_on_drop(true).stdin(Stdio::null());
    let environment = server.as_std().get_envs();
    shell.envs(environment.filter_map(|(key, value)| Some((key, value?))));
    shell.stderr(File::create(&log).unwrap());
    let server = Process::start(shell, banner).await;

    let address = server.base.strip_prefix("http://").unwrap();
    let mut connections = Vec::new();
    for _ in 0..100 {
        connections.push(TcpStream::connect(address).await.unwrap());
    }
    let said = || {
        let text = fs::read_to_string(&log).unwrap();
        let lines = text.lines().filter(|line| line.contains("cannot accept a connection"));
        lines.map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    eventually("it says how often it could not", async || said().len() >= 2).await;
    let said = said();
    assert!(said[0].contains("Too many open files"), "{said:?}");
    let (_, seconds) = said[1].split_once(" times more in ").unwrap();
    let seconds: u64 = seconds.split(' ').next().unwrap().parse().unwrap();
    assert!(seconds >= 10, "{said:?}");
}

#[tokio::test]
async fn a_log_that_is_moved_or_removed_comes_back_while_the_shop_works() {
    let database = TestDatabase::fresh().await;
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("shop.log");
    let environment = [
        ("MERCH__DATABASE__URL", database.url().as_str()),
        ("MERCH__AUTH__JWT_SECRET", SECRET),
        ("MERCH__LOG__LEVEL", "info"),
        ("MERCH__LOG__FILE", log.to_str().unwrap()),
    ];
    let shop = Process::serve(&[], &environment).await;
    let asks = async |path: &str| {
        let reply = reqwest::get(format!("{}/{path}", shop.base)).await.unwrap();
        assert_eq!(reply.status(), 404);
    };
    asks("first").await;
    let has = |text: &str| fs::read_to_string(&log).is_ok_and(|log| log.contains(text));
    eventually("the first request is in the log", async || has("path=/first")).await;
    fs::rename(&log, folder.path().join("shop.log.old")).unwrap();
    // Without a line to write.
    eventually("the file is there again", async || log.exists()).await;
    asks("second").await;
    eventually("the second request is in it", async || has("path=/second")).await;
    assert!(!has("path=/first"));
    fs::remove_file(&log).unwrap();
    eventually("it is there once more", async || log.exists()).await;
}
