//! What may be kept of an answer, and what is sent again and how.

use reqwest::Method;

use crate::support::gateway::header;
use crate::support::raw::{self, status};
use crate::support::{Reply, TestGateway, TestShop};

#[tokio::test]
async fn every_answer_says_whether_it_may_be_kept() {
    let shop = TestShop::open().await;
    let gateway = TestGateway::at(&[shop.address], |_| {}).await;
    let alice = shop.logs_in("alice").await;
    let login = r#"{"username": "alice", "password": "correct horse"}"#;
    for (method, path, body, expected, cache) in [
        ("POST", "/api/auth", login, 200, "no-store"),
        ("POST", "/api/auth/", "{}", 400, "no-store"),
        ("GET", "/api/info", "", 200, "no-store"),
        ("HEAD", "/api/info", "", 200, "no-store"),
        ("GET", "/api/history", "", 200, "no-store"),
        ("GET", "/api/history/summary", "", 200, "no-store"),
        ("GET", "/api/buy/pen", "", 200, "no-store"),
        ("POST", "/api/buy/pen", "", 200, "no-store"),
        ("GET", "/api/buy/nothing", "", 400, "no-store"),
        ("POST", "/api/sendCoin", "{}", 400, "no-store"),
        ("DELETE", "/api/info", "", 405, "no-store"),
        ("GET", "/no/such/path", "", 404, "no-store"),
        ("GET", "/health/live", "", 200, "no-store"),
        ("GET", "/health/ready", "", 200, "no-store"),
        ("GET", "/api/merch", "", 200, "no-cache"),
        ("GET", "/api/openapi.json", "", 200, "no-cache"),
        ("GET", "/docs", "", 200, "no-cache"),
        ("GET", "/docs/swagger-ui.css", "", 200, "no-cache"),
        ("GET", "/docs/nothing.css", "", 404, "no-store"),
    ] {
        for base in [&shop.base, &gateway.url("")] {
            let request = alice.at(base).request(method.parse().unwrap(), path);
            let reply = Reply::to(request.body(body)).await;
            assert_eq!(reply.status, expected, "{method} {path}: {reply:?}");
            assert_eq!(reply.header("cache-control"), Some(cache), "{method} {path}");
            assert_eq!(reply.header("etag").is_some(), cache == "no-cache", "{method} {path}");
        }
    }
    let metrics = shop.gets("/metrics").await;
    assert_eq!(metrics.header("cache-control"), Some("no-store"));
    let stranger = shop.gets("/api/info").await;
    assert_eq!(stranger.header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn what_is_big_and_the_same_for_everybody_is_sent_once_and_packed() {
    let shop = TestShop::open().await;
    let gateway = TestGateway::at(&[shop.address], |_| {}).await;
    for path in ["/api/openapi.json", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css"] {
        for base in [&shop.base, &gateway.url("")] {
            let asks = async |method: Method, headers: &[(&str, &str)]| {
                let mut request = shop.client.request(method, format!("{base}{path}"));
                for (name, value) in headers {
                    request = request.header(*name, *value);
                }
                let response = request.send().await.unwrap();
                let (status, headers) = (response.status().as_u16(), response.headers().clone());
                let header = move |name: &str| {
                    headers.get(name).map(|value| value.to_str().unwrap().to_owned())
                };
                (status, header, response.bytes().await.unwrap())
            };
            let (status, plain, content) = asks(Method::GET, &[]).await;
            assert_eq!((status, plain("content-encoding")), (200, None), "{path}");
            assert_eq!(plain("vary").as_deref(), Some("accept-encoding"));

            let (status, packed, bytes) = asks(Method::GET, &[("accept-encoding", "gzip")]).await;
            assert_eq!((status, packed("content-encoding").as_deref()), (200, Some("gzip")));
            assert!(bytes.starts_with(&[0x1f, 0x8b]) && bytes.len() < content.len() / 2, "{path}");
            assert_ne!(plain("etag"), packed("etag"));
            assert_eq!(packed("content-type"), plain("content-type"));

            let (status, looked, nothing) =
                asks(Method::HEAD, &[("accept-encoding", "gzip")]).await;
            assert_eq!((status, nothing.len()), (200, 0));
            assert_eq!(looked("content-length"), packed("content-length"), "{path}");
            assert_eq!(looked("etag"), packed("etag"));

            for (coding, tag) in [("", plain("etag")), ("gzip", packed("etag"))] {
                let tag = tag.unwrap();
                let known = [("accept-encoding", coding), ("if-none-match", &tag)];
                let (status, kept, nothing) = asks(Method::GET, &known).await;
                assert_eq!((status, nothing.len()), (304, 0), "{path}");
                assert_eq!(kept("etag"), Some(tag));
                assert_eq!(kept("vary").as_deref(), Some("accept-encoding"));
            }
            let none = [("accept-encoding", "identity;q=0, br")];
            assert_eq!(asks(Method::GET, &none).await.0, 406, "{path}");
        }
    }
    let refused = shop.request(Method::GET, "/api/merch").header("accept-encoding", "*;q=0");
    Reply::to(refused).await.is_error(406, "not_acceptable");
}

#[tokio::test]
async fn the_catalogue_is_sent_again_when_it_has_changed() {
    let shop = TestShop::open().await;
    let first = shop.gets("/api/merch").await;
    let tag = first.header("etag").unwrap().to_owned();
    let again = async || {
        Reply::to(shop.request(Method::GET, "/api/merch").header("if-none-match", &tag)).await
    };
    assert_eq!(again().await.status, 304);
    shop.database.execute("UPDATE merch SET price = price + 1 WHERE name = 'cup'").await;
    let changed = again().await;
    assert_eq!(changed.status, 200);
    assert_ne!(changed.header("etag"), Some(tag.as_str()));
    // One that goes through a gateway and says 304 leaves its connection usable.
    let gateway = TestGateway::at(&[shop.address], |_| {}).await;
    let request = "GET /api/merch HTTP/1.1\r\nhost: a\r\nif-none-match: *\r\n";
    let pair = format!("{request}\r\n{request}connection: close\r\n\r\n");
    let answers = raw::answer(gateway.address, pair).await;
    let second = answers.rfind("HTTP/1.1").unwrap();
    assert_eq!((status(&answers), status(&answers[second..])), (304, 304), "{answers}");
    assert!(second > 0 && header(&answers[second..], "etag").is_some(), "{answers}");
}
