//! The gateway and its echo as somebody runs them.

use std::process::Stdio;

use reqwest::Client;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStdout};

use crate::support::backend::nobody;
use crate::support::process::{command, send_signal};
use crate::support::{Process, eventually};

/// A program that has said where it serves; killed with this.
struct Program {
    url: String,
    child: Child,
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Program {
    async fn start(arguments: &[&str], says: &str) -> Program {
        let mut command = command(arguments);
        command.env("MERCH__LOG__LEVEL", "error").env("MERCH__SHUTDOWN__GRACE_MS", "0");
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        loop {
            let line = stdout.next_line().await.unwrap().expect("it says where it serves");
            if let Some(url) = line.strip_prefix(says) {
                let url = url.trim().replace("localhost", "127.0.0.1");
                return Program { url, child, _stdout: stdout };
            }
        }
    }

    async fn ends(mut self) {
        send_signal("TERM", self.child.id().unwrap().try_into().unwrap());
        assert_eq!(self.child.wait().await.unwrap().code(), Some(0));
    }
}

#[tokio::test]
async fn a_gateway_without_a_file_passes_requests_on_to_its_backends_in_turn() {
    let start = || Program::start(&["echo", "--address", "127.0.0.1:0"], "  echo  ");
    let (one, two) = (start().await, start().await);
    let arguments =
        ["gateway", "--address", "127.0.0.1:0", "--backend", &one.url, "--backend", &two.url];
    let gateway = Program::start(&arguments, "  gateway   ").await;
    let client = Client::new();
    let url = format!("{}/hello?a=b", gateway.url);
    for (body, message) in [
        (r#"{"example": 123}"#, serde_json::json!({"example": 123})),
        ("x", serde_json::Value::Null),
    ] {
        let answer = client.post(&url).body(body).send().await.unwrap();
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&answer.text().await.unwrap()).unwrap(),
            serde_json::json!({
                "http_method": "POST", "request_uri": "/hello?a=b", "your_message": message,
            })
        );
    }
    one.ends().await;
    for _ in 0..4 {
        assert_eq!(client.get(&url).send().await.unwrap().status(), 200);
    }
    gateway.ends().await;
    two.ends().await;
}

#[tokio::test]
async fn what_cannot_start_says_why_and_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let no_pem = tempfile::NamedTempFile::new().unwrap();
    let no_pem = no_pem.path().to_str().unwrap();
    let gateway = ["gateway", "--address", "127.0.0.1:0", "--backend", "http://127.0.0.1:1"];
    let with = |arguments: [&'static str; 2]| [&gateway[..], &arguments].concat();
    let certificate = ("MERCH__GATEWAY__TLS_CERTIFICATE", no_pem);
    let key = ("MERCH__GATEWAY__TLS_KEY", no_pem);
    let redis = |url| ("MERCH__LIMITS__REDIS_URL", url);
    let admin = ("MERCH__GATEWAY__ADMIN__ADDRESS", "127.0.0.1:0");
    for (arguments, environment, said) in [
        (vec!["gateway"], vec![], "--backend"),
        (vec!["gateway", "--backend", "localhost"], vec![], "gateway.backends"),
        (gateway.to_vec(), vec![certificate, key], "gateway.tls_certificate"),
        (gateway.to_vec(), vec![certificate], "gateway.tls_key"),
        (gateway.to_vec(), vec![admin], "`openssl rand -hex 32`"),
        (gateway.to_vec(), vec![redis("localhost:6379")], "redis://host:6379/0"),
        (gateway.to_vec(), vec![("MERCH__LOG__FILE", "/no/such/folder")], "/no/such/folder"),
        (with(["--database-url", "mysql://shop"]), vec![], "database.url"),
        (with(["--config", "no-such-file.toml"]), vec![], "no-such-file.toml"),
        (vec!["echo", "--address", &taken], vec![], "--address"),
        (vec!["echo", "--config", "no-such-file.toml"], vec![], "no-such-file.toml"),
        (vec!["gateway", "--address", &taken, "--backend", "http://a"], vec![], "--address"),
    ] {
        let output = command(&arguments).envs(environment).output().await.unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
        assert!(error.contains(said), "{arguments:?}: {error}");
        assert!(!error.contains("a task died"), "{arguments:?}: {error}");
    }
}

#[tokio::test]
async fn every_miss_is_logged_with_the_backends_name() {
    let (folder, dead) = (tempfile::tempdir().unwrap(), nobody().await);
    let log = folder.path().join("log");
    let environment = [
        ("MERCH__LOG__LEVEL", "warn"),
        ("MERCH__LOG__FILE", log.to_str().unwrap()),
        ("MERCH__GATEWAY__UPSTREAM__HEALTH__PATH", ""),
        ("MERCH__GATEWAY__ADMIN__ADDRESS", "127.0.0.1:0"),
        ("MERCH__GATEWAY__ADMIN__TOKEN", "the token of the integration tests"),
    ];
    let gateway = Process::gateway(&["--backend", &format!("http://{dead}")], &environment).await;
    for request in ["first", "second"] {
        let asking = Client::new().get(&gateway.base).header("X-Request-Id", request);
        assert_eq!(asking.send().await.unwrap().status(), 502);
    }
    let is_miss = |line: &&str| line.contains("did not answer") && line.contains(&dead.to_string());
    eventually("both are in the log", async || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let misses: Vec<_> = text.lines().filter(is_miss).collect();
        misses.len() == 2 && misses[0].contains("first") && misses[1].contains("second")
    })
    .await;
}
