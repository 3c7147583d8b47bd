//! `GET /metrics`: what the gateway recorded, for Prometheus, which can show a token.

use axum::http::header;
use axum::response::IntoResponse;

use crate::telemetry;

/// The process's metrics in Prometheus's text format.
pub async fn metrics() -> impl IntoResponse {
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], telemetry::metrics().render())
}
