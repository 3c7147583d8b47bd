//! To a backend, and to another one if the first did not answer and that is safe: nothing is
//! done twice that was not meant to be.

use std::time::Duration;

use hyper::header::{EXPECT, HOST, HeaderName, HeaderValue, UPGRADE};
use hyper::http::request;
use hyper::{Method, Response};
use metrics::{Counter, counter};

use crate::lifecycle::Lifecycle;

use super::answer::Refusal;
use super::client::{Cause, ClientOptions, Connection, Unanswered};
use super::headers;
use super::http1::Decoder;
use super::lanes::{Lane, Lanes};
use super::observe::Record;
use super::paths::Paths;
use super::request_body::{Fault, RequestBody};
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

    /// The answer to a request, whose `head` is fit for a backend, and the connection that the
    /// answer's body comes on. Each backend is asked at most once.
    pub async fn forward(
        &self,
        mut head: request::Parts,
        mut body: RequestBody,
        record: &mut Record,
    ) -> Result<(Response<Decoder>, Box<Connection>), Refusal> {
        let repeatable = self.is_repeatable(&head);
        if repeatable {
            body.keep();
        }
        let has_host = head.headers.contains_key(HOST);
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
                head.headers.insert(HOST, host_of(&lane.backend));
            }
            let unanswered = match ask(&lane, &head, body).await {
                Ok(answered) => return Ok(answered),
                Err(unanswered) => unanswered,
            };
            again |= !unanswered.cause.is_here();
            refusal = miss(&lane, &unanswered, refusal, record)?;
            if unanswered.sent && !repeatable {
                return Err(refusal);
            }
            body = unanswered.body.again().ok_or(refusal)?;
            if let RequestBody::Whole(_) = body {
                // Nobody waits to be told to send what is here already.
                head.headers.remove(EXPECT);
            }
        }
    }

    /// Whether a backend may see this request although another may have seen it.
    fn is_repeatable(&self, head: &request::Parts) -> bool {
        let has_key = || head.headers.get(IDEMPOTENCY_KEY).is_some_and(|key| !key.is_empty());
        (is_idempotent(&head.method) && !self.spending.contains(head.uri.path())) || has_key()
    }
}

/// RFC 9110, 9.2.2.
fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE].contains(method)
}

/// The answer of `lane`'s backend, and the connection that its body comes on. What is not fit for
/// the client is no answer.
async fn ask(
    lane: &Lane,
    head: &request::Parts,
    body: RequestBody,
) -> Result<(Response<Decoder>, Box<Connection>), Unanswered> {
    let (mut response, connection) = lane.pool.send(head, body).await?;
    match headers::fit(&mut response, head.headers.get(UPGRADE)) {
        Ok(()) => Ok((response, connection)),
        Err(why) => {
            Err(Unanswered { cause: Cause::Unfit(why), sent: true, body: connection.into_body() })
        }
    }
}

/// Writes down that `lane`'s backend did not answer. Returns what the client is told if no
/// other one does, or, as an error, that no other one is to be asked.
fn miss(
    lane: &Lane,
    unanswered: &Unanswered,
    before: Refusal,
    record: &mut Record,
) -> Result<Refusal, Refusal> {
    let Unanswered { cause, sent, body } = unanswered;
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
    // Each of them, however many: it says which request did not get there.
    tracing::warn!(backend, id, error = %cause, sent, "a backend did not answer");
    // Who gives up on a body that does not come has not failed.
    record.failed(failure.filter(|_| !body.is_let_down()));
    // Whoever may have been heard by one must not be told that it reached none.
    Ok(match before {
        Refusal::AnswerLost | Refusal::AnswerLate if !sent => before,
        _ => refusal,
    })
}

fn host_of(backend: &Backend) -> HeaderValue {
    HeaderValue::from_str(backend.authority()).expect("an authority is a header value")
}
