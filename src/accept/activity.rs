//! How busy a connection is, and an end to those that are not.
//!
//! One timer a connection, which looks now and then whether anything was done: decision 16 has
//! what a timer set with every request costs.

use std::pin::Pin;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper_util::server::graceful::GracefulConnection;
use tokio::sync::SetOnce;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::body::Rest;
use super::watched::{Watch, Watched};

/// How long a connection that was made while we were closing may take to ask for something.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// For how long nothing may have been done on a connection that is being closed.
const GOODBYE: Duration = Duration::from_secs(5);

/// What goes on on one connection; a cheap handle.
#[derive(Clone, Debug)]
pub struct Activity(Arc<Counted>);

#[derive(Debug)]
struct Counted {
    start: Instant,
    under_way: AtomicU32,
    /// Milliseconds from the start to when something was last done.
    last: AtomicU64,
    heard: SetOnce<()>,
    rest: Mutex<Rest>,
    /// The status of the answer to what was no request; 0 if there was none.
    refused: AtomicU16,
}

/// A request under way, until this is dropped.
#[derive(Debug)]
pub struct Busy(Activity);

impl Activity {
    /// Of a connection that has just been made.
    pub fn new() -> Activity {
        Activity(Arc::new(Counted {
            start: Instant::now(),
            under_way: AtomicU32::new(0),
            last: AtomicU64::new(0),
            heard: SetOnce::new(),
            rest: Mutex::default(),
            refused: AtomicU16::new(0),
        }))
    }

    /// A request begins; it ends when what is returned is dropped.
    pub fn begin(&self) -> Busy {
        // All but the first time it is set already.
        let _ = self.0.heard.set(());
        self.0.under_way.fetch_add(1, Ordering::Relaxed);
        Busy(self.clone())
    }

    /// `io`, with what the client takes of an answer seen here: one that is slow to read is
    /// not idle.
    pub fn watch<T>(&self, io: T) -> Watched<T, Activity> {
        Watched::new(io, self.clone())
    }

    /// Something was done.
    pub fn touch(&self) {
        let last = self.0.start.elapsed().as_millis();
        self.0.last.store(u64::try_from(last).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// What is left of the last request's body.
    pub(super) fn rest(&self) -> MutexGuard<'_, Rest> {
        self.0.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request is under way.
    pub(super) fn is_busy(&self) -> bool {
        self.0.under_way.load(Ordering::Relaxed) > 0
    }

    /// Whether what comes next, if anything, is a request.
    pub(super) fn awaits_request(&self) -> bool {
        !self.is_busy() && matches!(*self.rest(), Rest::Nothing)
    }

    /// Whether the client may still be sending what nobody will read.
    pub(super) fn is_interrupted(&self) -> bool {
        !matches!(*self.rest(), Rest::Nothing | Rest::Tunnel)
    }

    /// What came was no request, and was answered with `status`.
    pub(super) fn refuse(&self, status: u16) {
        *self.rest() = Rest::Spoilt;
        self.0.refused.store(status, Ordering::Relaxed);
    }

    /// The status that was answered to what was no request, if anything was.
    pub fn refused(&self) -> Option<u16> {
        Some(self.0.refused.load(Ordering::Relaxed)).filter(|status| *status > 0)
    }

    /// The connection is a tunnel from now on.
    pub fn becomes_tunnel(&self) {
        *self.rest() = Rest::Tunnel;
    }

    /// Whether it has become one.
    pub(super) fn is_tunnel(&self) -> bool {
        matches!(*self.rest(), Rest::Tunnel)
    }

    /// Resolves when nothing has been done for so long.
    async fn idle(&self, limit: Duration) {
        loop {
            let last = Duration::from_millis(self.0.last.load(Ordering::Relaxed));
            let idle = self.0.start.elapsed().saturating_sub(last);
            if self.is_busy() {
                sleep(limit).await;
            } else if idle < limit {
                sleep(limit - idle).await;
            } else {
                return;
            }
        }
    }
}

impl Default for Activity {
    fn default() -> Activity {
        Activity::new()
    }
}

impl Watch for Activity {
    fn left(&mut self, _bytes: usize) {
        self.touch();
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.touch();
        self.0.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs `connection` until either side ends it, until it was idle for `limit`, or until
/// `closing` and the requests under way are answered.
pub async fn keep<C: GracefulConnection>(
    connection: C,
    activity: &Activity,
    limit: Duration,
    closing: &CancellationToken,
) -> Result<(), C::Error> {
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        ended = &mut connection => return ended,
        () = activity.idle(limit) => return close(connection, activity).await,
        () = closing.cancelled() => {}
    }
    // hyper hangs up on a connection without a request yet; it is on its way.
    let first_request = async {
        tokio::select! {
            ended = &mut connection => Some(ended),
            _ = activity.0.heard.wait() => None,
        }
    };
    if let Ok(Some(ended)) = timeout(FIRST_REQUEST, first_request).await {
        return ended;
    }
    close(connection, activity).await
}

/// Ends `connection` after the requests under way, and those that the client sent before it
/// knew; whoever owes us something that does not come is not waited for.
async fn close<C: GracefulConnection>(
    mut connection: Pin<&mut C>,
    activity: &Activity,
) -> Result<(), C::Error> {
    connection.as_mut().graceful_shutdown();
    activity.touch();
    tokio::select! {
        ended = connection => ended,
        () = activity.idle(GOODBYE) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    /// Whether the connection is idle within `seconds` from now.
    async fn ends_within(activity: &Activity, seconds: u64) -> bool {
        timeout(Duration::from_secs(seconds), activity.idle(TIMEOUT)).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_when_nothing_was_done_for_so_long() {
        let activity = Activity::new();
        assert!(!ends_within(&activity, 29).await);
        activity.touch();
        assert!(!ends_within(&activity, 29).await);
        assert!(ends_within(&activity, 2).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_with_a_request_is_not_idle_however_long_that_takes() {
        let activity = Activity::new();
        let (first, second) = (activity.begin(), activity.begin());
        assert!(!ends_within(&activity, 1000).await);
        drop(first);
        assert!(!ends_within(&activity, 1000).await);
        drop(second);
        assert!(!ends_within(&activity, 29).await);
        assert!(ends_within(&activity, 2).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_an_answer_slowly_is_not_idle() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let activity = Activity::new();
        let (server, mut client) = tokio::io::duplex(1);
        let mut server = activity.watch(server);
        for _ in 0..5 {
            server.write_all(b"x").await.unwrap();
            assert!(!ends_within(&activity, 20).await);
            client.read_u8().await.unwrap();
        }
        assert!(ends_within(&activity, 20).await);
    }
}
