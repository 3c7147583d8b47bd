//! `POST /api/sendCoin`: giving coins to a colleague.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use utoipa::{IntoResponses, ToSchema};

use crate::shop::ledger::{Action, Order, Refusal};
use crate::shop::{Amount, InvalidIdempotencyKey, Username};
use crate::web::document::Responses;
use crate::web::json;

use super::Shop;
use super::buy::place;
use super::docs;
use super::error::ApiError;
use super::extract::{Admitted, Authenticated, Body, KeyHeader, OptionalKey};
use super::unauthorized::Unauthorized;

/// Whom to give coins, and how many.
#[derive(Deserialize, ToSchema)]
pub struct SendCoinRequest {
    /// The recipient's username.
    #[serde(rename = "toUser")]
    #[schema(example = "bob", min_length = 1, max_length = 255)]
    to_user: String,
    /// Coins, at least 1.
    #[schema(example = 10, minimum = 1)]
    amount: i64,
}

/// What a transfer comes to.
struct SendOutcomes;

impl IntoResponses for SendOutcomes {
    fn responses() -> Responses {
        docs::outcomes(
            "Sent.",
            [
                ApiError::from(InvalidIdempotencyKey),
                ApiError::Refused(Refusal::Malformed),
                ApiError::Refused(Refusal::AmountNotPositive),
                ApiError::Refused(Refusal::UnknownRecipient),
                ApiError::Refused(Refusal::SelfTransfer),
                ApiError::Refused(Refusal::InsufficientCoins),
                ApiError::Refused(Refusal::RecipientFull),
                ApiError::Unauthorized(Unauthorized::NoToken),
                ApiError::Refused(Refusal::UnknownAccount),
                ApiError::Refused(Refusal::KeyReused),
            ],
        )
    }
}

/// Send coins to another user.
#[utoipa::path(
    post, path = "/api/sendCoin", tag = "shop", operation_id = "sendCoin",
    request_body = SendCoinRequest,
    params(KeyHeader),
    responses(SendOutcomes),
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
    let request: SendCoinRequest = json::object(body).map_err(|_| Refusal::Malformed)?;
    let amount = Amount::new(request.amount).ok_or(Refusal::AmountNotPositive)?;
    // Nobody can be called what is not a username.
    let to = Username::typed(&request.to_user).map_err(|_| Refusal::UnknownRecipient)?;
    Ok(Action::Transfer { to, amount })
}
