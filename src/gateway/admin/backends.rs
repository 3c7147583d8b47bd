//! `/backends`: who is behind the gateway.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::config::BackendUrl;
use crate::gateway::upstream::BackendStatus;

use super::Admin;
use super::docs::{NoBackend, NotAdded};
use super::error::AdminError;
use super::extract::{Body, JsonBody, json};

/// Backends, in the order in which they came.
#[derive(Serialize, ToSchema)]
pub struct BackendList {
    backends: Vec<BackendStatus>,
}

/// A backend to be.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBackend {
    /// `http://host:port`; of a host name each address becomes a backend. Never the gateway itself.
    #[schema(example = "http://10.0.0.7:8080", min_length = 1)]
    url: String,
    /// Its share relative to the others, 1 to 100; 1 if it is left out.
    #[schema(minimum = 1, maximum = 100, example = 1)]
    weight: Option<u32>,
}

/// Which backend.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BackendBody {
    /// Its name in the list, or the host name (`shop:8080`) that all of them came by.
    #[schema(example = "10.0.0.7:8080", min_length = 1)]
    backend: String,
}

/// Which backend, in the query: bodies of DELETE do not survive every proxy.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct BackendQuery {
    /// As in the body, and instead of it.
    #[param(example = "10.0.0.7:8080", nullable = false, min_length = 1)]
    backend: Option<String>,
}

/// Every backend and how it is.
#[utoipa::path(
    get, path = "/backends", tag = "backends", operation_id = "listBackends",
    responses((status = OK, description = "All of them.", body = BackendList)),
)]
pub async fn list(State(admin): State<Arc<Admin>>) -> Json<BackendList> {
    Json(BackendList { backends: admin.upstreams.status() })
}

/// Add a backend.
///
/// It gets requests as soon as it has passed a health check.
#[utoipa::path(
    post, path = "/backends", tag = "backends", operation_id = "addBackend",
    request_body = NewBackend,
    responses(
        (status = CREATED, description = "It is checked from now on.", body = BackendList, links(
            ("drain" = (operation_id = "drainBackend",
                parameters(("backend" = "$response.body#/backends/0/name")))),
            ("remove" = (operation_id = "removeBackend",
                parameters(("backend" = "$response.body#/backends/0/name")))),
        )),
        NotAdded,
    ),
)]
pub async fn add(
    State(admin): State<Arc<Admin>>,
    JsonBody(new): JsonBody<NewBackend>,
) -> Result<(StatusCode, Json<BackendList>), AdminError> {
    let mut url: BackendUrl = new.url.parse().map_err(AdminError::BadRequest)?;
    if let Some(weight) = new.weight {
        let wrong = || AdminError::BadRequest("weight must be from 1 to 100".into());
        url = url.with_weight(weight).ok_or_else(wrong)?;
    }
    let name = url.name();
    admin.upstreams.add(url).await?;
    tracing::info!(backend = name, "added by the operator");
    let mut backends = admin.upstreams.status();
    backends.retain(|backend| backend.source == name);
    Ok((StatusCode::CREATED, Json(BackendList { backends })))
}

/// Give a backend no more requests.
///
/// It leaves when those under way are finished. A configured one stays away, whatever is read
/// again, until it is added over this API or the configuration has ceased to name it.
#[utoipa::path(
    post, path = "/backends/drain", tag = "backends", operation_id = "drainBackend",
    params(BackendQuery), request_body = BackendBody,
    responses(
        (status = NO_CONTENT, description = "It gets no more requests."),
        NoBackend,
    ),
)]
pub async fn drain(
    State(admin): State<Arc<Admin>>,
    query: Result<Query<BackendQuery>, QueryRejection>,
    body: Body,
) -> Result<StatusCode, AdminError> {
    let name = named(query, &body)?;
    admin.upstreams.drain(&name)?;
    tracing::info!(backend = name, "drained by the operator");
    Ok(StatusCode::NO_CONTENT)
}

/// Forget a backend at once.
///
/// Requests under way go on. A configured one stays away, whatever is read again, until it is
/// added over this API or the configuration has ceased to name it.
#[utoipa::path(
    delete, path = "/backends", tag = "backends", operation_id = "removeBackend",
    params(BackendQuery), request_body = BackendBody,
    responses(
        (status = NO_CONTENT, description = "It is gone."),
        NoBackend,
    ),
)]
pub async fn remove(
    State(admin): State<Arc<Admin>>,
    query: Result<Query<BackendQuery>, QueryRejection>,
    body: Body,
) -> Result<StatusCode, AdminError> {
    let name = named(query, &body)?;
    admin.upstreams.remove(&name)?;
    tracing::info!(backend = name, "removed by the operator");
    Ok(StatusCode::NO_CONTENT)
}

/// The backend that a request is about: named in the query, in the body, or twice the same.
fn named(
    query: Result<Query<BackendQuery>, QueryRejection>,
    Body(body): &Body,
) -> Result<String, AdminError> {
    let bad_request = |why: &str| AdminError::BadRequest(why.into());
    let Query(query) = query.map_err(|_| bad_request("the query is not well-formed"))?;
    let in_body = match body.is_empty() {
        true => None,
        false => Some(json::<BackendBody>(body)?.backend),
    };
    match (query.backend, in_body) {
        (Some(one), Some(other)) if one != other => {
            Err(bad_request("the query and the body name different backends"))
        }
        (Some(name), _) | (None, Some(name)) => Ok(name),
        (None, None) => Err(bad_request("backend is missing, in the body and in the query")),
    }
}
