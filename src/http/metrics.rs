//! `GET /metrics`: for Prometheus.

use axum::http::header;
use axum::response::IntoResponse;

use crate::telemetry;

/// Renders what was recorded so far, as text of Prometheus's exposition format 0.0.4.
pub async fn metrics() -> impl IntoResponse {
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], telemetry::metrics().render())
}
