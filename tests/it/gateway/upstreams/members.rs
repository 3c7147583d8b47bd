//! Who is among the backends: the configuration, DNS and the operator.

use merch_store::config::MAX_BACKENDS;
use merch_store::gateway::upstream::{AddError, State, Upstreams};
use tokio::time::timeout;

use super::{
    Manner, Names, PATIENCE, Server, is_picked, names, options, pick, reconfigure, start,
    start_with, state, unasked, until, until_state,
};

const A: &str = "127.0.0.1:1";
const B: &str = "127.0.0.1:2";
const C: &str = "127.0.0.1:3";

async fn adds(upstreams: &Upstreams, url: &str) -> Result<(), AddError> {
    upstreams.add(url.parse().unwrap()).await
}

#[tokio::test]
async fn a_draining_backend_finishes_what_it_has_and_goes() {
    let upstreams = start(&unasked(&[A, B])).await;
    let (one, other) = (pick(&upstreams, A), pick(&upstreams, A));
    let backend = one.backend.clone();
    upstreams.drain(A).unwrap();
    assert_eq!(state(&upstreams, A), Some(State::Draining));
    assert!(!is_picked(&upstreams, A));
    drop(one);
    assert_eq!(state(&upstreams, A), Some(State::Draining));
    assert!(!backend.is_gone());
    drop(other);
    assert_eq!(names(&upstreams), [B]);
    timeout(PATIENCE, backend.gone()).await.unwrap();
    assert!(upstreams.drain(A).is_err(), "it is not here any more");
}

#[tokio::test]
async fn an_idle_backend_is_drained_at_once_and_may_come_back_as_another() {
    let upstreams = start(&unasked(&[A, B])).await;
    let before = pick(&upstreams, A).backend.id();
    upstreams.drain(A).unwrap();
    assert_eq!(names(&upstreams), [B]);
    adds(&upstreams, &format!("http://{A}")).await.unwrap();
    assert_ne!(pick(&upstreams, A).backend.id(), before);
}

#[tokio::test]
async fn a_removed_backend_is_gone_at_once_and_its_requests_go_on() {
    let upstreams = start(&unasked(&[A, B])).await;
    let picked = pick(&upstreams, A);
    upstreams.remove(A).unwrap();
    assert_eq!(names(&upstreams), [B]);
    assert!(picked.backend.is_gone() && picked.backend.in_flight() == 1);
    picked.answered(hyper::StatusCode::BAD_GATEWAY, PATIENCE);
    drop(picked);
    assert!(upstreams.remove(A).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_under_way_on_a_backend_that_was_drained() {
    let upstreams = start(&unasked(&[A, B])).await;
    for _ in 0..200 {
        let backend = pick(&upstreams, B).backend.clone();
        let picking = upstreams.clone();
        let picks = tokio::task::spawn_blocking(move || {
            for _ in 0..200 {
                let picked = picking.pick(&[]).unwrap();
                let was_gone = picked.backend.is_gone();
                assert!(!was_gone, "{} was gone", picked.backend.name());
            }
        });
        upstreams.drain(B).unwrap();
        until(&upstreams, "B is gone", |backends| backends.len() == 1).await;
        assert_eq!(backend.in_flight(), 0);
        picks.await.unwrap();
        adds(&upstreams, &format!("http://{B}")).await.unwrap();
    }
}

#[tokio::test]
async fn a_backend_that_joins_gets_requests_when_it_has_passed_a_check() {
    let (one, other) =
        (Server::start(Manner::Answers(200)).await, Server::start(Manner::Hangs).await);
    let upstreams = start(&options(&[one.url()])).await;
    adds(&upstreams, &other.url()).await.unwrap();
    assert_eq!(state(&upstreams, &other.name()), Some(State::Unhealthy));
    assert!(!is_picked(&upstreams, &other.name()));
    upstreams.remove(&other.name()).unwrap();
    other.will_do(Manner::Answers(200));
    adds(&upstreams, &other.url()).await.unwrap();
    until_state(&upstreams, &other.name(), State::Healthy).await;
    assert!(is_picked(&upstreams, &other.name()));
}

#[tokio::test]
async fn backends_keep_the_order_in_which_they_were_written() {
    let written = ["127.0.0.1:9", "127.0.0.1:10", "127.0.0.1:8"];
    let upstreams = start(&unasked(&written)).await;
    assert_eq!(names(&upstreams), written);
    for name in written {
        assert_eq!(upstreams.pick(&[]).unwrap().backend.name(), name);
    }
}

#[tokio::test]
async fn there_is_a_limit_and_nobody_is_added_twice() {
    let upstreams = start(&unasked(&[A])).await;
    assert!(matches!(adds(&upstreams, &format!("http://{A}")).await, Err(AddError::Exists)));
    for port in 1000..1000 + MAX_BACKENDS - 1 {
        adds(&upstreams, &format!("http://127.0.0.1:{port}")).await.unwrap();
    }
    assert!(matches!(adds(&upstreams, &format!("http://{B}")).await, Err(AddError::Full)));
    assert_eq!(names(&upstreams).len(), MAX_BACKENDS);
}

#[tokio::test]
async fn every_address_of_a_name_is_a_backend_and_they_move_with_it() {
    let mut servers = Vec::new();
    for _ in 0..3 {
        servers.push(Server::start(Manner::Answers(200)).await);
    }
    let [a, b, c] = [0, 1, 2].map(|at: usize| servers[at].address());
    let directory = Names::default();
    directory.lead_to(&[a, b]);
    let upstreams = start_with(&options(&["http://shop:80".into()]), directory.lookup()).await;
    let mut expected = [a, b];
    expected.sort();
    assert_eq!(names(&upstreams), expected.map(|address| address.to_string()));
    assert!(upstreams.status().iter().all(|backend| backend.source == "shop:80"));

    let under_way = pick(&upstreams, &a.to_string());
    directory.lead_to(&[b, c]);
    until_state(&upstreams, &a.to_string(), State::Draining).await;
    until_state(&upstreams, &c.to_string(), State::Healthy).await;
    assert!(!is_picked(&upstreams, &a.to_string()));
    drop(under_way);
    until(&upstreams, "the first is gone", |backends| backends.len() == 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_name_that_cannot_be_looked_up_keeps_its_backends() {
    let directory = Names::default();
    directory.lead_to(&[A.parse().unwrap()]);
    let upstreams = start_with(&unasked(&["shop:80"]), directory.lookup()).await;
    let looks_up_again = async || tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    for breaks in [Names::fail, |names: &Names| names.lead_to(&[])] {
        breaks(&directory);
        looks_up_again().await;
        assert_eq!(state(&upstreams, A), Some(State::Healthy));
    }
    directory.lead_to(&[B.parse().unwrap()]);
    looks_up_again().await;
    assert_eq!(names(&upstreams), [B]);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_leads_nowhere_at_the_start_is_looked_up_again() {
    let directory = Names::default();
    let upstreams = start_with(&unasked(&["shop:80"]), directory.lookup()).await;
    assert!(upstreams.pick(&[]).is_none());
    directory.lead_to(&[A.parse().unwrap()]);
    until_state(&upstreams, A, State::Healthy).await;
    let added = adds(&upstreams, "http://other").await;
    assert!(matches!(added, Ok(())), "{added:?}");
    directory.fail();
    let added = adds(&upstreams, "http://another").await;
    assert!(matches!(added, Err(AddError::Unresolved)), "{added:?}");
}

#[tokio::test(start_paused = true)]
async fn an_address_that_the_operator_drained_stays_away_until_its_name_has_left_it() {
    let directory = Names::default();
    let both = [A.parse().unwrap(), B.parse().unwrap()];
    directory.lead_to(&both);
    let upstreams = start_with(&unasked(&["shop:80"]), directory.lookup()).await;
    let looks_up_again = async || tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    upstreams.drain(A).unwrap();
    looks_up_again().await;
    assert_eq!(names(&upstreams), [B]);
    directory.lead_to(&both[1..]);
    looks_up_again().await;
    directory.lead_to(&both);
    looks_up_again().await;
    assert_eq!(names(&upstreams), [B, A]);
    upstreams.drain("shop:80").unwrap();
    looks_up_again().await;
    assert!(names(&upstreams).is_empty());
}

#[tokio::test]
async fn changed_settings_drain_who_is_not_named_any_more_and_keep_who_was_added() {
    let upstreams = start(&unasked(&[A, B])).await;
    adds(&upstreams, &format!("http://{C}")).await.unwrap();
    let kept = pick(&upstreams, B).backend.id();
    let under_way = pick(&upstreams, A);
    let changed = unasked(&["127.0.0.1:2#weight=7", "127.0.0.1:4"]);
    reconfigure(&upstreams, &changed).await;
    assert_eq!(state(&upstreams, A), Some(State::Draining));
    drop(under_way);
    assert_eq!(names(&upstreams), [B, C, "127.0.0.1:4"]);
    assert_eq!(pick(&upstreams, B).backend.id(), kept);
    assert_eq!(upstreams.status()[0].weight, 7);
}

#[tokio::test]
async fn what_the_operator_took_out_stays_away_for_as_long_as_the_settings_name_it() {
    let upstreams = start(&unasked(&[A, B, C])).await;
    let reloads = async |named: &[&str]| {
        let settings = unasked(named);
        reconfigure(&upstreams, &settings).await;
    };
    let under_way = pick(&upstreams, A);
    upstreams.drain(A).unwrap();
    upstreams.remove(B).unwrap();
    reloads(&[A, B, C]).await;
    assert_eq!(state(&upstreams, A), Some(State::Draining), "it still has a request");
    drop(under_way);
    reloads(&["127.0.0.1:1#weight=7", B, C]).await;
    assert_eq!(names(&upstreams), [C]);
    assert!(upstreams.drain(A).is_err() && upstreams.remove(B).is_err());

    // Named no more and then again ...
    reloads(&[A, C]).await;
    reloads(&[A, B, C]).await;
    assert_eq!(names(&upstreams), [C, B]);
    // ... or added again, it is as if it had never been away.
    adds(&upstreams, &format!("http://{A}")).await.unwrap();
    assert!(matches!(adds(&upstreams, &format!("http://{A}")).await, Err(AddError::Exists)));
    reloads(&[A, B, C]).await;
    assert_eq!(names(&upstreams), [C, B, A]);
    upstreams.drain(A).unwrap();
    reloads(&[A, B, C]).await;
    assert_eq!(names(&upstreams), [C, B]);
    adds(&upstreams, &format!("http://{A}")).await.unwrap();
    reloads(&[B, C]).await;
    assert_eq!(names(&upstreams), [C, B]);
}

#[tokio::test(start_paused = true)]
async fn a_host_name_that_the_operator_took_out_is_not_looked_up_until_it_is_added_again() {
    let directory = Names::default();
    directory.lead_to(&[A.parse().unwrap()]);
    let settings = unasked(&["shop:80"]);
    let upstreams = start_with(&settings, directory.lookup()).await;
    upstreams.drain("shop:80").unwrap();
    reconfigure(&upstreams, &settings).await;
    directory.lead_to(&[A.parse().unwrap(), B.parse().unwrap()]);
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert!(names(&upstreams).is_empty());
    adds(&upstreams, "http://shop").await.unwrap();
    assert_eq!(names(&upstreams), [A, B]);
    directory.lead_to(&[B.parse().unwrap()]);
    until(&upstreams, "it is looked up again", |backends| backends.len() == 1).await;
}

#[tokio::test]
async fn who_was_taken_out_leaves_room_for_others() {
    let named: Vec<String> =
        (1000..1000 + MAX_BACKENDS).map(|port| format!("127.0.0.1:{port}")).collect();
    let named: Vec<&str> = named.iter().map(String::as_str).collect();
    let upstreams = start(&unasked(&named)).await;
    upstreams.remove(named[0]).unwrap();
    adds(&upstreams, &format!("http://{A}")).await.unwrap();
    let back = adds(&upstreams, &format!("http://{}", named[0])).await;
    assert!(matches!(back, Err(AddError::Full)), "{back:?}");
}

#[tokio::test]
async fn settings_that_name_only_new_backends_leave_nobody_without_one() {
    let upstreams = start(&unasked(&[A])).await;
    let under_way = pick(&upstreams, A);
    // Asked for the first time in an hour.
    let mut changed = options(&[format!("http://{B}"), format!("http://{C}")]);
    changed.upstream.health.interval = std::time::Duration::from_secs(3600);
    reconfigure(&upstreams, &changed).await;
    assert!(is_picked(&upstreams, B) && is_picked(&upstreams, C) && !is_picked(&upstreams, A));

    // Back before it was gone, as it was.
    let before = unasked(&[A]);
    reconfigure(&upstreams, &before).await;
    assert_eq!(pick(&upstreams, A).backend.id(), under_way.backend.id());
    assert!(!is_picked(&upstreams, B) && !is_picked(&upstreams, C));
    drop(under_way);
    assert!(is_picked(&upstreams, A));
}

#[tokio::test(start_paused = true)]
async fn a_name_that_leads_elsewhere_altogether_leaves_nobody_without_a_backend() {
    let directory = Names::default();
    directory.lead_to(&[A.parse().unwrap()]);
    let mut asked = options(&["http://shop:80".to_owned()]);
    asked.upstream.health.interval = std::time::Duration::from_secs(3600);
    let upstreams = start_with(&asked, directory.lookup()).await;
    directory.lead_to(&[B.parse().unwrap()]);
    until(&upstreams, "the other address is here", |_| {
        let picked = upstreams.pick(&[]).expect("there is always one");
        picked.backend.name() == B
    })
    .await;
}
