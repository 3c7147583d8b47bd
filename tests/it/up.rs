//! `merch-store up` as somebody runs it: a database, replicas and a gateway, none of which
//! outlives it.

use std::path::Path;

use reqwest::Client;
use tokio::net::TcpListener;

use crate::support::person::PASSWORD;
use crate::support::process::{command, descendants, is_running, postmaster_pid, send_signal};
use crate::support::{Person, Process, Reply, eventually};

/// A replica as the banner has it.
struct Replica {
    url: String,
    pid: i32,
}

/// A gateway, three replicas and a private PostgreSQL in the folder `data` of `home`, where
/// they log as well.
async fn up(home: &Path) -> (Process, Vec<Replica>) {
    let (data, log) = (home.join("data"), home.join("log"));
    let environment = [("MERCH__LOG__FILE", log.to_str().unwrap()), ("MERCH__LOG__LEVEL", "info")];
    let arguments = ["--replicas", "3", "--data-dir", data.to_str().unwrap()];
    let up = Process::up(&arguments, &environment).await;
    let lines = up.banner.lines().filter_map(|line| line.strip_prefix("  replica-"));
    let replicas = lines.map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_number, url, "pid", pid] = words[..] else { panic!("{line}") };
        Replica { url: url.to_owned(), pid: pid.parse().unwrap() }
    });
    let replicas = replicas.collect();
    (up, replicas)
}

impl Replica {
    /// What it has counted since it was started; nothing if it does not answer.
    async fn metrics(&self) -> Option<String> {
        let reply = Reply::try_to(Client::new().get(format!("{}/metrics", self.url))).await;
        reply.ok().map(|reply| reply.text)
    }

    async fn has_served(&self, route: &str) -> bool {
        let count = format!("merch_http_requests_total{{route=\"{route}\",status=\"200\"}}");
        self.metrics().await.is_some_and(|metrics| metrics.contains(&count))
    }
}

#[tokio::test]
async fn one_command_starts_a_shop_that_misses_no_killed_replica_and_ends_whole() {
    let home = tempfile::tempdir().unwrap();
    let (up, replicas) = up(home.path()).await;
    assert_eq!(replicas.len(), 3, "{}", up.banner);
    let alice = Person::logs_in(&Client::new(), &up.base, "alice", PASSWORD).await;
    alice.buys("cup").await.is_done();
    for replica in &replicas {
        eventually("every replica serves", async || {
            assert_eq!(alice.coins().await, 980);
            replica.has_served("/api/info").await
        })
        .await;
    }

    send_signal("KILL", replicas[1].pid);
    eventually("it is started again and has its share", async || {
        assert_eq!(alice.coins().await, 980);
        !is_running(replicas[1].pid) && replicas[1].has_served("/api/info").await
    })
    .await;
    alice.buys("pen").await.is_done();
    assert_eq!(alice.coins().await, 970);

    let started = descendants(up.pid());
    let database = postmaster_pid(&home.path().join("data")).unwrap();
    assert!(started.contains(&replicas[0].pid) && started.contains(&database), "{started:?}");
    up.signal("INT");
    assert_eq!(up.exit_code().await, Some(0));
    for pid in [replicas[0].pid, replicas[2].pid, database] {
        assert!(!is_running(pid), "{pid} is left");
    }
    for (log, last) in [("log", "everything stopped"), ("log.replica-2", "stopped")] {
        let text = std::fs::read_to_string(home.path().join(log)).unwrap();
        assert!(text.trim_end().ends_with(last), "{text}");
    }
    eventually("nothing is left", async || !started.iter().any(|pid| is_running(*pid))).await;
}

#[tokio::test]
async fn whoever_kills_it_kills_everything_that_it_started() {
    let home = tempfile::tempdir().unwrap();
    let (up, replicas) = up(home.path()).await;
    let started = descendants(up.pid());
    let database = postmaster_pid(&home.path().join("data")).unwrap();
    let known = replicas.iter().map(|replica| replica.pid).chain([database]);
    assert!(known.clone().all(|pid| started.contains(&pid)), "{started:?}");
    up.signal("KILL");
    eventually("nothing is left", async || !started.iter().any(|pid| is_running(*pid))).await;
}

#[tokio::test]
async fn what_cannot_be_started_is_refused_before_anything_is() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (address, pool, said) in [
        (taken.as_str(), "8", "--address"),
        ("127.0.0.1:0", "100", "lower --replicas or database.max_connections"),
    ] {
        let arguments = ["up", "--address", address, "--data-dir", data.to_str().unwrap()];
        let mut program = command(&arguments);
        let output = program.env("MERCH__DATABASE__MAX_CONNECTIONS", pool).output().await.unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(said), "{error}");
        assert!(!data.exists(), "{said}");
    }
}

#[tokio::test]
async fn a_replica_that_cannot_start_is_the_end_and_says_why() {
    let url = "postgres://merch@127.0.0.1:1/shop";
    let output = command(&["up", "--address", "127.0.0.1:0", "--database-url", url]).output();
    let output = output.await.unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    for said in ["replica-1", "MERCH__AUTH__JWT_SECRET"] {
        assert!(error.contains(said), "{error}");
    }
}
