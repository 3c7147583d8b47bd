//! One request and its answer on a connection to a backend, and then the next.
//!
//! It has no task of its own: it runs inside the request that uses it. So an answer does not
//! have to wake a second task, and a request that is dropped takes its connection along.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use hyper::body::Frame;
use hyper::http::request;
use hyper::{Method, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::http1::{self, Decoder, Encoder};
use super::request_body::{Fault, RequestBody};

/// Room for most heads, in bytes.
const USUAL_HEAD: usize = 1024;

/// What is read at once at most, in bytes.
const READ_AT_ONCE: usize = 64 * 1024;

thread_local! {
    /// What is read comes here first: where the next answer comes from is not known before, and
    /// room for it at every connection would push everything else out of the processor's caches.
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_AT_ONCE].into());
}

/// A connection to a backend, with at most one request on it.
#[derive(Debug)]
pub struct Exchange {
    stream: TcpStream,
    method: Method,
    /// What has come and was not taken yet.
    unread: Bytes,
    /// What has still to leave, from `at` on, before more of the body is asked for.
    unsent: Vec<u8>,
    at: usize,
    /// Where the rest of the request comes from, and how it is written.
    body: RequestBody,
    encoder: Encoder,
    sending: Sending,
    /// Whether a byte of the request has left.
    has_sent: bool,
    /// Whether the backend will take another request.
    keeps_open: bool,
}

#[derive(Debug)]
enum Sending {
    /// There may be more of the body.
    Body,
    /// What has still to leave is the rest.
    Rest,
    /// All of it has left.
    Finished,
    /// The backend takes no more, which is no matter if it answers all the same.
    Refused(io::Error),
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Lost {
    /// The client spoilt its body.
    Client(Fault),
    /// The connection broke, or what came was no answer.
    Broken(io::Error),
}

impl Exchange {
    /// On a connection that has just been made.
    pub fn new(stream: TcpStream) -> Exchange {
        Exchange {
            stream,
            method: Method::GET,
            unread: Bytes::new(),
            unsent: Vec::new(),
            at: 0,
            body: RequestBody::Empty,
            encoder: Encoder::Chunks,
            sending: Sending::Finished,
            has_sent: false,
            keeps_open: true,
        }
    }

    /// Forgets the request that was on it. Returns whether it can take another one, as far as can
    /// be told.
    pub fn finish(&mut self) -> bool {
        let is_over =
            self.keeps_open && matches!(self.sending, Sending::Finished) && self.unread.is_empty();
        self.body = RequestBody::Empty;
        self.unread = Bytes::new();
        is_over && self.is_quiet()
    }

    /// Whether nothing has come, not even the end.
    fn is_quiet(&self) -> bool {
        // Whoever waited for it before is forgotten: what happens now wakes nobody. The answer is
        // not asked for, since tokio withholds it from a task that has done enough for now.
        let quiet = &mut Context::from_waker(Waker::noop());
        let _ = self.stream.poll_read_ready(quiet);
        let would_block = |error: io::Error| error.kind() == io::ErrorKind::WouldBlock;
        self.stream.try_read(&mut [0]).is_err_and(would_block)
    }

    /// Starts a request, which must be well-formed, on a connection that is free. Small bodies
    /// leave together with the head.
    pub fn begin(&mut self, head: &request::Parts, body: RequestBody) -> Result<(), Fault> {
        self.method.clone_from(&head.method);
        self.encoder = Encoder::of(&head.headers);
        self.sending = Sending::Rest;
        self.has_sent = false;
        self.keeps_open = false;
        self.unsent = Vec::with_capacity(USUAL_HEAD);
        http1::write_head(&mut self.unsent, head);
        self.body = body;
        let whole = match &self.body {
            RequestBody::Empty => &[],
            RequestBody::Whole(whole) => &**whole,
            RequestBody::Streamed(_) => {
                self.sending = Sending::Body;
                return Ok(());
            }
        };
        let written = self.encoder.write(&mut self.unsent, whole);
        written.and_then(|()| self.encoder.end(&mut self.unsent)).map_err(|_| Fault::Broken)
    }

    /// The body of the request.
    pub fn body(&self) -> &RequestBody {
        &self.body
    }

    /// Takes the body of the request back.
    pub fn take_body(&mut self) -> RequestBody {
        std::mem::replace(&mut self.body, RequestBody::Empty)
    }

    /// Whether a byte of the request has left.
    pub fn has_sent(&self) -> bool {
        self.has_sent
    }

    /// Sends the request, and waits for the head of its answer. Nothing is sent if something has
    /// come before: the connection has ended, or what came is not an answer to this.
    pub fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<Decoder>, Lost>> {
        if !self.has_sent && !self.is_quiet() {
            return Poll::Ready(Err(Lost::Broken(broke_off())));
        }
        loop {
            self.send(cx).map_err(Lost::Client)?;
            let head = ready!(self.poll_head(cx)).map_err(Lost::Broken)?;
            match head.response.status() {
                // What comes before the answer itself concerns this connection alone, and hyper
                // has its own way to tell a client that it may go on.
                StatusCode::CONTINUE => self.body.open(),
                status
                    if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS => {}
                _ => {
                    self.keeps_open = head.keeps_open;
                    return Poll::Ready(Ok(head.response));
                }
            }
        }
    }

    /// Waits for the next part of an answer's body, which ends where `decoder` says. What is
    /// left of the request goes on meanwhile.
    pub fn poll_frame(
        &mut self,
        decoder: &mut Decoder,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Lost>>> {
        let sent = self.send(cx).map_err(Lost::Client);
        let frame = match sent {
            Ok(()) => ready!(self.poll_part(decoder, cx)).map_err(Lost::Broken),
            Err(lost) => Err(lost),
        };
        self.keeps_open &= frame.is_ok();
        Poll::Ready(frame.transpose())
    }

    fn poll_part(
        &mut self,
        decoder: &mut Decoder,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Frame<Bytes>>>> {
        loop {
            let frame = decoder.next(&mut self.unread).map_err(invalid)?;
            if frame.is_some() || decoder.is_over() {
                return Poll::Ready(Ok(frame));
            }
            if !ready!(self.poll_read(cx))? {
                return Poll::Ready(if decoder.end() { Ok(None) } else { Err(broke_off()) });
            }
        }
    }

    /// The socket, and what came after the answer.
    pub fn into_parts(self) -> (TcpStream, Bytes) {
        (self.stream, self.unread)
    }

    /// Sends as much of the request as can be sent now.
    fn send(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        while matches!(self.sending, Sending::Body | Sending::Rest) {
            match self.poll_send(cx) {
                Poll::Ready(sent) => sent?,
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// Sends what has still to leave, then sees to what comes after it.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        while self.at < self.unsent.len() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.unsent[self.at..])) {
                Ok(bytes) => {
                    self.has_sent |= bytes > 0;
                    self.at += bytes;
                }
                Err(error) => {
                    self.sending = Sending::Refused(error);
                    return Poll::Ready(Ok(()));
                }
            }
        }
        (self.unsent, self.at) = (Vec::new(), 0);
        let (Sending::Body, RequestBody::Streamed(body)) = (&self.sending, &mut self.body) else {
            self.sending = Sending::Finished;
            return Poll::Ready(Ok(()));
        };
        let written = match ready!(body.poll(cx)).transpose()? {
            Some(data) => self.encoder.write(&mut self.unsent, &data),
            None => {
                let ended = self.encoder.end(&mut self.unsent);
                ended.map(|()| self.sending = Sending::Rest)
            }
        };
        Poll::Ready(written.map_err(|_| Fault::Broken))
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<http1::Head>> {
        loop {
            if !self.unread.is_empty()
                && let Some(head) =
                    http1::read_head(&mut self.unread, &self.method).map_err(invalid)?
            {
                return Poll::Ready(Ok(head));
            }
            if !ready!(self.poll_read(cx))? {
                let refused = std::mem::replace(&mut self.sending, Sending::Finished);
                return Poll::Ready(Err(match refused {
                    Sending::Refused(error) => error,
                    Sending::Body | Sending::Rest | Sending::Finished => broke_off(),
                }));
            }
        }
    }

    /// Reads what there is; false at the end.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        if self.unread.is_empty() {
            // Even the end of a buffer keeps all of it.
            self.unread = Bytes::new();
        }
        READ.with_borrow_mut(|room| {
            let mut room = ReadBuf::new(room);
            ready!(Pin::new(&mut self.stream).poll_read(cx, &mut room))?;
            let came = room.filled();
            self.unread = match self.unread.is_empty() {
                true => Bytes::copy_from_slice(came),
                false => [&self.unread, came].concat().into(),
            };
            Poll::Ready(Ok(!came.is_empty()))
        })
    }
}

fn invalid(error: http1::Malformed) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn broke_off() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended before the answer did")
}
