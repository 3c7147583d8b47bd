//! A shop with no gateway in front may hold its clients to the same limits.

use merch_store::config::LimitsKey;

use crate::support::shop::Bank;
use crate::support::{TestRedis, TestShop};

#[tokio::test]
async fn a_shop_knows_no_limits_unless_it_is_told_to() {
    let shop = TestShop::with(|config| config.limits.capacity = 1).await;
    for _ in 0..3 {
        let reply = shop.gets("/api/merch").await;
        assert_eq!((reply.status.as_u16(), reply.header("ratelimit")), (200, None));
    }
}

#[tokio::test]
async fn a_client_that_asks_too_often_is_told_when_to_come_back() {
    let shop = TestShop::with(|config| {
        config.limits.serve = true;
        config.limits.capacity = 2;
        config.limits.rate_per_sec = 1;
    })
    .await;
    let mut replies = Vec::new();
    for _ in 0..2 {
        replies.push(shop.gets("/api/merch").await);
    }
    let refused = loop {
        // A token may have come back in between.
        let reply = shop.gets("/api/merch").await;
        if reply.status == 429 {
            break reply;
        }
        replies.push(reply);
    };
    for reply in &replies {
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("ratelimit-policy"), Some("\"default\";q=2;w=2"));
        assert_eq!(reply.header("retry-after"), None);
    }
    assert_eq!(replies[0].header("ratelimit"), Some("\"default\";r=1;t=1"));
    refused.is_error(429, "rate_limited");
    assert_eq!(refused.header("ratelimit"), Some("\"default\";r=0;t=2"));
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert!(refused.header("x-request-id").is_some());
    for path in ["/health/live", "/health/ready", "/metrics"] {
        let reply = shop.gets(path).await;
        assert_eq!((reply.status.as_u16(), reply.header("ratelimit")), (200, None), "{path}");
    }
    let metrics = shop.gets("/metrics").await.text;
    for name in [
        "merch_limits_decisions_total{result=\"refused\"}",
        "merch_limits_decisions_total{result=\"allowed\"}",
        "merch_limits_mode{mode=\"local\"}",
        "merch_limits_overflow_total",
        "merch_limits_keys",
    ] {
        assert!(metrics.contains(name), "{name} in {metrics}");
    }
}

#[tokio::test]
async fn people_behind_one_address_have_buckets_of_their_own_if_their_tokens_are_good() {
    let shop = TestShop::with(|config| {
        config.limits.serve = true;
        config.limits.key = LimitsKey::JwtSubject;
        config.limits.capacity = 3;
        config.limits.rate_per_sec = 1;
    })
    .await;
    let people = Bank::open(&shop.database, 2, 100).await;
    for person in &people {
        let reply = person.at(&shop.base).gets("/api/info").await;
        assert_eq!(reply.header("ratelimit"), Some("\"default\";r=2;t=1"), "{reply:?}");
    }
    // Invented tokens are one client: whoever is at this address.
    let mut refused = false;
    for number in 0..100 {
        let request = shop.request(reqwest::Method::GET, "/api/merch");
        let invented = request.bearer_auth(format!("{}{number}", people[0].token));
        refused |= invented.send().await.unwrap().status() == 429;
    }
    assert!(refused);
    let reply = people[0].at(&shop.base).gets("/api/info").await;
    assert_eq!(reply.status, 200, "nobody took her tokens: {reply:?}");
}

#[tokio::test]
async fn replicas_with_one_redis_share_their_clients_buckets() {
    let redis = TestRedis::start().await;
    let change = |config: &mut merch_store::config::Config| {
        config.limits.serve = true;
        config.limits.capacity = 1_000;
        config.limits.rate_per_sec = 1;
        config.limits.redis_url = Some(redis.url().into());
        config.limits.redis_timeout = crate::support::redis::PATIENT;
    };
    let shop = TestShop::with(change).await;
    let replica = shop.replica(change).await;
    let remaining = async |base: &str| -> Option<u32> {
        let reply = shop.client.get(format!("{base}/api/merch")).send().await.unwrap();
        let standing = reply.headers()["ratelimit"].to_str().unwrap().to_owned();
        standing.strip_prefix("\"default\";r=")?.split(';').next()?.parse().ok()
    };
    // Until both have found it, some are counted in buckets of their own.
    let asked =
        async |key: &str| -> bool { redis.command::<i64>(&["EXISTS", key]).await.unwrap() == 1 };
    crate::support::eventually("both share", async || {
        let (one, other) = (remaining(&shop.base).await, remaining(&replica).await);
        let next = remaining(&shop.base).await;
        asked("merch-store:bucket:a:127.0.0.1").await && other < one && next < other
    })
    .await;
}

#[tokio::test]
async fn people_behind_a_proxy_that_is_believed_have_buckets_of_their_own() {
    for (trusted, apart) in [("127.0.0.0/8", true), ("192.0.2.0/24", false)] {
        let shop = TestShop::with(|config| {
            config.limits.serve = true;
            config.limits.capacity = 1_000;
            config.limits.rate_per_sec = 1;
            config.http.trusted_proxies = vec![trusted.parse().unwrap()];
        })
        .await;
        let mut left = Vec::new();
        for (person, requests) in [("203.0.113.7", 100), ("203.0.113.8", 1)] {
            for _ in 0..requests {
                let request = shop.request(reqwest::Method::GET, "/api/merch");
                let reply = request.header("X-Forwarded-For", person).send().await.unwrap();
                let standing = reply.headers()["ratelimit"].to_str().unwrap().to_owned();
                left.push(standing);
            }
        }
        let full = left.last().unwrap().starts_with("\"default\";r=999;");
        assert_eq!(full, apart, "{trusted}: {left:?}");
    }
}
