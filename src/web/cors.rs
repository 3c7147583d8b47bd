//! Which sites' pages may read answers in a browser (CORS, as the Fetch standard has it): those
//! on a list, letter by letter, and never with cookies, of which there are none here.

use ::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, ORIGIN,
    VARY,
};
use ::http::{HeaderMap, HeaderValue, Method};

const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST");
const SENT: HeaderValue = HeaderValue::from_static(
    "Authorization, Content-Type, Idempotency-Key, If-None-Match, X-Request-Id",
);
const READ: HeaderValue = HeaderValue::from_static(
    "ETag, Idempotency-Replayed, Location, RateLimit, RateLimit-Policy, Retry-After, \
     WWW-Authenticate, X-Request-Id",
);

/// How long a browser need not ask again, in seconds; none believes it for longer than two hours.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

/// The sites on the list.
#[derive(Clone, Debug)]
pub struct Cors(Vec<HeaderValue>);

impl Cors {
    /// Pages of `origins` may read answers; none if there are none.
    pub fn new<'a>(origins: impl IntoIterator<Item = &'a str>) -> Option<Cors> {
        let origins = origins.into_iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
        let origins: Vec<HeaderValue> = origins.collect();
        (!origins.is_empty()).then_some(Cors(origins))
    }

    /// The site whose page made a request, if it is on the list.
    pub fn origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let mut origins = headers.get_all(ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (Some(origin), None) => self.0.contains(origin).then(|| origin.clone()),
            _ => None,
        }
    }

    /// Whether a browser asks for a page on the list if it may ask for more.
    pub fn is_preflight(&self, method: &Method, headers: &HeaderMap) -> bool {
        *method == Method::OPTIONS
            && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
            && self.origin(headers).is_some()
    }
}

/// Says in any answer that its reader may be a page of `origin`, or that it depended on that.
pub fn write(origin: Option<HeaderValue>, headers: &mut HeaderMap) {
    headers.append(VARY, ORIGIN.into());
    if let Some(origin) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, READ);
    }
}

/// Says in the answer to a preflight what may be asked for.
pub fn write_preflight(headers: &mut HeaderMap) {
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, SENT);
    headers.insert(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
}
