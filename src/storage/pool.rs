//! Sessions for reading: so many at once, kept while they are good.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout_at};

use super::session::{Purpose, Session};
use super::{DatabaseOptions, StorageError};

/// A session that has just been used has proven itself; one that has been idle for longer has
/// not, and its server may have become a standby meanwhile.
const PROVEN: Duration = Duration::from_millis(250);

/// The longest that a session is kept, and the longest without being used.
const LIFETIME: Duration = Duration::from_secs(1800);
const IDLE: Duration = Duration::from_secs(600);

/// The pause before connecting again; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// Sessions that are there or may be made.
#[derive(Debug)]
pub(super) struct Pool {
    options: DatabaseOptions,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Kept>>,
    /// Moves on when the server is left: sessions from before are not used any more.
    generation: AtomicU64,
}

/// A session on loan; one that is not given back is closed.
#[derive(Debug)]
pub(super) struct Lent {
    kept: Kept,
    _permit: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct Kept {
    session: Session,
    generation: u64,
    since: Instant,
    used: Instant,
}

impl Pool {
    /// Nothing is connected before the first use.
    pub fn new(options: DatabaseOptions) -> Pool {
        let permits = Arc::new(Semaphore::new(options.max_connections as usize));
        Pool { options, permits, idle: Mutex::default(), generation: AtomicU64::new(0) }
    }

    /// What it was made from.
    pub fn options(&self) -> &DatabaseOptions {
        &self.options
    }

    /// A session that works, waited for as long as the options allow.
    pub async fn acquire(&self) -> Result<Lent, StorageError> {
        let deadline = Instant::now() + self.options.acquire_timeout;
        let permit = timeout_at(deadline, self.permits.clone().acquire_owned()).await;
        let all_taken = |_| StorageError::Unavailable("all connections are in use".into());
        let closed = |_| StorageError::Unavailable("the connections are closed".into());
        let permit = permit.map_err(all_taken)?.map_err(closed)?;
        let mut pause = FIRST_PAUSE;
        loop {
            while let Some(mut kept) = self.take_kept() {
                let proven = kept.used.elapsed() < PROVEN;
                if proven || kept.answers(deadline).await {
                    return Ok(Lent { kept, _permit: permit });
                }
            }
            match self.connect(deadline).await {
                Ok(kept) => return Ok(Lent { kept, _permit: permit }),
                // Another session may have been given back meanwhile.
                Err(StorageError::Unavailable(_)) if Instant::now() + pause < deadline => {
                    sleep(pause).await;
                    pause *= 2;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes `lent` back, for the next one.
    pub fn give_back(&self, mut lent: Lent) {
        lent.kept.used = Instant::now();
        let mut idle = self.idle();
        idle.retain(|kept| kept.used.elapsed() < IDLE);
        if self.is_good(&lent.kept) && !self.permits.is_closed() {
            idle.push(lent.kept);
        }
    }

    /// How often the server was left.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Leaves the server: all sessions are closed, the next ones are made anew, wherever the
    /// address leads by then.
    pub fn leave(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.idle().clear();
    }

    /// Closes it for ever, once nobody uses it.
    pub async fn close(&self) {
        // Cannot fail: only this closes it, below.
        let _all = self.permits.acquire_many(self.options.max_connections).await;
        self.permits.close();
        let idle = std::mem::take(&mut *self.idle());
        for kept in idle {
            kept.session.close().await;
        }
    }

    async fn connect(&self, deadline: Instant) -> Result<Kept, StorageError> {
        let (since, generation) = (Instant::now(), self.generation());
        let connecting = timeout_at(deadline, Session::connect(&self.options, Purpose::Work)).await;
        let too_late = |_| {
            let (at, patience) = (self.options.location(), self.options.acquire_timeout);
            StorageError::Unavailable(format!("{at}: no connection within {patience:?}"))
        };
        let session = connecting.map_err(too_late)??;
        Ok(Kept { session, generation, since, used: since })
    }

    fn take_kept(&self) -> Option<Kept> {
        let mut idle = self.idle();
        std::iter::from_fn(|| idle.pop()).find(|kept| self.is_good(kept))
    }

    fn is_good(&self, kept: &Kept) -> bool {
        kept.generation == self.generation() && kept.since.elapsed() < LIFETIME
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Kept>> {
        // Nothing that may panic happens under this lock.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    async fn answers(&mut self, deadline: Instant) -> bool {
        matches!(timeout_at(deadline, self.session.check_again()).await, Ok(Ok(())))
    }
}

impl Lent {
    /// What was lent.
    pub fn session(&mut self) -> &mut Session {
        &mut self.kept.session
    }
}
