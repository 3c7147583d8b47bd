//! Connections on both sides: how many, how long, and how they end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use merch_store::lifecycle::Ended;
use reqwest::Client;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::support::backend::ok;
use crate::support::gateway::{get, header};
use crate::support::raw::{Raw, answer, hears_a_head, status};
use crate::support::{Act, Backend, Process, Reply, TestGateway, eventually};

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

#[tokio::test]
async fn requests_on_a_thread_share_a_connection_to_the_backend_if_they_come_in_turn() {
    let backend = Backend::named("one").await;
    let gateway = TestGateway::before(&[&backend]).await;
    let threads = std::thread::available_parallelism().unwrap().get();
    // Clients are given to the threads in turn.
    for _ in 0..2 * threads {
        let mut client = Raw::connect(gateway.address).await;
        for _ in 0..3 {
            client.says(REQUEST).await;
            client.hears_until("one").await;
        }
    }
    assert_eq!((backend.requests().len(), backend.connections()), (6 * threads, threads));
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let backend = Backend::start(|request| {
        let path = request.split(' ').nth(1).unwrap();
        Act::Says(ok(path))
    })
    .await;
    let gateway = TestGateway::before(&[&backend]).await;
    let mut client = Raw::connect(gateway.address).await;
    let requests = ["/a", "/b", "/c"].map(|path| REQUEST.replace(" / ", &format!(" {path} ")));
    client.says(requests.concat()).await;
    let heard = client.hears_until("/c").await;
    let at = ["/a", "/b", "/c"].map(|path| heard.find(path).unwrap());
    assert!(at.is_sorted(), "{heard}");
}

#[tokio::test]
async fn a_connection_that_the_backend_wants_closed_is_not_used_again() {
    let answer = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 3\r\n\r\none";
    let backend = Backend::start(move |_| Act::Says(answer.into())).await;
    let gateway = TestGateway::before(&[&backend]).await;
    for _ in 0..3 {
        assert_eq!(gateway.get("/").await, (200, "one".into()));
    }
    assert_eq!(backend.connections(), 3);
}

#[tokio::test]
async fn a_connection_that_nobody_uses_is_closed_after_a_while() {
    let backend = Backend::named("one").await;
    let gateway = TestGateway::at(&[backend.address], |config| {
        config.gateway.backend_idle = Duration::from_millis(100);
    })
    .await;
    gateway.get("/").await;
    eventually("it is closed", async || backend.open() == 0).await;
    assert_eq!(gateway.get("/").await.0, 200);
    assert_eq!(backend.connections(), 2);
}

#[tokio::test]
async fn what_an_answer_leaves_behind_is_never_the_next_requests_answer() {
    let extra = format!("{}{}", ok("one"), ok("stale"));
    let backend = Backend::start(move |_| Act::Says(extra.clone())).await;
    let gateway = TestGateway::before(&[&backend]).await;
    for _ in 0..5 {
        assert_eq!(gateway.get("/").await, (200, "one".into()));
    }
}

#[tokio::test]
async fn what_comes_on_connections_that_nobody_uses_is_nobodys_answer() {
    // More than a task may look at before tokio makes it let others run.
    const IDLE: usize = 320;
    allow_files(2_500);
    for unasked in ["", "HTTP/1.1 408 Request Timeout\r\ncontent-length: 3\r\n\r\nbad"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let gateway = TestGateway::at(&[listener.local_addr().unwrap()], |_| ()).await;
        let (mut clients, mut backend) = (Vec::new(), Vec::new());
        for _ in 0..IDLE {
            let mut client = Raw::connect(gateway.address).await;
            client.says(REQUEST).await;
            clients.push(client);
            let mut stream = listener.accept().await.unwrap().0;
            hears_a_head(&mut stream).await;
            backend.push(stream);
        }
        for stream in &mut backend {
            stream.write_all(ok("one").as_bytes()).await.unwrap();
        }
        for client in &mut clients {
            client.hears_until("one").await;
        }
        for stream in &mut backend {
            stream.write_all(unasked.as_bytes()).await.unwrap();
        }
        if unasked.is_empty() {
            backend.clear();
        }
        let serving = tokio::spawn(async move {
            let mut stream = listener.accept().await.unwrap().0;
            hears_a_head(&mut stream).await;
            stream.write_all(ok("two").as_bytes()).await.unwrap();
            stream
        });
        clients[0].says("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(status(&clients[0].hears_until("\r\n\r\n").await), 200, "{unasked}");
        clients[0].hears_until("two").await;
        serving.abort();
    }
}

#[tokio::test]
async fn a_head_that_does_not_arrive_ends_the_connection() {
    let backend = Backend::named("one").await;
    let gateway = TestGateway::at(&[backend.address], |config| {
        config.gateway.header_timeout = Duration::from_millis(200);
    })
    .await;
    for part in
        ["", "G", "PRI * HTT", "GET / HTTP/1.1\r\nhost: a\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
    {
        let mut client = Raw::connect(gateway.address).await;
        client.says(part).await;
        // HTTP/2 says goodbye first, in binary.
        client.hears_the_end().await;
    }
    let mut client = Raw::connect(gateway.address).await;
    client.says(REQUEST).await;
    client.hears_until("one").await;
    client.says("GET / HT").await;
    assert_eq!(client.hears().await, "");
    assert_eq!(backend.requests().len(), 1);
}

#[tokio::test]
async fn a_head_that_arrives_drop_by_drop_is_not_waited_for() {
    let backend = Backend::named("one").await;
    let gateway = TestGateway::at(&[backend.address], |config| {
        config.gateway.header_timeout = Duration::from_millis(200);
    })
    .await;
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nx: ").await.unwrap();
    eventually("it is hung up on", async || {
        // A write after the end is an error, at the latest the second one.
        tokio::time::sleep(Duration::from_millis(10)).await;
        client.write_all(b"x").await.is_err()
    })
    .await;
    assert_eq!(backend.connections(), 0);
}

#[tokio::test]
async fn a_thousand_heads_that_do_not_arrive_keep_nobody_else_waiting() {
    let backend = Backend::named("one").await;
    let url = format!("http://{}", backend.address);
    let environment = [
        ("MERCH__LIMITS__RATE_PER_SEC", "0"),
        // Room for them and a few others.
        ("MERCH__GATEWAY__MAX_CONNECTIONS", "1010"),
        ("MERCH__GATEWAY__HEADER_TIMEOUT_MS", "600000"),
        ("MERCH__GATEWAY__UPSTREAM__HEALTH__PATH", ""),
        ("MERCH__GATEWAY__ADMIN__ADDRESS", "127.0.0.1:0"),
        ("MERCH__GATEWAY__ADMIN__TOKEN", "the token of the integration tests"),
    ];
    let gateway = Process::gateway(&["--backend", &url], &environment).await;
    let address = gateway.base.strip_prefix("http://").unwrap().parse().unwrap();
    let open = async || -> usize {
        let metrics = format!("{}/metrics", gateway.admin());
        let request = Client::new().get(metrics).bearer_auth("the token of the integration tests");
        let metrics = Reply::to(request).await.text;
        let open = metrics.lines().find_map(|it| it.strip_prefix("merch_gateway_connections "));
        open.map_or(0, |open| open.parse().unwrap())
    };
    allow_files(2_500);
    let mut slow = Vec::new();
    for number in 0..1_000 {
        let mut client = Raw::connect(address).await;
        client.says(["", "G", "GET / HTTP/1.1\r\nhost: a\r\n", "PRI * HTTP/2"][number % 4]).await;
        slow.push(client);
    }
    eventually("all are connected", async || open().await >= 1_000).await;
    let mut waits = Vec::new();
    for _ in 0..500 {
        let since = Instant::now();
        assert_eq!(status(&answer(address, get("/")).await), 200);
        waits.push(since.elapsed());
    }
    assert!(open().await >= 1_000, "they were there all the time");
    waits.sort_unstable();
    // What it costs exactly is measured elsewhere: this is what it must not look like.
    assert!(waits[waits.len() / 2] < Duration::from_millis(200), "{waits:?}");
}

/// Lets this process have so many files open.
fn allow_files(number: u64) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_some_and(|current| current < number) {
        let limit = Rlimit { current: Some(number), ..limit };
        setrlimit(Resource::Nofile, limit).expect("room for so many files");
    }
}

#[tokio::test]
async fn a_slow_answer_is_not_an_idle_connection() {
    let backend = Backend::start(|request| match request.contains("/slow") {
        true => Act::IsSilent,
        false => Act::Says(ok("quick")),
    })
    .await;
    let gateway = TestGateway::at(&[backend.address], |config| {
        config.gateway.header_timeout = Duration::from_millis(50);
        config.gateway.response_timeout = Duration::from_millis(400);
    })
    .await;
    let answer = gateway.answers(get("/slow")).await;
    assert_eq!(status(&answer), 504, "{answer}");
}

#[tokio::test]
async fn a_head_beyond_the_limit_is_refused() {
    let backend = Backend::named("one").await;
    let gateway = TestGateway::before(&[&backend]).await;
    let long = "a".repeat(20_000);
    let answer = gateway.answers(format!("GET / HTTP/1.1\r\nhost: a\r\nx: {long}\r\n\r\n")).await;
    assert_eq!(status(&answer), 431, "{answer}");
    assert_eq!(backend.connections(), 0);
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_their_turn() {
    let backend = Backend::named("one").await;
    let gateway = TestGateway::at(&[backend.address], |config| {
        config.gateway.max_connections = 1.try_into().unwrap();
    })
    .await;
    let mut first = Raw::connect(gateway.address).await;
    first.says(REQUEST).await;
    first.hears_until("one").await;
    let mut second = Raw::connect(gateway.address).await;
    second.says(REQUEST).await;
    first.says(REQUEST).await;
    first.hears_until("one").await;
    assert_eq!(backend.requests().len(), 2);
    drop(first);
    second.hears_until("one").await;
}

#[tokio::test]
async fn an_ending_gateway_answers_what_is_under_way_and_what_has_just_connected() {
    let told = Arc::new(Notify::new());
    let tells = told.clone();
    let backend = Backend::start(move |request| match request.contains("/slow") {
        true => Act::SaysWhenTold(told.clone(), ok("one")),
        false => Act::Says(ok("one")),
    })
    .await;
    let gateway = TestGateway::before(&[&backend]).await;
    let mut idle = Raw::connect(gateway.address).await;
    idle.says(REQUEST).await;
    idle.hears_until("one").await;
    let mut fresh = Raw::connect(gateway.address).await;
    let mut slow = Raw::connect(gateway.address).await;
    slow.says(REQUEST.replace(" / ", " /slow ")).await;
    gateway.lifecycle.end();
    assert_eq!(idle.hears().await, "");
    fresh.says(REQUEST).await;
    let answer = fresh.hears_until("one").await;
    assert_eq!(header(&answer, "connection"), Some("close"));
    tells.notify_one();
    slow.hears_until("one").await;
    assert_eq!(gateway.ended().await, Ended::Cleanly);
}

#[tokio::test]
async fn an_ending_gateway_does_not_wait_for_a_head_that_does_not_arrive() {
    let backend = Backend::named("one").await;
    let gateway = TestGateway::before(&[&backend]).await;
    let mut client = Raw::connect(gateway.address).await;
    client.says(&REQUEST[..10]).await;
    gateway.lifecycle.end();
    assert_eq!(gateway.ended().await, Ended::Cleanly);
    client.hears_the_end().await;
}

#[tokio::test]
async fn an_ending_gateway_is_alive_and_not_ready() {
    let backend = Backend::named("one").await;
    let gateway = TestGateway::at(&[backend.address], |config| {
        config.shutdown.grace = Duration::from_secs(30);
    })
    .await;
    gateway.lifecycle.end();
    assert_eq!(gateway.get("/health/ready").await.0, 503);
    assert_eq!(gateway.get("/health/live").await.0, 200);
    assert_eq!(gateway.get("/").await.0, 200);
}
