//! A socket that notes whether anything went either way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::net::TcpStream;

use crate::accept::{Watch, Watched};

/// What was noted of a socket.
#[derive(Clone, Debug, Default)]
pub struct Notes(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    sent: AtomicBool,
    received: AtomicBool,
}

impl Notes {
    /// Notes nothing so far.
    pub fn clear(&self) {
        self.0.sent.store(false, Ordering::Relaxed);
        self.0.received.store(false, Ordering::Relaxed);
    }

    /// Whether a byte was sent since they were cleared.
    pub fn sent(&self) -> bool {
        self.0.sent.load(Ordering::Relaxed)
    }

    /// Whether a byte was received since they were cleared.
    pub fn received(&self) -> bool {
        self.0.received.load(Ordering::Relaxed)
    }
}

impl Watch for Notes {
    fn came(&mut self, _bytes: &[u8]) {
        self.0.received.store(true, Ordering::Relaxed);
    }

    fn left(&mut self, _bytes: usize) {
        self.0.sent.store(true, Ordering::Relaxed);
    }
}

/// A socket whose traffic is noted.
pub type Noted = Watched<TcpStream, Notes>;
