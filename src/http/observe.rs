//! Around every request: an id, a time limit, a span, a line in the log, metrics.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use axum::body::HttpBody;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use metrics::{Counter, Histogram, counter, histogram};
use tokio::time::timeout;
use tracing::Instrument;

use crate::accept::Activity;
use crate::web::{self, REQUEST_ID, cors};

use super::Shop;
use super::asker::Asker;
use super::error::ApiError;

/// What is recorded of requests, and the shop whose settings say how.
pub struct Observer {
    shop: Arc<Shop>,
    /// Looking a metric up by its labels costs several times what adding to it does.
    recorded: RwLock<HashMap<Box<str>, HashMap<u16, Recorded>>>,
}

/// The metrics of one route and status.
#[derive(Clone)]
struct Recorded {
    requests: Counter,
    seconds: Histogram,
}

impl Observer {
    /// An observer that has seen nothing yet.
    pub fn new(shop: Arc<Shop>) -> Observer {
        Observer { shop, recorded: RwLock::default() }
    }

    fn record(&self, route: &str, status: u16, elapsed: Duration) {
        let known = {
            let recorded = self.recorded.read().expect("nobody panics with it");
            recorded.get(route).and_then(|by_status| by_status.get(&status)).cloned()
        };
        let Recorded { requests, seconds } = known.unwrap_or_else(|| self.metrics(route, status));
        requests.increment(1);
        seconds.record(elapsed);
    }

    fn metrics(&self, route: &str, status: u16) -> Recorded {
        let labels = [("route", route.to_owned()), ("status", status.to_string())];
        let metrics = Recorded {
            requests: counter!("merch_http_requests_total", &labels),
            seconds: histogram!("merch_http_request_seconds", &labels[..1]),
        };
        let mut recorded = self.recorded.write().expect("nobody panics with it");
        recorded.entry(route.into()).or_default().insert(status, metrics.clone());
        metrics
    }
}

/// Runs the rest of the stack under the shop's time limit and records how it went. The
/// path is logged, the query and the headers are not: they may hold what is not ours.
pub async fn observe(
    State(observer): State<Arc<Observer>>,
    matched: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Response {
    let shop = &observer.shop;
    let started = Instant::now();
    let logged = (shop.access_log && is_logging() && !is_watch(request.uri().path()))
        .then(|| (request.method().clone(), request.uri().path().to_owned()));
    let request_id = web::request_id(request.headers());
    let id = request_id.to_str().unwrap_or_default();
    let origin = shop.cors.as_ref().map(|cors| cors.origin(request.headers()));
    let asker = request.extensions().get::<Asker>().cloned();
    // Short, because it stands in every line that is written meanwhile; the last one has the rest.
    let span = tracing::info_span!("request", id);

    let activity = request.extensions_mut().remove::<Activity>();
    let handled = match refusal(&request, shop.body_limit) {
        Some(error) => Ok(error.into_response()),
        None => timeout(shop.request_timeout, next.run(request).instrument(span)).await,
    };
    let mut response = match handled {
        Ok(response) => response,
        Err(_elapsed) if activity.is_some_and(|it| it.awaits_body()) => {
            ApiError::BodyTimeout.into_response()
        }
        Err(_elapsed) => ApiError::Timeout.into_response(),
    };

    let elapsed = started.elapsed();
    let status = response.status().as_u16();
    if let Some((method, path)) = logged {
        log(id, asker.as_ref(), &method, &path, status, elapsed);
    }
    // The route, not the path: a client must not be able to invent label values.
    let route = matched.as_ref().map_or("unmatched", MatchedPath::as_str);
    observer.record(route, status, elapsed);

    complete(response.headers_mut(), request_id, origin, shop.lifecycle.is_ending());
    response
}

/// One line in the log.
fn log(
    id: &str,
    asker: Option<&Asker>,
    method: &Method,
    path: &str,
    status: u16,
    elapsed: Duration,
) {
    tracing::info!(
        target: "merch_store::access",
        id,
        client = asker.map(|asker| tracing::field::display(asker.address())),
        account = asker.and_then(Asker::account),
        method = method.as_str(),
        path,
        status,
        milliseconds = elapsed.as_micros() as f64 / 1000.0,
        "answered",
    );
}

/// Adds to an answer's `headers` what all answers have.
fn complete(
    headers: &mut HeaderMap,
    request_id: HeaderValue,
    origin: Option<Option<HeaderValue>>,
    is_ending: bool,
) {
    headers.insert(REQUEST_ID, request_id);
    if let Some(origin) = origin {
        cors::write(origin, headers);
    }
    // Of what may be kept its route says so; errors and what is somebody's own are for nobody else.
    let no_store = HeaderValue::from_static("no-store");
    headers.entry(header::CACHE_CONTROL).or_insert(no_store);
    if is_ending {
        // Whoever keeps connections open should look for another server.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

/// Whether `path` is asked for by who watches over the shop, over and over.
pub fn is_watch(path: &str) -> bool {
    ["/health/live", "/health/ready", "/metrics"].contains(&path)
}

/// Whether lines about requests are written as things stand.
pub fn is_logging() -> bool {
    tracing::enabled!(target: "merch_store::access", tracing::Level::INFO)
}

/// What is wrong with a request whose head is not fit for an answer, or whose body is announced
/// as longer than `body_limit`.
fn refusal(request: &Request, body_limit: usize) -> Option<ApiError> {
    match web::admit(request.method(), request.uri(), request.version(), request.headers()) {
        Ok(()) if request.body().size_hint().lower() <= body_limit as u64 => None,
        Ok(()) => Some(ApiError::BodyTooLarge),
        Err(why) => Some(ApiError::BadRequest(why.message().into())),
    }
}

/// Counts an answer to what was no request, of which there is nothing else to write down.
pub fn count_refused(status: u16) {
    let labels = [("route", "unmatched".to_owned()), ("status", status.to_string())];
    counter!("merch_http_requests_total", &labels).increment(1);
}
