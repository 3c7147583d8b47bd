//! The one place where an error of the admin API gets a status and words.

use std::any::Any;
use std::time::Duration;

use axum::Json;
use axum::body::HttpBody;
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;

use crate::accept::Activity;
use crate::config::InvalidConfig;
use crate::gateway::upstream::{AddError, UnknownBackend};
use crate::limits::{InvalidLimit, OwnLimitsError};
use crate::web;
use crate::web::docs::NotServed;
use crate::web::document::ErrorAnswer;

use super::auth::Unauthorized;

/// The largest body, in bytes: several times the longest URL.
pub const BODY_LIMIT: usize = 16_384;

/// The longest that a request may take, its body included; a lookup is the slowest part.
const LONGEST_REQUEST: Duration = Duration::from_secs(10);

/// What an operator is told instead of what was asked for.
#[derive(Debug)]
pub enum AdminError {
    /// The request is not well-formed; the text says how.
    BadRequest(String),
    /// The request does not show the token.
    Unauthorized(Unauthorized),
    /// No route has this path.
    NotFound,
    /// The path has a route, but not for this method.
    MethodNotAllowed,
    /// The client takes the answer in no coding that there is.
    NotAcceptable,
    /// The body is longer than any that makes sense.
    BodyTooLarge,
    /// The client stopped sending its body; nothing was done about it.
    BodyTimeout,
    /// The backend cannot be added.
    Add(AddError),
    /// No backend has this name.
    UnknownBackend,
    /// The client has no limit of its own.
    UnknownLimit,
    /// The client has a limit of its own already.
    LimitExists,
    /// The change of a limit cannot be made, or not now.
    Limits(OwnLimitsError),
    /// The settings are as they were; the ones that were read cannot be.
    InvalidConfig(InvalidConfig),
    /// A reload is under way.
    Busy,
    /// This gateway does not read its settings again.
    NoReload,
    /// It took too long.
    Timeout,
    /// A defect; the log says more.
    Internal,
}

impl AdminError {
    fn status(&self) -> StatusCode {
        match self {
            AdminError::BadRequest(_)
            | AdminError::InvalidConfig(_)
            | AdminError::Add(AddError::Unresolved | AddError::Itself(_)) => {
                StatusCode::BAD_REQUEST
            }
            AdminError::Add(AddError::Exists | AddError::Full)
            | AdminError::LimitExists
            | AdminError::Limits(OwnLimitsError::Full) => StatusCode::CONFLICT,
            AdminError::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            AdminError::NotFound | AdminError::UnknownBackend | AdminError::UnknownLimit => {
                StatusCode::NOT_FOUND
            }
            AdminError::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            AdminError::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            AdminError::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            AdminError::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            AdminError::Busy
            | AdminError::Timeout
            | AdminError::Limits(OwnLimitsError::Store(_) | OwnLimitsError::InDoubt(_)) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            AdminError::NoReload => StatusCode::NOT_IMPLEMENTED,
            AdminError::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            AdminError::BadRequest(_) => "invalid_request",
            AdminError::InvalidConfig(_) => "invalid_config",
            AdminError::Add(AddError::Unresolved) => "backend_unresolved",
            AdminError::Add(AddError::Itself(_)) => "backend_is_gateway",
            AdminError::Add(AddError::Exists) => "backend_exists",
            AdminError::Add(AddError::Full) => "too_many_backends",
            AdminError::Unauthorized(_) => "unauthorized",
            AdminError::NotFound => "not_found",
            AdminError::UnknownBackend => "backend_not_found",
            AdminError::UnknownLimit => "limit_not_found",
            AdminError::LimitExists => "limit_exists",
            AdminError::Limits(OwnLimitsError::Full) => "too_many_limits",
            AdminError::Limits(OwnLimitsError::Store(_) | OwnLimitsError::InDoubt(_)) => {
                "limits_away"
            }
            AdminError::MethodNotAllowed => "method_not_allowed",
            AdminError::NotAcceptable => "not_acceptable",
            AdminError::BodyTooLarge => "body_too_large",
            AdminError::BodyTimeout => "body_timeout",
            AdminError::Busy => "busy",
            AdminError::NoReload => "no_reload",
            AdminError::Timeout => "timeout",
            AdminError::Internal => "internal",
        }
    }

    fn message(&self) -> String {
        match self {
            AdminError::BadRequest(why) => why.clone(),
            AdminError::InvalidConfig(why) => why.to_string(),
            AdminError::Add(why) => why.to_string(),
            AdminError::Unauthorized(why) => why.message().into(),
            AdminError::NotFound => "no such path; GET /docs shows the API".into(),
            AdminError::UnknownBackend => "no backend has this name".into(),
            AdminError::UnknownLimit => "the client has no limit of its own".into(),
            AdminError::LimitExists => "the client has a limit of its own already".into(),
            AdminError::Limits(full @ OwnLimitsError::Full) => full.to_string(),
            AdminError::Limits(OwnLimitsError::Store(_)) => {
                "the limits are out of reach; those that are known stay in force".into()
            }
            AdminError::Limits(OwnLimitsError::InDoubt(_)) => {
                "the limits are out of reach, and it is not known whether the change was made; \
                 look before you try again"
                    .into()
            }
            AdminError::MethodNotAllowed => "this path does not know this method".into(),
            AdminError::NotAcceptable => {
                "Accept-Encoding takes neither gzip nor what is not compressed".into()
            }
            AdminError::BodyTooLarge => "the body is too large".into(),
            AdminError::BodyTimeout => "the body did not arrive in time".into(),
            AdminError::NoReload => {
                "this gateway does not read its settings again; restart it to change them".into()
            }
            AdminError::Busy => "the settings cannot be read now; try again shortly".into(),
            AdminError::Timeout => "this took too long; look before you try again".into(),
            AdminError::Internal => "something is broken here; it was logged".into(),
        }
    }

    /// As it is answered.
    pub fn answer(&self) -> ErrorAnswer {
        ErrorAnswer::new(self.status(), self.code(), self.message())
    }
}

impl IntoResponse for AdminError {
    fn into_response(self) -> Response {
        if let AdminError::Limits(error @ (OwnLimitsError::Store(_) | OwnLimitsError::InDoubt(_))) =
            &self
        {
            tracing::warn!(%error, "an operator could not be answered");
        }
        let ErrorAnswer { status, body } = self.answer();
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        if let AdminError::Unauthorized(why) = self {
            headers.insert(header::WWW_AUTHENTICATE, why.challenge());
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// Answers requests for paths that do not exist.
pub async fn not_found(_: Uri) -> AdminError {
    AdminError::NotFound
}

/// Answers requests with a method that the path does not know; axum adds `Allow`.
pub async fn method_not_allowed(_: Method) -> AdminError {
    AdminError::MethodNotAllowed
}

/// Refuses a request whose head is not taken for one.
pub async fn fit(request: Request, next: Next) -> Result<Response, AdminError> {
    web::admit(request.method(), request.uri(), request.version(), request.headers())
        .map_err(|why| AdminError::BadRequest(why.message().into()))?;
    Ok(next.run(request).await)
}

/// Answers a request whose body is too long, or that takes too long.
pub async fn within_limits(request: Request, next: Next) -> Result<Response, AdminError> {
    if request.body().size_hint().lower() > BODY_LIMIT as u64 {
        return Err(AdminError::BodyTooLarge);
    }
    let activity = request.extensions().get::<Activity>().cloned();
    let answered = timeout(LONGEST_REQUEST, next.run(request)).await;
    answered.map_err(|_elapsed| match activity.is_some_and(|it| it.awaits_body()) {
        true => AdminError::BodyTimeout,
        false => AdminError::Timeout,
    })
}

/// Answers a request whose handler panicked; the panic's own words are in the log already.
pub fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    tracing::error!("a handler of the admin API panicked");
    AdminError::Internal.into_response()
}

impl From<AddError> for AdminError {
    fn from(error: AddError) -> AdminError {
        AdminError::Add(error)
    }
}

impl From<NotServed> for AdminError {
    fn from(why: NotServed) -> AdminError {
        match why {
            NotServed::Unknown => AdminError::NotFound,
            NotServed::NotAcceptable => AdminError::NotAcceptable,
        }
    }
}

impl From<UnknownBackend> for AdminError {
    fn from(_: UnknownBackend) -> AdminError {
        AdminError::UnknownBackend
    }
}

impl From<InvalidConfig> for AdminError {
    fn from(error: InvalidConfig) -> AdminError {
        AdminError::InvalidConfig(error)
    }
}

impl From<OwnLimitsError> for AdminError {
    fn from(error: OwnLimitsError) -> AdminError {
        AdminError::Limits(error)
    }
}

impl From<InvalidLimit> for AdminError {
    fn from(error: InvalidLimit) -> AdminError {
        AdminError::BadRequest(error.to_string())
    }
}
