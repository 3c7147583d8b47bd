//! A request's body on its way to a backend, with limits on its size and on standing still.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::body::Body;
use tokio::time::{Instant, Sleep, sleep, timeout};

use crate::accept;

use super::answer::Refusal;

/// How long to wait for a backend's `100 Continue`; many servers send none.
const CONTINUE_PATIENCE: Duration = Duration::from_secs(1);

/// The largest body that is waited for, or kept in case it must be sent again, in bytes: as
/// much as a request's head may take. Bodies that ask for something to be done once are far
/// smaller.
const SMALL: u64 = 16 * 1024;

/// A request's body on its way to a backend.
#[derive(Debug)]
pub enum RequestBody {
    /// There is none.
    Empty,
    /// It is small, and all of it is here.
    Whole(Bytes),
    /// It is passed on as it comes.
    Streamed(Box<Streamed>),
}

/// A body as the client sends it.
#[derive(Debug)]
pub struct Streamed {
    incoming: accept::Arriving,
    /// Bytes that may still come.
    left: u64,
    /// Until the backend says that it wants the body, or says nothing for so long.
    gate: Option<Pin<Box<Sleep>>>,
    /// When something last came, or might have for the first time.
    since: Instant,
    waits_for_client: bool,
    state: State,
    /// What has come so far; none if it is not wanted or too much.
    kept: Option<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing has come yet.
    Untouched,
    Begun,
    Ended,
    Spoilt,
}

/// What a client did wrong with its request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is longer than allowed.
    #[error("the body is too large")]
    TooLarge,
    /// It is not well-formed, or ended early.
    #[error("the body broke off")]
    Broken,
}

/// Of whom nothing came for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stalled {
    /// The client sent no more of its body.
    Client,
    /// The backend took no more of the body, or did not answer.
    Backend,
}

impl RequestBody {
    /// What comes as `incoming`. A small body is waited for, `patience` at most, before anybody
    /// is asked: it leaves in one write with its head, can be sent again, and a client that is
    /// slow with it keeps no backend waiting.
    pub async fn take(
        mut incoming: accept::Arriving,
        patience: Duration,
    ) -> Result<RequestBody, Refusal> {
        let mut whole = BytesMut::new();
        let taking = poll_fn(|cx| {
            while let Some(frame) = ready!(Pin::new(&mut incoming).poll_frame(cx)) {
                let frame = frame.map_err(|_| Refusal::BodyBroken)?;
                // Trailers say nothing that anybody has to know (RFC 9110, 6.5.1).
                whole.extend_from_slice(frame.data_ref().map_or(&[], |data| &**data));
            }
            Poll::Ready(Ok(()))
        });
        timeout(patience, taking).await.unwrap_or(Err(Refusal::BodyTimeout))?;
        Ok(RequestBody::Whole(whole.freeze()))
    }

    /// Passes `incoming` on as it comes, at most `limit` bytes of it. If the client
    /// `expects_continue`, only once the backend wants it.
    pub fn stream(incoming: accept::Arriving, limit: u64, expects_continue: bool) -> RequestBody {
        RequestBody::Streamed(Box::new(Streamed {
            incoming,
            left: limit,
            gate: expects_continue.then(|| Box::pin(sleep(CONTINUE_PATIENCE))),
            since: Instant::now(),
            waits_for_client: false,
            state: State::Untouched,
            kept: None,
        }))
    }

    /// Keeps what comes from now on, unless it is too much, in case it must be sent again.
    pub fn keep(&mut self) {
        if let RequestBody::Streamed(body) = self {
            body.kept = Some(Vec::new());
        }
    }

    /// All of the body once more, if it can be had.
    pub fn again(self) -> Option<RequestBody> {
        match self {
            RequestBody::Streamed(body) => match body.state {
                State::Untouched => Some(RequestBody::Streamed(body)),
                State::Ended => body.kept.map(|kept| RequestBody::Whole(kept.into())),
                State::Begun | State::Spoilt => None,
            },
            whole => Some(whole),
        }
    }

    /// Lets the body go: the backend has said that it wants it.
    pub fn open(&mut self) {
        if let RequestBody::Streamed(body) = self {
            body.open();
        }
    }

    /// Whether the client spoilt it, or is the one who is waited for.
    pub fn is_let_down(&self) -> bool {
        match self {
            RequestBody::Empty | RequestBody::Whole(_) => false,
            RequestBody::Streamed(body) => match body.state {
                State::Spoilt => true,
                State::Ended => false,
                State::Untouched | State::Begun => body.waits_for_client,
            },
        }
    }

    /// When it, or the answer after its end, has stood still for too long, and then who has; none
    /// if all of it was there from the start.
    pub fn deadline(&self, body: Duration, response: Duration) -> Option<(Instant, Stalled)> {
        match self {
            RequestBody::Empty | RequestBody::Whole(_) => None,
            RequestBody::Streamed(it) => Some(match (it.state, it.waits_for_client) {
                (State::Ended, _) => (it.since + response, Stalled::Backend),
                (_, true) => (it.since + body, Stalled::Client),
                (_, false) => (it.since + body, Stalled::Backend),
            }),
        }
    }
}

impl Streamed {
    /// The next bytes, none after the last.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Fault>>> {
        if let Some(gate) = &mut self.gate {
            ready!(gate.as_mut().poll(cx));
            self.open();
        }
        loop {
            let polled = Pin::new(&mut self.incoming).poll_frame(cx);
            self.waits_for_client = polled.is_pending();
            let frame = ready!(polled);
            self.since = Instant::now();
            self.state = State::Begun;
            let fault = match frame {
                None => {
                    self.state = State::Ended;
                    return Poll::Ready(None);
                }
                Some(Err(_)) => Fault::Broken,
                Some(Ok(frame)) => {
                    // Trailers say nothing that anybody has to know (RFC 9110, 6.5.1).
                    let Ok(data) = frame.into_data() else { continue };
                    match self.left.checked_sub(data.len() as u64) {
                        None => Fault::TooLarge,
                        Some(left) => {
                            self.left = left;
                            self.keep(&data);
                            return Poll::Ready(Some(Ok(data)));
                        }
                    }
                }
            };
            self.state = State::Spoilt;
            return Poll::Ready(Some(Err(fault)));
        }
    }

    /// Lets the body go.
    fn open(&mut self) {
        if self.gate.take().is_some() {
            self.since = Instant::now();
        }
    }

    fn keep(&mut self, data: &[u8]) {
        self.kept = self.kept.take().and_then(|mut kept| {
            kept.extend_from_slice(data);
            (kept.len() as u64 <= SMALL).then_some(kept)
        });
    }
}

/// Whether it is known that so little comes that it can be waited for.
pub fn is_small(incoming: &accept::Arriving) -> bool {
    incoming.size_hint().exact().is_some_and(|length| length <= SMALL)
}
