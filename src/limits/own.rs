//! Limits of clients' own: kept in a store, and in force in a limiter.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{MissedTickBehavior, interval};

use super::bucket::Limit;
use super::key::{ClientId, InvalidClientId};
use super::limiter::Limiter;
use super::store::{Change, Store, StoreError};

/// Limits that there may be: each costs about 200 bytes on every gateway.
pub const MOST: usize = 100_000;

/// How often to ask the store whether anything changed: a change elsewhere is in force here
/// within a second, twice over.
const POLL: Duration = Duration::from_millis(500);

/// Parts of the limiter's table that are looked through at each poll; all of it in seconds.
const SWEPT_AT_ONCE: usize = 8;

/// Clones are handles to the same limits.
#[derive(Clone)]
pub struct OwnLimits(Arc<Inner>);

struct Inner {
    store: Store,
    limiter: Limiter,
    known: RwLock<Arc<BTreeMap<ClientId, Limit>>>,
    /// Of what is known. Held while reading, so that nobody puts older limits over newer.
    version: Mutex<Option<String>>,
}

/// Why a change or a question came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum OwnLimitsError {
    /// [`MOST`] clients have limits of their own.
    #[error("there are {MOST} limits already")]
    Full,
    /// See [`StoreError`].
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The change was tried, and no answer says that it was made. A failure that changed nothing
    /// is not told apart from one that did.
    #[error("nobody knows whether a change was made: {0}")]
    InDoubt(StoreError),
}

impl OwnLimits {
    /// The limits in `store`, which [`OwnLimits::keep`] brings into force in `limiter`.
    pub fn new(store: Store, limiter: Limiter) -> OwnLimits {
        let (known, version) = (RwLock::default(), Mutex::default());
        OwnLimits(Arc::new(Inner { store, limiter, known, version }))
    }

    /// The client that an operator calls `text`.
    pub fn client(&self, text: &str) -> Result<ClientId, InvalidClientId> {
        ClientId::parse(text, self.0.limiter.nat64())
    }

    /// Makes the change, and brings it into force here before it returns: whether there was
    /// anything to change. It is in force on every other gateway within a second.
    pub async fn change(&self, change: Change) -> Result<bool, OwnLimitsError> {
        self.refresh().await?;
        if let Change::Create(id, _) | Change::Put(id, _) = &change {
            let known = self.known();
            if known.len() >= MOST && !known.contains_key(id) {
                return Err(OwnLimitsError::Full);
            }
        }
        let done = self.0.store.apply(change).await.map_err(OwnLimitsError::InDoubt)?;
        self.refresh().await.map_err(OwnLimitsError::InDoubt)?;
        Ok(done)
    }

    /// The client's own limit, as the store has it now.
    pub async fn get(&self, id: &ClientId) -> Result<Option<Limit>, OwnLimitsError> {
        self.refresh().await?;
        Ok(self.known().get(id).copied())
    }

    /// At most `most` limits, those after `after`, in the order of their ids; and whether
    /// there are more.
    pub async fn page(
        &self,
        after: Option<&ClientId>,
        most: usize,
    ) -> Result<(Vec<(ClientId, Limit)>, bool), OwnLimitsError> {
        self.refresh().await?;
        let known = self.known();
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut rest = known.range((start, Bound::Unbounded));
        let page = rest.by_ref().take(most).map(|(id, limit)| (id.clone(), *limit)).collect();
        Ok((page, rest.next().is_some()))
    }

    /// Brings changes that others made into force, and drops buckets that are full again,
    /// forever. While the store is away, what was known stays in force.
    pub async fn keep(&self) {
        let mut ticks = interval(POLL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut turn, mut well) = (0, true);
        loop {
            ticks.tick().await;
            for _ in 0..SWEPT_AT_ONCE {
                self.0.limiter.sweep(turn);
                turn += 1;
            }
            let refreshed = self.refresh().await;
            match &refreshed {
                Ok(()) if !well => tracing::info!("limits can be read again"),
                Err(error) if well => tracing::warn!(%error, "keeping the limits that are known"),
                _ => {}
            }
            well = refreshed.is_ok();
        }
    }

    /// Reads what is in the store, if that is not known already.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let inner = &*self.0;
        let mut version = inner.version.lock().await;
        if *version == Some(inner.store.version().await?) {
            return Ok(());
        }
        let snapshot = inner.store.read().await?;
        inner.limiter.set_own(&snapshot.limits);
        let known = Arc::new(snapshot.limits.into_iter().collect());
        *inner.known.write().unwrap_or_else(PoisonError::into_inner) = known;
        *version = Some(snapshot.version);
        Ok(())
    }

    fn known(&self) -> Arc<BTreeMap<ClientId, Limit>> {
        self.0.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
