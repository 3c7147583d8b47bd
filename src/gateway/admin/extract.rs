//! What handlers take out of a request.

use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::web::json;

use super::error::AdminError;

/// The request's body, whole and within the limit.
pub struct Body(pub Bytes);

/// A JSON body, whatever the Content-Type says.
pub struct JsonBody<T>(pub T);

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = AdminError;

    async fn from_request(request: Request, state: &S) -> Result<Self, AdminError> {
        Bytes::from_request(request, state).await.map(Body).map_err(|rejection| {
            match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => AdminError::BodyTooLarge,
                _ => AdminError::BadRequest("the body broke off".into()),
            }
        })
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = AdminError;

    async fn from_request(request: Request, state: &S) -> Result<Self, AdminError> {
        let Body(bytes) = Body::from_request(request, state).await?;
        json(&bytes).map(JsonBody)
    }
}

/// The object that `bytes` spell.
pub fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, AdminError> {
    let wrong = |why| AdminError::BadRequest(format!("the body is not as expected: {why}"));
    json::object(bytes).map_err(wrong)
}
