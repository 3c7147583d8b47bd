//! Which requests are tried on another backend, by what had become of the first attempt.

use std::future::poll_fn;
use std::num::NonZeroU32;
use std::task::Poll;
use std::time::Instant;

use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::support::backend::{nobody, ok};
use crate::support::raw::{Raw, status};
use crate::support::{Act, Backend, TestGateway};

const KEY: &str = "idempotency-key: a\r\n";
const BODY: &str = "content-length: 2\r\n";
const CHUNKS: &str = "transfer-encoding: chunked\r\n";
const LONG: &str = "content-length: 20000\r\n";

/// Method, path, more headers; whether it is tried again once a backend may have seen it.
const RULES: &[(&str, &str, &str, bool)] = &[
    ("GET", "/api/info", "", true),
    ("HEAD", "/api/info", "", true),
    ("OPTIONS", "/api/info", "", true),
    ("PUT", "/api/info", "", true),
    ("DELETE", "/api/info", "", true),
    ("POST", "/api/sendCoin", "", false),
    ("PATCH", "/api/info", "", false),
    ("PURCHASE", "/api/info", "", false),
    ("GET", "/api/buy/cup", "", false),
    ("GET", "/api/buy/cup?x=y", "", false),
    ("GET", "/api//buy/cup", "", false),
    ("GET", "/api/%62uy/cup", "", false),
    ("HEAD", "/api/buy/cup", "", false),
    ("GET", "/api/buy/cup", KEY, true),
    ("POST", "/api/sendCoin", KEY, true),
    ("GET", "/api/buy/cup", "idempotency-key:\r\n", false),
    ("GET", "/api/buyer", "", true),
    ("PUT", "/api/info", BODY, true),
    ("PUT", "/api/info", CHUNKS, true),
    ("POST", "/api/sendCoin", BODY, false),
    ("POST", "/api/sendCoin", "idempotency-key: a\r\ncontent-length: 2\r\n", true),
    ("POST", "/api/sendCoin", "idempotency-key: a\r\ntransfer-encoding: chunked\r\n", true),
    // More than is kept of anybody's body.
    ("PUT", "/api/info", LONG, false),
];

fn request(method: &str, path: &str, headers: &str) -> String {
    let long = "x".repeat(20_000);
    let framed = [(BODY, "{}"), (CHUNKS, "2\r\n{}\r\n0\r\n\r\n"), (LONG, &long)];
    let body = framed.iter().find(|(framing, _)| headers.ends_with(framing));
    let body = body.map_or("", |(_, body)| body);
    format!("{method} {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{headers}\r\n{body}")
}

#[tokio::test]
async fn a_request_that_no_backend_has_seen_is_always_tried_on_another() {
    for (method, path, headers, _) in RULES {
        let good = Backend::named("good").await;
        let backends = [nobody().await, good.address, nobody().await];
        let gateway = TestGateway::at(&backends, |_| {}).await;
        for _ in 0..3 {
            let answer = gateway.answers(request(method, path, headers)).await;
            assert_eq!(status(&answer), 200, "{method} {path} {headers}: {answer}");
        }
        assert_eq!(good.requests().len(), 3, "{method} {path} {headers}");
    }
}

#[tokio::test]
async fn a_request_that_a_backend_may_have_seen_is_tried_again_only_if_that_is_safe() {
    for (method, path, headers, again) in RULES {
        let broken = Backend::start(|_| Act::SaysAndHangsUp(String::new())).await;
        let good = Backend::named("good").await;
        let gateway = TestGateway::before(&[&broken, &good]).await;
        let mut statuses = Vec::new();
        for _ in 0..2 {
            let answer = gateway.answers(request(method, path, headers)).await;
            statuses.push(status(&answer));
        }
        statuses.sort_unstable();
        let expected = if *again { [200, 200] } else { [200, 502] };
        assert_eq!(statuses, expected, "{method} {path} {headers}");
        // Never twice at the same one; the turn is the broken one's again after a retry.
        let seen = if *again { 2 } else { 1 };
        assert_eq!(broken.requests().len(), seen, "{method} {path} {headers}");
        assert_eq!(good.requests().len(), statuses.iter().filter(|it| **it == 200).count());
    }
}

#[tokio::test]
async fn what_is_tried_again_is_the_same_request() {
    let broken = Backend::start(|_| Act::SaysAndHangsUp(String::new())).await;
    let good = Backend::named("good").await;
    let gateway = TestGateway::before(&[&broken, &good]).await;
    for (method, headers) in [
        ("GET", "x-odd: c\r\ncookie: d\r\n"),
        ("PUT", BODY),
        ("PUT", CHUNKS),
        ("POST", "idempotency-key: a\r\ncontent-length: 2\r\n"),
    ] {
        let before = broken.requests().len();
        while broken.requests().len() == before {
            gateway.answers(request(method, "/api/info?a=b", headers)).await;
        }
        assert_eq!(broken.requests().pop(), good.requests().pop(), "{method} {headers}");
    }
}

#[tokio::test]
async fn a_body_that_has_not_begun_to_come_goes_to_the_next_backend() {
    let hang_up = |_: &str| Act::SaysAndHangsUp(String::new());
    let (broken, good) = (Backend::start(hang_up).await, Backend::named("good").await);
    let gateway = TestGateway::before(&[&broken, &good]).await;
    // The backend is asked for the body, and gone before it says that it wants it.
    let request = "PUT / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nexpect: 100-continue\r\n\
                   content-length: 2\r\n\r\n";
    for _ in 0..2 {
        let mut client = Raw::connect(gateway.address).await;
        client.says(request).await;
        // The good one answers without it.
        assert_eq!(status(&client.hears_until("\r\n\r\n").await), 200);
    }
    assert!(!broken.requests().is_empty());
}

#[tokio::test]
async fn a_body_that_has_left_in_part_is_not_sent_again() {
    let backends = [
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
    ];
    let addresses = backends.each_ref().map(|backend| backend.local_addr().unwrap());
    let gateway = TestGateway::at(&addresses, |_| ()).await;
    let mut client = Raw::connect(gateway.address).await;
    client.says("PUT / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n").await;
    let [first, second] = &backends;
    let (mut stream, _) = tokio::select! {
        accepted = first.accept() => accepted.unwrap(),
        accepted = second.accept() => accepted.unwrap(),
    };
    let mut seen = Vec::new();
    while !seen.ends_with(b"{\r\n") {
        stream.read_buf(&mut seen).await.unwrap();
    }
    drop(stream);
    assert_eq!(status(&client.hears_until("\r\n\r\n").await), 502);
    for backend in backends {
        let asked = poll_fn(|cx| Poll::Ready(backend.poll_accept(cx).is_ready())).await;
        assert!(!asked, "no other one is asked");
    }
}

#[tokio::test]
async fn beyond_the_budget_nothing_is_tried_again() {
    let good = Backend::named("good").await;
    let gateway = TestGateway::at(&[nobody().await, good.address], |config| {
        let budget = &mut config.gateway.upstream.retry_budget;
        (budget.percent, budget.per_second) = (0, 2);
        // So that the dead one is asked again and again.
        let ejection = &mut config.gateway.upstream.ejection;
        (ejection.failures, ejection.connect_failures) = (NonZeroU32::MAX, NonZeroU32::MAX);
    })
    .await;
    let since = Instant::now();
    let mut missed = 0;
    for _ in 0..40 {
        missed += usize::from(status(&gateway.answers(request("GET", "/", "")).await) == 502);
    }
    // Every other one meets the dead one, and two of them a second find another; those that
    // may not do so are not the other one's turn.
    let saved = 2 * (1 + since.elapsed().as_secs() as usize);
    assert!((20usize.saturating_sub(saved)..20).contains(&missed), "{missed}");
}

#[tokio::test]
async fn each_backend_is_asked_at_most_once() {
    let hang_up = |_: &str| Act::SaysAndHangsUp(String::new());
    let backends = [Backend::start(hang_up).await, Backend::start(hang_up).await];
    let gateway = TestGateway::before(&[&backends[0], &backends[1]]).await;
    let answer = gateway.answers(request("GET", "/", "")).await;
    assert_eq!(status(&answer), 502);
    assert_eq!(backends.map(|backend| backend.requests().len()), [1, 1]);
}

#[tokio::test]
async fn an_answer_is_an_answer_whatever_it_says() {
    let unwell =
        |_: &str| Act::Says("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n".into());
    let (unwell, good) =
        (Backend::start(unwell).await, Backend::start(|_| Act::Says(ok(""))).await);
    let gateway = TestGateway::before(&[&unwell, &good]).await;
    let mut statuses = Vec::new();
    for _ in 0..2 {
        statuses.push(status(&gateway.answers(request("GET", "/", "")).await));
    }
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503]);
}
