//! `/api/openapi.json` and `/docs`: the contract as a document and as a page to try it on,
//! with everything the page needs in the binary.

use axum::Router;
use axum::http::StatusCode;
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder};

use crate::web::docs;

use super::error::ApiError;

/// The document without its operations, which the handlers add.
pub fn document() -> OpenApi {
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some("The token that POST /api/auth gives."))
        .build();
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new().title("merch-store").version(env!("CARGO_PKG_VERSION")).description(
                Some(
                    "A company's internal merch shop. Everybody starts with 1000 coins, gives \
                     coins to colleagues and buys merch with them.",
                ),
            ),
        )
        .components(Some(
            ComponentsBuilder::new()
                .security_scheme("BearerAuth", SecurityScheme::Http(bearer))
                .build(),
        ))
        .security(Some([SecurityRequirement::new("BearerAuth", Vec::<String>::new())]))
        .build()
}

/// Serves `openapi` and the page around it.
pub fn router<S: Clone + Send + Sync + 'static>(openapi: OpenApi) -> Router<S> {
    docs::router("/api/openapi.json", openapi).layer(map_response(with_our_errors))
}

/// Gives what the page does not have the errors that every other path has.
async fn with_our_errors(response: Response) -> Response {
    match response.status() {
        StatusCode::NOT_FOUND => ApiError::NotFound.into_response(),
        StatusCode::NOT_ACCEPTABLE => ApiError::NotAcceptable.into_response(),
        _ => response,
    }
}
