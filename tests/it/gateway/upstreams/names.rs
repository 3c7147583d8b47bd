//! Names with addresses of both families, and those that lead back to the gateway.

use std::net::SocketAddr;

use hyper::StatusCode;
use merch_store::gateway::upstream::{AddError, Failure, State};
use tokio::net::TcpListener;

use super::{Names, is_picked, names, reconfigure, start, start_at, start_with, unasked, until};
use crate::support::backend::nobody;

/// Somebody who listens at a port of `ip`.
async fn listener(ip: &str) -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[tokio::test]
async fn of_two_families_the_one_that_answers_is_taken_and_kept() {
    let (v4, v4_address) = listener("127.0.0.1").await;
    let (v6, v6_address) = listener("::1").await;
    let directory = Names::default();
    let named = unasked(&["shop:80"]);
    let expected = |address: SocketAddr| [address.to_string()];
    for (addresses, first) in
        [([v6_address, v4_address], v6_address), ([v4_address, v6_address], v4_address)]
    {
        directory.lead_to(&addresses);
        let upstreams = start_with(&named, directory.lookup()).await;
        assert_eq!(names(&upstreams), expected(first));
    }
    // Nobody takes the other's place before it is needed, and then at once.
    directory.lead_to(&[v6_address, v4_address]);
    let upstreams = start_with(&named, directory.lookup()).await;
    drop(v6);
    until(&upstreams, "IPv4 has taken over", |it| {
        it.len() == 1 && it[0].name == v4_address.to_string()
    })
    .await;
    assert!(is_picked(&upstreams, &v4_address.to_string()));
    let _v6 = TcpListener::bind(v6_address).await.unwrap();
    drop(v4);
    until(&upstreams, "IPv6 is back", |it| it.len() == 1 && it[0].name == v6_address.to_string())
        .await;
}

#[tokio::test]
async fn whoever_starts_late_is_found_in_whichever_family_it_listens() {
    let v4 = nobody().await;
    let directory = Names::default();
    let v6: SocketAddr = format!("[::1]:{}", v4.port()).parse().unwrap();
    directory.lead_to(&[v4, v6]);
    let upstreams = start_with(&unasked(&["shop:80"]), directory.lookup()).await;
    upstreams.pick(&[]).unwrap().failed(Failure::Connect);
    let _listener = TcpListener::bind(v6).await.unwrap();
    until(&upstreams, "it is found", |it| it.len() == 1 && it[0].name == v6.to_string()).await;
    upstreams.pick(&[]).unwrap().answered(StatusCode::OK, std::time::Duration::from_millis(1));
    assert!(upstreams.status().iter().all(|it| it.state == State::Healthy));
}

#[tokio::test]
async fn localhost_is_wherever_its_server_listens() {
    for (name, ip) in [("localhost", "127.0.0.1"), ("localhost", "::1"), ("shop.localhost", "::1")]
    {
        let (_listener, address) = listener(ip).await;
        let upstreams = start(&unasked(&[&format!("{name}:{}", address.port())])).await;
        assert_eq!(names(&upstreams), [address.to_string()]);
    }
}

#[tokio::test]
async fn a_gateway_is_not_its_own_backend() {
    let own: SocketAddr = "127.0.0.1:7".parse().unwrap();
    let directory = Names::default();
    directory.lead_to(&[own]);
    for backend in ["127.0.0.1:7", "[::ffff:127.0.0.1]:7", "itself:7"] {
        let started = start_at(&unasked(&[backend]), directory.lookup(), Some(own)).await;
        let why = started.err().unwrap().to_string();
        assert!(why.ends_with("is this gateway itself"), "{why}");
    }
    let other = unasked(&["127.0.0.1:8"]);
    let upstreams = start_at(&other, directory.lookup(), Some(own)).await.unwrap();
    let added = upstreams.add("http://itself".parse().unwrap()).await;
    assert!(matches!(added, Err(AddError::Itself(_))), "{added:?}");
    assert!(upstreams.find(&unasked(&["itself:7"]).backends).await.is_err());
    assert_eq!(names(&upstreams), ["127.0.0.1:8"]);
    // A name that leads elsewhere at first, and back here later, keeps what it had.
    directory.lead_to(&["127.0.0.1:9".parse().unwrap()]);
    reconfigure(&upstreams, &unasked(&["moves:80"])).await;
    directory.lead_to(&[own]);
    until(&upstreams, "only the name is left", |it| it.len() == 1).await;
    assert_eq!(names(&upstreams), ["127.0.0.1:9"]);
}
