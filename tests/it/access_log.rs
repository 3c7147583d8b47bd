//! The shop's log of requests: one line each, whose it was, and nothing twice.

use reqwest::{Client, Method};
use serde_json::Value;

use crate::support::person::PASSWORD;
use crate::support::shop::SECRET;
use crate::support::{Backend, Person, Process, Reply, TestDatabase};

/// The log of a shop in `format` that a few people used, behind a proxy that is believed.
async fn log(format: &str) -> String {
    let database = TestDatabase::fresh().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let shop = Process::serve_logging_to(
        std::fs::File::create(&path).unwrap(),
        &[
            ("MERCH__DATABASE__URL", database.url().as_str()),
            ("MERCH__AUTH__JWT_SECRET", SECRET),
            ("MERCH__LOG__FORMAT", format),
            ("MERCH__HTTP__TRUSTED_PROXIES", "127.0.0.0/8"),
            ("MERCH__SHUTDOWN__GRACE_MS", "0"),
        ],
    )
    .await;
    let client = Client::new();
    let alice = Person::logs_in(&client, &shop.base, "alice", PASSWORD).await;
    let from = |person: &Person, path: &str, id: &str| {
        let request = person.request(Method::GET, path).header("X-Request-Id", id);
        Reply::to(request.header("X-Forwarded-For", "6.6.6.6, 203.0.113.7"))
    };
    assert_eq!(from(&alice, "/api/info", "good").await.status, 200);
    // Refused by the ledger, and still known to be hers.
    assert_eq!(from(&alice, "/api/buy/nothing", "refused").await.status, 400);
    let stranger = Person::with_token(&client, "nobody", "none").at(&shop.base);
    assert_eq!(from(&stranger, "/api/info", "stranger").await.status, 401);
    assert_eq!(from(&stranger, "/a%22b%20status=200%0Ac", "hostile").await.status, 404);
    for path in ["/health/live", "/health/ready/", "/metrics", "/%68ealth/live"] {
        let watched = client.get(format!("{}{path}", shop.base)).header("X-Request-Id", "watch");
        assert_eq!(Reply::to(watched).await.status, 200, "{path}");
    }
    shop.signal("TERM");
    assert_eq!(shop.exit_code().await, Some(0));
    std::fs::read_to_string(&path).unwrap()
}

#[tokio::test]
async fn a_line_says_once_whose_request_it_was_and_whence_it_came() {
    let log = log("pretty").await;
    let lines: Vec<&str> = log.lines().filter(|it| it.contains("merch_store::access")).collect();
    let line = |id: &str| {
        let found: Vec<_> = lines.iter().filter(|it| it.contains(&format!(" id={id} "))).collect();
        assert_eq!(found.len(), 1, "{id}: {log}");
        *found[0]
    };
    for line in &lines {
        for field in [" id=", " client=", " method=", " path=", " status=", " milliseconds="] {
            assert_eq!(line.matches(field).count(), 1, "{field} in {line}");
        }
    }
    for (id, path, account) in [
        ("good", "/api/info", true),
        ("refused", "/api/buy/nothing", true),
        ("stranger", "/api/info", false),
        ("hostile", "/a%22b%20status=200%0Ac", false),
    ] {
        let line = line(id);
        assert!(line.contains(" client=203.0.113.7 "), "{line}");
        assert!(line.contains(&format!(" path={path} ")), "{line}");
        assert_eq!(line.contains(" account=1 "), account, "{line}");
    }
    assert!(!log.contains("watch") && !log.contains("6.6.6.6"), "{log}");
    // Logging in, and those four.
    assert_eq!(lines.len(), 5, "{log}");
}

#[tokio::test]
async fn a_line_of_json_says_the_same_and_each_thing_once() {
    let log = log("json").await;
    let lines = log.lines().filter(|line| line.contains("merch_store::access"));
    let lines: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    let line = |id: &str| lines.iter().find(|line| line["id"] == id).unwrap();
    assert_eq!(line("good")["account"], 1);
    assert_eq!(line("stranger")["account"], Value::Null);
    assert_eq!(line("hostile")["path"], "/a%22b%20status=200%0Ac");
    for line in &lines {
        assert!(line["span"].is_null() && line["spans"].is_null(), "{line}");
        assert!(line["client"].is_string() && line["method"].is_string(), "{line}");
    }
    assert_eq!(lines.len(), 5, "{log}");
    // What is written while a request is under way names it once.
    assert!(!log.contains("\"spans\""), "{log}");
}

#[tokio::test]
async fn a_gateway_has_no_line_for_questions_about_its_own_health() {
    let backend = Backend::named("one").await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let url = format!("http://{}", backend.address);
    let environment = [
        ("MERCH__LOG__FILE", path.to_str().unwrap()),
        ("MERCH__LOG__LEVEL", "info"),
        ("MERCH__GATEWAY__ADMIN__ADDRESS", "127.0.0.1:0"),
        ("MERCH__GATEWAY__ADMIN__TOKEN", SECRET),
    ];
    let gateway = Process::gateway(&["--backend", &url], &environment).await;
    for asked in ["/health/live", "/%68ealth/live/", "/hello"] {
        let reply = Reply::to(Client::new().get(format!("{}{asked}", gateway.base))).await;
        assert_eq!(reply.status, 200, "{asked}");
    }
    gateway.signal("TERM");
    assert_eq!(gateway.exit_code().await, Some(0));
    let log = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = log.lines().filter(|it| it.contains("merch_store::access")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].contains(" path=/hello "), "{log}");
}
