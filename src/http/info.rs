//! `GET /api/info`: what the user has, owns, got and gave.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use bytes::Bytes;
use metrics::{Counter, counter};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use serde::Serialize;
use utoipa::ToSchema;

use crate::engine::Versions;
use crate::shop::{AccountId, Owner, Username};
use crate::storage::{Info, Known};

use super::Shop;
use super::docs::Guarded;
use super::error::ApiError;
use super::extract::Authenticated;
use super::unauthorized::Unauthorized;

/// What an answer takes besides its body, and with it on average, in bytes: a table has room
/// for so many.
const OVERHEAD: usize = 128;
const TYPICAL: usize = 2048;

/// The user's account at one moment.
#[derive(Serialize, ToSchema)]
pub struct InfoResponse<'info> {
    /// Coins at hand.
    #[schema(minimum = 0)]
    coins: i64,
    /// What was bought.
    inventory: Vec<InventoryItem<'info>>,
    #[serde(rename = "coinHistory")]
    coin_history: CoinHistory<'info>,
}

/// How many of one item the user has bought.
#[derive(Serialize, ToSchema)]
pub struct InventoryItem<'info> {
    #[serde(rename = "type")]
    #[schema(example = "cup")]
    kind: &'info str,
    /// At least 1.
    #[schema(minimum = 1)]
    quantity: i64,
}

/// The newest transfers each way, newest first.
#[derive(Serialize, ToSchema)]
pub struct CoinHistory<'info> {
    received: Vec<ReceivedCoins<'info>>,
    sent: Vec<SentCoins<'info>>,
}

/// One transfer to the user.
#[derive(Serialize, ToSchema)]
pub struct ReceivedCoins<'info> {
    #[serde(rename = "fromUser")]
    from_user: &'info str,
    /// At least 1.
    #[schema(minimum = 1)]
    amount: i64,
}

/// One transfer from the user.
#[derive(Serialize, ToSchema)]
pub struct SentCoins<'info> {
    #[serde(rename = "toUser")]
    to_user: &'info str,
    /// At least 1.
    #[schema(minimum = 1)]
    amount: i64,
}

/// Answers of `GET /api/info` that this replica gave, in a bounded part of its memory. One is
/// given again only to the same owner, after the database said that it is still the same one and
/// the account still at the same version.
pub struct Infos {
    answers: Cache<AccountId, Given, Size>,
    versions: Versions,
    recalled: Counter,
    read: Counter,
}

#[derive(Clone)]
struct Given {
    owner: Username,
    known: Known,
    version: i64,
    body: Bytes,
}

#[derive(Clone)]
struct Size;

impl Infos {
    /// Remembers answers of at most `capacity` bytes altogether.
    pub fn new(capacity: usize, versions: Versions) -> Infos {
        Infos {
            answers: Cache::with_weighter(capacity / TYPICAL, capacity as u64, Size),
            versions,
            recalled: counter!("merch_info_answers_total", "source" => "memory"),
            read: counter!("merch_info_answers_total", "source" => "database"),
        }
    }

    /// What was answered before, if the account is still as it was then.
    async fn recall(&self, owner: &Owner) -> Option<Bytes> {
        let given = self.answers.get(&owner.account)?;
        if given.owner != owner.username || !given.known.is_of(owner.books) {
            return None;
        }
        let now = self.versions.read(owner.account).await?;
        (now == (given.known, given.version)).then(|| {
            self.recalled.increment(1);
            given.body
        })
    }

    /// Remembers the answer that `info` makes, which was read after `known` was.
    fn remember(&self, owner: Owner, known: Known, info: &Info) -> Bytes {
        self.read.increment(1);
        let body = serde_json::to_vec(&InfoResponse::from(info)).expect("plain data is JSON");
        let body = Bytes::from(body);
        let (version, owner, account) = (info.version, owner.username, owner.account);
        self.answers.insert(account, Given { owner, known, version, body: body.clone() });
        body
    }
}

impl Weighter<AccountId, Given> for Size {
    fn weight(&self, _: &AccountId, given: &Given) -> u64 {
        (given.body.len() + OVERHEAD) as u64
    }
}

/// Coins, inventory and the newest transfers, as they were at one moment.
#[utoipa::path(
    get, path = "/api/info", tag = "shop", operation_id = "getInfo",
    responses((status = OK, description = "The account.", body = InfoResponse), Guarded),
)]
pub async fn info(
    State(shop): State<Arc<Shop>>,
    Authenticated(owner): Authenticated,
) -> Result<impl IntoResponse, ApiError> {
    let body = match shop.infos.recall(&owner).await {
        Some(body) => body,
        None => {
            let known = shop.database.known();
            let info = shop.database.info_fetch(&owner, shop.history_limit.into()).await?;
            shop.infos.remember(
                owner,
                known,
                &info.ok_or(ApiError::Unauthorized(Unauthorized::Invalid))?,
            )
        }
    };
    Ok(([(header::CONTENT_TYPE, "application/json")], body))
}

impl<'info> From<&'info Info> for InfoResponse<'info> {
    fn from(info: &'info Info) -> InfoResponse<'info> {
        let inventory = info.inventory.iter();
        let received = info.received.iter();
        let sent = info.sent.iter();
        InfoResponse {
            coins: info.coins,
            inventory: inventory
                .map(|(kind, quantity)| InventoryItem { kind, quantity: *quantity })
                .collect(),
            coin_history: CoinHistory {
                received: received
                    .map(|(from, amount)| ReceivedCoins {
                        from_user: from.as_str(),
                        amount: *amount,
                    })
                    .collect(),
                sent: sent
                    .map(|(to, amount)| SentCoins { to_user: to.as_str(), amount: *amount })
                    .collect(),
            },
        }
    }
}
