//! What is written down of every request: metrics and a line in the log.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use hyper::header::HeaderValue;
use hyper::{Method, StatusCode, Uri};
use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::upstream::{Failure, Picked};
use crate::accept::Busy;
use crate::telemetry::{self, Series};

/// Counters of the answers of one backend, looked up once.
#[derive(Debug)]
pub struct Answers {
    backend: String,
    series: Arc<Series>,
    /// By status, from 100 to 599.
    by_status: Box<[OnceLock<Counter>]>,
    seconds: Histogram,
    in_flight: Gauge,
}

impl Answers {
    /// Of the gateway itself: its answers count as those of a backend named `none`.
    pub fn own() -> Answers {
        Answers::of("none", telemetry::metrics().series("backend", "none"))
    }

    /// The counters of `backend` in its `series`.
    pub fn of(backend: &str, series: Arc<Series>) -> Answers {
        let (seconds, in_flight) = series.within(|| {
            (histogram!("merch_gateway_request_seconds"), gauge!("merch_gateway_in_flight"))
        });
        let by_status = (100..600).map(|_| OnceLock::new()).collect();
        Answers { backend: backend.to_owned(), series, by_status, seconds, in_flight }
    }

    /// Counts an answer to what was no request, of which there is nothing else to write down.
    pub fn count_refused(&self, status: u16) {
        self.count_status(status);
    }

    fn count(&self, status: StatusCode, elapsed: Duration) {
        self.count_status(status.as_u16());
        self.seconds.record(elapsed);
    }

    fn count_status(&self, status: u16) {
        if let Some(cell) = self.by_status.get(usize::from(status) - 100) {
            let counter = cell.get_or_init(|| {
                let status = status.to_string();
                self.series.within(|| counter!("merch_gateway_requests_total", "status" => status))
            });
            counter.increment(1);
        }
    }
}

/// A request, from its head to the last byte of its answer; written down when dropped.
#[derive(Debug)]
pub struct Record {
    started: Instant,
    /// Its id, which the answer bears too.
    pub id: HeaderValue,
    client: HeaderValue,
    method: Method,
    uri: Uri,
    status: StatusCode,
    answers: Arc<Answers>,
    /// Whether it is counted as under way at a backend.
    is_passed_on: bool,
    /// The backend that has it now, and since when.
    picked: Option<(Picked, Instant)>,
    bytes: u64,
    cut: bool,
    logged: bool,
    _busy: Busy,
}

impl Record {
    /// A request that has just arrived from `client`, answered by nobody yet; `logged` if it gets
    /// a line.
    pub fn new(
        request: (Method, Uri),
        id: HeaderValue,
        client: HeaderValue,
        own: Arc<Answers>,
        logged: bool,
        busy: Busy,
    ) -> Record {
        Record {
            started: Instant::now(),
            id,
            client,
            method: request.0,
            uri: request.1,
            // Seen only if the client hangs up before there is an answer.
            status: CLIENT_CLOSED,
            answers: own,
            is_passed_on: false,
            picked: None,
            bytes: 0,
            cut: false,
            logged,
            _busy: busy,
        }
    }

    /// It is given to a backend now, whose counters are `answers`.
    pub fn given_to(&mut self, answers: Arc<Answers>, picked: Picked) {
        self.taken_back();
        answers.in_flight.increment(1);
        self.is_passed_on = true;
        self.answers = answers;
        self.picked = Some((picked, Instant::now()));
    }

    /// It is not the backend's any more, which did not answer, by a `failure` of its own if
    /// there is one.
    pub fn failed(&mut self, failure: Option<Failure>) {
        if let Some(((picked, _), failure)) = self.picked.take().zip(failure) {
            picked.failed(failure);
        }
    }

    /// The backend's answer has begun.
    pub fn answered(&mut self, status: StatusCode) {
        self.status = status;
        if let Some((picked, since)) = &self.picked {
            // Not from the request's start: what another backend wasted is not this one's.
            picked.answered(status, since.elapsed());
        }
    }

    /// The gateway answers itself, as `own` counts it.
    pub fn refused(&mut self, status: StatusCode, own: &Arc<Answers>) {
        self.status = status;
        self.picked = None;
        self.taken_back();
        self.answers = own.clone();
    }

    /// It is under way at no backend any more.
    fn taken_back(&mut self) {
        if std::mem::take(&mut self.is_passed_on) {
            self.answers.in_flight.decrement(1);
        }
    }

    /// Nobody wants to read of it.
    pub fn unlogged(&mut self) {
        self.logged = false;
    }

    /// More of the answer is on its way.
    pub fn count(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// The answer came to its end.
    pub fn completed(&mut self) {
        if let Some((picked, _)) = &self.picked {
            picked.completed(self.status);
        }
    }

    /// The answer ended before its end, by a `failure` of the backend's own if there is one.
    pub fn cut(&mut self, failure: Option<Failure>) {
        self.cut = true;
        self.failed(failure);
    }
}

/// nginx's status for a client that did not wait for its answer; it is never sent.
const CLIENT_CLOSED: StatusCode = match StatusCode::from_u16(499) {
    Ok(status) => status,
    Err(_) => unreachable!(),
};

impl Drop for Record {
    fn drop(&mut self) {
        let elapsed = self.started.elapsed();
        self.taken_back();
        self.answers.count(self.status, elapsed);
        if self.logged {
            // The path and not the query: that may hold what is not ours.
            tracing::info!(
                target: "merch_store::access",
                id = self.id.to_str().unwrap_or_default(),
                client = self.client.to_str().unwrap_or_default(),
                method = self.method.as_str(),
                path = self.uri.path(),
                status = self.status.as_u16(),
                milliseconds = elapsed.as_micros() as f64 / 1000.0,
                bytes = self.bytes,
                backend = self.answers.backend,
                cut = self.cut,
                "answered",
            );
        }
    }
}
