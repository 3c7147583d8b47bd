//! `GET /api/history` and its summary: every movement of the user's coins.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::shop::Owner;
use crate::storage::{Summary, Total};
use crate::web::query::digits;

use super::Shop;
use super::docs::Guarded;
use super::error::ApiError;
use super::extract::Authenticated;
use super::movement::MovementEntry;
use super::unauthorized::Unauthorized;

/// The largest page, and the longest list of counterparties in a summary.
const MAX_LIMIT: u16 = 100;
const DEFAULT_LIMIT: u16 = 50;

/// Which page of the history.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct HistoryQuery {
    /// Movements on a page, 1 to 100.
    #[param(minimum = 1, maximum = 100, default = 50, nullable = false)]
    #[serde(default, deserialize_with = "digits")]
    limit: Option<u16>,
    /// `nextCursor` of the page before; empty or left out: the first page.
    #[param(nullable = false)]
    cursor: Option<String>,
}

/// A page of the history, newest movement first.
#[derive(Serialize, ToSchema)]
pub struct HistoryResponse {
    #[schema(max_items = 100)]
    movements: Vec<MovementEntry>,
    /// Where the next page starts; null on the last one.
    #[serde(rename = "nextCursor")]
    #[schema(required)]
    next_cursor: Option<String>,
}

/// Every movement of one's coins, newest first, a page at a time.
#[utoipa::path(
    get, path = "/api/history", tag = "shop", operation_id = "getHistory", params(HistoryQuery),
    responses(
        (status = OK, description = "A page.", body = HistoryResponse, links(
            ("next" = (operation_id = "getHistory", description = "The page after it.",
                parameters(("cursor" = "$response.body#/nextCursor")))),
        )),
        Guarded,
    ),
)]
pub async fn history(
    State(shop): State<Arc<Shop>>,
    Authenticated(owner): Authenticated,
    query: Result<Query<HistoryQuery>, QueryRejection>,
) -> Result<Json<HistoryResponse>, ApiError> {
    let bad_query = "limit must be a number from 1 to 100, cursor a nextCursor of this API";
    let bad_query = || ApiError::BadRequest(bad_query.into());
    let Query(query) = query.map_err(|_| bad_query())?;
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(bad_query());
    }
    let before = match query.cursor.as_deref() {
        None | Some("") => Cursor::NEWEST,
        Some(cursor) => Cursor::parse(cursor).ok_or_else(bad_query)?,
    };

    let page = shop.database.history_page_fetch(&owner, before.0, limit).await?;
    if page.movements.is_empty() {
        make_sure_of(&shop, &owner).await?;
    }
    let last = page.movements.last().filter(|_| page.more);
    Ok(Json(HistoryResponse {
        next_cursor: last.map(|movement| Cursor(movement.id).to_string()),
        movements: page.movements.into_iter().map(MovementEntry::from).collect(),
    }))
}

/// Totals by colleague, the largest first, at most 100 each way.
#[derive(Serialize, ToSchema)]
pub struct SummaryResponse {
    #[schema(max_items = 100)]
    received: Vec<ReceivedTotal>,
    #[schema(max_items = 100)]
    sent: Vec<SentTotal>,
}

/// All transfers from one colleague together.
#[derive(Serialize, ToSchema)]
pub struct ReceivedTotal {
    #[serde(rename = "fromUser")]
    from_user: String,
    /// Coins, all transfers together.
    #[schema(minimum = 1)]
    amount: i64,
    #[schema(minimum = 1)]
    transfers: i64,
}

/// All transfers to one colleague together.
#[derive(Serialize, ToSchema)]
pub struct SentTotal {
    #[serde(rename = "toUser")]
    to_user: String,
    /// Coins, all transfers together.
    #[schema(minimum = 1)]
    amount: i64,
    #[schema(minimum = 1)]
    transfers: i64,
}

/// The 100 counterparties with the largest totals, each way.
#[utoipa::path(
    get, path = "/api/history/summary", tag = "shop", operation_id = "getHistorySummary",
    responses((status = OK, description = "Totals.", body = SummaryResponse), Guarded),
)]
pub async fn summary(
    State(shop): State<Arc<Shop>>,
    Authenticated(owner): Authenticated,
) -> Result<Json<SummaryResponse>, ApiError> {
    let summary = shop.database.history_summary_fetch(&owner, MAX_LIMIT).await?;
    if summary == Summary::default() {
        make_sure_of(&shop, &owner).await?;
    }
    Ok(Json(summary.into()))
}

/// Nothing to show may mean that there is nobody to show it to.
pub(super) async fn make_sure_of(shop: &Shop, owner: &Owner) -> Result<(), ApiError> {
    match shop.database.account_exists(owner).await? {
        true => Ok(()),
        false => Err(ApiError::Unauthorized(Unauthorized::Invalid)),
    }
}

/// A place in a history: the number of the movement before it. Opaque to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cursor(i64);

impl Cursor {
    const NEWEST: Cursor = Cursor(i64::MAX);

    fn parse(text: &str) -> Option<Cursor> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        Some(Cursor(i64::from_be_bytes(bytes.try_into().ok()?)))
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0.to_be_bytes()))
    }
}

impl From<Summary> for SummaryResponse {
    fn from(summary: Summary) -> SummaryResponse {
        let received = summary.received.into_iter();
        let sent = summary.sent.into_iter();
        SummaryResponse {
            received: received
                .map(|Total { username, amount, transfers }| ReceivedTotal {
                    from_user: username,
                    amount,
                    transfers,
                })
                .collect(),
            sent: sent
                .map(|Total { username, amount, transfers }| SentTotal {
                    to_user: username,
                    amount,
                    transfers,
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_the_journey_and_nothing_else_passes_for_one() {
        for id in [0, 1, i64::MAX] {
            assert_eq!(Cursor::parse(&Cursor(id).to_string()), Some(Cursor(id)));
        }
        for text in ["", "7", "AAAA", "not base64!", "AAAAAAAAAAAAAAAAAAAA"] {
            assert_eq!(Cursor::parse(text), None, "{text:?}");
        }
    }
}
