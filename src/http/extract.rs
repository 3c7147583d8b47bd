//! What handlers take out of a request.

use std::sync::Arc;

use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use utoipa::IntoParams;

use crate::auth::token::InvalidToken;
use crate::shop::{Fingerprint, IdempotencyKey, Owner};
use crate::web::bearer::Credentials;
use crate::web::json;

use super::Shop;
use super::asker::Asker;
use super::error::ApiError;
use super::unauthorized::Unauthorized;

/// Whoever the request's bearer token speaks for. Whether the account is theirs, the statement
/// or the batch that it is wanted for finds out.
pub struct Authenticated(pub Owner);

impl FromRequestParts<Arc<Shop>> for Authenticated {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, shop: &Arc<Shop>) -> Result<Self, ApiError> {
        let owner = owner(parts, shop).await?;
        if let Some(asker) = parts.extensions.get::<Asker>() {
            asker.is(owner.account);
        }
        Ok(Authenticated(owner))
    }
}

async fn owner(parts: &Parts, shop: &Shop) -> Result<Owner, ApiError> {
    let token = match Credentials::of(&parts.headers) {
        Credentials::Nothing => return Err(ApiError::Unauthorized(Unauthorized::NoToken)),
        Credentials::Other => return Err(ApiError::Unauthorized(Unauthorized::NoBearer)),
        Credentials::Token(token) => {
            std::str::from_utf8(token).map_err(|_| InvalidToken::Invalid)?
        }
    };
    let claim = shop.tokens.verify(token)?;
    if let Some(owner) = shop.database.books().and_then(|books| claim.owner(&books)) {
        return Ok(owner);
    }
    // Another replica may have issued it, and know that the identity is another one now.
    let books = shop.database.books_fetch().await?;
    claim.owner(&books).ok_or(ApiError::Unauthorized(Unauthorized::Invalid))
}

/// The engine has room for one more order. Asked first: when there is more to do than can be
/// done, refusing has to be cheap.
pub struct Admitted;

impl FromRequestParts<Arc<Shop>> for Admitted {
    type Rejection = ApiError;

    async fn from_request_parts(_: &mut Parts, shop: &Arc<Shop>) -> Result<Self, ApiError> {
        shop.engine.admit()?;
        Ok(Admitted)
    }
}

/// The key's header as the document shows it.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[allow(dead_code, reason = "only the derived documentation is used")]
pub struct KeyHeader {
    /// 1 to 255 printable ASCII characters; requests with the same key are carried out once, for
    /// 7 days after the first.
    #[param(
        rename = "Idempotency-Key",
        nullable = false,
        min_length = 1,
        max_length = 255,
        pattern = "^[ -~]{1,255}$"
    )]
    key: Option<String>,
}

/// The request's `Idempotency-Key`, if it has one.
pub struct OptionalKey(pub Option<IdempotencyKey>);

impl OptionalKey {
    /// The key together with a digest of what the request asks for: `parts`, which must
    /// spell the same thing the same way.
    pub fn with_fingerprint(self, parts: &[&[u8]]) -> Option<(IdempotencyKey, Fingerprint)> {
        self.0.map(|key| {
            let mut digest = Sha256::new();
            for part in parts {
                // The length first: no two lists of parts run together into the same bytes.
                digest.update((part.len() as u64).to_be_bytes());
                digest.update(part);
            }
            (key, Fingerprint(digest.finalize().into()))
        })
    }
}

impl<S: Sync> FromRequestParts<S> for OptionalKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let mut values = parts.headers.get_all("idempotency-key").iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(OptionalKey(None)),
            (Some(value), None) => Ok(OptionalKey(Some(IdempotencyKey::parse(value.as_bytes())?))),
            _ => Err(ApiError::BadRequest("Idempotency-Key must be given once".into())),
        }
    }
}

/// The request's body, whole and within the limit.
pub struct Body(pub Bytes);

impl FromRequest<Arc<Shop>> for Body {
    type Rejection = ApiError;

    async fn from_request(mut request: Request, shop: &Arc<Shop>) -> Result<Self, ApiError> {
        DefaultBodyLimit::max(shop.body_limit).apply(&mut request);
        match Bytes::from_request(request, shop).await {
            Ok(bytes) => Ok(Body(bytes)),
            Err(rejection) if is_too_large(&rejection) => Err(ApiError::BodyTooLarge),
            Err(_) => Err(ApiError::BadRequest("the body broke off".into())),
        }
    }
}

fn is_too_large(rejection: &BytesRejection) -> bool {
    rejection.status() == StatusCode::PAYLOAD_TOO_LARGE
}

/// A JSON body, whatever the Content-Type says.
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<Shop>> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, shop: &Arc<Shop>) -> Result<Self, ApiError> {
        let Body(bytes) = Body::from_request(request, shop).await?;
        json::object(&bytes)
            .map(JsonBody)
            .map_err(|error| ApiError::BadRequest(format!("the body is not as expected: {error}")))
    }
}
