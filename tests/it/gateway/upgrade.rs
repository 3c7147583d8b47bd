//! Tunnels after a backend's 101.

use std::time::Duration;

use merch_store::lifecycle::Ended;

use crate::support::backend::ok;
use crate::support::gateway::header;
use crate::support::raw::{Raw, status};
use crate::support::{Act, Backend, TestGateway, eventually};

const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
                        upgrade: websocket\r\nsec-websocket-accept: x\r\n\r\nhello";
const WANTED: &str = "GET /chat HTTP/1.1\r\nhost: a\r\nconnection: keep-alive, Upgrade\r\n\
                      upgrade: websocket\r\nsec-websocket-key: y\r\n\r\n";

async fn switching() -> Backend {
    Backend::start(|_| Act::SaysAndEchoes(SWITCHED.into())).await
}

#[tokio::test]
async fn after_a_101_bytes_go_both_ways_until_either_side_hangs_up() {
    let backend = switching().await;
    let gateway = TestGateway::before(&[&backend]).await;
    let mut client = Raw::connect(gateway.address).await;
    client.says(WANTED).await;
    let head = client.hears_until("hello").await;
    assert_eq!(status(&head), 101);
    assert_eq!(header(&head, "upgrade"), Some("websocket"));
    assert_eq!(header(&head, "connection"), Some("upgrade"));
    assert_eq!(header(&head, "sec-websocket-accept"), Some("x"));
    let heard = backend.request();
    assert_eq!(header(&heard, "connection"), Some("upgrade"));
    assert_eq!(header(&heard, "upgrade"), Some("websocket"));
    assert_eq!(header(&heard, "sec-websocket-key"), Some("y"));
    for said in ["\0\x01\n", "GET / HTTP/1.1\r\n\r\n", "the end"] {
        client.says(said).await;
        assert_eq!(client.hears_until(said).await, said);
    }
    client.finishes().await;
    assert_eq!(client.hears().await, "");
    eventually("the backend is let go", async || backend.open() == 0).await;
}

#[tokio::test]
async fn a_tunnel_is_one_of_the_connections_that_a_backend_may_have() {
    let backend = switching().await;
    let gateway = TestGateway::at(&[backend.address], |config| {
        config.gateway.backend_connections = 1.try_into().unwrap();
    })
    .await;
    let mut client = Raw::connect(gateway.address).await;
    client.says(WANTED).await;
    client.hears_until("hello").await;
    assert_eq!(gateway.get("/").await.0, 503);
    client.finishes().await;
    assert_eq!(client.hears().await, "");
    eventually("there is room again", async || {
        let mut next = Raw::connect(gateway.address).await;
        next.says(WANTED).await;
        next.hears_until("\r\n\r\n").await.starts_with("HTTP/1.1 101")
    })
    .await;
}

#[tokio::test]
async fn what_the_client_says_early_waits_for_the_101() {
    let backend = switching().await;
    let gateway = TestGateway::before(&[&backend]).await;
    let mut client = Raw::connect(gateway.address).await;
    client.says(format!("{WANTED}early")).await;
    client.hears_until("helloearly").await;
    assert_eq!(backend.requests().len(), 1);
}

#[tokio::test]
async fn a_backend_that_does_not_switch_answers_and_the_connection_stays_http() {
    let backend = Backend::start(|_| Act::Says(ok("no"))).await;
    let gateway = TestGateway::before(&[&backend]).await;
    let mut client = Raw::connect(gateway.address).await;
    for _ in 0..2 {
        client.says(WANTED).await;
        let answer = client.hears_until("no").await;
        assert_eq!((status(&answer), header(&answer, "upgrade")), (200, None));
    }
}

#[tokio::test]
async fn http_2_is_not_let_through_a_tunnel() {
    let backend = switching().await;
    let gateway = TestGateway::before(&[&backend]).await;
    for protocol in ["h2c", "H2C, h2", "HTTP/2.0", "h2c\r\nupgrade: http/3", ",", "a b"] {
        let request = format!(
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings, close\r\n\
             http2-settings: AAA\r\nupgrade: {protocol}\r\n\r\n"
        );
        let answer = gateway.answers(request).await;
        assert_eq!(status(&answer), 502, "{answer}");
    }
    for heard in backend.requests() {
        assert_eq!((header(&heard, "upgrade"), header(&heard, "http2-settings")), (None, None));
    }
}

/// What a client that offers `lines` hears of a backend that answers with `answer`, and what the
/// backend was offered.
async fn negotiated(lines: &str, answer: &str) -> (String, Option<String>) {
    let answer = format!("HTTP/1.1 {answer}\r\n\r\n");
    let backend = Backend::start(move |_| Act::SaysAndEchoes(answer.clone())).await;
    let gateway = TestGateway::before(&[&backend]).await;
    let mut client = Raw::connect(gateway.address).await;
    client.says(format!("POST / HTTP/1.1\r\nhost: a\r\n{lines}\r\n\r\n")).await;
    let head = client.hears_until("\r\n\r\n").await;
    (head, header(&backend.request(), "upgrade").map(str::to_owned))
}

#[tokio::test]
async fn a_101_says_what_the_backend_chose_and_not_what_the_client_offered() {
    for (offer, offered, chosen) in [
        ("websocket", "websocket", "websocket"),
        ("websocket", "websocket", "WebSocket"),
        ("foo/2, websocket, bar", "foo/2, websocket, bar", "bar"),
        ("foo/2, websocket", "foo/2, websocket", "foo/2"),
        ("tls/1.3, irc", "tls/1.3, irc", "tls/1.3, irc"),
        ("h2c, websocket", "websocket", "websocket"),
        ("websocket\r\nUpgrade: foo", "websocket, foo", "foo"),
        (", websocket ,,\tfoo", "websocket, foo", "foo"),
    ] {
        let offer = format!("Connection: Upgrade\r\nUpgrade: {offer}");
        let answer = format!(
            "101 Switching Protocols\r\nConnection: x, Upgrade\r\nX: y\r\nUpgrade: {chosen}\r\n\
             Sec-WebSocket-Accept: z\r\nSec-WebSocket-Protocol: chat\r\n\
             Sec-WebSocket-Extensions: permessage-deflate\r\nContent-Length: 5"
        );
        let (head, heard) = negotiated(&offer, &answer).await;
        assert_eq!(status(&head), 101, "{head}");
        assert_eq!(heard.as_deref(), Some(offered));
        for (name, value) in [
            ("upgrade", Some(chosen)),
            ("connection", Some("upgrade")),
            ("sec-websocket-accept", Some("z")),
            ("sec-websocket-protocol", Some("chat")),
            ("sec-websocket-extensions", Some("permessage-deflate")),
            ("content-length", None),
            ("x", None),
        ] {
            assert_eq!(header(&head, name), value, "{head}");
        }
    }
}

#[tokio::test]
async fn a_101_to_what_was_not_offered_is_no_answer() {
    let offer = "Connection: upgrade\r\nUpgrade: foo, bar";
    for (lines, answer) in [
        (offer, "Connection: upgrade\r\nUpgrade: websocket"),
        (offer, "Connection: upgrade\r\nUpgrade: foo, websocket"),
        (offer, "Connection: upgrade\r\nUpgrade: foo\r\nUpgrade: h2c"),
        (offer, "Connection: upgrade\r\nUpgrade: foo/2"),
        (offer, "Connection: upgrade\r\nUpgrade:"),
        (offer, "Connection: upgrade"),
        (offer, "Upgrade: foo"),
        (offer, "Connection: keep-alive\r\nUpgrade: foo"),
        ("Upgrade: foo", "Connection: upgrade\r\nUpgrade: foo"),
        ("Connection: upgrade", "Connection: upgrade\r\nUpgrade: foo"),
        ("Connection: upgrade\r\nUpgrade: h2c, foo", "Connection: upgrade\r\nUpgrade: h2c"),
    ] {
        let (head, _) = negotiated(lines, &format!("101 Switching Protocols\r\n{answer}")).await;
        assert_eq!(status(&head), 502, "{lines} {answer}: {head}");
        assert_eq!(header(&head, "upgrade"), None);
    }
}

#[tokio::test]
async fn a_client_of_http_1_0_cannot_switch() {
    let backend = Backend::start(|_| Act::Says(ok("no"))).await;
    let gateway = TestGateway::before(&[&backend]).await;
    let request = "GET / HTTP/1.0\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    assert!(gateway.answers(request).await.ends_with("no"));
    assert_eq!(header(&backend.request(), "upgrade"), None);
}

#[tokio::test]
async fn a_client_that_must_switch_is_told_to_what() {
    for (answer, told) in [
        ("Connection: upgrade\r\nUpgrade: TLS/1.3, websocket", Some("TLS/1.3, websocket")),
        ("Upgrade: websocket", Some("websocket")),
        ("Connection: upgrade\r\nUpgrade: HTTP/2.0", None),
    ] {
        let answer = format!("426 Upgrade Required\r\nContent-Length: 0\r\n{answer}");
        let (head, _) = negotiated("x: y", &answer).await;
        assert_eq!((status(&head), header(&head, "upgrade")), (426, told), "{head}");
        assert_eq!(header(&head, "connection"), told.map(|_| "upgrade"));
    }
}

#[tokio::test]
async fn a_tunnel_that_stands_still_is_closed() {
    let backend = switching().await;
    let gateway = TestGateway::at(&[backend.address], |config| {
        config.gateway.tunnel_timeout = Duration::from_millis(100);
    })
    .await;
    let mut client = Raw::connect(gateway.address).await;
    client.says(WANTED).await;
    client.hears_until("hello").await;
    assert_eq!(client.hears().await, "");
    eventually("the backend is let go", async || backend.open() == 0).await;
}

#[tokio::test]
async fn a_tunnel_does_not_keep_the_gateway_from_ending_cleanly() {
    let backend = switching().await;
    let gateway = TestGateway::at(&[backend.address], |config| {
        config.shutdown.deadline = Duration::from_secs(4);
    })
    .await;
    let mut client = Raw::connect(gateway.address).await;
    client.says(WANTED).await;
    client.hears_until("hello").await;
    gateway.lifecycle.end();
    client.says("still").await;
    client.hears_until("still").await;
    assert_eq!(client.hears().await, "");
    assert_eq!(gateway.ended().await, Ended::Cleanly);
}
