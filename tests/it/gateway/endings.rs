//! How connections through the gateway end: half of them at a time, and with every answer.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::support::backend::ok;
use crate::support::raw::{Raw, hears_a_head, refusal, says_close, status};
use crate::support::{Act, Backend, TestGateway, eventually};

/// More than is read of a body that nobody wants, and than sockets hold.
const LARGE: usize = 6 * 1024 * 1024;

const WANTED: &str =
    "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
                        upgrade: websocket\r\n\r\nhello";

/// A backend whose connections the test answers itself, and a gateway in front of it.
async fn by_hand() -> (TcpListener, TestGateway) {
    let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = TestGateway::at(&[backend.local_addr().unwrap()], |_| ()).await;
    (backend, gateway)
}

/// The next connection with a request; those that only see whether anybody is there have none.
async fn heard_by(backend: &TcpListener) -> TcpStream {
    loop {
        let (mut stream, _) = backend.accept().await.unwrap();
        let mut heard = Vec::new();
        while stream.read_buf(&mut heard).await.unwrap() > 0 {
            if heard.windows(4).any(|it| it == b"\r\n\r\n") {
                return stream;
            }
        }
    }
}

async fn asks(address: SocketAddr, request: &str) -> Raw {
    let mut client = Raw::connect(address).await;
    client.says(request).await;
    client
}

#[tokio::test]
async fn a_client_that_closes_its_sending_side_while_the_backend_works_is_answered() {
    let told = Arc::new(Notify::new());
    let act = Act::SaysWhenTold(told.clone(), ok("done"));
    let backend = Backend::start(move |_| act.clone()).await;
    let gateway = TestGateway::before(&[&backend]).await;
    for (nth, request) in [
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ]
    .into_iter()
    .enumerate()
    {
        let mut client = asks(gateway.address, request).await;
        client.finishes().await;
        backend.hears(nth + 1).await;
        told.notify_one();
        let answer = client.hears_a_goodbye().await;
        assert!(status(&answer) == 200 && answer.ends_with("done"), "{answer}");
    }
}

#[tokio::test]
async fn an_answer_before_the_end_of_a_streamed_body_says_that_the_connection_ends() {
    let (backend, gateway) = by_hand().await;
    let large = "x".repeat(LARGE);
    for (framing, first, rest) in [
        (format!("content-length: {LARGE}"), "hello", large[5..].to_owned()),
        ("transfer-encoding: chunked".into(), "5\r\nhello\r\n", format!("{LARGE:x}\r\n{large}")),
    ] {
        let request = format!("POST / HTTP/1.1\r\nhost: a\r\n{framing}\r\n\r\n");
        let mut client = asks(gateway.address, &request).await;
        client.says(first).await;
        let mut stream = heard_by(&backend).await;
        stream
            .write_all(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\nno")
            .await
            .unwrap();
        // It reads what comes, or not at all; the client hears of it when it has sent the rest.
        client.says(rest).await;
        let answer = client.hears_a_goodbye().await;
        assert!(status(&answer) == 401 && answer.ends_with("no"), "{answer}");
        assert!(says_close(&answer), "{answer}");
    }
}

#[tokio::test]
async fn an_answer_after_the_end_of_a_streamed_body_leaves_the_connection_open() {
    let backend = Backend::start(|_| Act::Says(ok("done"))).await;
    let gateway = TestGateway::before(&[&backend]).await;
    let body = "x".repeat(100_000);
    let mut client = Raw::connect(gateway.address).await;
    for _ in 0..2 {
        client.says("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100000\r\n\r\n").await;
        client.says(&body).await;
        let answer = client.hears_an_answer().await;
        assert!(status(&answer) == 200 && !says_close(&answer), "{answer}");
        client.says("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await;
        client.says(format!("186a0\r\n{body}\r\n0\r\n\r\n")).await;
        let answer = client.hears_an_answer().await;
        assert!(status(&answer) == 200 && !says_close(&answer), "{answer}");
    }
}

#[tokio::test]
async fn who_asks_too_often_with_a_body_can_ask_again_on_the_same_connection() {
    let backend = Backend::start(|_| Act::Says(ok("done"))).await;
    let gateway = TestGateway::at(&[backend.address], |config| {
        config.limits.capacity = 1;
        config.limits.rate_per_sec = 1;
    })
    .await;
    let mut client = Raw::connect(gateway.address).await;
    let mut refused = 0;
    while refused < 3 {
        client.says("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n").await;
        client.says("hello").await;
        let answer = client.hears_an_answer().await;
        assert!(!says_close(&answer), "{answer}");
        if status(&answer) == 429 {
            assert_eq!(refusal(&answer).1, "rate_limited");
            refused += 1;
        }
    }
}

#[tokio::test]
async fn a_backend_that_closes_either_side_after_its_answer_has_answered() {
    let (backend, gateway) = by_hand().await;
    let mut client = Raw::connect(gateway.address).await;
    let mut held = Vec::new();
    for closed in [std::net::Shutdown::Write, std::net::Shutdown::Read, std::net::Shutdown::Both] {
        for request in [
            "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello",
        ] {
            client.says(request).await;
            let mut stream = heard_by(&backend).await;
            if closed == std::net::Shutdown::Read {
                socket2::SockRef::from(&stream).shutdown(closed).unwrap();
            }
            stream.write_all(ok("done").as_bytes()).await.unwrap();
            if closed != std::net::Shutdown::Read {
                socket2::SockRef::from(&stream).shutdown(closed).unwrap();
            }
            let answer = client.hears_an_answer().await;
            assert!(status(&answer) == 200 && answer.ends_with("done"), "{closed:?}: {answer}");
            if closed == std::net::Shutdown::Read {
                // It will not hear another request on this connection.
                drop(stream);
            } else {
                held.push(stream);
            }
        }
    }
}

#[tokio::test]
async fn a_backends_own_answer_without_a_word_stays_as_it_is() {
    for status in ["400 Bad Request", "414 URI Too Long", "431 Request Header Fields Too Large"] {
        let answer = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        let backend = Backend::start(move |_| Act::Says(answer.clone())).await;
        let gateway = TestGateway::before(&[&backend]).await;
        let mut client = asks(gateway.address, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let answer = client.hears_an_answer().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
        assert!(answer.contains("content-length: 0\r\n") && !says_close(&answer), "{answer}");
    }
}

#[tokio::test]
async fn what_only_looks_like_an_answer_to_nonsense_goes_through_as_it_is() {
    let (backend, gateway) = by_hand().await;
    let bare = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\
                date: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n";
    let length = bare.len();
    for (head, end) in [
        (format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n"), "\r\n\r\n"),
        (format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\nhello", 5 + length), "hello"),
        (SWITCHED.to_owned(), "hello"),
    ] {
        let mut client = asks(gateway.address, WANTED).await;
        let mut stream = heard_by(&backend).await;
        stream.write_all(head.as_bytes()).await.unwrap();
        client.hears_until(end).await;
        stream.write_all(bare.as_bytes()).await.unwrap();
        assert_eq!(client.hears_until("\r\n\r\n").await, bare, "{head}");
        drop(stream);
    }
}

#[tokio::test]
async fn nonsense_behind_an_answer_that_came_in_pieces_is_refused_in_words() {
    let (backend, gateway) = by_hand().await;
    for (head, last) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n", "helloworld"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n"),
    ] {
        let mut client = asks(gateway.address, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let mut stream = heard_by(&backend).await;
        stream.write_all(head.as_bytes()).await.unwrap();
        client.hears_until("\r\n\r\n").await;
        stream.write_all(last.as_bytes()).await.unwrap();
        client.hears_until(last).await;
        client.says("\0\r\n\r\n").await;
        let answer = client.hears_a_goodbye().await;
        assert_eq!(refusal(&answer), (400, "invalid_request".into()), "{head}");
        drop(stream);
    }
}

#[tokio::test]
async fn a_tunnel_whose_backend_closes_before_it_reads_loses_nothing() {
    let (backend, gateway) = by_hand().await;
    let mut client = TcpStream::connect(gateway.address).await.unwrap();
    client.write_all(WANTED.as_bytes()).await.unwrap();
    let mut stream = heard_by(&backend).await;
    stream.write_all(SWITCHED.strip_suffix("hello").unwrap().as_bytes()).await.unwrap();
    hears_a_head(&mut client).await;
    let (mut client, mut speaker) = client.into_split();
    let said = Arc::<AtomicUsize>::default();
    let counted = said.clone();
    let speaking = tokio::spawn(async move {
        for _ in 0..4 * LARGE / 1024 {
            speaker.write_all(&[b'x'; 1024]).await.unwrap();
            counted.fetch_add(1024, Ordering::Relaxed);
        }
    });
    let before = Cell::new(0);
    eventually("no more goes into the tunnel", async || {
        let now = said.load(Ordering::Relaxed);
        now > 0 && before.replace(now) == now
    })
    .await;
    stream.shutdown().await.unwrap();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard.len(), 4 * LARGE);
    speaking.await.unwrap();
}

#[tokio::test]
async fn a_tunnel_closes_one_way_at_a_time() {
    let (backend, gateway) = by_hand().await;

    let mut client = asks(gateway.address, WANTED).await;
    let mut stream = heard_by(&backend).await;
    stream.write_all(SWITCHED.as_bytes()).await.unwrap();
    client.hears_until("hello").await;
    client.says("the last word").await;
    client.finishes().await;
    let mut heard = String::new();
    stream.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "the last word");
    stream.write_all(b"is not the answer").await.unwrap();
    drop(stream);
    assert_eq!(client.hears_a_goodbye().await, "is not the answer");

    let mut client = asks(gateway.address, WANTED).await;
    let mut stream = heard_by(&backend).await;
    stream.write_all(SWITCHED.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    client.hears_until("hello").await;
    client.says("still here").await;
    client.finishes().await;
    let mut heard = String::new();
    stream.read_to_string(&mut heard).await.unwrap();
    assert_eq!(heard, "still here");
    assert_eq!(client.hears_a_goodbye().await, "");
}

#[tokio::test]
async fn an_early_answer_over_http_2_is_whole_before_the_rest_of_the_body_is_declined() {
    let backend = Backend::named("one").await;
    let gateway = TestGateway::before(&[&backend]).await;
    let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
    };
    // POST, http, a path, an authority and a length, each as HPACK has them.
    for (path, length, expected) in
        [("/metrics", "9000000", "not_found"), ("/upload", "90000000", "body_too_large")]
    {
        let size = |text: &str| u8::try_from(text.len()).unwrap();
        let mut head = vec![0x83, 0x86, 0x04, size(path)];
        head.extend_from_slice(path.as_bytes());
        head.extend_from_slice(&[0x01, 1, b'a', 0x0f, 0x0d, size(length)]);
        head.extend_from_slice(length.as_bytes());
        let mut client = TcpStream::connect(gateway.address).await.unwrap();
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        client.write_all(&frame(4, 0, 0, b"")).await.unwrap();
        client.write_all(&frame(1, 4, 1, &head)).await.unwrap();
        client.write_all(&frame(0, 0, 1, &[0; 16_000])).await.unwrap();
        let mut heard = Vec::new();
        // Kinds of frames: 0 is data, 1 a head, 3 a reset.
        while heard.last() != Some(&3) {
            let mut frame = [0; 9];
            client.read_exact(&mut frame).await.unwrap();
            let length = u32::from_be_bytes([0, frame[0], frame[1], frame[2]]);
            let mut payload = vec![0; length as usize];
            client.read_exact(&mut payload).await.unwrap();
            if frame[8] == 1 {
                heard.push(frame[3]);
                match frame[3] {
                    1 => {}
                    0 => {
                        assert_eq!(frame[4], 1, "the answer's end");
                        let text = String::from_utf8_lossy(&payload);
                        assert!(text.contains(expected), "{text}");
                    }
                    _ => assert_eq!(payload, [0; 4], "for no error"),
                }
            }
        }
        assert_eq!(heard, [1, 0, 3], "{expected}");
    }
}
