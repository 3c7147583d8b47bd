//! The one place where an error gets a status and words for the client.

use std::any::Any;

use axum::Json;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use crate::auth::password::{HashingQueueFull, InvalidPassword};
use crate::auth::token::InvalidToken;
use crate::engine::EngineError;
use crate::shop::ledger::Refusal;
use crate::shop::{InvalidIdempotencyKey, InvalidUsername};
use crate::storage::StorageError;
use crate::telemetry::is_news;
use crate::web::docs::NotServed;
use crate::web::document::ErrorAnswer;

use super::unauthorized::Unauthorized;

/// What a client is told instead of what it asked for.
#[derive(Clone, Debug)]
pub enum ApiError {
    /// The request is not well-formed; the text says how.
    BadRequest(String),
    /// A guarded route was asked for without a valid token.
    Unauthorized(Unauthorized),
    /// Somebody has this username, and another password.
    WrongPassword,
    /// The ledger, or the parsing before it, said no; nothing changed.
    Refused(Refusal),
    /// No route has this path.
    NotFound,
    /// The user has no part in a movement of this number, or there is none.
    NoMovement,
    /// The path has a route, but not for this method.
    MethodNotAllowed,
    /// The client takes the answer in no coding that there is.
    NotAcceptable,
    /// The body is longer than `http.body_limit`.
    BodyTooLarge,
    /// The client stopped sending its body; nothing was done about it.
    BodyTimeout,
    /// As many logins hash or wait as may; try again.
    HashingQueueFull,
    /// As many commands wait for the writer as may; try again.
    QueueFull,
    /// The client's bucket is empty; `Retry-After` says when to try again.
    RateLimited,
    /// There is no database to ask, or it gave no answer in time; nothing changed.
    DatabaseAway,
    /// The batch lost against other transactions for too long; nothing changed.
    DatabaseSlow,
    Contention,
    /// It may or may not have been done.
    OutcomeUnknown,
    /// `http.request_timeout_ms` ran out; a change may still be made.
    Timeout,
    /// Said by readiness alone, from the moment that the end is asked for.
    ShuttingDown,
    /// A defect, or a database that is not as we left it; the log says more.
    Internal,
}

impl ApiError {
    fn status(&self) -> StatusCode {
        match self {
            ApiError::BadRequest(_) => StatusCode::BAD_REQUEST,
            ApiError::Unauthorized(_) | ApiError::WrongPassword => StatusCode::UNAUTHORIZED,
            ApiError::Refused(Refusal::UnknownAccount) => StatusCode::UNAUTHORIZED,
            ApiError::Refused(Refusal::KeyReused) => StatusCode::UNPROCESSABLE_ENTITY,
            ApiError::Refused(_) => StatusCode::BAD_REQUEST,
            ApiError::NotFound | ApiError::NoMovement => StatusCode::NOT_FOUND,
            ApiError::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            ApiError::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            ApiError::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ApiError::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            ApiError::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            ApiError::HashingQueueFull
            | ApiError::QueueFull
            | ApiError::DatabaseAway
            | ApiError::DatabaseSlow
            | ApiError::Contention
            | ApiError::OutcomeUnknown
            | ApiError::Timeout
            | ApiError::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            ApiError::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What a 401 asks for.
    fn challenge(&self) -> HeaderValue {
        match self {
            ApiError::Unauthorized(why) => why.challenge(),
            ApiError::Refused(_) => Unauthorized::Invalid.challenge(),
            _ => Unauthorized::NoToken.challenge(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            ApiError::BadRequest(_) => "invalid_request",
            ApiError::Unauthorized(_) => "unauthorized",
            ApiError::WrongPassword => "wrong_password",
            ApiError::Refused(refusal) => refusal.code(),
            ApiError::NotFound | ApiError::NoMovement => "not_found",
            ApiError::MethodNotAllowed => "method_not_allowed",
            ApiError::NotAcceptable => "not_acceptable",
            ApiError::BodyTooLarge => "body_too_large",
            ApiError::BodyTimeout => "body_timeout",
            ApiError::HashingQueueFull => "hashing_queue_full",
            ApiError::QueueFull => "queue_full",
            ApiError::RateLimited => "rate_limited",
            ApiError::DatabaseAway => "database_away",
            ApiError::DatabaseSlow => "database_slow",
            ApiError::Contention => "contention",
            ApiError::OutcomeUnknown => "outcome_unknown",
            ApiError::Timeout => "timeout",
            ApiError::ShuttingDown => "shutting_down",
            ApiError::Internal => "internal",
        }
    }

    fn message(&self) -> String {
        match self {
            ApiError::BadRequest(message) => message.clone(),
            ApiError::Unauthorized(why) => why.message().into(),
            ApiError::WrongPassword => "wrong password".into(),
            ApiError::Refused(refusal) => refusal.to_string(),
            ApiError::NotFound => "no such path; GET /docs shows the API".into(),
            ApiError::NoMovement => "no such movement of yours".into(),
            ApiError::MethodNotAllowed => "this path does not know this method".into(),
            ApiError::NotAcceptable => {
                "Accept-Encoding takes neither gzip nor what is not compressed".into()
            }
            ApiError::BodyTooLarge => "the body is too large".into(),
            ApiError::BodyTimeout => "the body did not arrive in time".into(),
            ApiError::HashingQueueFull => "too many logins at once; try again shortly".into(),
            ApiError::QueueFull => "the shop is full; try again shortly".into(),
            ApiError::RateLimited => "too many requests; Retry-After says when to try again".into(),
            ApiError::DatabaseAway => "the shop's books are out of reach; try again shortly".into(),
            ApiError::DatabaseSlow => "the shop's books are slow; try again shortly".into(),
            ApiError::Contention => "too many changes at once; try again shortly".into(),
            ApiError::OutcomeUnknown => {
                "it is not known whether this was done; look before you try again, or always send \
                 an Idempotency-Key"
                    .into()
            }
            ApiError::Timeout => {
                "this took too long and may still be done; look before you try again, or always \
                 send an Idempotency-Key"
                    .into()
            }
            ApiError::ShuttingDown => "this server is about to stop".into(),
            ApiError::Internal => "something is broken here; it was logged".into(),
        }
    }

    /// As it is answered.
    pub fn answer(&self) -> ErrorAnswer {
        ErrorAnswer::new(self.status(), self.code(), self.message())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let ErrorAnswer { status, body } = self.answer();
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        match status {
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, self.challenge());
            }
            _ => {}
        }
        response
    }
}

/// Answers requests for paths that do not exist.
pub async fn not_found(_: Uri) -> ApiError {
    ApiError::NotFound
}

/// Answers requests with a method that the path does not know; axum adds `Allow`.
pub async fn method_not_allowed(_: Method) -> ApiError {
    ApiError::MethodNotAllowed
}

/// Answers a request whose handler panicked.
pub fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let message = panic
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    if is_news("a handler panicked", &message) {
        tracing::error!(message, "a handler panicked");
    }
    ApiError::Internal.into_response()
}

impl From<NotServed> for ApiError {
    fn from(why: NotServed) -> ApiError {
        match why {
            NotServed::Unknown => ApiError::NotFound,
            NotServed::NotAcceptable => ApiError::NotAcceptable,
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> ApiError {
        ApiError::Refused(refusal)
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> ApiError {
        match error {
            EngineError::QueueFull => ApiError::QueueFull,
            EngineError::Unavailable => ApiError::DatabaseAway,
            EngineError::TooSlow => ApiError::DatabaseSlow,
            EngineError::Contention => ApiError::Contention,
            EngineError::OutcomeUnknown => ApiError::OutcomeUnknown,
            EngineError::Failed => ApiError::Internal,
        }
    }
}

impl From<StorageError> for ApiError {
    fn from(error: StorageError) -> ApiError {
        match error {
            StorageError::Unavailable(why) | StorageError::Unusable(why) => {
                if is_news("a read found no database", &why) {
                    tracing::warn!(why, "a read found no database");
                }
                ApiError::DatabaseAway
            }
            StorageError::TooSlow(why) => {
                if is_news("a read took too long", &why) {
                    tracing::warn!(why, "a read took too long");
                }
                ApiError::DatabaseSlow
            }
            StorageError::Conflict { sqlstate } => {
                if is_news("a read lost against a transaction", &sqlstate) {
                    tracing::warn!(sqlstate, "a read lost against a transaction");
                }
                ApiError::Contention
            }
            error => {
                if is_news("a read failed", &error.to_string()) {
                    tracing::error!(%error, "a read failed");
                }
                ApiError::Internal
            }
        }
    }
}

impl From<HashingQueueFull> for ApiError {
    fn from(_: HashingQueueFull) -> ApiError {
        ApiError::HashingQueueFull
    }
}

impl From<InvalidToken> for ApiError {
    fn from(error: InvalidToken) -> ApiError {
        ApiError::Unauthorized(error.into())
    }
}

impl From<InvalidUsername> for ApiError {
    fn from(error: InvalidUsername) -> ApiError {
        ApiError::BadRequest(error.to_string())
    }
}

impl From<InvalidPassword> for ApiError {
    fn from(error: InvalidPassword) -> ApiError {
        ApiError::BadRequest(error.to_string())
    }
}

impl From<InvalidIdempotencyKey> for ApiError {
    fn from(error: InvalidIdempotencyKey) -> ApiError {
        ApiError::BadRequest(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    #[tokio::test]
    async fn a_panic_becomes_a_500_that_keeps_its_words_to_itself() {
        for panic in [
            Box::new("the secret is hunter2") as Box<dyn Any + Send>,
            Box::new("the secret is hunter2".to_owned()),
            Box::new(7),
        ] {
            let response = panicked(panic);
            assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
            let body = to_bytes(response.into_body(), 1024).await.unwrap();
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["code"], "internal");
            assert!(!body.to_string().contains("hunter2"), "{body}");
        }
    }
}
