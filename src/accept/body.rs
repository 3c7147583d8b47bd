//! Request bodies on HTTP/1.1 connections. The next request begins where a body ends, so an
//! answer that is given before that has to say what becomes of the connection.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::http::header::{CONNECTION, EXPECT, HeaderValue};
use ::http::{Request, Response, Version};
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::timeout;

use super::activity::Activity;

/// The most of an unwanted body that is read all the same, in bytes, and for how long, so that
/// the connection can take another request.
const UNWANTED: u64 = 64 * 1024;
const UNWANTED_PATIENCE: Duration = Duration::from_secs(1);

/// How much of the last request's body is left.
#[derive(Debug, Default)]
pub(super) enum Rest {
    /// All of it has come, or there was none.
    #[default]
    Nothing,
    /// It was not waited for yet.
    Unasked,
    /// The request waits for more of it.
    Awaited,
    /// It is not wanted any more; it may have been awaited before.
    Dropped { incoming: Incoming, awaited: bool },
    /// Its end cannot be found any more, so no request can come after it.
    Spoilt,
    /// There are no requests any more.
    Tunnel,
}

/// A request's body, whose connection knows how much of it is left.
#[derive(Debug)]
pub struct Arriving {
    /// None once it was dropped.
    incoming: Option<Incoming>,
    /// None if the connection need not know: it is over, or one of many on HTTP/2.
    activity: Option<Activity>,
    /// Whether the request has waited for it.
    awaited: bool,
}

/// Has `serve` answer `request`, which came on the connection of `activity`. If that leaves the
/// body in the middle, either its end is found or the answer says that the connection ends.
pub async fn answer<B, Answering>(
    activity: &Activity,
    request: Request<Incoming>,
    serve: impl FnOnce(Request<Arriving>) -> Answering,
) -> Response<B>
where
    Answering: Future<Output = Response<B>>,
{
    let is_over = request.body().is_end_stream() || request.version() == Version::HTTP_2;
    let is_awaiting = |it: &HeaderValue| it.as_bytes().eq_ignore_ascii_case(b"100-continue");
    let expects = !is_over && request.headers().get_all(EXPECT).iter().any(is_awaiting);
    let told = (!is_over).then(|| activity.clone());
    let mut response = serve(request.map(|incoming| Arriving::new(incoming, told))).await;
    if !is_over && !activity.ends_body(expects).await {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

impl Activity {
    /// Whether the last request was, to its end, waiting for its body: nothing else was done.
    pub fn awaits_body(&self) -> bool {
        matches!(&*self.rest(), Rest::Awaited | Rest::Dropped { awaited: true, .. })
    }

    /// Sees to it that the next thing on the connection is a request; false if that cannot be.
    /// A client that `expects` to be told to go on may leave its body out.
    async fn ends_body(&self, expects: bool) -> bool {
        let rest = {
            let mut rest = self.rest();
            if matches!(*rest, Rest::Nothing) {
                return true;
            }
            std::mem::replace(&mut *rest, Rest::Spoilt)
        };
        let is_over = match rest {
            Rest::Dropped { incoming, .. } if !expects => is_drained(incoming).await,
            _ => false,
        };
        if is_over {
            *self.rest() = Rest::Nothing;
        }
        is_over
    }
}

/// Whether `incoming` comes to its end soon.
async fn is_drained(mut incoming: Incoming) -> bool {
    let mut left = UNWANTED;
    let draining = std::future::poll_fn(|cx| {
        // What is announced may already be too much.
        while incoming.size_hint().lower() <= left {
            match ready!(Pin::new(&mut incoming).poll_frame(cx)) {
                None => return Poll::Ready(true),
                Some(Err(_)) => return Poll::Ready(false),
                Some(Ok(frame)) => {
                    let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                    let Some(rest) = left.checked_sub(length) else { break };
                    left = rest;
                }
            }
        }
        Poll::Ready(false)
    });
    timeout(UNWANTED_PATIENCE, draining).await.unwrap_or(false)
}

impl Arriving {
    fn new(incoming: Incoming, activity: Option<Activity>) -> Arriving {
        if let Some(activity) = &activity {
            *activity.rest() = Rest::Unasked;
        }
        Arriving { incoming: Some(incoming), activity, awaited: false }
    }

    /// Tells the connection once, the first time.
    fn wait(&mut self) {
        if let Some(activity) = self.activity.as_ref().filter(|_| !self.awaited) {
            self.awaited = true;
            *activity.rest() = Rest::Awaited;
        }
    }

    fn end(&mut self, rest: Rest) {
        if let Some(activity) = self.activity.take() {
            *activity.rest() = rest;
        }
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let Poll::Ready(frame) = Pin::new(incoming).poll_frame(cx) else {
            self.wait();
            return Poll::Pending;
        };
        match &frame {
            Some(Err(_)) => self.end(Rest::Spoilt),
            Some(Ok(_)) if !self.is_end_stream() => {}
            _ => self.end(Rest::Nothing),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        let (Some(activity), Some(incoming)) = (self.activity.take(), self.incoming.take()) else {
            return;
        };
        let mut rest = activity.rest();
        // Once there is an answer it has said that the connection ends.
        if !matches!(*rest, Rest::Spoilt) {
            *rest = Rest::Dropped { incoming, awaited: self.awaited };
        }
    }
}
