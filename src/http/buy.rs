//! `GET /api/buy/{item}`, and POST, as one would have it today.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use utoipa::IntoResponses;

use crate::engine::Party;
use crate::shop::ledger::{Action, Command, Order, Receipt, Refusal};
use crate::shop::{InvalidIdempotencyKey, ItemName, LogNumber};
use crate::web::document::Responses;

use super::Shop;
use super::docs;
use super::error::ApiError;
use super::extract::{Admitted, Authenticated, KeyHeader, OptionalKey};
use super::unauthorized::Unauthorized;

/// What a purchase comes to.
struct BuyOutcomes;

impl IntoResponses for BuyOutcomes {
    fn responses() -> Responses {
        docs::outcomes(
            "Bought.",
            [
                ApiError::from(InvalidIdempotencyKey),
                ApiError::Refused(Refusal::UnknownItem),
                ApiError::Refused(Refusal::InsufficientCoins),
                ApiError::Unauthorized(Unauthorized::NoToken),
                ApiError::Refused(Refusal::UnknownAccount),
                ApiError::Refused(Refusal::KeyReused),
            ],
        )
    }
}

/// Buy an item.
#[utoipa::path(
    get, path = "/api/buy/{item}", tag = "shop", operation_id = "buy",
    params(
        ("item" = String, Path, description = "What to buy.", example = "cup",
            pattern = "^[a-z0-9-]{1,64}$"),
        KeyHeader,
    ),
    responses(BuyOutcomes),
)]
pub async fn buy(
    State(shop): State<Arc<Shop>>,
    _: Admitted,
    Authenticated(by): Authenticated,
    key: OptionalKey,
    item: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    // A path that is not even text names no item.
    let text = item.map(|Path(item)| item).unwrap_or_default();
    let action =
        ItemName::parse(&text).map(|item| Action::Purchase { item }).ok_or(Refusal::UnknownItem);
    let key = key.with_fingerprint(&[b"buy", text.as_bytes()]);
    place(&shop, Order { by, action, key }).await
}

/// Buy an item: the same as GET.
#[utoipa::path(
    post, path = "/api/buy/{item}", tag = "shop", operation_id = "buyByPost",
    params(
        ("item" = String, Path, description = "What to buy.", example = "cup",
            pattern = "^[a-z0-9-]{1,64}$"),
        KeyHeader,
    ),
    responses(BuyOutcomes),
)]
pub async fn buy_by_post(
    shop: State<Arc<Shop>>,
    admitted: Admitted,
    identity: Authenticated,
    key: OptionalKey,
    item: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    buy(shop, admitted, identity, key, item).await
}

/// Answers every other method, HEAD included, which would be GET without its answer: looking
/// must not cost anything.
pub async fn wrong_method() -> impl IntoResponse {
    ([(header::ALLOW, "GET,POST")], ApiError::MethodNotAllowed)
}

/// Has `order` carried out and answers for it: an empty 200 with the movement's address or the
/// refusal, and whether it is the answer to an earlier request with the same key.
pub async fn place(shop: &Shop, order: Order) -> Result<Response, ApiError> {
    let answer = match &order {
        // Nothing to remember it by, so there is no need to trouble the writer.
        Order { action: Err(refusal), key: None, .. } => return Err((*refusal).into()),
        _ => shop.engine.submit(Party::Employee, Command::Order(order)).await?,
    };
    let mut response = match answer.result {
        Ok(receipt) => done(receipt),
        Err(refusal) => ApiError::from(refusal).into_response(),
    };
    if answer.replayed {
        response.headers_mut().insert(
            HeaderName::from_static("idempotency-replayed"),
            HeaderValue::from_static("true"),
        );
    }
    Ok(response)
}

/// An empty 200, and where to look at what was done.
fn done(receipt: Receipt) -> Response {
    let mut response = ().into_response();
    if let Receipt::Done(Some(LogNumber(number))) = receipt {
        let location = ["/api/history/", itoa::Buffer::new().format(number)].concat();
        let location = HeaderValue::try_from(location).expect("a path is a header value");
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}
