//! Answers browsers that ask whether a page may ask; mounted only where `http.cors_origins`
//! names one.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::web::cors::{Cors, write_preflight};

/// Answers a preflight. Every other request goes on, another OPTIONS too.
pub async fn preflight(State(cors): State<Cors>, request: Request, next: Next) -> Response {
    if !cors.is_preflight(request.method(), request.headers()) {
        return next.run(request).await;
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    write_preflight(response.headers_mut());
    response
}
