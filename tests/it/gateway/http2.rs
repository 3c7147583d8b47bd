//! HTTP/2 in front of backends that know of HTTP/1.1 only.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use hyper::{Method, Request, Version};
use tokio::net::TcpStream;

use crate::support::backend::ok;
use crate::support::gateway::header;
use crate::support::http2::{asks_in_http_2, try_in_http_2};
use crate::support::{Act, Backend, TestGateway};

/// A body whose length nobody is told before it ends; `None`: there is none at all.
struct Untold(Option<&'static str>);

impl Body for Untold {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|text| Ok(Frame::data(text.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
}

async fn connect(gateway: &TestGateway) -> TcpStream {
    TcpStream::connect(gateway.address).await.unwrap()
}

#[tokio::test]
async fn http_2_goes_on_as_http_1() {
    let backend = Backend::named("one").await;
    let gateway = TestGateway::before(&[&backend]).await;
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let request = Request::post("http://shop:1/x?y")
        .version(Version::HTTP_2)
        .header("cookie", "a=b")
        .header("cookie", "c=d")
        .header("te", "trailers")
        .body("body".to_owned())
        .unwrap();
    let answer = asks_in_http_2(stream, request).await;
    assert_eq!((answer.status().as_u16(), answer.body().as_str()), (200, "one"));
    assert!(answer.headers().contains_key("x-request-id"));
    let heard = backend.request();
    assert!(
        heard.starts_with("POST /x?y HTTP/1.1\r\n") && heard.ends_with("\r\n\r\nbody"),
        "{heard}"
    );
    assert_eq!(header(&heard, "host"), Some("shop:1"));
    assert_eq!(header(&heard, "cookie"), Some("a=b; c=d"));
    assert_eq!((header(&heard, "te"), header(&heard, "content-length")), (None, Some("4")));
    assert_eq!(header(&heard, "x-forwarded-for"), Some("127.0.0.1"));
}

#[tokio::test]
async fn a_host_beside_the_authority_must_be_the_same() {
    let backend = Backend::named("one").await;
    let gateway = TestGateway::before(&[&backend]).await;
    for (host, expected) in [("shop", 200), ("SHOP", 200), ("evil", 400)] {
        let stream = TcpStream::connect(gateway.address).await.unwrap();
        let request = Request::get("http://shop/").header("host", host);
        let answer = asks_in_http_2(stream, request.body(String::new()).unwrap()).await;
        assert_eq!(answer.status(), expected, "{host}");
    }
    assert_eq!(backend.requests().len(), 2);
}

#[tokio::test]
async fn backends_are_told_that_a_body_is_empty_where_one_is_expected() {
    for (method, told) in [
        (Method::POST, Some("0")),
        (Method::PUT, Some("0")),
        (Method::PATCH, Some("0")),
        (Method::from_bytes(b"QUERY").unwrap(), Some("0")),
        (Method::GET, None),
        (Method::HEAD, None),
        (Method::DELETE, None),
        (Method::OPTIONS, None),
    ] {
        let backend = Backend::start(|_| Act::Says(ok(""))).await;
        let gateway = TestGateway::before(&[&backend]).await;
        let request = Request::builder().method(&method).uri("http://shop/").body(Untold(None));
        let answer = asks_in_http_2(connect(&gateway).await, request.unwrap()).await;
        assert_eq!(answer.status(), 200);
        gateway
            .answers(format!("{method} / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"))
            .await;
        let heard = backend.requests();
        assert_eq!(heard.len(), 2);
        for heard in heard {
            assert_eq!(header(&heard, "content-length"), told, "{heard}");
            assert_eq!(header(&heard, "transfer-encoding"), None, "{heard}");
        }
    }
}

#[tokio::test]
async fn a_body_of_untold_length_goes_on_in_chunks() {
    let backend = Backend::named("one").await;
    let gateway = TestGateway::before(&[&backend]).await;
    let request = Request::put("http://shop/").body(Untold(Some("body"))).unwrap();
    assert_eq!(asks_in_http_2(connect(&gateway).await, request).await.body(), "one");
    let heard = backend.request();
    assert_eq!(header(&heard, "content-length"), None, "{heard}");
    assert_eq!(header(&heard, "transfer-encoding"), Some("chunked"), "{heard}");
}

#[tokio::test]
async fn a_length_that_is_not_the_bodys_reaches_no_backend_whole() {
    let backend = Backend::named("one").await;
    let gateway = TestGateway::before(&[&backend]).await;
    for (length, body) in [("5", Some("body")), ("3", Some("body")), ("1", None), ("4, 4", None)] {
        let request = Request::post("http://shop/").header("content-length", length);
        let request = request.body(Untold(body)).unwrap();
        let answer = try_in_http_2(connect(&gateway).await, request).await;
        assert!(!answer.is_ok_and(|answer| answer.status() == 200), "{length} {body:?}");
    }
    assert_eq!(backend.requests(), [""; 0]);
}

#[tokio::test]
async fn an_answer_without_a_body_announces_none() {
    for (method, answer, length) in [
        ("GET", "204 No Content\r\ncontent-length: 5", None),
        ("GET", "204 No Content\r\ncontent-length: 0", None),
        ("GET", "304 Not Modified\r\ncontent-length: 5", None),
        ("GET", "204 No Content\r\ntransfer-encoding: chunked", None),
        ("GET", "304 Not Modified\r\ntransfer-encoding: chunked", None),
        ("GET", "103 Early Hints\r\ncontent-length: 5\r\n\r\nHTTP/1.1 204 No Content", None),
        (
            "GET",
            "426 Upgrade Required\r\nconnection: upgrade\r\nupgrade: a\r\ncontent-length: 0",
            Some("0"),
        ),
        ("HEAD", "200 OK\r\ncontent-length: 5", Some("5")),
        ("HEAD", "304 Not Modified\r\ncontent-length: 5", None),
        ("GET", "205 Reset Content\r\ncontent-length: 0", Some("0")),
    ] {
        let answer = format!("HTTP/1.1 {answer}\r\netag: x\r\n\r\n");
        let said = answer.clone();
        let backend = Backend::start(move |_| Act::Says(said.clone())).await;
        let gateway = TestGateway::before(&[&backend]).await;
        let request = Request::builder().method(method).uri("http://shop/");
        let request = request.body(String::new()).unwrap();
        let heard = asks_in_http_2(connect(&gateway).await, request).await;
        assert_eq!(heard.headers()["etag"], "x", "{answer}");
        assert_eq!(heard.body(), "");
        let told = heard.headers().get("content-length").map(|it| it.to_str().unwrap());
        assert_eq!(told, length, "{answer}");
        for name in ["connection", "upgrade", "transfer-encoding"] {
            assert!(!heard.headers().contains_key(name), "{name} {answer}");
        }
    }
}

#[tokio::test]
async fn headers_of_a_connection_are_none_of_http_2() {
    let backend = Backend::named("one").await;
    let gateway = TestGateway::before(&[&backend]).await;
    for (name, value) in [("te", "trailers"), ("x_forwarded_for", "6.6.6.6")] {
        let request = Request::get("http://shop/").header(name, value);
        let request = request.body(String::new()).unwrap();
        assert_eq!(asks_in_http_2(connect(&gateway).await, request).await.status(), 200, "{name}");
    }
    let heard = backend.requests();
    assert_eq!(heard.len(), 2);
    for heard in heard {
        assert_eq!((header(&heard, "te"), header(&heard, "x_forwarded_for")), (None, None));
    }
}

#[tokio::test]
async fn a_head_beyond_the_limit_is_refused_in_words() {
    let backend = Backend::named("one").await;
    let gateway = TestGateway::at(&[backend.address], |config| {
        config.gateway.header_limit = 8192;
    })
    .await;
    let long = |length: usize| "x".repeat(length);
    for (path, value, status, code) in [
        (long(8192), String::new(), 414, "uri_too_long"),
        (long(20_000), String::new(), 414, "uri_too_long"),
        (long(20_000), long(9_000), 414, "uri_too_long"),
        (String::new(), long(8192), 431, "head_too_large"),
        (String::new(), long(20_000), 431, "head_too_large"),
        (long(5_000), long(5_000), 431, "head_too_large"),
    ] {
        let request = Request::get(format!("http://shop/{path}")).header("x", value);
        let request = request.body(String::new()).unwrap();
        let answer = asks_in_http_2(connect(&gateway).await, request).await;
        let body: serde_json::Value = serde_json::from_str(answer.body()).unwrap();
        assert_eq!((answer.status().as_u16(), &body["code"]), (status, &code.into()));
        assert!(answer.headers().contains_key("x-request-id"));
    }
    let request = Request::get(format!("http://shop/{}", long(4_000))).header("x", long(4_000));
    let answer = asks_in_http_2(connect(&gateway).await, request.body(String::new()).unwrap());
    assert_eq!(answer.await.status(), 200);
    assert_eq!(backend.requests().len(), 1);
}
