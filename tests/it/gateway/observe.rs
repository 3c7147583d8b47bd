//! What the gateway writes down of requests.

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
