//! `GET /health/live` and `/health/ready`: for balancers and orchestrators.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Shop;
use super::error::{ApiError, ErrorResponse};

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

/// Whether it makes sense to send requests here: the database answers, and no shutdown is
/// under way.
#[utoipa::path(
    get, path = "/health/ready", tag = "operations", operation_id = "getReadiness", security(()),
    responses(
        (status = OK, description = "Ready.", body = HealthResponse),
        (status = SERVICE_UNAVAILABLE, description = "Not now.", body = ErrorResponse),
    ),
)]
pub async fn ready(State(shop): State<Arc<Shop>>) -> Result<Json<HealthResponse>, ApiError> {
    if shop.lifecycle.is_ending() {
        return Err(ApiError::ShuttingDown);
    }
    if !shop.database.is_available() {
        return Err(ApiError::DatabaseAway);
    }
    Ok(Json(HealthResponse { status: "ok" }))
}
