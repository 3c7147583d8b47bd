//! `GET /api/merch`: the catalogue.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Shop;
use super::error::{ApiError, CommonErrors};

/// Everything on sale, always in the same order.
#[derive(Serialize, ToSchema)]
pub struct MerchResponse {
    items: Vec<MerchEntry>,
}

/// One item on sale; stock is endless.
#[derive(Serialize, ToSchema)]
pub struct MerchEntry {
    #[serde(rename = "type")]
    #[schema(example = "cup")]
    kind: String,
    /// Coins for one.
    #[schema(example = 20)]
    price: i64,
}

/// Everything on sale, and what it costs.
#[utoipa::path(
    get, path = "/api/merch", tag = "shop", operation_id = "listMerch", security(()),
    responses((status = OK, description = "The catalogue.", body = MerchResponse), CommonErrors),
)]
pub async fn merch(State(shop): State<Arc<Shop>>) -> Result<Json<MerchResponse>, ApiError> {
    let items = shop.database.merch_fetch_all().await?.into_iter();
    let items = items.map(|item| MerchEntry { kind: item.name, price: item.price }).collect();
    Ok(Json(MerchResponse { items }))
}
