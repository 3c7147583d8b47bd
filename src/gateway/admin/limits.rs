//! `/limits` and `/clients`: limits of clients' own.
//!
//! A client may be named in the query and in the body, because bodies of GET and DELETE do
//! not survive every proxy; where it is named twice, it must be the same client.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::limits::{Change, ClientId, InvalidLimit, Limit, OwnLimits};
use crate::web::query::digits;

use super::docs::{LimitsAway, NoLimit, NoMoreLimits, NotCreated};
use super::error::AdminError;
use super::extract::{Body, json};

/// The largest page.
const MAX_PAGE: u16 = 100;
const DEFAULT_PAGE: u16 = 50;

/// The routes, and the document's part that they make. Whoever mounts them asks for the
/// bearer token.
pub fn routes() -> OpenApiRouter<OwnLimits> {
    OpenApiRouter::new()
        .routes(routes!(create))
        .routes(routes!(get))
        .routes(routes!(update))
        .routes(routes!(delete))
        .routes(routes!(list))
        .routes(routes!(put_client))
        .routes(routes!(delete_client))
}

/// A client, in the query.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ClientQuery {
    /// An address, with or without a port, or whatever else clients are known by.
    #[param(example = "203.0.113.7", nullable = false, min_length = 1)]
    client_id: Option<String>,
    /// The same; `/clients` knows it by this name too.
    #[param(nullable = false, min_length = 1)]
    ip: Option<String>,
}

/// A client, in the body.
#[derive(Default, Deserialize, ToSchema)]
pub struct ClientBody {
    #[schema(example = "203.0.113.7")]
    client_id: Option<String>,
    ip: Option<String>,
}

/// A client and its limit.
#[derive(Deserialize, ToSchema)]
pub struct LimitBody {
    /// May be given in the query instead.
    #[schema(example = "203.0.113.7:890")]
    client_id: Option<String>,
    /// Requests at once, 1 to 1,000,000.
    #[schema(value_type = u32, example = 10, minimum = 1, maximum = 1_000_000)]
    capacity: f64,
    /// Requests a second, 1 to 1,000,000.
    #[schema(value_type = u32, example = 1, minimum = 1, maximum = 1_000_000)]
    rate_per_sec: f64,
}

/// A client and its limit, as `/clients` spells it.
#[derive(Deserialize, ToSchema)]
pub struct ClientLimitBody {
    /// Or `client_id`.
    #[schema(example = "203.0.113.7")]
    ip: Option<String>,
    client_id: Option<String>,
    /// Requests at once, 1 to 1,000,000.
    #[schema(value_type = u32, example = 10, minimum = 1, maximum = 1_000_000)]
    capacity: f64,
    /// Requests a second, 1 to 1,000,000.
    #[schema(value_type = u32, example = 1, minimum = 1, maximum = 1_000_000)]
    #[serde(alias = "rate_per_sec")]
    rate: f64,
}

/// A client's own limit.
#[derive(Serialize, ToSchema)]
pub struct LimitEntry {
    client_id: String,
    #[schema(minimum = 1, maximum = 1_000_000)]
    capacity: u32,
    #[schema(minimum = 1, maximum = 1_000_000)]
    rate_per_sec: u32,
}

/// Which page of the limits.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Limits on a page, 1 to 100.
    #[param(minimum = 1, maximum = 100, default = 50, nullable = false)]
    #[serde(default, deserialize_with = "digits")]
    limit: Option<u16>,
    /// `nextCursor` of the page before; empty or left out: the first page.
    #[param(nullable = false)]
    cursor: Option<String>,
}

/// A page of the limits, in the order of their client_id.
#[derive(Serialize, ToSchema)]
pub struct LimitsPage {
    #[schema(max_items = 100)]
    limits: Vec<LimitEntry>,
    /// Where the next page starts; null on the last one.
    #[serde(rename = "nextCursor")]
    #[schema(required)]
    next_cursor: Option<String>,
}

/// Give a client a limit of its own.
#[utoipa::path(
    post, path = "/limits/create", tag = "limits", operation_id = "createLimit",
    params(ClientQuery), request_body = LimitBody,
    responses(
        (status = CREATED, description = "In force here, and everywhere within a second.", links(
            ("get" = (operation_id = "getLimit",
                parameters(("client_id" = "$request.body#/client_id")))),
            ("update" = (operation_id = "updateLimit",
                parameters(("client_id" = "$request.body#/client_id")))),
            ("delete" = (operation_id = "deleteLimit",
                parameters(("client_id" = "$request.body#/client_id")))),
        )),
        NotCreated,
        LimitsAway,
    ),
)]
async fn create(
    State(own): State<OwnLimits>,
    query: Result<Query<ClientQuery>, QueryRejection>,
    Body(body): Body,
) -> Result<StatusCode, AdminError> {
    let Query(query) = query.map_err(not_well_formed)?;
    let body: LimitBody = json(&body)?;
    let client = query.client(&own, body.client_id.as_deref(), None)?;
    let limit = limit(body.capacity, body.rate_per_sec)?;
    match own.change(Change::Create(client.id, limit)).await? {
        true => Ok(StatusCode::CREATED),
        false => Err(AdminError::LimitExists),
    }
}

/// A client's own limit.
#[utoipa::path(
    get, path = "/limits/get", tag = "limits", operation_id = "getLimit", params(ClientQuery),
    responses(
        (status = OK, description = "Its limit.", body = LimitEntry),
        NoLimit,
        LimitsAway,
    ),
)]
async fn get(
    State(own): State<OwnLimits>,
    query: Result<Query<ClientQuery>, QueryRejection>,
    Body(body): Body,
) -> Result<Json<LimitEntry>, AdminError> {
    let client = named(&own, &query.map_err(not_well_formed)?.0, &body)?;
    let limit = own.get(&client.id).await?.ok_or(AdminError::UnknownLimit)?;
    Ok(Json(entry(client.as_given, limit)))
}

/// Change a client's own limit.
#[utoipa::path(
    put, path = "/limits/update", tag = "limits", operation_id = "updateLimit",
    params(ClientQuery), request_body = LimitBody,
    responses(
        (status = NO_CONTENT, description = "In force here, and everywhere within a second."),
        NoLimit,
        LimitsAway,
    ),
)]
async fn update(
    State(own): State<OwnLimits>,
    query: Result<Query<ClientQuery>, QueryRejection>,
    Body(body): Body,
) -> Result<StatusCode, AdminError> {
    let Query(query) = query.map_err(not_well_formed)?;
    let body: LimitBody = json(&body)?;
    let client = query.client(&own, body.client_id.as_deref(), None)?;
    let limit = limit(body.capacity, body.rate_per_sec)?;
    found(own.change(Change::Update(client.id, limit)).await?)
}

/// Take a client's own limit away: it has that of everybody again.
#[utoipa::path(
    delete, path = "/limits/delete", tag = "limits", operation_id = "deleteLimit",
    params(ClientQuery),
    responses(
        (status = NO_CONTENT, description = "Gone here, and everywhere within a second."),
        NoLimit,
        LimitsAway,
    ),
)]
async fn delete(
    State(own): State<OwnLimits>,
    query: Result<Query<ClientQuery>, QueryRejection>,
    Body(body): Body,
) -> Result<StatusCode, AdminError> {
    let client = named(&own, &query.map_err(not_well_formed)?.0, &body)?;
    found(own.change(Change::Delete(client.id)).await?)
}

/// All limits of clients' own, a page at a time.
#[utoipa::path(
    get, path = "/limits", tag = "limits", operation_id = "listLimits", params(PageQuery),
    responses(
        (status = OK, description = "A page.", body = LimitsPage, links(
            ("next" = (operation_id = "listLimits", description = "The page after it.",
                parameters(("cursor" = "$response.body#/nextCursor")))),
            ("get" = (operation_id = "getLimit",
                parameters(("client_id" = "$response.body#/limits/0/client_id")))),
        )),
        LimitsAway,
    ),
)]
async fn list(
    State(own): State<OwnLimits>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Json<LimitsPage>, AdminError> {
    let bad_query = "limit must be a number from 1 to 100, cursor a nextCursor of this API";
    let bad_query = || AdminError::BadRequest(bad_query.into());
    let Query(query) = query.map_err(|_| bad_query())?;
    let most = query.limit.unwrap_or(DEFAULT_PAGE);
    if !(1..=MAX_PAGE).contains(&most) {
        return Err(bad_query());
    }
    let cursor = query.cursor.filter(|cursor| !cursor.is_empty());
    let after = cursor.map(|cursor| own.client(&cursor)).transpose();
    let after = after.map_err(|_| bad_query())?;
    let (page, more) = own.page(after.as_ref(), most.into()).await?;
    let last = page.last().filter(|_| more);
    Ok(Json(LimitsPage {
        next_cursor: last.map(|(id, _)| id.to_string()),
        limits: page.into_iter().map(|(id, limit)| entry(id.to_string(), limit)).collect(),
    }))
}

/// Give a client a limit of its own, whether or not it has one.
#[utoipa::path(
    post, path = "/clients", tag = "limits", operation_id = "putClient",
    params(ClientQuery), request_body = ClientLimitBody,
    responses(
        (status = OK, description = "In force here, and everywhere within a second.",
            body = LimitEntry,
            links(("delete" = (operation_id = "deleteClient",
                parameters(("client_id" = "$response.body#/client_id")))))),
        NoMoreLimits,
        LimitsAway,
    ),
)]
async fn put_client(
    State(own): State<OwnLimits>,
    query: Result<Query<ClientQuery>, QueryRejection>,
    Body(body): Body,
) -> Result<Json<LimitEntry>, AdminError> {
    let Query(query) = query.map_err(not_well_formed)?;
    let body: ClientLimitBody = json(&body)?;
    let client = query.client(&own, body.client_id.as_deref(), body.ip.as_deref())?;
    let limit = limit(body.capacity, body.rate)?;
    own.change(Change::Put(client.id, limit)).await?;
    Ok(Json(entry(client.as_given, limit)))
}

/// Take a client's own limit away, as `/limits/delete` does.
#[utoipa::path(
    delete, path = "/clients/delete", tag = "limits", operation_id = "deleteClient",
    params(ClientQuery),
    responses(
        (status = NO_CONTENT, description = "Gone here, and everywhere within a second."),
        NoLimit,
        LimitsAway,
    ),
)]
async fn delete_client(
    own: State<OwnLimits>,
    query: Result<Query<ClientQuery>, QueryRejection>,
    Body(body): Body,
) -> Result<StatusCode, AdminError> {
    delete(own, query, Body(body)).await
}

/// A client and how whoever asks spells it.
struct Named {
    id: ClientId,
    as_given: String,
}

/// The client that the query, or a body that need not be there, names.
fn named(own: &OwnLimits, query: &ClientQuery, body: &[u8]) -> Result<Named, AdminError> {
    let body = if body.is_empty() { ClientBody::default() } else { json(body)? };
    query.client(own, body.client_id.as_deref(), body.ip.as_deref())
}

impl ClientQuery {
    /// The one client that is named here, and by `client_id` and `ip` of the body.
    fn client(
        &self,
        own: &OwnLimits,
        client_id: Option<&str>,
        ip: Option<&str>,
    ) -> Result<Named, AdminError> {
        let given = [client_id, ip, self.client_id.as_deref(), self.ip.as_deref()];
        let mut client: Option<Named> = None;
        for text in given.into_iter().flatten() {
            let invalid = |error| AdminError::BadRequest(format!("{error}"));
            let id = own.client(text).map_err(invalid)?;
            match &client {
                Some(before) if before.id != id => {
                    let why = "the query and the body name different clients";
                    return Err(AdminError::BadRequest(why.into()));
                }
                Some(_) => {}
                None => client = Some(Named { id, as_given: text.to_owned() }),
            }
        }
        client.ok_or_else(|| AdminError::BadRequest("client_id is required".into()))
    }
}

/// The limit of these numbers, which clients may spell `10` or `10.0`.
fn limit(capacity: f64, rate_per_sec: f64) -> Result<Limit, InvalidLimit> {
    // Zero is not allowed either, and refused with its name.
    let whole = |number: f64| if number.fract() == 0.0 { number as u32 } else { 0 };
    Limit::new(whole(capacity), whole(rate_per_sec))
}

fn entry(client_id: String, limit: Limit) -> LimitEntry {
    LimitEntry { client_id, capacity: limit.capacity(), rate_per_sec: limit.rate_per_sec() }
}

fn found(done: bool) -> Result<StatusCode, AdminError> {
    if done { Ok(StatusCode::NO_CONTENT) } else { Err(AdminError::UnknownLimit) }
}

fn not_well_formed(_: QueryRejection) -> AdminError {
    AdminError::BadRequest("the query is not well-formed".into())
}
