//! The threads that serve connections: one a core, each with a runtime of its own.
//!
//! A connection stays on the thread that it was given to, and so do a gateway's connections to
//! backends that are made for it: no request is handed from one core to another, which costs
//! more than much that is done for it.

use std::cell::Cell;
use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::lifecycle::Lifecycle;
use crate::telemetry::is_news;

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(0) };
}

/// Threads that serve connections for as long as this lives.
#[derive(Debug)]
pub struct Workers {
    threads: Vec<Handle>,
    next: AtomicUsize,
    _running: DropGuard,
}

impl Workers {
    /// Starts [`count`] threads; each of them belongs to `lifecycle`, and is called `name` there.
    pub fn start(name: &'static str, lifecycle: &Lifecycle) -> io::Result<Workers> {
        let stop = CancellationToken::new();
        let threads = (0..count()).map(|number| {
            let stop = stop.clone();
            lifecycle.spawn_on_thread(name, async move {
                NUMBER.set(number);
                stop.cancelled().await;
            })
        });
        let threads = threads.collect::<io::Result<_>>()?;
        Ok(Workers { threads, next: AtomicUsize::new(0), _running: stop.drop_guard() })
    }

    /// Runs `serve` for `stream` on the thread whose turn it is, until it is done. In turn,
    /// because that keeps them even, where the kernel's choice by hash does not.
    pub async fn run<Serving>(
        &self,
        stream: TcpStream,
        serve: impl FnOnce(TcpStream) -> Serving + Send + 'static,
    ) where
        Serving: Future<Output = ()> + Send + 'static,
    {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        // Out of the hands of this thread's runtime, and into those of the other's.
        let stream = match stream.into_std() {
            Ok(stream) => stream,
            Err(error) => {
                if is_news("cannot hand a connection over", &error.to_string()) {
                    tracing::warn!(%error, "cannot hand a connection over");
                }
                return;
            }
        };
        let serving = self.threads[turn % self.threads.len()].spawn(async move {
            match TcpStream::from_std(stream) {
                Ok(stream) => serve(stream).await,
                Err(error) if is_news("cannot take a connection over", &error.to_string()) => {
                    tracing::warn!(%error, "cannot take a connection over");
                }
                Err(_) => {}
            }
        });
        // A panic is reported by the hook, and ends nothing but its connection.
        let _ = serving.await;
    }
}

/// How many threads there are.
pub fn count() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// The number of this thread, below [`count`]; 0 for all that are none of them.
pub fn current() -> usize {
    NUMBER.get()
}
