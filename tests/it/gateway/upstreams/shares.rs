//! Who gets how many requests under each strategy.

use std::collections::HashMap;
use std::time::Duration;

use hyper::StatusCode;
use merch_store::config::Strategy;
use merch_store::gateway::upstream::{RetryBudget, Upstreams};

use super::{pick, start, unasked};

const A: &str = "127.0.0.1:1";
const B: &str = "127.0.0.1:2";

#[tokio::test]
async fn weights_are_shares_of_the_requests() {
    let upstreams = start(&unasked(&["127.0.0.1:1#weight=3", B])).await;
    let mut counts: HashMap<String, usize> = HashMap::new();
    for _ in 0..400 {
        let picked = upstreams.pick(&[]).unwrap();
        *counts.entry(picked.backend.name().to_owned()).or_default() += 1;
    }
    assert_eq!((counts[A], counts[B]), (300, 100));
}

#[tokio::test]
async fn what_was_tried_is_not_picked_again() {
    for strategy in [Strategy::RoundRobin, Strategy::LeastConnections, Strategy::P2cEwma] {
        let mut options = unasked(&[A, B]);
        options.upstream.strategy = strategy;
        let upstreams = start(&options).await;
        for _ in 0..20 {
            let first = upstreams.pick(&[]).unwrap().backend.clone();
            let second = upstreams.pick(&[first.id()]).unwrap().backend.clone();
            assert_ne!(first.id(), second.id(), "{strategy:?}");
            assert!(upstreams.pick(&[first.id(), second.id()]).is_none(), "{strategy:?}");
        }
    }
}

#[tokio::test]
async fn a_request_is_under_way_until_its_guard_is_dropped() {
    let mut options = unasked(&[A, B]);
    options.upstream.strategy = Strategy::LeastConnections;
    let upstreams = start(&options).await;
    let busy = pick(&upstreams, A);
    assert_eq!(busy.backend.in_flight(), 1);
    for _ in 0..10 {
        assert_eq!(upstreams.pick(&[]).unwrap().backend.name(), B);
    }
    let backend = busy.backend.clone();
    drop(busy);
    assert_eq!(backend.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn p2c_gives_the_slow_one_less() {
    let mut options = unasked(&[A, B]);
    options.upstream.strategy = Strategy::P2cEwma;
    let upstreams = start(&options).await;
    pick(&upstreams, A).answered(StatusCode::OK, Duration::from_millis(500));
    pick(&upstreams, B).answered(StatusCode::OK, Duration::from_millis(5));
    let picked_a = |upstreams: &Upstreams| upstreams.pick(&[]).unwrap().backend.name() == A;
    assert_eq!((0..100).filter(|_| picked_a(&upstreams)).count(), 0);
}

#[tokio::test]
async fn without_backends_nobody_is_picked() {
    let upstreams = start(&unasked(&[])).await;
    assert!(upstreams.pick(&[]).is_none());
    assert!(upstreams.status().is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_retry_budget_runs_out_and_fills_again() {
    let options = unasked(&[]).upstream.retry_budget;
    assert_eq!((options.percent, options.per_second), (20, 10));
    let budget = RetryBudget::new(options);
    (0..100).for_each(|_| budget.request());
    assert_eq!((0..100).filter(|_| budget.try_retry()).count(), 30);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((0..100).filter(|_| budget.try_retry()).count(), 10);
}
