//! To a backend, and to another one if the first did not answer and that is safe: nothing is
//! done twice that was not meant to be.

use std::time::Duration;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::ext::on_informational;
use hyper::header::{EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use hyper::{Method, Request, Response, StatusCode, Uri};
use metrics::{Counter, counter};

use crate::lifecycle::Lifecycle;

use super::answer::Refusal;
use super::client::{Cause, ClientOptions, Connection, Unanswered};
use super::headers;
use super::lanes::{Lane, Lanes};
use super::observe::Record;
use super::paths::Paths;
use super::request_body::{Fault, RequestBody, Upload};
use super::upstream::{Backend, BackendId, Failure, RetryBudget, Upstreams};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The longest pause before another attempt: requests that failed together do not arrive at
/// the next backend together.
const JITTER: Duration = Duration::from_millis(10);

/// Gives requests to backends.
#[derive(Debug)]
pub struct Forwarder {
    upstreams: Upstreams,
    budget: RetryBudget,
    lanes: Lanes,
    /// Where even a GET changes something.
    spending: Paths,
    retries: Counter,
}

/// What a request was before a backend was given it.
struct Copy {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    /// Its body, if that is whole.
    whole: Option<Bytes>,
    /// Its body on the way, if it has one and may be repeated.
    upload: Option<Upload>,
}

impl Forwarder {
    /// Gives requests to `upstreams`, and as many as `budget` allows once more.
    pub fn new(
        upstreams: Upstreams,
        budget: RetryBudget,
        client: ClientOptions,
        spending: Paths,
    ) -> Forwarder {
        let retries = counter!("merch_gateway_retries_total");
        Forwarder { upstreams, budget, lanes: Lanes::new(client), spending, retries }
    }

    /// Whether there is a backend that could be asked.
    pub fn is_ready(&self) -> bool {
        self.upstreams.is_ready()
    }

    /// Looks after connections that nobody uses.
    pub async fn keep(&self, lifecycle: Lifecycle) {
        self.lanes.sweep(lifecycle).await;
    }

    /// The answer to `request`, whose head is fit for a backend, and the connection that its
    /// body comes on. Each backend is asked at most once.
    pub async fn forward(
        &self,
        mut request: Request<RequestBody>,
        record: &mut Record,
    ) -> Result<(Response<Incoming>, Box<Connection>), Refusal> {
        tell_when_wanted(&mut request);
        let repeatable = self.is_repeatable(&request);
        let copy = Copy::of(&request, repeatable);
        let has_host = request.headers().contains_key(HOST);
        let mut tried: Vec<BackendId> = Vec::new();
        let mut refusal = Refusal::NoBackend;
        // Whether a backend had to do with it: that there is no connection free costs it nothing.
        let mut again = false;
        self.budget.request();
        loop {
            // Asked first: to be picked is a backend's turn, whether or not it gets a request.
            if again && !self.budget.try_retry() {
                return Err(refusal);
            }
            let Some(picked) = self.upstreams.pick(&tried) else { return Err(refusal) };
            if again {
                self.retries.increment(1);
                tokio::time::sleep(JITTER.mul_f64(rand::random())).await;
            }
            tried.push(picked.backend.id());
            let lane = self.lanes.to(&picked.backend);
            record.given_to(lane.answers.clone(), picked);
            if !has_host {
                request.headers_mut().insert(HOST, host_of(&lane.backend));
            }
            let wants_upgrade = request.headers().contains_key(UPGRADE);
            let unanswered = match lane.pool.send(request).await {
                Ok((mut response, connection)) => match fit(&mut response, wants_upgrade) {
                    Ok(()) => return Ok((response, connection)),
                    Err(why) => Unanswered { cause: Cause::Unfit(why), sent: true, request: None },
                },
                Err(unanswered) => unanswered,
            };
            again |= !unanswered.cause.is_here();
            refusal = miss(&lane, &unanswered, refusal, record)?;
            let unsent = match unanswered {
                Unanswered { sent: true, .. } if !repeatable => None,
                Unanswered { request: Some(request), .. } => Some(request),
                Unanswered { request: None, .. } => copy.as_ref().and_then(Copy::request),
            };
            request = unsent.ok_or(refusal)?;
        }
    }

    /// Whether a backend may see this request although another may have seen it.
    fn is_repeatable(&self, request: &Request<RequestBody>) -> bool {
        let has_key = || request.headers().get(IDEMPOTENCY_KEY).is_some_and(|key| !key.is_empty());
        (is_idempotent(request.method()) && !self.spending.contains(request.uri().path()))
            || has_key()
    }
}

impl Copy {
    /// None of a request that could not be made again: with a body that nobody keeps.
    fn of(request: &Request<RequestBody>, repeatable: bool) -> Option<Copy> {
        let upload = request.body().upload();
        if let Some(upload) = &upload {
            if !repeatable {
                return None;
            }
            upload.keep();
        }
        let whole = match request.body() {
            RequestBody::Whole(bytes) => Some(bytes.clone()),
            RequestBody::Empty | RequestBody::Streamed(_) => None,
        };
        Some(Copy {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
            whole,
            upload,
        })
    }

    /// The request once more, if all of its body is there.
    fn request(&self) -> Option<Request<RequestBody>> {
        let mut request = Request::new(match (&self.whole, &self.upload) {
            (Some(bytes), _) => RequestBody::Whole(bytes.clone()),
            (None, Some(upload)) => RequestBody::Whole(upload.kept()?),
            (None, None) => RequestBody::Empty,
        });
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        if self.upload.is_some() {
            // Nobody waits to be told to send what is here already.
            request.headers_mut().remove(EXPECT);
        }
        Some(request)
    }
}

/// RFC 9110, 9.2.2.
fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE].contains(method)
}

/// Lets the body of a request that expects `100 Continue` go once the backend says so.
fn tell_when_wanted(request: &mut Request<RequestBody>) {
    if let Some(upload) = request.body().upload()
        && request.headers().contains_key(EXPECT)
    {
        on_informational(request, move |response| {
            if response.status() == StatusCode::CONTINUE {
                upload.is_wanted();
            }
        });
    }
}

/// Makes a backend's answer fit for the client, or says why it is none.
fn fit(response: &mut Response<Incoming>, wants_upgrade: bool) -> Result<(), &'static str> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS && !wants_upgrade {
        return Err("101 to a request that asked for nothing of the kind");
    }
    headers::admit_answer(response.headers_mut())
}

/// Writes down that `lane`'s backend did not answer. Returns what the client is told if no
/// other one does, or, as an error, that no other one is to be asked.
fn miss(
    lane: &Lane,
    unanswered: &Unanswered,
    before: Refusal,
    record: &mut Record,
) -> Result<Refusal, Refusal> {
    let Unanswered { cause, sent, .. } = unanswered;
    let (failure, refusal) = match cause {
        Cause::Client(Fault::TooLarge) => return Err(Refusal::BodyTooLarge),
        Cause::Client(Fault::Broken) => return Err(Refusal::BodyBroken),
        Cause::ClientTimeout => return Err(Refusal::BodyTimeout),
        Cause::Full | Cause::Exhausted(_) => (None, Refusal::NoBackend),
        Cause::Connect(_) | Cause::ConnectTimeout => (Some(Failure::Connect), Refusal::Unreachable),
        Cause::Timeout => (Some(Failure::TimedOut), Refusal::AnswerLate),
        Cause::Broken(_) | Cause::Unfit(_) if *sent => (Some(Failure::Broken), Refusal::AnswerLost),
        Cause::Broken(_) | Cause::Unfit(_) => (Some(Failure::Broken), Refusal::Unreachable),
    };
    lane.misses.increment(1);
    let (backend, id) = (lane.backend.name(), record.id.to_str().unwrap_or_default());
    tracing::warn!(backend, id, error = %cause, sent, "a backend did not answer");
    record.failed(failure);
    // Whoever may have been heard by one must not be told that it reached none.
    Ok(match before {
        Refusal::AnswerLost | Refusal::AnswerLate if !sent => before,
        _ => refusal,
    })
}

fn host_of(backend: &Backend) -> HeaderValue {
    HeaderValue::from_str(backend.authority()).expect("an authority is a header value")
}
