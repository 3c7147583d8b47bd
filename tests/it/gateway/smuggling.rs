//! Requests that two servers could read differently: they are refused, and no backend hears a
//! byte of them. What hyper itself refuses stands here too, so that it is noticed if a
//! version of it no longer does.

use crate::support::backend::ok;
use crate::support::raw::{Raw, refusal, says_close, status};
use crate::support::{Act, Backend, TestGateway};

/// What is wrong, and the request.
const AMBIGUOUS: &[(&str, &str)] = &[
    (
        "both lengths",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "both lengths, the other way",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    ),
    (
        "both lengths, the shorter one of zero",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "two lengths",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
    ),
    (
        "the same length twice",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\na",
    ),
    ("a list of lengths", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1, 1\r\n\r\na"),
    ("a length with a sign", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +1\r\n\r\na"),
    ("a negative length", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\na"),
    ("a length in hexadecimal", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0x1\r\n\r\na"),
    ("an empty length", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length:\r\n\r\na"),
    (
        "a length beyond 64 bits",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 18446744073709551617\r\n\r\na",
    ),
    ("another encoding", "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip\r\n\r\n0\r\n\r\n"),
    (
        "another encoding before chunked",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked before another encoding",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked twice",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "nearly chunked",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked in quotes",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked behind a vertical tab",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked in HTTP/1.0",
        "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    ("a space before the colon", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length : 1\r\n\r\na"),
    (
        "a tab before the colon",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding\t: chunked\r\n\r\n0\r\n\r\n",
    ),
    ("a folded line", "GET / HTTP/1.1\r\nhost: a\r\nx: b\r\n content-length: 5\r\n\r\n"),
    ("a folded line, with a tab", "GET / HTTP/1.1\r\nhost: a\r\nx: b\r\n\tc\r\n\r\n"),
    ("a folded first header", "GET / HTTP/1.1\r\n host: a\r\n\r\n"),
    ("line feeds alone", "GET / HTTP/1.1\nhost: a\n\n"),
    ("a line feed alone after the request line", "GET / HTTP/1.1\nhost: a\r\n\r\n"),
    ("a line feed alone at the end", "GET / HTTP/1.1\r\nhost: a\r\n\n"),
    (
        "a carriage return in a value",
        "GET / HTTP/1.1\r\nhost: a\r\nx: b\rcontent-length: 5\r\n\r\n",
    ),
    ("a NUL in a value", "GET / HTTP/1.1\r\nhost: a\r\nx: b\0c\r\n\r\n"),
    ("a control character in a value", "GET / HTTP/1.1\r\nhost: a\r\nx: b\x01c\r\n\r\n"),
    ("a name that is none", "GET / HTTP/1.1\r\nhost: a\r\nx(y): b\r\n\r\n"),
    ("a header without a colon", "GET / HTTP/1.1\r\nhost: a\r\nx\r\n\r\n"),
    ("a header without a name", "GET / HTTP/1.1\r\nhost: a\r\n: b\r\n\r\n"),
    ("no host", "GET / HTTP/1.1\r\n\r\n"),
    ("an empty host", "GET / HTTP/1.1\r\nhost:\r\n\r\n"),
    ("two hosts", "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"),
    ("the same host twice", "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n"),
    ("a list of hosts", "GET / HTTP/1.1\r\nhost: a, b\r\n\r\n"),
    ("a host with a path", "GET / HTTP/1.1\r\nhost: a/b\r\n\r\n"),
    ("a host with a user", "GET / HTTP/1.1\r\nhost: u@a\r\n\r\n"),
    ("no host beside that of the target", "GET http://a/ HTTP/1.1\r\n\r\n"),
    ("a host with a zone", "GET / HTTP/1.1\r\nhost: [fe80::1%25eth0]\r\n\r\n"),
    ("a host with a port that is none", "GET / HTTP/1.1\r\nhost: a:65536\r\n\r\n"),
    (
        "two tokens",
        "GET / HTTP/1.1\r\nhost: a\r\nauthorization: Bearer a\r\nauthorization: Bearer b\r\n\r\n",
    ),
    (
        "the same token twice",
        "GET / HTTP/1.1\r\nhost: a\r\nauthorization: Bearer a\r\nauthorization: Bearer a\r\n\r\n",
    ),
    ("a user in the target", "GET http://u@a/ HTTP/1.1\r\nhost: u@a\r\n\r\n"),
    ("another scheme", "GET ftp://a/ HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("a target that is a host", "GET a:80 HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("a star for GET", "GET * HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("a space in the target", "GET /a b HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("nothing after the target", "GET /\r\nhost: a\r\n\r\n"),
    ("an unknown version", "GET / HTTP/1.2\r\nhost: a\r\n\r\n"),
    ("HTTP/2 without its preface", "PRI * HTTP/2.0\r\nhost: a\r\n\r\n"),
    ("a method that is none", "G(T / HTTP/1.1\r\nhost: a\r\n\r\n"),
];

#[tokio::test]
async fn what_two_servers_could_read_differently_is_refused_and_goes_nowhere() {
    let backend = Backend::named("one").await;
    let gateway = TestGateway::before(&[&backend]).await;
    for (what, request) in AMBIGUOUS {
        // What is smuggled behind it must not come through either.
        let smuggled = "GET /smuggled HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        for behind in ["", smuggled] {
            let answer = gateway.answers(format!("{request}{behind}")).await;
            let expected = match (*what).contains("version") || (*what).contains("HTTP/2") {
                true => (505, "version_not_supported"),
                false => (400, "invalid_request"),
            };
            let (status, code) = refusal(&answer);
            assert_eq!((status, code.as_str()), expected, "{what}: {answer}");
            assert!(says_close(&answer), "{what}: {answer}");
            assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{what}: {answer}");
        }
        assert_eq!((backend.connections(), backend.requests()), (0, vec![]), "{what}");
    }
}

#[tokio::test]
async fn connect_and_trace_are_not_passed_on() {
    let backend = Backend::named("one").await;
    let gateway = TestGateway::before(&[&backend]).await;
    for request in [
        "CONNECT a:80 HTTP/1.1\r\nhost: a:80\r\nconnection: close\r\n\r\n",
        "TRACE / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    ] {
        let answer = gateway.answers(request).await;
        assert_eq!(status(&answer), 405, "{answer}");
    }
    assert_eq!(backend.connections(), 0);
}

/// Chunked bodies whose end is not where a lenient reader finds it.
const BAD_CHUNKS: &[&str] = &[
    "5\r\nabcde",
    "5\nabcde\r\n0\r\n\r\n",
    "+5\r\nabcde\r\n0\r\n\r\n",
    "0x5\r\nabcde\r\n0\r\n\r\n",
    "5 5\r\nabcde\r\n0\r\n\r\n",
    "fffffffffffffffff\r\nabcde\r\n0\r\n\r\n",
    "\r\n0\r\n\r\n",
    "5\r\nabcdeXX0\r\n\r\n",
    "5;a\nb\r\nabcde\r\n0\r\n\r\n",
];

#[tokio::test]
async fn a_badly_chunked_body_never_reaches_its_end_at_a_backend() {
    let backend = Backend::named("one").await;
    let gateway = TestGateway::before(&[&backend]).await;
    for chunks in BAD_CHUNKS {
        let mut client = Raw::connect(gateway.address).await;
        client.says("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n").await;
        client.says(chunks).await;
        client.finishes().await;
        let answer = client.hears().await;
        // Whoever hangs up before the end may get nothing at all.
        assert!(answer.is_empty() || status(&answer) == 400, "{chunks:?}: {answer}");
        assert_eq!(backend.requests(), [""; 0], "{chunks:?}");
    }
}

#[tokio::test]
async fn what_is_passed_on_is_written_anew_and_has_one_length() {
    let backend = Backend::start(|_| Act::Says(ok(""))).await;
    let gateway = TestGateway::before(&[&backend]).await;
    let bodies = [
        ("content-length: 3\r\n\r\nabc", "content-length: 3", "abc"),
        (
            "Transfer-Encoding:  CHUNKED \r\n\r\n03;x=\"y\"\r\nabc\r\n0\r\n\r\n",
            "transfer-encoding: chunked",
            "3\r\nabc\r\n0\r\n\r\n",
        ),
    ];
    for (at, (sent, framed, body)) in bodies.into_iter().enumerate() {
        let request = format!("POST /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{sent}");
        assert_eq!(status(&gateway.answers(request).await), 200);
        let heard = backend.requests().swap_remove(at);
        assert!(heard.ends_with(&format!("\r\n\r\n{body}")), "{heard}");
        let lengths =
            heard.matches("content-length").count() + heard.matches("transfer-encoding").count();
        assert!(heard.contains(framed) && lengths == 1, "{heard}");
    }
}
