//! The gateway's admin API, on an address of its own: backends, clients' limits, the log's
//! level, the configuration. Every route but the documentation wants the token.

mod auth;
mod backends;
mod docs;
mod error;
mod extract;
mod limits;
mod log;
mod metrics;
mod reload;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::get;
use hyper::Request;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::accept::{AcceptOptions, Http1Options, accept, serve_http1};
use crate::lifecycle::Lifecycle;
use crate::limits::OwnLimits;
use crate::web::path;

use super::upstream::Upstreams;

pub use auth::Token;
pub use reload::{Reload, Reloads};

/// The largest head of a request, in bytes.
const HEAD_LIMIT: usize = 16_384;

/// Connections at once. Operators and their scripts are few; strangers must not cost much.
const MAX_CONNECTIONS: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// How long a client may take to send a head, and to take an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Everything that handlers share.
pub struct Admin {
    /// What is listed and changed.
    pub upstreams: Upstreams,
    /// Limits of clients' own.
    pub limits: OwnLimits,
    /// What a request must show.
    pub token: Token,
    /// Where the wish for other settings goes.
    pub reloads: Reloads,
}

/// The admin API as a document, made from the handlers.
pub fn openapi() -> OpenApi {
    let (_, mut document) = api().split_for_parts();
    document.merge(limits::routes().into_openapi());
    docs::complete(&mut document);
    document
}

/// Serves the admin API on `listener` until `lifecycle` ends.
pub async fn serve(listener: TcpListener, admin: Admin, lifecycle: Lifecycle) {
    let router = router(admin);
    let options = AcceptOptions {
        max_connections: MAX_CONNECTIONS,
        grace: Duration::ZERO,
        patience: PATIENCE,
    };
    let serve = |stream, _, closing| connection(stream, router.clone(), closing);
    accept(listener, options, lifecycle, serve).await;
}

/// All routes of `admin`.
fn router(admin: Admin) -> Router {
    let admin = Arc::new(admin);
    let limits = Router::from(limits::routes()).with_state(admin.limits.clone());
    let (api, _) = api().split_for_parts();
    api.route("/metrics", get(metrics::metrics))
        .merge(limits)
        .route_layer(from_fn_with_state(admin.clone(), auth::authorize))
        .merge(docs::router(openapi()))
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed)
        .layer(DefaultBodyLimit::max(error::BODY_LIMIT))
        .layer(from_fn(error::within_limits))
        .layer(from_fn(error::fit))
        .layer(CatchPanicLayer::custom(error::panicked))
        .with_state(admin)
}

fn api() -> OpenApiRouter<Arc<Admin>> {
    OpenApiRouter::with_openapi(docs::document())
        .routes(routes!(backends::list, backends::add, backends::remove))
        .routes(routes!(backends::drain))
        .routes(routes!(log::level, log::set_level))
        .routes(routes!(reload::reload))
}

async fn connection(stream: TcpStream, router: Router, closing: CancellationToken) {
    let options = Http1Options { header_limit: HEAD_LIMIT, header_timeout: PATIENCE };
    let router = TowerToHyperService::new(router);
    let answer = async |mut request: Request<_>| {
        path::settle(request.uri_mut());
        let Ok(response) = router.call(request).await;
        response
    };
    serve_http1(stream, options, &closing, answer).await;
}
