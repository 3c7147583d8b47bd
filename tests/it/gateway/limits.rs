//! Limits at the gateway: what a client is told, and what it cannot talk itself out of.

use std::time::Instant;

use merch_store::config::Config;

use crate::support::gateway::{body, header};
use crate::support::raw::{Raw, status};
use crate::support::{Backend, TestGateway};

/// Three requests a client at once, and one more each second.
async fn strict(backend: &Backend, trusted: &[&str]) -> TestGateway {
    let settings = |config: &mut Config| {
        (config.limits.capacity, config.limits.rate_per_sec) = (3, 1);
        config.gateway.trusted_proxies = trusted.iter().map(|it| it.parse().unwrap()).collect();
    };
    TestGateway::at(&[backend.address], settings).await
}

/// Of requests with these headers, `gateway` lets three through, and one more for each second
/// that has passed.
async fn admits_three(gateway: &TestGateway, headers: &[impl AsRef<str>]) {
    let since = Instant::now();
    let mut admitted = 0;
    for headers in headers {
        match status(&gateway.answers(request(headers.as_ref())).await) {
            200 => admitted += 1,
            status => assert_eq!(status, 429),
        }
    }
    let most = 3 + since.elapsed().as_secs() as usize;
    assert!((3..=most).contains(&admitted), "{admitted} of {:?}", headers[0].as_ref());
}

fn request(headers: &str) -> String {
    format!("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{headers}\r\n")
}

#[tokio::test]
async fn a_client_that_asks_for_too_much_is_told_when_to_come_back() {
    let backend = Backend::named("one").await;
    let gateway = strict(&backend, &[]).await;
    for left in [2, 1, 0] {
        let answer = gateway.answers(request("")).await;
        assert_eq!(status(&answer), 200, "{answer}");
        assert_eq!(header(&answer, "ratelimit-policy"), Some("\"default\";q=3;w=3"));
        let standing = header(&answer, "ratelimit").unwrap();
        assert!(standing.starts_with("\"default\";r=") && standing.contains(";t="), "{standing}");
        assert!(left < 2 || standing.contains("r=2;"), "{standing}");
    }
    // A machine that is busy enough lets a second pass, and with it another request.
    let refused = loop {
        let answer = gateway.answers(request("")).await;
        if status(&answer) != 200 {
            break answer;
        }
    };
    assert_eq!(status(&refused), 429, "{refused}");
    assert_eq!(header(&refused, "retry-after"), Some("1"));
    assert_eq!(header(&refused, "ratelimit-policy"), Some("\"default\";q=3;w=3"));
    assert!(header(&refused, "ratelimit").is_some());
    let error: serde_json::Value = serde_json::from_str(body(&refused)).unwrap();
    assert_eq!(error["code"], "rate_limited");
    // The gateway's own answers cost nothing.
    assert_eq!(gateway.get("/health/live").await.0, 200);
    assert_eq!(gateway.get("/metrics").await.0, 404);
}

#[tokio::test]
async fn a_client_cannot_talk_itself_into_another_bucket() {
    let spoofs = [
        "x-forwarded-for: 1.2.3.4\r\n",
        "x-forwarded-for: 1.2.3.4, 127.0.0.1\r\n",
        "x-forwarded-for: 127.0.0.1\r\nx-forwarded-for: 1.2.3.4\r\n",
        "forwarded: for=1.2.3.4\r\n",
        "x-real-ip: 1.2.3.4\r\n",
        "x-client-ip: 1.2.3.4\r\ntrue-client-ip: 1.2.3.4\r\n",
    ];
    for spoof in spoofs {
        let backend = Backend::named("one").await;
        let gateway = strict(&backend, &[]).await;
        admits_three(&gateway, &["", "", "", spoof, spoof]).await;
    }
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_client_has_its_own_bucket_whatever_it_claims() {
    let backend = Backend::named("one").await;
    let gateway = strict(&backend, &["127.0.0.1"]).await;
    for client in ["192.0.2.1", "192.0.2.2"] {
        let claims = ["", "6.6.6.6, ", "192.0.2.3, 127.0.0.1, ", "6.6.6.7, ", "6.6.6.8, "];
        let forwarded = claims.map(|claim| format!("x-forwarded-for: {claim}{client}\r\n"));
        admits_three(&gateway, &forwarded).await;
    }
    // A /64 is one client.
    let neighbours = [1, 2, 3, 4, 5].map(|last| format!("x-forwarded-for: 2001:db8::{last}\r\n"));
    admits_three(&gateway, &neighbours).await;
}

#[tokio::test]
async fn a_refused_request_leaves_the_connection_as_it_was() {
    let backend = Backend::named("one").await;
    let gateway = strict(&backend, &[]).await;
    let mut client = Raw::connect(gateway.address).await;
    let mut refused = 0;
    while refused < 2 {
        client.says("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbody").await;
        let head = client.hears_until("\r\n\r\n").await;
        client.hears_until(if status(&head) == 200 { "one" } else { "}" }).await;
        refused += usize::from(status(&head) == 429);
    }
}
