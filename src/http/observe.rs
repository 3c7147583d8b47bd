//! Around every request: an id, a time limit, a span, a line in the log, metrics.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use metrics::{counter, histogram};
use tracing::Instrument;
use uuid::Uuid;

use super::Shop;
use super::error::ApiError;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Runs the rest of the stack under the shop's time limit and records how it went. The
/// path is logged, the query and the headers are not: they may hold what is not ours.
pub async fn observe(
    State(shop): State<Arc<Shop>>,
    matched: Option<MatchedPath>,
    request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let request_id = request_id(&request);
    let id = request_id.to_str().unwrap_or_default();
    let span = tracing::info_span!("request", id, %method, path);

    let handled = next.run(request).instrument(span.clone());
    let mut response = match tokio::time::timeout(shop.request_timeout, handled).await {
        Ok(response) => response,
        Err(_elapsed) => ApiError::Timeout.into_response(),
    };

    let elapsed = started.elapsed();
    let status = response.status().as_u16();
    if shop.access_log {
        span.in_scope(|| {
            let milliseconds = elapsed.as_micros() as f64 / 1000.0;
            tracing::info!(target: "merch_store::access", status, milliseconds, "answered");
        });
    }
    // The route, not the path: a client must not be able to invent label values.
    let route = matched.map_or("unmatched".into(), |matched| matched.as_str().to_owned());
    let labels = [("route", route), ("status", status.to_string())];
    counter!("merch_http_requests_total", &labels).increment(1);
    histogram!("merch_http_request_seconds", &labels[..1]).record(elapsed);

    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, request_id);
    if shop.lifecycle.is_ending() {
        // Whoever keeps connections open should look for another server.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The id that the client or a proxy gave, if it is short and plain, or a new one.
fn request_id(request: &Request) -> HeaderValue {
    let plain = |value: &&HeaderValue| {
        (1..=64).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    match request.headers().get(REQUEST_ID).filter(plain) {
        Some(given) => given.clone(),
        None => HeaderValue::from_str(&Uuid::new_v4().simple().to_string())
            .expect("hexadecimal digits are a header value"),
    }
}
