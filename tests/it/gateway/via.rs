//! The way that a message takes: what is written down of it, and an end to circles.

use std::net::SocketAddr;
use std::sync::OnceLock;

use hyper::Request;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use crate::support::backend::ok;
use crate::support::gateway::{body, get, header};
use crate::support::http2::asks_in_http_2;
use crate::support::raw::status;
use crate::support::{Act, Backend, TestGateway};

/// All lines of `Via` in a message's head.
fn via(message: &str) -> Vec<&str> {
    let head = message.split("\r\n\r\n").next().unwrap();
    head.split("\r\n").filter_map(|line| line.strip_prefix("via: ")).collect()
}

#[tokio::test]
async fn both_ways_say_who_passed_them_on_and_in_which_version_they_came() {
    for (version, received) in [("HTTP/1.1", "1.1"), ("HTTP/1.0", "1.0")] {
        let answer = format!("{version} 200 OK\r\ncontent-length: 0\r\nvia: 1.1 inner\r\n\r\n");
        let backend = Backend::start(move |_| Act::Says(answer.clone())).await;
        let gateway = TestGateway::before(&[&backend]).await;
        let request = format!(
            "GET / {version}\r\nhost: a\r\nconnection: close\r\nvia: 1.0 fred, 1.1 p\r\n\r\n"
        );
        let answer = gateway.answers(request).await;
        assert!(answer.starts_with(version), "{answer}");
        let heard = backend.request();
        let [theirs, ours] = via(&heard)[..] else { panic!("{heard}") };
        assert_eq!(theirs, "1.0 fred, 1.1 p");
        assert!(ours.starts_with(&format!("{received} merch-gateway-")), "{ours}");
        assert_eq!(via(&answer), ["1.1 inner", ours]);
    }
}

#[tokio::test]
async fn http_2_is_named_as_what_it_is() {
    let backend = Backend::named("one").await;
    let gateway = TestGateway::before(&[&backend]).await;
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    let request = Request::get("http://shop/").body(String::new()).unwrap();
    let answer = asks_in_http_2(stream, request).await;
    let heard = backend.request();
    assert!(via(&heard)[0].starts_with("2.0 merch-gateway-"), "{heard}");
    assert!(answer.headers()["via"].to_str().unwrap().starts_with("1.1 merch-gateway-"));
}

#[tokio::test]
async fn what_a_gateway_says_itself_came_by_nobody() {
    let backend = Backend::named("one").await;
    let gateway = TestGateway::before(&[&backend]).await;
    assert_eq!(via(&gateway.answers(get("/health/live")).await), [""; 0]);
    assert_eq!(via(&gateway.answers(get("/metrics")).await), [""; 0]);
}

/// An address whose connections lead to where it is told.
async fn leads_to(target: &'static OnceLock<SocketAddr>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut server = TcpStream::connect(target.get().unwrap()).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut client, &mut server).await });
        }
    });
    address
}

#[tokio::test]
async fn a_request_that_goes_round_in_circles_is_found_after_a_few() {
    for through_another in [false, true] {
        let target: &OnceLock<SocketAddr> = Box::leak(Box::default());
        let back = leads_to(target).await;
        let last = TestGateway::at(&[back], |_| {}).await;
        let first = match through_another {
            true => &TestGateway::at(&[last.address], |_| {}).await,
            false => &last,
        };
        target.set(first.address).unwrap();
        for request in [
            get("/x"),
            "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi".into(),
        ] {
            let answer = first.answers(request).await;
            assert_eq!(status(&answer), 508, "{answer}");
            assert!(body(&answer).contains("\"code\":\"loop_detected\""), "{answer}");
            let gateways = if through_another { 6 } else { 3 };
            assert_eq!(via(&answer).len(), gateways, "{answer}");
        }
    }
}

#[tokio::test]
async fn options_that_may_go_no_further_are_answered_here() {
    let backend = Backend::start(|_| Act::Says(ok("one"))).await;
    let gateway = TestGateway::before(&[&backend]).await;
    let ask = async |method: &str, target: &str, forwards: &str| {
        let request = format!(
            "{method} {target} HTTP/1.1\r\nhost: a\r\nconnection: close\r\nmax-forwards: {forwards}\r\n\r\n"
        );
        gateway.answers(request).await
    };
    for target in ["/x", "*"] {
        let answer = ask("OPTIONS", target, "0").await;
        assert_eq!((status(&answer), body(&answer)), (200, ""), "{answer}");
        assert!(header(&answer, "allow").unwrap().contains("GET, HEAD, POST"), "{answer}");
        assert_eq!(status(&ask("OPTIONS", target, "-1").await), 400);
    }
    // TRACE goes nowhere, whatever it says.
    for forwards in ["0", "1", "x"] {
        let answer = ask("TRACE", "/x", forwards).await;
        assert_eq!(status(&answer), 405, "{answer}");
        assert!(header(&answer, "allow").unwrap().contains("OPTIONS"), "{answer}");
    }
    assert_eq!(backend.requests(), [""; 0]);
    for (method, forwards, left) in
        [("OPTIONS", "1", "0"), ("OPTIONS", "7", "6"), ("GET", "0", "0")]
    {
        assert_eq!(status(&ask(method, "/x", forwards).await), 200);
        let heard = backend.requests().pop().unwrap();
        assert_eq!(header(&heard, "max-forwards"), Some(left), "{heard}");
    }
}
