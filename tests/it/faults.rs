//! Conflicts and lost connections at every statement of a transaction, and at COMMIT: the
//! batch is replayed whole or found to be committed, and nothing happens twice.

use std::time::Duration;

use crate::support::TestShop;
use crate::support::proxy::{Fault, Stage};

const FAULTS: [Fault; 4] =
    [Fault::Raise("40001"), Fault::Raise("40P01"), Fault::CutBefore, Fault::CutAfter];

#[tokio::test]
async fn a_transfer_survives_a_fault_at_every_statement_and_happens_once() {
    let (shop, proxy) = TestShop::behind_proxy(|_| {}).await;
    let (alice, bob) = (shop.logs_in("alice").await, shop.logs_in("bob").await);
    let mut sent = 0;
    for stage in [Stage::Begin, Stage::Fetch, Stage::Write, Stage::Commit] {
        for fault in FAULTS {
            proxy.inject(stage, fault);
            let reply = alice.sends_once("bob", 7, &format!("{stage:?} {fault:?}")).await;
            assert_eq!(reply.status, 200, "{fault:?} at {stage:?}: {reply:?}");
            assert_eq!(reply.header("idempotency-replayed"), None, "{fault:?} at {stage:?}");
            proxy.has_injected_everything();
            sent += 7;
            assert_eq!(alice.coins().await, 1000 - sent, "{fault:?} at {stage:?}");
            assert_eq!(bob.coins().await, 1000 + sent, "{fault:?} at {stage:?}");
        }
    }
    shop.is_honest().await;
}

#[tokio::test]
async fn a_sign_up_survives_a_fault_at_every_statement_and_opens_one_account() {
    let (shop, proxy) = TestShop::behind_proxy(|_| {}).await;
    for stage in [Stage::Begin, Stage::Fetch, Stage::Open, Stage::Write, Stage::Commit] {
        for fault in FAULTS {
            proxy.inject(stage, fault);
            let name = format!("{stage:?} {fault:?}");
            let newcomer = shop.logs_in(&name).await;
            proxy.has_injected_everything();
            assert_eq!(newcomer.coins().await, 1000, "{name}");
        }
    }
    shop.is_honest().await;
}

#[tokio::test]
async fn one_fault_after_another_does_not_confuse_the_replay() {
    let (shop, proxy) = TestShop::behind_proxy(|_| {}).await;
    let (alice, bob) = (shop.logs_in("alice").await, shop.logs_in("bob").await);
    proxy.inject(Stage::Fetch, Fault::Raise("40001"));
    proxy.inject(Stage::Write, Fault::Raise("40P01"));
    proxy.inject(Stage::Commit, Fault::Raise("40001"));
    proxy.inject(Stage::Commit, Fault::CutBefore);
    proxy.inject(Stage::Write, Fault::Raise("40001"));
    alice.sends("bob", 5).await.is_done();
    proxy.has_injected_everything();
    assert_eq!((alice.coins().await, bob.coins().await), (995, 1005));
    shop.is_honest().await;
}

#[tokio::test]
async fn a_batch_that_never_wins_is_given_up_and_leaves_no_trace() {
    let (shop, proxy) = TestShop::behind_proxy(|config| {
        config.engine.max_attempts = 3.try_into().unwrap();
    })
    .await;
    let (alice, bob) = (shop.logs_in("alice").await, shop.logs_in("bob").await);
    for _ in 0..3 {
        proxy.inject(Stage::Commit, Fault::Raise("40001"));
    }
    let reply = alice.sends("bob", 5).await;
    reply.is_error(503, "contention");
    assert_eq!(reply.header("retry-after"), Some("1"));
    proxy.has_injected_everything();
    assert_eq!((alice.coins().await, bob.coins().await), (1000, 1000));

    alice.sends("bob", 5).await.is_done();
    shop.is_honest().await;
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_with_the_database_is_found_out_when_it_is_back() {
    let (shop, proxy) = TestShop::behind_proxy(|_| {}).await;
    let (alice, bob) = (shop.logs_in("alice").await, shop.logs_in("bob").await);
    proxy.inject(Stage::Commit, Fault::AwayAfter);
    let (alice_too, bob_too) = (alice.clone(), bob.clone());
    let waiting = tokio::spawn(async move { alice_too.sends("bob", 5).await });

    proxy.is_away().await;
    // Whoever comes now need not wait for that to be found out.
    shop.refuses_until_the_database_is_back(&bob_too).await;
    assert!(!waiting.is_finished());

    proxy.comes_back();
    waiting.await.unwrap().is_done();
    assert_eq!((alice.coins().await, bob.coins().await), (995, 1005));
    shop.is_honest().await;
}

#[tokio::test]
async fn a_commit_that_cannot_be_found_out_is_called_unknown_and_not_done_again() {
    let (shop, proxy) = TestShop::behind_proxy(|config| {
        config.engine.outcome_deadline = Duration::from_millis(300);
    })
    .await;
    let (alice, bob) = (shop.logs_in("alice").await, shop.logs_in("bob").await);
    proxy.inject(Stage::Commit, Fault::AwayAfter);
    alice.sends_once("bob", 5, "precious").await.is_error(503, "outcome_unknown");

    proxy.comes_back();
    shop.is_ready().await;
    let again = alice.sends_once("bob", 5, "precious").await;
    assert_eq!(again.status, 200, "{again:?}");
    assert_eq!(again.header("idempotency-replayed"), Some("true"), "it had been done");
    assert_eq!((alice.coins().await, bob.coins().await), (995, 1005));
    shop.is_honest().await;
}

#[tokio::test]
async fn a_log_without_a_head_is_a_failure_and_not_a_crowd() {
    let shop = TestShop::open().await;
    let alice = shop.logs_in("alice").await;
    shop.database.execute("DELETE FROM log_head").await;
    alice.buys("pen").await.is_error(500, "internal");
}
