//! The same limits as the gateway's, for a shop that has none in front; mounted only where
//! `limits.serve` asks for it.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::limits::Gate;

use super::error::ApiError;

/// Who watches over the shop must not be told to come back later.
const UNLIMITED: [&str; 3] = ["/health/live", "/health/ready", "/metrics"];

/// The other end of the connection that a request came by.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub IpAddr);

/// Lets requests pass that have a token, and tells every client how it stands.
pub async fn limit(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    if UNLIMITED.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let Some(Peer(address)) = request.extensions().get().copied() else {
        tracing::error!("a request without a peer; it cannot be limited");
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
