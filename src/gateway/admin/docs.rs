//! `/openapi.json` and `/docs`: the admin API as a document and as a page to use it on, with
//! everything the page needs in the binary. Both are for everybody: they hold no secret, and
//! a browser cannot show a token before it has the page to type it in.

use axum::Router;
use utoipa::IntoResponses;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder, RefOr, Required, Server,
};

use crate::config::InvalidConfig;
use crate::gateway::upstream::{AddError, Itself};
use crate::limits::{OwnLimitsError, StoreError};
use crate::web::docs;
use crate::web::document::{self, Responses};

use super::auth::Unauthorized;
use super::error::AdminError;

/// The document without its operations, which the handlers add.
pub fn document() -> OpenApi {
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("gateway.admin.token of the configuration."))
        .build();
    let description =
        "Backends, limits of clients and operation of a merch-store gateway, while it runs.";
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("merch-store gateway")
                .version(env!("CARGO_PKG_VERSION"))
                .license(Some(document::license()))
                .description(Some(description)),
        )
        .servers(Some([Server::new("/"), Server::new("http://localhost:8001")]))
        .components(Some(
            ComponentsBuilder::new()
                .security_scheme("AdminToken", SecurityScheme::Http(bearer))
                .build(),
        ))
        .security(Some([SecurityRequirement::new("AdminToken", Vec::<String>::new())]))
        .build()
}

/// Adds what no handler knows: what any operation may end in, and which bodies may be left out.
pub fn complete(document: &mut OpenApi) {
    let errors = [
        AdminError::BadRequest("the query is not well-formed".into()),
        AdminError::Unauthorized(Unauthorized::NoToken),
        AdminError::NotFound,
        AdminError::MethodNotAllowed,
        AdminError::BodyTooLarge,
        AdminError::BodyTimeout,
        AdminError::Internal,
        AdminError::Timeout,
    ];
    document::complete(document, &[], errors.iter().map(AdminError::answer).collect());
    for item in document.paths.paths.values_mut() {
        for operation in [&mut item.post, &mut item.delete].into_iter().flatten() {
            allow_no_body(operation);
        }
    }
}

/// What names a backend may stand in the query instead.
fn allow_no_body(operation: &mut Operation) {
    let named_in_query = ["drainBackend", "removeBackend"];
    if operation.operation_id.as_deref().is_some_and(|id| named_in_query.contains(&id))
        && let Some(RefOr::T(body)) = &mut operation.request_body
    {
        body.required = Some(Required::False);
    }
}

fn refusals<const N: usize>(errors: [AdminError; N]) -> Responses {
    document::responses(errors.iter().map(AdminError::answer))
}

/// Why a backend is not added.
pub struct NotAdded;

impl IntoResponses for NotAdded {
    fn responses() -> Responses {
        refusals([
            AdminError::BadRequest("weight must be from 1 to 100".into()),
            AdminError::Add(AddError::Unresolved),
            AdminError::Add(AddError::Itself(Itself("localhost:8000".into()))),
            AdminError::Add(AddError::Exists),
            AdminError::Add(AddError::Full),
        ])
    }
}

/// Why a backend is not found.
pub struct NoBackend;

impl IntoResponses for NoBackend {
    fn responses() -> Responses {
        refusals([AdminError::UnknownBackend])
    }
}

/// Why a client's limit cannot be had or made.
pub struct LimitsAway;

impl IntoResponses for LimitsAway {
    fn responses() -> Responses {
        let away = OwnLimitsError::Store(StoreError::Away(String::new()));
        refusals([AdminError::Limits(away), AdminError::Timeout])
    }
}

/// Why a client gets no limit of its own.
pub struct NotCreated;

impl IntoResponses for NotCreated {
    fn responses() -> Responses {
        refusals([AdminError::LimitExists, AdminError::Limits(OwnLimitsError::Full)])
    }
}

/// Why a limit is not found.
pub struct NoLimit;

impl IntoResponses for NoLimit {
    fn responses() -> Responses {
        refusals([AdminError::UnknownLimit])
    }
}

/// Why there are no more limits.
pub struct NoMoreLimits;

impl IntoResponses for NoMoreLimits {
    fn responses() -> Responses {
        refusals([AdminError::Limits(OwnLimitsError::Full)])
    }
}

/// Why the settings are not read again.
pub struct NotReloaded;

impl IntoResponses for NotReloaded {
    fn responses() -> Responses {
        let why = "a value is out of its bounds";
        refusals([
            AdminError::InvalidConfig(InvalidConfig::new("limits.capacity", why)),
            AdminError::NoReload,
            AdminError::Busy,
            AdminError::Timeout,
        ])
    }
}

/// Serves `openapi` and the page around it.
pub fn router<S: Clone + Send + Sync + 'static>(openapi: OpenApi) -> Router<S> {
    docs::router::<S, AdminError>("/openapi.json", openapi)
}
