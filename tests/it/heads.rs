//! The heads of requests, as the shop reads them: the same way as a gateway in front of it.

use reqwest::Method;

use crate::support::gateway::{body, header};
use crate::support::raw::{self, status};
use crate::support::{Reply, TestGateway, TestShop};

/// What of a head is not taken for one.
const UNFIT: &[(&str, &str)] = &[
    ("no host", "GET /api/merch HTTP/1.1\r\n"),
    ("an empty host", "GET /api/merch HTTP/1.1\r\nhost:\r\n"),
    ("two hosts", "GET /api/merch HTTP/1.1\r\nhost: a\r\nhost: b\r\n"),
    ("the same host twice", "GET /api/merch HTTP/1.1\r\nhost: a\r\nHost: a\r\n"),
    ("a host and an empty one", "GET /api/merch HTTP/1.1\r\nhost: a\r\nhost:\r\n"),
    ("a list of hosts", "GET /api/merch HTTP/1.1\r\nhost: a, b\r\n"),
    ("a list without a space", "GET /api/merch HTTP/1.1\r\nhost: a,a\r\n"),
    ("a host with a user", "GET /api/merch HTTP/1.1\r\nhost: u:p@a\r\n"),
    ("a host with a path", "GET /api/merch HTTP/1.1\r\nhost: a/api\r\n"),
    ("a host with a query", "GET /api/merch HTTP/1.1\r\nhost: a?b\r\n"),
    ("a host with a scheme", "GET /api/merch HTTP/1.1\r\nhost: http://a\r\n"),
    ("a host with a space", "GET /api/merch HTTP/1.1\r\nhost: a b\r\n"),
    ("a port without a host", "GET /api/merch HTTP/1.1\r\nhost: :80\r\n"),
    ("a port with letters", "GET /api/merch HTTP/1.1\r\nhost: a:http\r\n"),
    ("a port beyond 65535", "GET /api/merch HTTP/1.1\r\nhost: a:65536\r\n"),
    ("two ports", "GET /api/merch HTTP/1.1\r\nhost: a:80:80\r\n"),
    ("IPv6 without brackets", "GET /api/merch HTTP/1.1\r\nhost: ::1\r\n"),
    ("a bracket that is not closed", "GET /api/merch HTTP/1.1\r\nhost: [::1\r\n"),
    ("a name in brackets", "GET /api/merch HTTP/1.1\r\nhost: [a]\r\n"),
    ("a zone", "GET /api/merch HTTP/1.1\r\nhost: [fe80::1%25eth0]:80\r\n"),
    ("a host beyond ASCII", "GET /api/merch HTTP/1.1\r\nhost: caf\u{e9}\r\n"),
    ("a host with quotes", "GET /api/merch HTTP/1.1\r\nhost: \"a\"\r\n"),
    ("two hosts in HTTP/1.0", "GET /api/merch HTTP/1.0\r\nhost: a\r\nhost: a\r\n"),
    ("no host beside the target's", "GET http://a/api/merch HTTP/1.1\r\n"),
    ("a bad host beside the target's", "GET http://a/api/merch HTTP/1.1\r\nhost: u@a\r\n"),
    ("a user in the target", "GET http://u@a/api/merch HTTP/1.1\r\nhost: a\r\n"),
    ("another scheme", "GET ftp://a/api/merch HTTP/1.1\r\nhost: a\r\n"),
    ("a star for GET", "GET * HTTP/1.1\r\nhost: a\r\n"),
    ("a target that is a host", "GET a:80 HTTP/1.1\r\nhost: a:80\r\n"),
    (
        "two tokens",
        "GET /api/merch HTTP/1.1\r\nhost: a\r\nauthorization: Bearer a\r\nauthorization: Bearer b\r\n",
    ),
    (
        "the same token twice",
        "GET /api/merch HTTP/1.1\r\nhost: a\r\nauthorization: Bearer a\r\nAuthorization: Bearer a\r\n",
    ),
    (
        "a token and an empty one",
        "GET /api/merch HTTP/1.1\r\nhost: a\r\nauthorization: Bearer a\r\nauthorization:\r\n",
    ),
];

#[tokio::test]
async fn a_head_that_two_servers_could_read_differently_is_refused_as_the_gateway_does() {
    let shop = TestShop::open().await;
    let gateway = TestGateway::at(&[shop.address], |_| {}).await;
    for (what, head) in UNFIT {
        for address in [shop.address, gateway.address] {
            let answer = raw::answer(address, format!("{head}connection: close\r\n\r\n")).await;
            // HTTP/1.0 is answered in kind.
            let answer = answer.replacen("HTTP/1.0", "HTTP/1.1", 1);
            assert_eq!(status(&answer), 400, "{what}: {answer}");
            let body: serde_json::Value = serde_json::from_str(body(&answer)).unwrap();
            assert_eq!(body["code"], "invalid_request", "{what}");
            assert!(header(&answer, "x-request-id").is_some(), "{what}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_head_that_can_be_read_in_one_way_is_served() {
    let shop = TestShop::open().await;
    let gateway = TestGateway::at(&[shop.address], |_| {}).await;
    for (what, head) in [
        ("HTTP/1.0 without a host", "GET /api/merch HTTP/1.0\r\n"),
        ("HTTP/1.0 with one", "GET /api/merch HTTP/1.0\r\nhost: a\r\n"),
        ("any name", "GET /api/merch HTTP/1.1\r\nhost: any_name-1.example.:080\r\n"),
        ("a port that is left out", "GET /api/merch HTTP/1.1\r\nhost: a:\r\n"),
        ("IPv6", "GET /api/merch HTTP/1.1\r\nhost: [::1]:8080\r\n"),
        ("a whole URL", "GET http://a/api/merch HTTP/1.1\r\nhost: a\r\n"),
        ("a URL for another host", "GET https://a:1/api/merch HTTP/1.1\r\nhost: b\r\n"),
        (
            "two types",
            "GET /api/merch HTTP/1.1\r\nhost: a\r\ncontent-type: a\r\ncontent-type: b\r\n",
        ),
    ] {
        for address in [shop.address, gateway.address] {
            let answer = raw::answer(address, format!("{head}connection: close\r\n\r\n")).await;
            let answer = answer.replacen("HTTP/1.0", "HTTP/1.1", 1);
            assert_eq!(status(&answer), 200, "{what}: {answer}");
        }
    }
}

#[tokio::test]
async fn two_tokens_open_nothing_whoever_is_asked() {
    let shop = TestShop::open().await;
    let gateway = TestGateway::at(&[shop.address], |_| {}).await;
    let (alice, bob) = (shop.logs_in("alice").await, shop.logs_in("bob").await);
    for base in [shop.base.clone(), gateway.url("")] {
        for (method, path) in [(Method::GET, "/api/info"), (Method::POST, "/api/buy/cup")] {
            for second in [&alice.token, &bob.token, &"none".to_owned()] {
                let request = alice.at(&base).request(method.clone(), path).bearer_auth(second);
                Reply::to(request).await.is_error(400, "invalid_request");
                // What joins lines makes one token of them, which is none.
                let joined = format!("Bearer {}, Bearer {second}", alice.token);
                let request = shop.client.request(method.clone(), format!("{base}{path}"));
                let reply = Reply::to(request.header("authorization", joined)).await;
                reply.is_error(401, "unauthorized");
            }
        }
    }
    assert_eq!((alice.coins().await, bob.coins().await), (1000, 1000));
}

#[tokio::test]
async fn two_ids_are_none() {
    let shop = TestShop::open().await;
    let gateway = TestGateway::at(&[shop.address], |_| {}).await;
    for address in [shop.address, gateway.address] {
        let request = "GET /api/merch HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\
                       x-request-id: one\r\nx-request-id: two\r\n\r\n";
        let answer = raw::answer(address, request).await;
        let id = header(&answer, "x-request-id").unwrap();
        assert_eq!((status(&answer), id.len()), (200, 32), "{answer}");
    }
}

/// How a path may be spelt, and its own spelling.
const SPELLINGS: &[(&str, &str, &str)] = &[
    ("GET", "/api/%69nfo", "/api/info"),
    ("GET", "/%61pi/info", "/api/info"),
    ("GET", "/api/%69%6E%66%6f", "/api/info"),
    ("GET", "/api/info/", "/api/info"),
    ("GET", "/api/info/?a=b", "/api/info"),
    ("HEAD", "/api/info/", "/api/info"),
    ("POST", "/api/auth/", "/api/auth"),
    ("POST", "/api/%61uth", "/api/auth"),
    ("POST", "/api/sendCoin/", "/api/sendCoin"),
    ("POST", "/api/send%43oin/", "/api/sendCoin"),
    ("GET", "/api/merch/", "/api/merch"),
    ("GET", "/api/history/", "/api/history"),
    ("GET", "/api/history/?limit=1", "/api/history?limit=1"),
    ("GET", "/api/history?limit=%31", "/api/history?limit=1"),
    ("GET", "/api/history/summary/", "/api/history/summary"),
    ("GET", "/api/openapi%2Ejson/", "/api/openapi.json"),
    ("GET", "/docs/", "/docs"),
    ("GET", "/docs/swagger%2Dui.css/", "/docs/swagger-ui.css"),
    ("GET", "/%68ealth/live", "/health/live"),
    ("GET", "/health/live/", "/health/live"),
    ("GET", "/health/%72eady/", "/health/ready"),
    ("DELETE", "/api/info/", "/api/info"),
    ("GET", "/api/auth/", "/api/auth"),
    ("GET", "http://shop/api/%69nfo/", "/api/info"),
    // These are other paths, or none, and stay it.
    ("GET", "/api/buy/", "/api/buy"),
    ("GET", "/api%2Finfo", "/no/such/path"),
    ("GET", "/api/info%2F", "/no/such/path"),
    ("GET", "/api/%2569nfo", "/no/such/path"),
    ("GET", "/api/info%00", "/no/such/path"),
    ("GET", "/api/info%20", "/no/such/path"),
    ("GET", "/api/info%3Fa", "/no/such/path"),
    ("GET", "/api/%zz", "/no/such/path"),
    ("GET", "/api/info%", "/no/such/path"),
    ("GET", "/api/info%6", "/no/such/path"),
    ("GET", "/api/INFO", "/no/such/path"),
    ("GET", "/api/info//", "/no/such/path"),
    ("GET", "//api/info", "/no/such/path"),
    ("GET", "/api//info", "/no/such/path"),
    ("GET", "/api/./info", "/no/such/path"),
    ("GET", "/x/../api/info", "/no/such/path"),
    ("GET", "/x/%2e%2e/api/info", "/no/such/path"),
    ("GET", "/api/info;v=1", "/no/such/path"),
    ("GET", "/api/info%3Bv=1", "/no/such/path"),
    ("GET", "/api\\info", "/no/such/path"),
    ("GET", "/api/buy//cup", "/no/such/path"),
    ("GET", "/api/buy/cup/cup/", "/no/such/path"),
    ("GET", "/api/buy/cup%2Fcup", "/api/buy/nothing"),
    ("GET", "/api/buy/cup%2F", "/api/buy/nothing"),
    ("GET", "/api/buy/cup;v=1", "/api/buy/nothing"),
    ("GET", "/api/buy/%2563up", "/api/buy/nothing"),
    ("GET", "/api/buy/%FF/", "/api/buy/nothing"),
    ("GET", "/api/buy/../", "/api/buy/nothing"),
];

#[tokio::test]
async fn a_path_leads_to_the_same_place_however_it_is_spelt_and_by_whichever_way() {
    let shop = TestShop::open().await;
    let gateway = TestGateway::at(&[shop.address], |_| {}).await;
    let alice = shop.logs_in("alice").await;
    let asks = async |address, method: &str, target: &str| {
        let answer = raw::answer(
            address,
            format!(
                "{method} {target} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\
                 authorization: Bearer {}\r\ncontent-length: 2\r\n\r\n{{}}",
                alice.token
            ),
        );
        let answer = answer.await;
        (status(&answer), body(&answer).to_owned())
    };
    for (method, spelling, plain) in SPELLINGS {
        let expected = asks(shop.address, method, plain).await;
        assert_eq!(asks(shop.address, method, spelling).await, expected, "{method} {spelling}");
        let through = asks(gateway.address, method, spelling).await;
        // Who hides a path has words of its own for it.
        let same = through == expected || (through.0 == 404 && expected.0 == 404);
        assert!(same, "{method} {spelling}: {through:?} and {expected:?}");
        assert_ne!(expected.0 / 100, 3, "{method} {plain} leads elsewhere");
    }
    assert_eq!(alice.coins().await, 1000);
}

#[tokio::test]
async fn a_purchase_is_one_however_its_path_is_spelt_and_its_route_is_counted_as_one() {
    let shop = TestShop::open().await;
    let gateway = TestGateway::at(&[shop.address], |_| {}).await;
    let alice = shop.logs_in("alice").await;
    let spellings =
        ["/api/buy/pen/", "/api/%62uy/pen", "/api/buy/%70en", "/api/buy/p%65n/", "/%61pi/buy/pen"];
    for spelling in spellings {
        for base in [&shop.base, &gateway.url("")] {
            alice.at(base).gets(spelling).await.is_done();
            Reply::to(alice.at(base).request(Method::POST, spelling)).await.is_done();
            // Looking costs nothing, whatever it is called.
            let looked = Reply::to(alice.at(base).request(Method::HEAD, spelling)).await;
            assert_eq!(looked.status, 405, "{spelling}");
        }
    }
    let bought = 4 * spellings.len() as i64;
    assert_eq!((alice.owns("pen").await, alice.coins().await), (bought, 1000 - 10 * bought));
    let metrics = shop.gets("/metrics/").await.text;
    assert!(metrics.contains("route=\"/api/buy/{item}\""), "{metrics}");
    for spelling in ["buy/pen", "%62", "pen/"] {
        assert!(!metrics.contains(spelling), "{spelling} in {metrics}");
    }
    shop.is_honest().await;
}

#[tokio::test]
async fn no_spelling_of_a_hidden_path_passes_the_gateway() {
    let shop = TestShop::open().await;
    let gateway = TestGateway::at(&[shop.address], |_| {}).await;
    for spelling in [
        "/metrics",
        "/metrics/",
        "/metrics//",
        "/%6detrics",
        "/%6Detrics/",
        "/%256detrics",
        "/metrics%2F",
        "/metrics%00",
        "/metrics?a",
        "/metrics;a",
        "/METRICS",
        "//metrics",
        "/./metrics",
        "/x/../metrics",
        "/x/%2e%2e/metrics",
        "/x%2f..%2fmetrics",
        "\\metrics",
        "/\\metrics",
        "http://shop/%6detrics",
        "/health",
        "/health/",
        "/%68ealth/",
        "/health/startup",
        "/health%2Flive",
    ] {
        let answer = raw::answer(
            gateway.address,
            format!("GET {spelling} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n"),
        );
        let answer = answer.await;
        assert!([400, 404].contains(&status(&answer)), "{spelling}: {answer}");
        assert!(!answer.contains("merch_"), "{spelling}: {answer}");
    }
}
