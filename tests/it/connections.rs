//! How connections end, whoever serves them: the shop, the gateway, the admin API, the echo. A client that
//! asked properly gets its answer, and one that did not can read what was wrong.

use std::net::SocketAddr;
use std::time::Duration;

use merch_store::gateway::echo;
use merch_store::http::{self, ServerOptions};
use reqwest::Client;
use tokio::net::TcpListener;

use crate::gateway::admin::{Desk, TOKEN};
use crate::support::backend::ok;
use crate::support::person::PASSWORD;
use crate::support::raw::{Raw, refusal, says_close, status};
use crate::support::shop::Replica;
use crate::support::{Act, Backend, TestGateway, TestShop, eventually};

const HOURS: Duration = Duration::from_secs(7200);

/// Much more than is read of a body that nobody wants, and than a socket holds.
const LARGE: usize = 6 * 1024 * 1024;

/// One of each that serves HTTP, with small limits.
struct Servers {
    shop: TestShop,
    gateway: TestGateway,
    desk: Desk,
    echo: SocketAddr,
    backend: Backend,
}

impl Servers {
    async fn open() -> Servers {
        let shop = TestShop::with(|config| config.http.header_limit = 8192).await;
        let backend = Backend::start(|_| Act::Says(ok("fine"))).await;
        let gateway = TestGateway::at(&[backend.address], |config| {
            config.gateway.header_limit = 8192;
            config.gateway.body_limit = 16384;
        })
        .await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let echo = listener.local_addr().unwrap();
        let options = ServerOptions {
            header_limit: 8192,
            header_timeout: HOURS,
            max_connections: 100.try_into().unwrap(),
            grace: Duration::ZERO,
            trusted: None,
            limited: false,
        };
        http::start(listener, echo::router(), options, &shop.lifecycle).unwrap();
        Servers { shop, gateway, desk: Desk::open(&[]).await, echo, backend }
    }

    /// Each with its address and the headers that it wants to see.
    fn all(&self) -> [(&'static str, SocketAddr, String); 4] {
        let host = "Host: shop\r\n".to_owned();
        let token = format!("{host}Authorization: Bearer {TOKEN}\r\n");
        [
            ("the shop", self.shop.address, host.clone()),
            ("the gateway", self.gateway.address, host.clone()),
            ("the echo", self.echo, host),
            ("the admin API", self.desk.address, token),
        ]
    }
}

#[tokio::test]
async fn a_client_that_closes_its_sending_side_gets_all_of_its_answers() {
    let servers = Servers::open().await;
    for (server, address, headers) in servers.all() {
        for (requests, answers) in [
            (format!("GET /docs/ HTTP/1.1\r\n{headers}\r\n"), 1),
            (format!("GET /docs/ HTTP/1.1\r\n{headers}\r\n").repeat(3), 3),
            (format!("POST /docs/ HTTP/1.1\r\n{headers}Content-Length: 2\r\n\r\n{{}}"), 1),
            (
                format!("POST /docs/ HTTP/1.1\r\n{headers}Transfer-Encoding: chunked\r\n\r\n")
                    + "2\r\n{}\r\n0\r\n\r\n",
                1,
            ),
            (format!("GET /docs/ HTTP/1.0\r\n{headers}\r\n"), 1),
        ] {
            let mut client = Raw::connect(address).await;
            client.says(&requests).await;
            client.finishes().await;
            let heard = client.hears_a_goodbye().await;
            let heads = heard.matches("HTTP/1.1 ").count() + heard.matches("HTTP/1.0 ").count();
            assert_eq!(heads, answers, "{server}: {requests} {heard}");
        }
    }
}

#[tokio::test]
async fn an_order_of_a_client_that_closes_its_sending_side_meanwhile_is_answered() {
    let shop = TestShop::with(|config| {
        config.database.statement_timeout = HOURS;
        config.http.request_timeout = HOURS;
    })
    .await;
    let alice = shop.logs_in("alice").await;
    let lock = shop.database.lock("writer_turn").await;
    let mut client = Raw::connect(shop.address).await;
    let head = format!("Host: shop\r\nAuthorization: Bearer {}\r\n", alice.token);
    client.says(format!("GET /api/buy/cup HTTP/1.1\r\n{head}\r\n")).await;
    client.finishes().await;
    shop.database.has_waiting(1).await;
    drop(lock);
    assert_eq!(status(&client.hears_a_goodbye().await), 200);
    assert_eq!(alice.coins().await, 980);

    let body = format!(r#"{{"username": "bob", "password": "{PASSWORD}"}}"#);
    let length = body.len();
    let mut client = Raw::connect(shop.address).await;
    let head = format!("POST /api/auth HTTP/1.1\r\nHost: shop\r\nContent-Length: {length}\r\n\r\n");
    client.says(head + &body).await;
    client.finishes().await;
    let answer = client.hears_a_goodbye().await;
    assert!(status(&answer) == 200 && answer.contains(r#"{"token":""#), "{answer}");
    shop.is_honest().await;
}

#[tokio::test]
async fn what_breaks_off_in_the_middle_is_refused_and_does_nothing() {
    let servers = Servers::open().await;
    let alice = servers.shop.logs_in("alice").await;
    servers.shop.logs_in("bob").await;
    let authorization = format!("Authorization: Bearer {}\r\n", alice.token);
    for (server, address, mut headers) in servers.all() {
        let path = match server {
            "the admin API" => "/backends",
            _ => "/api/sendCoin",
        };
        if server == "the shop" {
            headers += &authorization;
        }
        let body = r#"{"toUser": "bob", "amount": 1"#;
        for beginning in [
            format!("POST {path} HTTP/1.1\r\n{headers}Content-Length: 30\r\n\r\n{body}"),
            format!("POST {path} HTTP/1.1\r\n{headers}Transfer-Encoding: chunked\r\n\r\n{body}"),
            format!(
                "POST {path} HTTP/1.1\r\n{headers}Transfer-Encoding: chunked\r\n\r\n1e\r\n{body}"
            ),
            format!("GET {path} HTTP/1.1\r\n{headers}"),
            format!("GET {path} HTT"),
            format!("GET {path} HTTP/1.1\r"),
            "G".into(),
        ] {
            let mut client = Raw::connect(address).await;
            client.says(&beginning).await;
            client.finishes().await;
            let answer = client.hears_a_goodbye().await;
            assert_eq!(refusal(&answer), (400, "invalid_request".into()), "{server}: {beginning}");
            assert!(says_close(&answer), "{server}: {answer}");
        }
        // Nothing at all is no mistake.
        let mut client = Raw::connect(address).await;
        client.finishes().await;
        assert_eq!(client.hears_a_goodbye().await, "", "{server}");
    }
    assert_eq!(alice.coins().await, 1000);
    assert_eq!(servers.backend.requests(), [""; 0]);
}

/// Requests that are refused for another reason before anything was read of their bodies.
fn refused_early(server: &str) -> Vec<(&'static str, u16)> {
    match server {
        "the shop" => vec![
            ("POST /api/sendCoin", 401),
            ("POST /api/nothing", 404),
            ("PUT /api/auth", 405),
            ("GET /health/live", 200),
        ],
        "the gateway" => {
            vec![("POST /metrics", 404), ("TRACE /", 405), ("GET /health/live", 200)]
        }
        "the echo" => vec![],
        _ => vec![("POST /nothing", 404), ("PUT /reload", 405), ("GET /backends", 200)],
    }
}

#[tokio::test]
async fn an_answer_before_a_small_body_was_read_leaves_the_connection_open() {
    let servers = Servers::open().await;
    for (server, address, headers) in servers.all() {
        for (line, expected) in refused_early(server) {
            let mut client = Raw::connect(address).await;
            for (framing, body) in [
                ("Content-Length: 5", "01234"),
                ("Transfer-Encoding: chunked", "5\r\n01234\r\n0\r\n\r\n"),
                ("Content-Length: 40000", &"x".repeat(40_000)),
            ] {
                if server == "the gateway" && body.len() > 16384 {
                    continue;
                }
                client.says(format!("{line} HTTP/1.1\r\n{headers}{framing}\r\n\r\n")).await;
                client.says(body).await;
                let answer = client.hears_an_answer().await;
                if body.len() > 16384 {
                    // Whatever is asked for, that is too much.
                    assert_eq!(refusal(&answer).0, 413, "{server}, {line}: {answer}");
                } else {
                    assert_eq!(status(&answer), expected, "{server}, {line}: {answer}");
                }
                assert!(!says_close(&answer), "{server}, {line}: {answer}");
            }
        }
    }
}

#[tokio::test]
async fn a_client_that_reads_after_it_has_sent_everything_can_read_why_that_was_too_much() {
    let servers = Servers::open().await;
    let (all, chunk) = ("x".repeat(LARGE), format!("10000\r\n{}\r\n", "x".repeat(0x10000)));
    let chunks = chunk.repeat(LARGE / 0x10000) + "0\r\n\r\n";
    for (server, address, headers) in servers.all() {
        let path = match server {
            "the admin API" => "/backends",
            _ => "/api/auth",
        };
        let length = format!("Content-Length: {LARGE}");
        for (framing, body) in [(length.as_str(), &all), ("Transfer-Encoding: chunked", &chunks)] {
            for version in ["1.1", "1.0"].iter().filter(|it| body == &all || **it == "1.1") {
                let mut client = Raw::connect(address).await;
                client
                    .says(format!("POST {path} HTTP/{version}\r\n{headers}{framing}\r\n\r\n"))
                    .await;
                client.says(body).await;
                let answer = client.hears_a_goodbye().await;
                let answer = answer.replacen("HTTP/1.0", "HTTP/1.1", 1);
                assert_eq!(refusal(&answer), (413, "body_too_large".into()), "{server}, {framing}");
                assert!(says_close(&answer), "{server}: {answer}");
            }
        }
    }
    // Nor does a token that is missing cut anybody off.
    for (line, address) in [
        ("POST /api/nothing", servers.shop.address),
        ("POST /nothing", servers.desk.address),
        ("POST /metrics", servers.gateway.address),
    ] {
        let mut client = Raw::connect(address).await;
        client
            .says(format!("{line} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"))
            .await;
        client.says(&chunks).await;
        let answer = client.hears_a_goodbye().await;
        assert_eq!(refusal(&answer).0, 404, "{line}: {answer}");
        assert!(says_close(&answer), "{answer}");
    }
}

#[tokio::test]
async fn who_expects_to_be_told_to_go_on_is_told_so_or_why_not() {
    let servers = Servers::open().await;
    for (server, address, headers) in servers.all() {
        let too_long = if server == "the echo" { (1 << 20) + 1 } else { 16385 };
        let path = match server {
            "the admin API" => "/backends",
            _ => "/api/auth",
        };
        let early = refused_early(server).into_iter();
        let early = early.map(|(line, expected)| (line.to_owned(), expected));
        for (line, expected) in early.chain([(format!("POST {path}"), 413)]) {
            let length = if expected == 413 { too_long } else { 5 };
            let mut client = Raw::connect(address).await;
            client
                .says(format!(
                    "{line} HTTP/1.1\r\n{headers}Expect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
                ))
                .await;
            let answer = client.hears_an_answer().await;
            assert_eq!(status(&answer), expected, "{server}, {line}: {answer}");
            assert!(says_close(&answer), "{server}, {line}: {answer}");
        }
    }
    let body = format!(r#"{{"username": "bob", "password": "{PASSWORD}"}}"#);
    let mut client = Raw::connect(servers.shop.address).await;
    client
        .says(format!(
            "POST /api/auth HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: {}\r\n\r\n",
            body.len()
        ))
        .await;
    assert_eq!(client.hears_until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.says(body).await;
    assert_eq!(status(&client.hears_an_answer().await), 200);
}

#[tokio::test]
async fn requests_in_turn_on_one_connection_are_all_answered_while_the_database_is_away() {
    let (shop, proxy) = TestShop::behind_proxy(|_| ()).await;
    let alice = shop.logs_in("alice").await;
    proxy.goes_away();
    shop.refuses_until_the_database_is_back(&alice).await;
    let authorization = format!("Authorization: Bearer {}\r\n", alice.token);
    let mut client = Raw::connect(shop.address).await;
    for turn in 0..300 {
        let headers = if turn % 3 == 0 { "" } else { &authorization };
        let body = r#"{"toUser": "bob", "amount": 1}"#;
        let length = body.len();
        let head = format!("Host: a\r\n{headers}Content-Length: {length}\r\n\r\n");
        client.says(format!("POST /api/sendCoin HTTP/1.1\r\n{head}")).await;
        client.says(body).await;
        let answer = client.hears_an_answer().await;
        assert_eq!(refusal(&answer), (503, "database_away".into()), "{turn}");
        assert!(!says_close(&answer), "{turn}: {answer}");
    }
}

#[tokio::test]
async fn a_length_that_is_none_is_refused() {
    let servers = Servers::open().await;
    for (server, address, headers) in servers.all() {
        for length in [
            "99999999999999999999",
            "18446744073709551616",
            "-1",
            "+5",
            "5, 5",
            "5 5",
            "0x5",
            "5.0",
            "",
            "five",
            "5\r\nContent-Length: 6",
        ] {
            let mut client = Raw::connect(address).await;
            client
                .says(format!("POST / HTTP/1.1\r\n{headers}Content-Length: {length}\r\n\r\n"))
                .await;
            let answer = client.hears_a_goodbye().await;
            assert_eq!(refusal(&answer), (400, "invalid_request".into()), "{server}: {length}");
            assert!(says_close(&answer), "{server}: {answer}");
        }
        for length in [(1 << 20) + 1, 1 << 40, u64::MAX - 2] {
            let mut client = Raw::connect(address).await;
            client
                .says(format!("POST / HTTP/1.1\r\n{headers}Content-Length: {length}\r\n\r\n"))
                .await;
            let answer = client.hears_an_answer().await;
            assert_eq!(refusal(&answer).0, 413, "{server}: {length}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_body_that_stops_is_408_and_an_order_that_takes_too_long_is_not() {
    let shop = TestShop::with(|config| {
        config.http.request_timeout = Duration::from_millis(300);
        config.database.statement_timeout = HOURS;
    })
    .await;
    // A login may take longer than that.
    let patient = Replica::patient(shop.database.url().as_str()).await;
    let alice = patient.logs_in("alice").await;
    let headers = format!("Host: a\r\nAuthorization: Bearer {}\r\n", alice.token);
    for (request, expect) in [
        ("POST /api/auth", "Content-Length: 100\r\n\r\n{"),
        ("POST /api/auth", "Content-Length: 100\r\n\r\n"),
        ("POST /api/sendCoin", "Content-Length: 30\r\n\r\n{\"toUser\": \"bob\", \"amount\": 1"),
        ("POST /api/sendCoin", "Transfer-Encoding: chunked\r\n\r\n5\r\n{"),
        ("POST /api/sendCoin", "Expect: 100-continue\r\nContent-Length: 30\r\n\r\n"),
    ] {
        let mut client = Raw::connect(shop.address).await;
        client.says(format!("{request} HTTP/1.1\r\n{headers}{expect}")).await;
        let answer = client.hears_a_goodbye().await;
        let answer = answer.strip_prefix("HTTP/1.1 100 Continue\r\n\r\n").unwrap_or(&answer);
        assert_eq!(refusal(answer), (408, "body_timeout".into()), "{request}");
        assert!(says_close(answer), "{answer}");
    }
    // What does not wait for its body may be under way.
    let _lock = shop.database.lock("writer_turn").await;
    for body in ["", "{\"toUser\": "] {
        let mut client = Raw::connect(shop.address).await;
        let length = "Content-Length: 30\r\n\r\n";
        client.says(format!("POST /api/buy/cup HTTP/1.1\r\n{headers}{length}{body}")).await;
        let answer = client.hears_a_goodbye().await;
        assert_eq!(refusal(&answer), (503, "timeout".into()));
        assert!(says_close(&answer), "{answer}");
    }
}

#[tokio::test]
async fn what_is_no_request_is_refused_like_any_other() {
    let servers = Servers::open().await;
    let long = "x".repeat(20_000);
    let many: String = (0..200).map(|number| format!("X-{number}: x\r\n")).collect();
    for (request, expected) in [
        ("\0\0\0\0\r\n\r\n".into(), (400, "invalid_request")),
        ("\u{16}\u{3}\u{1}\0\u{5}\u{1}\0\0".into(), (400, "invalid_request")),
        ("GET\r\n\r\n".into(), (400, "invalid_request")),
        ("GET /\r\n\r\n".into(), (400, "invalid_request")),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n".into(), (400, "invalid_request")),
        ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n".into(), (400, "invalid_request")),
        ("GET / HTTP/1.1\r\nno colon\r\n\r\n".into(), (400, "invalid_request")),
        ("GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n".into(), (400, "invalid_request")),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n".into(), (400, "invalid_request")),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n folded\r\n\r\n".into(), (400, "invalid_request")),
        ("GET / HTTP/9.9\r\n\r\n".into(), (505, "version_not_supported")),
        ("\r\nGET / HTTP/1.2\r\nHost: a\r\n\r\n".into(), (505, "version_not_supported")),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".into(), (505, "version_not_supported")),
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), (414, "uri_too_long")),
        (format!("GET /?{long}"), (414, "uri_too_long")),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"), (431, "head_too_large")),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), (431, "head_too_large")),
    ] {
        for (server, address, _) in servers.all() {
            // Alone, and behind a request that is one.
            for before in [0, 1] {
                let mut client = Raw::connect(address).await;
                if before == 1 {
                    client.says("HEAD /health/live HTTP/1.1\r\nHost: a\r\n\r\n").await;
                    client.hears_until("\r\n\r\n").await;
                }
                client.says(&request).await;
                let answer = client.hears_a_goodbye().await;
                let (status, code) = refusal(&answer);
                assert_eq!((status, code.as_str()), expected, "{server}: {request:?}");
                assert!(says_close(&answer), "{server}: {answer}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_no_request_behind_an_answer_with_a_body_is_refused_too() {
    let servers = Servers::open().await;
    for (server, address, headers) in servers.all() {
        let mut client = Raw::connect(address).await;
        for path in ["/docs", "/docs/swagger-ui-bundle.js", "/health/live"] {
            client.says(format!("GET {path} HTTP/1.1\r\n{headers}\r\n")).await;
            client.hears_an_answer().await;
        }
        client.says("\0\r\n\r\n").await;
        let answer = client.hears_a_goodbye().await;
        assert_eq!(refusal(&answer), (400, "invalid_request".into()), "{server}");
    }
}

#[tokio::test]
async fn http_2_is_refused_where_it_is_not_spoken() {
    let servers = Servers::open().await;
    for (server, address, _) in servers.all() {
        for (before, pieces) in [
            (false, &["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0"][..]),
            (false, &["PRI * HT", "TP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0"]),
            (false, &["\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]),
            (true, &["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]),
        ] {
            if server == "the gateway" && !before && pieces[0].starts_with("PRI") {
                continue;
            }
            let mut client = Raw::connect(address).await;
            if before {
                client.says("HEAD /health/live HTTP/1.1\r\nHost: a\r\n\r\n").await;
                client.hears_until("\r\n\r\n").await;
            }
            for piece in pieces {
                client.says(piece).await;
            }
            let answer = client.hears_a_goodbye().await;
            let expected = (505, "version_not_supported".into());
            assert_eq!(refusal(&answer), expected, "{server}: {pieces:?}");
        }
    }
}

#[tokio::test]
async fn what_is_no_request_is_refused_in_words_in_http_1_0_too() {
    let servers = Servers::open().await;
    for (server, address, _) in servers.all() {
        let mut client = Raw::connect(address).await;
        let request = "HEAD /health/live HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n";
        client.says(request).await;
        client.hears_until("\r\n\r\n").await;
        client.says("\0\r\n\r\n").await;
        let answer = client.hears_a_goodbye().await;
        let (version, answer) = answer.split_at("HTTP/1.0".len());
        assert_eq!(version, "HTTP/1.0", "{server}");
        let answer = format!("HTTP/1.1{answer}");
        assert_eq!(refusal(&answer), (400, "invalid_request".into()), "{server}");
        assert!(says_close(&answer), "{server}: {answer}");
    }
}

#[tokio::test]
async fn what_is_no_request_is_counted() {
    let shop = TestShop::open().await;
    let mut client = Raw::connect(shop.address).await;
    client.says("GET / HTTP/7.7\r\n\r\n").await;
    assert_eq!(status(&client.hears_a_goodbye().await), 505);
    let counted = r#"merch_http_requests_total{route="unmatched",status="505"}"#;
    eventually("it is counted", async || {
        let metrics = Client::new().get(format!("{}/metrics", shop.base)).send().await.unwrap();
        metrics.text().await.unwrap().lines().any(|line| line.starts_with(counted))
    })
    .await;
}
