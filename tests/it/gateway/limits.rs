//! Limits at the gateway: what a client is told, and what it cannot talk itself out of.

use std::time::{Instant, SystemTime};

use jsonwebtoken::{EncodingKey, Header};
use merch_store::config::{Config, LimitsKey};
use serde_json::json;

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
    // Behind a translator there are as many as there are addresses of IPv4.
    for client in ["192.0.2.11", "192.0.2.12"] {
        let spellings = ["64:ff9b::", "::ffff:", "", "64:ff9b::", "64:ff9b:0:0:0::"];
        let spelled = spellings.map(|before| format!("x-forwarded-for: {before}{client}\r\n"));
        admits_three(&gateway, &spelled).await;
    }
}

/// A token of `subject` that is good, or not: until when, and signed with what.
fn token(subject: &str, expires_in: i64, secret: &str) -> String {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs().cast_signed();
    let claims = json!({"sub": subject, "exp": now + expires_in});
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::default(), &claims, &key).unwrap()
}

#[tokio::test]
async fn a_token_that_is_not_good_is_nobody_s_bucket() {
    const SECRET: &str = "the secret of the integration tests";
    const NEXT: &str = "the secret of the integration tests from now on";
    let backend = Backend::named("one").await;
    let gateway = TestGateway::at(&[backend.address], |config| {
        (config.limits.capacity, config.limits.rate_per_sec) = (3, 1);
        config.limits.key = LimitsKey::JwtSubject;
        config.auth.jwt_secret = Some(SECRET.into());
        config.auth.jwt_previous_secret = Some(NEXT.into());
    })
    .await;
    let bearer = |token: String| format!("authorization: Bearer {token}\r\n");
    let unsigned = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSIsImV4cCI6OTk5OTk5OTk5OX0.";
    // All of them together are whoever is at this address.
    let mut bad = vec![String::new(), bearer(unsigned.into())];
    for number in 0..5 {
        bad.push(bearer(token("alice", 600, "another secret, and a long one too")));
        bad.push(bearer(token("alice", -1 - number, SECRET)));
        bad.push(bearer(token(&format!("invented {number}"), 600, &"x".repeat(32))));
        bad.push(format!("x-user: {number}\r\n"));
    }
    admits_three(&gateway, &bad).await;
    // Nobody drew on hers meanwhile, and a new token is no new bucket.
    let alice = [600, 601, 602, 603, 604].map(|seconds| bearer(token("alice", seconds, SECRET)));
    admits_three(&gateway, &alice).await;
    // Either key of a rotation is as good.
    admits_three(&gateway, &[NEXT, SECRET, NEXT, SECRET].map(|key| bearer(token("bob", 600, key))))
        .await;
}

#[tokio::test]
async fn a_header_that_names_clients_does_so_once_or_not_at_all() {
    let backend = Backend::named("one").await;
    let gateway = TestGateway::at(&[backend.address], |config| {
        (config.limits.capacity, config.limits.rate_per_sec) = (3, 1);
        config.limits.key = LimitsKey::Header;
        config.limits.header = "X-Api-Key".into();
    })
    .await;
    for name in ["alice", "bob"] {
        admits_three(&gateway, &[(); 5].map(|()| format!("x-api-key: {name}\r\n"))).await;
    }
    let long = format!("x-api-key: {}\r\n", "x".repeat(256));
    let twice = "x-api-key: carol\r\nx-api-key: dave\r\n";
    admits_three(&gateway, &["", "x-api-key:\r\n", twice, &long, "x-other: e\r\n"]).await;
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
