//! A connection that says what was wrong, and ends so that it can be heard.
//!
//! hyper closes a connection as soon as nothing more is to be said. A client that is still
//! sending then gets a reset, often before it has read its answer: so first the sending side is
//! closed, and what still comes is read and thrown away (RFC 9112, 9.6). How long that may take
//! is the connection's time without anything done.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::activity::Activity;
use super::refused::{HTTP2, HTTP2_LINE, Line, Refused};
use super::reset::Socket;

/// The most that is read after a connection's last answer, in bytes: several times the largest
/// body that anybody lets pass.
const MOST_AFTERWARDS: usize = 64 * 1024 * 1024;

/// What is read at once then.
const ROOM: usize = 16 * 1024;

/// No head goes on like this, and hyper looks at once when a head seems to be over.
const NONSENSE: &[u8] = b"\0\r\n\r\n";

/// What a client may speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocols {
    /// HTTP/1.1, and 1.0.
    Http1,
    /// HTTP/2 too.
    Http2,
}

/// A connection whose answers in plain HTTP/1.1 are all like ours, and which ends in stages.
#[derive(Debug)]
pub struct Courteous<T> {
    io: T,
    activity: Activity,
    protocols: Protocols,
    line: Line,
    /// Whether it turned out to be HTTP/2.
    is_http2: bool,
    /// Our own words in place of hyper's, as far as they have not left.
    instead: Bytes,
    has_shut_down: bool,
    afterwards: usize,
}

impl<T> Courteous<T> {
    /// `io` with manners; `activity` knows what goes on on it.
    pub fn new(io: T, activity: Activity, protocols: Protocols) -> Courteous<T> {
        Courteous {
            io,
            activity,
            protocols,
            line: Line::Unbegun,
            is_http2: false,
            instead: Bytes::new(),
            has_shut_down: false,
            afterwards: 0,
        }
    }

    /// Sees what has come to the end of `buffer`, and what hyper had better see of it.
    fn came(&mut self, buffer: &mut ReadBuf<'_>, before: usize) {
        let bytes = &buffer.filled()[before..];
        if bytes.is_empty() {
            // In the middle of a head that is an error which has an answer; hyper would go
            // without a word.
            let has_room = buffer.remaining() >= NONSENSE.len();
            if has_room && self.line != Line::Unbegun && self.activity.awaits_request() {
                buffer.put_slice(NONSENSE);
            }
            return;
        }
        let is_first = self.line == Line::Unbegun;
        self.line = self.line.after(bytes);
        match self.protocols {
            Protocols::Http1 if is_first && bytes.starts_with(HTTP2_LINE) => {
                buffer.set_filled(before + HTTP2_LINE.len());
            }
            Protocols::Http2 if is_first => self.is_http2 = bytes.starts_with(HTTP2),
            _ => {}
        }
    }

    /// Our own answer to what hyper refuses with `bytes`, if it does.
    fn refuse(&mut self, bytes: &[u8]) -> Option<usize> {
        let line = std::mem::take(&mut self.line);
        let refused = Refused::in_bare(bytes, line)?;
        self.instead = refused.answer(bytes);
        self.activity.refuse(refused.status());
        Some(bytes.len())
    }
}

impl<T: AsyncWrite + Unpin> Courteous<T> {
    fn poll_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.instead.is_empty() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.instead))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.instead.advance(written),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> Courteous<T> {
    /// Ready once the client has nothing more to say, or too much.
    fn poll_afterwards(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut room = [const { MaybeUninit::uninit() }; ROOM];
        while self.afterwards < MOST_AFTERWARDS {
            let mut buffer = ReadBuf::uninit(&mut room);
            match ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => self.afterwards += buffer.filled().len(),
                _ => break,
            }
        }
        Poll::Ready(())
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Courteous<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        if !self.is_http2 {
            self.came(buffer, before);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Socket + Unpin> AsyncWrite for Courteous<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.refuse(bytes) {
            Some(taken) => Poll::Ready(Ok(taken)),
            None => Pin::new(&mut self.io).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        // An answer of hyper's own has no body.
        match slices.first().and_then(|first| self.refuse(first)) {
            Some(taken) => Poll::Ready(Ok(taken)),
            None => Pin::new(&mut self.io).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    /// Called while an answer is made, too, and fails if there is nobody who waits for it.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.activity.is_busy() && self.io.is_reset(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        ready!(self.poll_instead(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.has_shut_down {
            ready!(self.poll_instead(cx))?;
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
            self.has_shut_down = true;
        }
        // What is there already is taken in any case.
        match self.poll_afterwards(cx) {
            Poll::Pending if self.activity.is_interrupted() => Poll::Pending,
            _ => Poll::Ready(Ok(())),
        }
    }
}
