//! What the gateway says itself: the one place where a refusal gets a status and words.

use hyper::StatusCode;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};

use crate::web::Unfit;

/// What a gateway passes on, as far as it knows by name.
pub const METHODS: HeaderValue =
    HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");

/// Why a request got no answer from a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Two servers could read it differently; the text says in what.
    Ambiguous(&'static str),
    /// Its head is not taken for one.
    Unfit(Unfit),
    /// Its target alone is longer than `gateway.header_limit`.
    TargetTooLong,
    /// Its head is longer than `gateway.header_limit`.
    HeadTooLarge,
    /// It came in plain HTTP where HTTPS is spoken.
    NotHttps,
    /// CONNECT and TRACE are not passed on.
    MethodNotAllowed,
    /// Clients cannot reach this path.
    NotFound,
    /// It has been here too often: some gateway is its own backend.
    Loop,
    /// The client asks for too much; the limit's headers say when to come back.
    RateLimited,
    /// The body is longer than `gateway.body_limit`.
    BodyTooLarge,
    /// The body broke off or was not well-formed.
    BodyBroken,
    /// The client stopped sending its body.
    BodyTimeout,
    /// There is no backend, or none that may be asked.
    NoBackend,
    /// No backend could be reached; nothing was done.
    Unreachable,
    /// A backend may have done it, but its answer was lost.
    AnswerLost,
    /// A backend did not answer in time, and may still be doing it.
    AnswerLate,
    /// Said by readiness alone, from the moment that the end is asked for.
    ShuttingDown,
}

impl Refusal {
    /// Its status.
    pub fn status(self) -> StatusCode {
        match self {
            Refusal::Ambiguous(_) | Refusal::Unfit(_) | Refusal::NotHttps | Refusal::BodyBroken => {
                StatusCode::BAD_REQUEST
            }
            Refusal::TargetTooLong => StatusCode::URI_TOO_LONG,
            Refusal::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Refusal::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::NotFound => StatusCode::NOT_FOUND,
            Refusal::Loop => StatusCode::LOOP_DETECTED,
            Refusal::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Refusal::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Refusal::NoBackend | Refusal::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
            Refusal::Unreachable | Refusal::AnswerLost => StatusCode::BAD_GATEWAY,
            Refusal::AnswerLate => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    fn code(self) -> &'static str {
        match self {
            Refusal::Ambiguous(_) | Refusal::Unfit(_) | Refusal::BodyBroken => "invalid_request",
            Refusal::TargetTooLong => "uri_too_long",
            Refusal::HeadTooLarge => "head_too_large",
            Refusal::NotHttps => "https_required",
            Refusal::MethodNotAllowed => "method_not_allowed",
            Refusal::NotFound => "not_found",
            Refusal::Loop => "loop_detected",
            Refusal::RateLimited => "rate_limited",
            Refusal::BodyTooLarge => "body_too_large",
            Refusal::BodyTimeout => "body_timeout",
            Refusal::NoBackend => "no_backend",
            Refusal::Unreachable => "backend_unreachable",
            Refusal::AnswerLost => "answer_lost",
            Refusal::AnswerLate => "answer_late",
            Refusal::ShuttingDown => "shutting_down",
        }
    }

    fn message(self) -> &'static str {
        match self {
            Refusal::Ambiguous("transfer-encoding") => "an ambiguous Transfer-Encoding",
            Refusal::Ambiguous("content-length") => "an ambiguous Content-Length",
            Refusal::Ambiguous("max-forwards") => "Max-Forwards is not one whole number",
            Refusal::Ambiguous(_) => "the request is not well-formed HTTP/1.1",
            Refusal::Unfit(why) => why.message(),
            Refusal::TargetTooLong => "the request's target is too long",
            Refusal::HeadTooLarge => "the request's headers are too many or too long",
            Refusal::NotHttps => "HTTPS is spoken here, and this came in plain HTTP",
            Refusal::MethodNotAllowed => "this method is not passed on",
            Refusal::NotFound => "no such path",
            Refusal::Loop => "this request goes round in circles: a gateway is its own backend",
            Refusal::RateLimited => "too many requests; Retry-After says when to try again",
            Refusal::BodyTooLarge => "the body is too large",
            Refusal::BodyBroken => "the body broke off or is not well-formed",
            Refusal::BodyTimeout => "the body did not arrive in time",
            Refusal::NoBackend => "no server is available; try again shortly",
            Refusal::Unreachable => "no server could be reached; try again shortly",
            Refusal::AnswerLost => {
                "the server's answer was lost and it is not known whether this was done; look \
                 before you try again, or always send an Idempotency-Key"
            }
            Refusal::AnswerLate => {
                "this took too long and may still be done; look before you try again, or always \
                 send an Idempotency-Key"
            }
            Refusal::ShuttingDown => "this gateway is about to stop",
        }
    }

    /// The body, in the shape of all errors of the shop.
    pub fn body(self) -> String {
        let (errors, code) = (self.message(), self.code());
        serde_json::json!({ "errors": errors, "code": code }).to_string()
    }

    /// The headers beside those that any answer has.
    pub fn write_headers(self, headers: &mut HeaderMap) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let status = self.status();
        if status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, METHODS);
        }
        if [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE].contains(&status) {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
    }

    /// Whether what follows on an HTTP/1.1 connection could not be read any more.
    pub fn ends_connection(self) -> bool {
        matches!(
            self,
            Refusal::Ambiguous(_)
                | Refusal::Unfit(_)
                | Refusal::NotHttps
                | Refusal::BodyTooLarge
                | Refusal::BodyBroken
                | Refusal::BodyTimeout
        )
    }
}
