//! `POST /api/sendCoin`: giving coins to a colleague.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::shop::ledger::{Action, Order, Refusal};
use crate::shop::{Amount, Username};

use super::Shop;
use super::buy::place;
use super::error::{ApiError, CommonErrors, KeyErrors};
use super::extract::{Admitted, Authenticated, Body, KeyHeader, OptionalKey, json_object};

/// Whom to give coins, and how many.
#[derive(Deserialize, ToSchema)]
pub struct SendCoinRequest {
    /// The recipient's username.
    #[serde(rename = "toUser")]
    #[schema(example = "bob")]
    to_user: String,
    /// Coins, at least 1.
    #[schema(example = 10, minimum = 1)]
    amount: i64,
}

/// Send coins to another user.
#[utoipa::path(
    post, path = "/api/sendCoin", tag = "shop", operation_id = "sendCoin",
    request_body = SendCoinRequest,
    params(KeyHeader),
    responses((status = OK, description = "Sent."), KeyErrors, CommonErrors),
)]
pub async fn send_coin(
    State(shop): State<Arc<Shop>>,
    _: Admitted,
    Authenticated(by): Authenticated,
    key: OptionalKey,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let action = parse(&body);
    let key = match &action {
        Ok(Action::Transfer { to, amount }) => key.with_fingerprint(&[
            b"sendCoin",
            to.as_str().as_bytes(),
            &amount.get().to_be_bytes(),
        ]),
        _ => key.with_fingerprint(&[b"sendCoin", &body]),
    };
    place(&shop, Order { by, action, key }).await
}

fn parse(body: &[u8]) -> Result<Action, Refusal> {
    let request: SendCoinRequest = json_object(body).map_err(|_| Refusal::Malformed)?;
    let amount = Amount::new(request.amount).ok_or(Refusal::AmountNotPositive)?;
    // Nobody can be called what is not a username.
    let to = Username::typed(&request.to_user).map_err(|_| Refusal::UnknownRecipient)?;
    Ok(Action::Transfer { to, amount })
}
