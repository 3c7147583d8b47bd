//! `POST /reload`: other settings without a restart, as SIGHUP asks for.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::oneshot;

use crate::config::InvalidConfig;

use super::Admin;
use super::docs::NotReloaded;
use super::error::AdminError;

/// Where wishes for other settings go; whoever reads the settings reads them there.
pub type Reloads = mpsc::Sender<Reload>;

/// A wish to read the settings again. It is answered when they are in force, or with the
/// reason why they cannot be and everything is as it was.
pub type Reload = oneshot::Sender<Result<(), InvalidConfig>>;

/// Read the configuration again.
///
/// In force at once: `gateway.backends`, `gateway.upstream` but its `retry_budget`,
/// `limits.capacity`, `limits.rate_per_sec` and `log.level`. Everything else waits for the next
/// start. What was added over this API stays, and a configured backend that was drained or
/// removed over it stays away. A gateway that `merch-store up` started answers with 501: its
/// settings wait for the next start.
#[utoipa::path(
    post, path = "/reload", tag = "operations", operation_id = "reload",
    responses(
        (status = NO_CONTENT, description = "The new settings are in force."),
        NotReloaded,
    ),
)]
pub async fn reload(State(admin): State<Arc<Admin>>) -> Result<StatusCode, AdminError> {
    let (answer, answered) = oneshot::channel();
    admin.reloads.try_send(answer).map_err(|error| match error {
        TrySendError::Full(_) => AdminError::Busy,
        TrySendError::Closed(_) => AdminError::NoReload,
    })?;
    answered.await.map_err(|_| AdminError::Busy)??;
    Ok(StatusCode::NO_CONTENT)
}
