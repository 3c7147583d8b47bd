//! What happens around every request: its id, its line in the log, and limits on how long
//! and how large it may be.

use std::time::Duration;

use reqwest::header::HeaderValue;
use reqwest::{Client, Method};
use serde_json::Value;

use crate::support::person::{PASSWORD, authenticate};
use crate::support::raw::{self, Raw};
use crate::support::shop::SECRET;
use crate::support::{Person, Process, Reply, TestDatabase, TestShop};

#[tokio::test]
async fn a_request_keeps_its_id() {
    let shop = TestShop::open().await;
    let longest = "x".repeat(64);
    for id in ["7", "check-1/2", "{0b9f~17}", longest.as_str()] {
        for path in ["/api/merch", "/api/info", "/no/such/path"] {
            let request = shop.request(Method::GET, path).header("X-Request-Id", id);
            assert_eq!(Reply::to(request).await.header("x-request-id"), Some(id), "{path}");
        }
    }
}

#[tokio::test]
async fn a_request_without_a_decent_id_gets_a_new_one() {
    let shop = TestShop::open().await;
    let too_long = "x".repeat(65);
    let ids = ["", "two words", "tab\there", "ключ", &too_long];
    let mut made = Vec::new();
    for id in ids.map(Some).into_iter().chain([None, None]) {
        let mut request = shop.request(Method::GET, "/health/live");
        if let Some(id) = id {
            request =
                request.header("X-Request-Id", HeaderValue::from_bytes(id.as_bytes()).unwrap());
        }
        let id = Reply::to(request).await.header("x-request-id").unwrap().to_owned();
        assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        made.push(id);
    }
    made.sort();
    made.dedup();
    assert_eq!(made.len(), 7);
}

#[tokio::test]
async fn the_log_is_json_and_keeps_secrets_even_when_it_says_everything() {
    let database = TestDatabase::fresh().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let shop = Process::serve_logging_to(
        std::fs::File::create(&path).unwrap(),
        &[
            ("MERCH__DATABASE__URL", database.url().as_str()),
            ("MERCH__AUTH__JWT_SECRET", SECRET),
            ("MERCH__AUTH__JWT_PREVIOUS_SECRET", "the secret before that one, as long as it"),
            ("MERCH__LOG__LEVEL", "trace"),
            ("MERCH__LOG__FORMAT", "json"),
            ("MERCH__SHUTDOWN__GRACE_MS", "0"),
        ],
    )
    .await;
    let client = Client::new();
    let alice = Person::logs_in(&client, &shop.base, "alice", PASSWORD).await;
    authenticate(&client, &shop.base, "alice", "a wrong guess")
        .await
        .is_error(401, "wrong_password");
    // A password where no password belongs, and one that is none.
    authenticate(&client, &shop.base, "alice", "bad\u{7}guess")
        .await
        .is_error(400, "invalid_request");
    let numeric = client.post(format!("{}/api/auth", shop.base));
    let numeric = numeric.body(r#"{"username": "alice", "password": 8675309}"#);
    Reply::to(numeric).await.is_error(400, "invalid_request");
    alice.buys_once("cup", "the key of a cup").await.is_done();
    let request = alice.request(Method::GET, "/api/info?token=from-a-query");
    assert_eq!(Reply::to(request.header("X-Request-Id", "check-1")).await.status, 200);
    let broken = format!("GET /api/info HTTP/9.9\r\nAuthorization: Bearer {}\r\n\r\n", alice.token);
    let address = shop.base.strip_prefix("http://").unwrap().parse().unwrap();
    assert_eq!(raw::status(&raw::answer(address, broken).await), 505);
    shop.signal("TERM");
    assert_eq!(shop.exit_code().await, Some(0));

    let log = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}")))
        .collect();
    let answered: Vec<&Value> = lines.iter().filter(|line| line["message"] == "answered").collect();
    let statuses: Vec<&Value> = answered.iter().map(|line| &line["status"]).collect();
    assert_eq!(statuses, [200, 401, 400, 400, 200, 200]);
    let look = answered.iter().find(|line| line["id"] == "check-1").unwrap();
    assert_eq!((&look["method"], &look["path"]), (&"GET".into(), &"/api/info".into()));
    assert!(look["milliseconds"].is_number() && look["timestamp"].is_string(), "{look}");
    assert!(lines.iter().any(|line| line["level"] == "DEBUG"), "{log}");

    let signature = alice.token.rsplit_once('.').unwrap().1;
    for secret in [
        PASSWORD,
        "a wrong guess",
        "guess",
        "8675309",
        "$argon2id$",
        signature,
        SECRET,
        "the secret before",
        "from-a-query",
        "the key of a cup",
    ] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret} is in the log");
    }
}

#[tokio::test]
async fn one_line_a_request_can_be_switched_off() {
    let database = TestDatabase::fresh().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let shop = Process::serve_logging_to(
        std::fs::File::create(&path).unwrap(),
        &[
            ("MERCH__DATABASE__URL", database.url().as_str()),
            ("MERCH__AUTH__JWT_SECRET", SECRET),
            ("MERCH__LOG__ACCESS", "false"),
            ("MERCH__SHUTDOWN__GRACE_MS", "0"),
        ],
    )
    .await;
    let client = Client::new();
    assert_eq!(Reply::to(client.get(format!("{}/api/merch", shop.base))).await.status, 200);
    shop.signal("TERM");
    assert_eq!(shop.exit_code().await, Some(0));
    let log = std::fs::read_to_string(&path).unwrap();
    assert!(log.contains("stopped") && !log.contains("answered"), "{log}");
}

#[tokio::test]
async fn a_client_whose_head_does_not_arrive_is_cut() {
    let shop = TestShop::with(|config| config.http.header_timeout = Duration::from_millis(100));
    let shop = shop.await;
    for beginning in ["", "GET", "GET /health/live HTTP/1.1\r\nHost: shop\r\nX-Slow: "] {
        let mut client = Raw::connect(shop.address).await;
        client.says(beginning).await;
        assert_eq!(client.hears().await, "", "{beginning:?}");
    }
    // And so is one that was answered and then says nothing more.
    let mut client = Raw::connect(shop.address).await;
    client.says("GET /health/live HTTP/1.1\r\nHost: shop\r\n\r\n").await;
    assert_eq!(raw::status(&client.hears().await), 200);
}
