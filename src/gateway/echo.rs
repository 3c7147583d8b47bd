//! A backend that answers what it was asked, for trying a gateway.

use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde_json::{Value, json};

/// The largest body that is echoed, in bytes.
const BODY_LIMIT: usize = 1 << 20;

/// Answers any request with its method, its target and its body if that is JSON.
pub fn router() -> Router {
    Router::new().fallback(echo)
}

async fn echo(request: Request) -> impl IntoResponse {
    let (head, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, BODY_LIMIT).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let message = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let answer = json!({
        "http_method": head.method.as_str(),
        "request_uri": head.uri.to_string(),
        "your_message": message,
    });
    ([(header::CONTENT_TYPE, "application/json")], answer.to_string()).into_response()
}
