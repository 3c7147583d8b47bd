//! What the gateway writes down of requests.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::{Client, Method};
use serde_json::json;

use super::admin::TOKEN;
use crate::support::backend::{nobody, ok};
use crate::support::{Act, Backend, TestGateway, eventually};

/// The value of the metric whose line begins like this.
fn metric(begins: &str) -> Option<f64> {
    let text = merch_store::telemetry::metrics().render();
    let line = text.lines().find(|line| line.starts_with(begins))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[tokio::test]
async fn requests_are_counted_by_backend_and_status_and_so_are_misses() {
    let backend = Backend::start(|request| match request.contains("/missing") {
        true => Act::Says("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".into()),
        false => Act::Says(ok("one")),
    })
    .await;
    let dead = nobody().await;
    let gateway = TestGateway::at(&[backend.address, dead], |_| {}).await;
    for path in ["/", "/", "/missing"] {
        gateway.get(path).await;
    }
    let counted = |status: u16| {
        let labels = format!("backend=\"{}\",status=\"{status}\"", backend.address);
        metric(&format!("merch_gateway_requests_total{{{labels}}}"))
    };
    eventually("they are counted", async || (counted(200), counted(404)) == (Some(2.), Some(1.)))
        .await;
    let of = |name: &str, address| metric(&format!("{name}{{backend=\"{address}\"}}"));
    assert_eq!(of("merch_gateway_in_flight", backend.address), Some(0.));
    assert_eq!(of("merch_gateway_in_flight", dead), Some(0.));
    assert_eq!(of("merch_gateway_request_seconds_count", backend.address), Some(3.));
    assert!(of("merch_gateway_misses_total", dead).unwrap() >= 1.);
}

/// What is counted of the backend at `address`: one line a series.
fn series_of(address: SocketAddr) -> Vec<String> {
    let text = merch_store::telemetry::metrics().render();
    let about = format!("backend=\"{address}\"");
    text.lines().filter(|line| line.contains(&about)).map(str::to_owned).collect()
}

#[tokio::test]
async fn what_is_counted_of_a_backend_ends_with_it_and_not_before() {
    let stays = Backend::named("one").await;
    let gateway = TestGateway::at(&[stays.address], |config| {
        config.gateway.admin.address = Some("127.0.0.1:0".parse().unwrap());
        config.gateway.admin.token = Some(TOKEN.into());
        config.gateway.upstream.slow_start = Duration::ZERO;
        config.gateway.upstream.ejection.connect_failures = 1.try_into().unwrap();
    })
    .await;
    let change = async |method: Method, body| {
        let url = format!("http://{}/backends", gateway.admin.unwrap());
        let request = Client::new().request(method, url).bearer_auth(TOKEN).json(&body);
        assert!(request.send().await.unwrap().status().is_success());
    };
    let (mut gone, mut answered) = (Vec::new(), 0);
    for _ in 0..50 {
        let address = nobody().await;
        change(Method::POST, json!({"url": format!("http://{address}")})).await;
        eventually("everything is counted of it that can be", async || {
            // Now and then there have been enough retries for this second.
            answered += u32::from(gateway.get("/").await.0 == 200);
            let series = series_of(address);
            ["misses_total", "ejections_total", "backend_state", "in_flight"]
                .iter()
                .all(|name| series.iter().any(|line| line.contains(name)))
        })
        .await;
        change(Method::DELETE, json!({"backend": address.to_string()})).await;
        gone.push(address);
    }
    eventually("nothing is shown of those that are gone", async || {
        gone.iter().all(|address| series_of(*address).is_empty())
    })
    .await;
    let kept = series_of(stays.address);
    let line = format!("backend=\"{}\",status=\"200\"}} {answered}", stays.address);
    assert!(kept.iter().any(|it| it.ends_with(&line)), "{line}: {kept:?}");
}
