//! `/api/openapi.json` and `/docs`: the contract as a document and as a page to try it on,
//! with everything the page needs in the binary.

use axum::Router;
use axum::http::StatusCode;
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder};
use utoipa_swagger_ui::{Config, SwaggerUi};

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
    // Without a validator: it would send the document to a service outside.
    let config = Config::default()
        .validator_url("none")
        .persist_authorization(true)
        .try_it_out_enabled(true)
        .display_request_duration(true);
    let page = SwaggerUi::new("/docs").url("/api/openapi.json", openapi).config(config);
    Router::from(page).layer(map_response(with_our_errors))
}

/// Gives files that the page does not have the error that every other path has.
async fn with_our_errors(response: Response) -> Response {
    match response.status() {
        StatusCode::NOT_FOUND => ApiError::NotFound.into_response(),
        _ => response,
    }
}
