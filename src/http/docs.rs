//! `/api/openapi.json` and `/docs`: the contract as a document and as a page to try it on,
//! with everything the page needs in the binary.

use axum::Router;
use axum::http::StatusCode;
use utoipa::IntoResponses;
use utoipa::openapi::link::LinkBuilder;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder, RefOr, ResponseBuilder, Server,
};

use crate::shop::ledger::Refusal;
use crate::web::docs;
use crate::web::document::{self, AnswerHeader, ErrorAnswer, Responses};

use super::error::ApiError;
use super::unauthorized::Unauthorized;

/// Headers of the shop's answers, beside those that errors of a status always have.
const HEADERS: [AnswerHeader; 3] = [
    AnswerHeader {
        name: "X-Request-Id",
        description: "The request's own, if it is short and plain, or a new one; it is in the log.",
        example: "5f0c7b6a9e3d4c21b8a7d6e5f4c3b2a1",
        statuses: &[],
    },
    AnswerHeader {
        name: "RateLimit-Policy",
        description: "Where clients are held to a limit: its capacity, and in how many seconds it \
                      flows back.",
        example: r#""default";q=200;w=2"#,
        statuses: &[],
    },
    AnswerHeader {
        name: "RateLimit",
        description: "Where clients are held to a limit: how many requests are left, and in how \
                      many seconds all of them are back.",
        example: r#""default";r=199;t=1"#,
        statuses: &[],
    },
];

/// The header that answers to orders alone may have.
const REPLAYED: AnswerHeader = AnswerHeader {
    name: "Idempotency-Replayed",
    description: "`true`: an earlier request with this key was answered so, and nothing moved.",
    example: "true",
    statuses: &["200", "400"],
};

/// The header that an order which was done has.
const LOCATION: AnswerHeader = AnswerHeader {
    name: "Location",
    description: "Where to look at the movement; a key that a release without numbers remembered \
                  has none.",
    example: "/api/history/7",
    statuses: &["200"],
};

/// What a gateway in front may say in the shop's place.
const OF_A_GATEWAY: [(StatusCode, &str, &str); 6] = [
    (
        StatusCode::BAD_REQUEST,
        "https_required",
        "HTTPS is spoken here, and this came in plain HTTP",
    ),
    (
        StatusCode::BAD_GATEWAY,
        "backend_unreachable",
        "no server could be reached; try again shortly",
    ),
    (
        StatusCode::BAD_GATEWAY,
        "answer_lost",
        "the server's answer was lost and it is not known whether this was done; look before you \
         try again, or always send an Idempotency-Key",
    ),
    (StatusCode::SERVICE_UNAVAILABLE, "no_backend", "no server is available; try again shortly"),
    (
        StatusCode::GATEWAY_TIMEOUT,
        "answer_late",
        "this took too long and may still be done; look before you try again, or always send an \
         Idempotency-Key",
    ),
    (
        StatusCode::LOOP_DETECTED,
        "loop_detected",
        "this request goes round in circles: a gateway is its own backend",
    ),
];

/// The document without its operations, which the handlers add.
pub fn document() -> OpenApi {
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some("The token that POST /api/auth gives."))
        .build();
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("merch-store")
                .version(env!("CARGO_PKG_VERSION"))
                .license(Some(document::license()))
                .description(Some(
                    "A company's internal merch shop. Everybody starts with 1000 coins, gives \
                     coins to colleagues and buys merch with them.",
                )),
        )
        .servers(Some([Server::new("/"), Server::new("http://localhost:8080")]))
        .components(Some(
            ComponentsBuilder::new()
                .security_scheme("BearerAuth", SecurityScheme::Http(bearer))
                .build(),
        ))
        .security(Some([SecurityRequirement::new("BearerAuth", Vec::<String>::new())]))
        .build()
}

/// Adds what no handler knows: what any operation may end in, here or in a gateway in front.
pub fn complete(document: &mut OpenApi) {
    let errors = [
        ApiError::NotFound,
        ApiError::MethodNotAllowed,
        ApiError::BodyTooLarge,
        ApiError::BodyTimeout,
        ApiError::RateLimited,
        ApiError::Internal,
        ApiError::HashingQueueFull,
        ApiError::QueueFull,
        ApiError::DatabaseAway,
        ApiError::DatabaseSlow,
        ApiError::Contention,
        ApiError::OutcomeUnknown,
        ApiError::Timeout,
    ];
    let of_a_gateway =
        OF_A_GATEWAY.map(|(status, code, errors)| ErrorAnswer::new(status, code, errors));
    let errors = errors.iter().map(ApiError::answer).chain(of_a_gateway);
    document::complete(document, &HEADERS, errors.collect());
    document::describe_header(document, &REPLAYED);
    document::describe_header(document, &LOCATION);
}

/// What an operation may end in that needs a token and no more.
pub struct Guarded;

impl IntoResponses for Guarded {
    fn responses() -> Responses {
        refusals([
            malformed(),
            ApiError::Unauthorized(Unauthorized::NoToken),
            ApiError::Refused(Refusal::UnknownAccount),
        ])
    }
}

/// What any request may be refused for.
pub fn malformed() -> ApiError {
    ApiError::BadRequest("the request is not well-formed HTTP/1.1".into())
}

/// What an operation may end in, beside what any may.
pub fn refusals<const N: usize>(errors: [ApiError; N]) -> Responses {
    document::responses(errors.iter().chain([&ApiError::Internal]).map(ApiError::answer))
}

/// What an order may end in: being `done`, or an error; either may have been answered before.
pub fn outcomes<const N: usize>(done: &str, errors: [ApiError; N]) -> Responses {
    let link = |operation, why| {
        RefOr::T(LinkBuilder::new().operation_id(operation).description(why).build())
    };
    let done = ResponseBuilder::new()
        .description(done)
        .link("info", link("getInfo", "The coins that are left."))
        .link("history", link("getHistory", "The newest movement is this one."));
    let mut outcomes = refusals(errors);
    outcomes.insert("200".into(), done.build().into());
    for (status, outcome) in &mut outcomes {
        document::add_headers(status, outcome, &[REPLAYED, LOCATION]);
    }
    outcomes
}

/// Serves `openapi` and the page around it.
pub fn router<S: Clone + Send + Sync + 'static>(openapi: OpenApi) -> Router<S> {
    docs::router::<S, ApiError>("/api/openapi.json", openapi)
}
