//! Buckets that gateways share, and what becomes of them when Redis is away.

use std::time::{Duration, Instant};

use futures::future::join_all;
use merch_store::limits::{Decision, Limiter};

use super::{client, limit, limiter};
use crate::support::redis::PATIENT;
use crate::support::{TestRedis, eventually};

/// As in the default settings.
const PATIENCE: Duration = Duration::from_millis(50);

async fn check(limiter: &Limiter, number: u8) -> Decision {
    limiter.check(&client(number)).await.expect("a limit applies")
}

#[tokio::test(flavor = "multi_thread")]
async fn three_gateways_admit_together_what_one_would() {
    let redis = TestRedis::start().await;
    let (limit, mut gateways) = (limit(200, 300), Vec::new());
    for _ in 0..3 {
        gateways.push(limiter(Some(limit), Some(redis.link(PATIENT).await)));
    }
    let started = Instant::now();
    let askers = (0..30).map(|number| {
        let gateway = gateways[number % 3].clone();
        tokio::spawn(async move {
            let mut admitted = 0u32;
            while started.elapsed() < Duration::from_secs(2) {
                admitted += u32::from(check(&gateway, 1).await.allowed);
            }
            admitted
        })
    });
    let admitted: u32 = join_all(askers).await.into_iter().map(Result::unwrap).sum();
    let most = 200.0 + 300.0 * started.elapsed().as_secs_f64();
    assert!(f64::from(admitted) <= most * 1.01, "{admitted} of {most}");
    // Whoever always asks gets what there is.
    assert!(f64::from(admitted) >= 200.0 + 300.0 * 2.0 * 0.9, "{admitted} of {most}");
}

#[tokio::test]
async fn a_shared_bucket_counts_as_one_in_memory_does() {
    let redis = TestRedis::start().await;
    let shared = limiter(Some(limit(3, 1)), Some(redis.link(PATIENT).await));
    let local = limiter(Some(limit(3, 1)), None);
    for turn in 0..5 {
        let (shared, local) = (check(&shared, 1).await, check(&local, 1).await);
        assert_eq!(
            (shared.allowed, shared.remaining, shared.limit),
            (local.allowed, local.remaining, local.limit),
            "{turn}",
        );
        // They were asked one after the other.
        let close = |one: Duration, other: Duration| one.abs_diff(other) < Duration::from_secs(1);
        assert!(close(shared.retry_after, local.retry_after), "{shared:?} {local:?}");
        assert!(close(shared.reset_after, local.reset_after), "{shared:?} {local:?}");
    }
    assert!(check(&shared, 2).await.allowed, "somebody else has another bucket");
}

#[tokio::test]
async fn a_shared_bucket_refills_at_its_rate_and_not_earlier() {
    let redis = TestRedis::start().await;
    let limiter = limiter(Some(limit(2, 10)), Some(redis.link(PATIENT).await));
    assert!(check(&limiter, 1).await.allowed);
    let emptied = Instant::now();
    assert!(check(&limiter, 1).await.allowed);
    let refused = check(&limiter, 1).await;
    assert!(!refused.allowed && refused.retry_after <= Duration::from_millis(100), "{refused:?}");
    let mut tokens = 0;
    while tokens < 3 {
        tokens += u32::from(check(&limiter, 1).await.allowed);
    }
    // One millisecond for the difference between two clocks.
    assert!(emptied.elapsed() >= Duration::from_millis(299 - 100), "{:?}", emptied.elapsed());
}

#[tokio::test]
async fn a_shared_bucket_is_forgotten_by_itself_once_it_is_full() {
    let redis = TestRedis::start().await;
    let limiter = limiter(Some(limit(10, 2)), Some(redis.link(PATIENT).await));
    check(&limiter, 1).await;
    let keys: Vec<String> = redis.command(&["KEYS", "merch-store:bucket:*"]).await.unwrap();
    assert_eq!(keys, ["merch-store:bucket:a:203.0.113.1"]);
    let left: i64 = redis.command(&["PTTL", &keys[0]]).await.unwrap();
    assert!((0..=501).contains(&left), "{left} ms");
    eventually("the bucket is forgotten", async || {
        redis.command::<Vec<String>>(&["KEYS", "*:bucket:*"]).await.unwrap().is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_lower_rate_gives_nothing_back_of_a_shared_bucket_to_whoever_goes_on_asking() {
    let redis = TestRedis::start().await;
    let limiter = limiter(Some(limit(200, 20)), Some(redis.link(PATIENT).await));
    while check(&limiter, 1).await.allowed {}
    let expires = async || {
        let left = redis.command::<i64>(&["PTTL", "merch-store:bucket:a:203.0.113.1"]).await;
        Duration::from_millis(left.unwrap().try_into().unwrap())
    };
    assert!(expires().await <= Duration::from_millis(10_001));
    limiter.set_default(Some(limit(200, 1)));
    let mut last = check(&limiter, 1).await;
    while last.allowed {
        last = check(&limiter, 1).await;
    }
    let left = expires().await;
    assert!(left > Duration::from_secs(190), "{left:?}, and it is full after {last:?}");
}

#[tokio::test]
async fn a_lower_capacity_shortens_what_a_shared_bucket_owes_as_in_memory() {
    let redis = TestRedis::start().await;
    let shared = limiter(Some(limit(20, 1)), Some(redis.link(PATIENT).await));
    let local = limiter(Some(limit(20, 1)), None);
    for (limit, asked) in [(limit(20, 1), 20), (limit(5, 1), 1), (limit(7, 1), 3)] {
        for turn in 0..asked {
            shared.set_default(Some(limit));
            local.set_default(Some(limit));
            let (shared, local) = (check(&shared, 1).await, check(&local, 1).await);
            assert_eq!(
                (shared.allowed, shared.remaining),
                (local.allowed, local.remaining),
                "{limit:?} {turn}",
            );
        }
    }
}

#[tokio::test]
async fn a_server_that_forgot_the_script_is_told_it_again() {
    let redis = TestRedis::start().await;
    let link = redis.link(PATIENT).await;
    let limiter = limiter(Some(limit(2, 1)), Some(link.clone()));
    check(&limiter, 1).await;
    let _: String = redis.command(&["SCRIPT", "FLUSH"]).await.unwrap();
    assert_eq!(check(&limiter, 1).await.remaining, 0);
    assert!(link.is_up());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_dies_is_not_waited_for_and_used_again_when_it_is_back() {
    let mut redis = TestRedis::start().await;
    let link = redis.link(PATIENCE).await;
    let limiter = limiter(Some(limit(5, 1)), Some(link.clone()));
    check(&limiter, 1).await;
    redis.dies();
    let since = Instant::now();
    let mut admitted = 0;
    for _ in 0..1000 {
        admitted += u32::from(check(&limiter, 1).await.allowed);
    }
    // Each of them would have waited in vain.
    assert!(since.elapsed() < 20 * PATIENCE, "{:?}", since.elapsed());
    assert!((5..=7).contains(&admitted), "a bucket of this process's own: {admitted}");
    assert!(!link.is_up());

    redis.comes_back().await;
    eventually("the link is up again", async || link.is_up()).await;
    let decision = check(&limiter, 1).await;
    assert!(decision.allowed && decision.remaining == 4, "shared again: {decision:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_hangs_holds_up_those_who_find_out_once_and_nobody_after() {
    let redis = TestRedis::start().await;
    let link = redis.link(PATIENCE).await;
    let limiter = limiter(Some(limit(5, 1)), Some(link.clone()));
    check(&limiter, 1).await;
    redis.freezes();
    let since = Instant::now();
    let at_once = join_all((0..500).map(|_| check(&limiter, 1))).await;
    assert!(at_once.iter().any(|decision| decision.allowed), "local buckets decide");
    assert!(since.elapsed() < 20 * PATIENCE, "all at once: {:?}", since.elapsed());
    let since = Instant::now();
    for _ in 0..1000 {
        check(&limiter, 1).await;
    }
    assert!(since.elapsed() < 20 * PATIENCE, "one by one: {:?}", since.elapsed());
    assert!(!link.is_up());

    redis.thaws();
    eventually("the link is up again", async || link.is_up()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_hangs_while_nobody_asks_is_found_out_by_nobody_s_request() {
    let redis = TestRedis::start().await;
    let link = redis.link(PATIENCE).await;
    redis.freezes();
    eventually("the heartbeat finds out", async || !link.is_up()).await;
    redis.thaws();
    eventually("the link is up again", async || link.is_up()).await;
}

#[tokio::test]
async fn a_redis_that_cannot_be_written_to_is_no_use() {
    let redis = TestRedis::start().await;
    let link = redis.link(PATIENT).await;
    let limiter = limiter(Some(limit(5, 1)), Some(link.clone()));
    // A replica of nobody refuses to write.
    let _: String = redis.command(&["REPLICAOF", "127.0.0.1", "1"]).await.unwrap();
    assert!(check(&limiter, 1).await.allowed, "decided here");
    assert!(!link.is_up());
    let _: String = redis.command(&["REPLICAOF", "NO", "ONE"]).await.unwrap();
    eventually("the link is up again", async || link.is_up()).await;
}
