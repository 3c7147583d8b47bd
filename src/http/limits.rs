//! The same limits as the gateway's, for a shop that has none in front; mounted only where
//! `limits.serve` asks for it.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::limits::Gate;

use super::asker::Asker;
use super::error::ApiError;
use super::observe::is_watch;

/// Lets requests pass that have a token, and tells every client how it stands.
pub async fn limit(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    // Who watches over the shop must not be told to come back later.
    if is_watch(request.uri().path()) {
        return next.run(request).await;
    }
    let Some(address) = request.extensions().get().map(Asker::address) else {
        tracing::error!("a request from nowhere; it cannot be limited");
        return ApiError::Internal.into_response();
    };
    let Some(decision) = gate.check(address, request.headers()).await else {
        return next.run(request).await;
    };
    let mut response = match decision.allowed {
        true => next.run(request).await,
        false => ApiError::RateLimited.into_response(),
    };
    decision.write_headers(response.headers_mut());
    response
}
