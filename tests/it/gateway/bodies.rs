//! Bodies on their way: as they come, within limits, and not for ever.

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use hyper::body::Body;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use merch_store::config::Config;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use crate::support::backend::ok;
use crate::support::gateway::header;
use crate::support::raw::{Raw, refusal, status};
use crate::support::{Act, Backend, TestGateway};

const SHORT: Duration = Duration::from_millis(200);
const HOURS: Duration = Duration::from_secs(7200);

#[tokio::test]
async fn an_answer_is_passed_on_as_it_comes_and_ends_where_the_backend_ended_it() {
    for (answer, rest) in [
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n6\r\nsecond\r\n0\r\n\r\n",
            "second",
        ),
        ("HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\nfirstsecond", "second"),
        ("HTTP/1.0 200 OK\r\n\r\nfirstsecond", "second"),
    ] {
        let backend = Backend::start(move |_| Act::SaysAndHangsUp(answer.into())).await;
        let gateway = TestGateway::before(&[&backend]).await;
        assert_eq!(gateway.get("/").await, (200, format!("first{rest}")));
    }
}

#[tokio::test]
async fn a_body_that_is_announced_as_too_long_is_refused_before_anything_else_is_looked_at() {
    let backend = Backend::named("one").await;
    let gateway = TestGateway::at(&[backend.address], |config| {
        config.gateway.body_limit = 16384;
        config.limits.capacity = 1;
        config.limits.rate_per_sec = 1;
    })
    .await;
    for path in ["/", "/metrics", "/health/live", "/"] {
        let head = format!("POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 16385\r\n\r\n");
        let mut client = Raw::connect(gateway.address).await;
        client.says(head).await;
        let answer = client.hears_an_answer().await;
        assert_eq!(refusal(&answer), (413, "body_too_large".into()), "{path}");
    }
    // None of them was counted against the client.
    assert_eq!(gateway.get("/").await.0, 200);
}

#[tokio::test]
async fn neither_side_waits_for_the_end_of_the_others_body() {
    // What is sent comes back, so each part must have gone all the way before the next one.
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n";
    let backend = Backend::start(move |_| Act::SaysAndEchoes(head.into())).await;
    let gateway = TestGateway::before(&[&backend]).await;
    let mut client = Raw::connect(gateway.address).await;
    // The backend takes the head alone for a request, because of the Expect.
    client
        .says("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 8\r\nexpect: 100-continue\r\n\r\n")
        .await;
    let heard = client.hears_until("\r\n\r\n").await;
    assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
}

#[tokio::test]
async fn the_first_part_of_an_answer_does_not_wait_for_the_second() {
    let first = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n";
    let backend = Backend::start(move |_| Act::SaysAndStalls(first.into())).await;
    let gateway = TestGateway::before(&[&backend]).await;
    let mut client = Raw::connect(gateway.address).await;
    client.says("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let heard = client.hears_until("5\r\nfirst\r\n").await;
    assert_eq!(header(&heard, "transfer-encoding"), Some("chunked"));
}

#[tokio::test]
async fn the_first_part_of_a_request_does_not_wait_for_the_second() {
    let backend = Backend::start(|_| Act::Says(ok("one"))).await;
    let gateway = TestGateway::before(&[&backend]).await;
    let mut client = Raw::connect(gateway.address).await;
    // The backend takes this for a whole request, since its chunk looks like the last one.
    client.says("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await;
    client.says("5\r\n0\r\n\r\n\r\n").await;
    client.hears_until("one").await;
    assert!(backend.request().ends_with("\r\n\r\n5\r\n0\r\n\r\n"), "{}", backend.request());
}

#[tokio::test]
async fn a_small_body_leaves_together_with_its_head() {
    let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = TestGateway::at(&[backend.local_addr().unwrap()], |_| ()).await;
    let mut client = Raw::connect(gateway.address).await;
    client.says("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello").await;
    let (mut stream, _) = backend.accept().await.unwrap();
    let mut first = [0; 4096];
    let length = stream.read(&mut first).await.unwrap();
    assert!(first[..length].ends_with(b"\r\n\r\nhello"));
}

#[tokio::test]
async fn a_large_body_comes_through_whole_both_ways() {
    let large = "0123456789abcdef".repeat(200_000);
    let answer = ok(&large);
    let backend = Backend::start(move |_| Act::Says(answer.clone())).await;
    let gateway = TestGateway::before(&[&backend]).await;
    let client = reqwest::Client::new();
    let response = client.post(gateway.url("/")).body(large.clone()).send().await.unwrap();
    assert!(response.text().await.unwrap() == large);
    assert!(backend.request().ends_with(&format!("\r\n\r\n{large}")));
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_and_never_reaches_its_end_at_a_backend() {
    let backend = Backend::named("one").await;
    let settings = |config: &mut Config| config.gateway.body_limit = 5;
    let gateway = TestGateway::at(&[backend.address], settings).await;
    for (body, expected) in [
        ("content-length: 5\r\n\r\nabcde", 200),
        ("content-length: 6\r\n\r\nabcdef", 413),
        ("content-length: 6\r\nexpect: 100-continue\r\n\r\n", 413),
        ("transfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n", 200),
        ("transfer-encoding: chunked\r\n\r\n6\r\nabcdef\r\n0\r\n\r\n", 413),
        ("transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n", 413),
    ] {
        let before = backend.requests().len();
        let request = format!("POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{body}");
        let answer = gateway.answers(request).await;
        assert_eq!(status(&answer), expected, "{body}: {answer}");
        assert_eq!(backend.requests().len() - before, usize::from(expected == 200), "{body}");
    }
}

#[tokio::test]
async fn a_client_is_told_to_send_its_body_when_the_backend_wants_it() {
    let (first, second) = ("HTTP/1.1 100 Continue\r\n\r\n", ok("done"));
    let backend = Backend::start(move |request| match request.contains("expect: 100-continue") {
        true => Act::Says(first.into()),
        false => Act::Says(second.clone()),
    })
    .await;
    let gateway = TestGateway::before(&[&backend]).await;
    let mut client = Raw::connect(gateway.address).await;
    client
        .says("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 19\r\n\r\n")
        .await;
    assert_eq!(client.hears_until("\r\n\r\n").await, first);
    // To this backend the body looks like a request of its own.
    client.says("GET / HTTP/1.1\r\n\r\n\r").await;
    client.hears_until("done").await;
    assert_eq!(backend.requests().len(), 2);
}

#[tokio::test]
async fn a_backend_that_does_not_want_the_body_does_not_get_it() {
    let refusal = "HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\nno";
    let backend = Backend::start(move |_| Act::Says(refusal.into())).await;
    let gateway = TestGateway::before(&[&backend]).await;
    let mut client = Raw::connect(gateway.address).await;
    client
        .says("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\n")
        .await;
    let answer = client.hears_until("no").await;
    assert_eq!(status(&answer), 401, "not 100: {answer}");
    assert!(backend.request().ends_with("\r\n\r\n"));
}

#[tokio::test]
async fn a_backend_that_says_nothing_of_the_body_gets_it_after_a_while() {
    let backend = Backend::start(|request| match request.contains("expect: 100-continue") {
        true => Act::Says(String::new()),
        false => Act::Says(ok("done")),
    })
    .await;
    let gateway = TestGateway::before(&[&backend]).await;
    let mut client = Raw::connect(gateway.address).await;
    client
        .says("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 19\r\n\r\n")
        .await;
    client.hears_until("HTTP/1.1 100 Continue\r\n\r\n").await;
    client.says("GET / HTTP/1.1\r\n\r\n\r").await;
    client.hears_until("done").await;
}

#[tokio::test]
async fn a_body_that_stands_still_is_cut_off() {
    let backend = Backend::start(|request| match request.starts_with("GET /short") {
        true => Act::SaysAndStalls("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab".into()),
        false => Act::SaysAndStalls(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n".into(),
        ),
    })
    .await;
    let settings = |config: &mut Config| config.gateway.body_timeout = SHORT;
    let gateway = TestGateway::at(&[backend.address], settings).await;
    for path in ["/short", "/chunked"] {
        let answer = gateway.answers(crate::support::gateway::get(path)).await;
        assert!(!answer.ends_with("0\r\n\r\n") && answer.trim_end().ends_with("ab"), "{answer}");
    }
    let upload = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nab";
    let answer = gateway.answers(upload).await;
    assert_eq!(status(&answer), 408, "{answer}");
    assert_eq!(backend.requests().len(), 2);
}

#[tokio::test]
async fn an_answer_that_the_client_does_not_take_keeps_no_connection_to_the_backend() {
    let backend = Backend::start(|_| Act::Says(ok(&"x".repeat(1 << 20)))).await;
    let gateway = TestGateway::at(&[backend.address], |config| {
        config.gateway.body_timeout = SHORT;
        // Not closed because nobody uses it.
        config.gateway.backend_idle = Duration::from_secs(3600);
    })
    .await;
    let io = TokioIo::new(TcpStream::connect(gateway.address).await.unwrap());
    let mut http2 = http2::Builder::new(TokioExecutor::new());
    // Far less than the answer may come before the client says that there is room for more.
    http2.initial_stream_window_size(65_535);
    let (mut client, connection) = http2.handshake(io).await.unwrap();
    tokio::spawn(connection);
    let request = hyper::Request::get("http://shop/").body(String::new()).unwrap();
    let answer = client.send_request(request).await.unwrap();
    assert_eq!((answer.status().as_u16(), backend.connections()), (200, 1));
    crate::support::eventually("the backend is let go", async || backend.open() == 0).await;
    drop(answer);
}

#[tokio::test]
async fn what_an_answer_says_after_its_body_reaches_clients_of_http_2() {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let answer = format!("{head}3\r\none\r\n0\r\nx-checked: yes\r\n\r\n");
    let backend = Backend::start(move |_| Act::Says(answer.clone())).await;
    let gateway = TestGateway::before(&[&backend]).await;
    let io = TokioIo::new(TcpStream::connect(gateway.address).await.unwrap());
    let (mut client, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let request = hyper::Request::get("http://shop/").body(String::new()).unwrap();
    let mut body = client.send_request(request).await.unwrap().into_body();
    let (mut data, mut trailers) = (Vec::new(), None);
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        match frame.unwrap().into_data() {
            Ok(part) => data.extend_from_slice(&part),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    assert_eq!(
        (&data[..], &trailers.unwrap()["x-checked"]),
        (&b"one"[..], &"yes".parse().unwrap())
    );
}

#[tokio::test]
async fn slow_bodies_leave_room_for_everybody_else() {
    let backend = Backend::named("one").await;
    let gateway = TestGateway::at(&[backend.address], |config| {
        config.gateway.backend_connections = 2.try_into().unwrap();
    })
    .await;
    let head = "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n";
    let large = format!("{head}transfer-encoding: chunked\r\n\r\n");
    let mut slow = Raw::connect(gateway.address).await;
    slow.says(&large).await;
    crate::support::eventually("it is on its way", async || backend.open() == 1).await;
    let mut small = Raw::connect(gateway.address).await;
    small.says(format!("{head}content-length: 2\r\n\r\n{{")).await;

    assert_eq!(status(&gateway.answers(&large).await), 503);
    for _ in 0..3 {
        assert_eq!(gateway.get("/").await, (200, "one".into()));
    }
    small.says("}").await;
    assert_eq!(status(&small.hears().await), 200);
    slow.says("0\r\n\r\n").await;
    assert_eq!(status(&slow.hears().await), 200);
}

#[tokio::test]
async fn a_client_that_resets_its_connection_is_not_worked_for_any_more() {
    let backend = Backend::start(|_| Act::IsSilent).await;
    // Nothing else would let it go.
    let settings = |config: &mut Config| config.gateway.response_timeout = HOURS;
    let gateway = TestGateway::at(&[backend.address], settings).await;
    let mut client = Raw::connect(gateway.address).await;
    client.says("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    backend.hears(1).await;
    client.resets();
    crate::support::eventually("the backend is let go", async || backend.open() == 0).await;
}
