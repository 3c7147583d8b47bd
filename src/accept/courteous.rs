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
use super::refused::{Line, Preface, Refused};
use super::reset::Socket;

/// The most that is read after a connection's last answer, in bytes. A client that has still more
/// to send may not get to read it.
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
    /// What the client may still turn out to speak.
    protocols: Protocols,
    line: Line,
    preface: Preface,
    /// Whether it turned out to be HTTP/2.
    is_http2: bool,
    /// Whether an answer has begun and is not all gone; a tunnel is one without an end.
    is_answering: bool,
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
            line: Line::default(),
            preface: Preface::default(),
            is_http2: false,
            is_answering: false,
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
        self.line = self.line.after(bytes);
        // HTTP/2 begins with its preface at once: not even an empty line may come before.
        if self.preface == Preface::default() && matches!(bytes[0], b'\r' | b'\n') {
            self.protocols = Protocols::Http1;
        }
        let visible = self.preface.take(bytes);
        match self.protocols {
            Protocols::Http2 if self.preface.is_whole() => self.is_http2 = true,
            Protocols::Http2 if self.preface.may_come() => {}
            // In the middle of a body it is anything.
            _ if visible < bytes.len() && self.activity.awaits_request() => {
                buffer.set_filled(before + visible);
                self.line = Line::Ended { other_version: true };
            }
            _ => self.protocols = Protocols::Http1,
        }
    }

    /// Our own answer to what hyper refuses with `bytes`, if it does.
    fn refuse(&mut self, bytes: &[u8]) -> Option<usize> {
        let line = std::mem::take(&mut self.line);
        self.preface = Preface::default();
        // What follows the beginning of an answer is its body, and may look like anything.
        if std::mem::replace(&mut self.is_answering, true) {
            return None;
        }
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
        let is_busy = self.activity.is_busy();
        if is_busy && self.io.is_reset(cx) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        ready!(self.poll_instead(cx))?;
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        // hyper asks for this once it has written all that there was.
        self.is_answering &= is_busy;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.has_shut_down {
            ready!(self.poll_instead(cx))?;
            ready!(Pin::new(&mut self.io).poll_shutdown(cx))?;
            self.has_shut_down = true;
        }
        // The other way through a tunnel goes on.
        if self.activity.is_tunnel() {
            return Poll::Ready(Ok(()));
        }
        // What is there already is taken in any case.
        match self.poll_afterwards(cx) {
            Poll::Pending if self.activity.is_interrupted() => Poll::Pending,
            _ => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    /// What hyper sees of a connection on which these bytes come, in two pieces, and then its end.
    async fn seen(protocols: Protocols, first: &[u8], second: &[u8]) -> Vec<u8> {
        let mut io = Courteous::new(AsyncReadExt::chain(first, second), Activity::new(), protocols);
        let mut seen = Vec::new();
        while !seen.ends_with(NONSENSE) && io.read_buf(&mut seen).await.unwrap() > 0 {}
        seen
    }

    #[tokio::test]
    async fn the_preface_of_http_2_is_spoken_or_cut_wherever_its_pieces_part() {
        let whole = [PREFACE, b"\0\0\0\x04"].concat();
        let head = &PREFACE[..18];
        let without_nonsense = |seen: Vec<u8>| match seen.strip_suffix(NONSENSE) {
            Some(seen) => seen.to_vec(),
            None => seen,
        };
        for at in 0..whole.len() {
            let (first, second) = whole.split_at(at);
            assert_eq!(seen(Protocols::Http2, first, second).await, whole, "{at}");
            let seen_in_1 = without_nonsense(seen(Protocols::Http1, first, second).await);
            assert_eq!(seen_in_1, head, "{at}");
            // Behind an empty line it is nowhere spoken.
            let first = [b"\r\n", first].concat();
            let seen_behind = without_nonsense(seen(Protocols::Http2, &first, second).await);
            assert_eq!(seen_behind, [b"\r\n", head].concat(), "{at}");
        }
    }

    #[tokio::test]
    async fn what_is_no_preface_of_http_2_is_seen_as_it_is() {
        let request = b"PRI * HTTP/1.1\r\n\r\nSM\r\n\r\n";
        for at in 0..request.len() {
            let (first, second) = request.split_at(at);
            for protocols in [Protocols::Http1, Protocols::Http2] {
                let expected = [&request[..], NONSENSE].concat();
                assert_eq!(seen(protocols, first, second).await, expected, "{at}");
            }
        }
    }

    impl Socket for DuplexStream {
        fn is_reset(&self, _: &mut Context<'_>) -> bool {
            false
        }
    }

    #[tokio::test]
    async fn a_tunnel_that_closes_one_way_keeps_what_comes_the_other_way() {
        let (mut client, io) = tokio::io::duplex(64);
        let activity = Activity::new();
        let mut io = Courteous::new(io, activity.clone(), Protocols::Http2);
        activity.becomes_tunnel();
        client.write_all(b"still here").await.unwrap();
        io.shutdown().await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = String::new();
        io.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "still here");
    }
}
