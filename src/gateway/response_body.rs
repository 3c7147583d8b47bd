//! An answer's body on its way to the client, frame by frame.

use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::client::Connection;
use super::observe::Record;

/// An answer's body on its way to the client, and what is written down when it is over.
#[derive(Debug)]
pub struct ResponseBody {
    source: Source,
    /// None if somebody else writes it down.
    record: Option<Record>,
}

#[derive(Debug)]
enum Source {
    /// Said by the gateway itself.
    Own(Bytes),
    /// Read from a connection, which goes back to its pool at the end.
    Backend { incoming: Incoming, connection: Option<Box<Connection>> },
}

/// Why an answer's body ended before its end; clients see a connection that breaks.
#[derive(Debug, thiserror::Error)]
pub enum Cut {
    /// The backend's connection broke, or what came was not well-formed.
    #[error("the backend broke off: {0}")]
    Broken(#[from] hyper::Error),
    /// Nothing came for too long.
    #[error("the backend stood still")]
    Stalled,
}

impl ResponseBody {
    /// What the gateway says itself.
    pub fn own(text: impl Into<Bytes>, record: Record) -> ResponseBody {
        ResponseBody { source: Source::Own(text.into()), record: Some(record) }
    }

    /// Nothing, and nothing to be written down at its end.
    pub fn none() -> ResponseBody {
        ResponseBody { source: Source::Own(Bytes::new()), record: None }
    }

    /// What a backend says on `connection`.
    pub fn backend(
        incoming: Incoming,
        connection: Box<Connection>,
        record: Record,
    ) -> ResponseBody {
        let mut source = Source::Backend { incoming, connection: Some(connection) };
        source.settle();
        ResponseBody { source, record: Some(record) }
    }
}

impl Source {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let (incoming, connection) = match self {
            Source::Own(bytes) if bytes.is_empty() => return Poll::Ready(None),
            Source::Own(bytes) => {
                return Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes)))));
            }
            Source::Backend { incoming, connection } => (incoming, connection),
        };
        // Only the connection wakes this task: its frames are handed over within it.
        let quiet = &mut Context::from_waker(Waker::noop());
        let mut polled = Pin::new(&mut *incoming).poll_frame(quiet);
        if polled.is_pending()
            && let Some(connection) = connection
        {
            let driven = connection.drive(cx);
            polled = Pin::new(&mut *incoming).poll_frame(quiet);
            if polled.is_pending() {
                if driven.is_pending() {
                    ready!(connection.poll_stalled(cx));
                }
                return Poll::Ready(Some(Err(Cut::Stalled)));
            }
        }
        match ready!(polled) {
            Some(Ok(frame)) => {
                self.settle();
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(error.into()))),
            None => {
                if let Some(connection) = connection.take() {
                    connection.release();
                }
                Poll::Ready(None)
            }
        }
    }

    /// After a part of it: the connection is free for the next request if that was the last,
    /// and has time for another otherwise.
    fn settle(&mut self) {
        let Source::Backend { incoming, connection } = self else { return };
        if incoming.is_end_stream() {
            connection.take().into_iter().for_each(Connection::release);
        } else if let Some(connection) = connection {
            connection.progressed();
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let frame = ready!(self.source.poll(cx));
        if let Some(record) = &mut self.record {
            match &frame {
                Some(Ok(frame)) => record.count(frame.data_ref().map_or(0, Bytes::len)),
                Some(Err(_)) => record.cut(),
                None => {}
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own(bytes) => bytes.is_empty(),
            Source::Backend { incoming, .. } => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Backend { incoming, .. } => incoming.size_hint(),
        }
    }
}
