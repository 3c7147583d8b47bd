//! The public contract over HTTP/1.1: one file a route, its handler beside its request and
//! response types. No SQL and no rules of the shop here.

mod asker;
mod auth;
mod buy;
mod cors;
mod docs;
mod error;
mod extract;
mod health;
mod history;
mod info;
mod limits;
mod merch;
mod metrics;
mod movement;
mod observe;
mod send_coin;
mod server;
mod unauthorized;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::middleware;
use axum::routing::get;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::password::Hasher;
use crate::auth::proof::Proofs;
use crate::auth::token::Tokens;
use crate::engine::Engine;
use crate::lifecycle::Lifecycle;
use crate::limits::Gate;
use crate::storage::Database;
use crate::web::cors::Cors;

use observe::Observer;

pub use info::Infos;
pub use merch::Catalogue;
pub use server::{ServerOptions, start};

/// Everything that handlers share.
pub struct Shop {
    /// Where every change goes.
    pub engine: Engine,
    /// For reading; whether it is there decides readiness.
    pub database: Database,
    /// Bounds the logins that are worked on or wait.
    pub hasher: Hasher,
    /// Signs at a login, verifies on every guarded route.
    pub tokens: Tokens,
    /// Passwords that were verified a moment ago.
    pub proofs: Proofs,
    /// Says when to be unready and to close connections after their answers.
    pub lifecycle: Lifecycle,
    /// Answers of `/api/info` that may still be true.
    pub infos: Infos,
    /// What `/api/merch` answered last.
    pub catalogue: Catalogue,
    /// Transfers that `/api/info` shows each way, at most.
    pub history_limit: u16,
    /// The largest request body, in bytes.
    pub body_limit: usize,
    /// The longest a request may take, its body included.
    pub request_timeout: Duration,
    /// Whether each request leaves a line in the log.
    pub access_log: bool,
    /// Whose pages may read answers; without it there are none.
    pub cors: Option<Cors>,
    /// Who may pass, for a shop without a gateway; without it there are no limits.
    pub gate: Option<Gate>,
}

/// The API of the shop as a document, made from the handlers.
pub fn openapi() -> OpenApi {
    let mut openapi = api().into_openapi();
    docs::complete(&mut openapi);
    openapi
}

/// All routes of `shop`.
pub fn router(shop: Shop) -> Router {
    let shop = Arc::new(shop);
    let (api, _) = api().split_for_parts();
    let observer = Arc::new(Observer::new(shop.clone()));
    // One layer made of two, outermost first: each layer of a router boxes every request.
    let around = (
        middleware::from_fn_with_state(observer, observe::observe),
        CatchPanicLayer::custom(error::panicked),
    );
    let mut router = api
        .merge(docs::router(openapi()))
        .route("/metrics", get(metrics::metrics))
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::method_not_allowed);
    if let Some(cors) = shop.cors.clone() {
        router = router.layer(middleware::from_fn_with_state(cors, cors::preflight));
    }
    if let Some(gate) = shop.gate.clone() {
        router = router.layer(middleware::from_fn_with_state(gate, limits::limit));
    }
    router.layer(around).with_state(shop)
}

fn api() -> OpenApiRouter<Arc<Shop>> {
    let (schemas, paths, methods) = routes!(buy::buy, buy::buy_by_post);
    let methods = methods.head(buy::wrong_method).fallback(buy::wrong_method);
    OpenApiRouter::with_openapi(docs::document())
        .routes(routes!(auth::auth))
        .routes(routes!(info::info))
        .routes(routes!(send_coin::send_coin))
        .routes((schemas, paths, methods))
        .routes(routes!(merch::merch))
        .routes(routes!(history::history))
        .routes(routes!(movement::movement))
        .routes(routes!(history::summary))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
}
