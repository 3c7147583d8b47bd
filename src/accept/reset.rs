//! Clients that are gone for certain. One that has only closed its sending side waits for its
//! answer; one whose connection was reset does not.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use tokio::io::Interest;
use tokio::net::TcpStream;

/// A connection by TCP.
pub trait Socket {
    /// Whether the client has reset it. The task is woken when it does, unless the client had
    /// closed its sending side before: then the next to ask finds out.
    fn is_reset(&self, cx: &mut Context<'_>) -> bool;
}

impl Socket for TcpStream {
    fn is_reset(&self, cx: &mut Context<'_>) -> bool {
        if self.poll_read_ready(cx).is_pending() {
            return false;
        }
        // What can be read may be anything, so it is asked once more and nobody is woken. An end
        // can be read for ever.
        let asked = pin!(self.ready(Interest::ERROR)).poll(&mut Context::from_waker(Waker::noop()));
        matches!(asked, Poll::Ready(Ok(ready)) if ready.is_error())
    }
}
