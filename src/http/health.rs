//! `GET /health/live` and `/health/ready`: for balancers and orchestrators.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use crate::web::document::Responses;

use super::Shop;
use super::docs;
use super::error::ApiError;

/// Says `ok`; whatever is not ok is answered by an error.
#[derive(Serialize, ToSchema)]
pub struct HealthResponse {
    #[schema(example = "ok")]
    status: &'static str,
}

/// Whether the process is alive; if not, restart it.
#[utoipa::path(
    get, path = "/health/live", tag = "operations", operation_id = "getLiveness", security(()),
    responses((status = OK, description = "Alive.", body = HealthResponse)),
)]
pub async fn live() -> Json<HealthResponse> {
    Json(HealthResponse { status: "ok" })
}

/// Why it is not ready.
struct NotReady;

impl IntoResponses for NotReady {
    fn responses() -> Responses {
        docs::refusals([ApiError::DatabaseAway, ApiError::ShuttingDown])
    }
}

/// Whether it makes sense to send requests here: the database takes what is written, and no
/// shutdown is under way.
#[utoipa::path(
    get, path = "/health/ready", tag = "operations", operation_id = "getReadiness", security(()),
    responses(
        (status = OK, description = "Ready.", body = HealthResponse),
        NotReady,
    ),
)]
pub async fn ready(State(shop): State<Arc<Shop>>) -> Result<Json<HealthResponse>, ApiError> {
    if shop.lifecycle.is_ending() {
        return Err(ApiError::ShuttingDown);
    }
    if !shop.engine.can_write() {
        return Err(ApiError::DatabaseAway);
    }
    Ok(Json(HealthResponse { status: "ok" }))
}
