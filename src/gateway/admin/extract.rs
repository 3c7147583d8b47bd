//! What handlers take out of a request.

use axum::extract::{FromRequest, Request};
use axum::http::StatusCode;
use bytes::Bytes;
use serde::de::DeserializeOwned;

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

/// The object that `bytes` spell. serde alone would also take the fields' values in an
/// array, which no contract mentions.
pub fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, AdminError> {
    let wrong = |why| AdminError::BadRequest(format!("the body is not as expected: {why}"));
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(wrong("not a JSON object".to_owned()));
    }
    serde_json::from_slice(bytes).map_err(|error| wrong(error.to_string()))
}
