//! What becomes of the heads of requests and answers.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::backend::ok;
use crate::support::gateway::{body, header};
use crate::support::raw::{Raw, status};
use crate::support::{Act, Backend, TestGateway};

/// What a backend hears of a request with `headers`.
async fn heard(headers: &str, trusted: &[&str]) -> String {
    let backend = Backend::named("one").await;
    let gateway = TestGateway::at(&[backend.address], |config| {
        let trusted = trusted.iter().map(|it| it.parse().unwrap());
        config.gateway.trusted_proxies = trusted.collect();
    })
    .await;
    let request = format!("GET /a?b=c HTTP/1.1\r\nhost: shop:80\r\n{headers}\r\n");
    let mut client = Raw::connect(gateway.address).await;
    client.says(request).await;
    client.hears_until("one").await;
    backend.request()
}

#[tokio::test]
async fn a_request_goes_through_with_its_target_its_host_and_its_headers() {
    let heard = heard("Accept: */*\r\nX-Two: a\r\nx-two: b\r\nX-Odd: \u{e9}\r\n", &[]).await;
    assert!(heard.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{heard}");
    for line in ["host: shop:80", "accept: */*", "x-two: a", "x-two: b", "x-odd: \u{e9}"] {
        assert!(heard.contains(&format!("\r\n{line}\r\n")), "{line} in {heard}");
    }
}

#[tokio::test]
async fn what_belongs_to_the_clients_connection_ends_with_it() {
    let sent = "Connection: keep-alive, X-Hop\r\nConnection: x-hop-2\r\nX-Hop: a\r\nX-Hop-2: b\r\n\
                X-End: c\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: trailers\r\n\
                Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n";
    let heard = heard(sent, &[]).await;
    for name in [
        "connection",
        "x-hop",
        "x-hop-2",
        "keep-alive",
        "proxy-connection",
        "te",
        "upgrade",
        "http2-settings",
        "transfer-encoding",
    ] {
        assert_eq!(header(&heard, name), None, "{heard}");
    }
    assert_eq!(header(&heard, "x-end"), Some("c"));
}

#[tokio::test]
async fn what_is_no_text_in_connection_keeps_nothing_else_of_it_from_ending_there() {
    let answer =
        b"HTTP/1.1 200 OK\r\nconnection: \xe9, x-hop\r\nx-hop: a\r\ncontent-length: 2\r\n\r\nok";
    let backend = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway = TestGateway::at(&[backend.local_addr().unwrap()], |_| ()).await;
    let mut client = Raw::connect(gateway.address).await;
    client.says(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: X-Hop, \xe9\r\nx-hop: a\r\n\r\n").await;
    let mut stream = backend.accept().await.unwrap().0;
    let mut heard = Vec::new();
    while !heard.ends_with(b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut heard).await.unwrap(), 0);
    }
    stream.write_all(answer).await.unwrap();
    assert_eq!(header(&String::from_utf8(heard).unwrap(), "x-hop"), None);
    assert_eq!(header(&client.hears_until("ok").await, "x-hop"), None);
}

#[tokio::test]
async fn a_client_cannot_have_headers_removed_that_say_where_it_comes_from_or_goes_to() {
    let sent = "Connection: host, x-forwarded-for, forwarded, x-request-id, x-forwarded-proto\r\n";
    let heard = heard(sent, &[]).await;
    for name in ["host", "x-forwarded-for", "forwarded", "x-forwarded-proto", "x-request-id"] {
        assert!(header(&heard, name).is_some(), "{name} in {heard}");
    }
}

#[tokio::test]
async fn a_backend_is_told_where_a_request_comes_from_and_not_what_the_client_says_of_it() {
    let spoofed = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Real-IP: 6.6.6.6\r\n\
                   X-Forwarded-Host: evil\r\nForwarded: for=6.6.6.6\r\nX-Forwarded-Port: 1\r\n";
    for (trusted, told) in [
        (&[][..], ["127.0.0.1", "http", "shop:80", "for=127.0.0.1;proto=http"]),
        (
            &["127.0.0.0/8"],
            [
                "6.6.6.6, 127.0.0.1",
                "https",
                "evil",
                "for=6.6.6.6;host=\"evil\";proto=https, for=127.0.0.1",
            ],
        ),
    ] {
        let heard = heard(spoofed, trusted).await;
        let names = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"];
        assert_eq!(names.map(|name| header(&heard, name).unwrap()), told, "{heard}");
        assert_eq!(header(&heard, "x-real-ip"), None);
    }
}

#[tokio::test]
async fn a_request_has_an_id_that_the_backend_and_the_client_both_see() {
    let backend = Backend::named("one").await;
    let gateway = TestGateway::before(&[&backend]).await;
    for (at, (sent, kept)) in [
        ("x-request-id: from-the-client-1\r\n", true),
        ("", false),
        ("x-request-id: with a space\r\n", false),
        ("x-request-id: 0123456789012345678901234567890123456789012345678901234567890123456789\r\n", false),
    ]
    .into_iter()
    .enumerate()
    {
        let request = format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{sent}\r\n");
        let answer = gateway.answers(request).await;
        let heard = backend.requests().swap_remove(at);
        let id = header(&answer, "x-request-id").unwrap();
        assert_eq!(header(&heard, "x-request-id"), Some(id));
        assert_eq!(sent.contains(id), kept, "{id}");
        assert!(kept || id.len() == 32, "{id}");
    }
}

#[tokio::test]
async fn an_absolute_target_becomes_a_path_and_an_old_client_is_served_too() {
    let backend = Backend::named("one").await;
    let gateway = TestGateway::before(&[&backend]).await;
    for (at, (request, line, host)) in [
        (
            "GET http://Shop/x?y HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n",
            "GET /x?y HTTP/1.1",
            "Shop",
        ),
        // The host in the target wins against the other one.
        (
            "GET http://shop:80/ HTTP/1.1\r\nhost: other\r\nconnection: close\r\n\r\n",
            "GET / HTTP/1.1",
            "shop:80",
        ),
        (
            "GET http://shop HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n",
            "GET / HTTP/1.1",
            "shop",
        ),
        (
            "OPTIONS * HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n",
            "OPTIONS * HTTP/1.1",
            "shop",
        ),
        ("GET /old HTTP/1.0\r\nhost: shop\r\n\r\n", "GET /old HTTP/1.1", "shop"),
        ("GET /older HTTP/1.0\r\n\r\n", "GET /older HTTP/1.1", &backend.address.to_string()),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = gateway.answers(request).await;
        assert!(answer.starts_with("HTTP/1.") && answer.ends_with("\r\n\r\none"), "{answer}");
        let heard = backend.requests().swap_remove(at);
        assert!(heard.starts_with(line), "{heard}");
        assert_eq!(header(&heard, "host"), Some(host));
    }
}

#[tokio::test]
async fn an_answer_comes_through_without_what_belongs_to_the_backends_connection() {
    let answer = "HTTP/1.1 418 I'm a teapot\r\nContent-Length: 2\r\nConnection: X-Hop\r\nX-Hop: a\r\n\
                  Keep-Alive: timeout=5\r\nUpgrade: h2c\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\
                  Server: tea\r\n\r\nhi";
    let backend = Backend::start(move |_| Act::Says(answer.into())).await;
    let gateway = TestGateway::before(&[&backend]).await;
    let mut client = Raw::connect(gateway.address).await;
    client.says("GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let heard = client.hears_until("hi").await;
    assert_eq!(status(&heard), 418);
    for name in ["connection", "x-hop", "keep-alive", "upgrade"] {
        assert_eq!(header(&heard, name), None, "{heard}");
    }
    assert_eq!(
        (header(&heard, "server"), header(&heard, "content-length")),
        (Some("tea"), Some("2"))
    );
    assert!(heard.contains("set-cookie: a\r\nset-cookie: b\r\n"), "{heard}");
}

#[tokio::test]
async fn answers_without_a_body_keep_their_headers_and_the_connection() {
    for (method, answer, length) in [
        ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\netag: x\r\n\r\n", Some("5")),
        ("HEAD", "HTTP/1.1 200 OK\r\netag: x\r\n\r\n", None),
        ("GET", "HTTP/1.1 204 No Content\r\netag: x\r\n\r\n", None),
        ("GET", "HTTP/1.1 204 No Content\r\ncontent-length: 5\r\netag: x\r\n\r\n", None),
        ("GET", "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\netag: x\r\n\r\n", None),
        ("GET", "HTTP/1.1 304 Not Modified\r\netag: x\r\n\r\n", None),
        ("GET", "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\netag: x\r\n\r\n", None),
        ("HEAD", "HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\netag: x\r\n\r\n", None),
        (
            "GET",
            "HTTP/1.1 102 Processing\r\ncontent-length: 5\r\n\r\nHTTP/1.1 103 Early Hints\r\n\
             content-length: 7\r\n\r\nHTTP/1.1 204 No Content\r\netag: x\r\n\r\n",
            None,
        ),
        ("GET", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\netag: x\r\n\r\n", Some("0")),
    ] {
        let backend = Backend::start(move |_| Act::Says(answer.into())).await;
        let gateway = TestGateway::before(&[&backend]).await;
        let mut client = Raw::connect(gateway.address).await;
        for _ in 0..2 {
            client.says(format!("{method} / HTTP/1.1\r\nhost: a\r\n\r\n")).await;
            let heard = client.hears_until("\r\n\r\n").await;
            assert_eq!(header(&heard, "etag"), Some("x"), "{heard}");
            assert_eq!(header(&heard, "content-length"), length, "{answer}: {heard}");
        }
        assert_eq!(backend.connections(), 1, "{answer}");
    }
}

#[tokio::test]
async fn an_early_hint_is_not_the_answer() {
    let answer = format!("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n{}", ok("one"));
    let backend = Backend::start(move |_| Act::Says(answer.clone())).await;
    let gateway = TestGateway::before(&[&backend]).await;
    assert_eq!(gateway.get("/").await, (200, "one".into()));
}

#[tokio::test]
async fn health_is_the_gateways_own_and_what_is_hidden_is_not_found() {
    let backend = Backend::named("one").await;
    let gateway = TestGateway::before(&[&backend]).await;
    for path in ["/health/live", "/health/ready"] {
        assert_eq!(gateway.get(path).await, (200, r#"{"status":"ok"}"#.into()), "{path}");
    }
    for path in ["/metrics", "/health", "/health/", "/%6detrics", "//metrics", "/x/..%2fmetrics"] {
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        let answer = gateway.answers(request).await;
        assert_eq!(status(&answer), 404, "{path}");
        assert!(body(&answer).contains("\"not_found\""), "{answer}");
    }
    assert_eq!(backend.connections(), 0);
}

#[tokio::test]
async fn a_name_with_an_underscore_cannot_stand_for_one_with_a_dash() {
    let backend = Backend::named("one").await;
    let names =
        ["X_Forwarded_For", "X_Real_IP", "transfer_encoding", "Content_Length", "_", "x_y-z"];
    let lines: String = names.iter().map(|name| format!("{name}: chunked\r\n")).collect();
    let request =
        format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx-y: z\r\n{lines}\r\n");
    for drops in [true, false] {
        let gateway = TestGateway::at(&[backend.address], |config| {
            config.gateway.drop_underscore_headers &= drops;
        })
        .await;
        assert_eq!(status(&gateway.answers(&request).await), 200);
        let heard = backend.requests().pop().unwrap();
        for name in names {
            assert_eq!(header(&heard, name).is_none(), drops, "{name}: {heard}");
        }
        assert_eq!(header(&heard, "x-y"), Some("z"));
    }
}
