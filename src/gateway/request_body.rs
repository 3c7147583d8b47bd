//! A request's body on its way to a backend, with limits on its size and on standing still.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep, timeout};

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
    incoming: Incoming,
    /// Bytes that may still come.
    left: u64,
    upload: Upload,
    /// Until the backend says that it wants the body, or says nothing for so long.
    gate: Option<Pin<Box<Sleep>>>,
}

/// How a request's body is getting on, for whoever waits for the answer.
#[derive(Clone, Debug)]
pub struct Upload(Arc<Mutex<Progress>>);

#[derive(Debug)]
struct Progress {
    since: Instant,
    ended: bool,
    waits_for_client: bool,
    wanted: bool,
    fault: Option<Fault>,
    /// What has come so far; none if it is not wanted or too much.
    kept: Option<Vec<u8>>,
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
    pub async fn take(mut incoming: Incoming, patience: Duration) -> Result<RequestBody, Refusal> {
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
    pub fn stream(incoming: Incoming, limit: u64, expects_continue: bool) -> RequestBody {
        let progress = Progress {
            since: Instant::now(),
            ended: false,
            waits_for_client: false,
            wanted: false,
            fault: None,
            kept: None,
        };
        RequestBody::Streamed(Box::new(Streamed {
            incoming,
            left: limit,
            upload: Upload(Arc::new(Mutex::new(progress))),
            gate: expects_continue.then(|| Box::pin(sleep(CONTINUE_PATIENCE))),
        }))
    }

    /// Where to look how it is getting on; nowhere if there is nothing to wait for.
    pub fn upload(&self) -> Option<Upload> {
        match self {
            RequestBody::Empty | RequestBody::Whole(_) => None,
            RequestBody::Streamed(body) => Some(body.upload.clone()),
        }
    }
}

impl Upload {
    /// The backend has said that it wants the body.
    pub fn is_wanted(&self) {
        self.progress().wanted = true;
    }

    /// Keeps what comes from now on, unless it is too much.
    pub fn keep(&self) {
        self.progress().kept = Some(Vec::new());
    }

    /// All of the body, if it has come to its end and was kept.
    pub fn kept(&self) -> Option<Bytes> {
        let progress = self.progress();
        progress.kept.clone().filter(|_| progress.ended).map(Bytes::from)
    }

    /// What the client did wrong, if it did.
    pub fn fault(&self) -> Option<Fault> {
        self.progress().fault
    }

    /// Whether the client spoilt it, or is the one who is waited for.
    pub fn is_let_down(&self) -> bool {
        let progress = self.progress();
        progress.fault.is_some() || (progress.waits_for_client && !progress.ended)
    }

    /// When it has stood still for too long, and then who has.
    pub fn deadline(&self, body: Duration, response: Duration) -> (Instant, Stalled) {
        let progress = self.progress();
        match (progress.ended, progress.waits_for_client) {
            (true, _) => (progress.since + response, Stalled::Backend),
            (false, true) => (progress.since + body, Stalled::Client),
            (false, false) => (progress.since + body, Stalled::Backend),
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().expect("nobody panics with it")
    }
}

impl Progress {
    /// Keeps `frame` with those before it; trailers are not kept, and so neither is a body
    /// that has some.
    fn keep(&mut self, frame: &Frame<Bytes>) {
        let kept = self.kept.take();
        self.kept = kept.zip(frame.data_ref()).and_then(|(mut kept, data)| {
            kept.extend_from_slice(data);
            (kept.len() as u64 <= SMALL).then_some(kept)
        });
    }
}

impl Streamed {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        if let Some(gate) = &mut self.gate {
            let wanted = self.upload.progress().wanted;
            if !wanted {
                ready!(gate.as_mut().poll(cx));
            }
            self.gate = None;
            self.upload.progress().since = Instant::now();
        }
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        let mut progress = self.upload.progress();
        progress.waits_for_client = polled.is_pending();
        let frame = ready!(polled);
        progress.since = Instant::now();
        let fault = match frame {
            Some(Ok(frame)) => {
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                match self.left.checked_sub(length) {
                    Some(left) => {
                        self.left = left;
                        progress.keep(&frame);
                        progress.ended = self.incoming.is_end_stream();
                        return Poll::Ready(Some(Ok(frame)));
                    }
                    None => Fault::TooLarge,
                }
            }
            Some(Err(_)) => Fault::Broken,
            None => {
                progress.ended = true;
                return Poll::Ready(None);
            }
        };
        progress.fault = Some(fault);
        Poll::Ready(Some(Err(fault)))
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        match &mut *self {
            RequestBody::Empty => Poll::Ready(None),
            RequestBody::Streamed(body) => body.poll(cx),
            RequestBody::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            RequestBody::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            RequestBody::Empty => true,
            RequestBody::Streamed(body) => body.incoming.is_end_stream(),
            RequestBody::Whole(bytes) => bytes.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            RequestBody::Empty => SizeHint::with_exact(0),
            RequestBody::Streamed(body) => body.incoming.size_hint(),
            RequestBody::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}

/// Whether it is known that so little comes that it can be waited for.
pub fn is_small(incoming: &Incoming) -> bool {
    incoming.size_hint().exact().is_some_and(|length| length <= SMALL)
}
