//! What failures of real requests come to.

use std::time::Duration;

use hyper::StatusCode;
use merch_store::gateway::upstream::{Failure, State};

use super::{Manner, Server, dies, is_picked, options, pick, start, state, unasked, until_state};

const A: &str = "127.0.0.1:1";
const B: &str = "127.0.0.1:2";
const C: &str = "127.0.0.1:3";

const LATENCY: Duration = Duration::from_millis(1);

#[tokio::test]
async fn a_backend_that_dies_is_ejected_at_the_second_refused_connection() {
    let upstreams = start(&unasked(&[A, B, C])).await;
    pick(&upstreams, A).failed(Failure::Connect);
    assert_eq!(state(&upstreams, A), Some(State::Healthy));
    pick(&upstreams, A).failed(Failure::Connect);
    assert_eq!(state(&upstreams, A), Some(State::Ejected));
    assert!(!is_picked(&upstreams, A));
    for _ in 0..100 {
        assert_ne!(upstreams.pick(&[]).unwrap().backend.name(), A);
    }
}

#[tokio::test]
async fn only_failures_in_a_row_eject_and_only_of_some_kinds() {
    let answers = |statuses: &'static [u16]| async move {
        let upstreams = start(&unasked(&[A, B])).await;
        for status in statuses {
            let (picked, status) = (pick(&upstreams, A), StatusCode::from_u16(*status).unwrap());
            picked.answered(status, LATENCY);
            picked.completed(status);
        }
        state(&upstreams, A).unwrap()
    };
    assert_eq!(answers(&[502, 503, 504, 502, 503]).await, State::Ejected);
    assert_eq!(answers(&[502, 503, 504, 502]).await, State::Healthy);
    assert_eq!(answers(&[502, 503, 504, 502, 200, 503]).await, State::Healthy);
    assert_eq!(answers(&[500, 500, 500, 500, 500, 501, 429, 404]).await, State::Healthy);
}

#[tokio::test]
async fn broken_connections_and_timeouts_eject_like_errors() {
    for failure in [Failure::Broken, Failure::TimedOut] {
        let upstreams = start(&unasked(&[A, B])).await;
        for _ in 0..4 {
            pick(&upstreams, A).failed(failure);
        }
        assert_eq!(state(&upstreams, A), Some(State::Healthy), "{failure:?}");
        pick(&upstreams, A).failed(failure);
        assert_eq!(state(&upstreams, A), Some(State::Ejected), "{failure:?}");
    }
}

#[tokio::test]
async fn an_answer_that_began_well_and_broke_off_is_a_failure_like_any_other() {
    let upstreams = start(&unasked(&[A, B])).await;
    for _ in 0..5 {
        assert_eq!(state(&upstreams, A), Some(State::Healthy));
        let picked = pick(&upstreams, A);
        picked.answered(StatusCode::OK, LATENCY);
        picked.failed(Failure::Broken);
    }
    assert_eq!(state(&upstreams, A), Some(State::Ejected));
}

#[tokio::test]
async fn the_last_backend_is_never_ejected() {
    let upstreams = start(&unasked(&[A, B, C])).await;
    dies(&upstreams, A);
    dies(&upstreams, B);
    for _ in 0..20 {
        upstreams.pick(&[]).unwrap().failed(Failure::Connect);
    }
    assert_eq!(state(&upstreams, C), Some(State::Healthy));
    assert!(is_picked(&upstreams, C));
}

#[tokio::test]
async fn replicas_that_shed_load_are_not_ejected_one_after_the_other() {
    let upstreams = start(&unasked(&[A, B, C])).await;
    for _ in 0..1000 {
        upstreams.pick(&[]).unwrap().answered(StatusCode::SERVICE_UNAVAILABLE, LATENCY);
    }
    let ejected = upstreams.status().iter().filter(|it| it.state == State::Ejected).count();
    assert_eq!(ejected, 1, "{:?}", upstreams.status());
}

#[tokio::test]
async fn when_nobody_else_is_left_whoever_was_ejected_is_picked() {
    let (one, other) =
        (Server::start(Manner::Answers(200)).await, Server::start(Manner::Answers(200)).await);
    let mut options = options(&[one.url(), other.url()]);
    options.upstream.ejection.base = Duration::from_secs(3600);
    options.upstream.ejection.max = Duration::from_secs(3600);
    let upstreams = start(&options).await;
    for _ in 0..5 {
        pick(&upstreams, &one.name()).failed(Failure::Broken);
    }
    assert_eq!(state(&upstreams, &one.name()), Some(State::Ejected));
    other.will_do(Manner::Answers(503));
    until_state(&upstreams, &other.name(), State::Unhealthy).await;
    assert_eq!(upstreams.pick(&[]).unwrap().backend.name(), one.name());
}

#[tokio::test]
async fn a_process_that_is_started_again_is_back_as_soon_as_it_passes_its_checks() {
    let (one, other) =
        (Server::start(Manner::Answers(200)).await, Server::start(Manner::Answers(200)).await);
    let mut options = options(&[one.url(), other.url()]);
    options.upstream.ejection.base = Duration::from_secs(3600);
    options.upstream.ejection.max = Duration::from_secs(3600);
    let upstreams = start(&options).await;
    dies(&upstreams, &one.name());
    // Its server was there all along, and so it passes.
    until_state(&upstreams, &one.name(), State::Healthy).await;
}

#[tokio::test]
async fn a_backend_that_fails_quickly_is_no_favourite_of_p2c() {
    let mut options = unasked(&[A, B, C]);
    options.upstream.strategy = merch_store::config::Strategy::P2cEwma;
    let upstreams = start(&options).await;
    for name in [A, B, C] {
        pick(&upstreams, name).answered(StatusCode::OK, Duration::from_millis(50));
    }
    for _ in 0..4 {
        pick(&upstreams, A).answered(StatusCode::BAD_GATEWAY, Duration::from_micros(10));
    }
    let latency = upstreams.status().iter().find(|it| it.name == A).unwrap().latency_ms.unwrap();
    assert!(latency > 40.0, "{latency}");
}

#[tokio::test(start_paused = true)]
async fn an_ejected_backend_returns_with_a_share_that_grows() {
    let mut options = unasked(&[A, B]);
    options.upstream.slow_start = Duration::from_secs(10);
    options.upstream.ejection.base = Duration::from_secs(5);
    let upstreams = start(&options).await;
    dies(&upstreams, A);
    until_state(&upstreams, A, State::SlowStart).await;
    // A tenth of its weight at first, against the whole of the other's.
    assert_eq!(share(&upstreams, 110), 10);
    tokio::time::sleep(Duration::from_millis(5010)).await;
    assert_eq!(share(&upstreams, 150), 50);
    until_state(&upstreams, A, State::Healthy).await;
    assert_eq!(share(&upstreams, 100), 50);
}

/// Of so many requests those that A gets.
fn share(upstreams: &merch_store::gateway::upstream::Upstreams, requests: usize) -> usize {
    let picks = (0..requests).map(|_| upstreams.pick(&[]).unwrap());
    picks.filter(|picked| picked.backend.name() == A).count()
}
