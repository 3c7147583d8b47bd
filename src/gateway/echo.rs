//! A backend that answers what it was asked, for trying a gateway.

use std::time::Duration;

use axum::Router;
use axum::body::HttpBody;
use axum::extract::{DefaultBodyLimit, FromRequest, Request};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::timeout;

/// The largest body that is echoed, in bytes, and how long it may take.
const BODY_LIMIT: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(30);

/// Answers any request with its method, its target and its body if that is JSON.
pub fn router() -> Router {
    Router::new().fallback(echo).layer(DefaultBodyLimit::max(BODY_LIMIT))
}

async fn echo(method: Method, uri: Uri, request: Request) -> Response {
    let body = match body_of(request).await {
        Ok(body) => body,
        Err(status) => return refuse(status),
    };
    let message = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let answer = json!({
        "http_method": method.as_str(),
        "request_uri": uri.to_string(),
        "your_message": message,
    });
    ([(header::CONTENT_TYPE, "application/json")], answer.to_string()).into_response()
}

/// The body, or the status of what is wrong with it.
async fn body_of(request: Request) -> Result<Bytes, StatusCode> {
    // What is announced may already be too much.
    if request.body().size_hint().lower() > BODY_LIMIT as u64 {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let body = timeout(PATIENCE, Bytes::from_request(request, &())).await;
    body.map_err(|_elapsed| StatusCode::REQUEST_TIMEOUT)?.map_err(|rejection| rejection.status())
}

fn refuse(status: StatusCode) -> Response {
    let (errors, code) = match status {
        StatusCode::PAYLOAD_TOO_LARGE => ("the body is too large", "body_too_large"),
        StatusCode::REQUEST_TIMEOUT => ("the body did not arrive in time", "body_timeout"),
        _ => ("the body broke off", "invalid_request"),
    };
    let refusal = json!({ "errors": errors, "code": code }).to_string();
    (status, [(header::CONTENT_TYPE, "application/json")], refusal).into_response()
}
