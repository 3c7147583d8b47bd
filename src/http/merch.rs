//! `GET /api/merch`: the catalogue.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

use crate::web::document::Responses;
use crate::web::representation::{NotAcceptable, Representation};

use super::Shop;
use super::docs;
use super::error::ApiError;

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
    #[schema(example = 20, minimum = 1)]
    price: i64,
}

/// Why the catalogue is not shown.
struct MerchRefusals;

impl IntoResponses for MerchRefusals {
    fn responses() -> Responses {
        docs::refusals([docs::malformed(), ApiError::NotAcceptable])
    }
}

/// Everything on sale, and what it costs.
#[utoipa::path(
    get, path = "/api/merch", tag = "shop", operation_id = "listMerch", security(()),
    responses(
        (status = OK, description = "The catalogue.", body = MerchResponse, links(
            ("buy" = (operation_id = "buy", description = "With a token.",
                parameters(("item" = "$response.body#/items/0/type")))),
        )),
        (status = NOT_MODIFIED, description = "The client has it: it sent its ETag."),
        MerchRefusals,
    ),
)]
pub async fn merch(
    State(shop): State<Arc<Shop>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let items = shop.database.merch_fetch_all().await?.into_iter();
    let items = items.map(|item| MerchEntry { kind: item.name, price: item.price }).collect();
    let body = serde_json::to_vec(&MerchResponse { items }).expect("plain data is JSON");
    shop.catalogue.of(body.into()).answer(&headers).map_err(|NotAcceptable| ApiError::NotAcceptable)
}

/// The catalogue as it was sent last: as long as it stays the same, what it comes to is kept.
#[derive(Default)]
pub struct Catalogue(ArcSwapOption<Representation>);

impl Catalogue {
    fn of(&self, body: Bytes) -> Arc<Representation> {
        if let Some(last) = self.0.load_full().filter(|last| *last.plain() == body) {
            return last;
        }
        let json = HeaderValue::from_static("application/json");
        let new = Arc::new(Representation::new(json, body));
        self.0.store(Some(new.clone()));
        new
    }
}
