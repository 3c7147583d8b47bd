//! Health checks: real servers that answer well, badly and not at all.

use merch_store::gateway::upstream::State;

use crate::support::eventually;

use super::{Manner, Server, is_picked, options, start, state, until, until_state};

#[tokio::test]
async fn a_backend_that_fails_its_checks_gets_no_requests_until_it_passes_them() {
    let (one, other) =
        (Server::start(Manner::Answers(200)).await, Server::start(Manner::Answers(200)).await);
    let upstreams = start(&options(&[one.url(), other.url()])).await;
    assert_eq!(state(&upstreams, &one.name()), Some(State::Healthy));
    for manner in [Manner::Answers(503), Manner::Answers(500), Manner::Babbles, Manner::HangsUp] {
        one.will_do(manner);
        until_state(&upstreams, &one.name(), State::Unhealthy).await;
        assert!(!is_picked(&upstreams, &one.name()), "{manner:?}");
        assert!(is_picked(&upstreams, &other.name()), "{manner:?}");
        one.will_do(Manner::Answers(204));
        until_state(&upstreams, &one.name(), State::Healthy).await;
        assert!(is_picked(&upstreams, &one.name()), "{manner:?}");
    }
}

#[tokio::test]
async fn when_every_backend_fails_its_checks_nobody_is_picked() {
    let server = Server::start(Manner::Answers(503)).await;
    let upstreams = start(&options(&[server.url()])).await;
    until_state(&upstreams, &server.name(), State::Unhealthy).await;
    assert!(upstreams.pick(&[]).is_none());
}

#[tokio::test]
async fn a_backend_that_never_answers_holds_up_nobody_elses_checks() {
    let (silent, other) =
        (Server::start(Manner::Hangs).await, Server::start(Manner::Answers(200)).await);
    let upstreams = start(&options(&[silent.url(), other.url()])).await;
    eventually("the other one was asked ten times", async || other.asked() >= 10).await;
    assert!(silent.asked() <= 1);
    let silent_one = upstreams.status().into_iter().find(|it| it.name == silent.name()).unwrap();
    assert_eq!(silent_one.last_check, None);
}

#[tokio::test]
async fn a_backend_that_does_not_answer_in_time_is_down() {
    let server = Server::start(Manner::Hangs).await;
    let mut options = options(&[server.url()]);
    options.upstream.health.timeout = std::time::Duration::from_millis(5);
    let upstreams = start(&options).await;
    until_state(&upstreams, &server.name(), State::Unhealthy).await;
    let check = upstreams.status().remove(0).last_check.unwrap();
    assert_eq!((check.passed, check.outcome.as_str()), (false, "no answer within 5ms"));
}

#[tokio::test]
async fn a_server_without_the_path_is_well() {
    let server = Server::start(Manner::Answers(404)).await;
    let upstreams = start(&options(&[server.url()])).await;
    until(&upstreams, "it was asked", |backends| backends[0].last_check.is_some()).await;
    let backend = upstreams.status().remove(0);
    assert!(backend.last_check.unwrap().passed);
    assert_eq!(backend.state, State::Healthy);
}

#[tokio::test]
async fn a_backend_that_is_not_there_is_down_and_the_reason_is_shown() {
    let server = Server::start(Manner::Answers(200)).await;
    let (name, url) = (server.name(), server.url());
    drop(server);
    let upstreams = start(&options(&[url])).await;
    until_state(&upstreams, &name, State::Unhealthy).await;
    let check = upstreams.status().remove(0).last_check.unwrap();
    assert!(check.outcome.contains("refused"), "{}", check.outcome);
}
