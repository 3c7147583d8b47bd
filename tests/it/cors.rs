//! Pages of other sites: those on a list may ask and read, and no others.

use reqwest::{Method, RequestBuilder};

use crate::support::{Reply, TestGateway, TestShop};

const OURS: &str = "https://hr.example";
const OTHERS: [&str; 8] = [
    "https://evil.example",
    "null",
    "*",
    "http://hr.example",
    "https://hr.example:8443",
    "https://hr.example.evil.example",
    "https://HR.example",
    "https://hr.example/",
];

async fn shop() -> TestShop {
    TestShop::with(|config| {
        config.http.cors_origins =
            vec![OURS.parse().unwrap(), "http://localhost:3000".parse().unwrap()];
    })
    .await
}

/// What a browser asks before a page of `origin` may send a token.
fn preflight(request: RequestBuilder, origin: &str) -> RequestBuilder {
    request
        .header("Origin", origin)
        .header("Access-Control-Request-Method", "POST")
        .header("Access-Control-Request-Headers", "authorization,content-type,idempotency-key")
}

#[tokio::test]
async fn a_page_on_the_list_may_ask_and_read_whatever_comes_of_it() {
    let shop = shop().await;
    let gateway = TestGateway::at(&[shop.address], |_| {}).await;
    let alice = shop.logs_in("alice").await;
    for base in [&shop.base, &gateway.url("")] {
        for origin in [OURS, "http://localhost:3000"] {
            for path in ["/api/sendCoin", "/api/sendCoin/", "/api/buy/cup", "/no/such/path"] {
                let asked = shop.client.request(Method::OPTIONS, format!("{base}{path}"));
                let reply = Reply::to(preflight(asked, origin)).await;
                assert_eq!((reply.status.as_u16(), reply.text.as_str()), (204, ""), "{path}");
                assert_eq!(reply.header("access-control-allow-origin"), Some(origin));
                let methods = reply.header("access-control-allow-methods").unwrap();
                assert!(methods.contains("GET") && methods.contains("POST"), "{methods}");
                let sent = reply.header("access-control-allow-headers").unwrap().to_lowercase();
                for name in ["authorization", "content-type", "idempotency-key"] {
                    assert!(sent.contains(name), "{sent}");
                }
                assert!(reply.header("access-control-max-age").is_some());
                assert_eq!(reply.header("access-control-allow-credentials"), None);
                assert_eq!(reply.header("vary"), Some("origin"));
            }
            for (method, path, status) in [
                (Method::GET, "/api/info", 200),
                (Method::GET, "/api/merch", 200),
                (Method::GET, "/api/buy/nothing", 400),
                (Method::GET, "/no/such/path", 404),
                (Method::DELETE, "/api/info", 405),
                // Not every OPTIONS is a preflight.
                (Method::OPTIONS, "/api/info", 405),
            ] {
                let request = alice.at(base).request(method, path).header("Origin", origin);
                let reply = Reply::to(request).await;
                assert_eq!(reply.status, status, "{path}: {reply:?}");
                assert_eq!(reply.header("access-control-allow-origin"), Some(origin), "{path}");
                let read = reply.header("access-control-expose-headers").unwrap();
                for name in ["X-Request-Id", "Idempotency-Replayed", "Retry-After", "Location"] {
                    assert!(read.contains(name), "{read}");
                }
                let varies = reply.headers.get_all("vary").iter().any(|it| it == "origin");
                assert!(varies, "{path}: {reply:?}");
            }
        }
    }
    let stranger = shop.request(Method::GET, "/api/info").header("Origin", OURS);
    let reply = Reply::to(stranger).await;
    assert_eq!(reply.header("access-control-allow-origin"), Some(OURS));
    reply.is_error(401, "unauthorized");
    assert_eq!(alice.coins().await, 1000);
}

#[tokio::test]
async fn a_page_that_is_not_on_the_list_is_told_nothing() {
    let shop = shop().await;
    for origin in OTHERS {
        let asked = preflight(shop.request(Method::OPTIONS, "/api/sendCoin"), origin);
        let read = shop.request(Method::GET, "/api/merch").header("Origin", origin);
        for request in [asked, read] {
            let reply = Reply::to(request).await;
            for name in reply.headers.keys() {
                assert!(!name.as_str().starts_with("access-control"), "{origin}: {reply:?}");
            }
            assert!(reply.headers.get_all("vary").iter().any(|it| it == "origin"), "{reply:?}");
        }
    }
    let twice = shop.request(Method::GET, "/api/merch").header("Origin", OURS);
    let reply = Reply::to(twice.header("Origin", OURS)).await;
    assert_eq!(reply.header("access-control-allow-origin"), None);
    let varies = Reply::to(shop.request(Method::GET, "/api/merch")).await;
    assert!(varies.headers.get_all("vary").iter().any(|it| it == "origin"), "{varies:?}");
}

#[tokio::test]
async fn a_shop_without_a_list_says_nothing_of_pages() {
    let shop = TestShop::open().await;
    let asked = preflight(shop.request(Method::OPTIONS, "/api/sendCoin"), OURS);
    Reply::to(asked).await.is_error(405, "method_not_allowed");
    let reply = Reply::to(shop.request(Method::GET, "/api/info").header("Origin", OURS)).await;
    assert_eq!((reply.header("access-control-allow-origin"), reply.header("vary")), (None, None));
}

#[tokio::test]
async fn limits_count_preflights_and_a_page_can_read_that_it_asked_too_often() {
    let shop = TestShop::with(|config| {
        config.http.cors_origins = vec![OURS.parse().unwrap()];
        config.limits.serve = true;
        config.limits.capacity = 1;
        config.limits.rate_per_sec = 1;
    })
    .await;
    let gateway = TestGateway::at(&[shop.address], |config| {
        config.http.cors_origins = vec![OURS.parse().unwrap()];
        config.limits.capacity = 1;
        config.limits.rate_per_sec = 1;
    })
    .await;
    for base in [&shop.base, &gateway.url("")] {
        let refused = loop {
            let asked = shop.client.request(Method::OPTIONS, format!("{base}/api/info"));
            let reply = Reply::to(preflight(asked, OURS)).await;
            assert_eq!(reply.header("access-control-allow-origin"), Some(OURS), "{reply:?}");
            if reply.status == 429 {
                break reply;
            }
        };
        assert!(refused.header("retry-after").is_some());
        refused.is_error(429, "rate_limited");
    }
}
