//! `/log/level`: what is logged from now on.

use axum::Json;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::telemetry;

use super::error::AdminError;
use super::extract::JsonBody;

/// A level, or directives.
#[derive(Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LogLevel {
    /// As `log.level` in the configuration.
    #[schema(example = "info,merch_store::gateway=debug")]
    level: String,
}

/// What is logged.
#[utoipa::path(
    get, path = "/log/level", tag = "operations", operation_id = "getLogLevel",
    responses((status = OK, description = "The level in force.", body = LogLevel)),
)]
pub async fn level() -> Json<LogLevel> {
    Json(LogLevel { level: telemetry::log_level() })
}

/// Log more or less from now on.
///
/// Until the next start or reload, which go by the configuration.
#[utoipa::path(
    put, path = "/log/level", tag = "operations", operation_id = "setLogLevel",
    request_body = LogLevel,
    responses((status = OK, description = "It is in force.", body = LogLevel)),
)]
pub async fn set_level(JsonBody(wanted): JsonBody<LogLevel>) -> Result<Json<LogLevel>, AdminError> {
    telemetry::set_log_level(&wanted.level)?;
    tracing::info!(level = wanted.level, "log level changed by the operator");
    Ok(Json(wanted))
}
