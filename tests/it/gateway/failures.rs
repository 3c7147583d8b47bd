//! Backends that fail, in every way: a clean error, and never half an answer passed as whole.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::support::backend::{nobody, ok};
use crate::support::gateway::{body, get, header};
use crate::support::raw::{Raw, hears_a_head, status};
use crate::support::{Act, Backend, TestGateway};

/// The answer is an error of this status and code, in the shape of the contract.
#[track_caller]
fn is_error(answer: &str, expected: u16, code: &str) {
    assert_eq!(status(answer), expected, "{answer}");
    let error: serde_json::Value = serde_json::from_str(body(answer)).unwrap();
    assert_eq!(error["code"], code, "{answer}");
    assert!(!error["errors"].as_str().unwrap().is_empty());
    assert_eq!(error.as_object().unwrap().len(), 2, "{answer}");
    let retried = header(answer, "retry-after").is_some();
    assert_eq!(retried, [502, 503].contains(&expected), "{answer}");
}

#[tokio::test]
async fn a_backend_that_is_not_there_is_a_bad_gateway() {
    let gateway = TestGateway::at(&[nobody().await, nobody().await], |_| {}).await;
    for request in [get("/"), get("/").replace("GET", "POST")] {
        is_error(&gateway.answers(request).await, 502, "backend_unreachable");
    }
}

#[tokio::test]
async fn a_backend_that_accepts_and_never_answers_is_waited_for_so_long() {
    let backend = Backend::start(|_| Act::IsSilent).await;
    let gateway = TestGateway::at(&[backend.address], |config| {
        config.gateway.response_timeout = Duration::from_millis(200);
    })
    .await;
    is_error(&gateway.answers(get("/")).await, 504, "answer_late");
    crate::support::eventually("it is let go", async || backend.open() == 0).await;
}

#[tokio::test]
async fn what_is_no_answer_is_a_bad_gateway() {
    for garbage in [
        "",
        "\0\0\0\0",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/2 200 OK\r\n\r\n",
        "HTTP/1.1 99 What\r\n\r\n",
        "HTTP/1.1 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: a\0b\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\na",
        "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\na",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
    ] {
        let backend = Backend::start(move |_| Act::SaysAndHangsUp(garbage.into())).await;
        let gateway = TestGateway::before(&[&backend]).await;
        is_error(&gateway.answers(get("/")).await, 502, "answer_lost");
    }
    // A head without an end is not read for ever.
    let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "a".repeat(1 << 20));
    let backend = Backend::start(move |_| Act::SaysAndStalls(endless.clone())).await;
    let gateway = TestGateway::before(&[&backend]).await;
    is_error(&gateway.answers(get("/")).await, 502, "answer_lost");
}

#[tokio::test]
async fn an_answer_that_breaks_off_anywhere_is_never_passed_as_whole() {
    let whole = [
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n0123456789".to_owned(),
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n"
            .to_owned(),
    ];
    for whole in whole {
        for end in 0..whole.len() {
            let part = whole[..end].to_owned();
            let backend = Backend::start(move |_| Act::SaysAndHangsUp(part.clone())).await;
            let gateway = TestGateway::before(&[&backend]).await;
            let has_head = part_has_head(&whole[..end]);
            match reqwest::get(gateway.url("/")).await {
                Ok(answered) if answered.status() == 200 => {
                    assert!(has_head && answered.text().await.is_err(), "{:?}", &whole[..end]);
                }
                Ok(answered) => assert_eq!((answered.status().as_u16(), has_head), (502, false)),
                // The gateway had nothing of it on its way yet, and hangs up.
                Err(_) => assert!(has_head, "{:?}", &whole[..end]),
            }
        }
    }
}

fn part_has_head(part: &str) -> bool {
    part.contains("\r\n\r\n")
}

#[tokio::test]
async fn a_backend_whose_answers_all_break_off_is_sent_away() {
    let part = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab";
    let broken = Backend::start(|_| Act::SaysAndHangsUp(part.into())).await;
    let good = Backend::named("good").await;
    let gateway = TestGateway::before(&[&broken, &good]).await;
    for _ in 0..20 {
        gateway.answers(get("/")).await;
    }
    assert_eq!(broken.requests().len(), 5, "one for each failure in a row that it may have");
}

#[tokio::test]
async fn a_backend_that_gives_up_on_a_body_that_does_not_come_has_not_failed() {
    let impatient = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other = Backend::named("other").await;
    let gateway = TestGateway::at(&[impatient.local_addr().unwrap(), other.address], |_| ()).await;
    let mut given_up = 0;
    for _ in 0..12 {
        let mut client = Raw::connect(gateway.address).await;
        client.says("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\n").await;
        client.says("transfer-encoding: chunked\r\n\r\n").await;
        let mut stream = tokio::select! {
            accepted = impatient.accept() => accepted.unwrap().0,
            // The other one takes the head alone for a request, because of the Expect.
            answer = client.hears_until("\r\n\r\n") => {
                assert_eq!(status(&answer), 200);
                continue;
            }
        };
        hears_a_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
        assert_eq!(status(&client.hears_until("\r\n\r\n").await), 100);
        drop(stream);
        assert_eq!(status(&client.hears_until("\r\n\r\n").await), 502);
        given_up += 1;
    }
    assert_eq!(given_up, 6, "every second request, to the end");
}

#[tokio::test]
async fn an_answer_that_breaks_off_in_its_head_is_asked_of_another_backend() {
    let whole = ok("0123456789");
    for end in 0..whole.find("\r\n\r\n").unwrap() + 4 {
        let part = whole[..end].to_owned();
        let broken = Backend::start(move |_| Act::SaysAndHangsUp(part.clone())).await;
        let good = Backend::named("good").await;
        let gateway = TestGateway::before(&[&broken, &good]).await;
        for _ in 0..2 {
            assert_eq!(gateway.get("/").await, (200, "good".into()), "at {end}");
        }
        assert!(!broken.requests().is_empty());
    }
}

#[tokio::test]
async fn a_connection_that_the_backend_closed_meanwhile_is_not_the_requests_problem() {
    // It says that it would keep the connection, and closes it.
    let backend = Backend::start(|_| Act::SaysAndHangsUp(ok("one"))).await;
    let gateway = TestGateway::before(&[&backend]).await;
    for request in 1..20 {
        crate::support::eventually("it has closed", async || backend.open() == 0).await;
        let answer = gateway.answers(get("/api/buy/cup").replace("GET", "POST")).await;
        assert_eq!(status(&answer), 200, "{request}: {answer}");
    }
}

#[tokio::test]
async fn a_backend_without_a_free_connection_is_passed_over_and_that_is_no_retry() {
    let busy = Backend::start(|_| Act::IsSilent).await;
    let free = Backend::named("free").await;
    let gateway = TestGateway::at(&[busy.address, free.address], |config| {
        config.gateway.backend_connections = 2.try_into().unwrap();
        config.gateway.upstream.retry_budget.percent = 0;
        config.gateway.upstream.retry_budget.per_second = 0;
    })
    .await;
    let mut waiting = Vec::new();
    for _ in 0..4 {
        let mut client = crate::support::raw::Raw::connect(gateway.address).await;
        client.says(get("/")).await;
        waiting.push(client);
    }
    busy.hears(2).await;
    for _ in 0..10 {
        assert_eq!(gateway.get("/").await, (200, "free".into()));
    }
    assert_eq!(busy.requests().len(), 2);
}

#[tokio::test]
async fn too_many_requests_for_the_backends_connections_are_refused_at_once() {
    let backend = Backend::start(|request| match request.starts_with("GET /slow") {
        true => Act::IsSilent,
        false => Act::Says(ok("quick")),
    })
    .await;
    let gateway = TestGateway::at(&[backend.address], |config| {
        config.gateway.backend_connections = 1.try_into().unwrap();
    })
    .await;
    let mut slow = crate::support::raw::Raw::connect(gateway.address).await;
    slow.says(get("/slow")).await;
    backend.hears(1).await;
    is_error(&gateway.answers(get("/")).await, 503, "no_backend");
    drop(slow);
    crate::support::eventually("there is room again", async || {
        gateway.get("/").await == (200, "quick".into())
    })
    .await;
}
