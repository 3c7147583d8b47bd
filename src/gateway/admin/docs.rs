//! `/openapi.json` and `/docs`: the admin API as a document and as a page to use it on, with
//! everything the page needs in the binary. Both are for everybody: they hold no secret, and
//! a browser cannot show a token before it has the page to type it in.

use axum::Router;
use axum::http::StatusCode;
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder};

use crate::web::docs;

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
                .description(Some(description)),
        )
        .components(Some(
            ComponentsBuilder::new()
                .security_scheme("AdminToken", SecurityScheme::Http(bearer))
                .build(),
        ))
        .security(Some([SecurityRequirement::new("AdminToken", Vec::<String>::new())]))
        .build()
}

/// Serves `openapi` and the page around it.
pub fn router<S: Clone + Send + Sync + 'static>(openapi: OpenApi) -> Router<S> {
    docs::router("/openapi.json", openapi).layer(map_response(with_our_errors))
}

/// Gives what the page does not have the errors that every other path has.
async fn with_our_errors(response: Response) -> Response {
    match response.status() {
        StatusCode::NOT_FOUND => AdminError::NotFound.into_response(),
        StatusCode::NOT_ACCEPTABLE => AdminError::NotAcceptable.into_response(),
        _ => response,
    }
}
