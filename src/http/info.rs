//! `GET /api/info`: what the user has, owns, got and gave.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::storage::Info;

use super::Shop;
use super::error::{ApiError, CommonErrors};
use super::extract::Authenticated;

/// The user's account at one moment.
#[derive(Serialize, ToSchema)]
pub struct InfoResponse {
    /// Coins at hand.
    coins: i64,
    /// What was bought.
    inventory: Vec<InventoryItem>,
    #[serde(rename = "coinHistory")]
    coin_history: CoinHistory,
}

/// How many of one item the user has bought.
#[derive(Serialize, ToSchema)]
pub struct InventoryItem {
    #[serde(rename = "type")]
    #[schema(example = "cup")]
    kind: String,
    /// At least 1.
    quantity: i64,
}

/// The newest transfers each way, newest first.
#[derive(Serialize, ToSchema)]
pub struct CoinHistory {
    received: Vec<ReceivedCoins>,
    sent: Vec<SentCoins>,
}

/// One transfer to the user.
#[derive(Serialize, ToSchema)]
pub struct ReceivedCoins {
    #[serde(rename = "fromUser")]
    from_user: String,
    amount: i64,
}

/// One transfer from the user.
#[derive(Serialize, ToSchema)]
pub struct SentCoins {
    #[serde(rename = "toUser")]
    to_user: String,
    amount: i64,
}

/// Coins, inventory and the newest transfers, as they were at one moment.
#[utoipa::path(
    get, path = "/api/info", tag = "shop", operation_id = "info",
    responses((status = OK, description = "The account.", body = InfoResponse), CommonErrors),
)]
pub async fn info(
    State(shop): State<Arc<Shop>>,
    Authenticated(identity): Authenticated,
) -> Result<Json<InfoResponse>, ApiError> {
    let limit = i64::from(shop.history_limit);
    let info = shop.database.info_fetch(identity.account, limit).await?;
    Ok(Json(info.ok_or(ApiError::Unauthorized)?.into()))
}

impl From<Info> for InfoResponse {
    fn from(info: Info) -> InfoResponse {
        let inventory = info.inventory.into_iter();
        let received = info.received.into_iter();
        let sent = info.sent.into_iter();
        InfoResponse {
            coins: info.coins,
            inventory: inventory.map(|(kind, quantity)| InventoryItem { kind, quantity }).collect(),
            coin_history: CoinHistory {
                received: received
                    .map(|(from, amount)| ReceivedCoins { from_user: from.to_string(), amount })
                    .collect(),
                sent: sent
                    .map(|(to, amount)| SentCoins { to_user: to.to_string(), amount })
                    .collect(),
            },
        }
    }
}
