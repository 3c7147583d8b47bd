//! A connection on which somebody sees the bytes go by.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::reset::Socket;

/// Somebody who is told what goes over a connection, and changes nothing of it.
pub trait Watch: Unpin {
    /// These bytes have come; an error keeps them from whoever reads.
    fn came(&mut self, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }

    /// So many bytes have left, at least one.
    fn left(&mut self, bytes: usize);
}

/// A connection and who watches it.
#[derive(Debug)]
pub struct Watched<T, W> {
    io: T,
    watch: W,
}

impl<T, W: Watch> Watched<T, W> {
    /// `watch` is told from now on what goes over `io`.
    pub fn new(io: T, watch: W) -> Watched<T, W> {
        Watched { io, watch }
    }

    fn tell(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes @ 1..)) = written {
            self.watch.left(bytes);
        }
        written
    }
}

impl<T: Socket, W> Socket for Watched<T, W> {
    fn is_reset(&self, cx: &mut Context<'_>) -> bool {
        self.io.is_reset(cx)
    }
}

impl<T: AsyncRead + Unpin, W: Watch> AsyncRead for Watched<T, W> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buffer))?;
        let bytes = &buffer.filled()[before..];
        if !bytes.is_empty() {
            self.watch.came(bytes)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin, W: Watch> AsyncWrite for Watched<T, W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.tell(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.tell(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
