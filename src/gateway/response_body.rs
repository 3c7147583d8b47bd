//! An answer's body on its way to the client, frame by frame.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::client::{Connection, Lent};
use super::exchange::Lost;
use super::http1::Decoder;
use super::observe::Record;
use super::upstream::Failure;

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
    Backend { decoder: Decoder, connection: Hold },
}

/// How the connection is held.
#[derive(Debug)]
enum Hold {
    /// For the answer's first part: for most answers that is all.
    Own(Box<Connection>),
    /// For an answer that goes on: clients that do not take it do not keep the connection.
    Lent(Lent),
    /// It is not needed any more.
    Released,
}

/// Why an answer's body ended before its end; clients see a connection that breaks.
#[derive(Debug, thiserror::Error)]
pub enum Cut {
    /// The backend's connection broke, or what came was not well-formed.
    #[error("the backend broke off: {0}")]
    Broken(#[source] io::Error),
    /// The backend sent nothing for too long.
    #[error("the backend stood still")]
    Stalled,
    /// The client took nothing for too long, or broke its own request off.
    #[error("the client stood still")]
    Client,
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

    /// What a backend says on `connection`, which ends where `decoder` says.
    pub fn backend(
        decoder: Decoder,
        mut connection: Box<Connection>,
        mut record: Record,
    ) -> ResponseBody {
        let connection = if decoder.is_over() {
            connection.release();
            record.completed();
            Hold::Released
        } else {
            connection.progressed();
            Hold::Own(connection)
        };
        ResponseBody { source: Source::Backend { decoder, connection }, record: Some(record) }
    }
}

impl Source {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match self {
            Source::Own(bytes) if bytes.is_empty() => Poll::Ready(None),
            Source::Own(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Source::Backend { decoder, connection } => {
                let frame = match connection.with(|held| poll_backend(decoder, held, cx)) {
                    Some(frame) => ready!(frame),
                    None => Some(Err(Cut::Client)),
                };
                connection.settle(frame.is_none() || decoder.is_over());
                Poll::Ready(frame)
            }
        }
    }
}

/// The next part of an answer that comes on `connection`; nothing without one.
fn poll_backend(
    decoder: &mut Decoder,
    connection: Option<&mut Connection>,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
    let Some(connection) = connection else { return Poll::Ready(None) };
    let Poll::Ready(frame) = connection.poll_frame(decoder, cx) else {
        ready!(connection.poll_stalled(cx));
        let cut = if connection.is_let_down() { Cut::Client } else { Cut::Stalled };
        return Poll::Ready(Some(Err(cut)));
    };
    Poll::Ready(frame.map(|frame| {
        frame.map_err(|lost| match lost {
            Lost::Broken(error) if !connection.is_let_down() => Cut::Broken(error),
            Lost::Broken(_) | Lost::Client(_) => Cut::Client,
        })
    }))
}

impl Hold {
    /// Does `work` with the connection, if there is still one; nothing if it was taken away.
    fn with<T>(&mut self, work: impl FnOnce(Option<&mut Connection>) -> T) -> Option<T> {
        match self {
            Hold::Own(connection) => Some(work(Some(connection))),
            Hold::Lent(lent) => lent.with(|connection| work(Some(connection))),
            Hold::Released => Some(work(None)),
        }
    }

    /// After a part of the answer: the connection is free for the next request if that was the
    /// last, and has time for another otherwise.
    fn settle(&mut self, is_over: bool) {
        *self = match (std::mem::replace(self, Hold::Released), is_over) {
            (Hold::Own(connection), true) => {
                connection.release();
                Hold::Released
            }
            (Hold::Lent(lent), true) => {
                lent.release();
                Hold::Released
            }
            (Hold::Own(mut connection), false) => {
                connection.progressed();
                Hold::Lent(connection.lend())
            }
            (Hold::Lent(lent), false) => {
                lent.with(Connection::progressed);
                Hold::Lent(lent)
            }
            (Hold::Released, _) => Hold::Released,
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
        let is_over = frame.is_none() || self.is_end_stream();
        if let Some(record) = &mut self.record {
            match &frame {
                Some(Ok(frame)) => record.count(frame.data_ref().map_or(0, Bytes::len)),
                Some(Err(Cut::Client)) => record.cut(None),
                Some(Err(_)) => record.cut(Some(Failure::Broken)),
                None => {}
            }
            if is_over && !matches!(frame, Some(Err(_))) {
                record.completed();
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Own(bytes) => bytes.is_empty(),
            Source::Backend { decoder, .. } => decoder.is_over(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Own(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Backend { decoder, .. } => decoder.size_hint(),
        }
    }
}
