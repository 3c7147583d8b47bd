//! Who is in the table: what the configuration names, what DNS says, what the operator adds,
//! drains and removes.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::{self, BackendUrl, MAX_BACKENDS};

use super::backend::{Backend, BackendId};
use super::health::Health;
use super::resolve::Itself;
use super::table::{Entry, Job, Source, SourceId, Table};

/// How a source comes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Whether the configuration names it.
    pub configured: bool,
    /// Whether its backends are believed to be well until they show otherwise: only when
    /// there is nobody else to serve requests, as at the start.
    pub presumed: bool,
}

/// Why a backend was not added.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// It, or a host name that leads to it, is here already.
    #[error("this backend is here already")]
    Exists,
    /// There are as many as may be.
    #[error("there are {MAX_BACKENDS} backends already, which is the limit")]
    Full,
    /// Its name leads nowhere.
    #[error("its name has no address")]
    Unresolved,
    /// Requests would go round in circles.
    #[error(transparent)]
    Itself(Itself),
}

/// No backend and no source has this name.
#[derive(Debug, thiserror::Error)]
#[error("no such backend")]
pub struct UnknownBackend;

impl Table {
    /// Adds what `origin` leads to. A host name stays even if it leads nowhere now. What the
    /// operator took out is back with this, and leaves with the configuration as before.
    pub fn add(
        &mut self,
        origin: BackendUrl,
        addresses: &[SocketAddr],
        arrival: Arrival,
        now: Instant,
    ) -> Result<(), AddError> {
        let name = origin.name();
        let is_here = |entry: &Entry| entry.backend.name() == name && !entry.draining;
        let sources = self.sources.iter().filter(|source| !source.is_out());
        if sources.clone().any(|source| source.origin.name() == name)
            || self.entries.iter().any(is_here)
        {
            return Err(AddError::Exists);
        }
        if self.entries.len() >= MAX_BACKENDS || sources.count() >= MAX_BACKENDS {
            return Err(AddError::Full);
        }
        let out = self.sources.extract_if(.., |source| source.origin.name() == name).next();
        let id = SourceId(self.next_id());
        let gone = CancellationToken::new();
        if origin.address().is_none() {
            self.jobs.push(Job::Resolve(id, origin.clone(), gone.clone()));
        }
        let configured = arrival.configured || out.is_some();
        self.sources.push(Source { id, origin, configured, left_out: Vec::new(), gone });
        self.join_new(id, addresses, arrival.presumed, now);
        Ok(())
    }

    /// The host name `id` leads to `addresses` now: those that are missing are drained, new
    /// ones join, at once if there is nobody else. Whether anything changed.
    pub fn resolved(&mut self, id: SourceId, addresses: &[SocketAddr], now: Instant) -> bool {
        let drained = self.drain_missing(id, addresses);
        let presumed = !self.has_available();
        self.join_new(id, addresses, presumed, now) || drained
    }

    /// Whether those that the host name `name` has led to are of IPv4; none if it has led nowhere.
    pub fn is_ipv4(&self, name: &str) -> Option<bool> {
        let mut entries = self.entries.iter().filter(|it| it.origin == name && !it.draining);
        entries.next().map(|entry| entry.backend.address().is_ipv4())
    }

    /// Whether there is a backend that would be picked for being well.
    pub fn has_available(&self) -> bool {
        self.entries.iter().any(Entry::is_available)
    }

    /// Gives the backend `name`, or all those of the host name `name`, no more requests.
    pub fn drain(&mut self, name: &str) -> Result<(), UnknownBackend> {
        let leaving = self.take_out(name)?;
        for entry in self.entries.iter_mut().filter(|it| leaving.contains(&it.backend.id())) {
            entry.draining = true;
        }
        Ok(())
    }

    /// Forgets the backend `name`, or all those of the host name `name`, at once. Requests
    /// under way go on.
    pub fn remove(&mut self, name: &str) -> Result<(), UnknownBackend> {
        let leaving = self.take_out(name)?;
        for entry in self.entries.extract_if(.., |it| leaving.contains(&it.backend.id())) {
            entry.forget();
            self.removed.push(entry.backend);
        }
        Ok(())
    }

    /// Goes on with other settings and other configured backends. Those that are named no
    /// more are drained; those that were added at runtime stay, and what the operator took out
    /// stays away. The new ones are left for the caller to add.
    pub fn reconfigure(
        &mut self,
        options: Arc<config::Upstream>,
        origins: &[BackendUrl],
        now: Instant,
    ) {
        self.options = options;
        self.tick(now);
        let named = |source: &Source| {
            origins.iter().find(|origin| origin.name() == source.origin.name()).cloned()
        };
        for source in &mut self.sources {
            if let Some(origin) = named(source) {
                let entries = self.entries.iter_mut().filter(|it| it.source == source.id);
                entries.for_each(|entry| entry.weight = origin.weight);
                (source.origin, source.configured) = (origin, true);
                if source.is_out() {
                    let source = source.origin.name();
                    tracing::info!(
                        source,
                        "a configured backend stays away: the operator took it out"
                    );
                }
            }
        }
        let is_unnamed = |source: &mut Source| source.configured && named(source).is_none();
        for source in self.sources.extract_if(.., is_unnamed) {
            source.gone.cancel();
            let entries = self.entries.iter_mut().filter(|it| it.source == source.id);
            entries.for_each(|entry| entry.draining = true);
        }
    }

    /// Those of `origins` that are not here, and were not taken out by the operator either.
    pub fn unknown(&self, origins: &[BackendUrl]) -> Vec<BackendUrl> {
        let is_new = |origin: &&BackendUrl| {
            !self.sources.iter().any(|source| source.origin.name() == origin.name())
        };
        origins.iter().filter(is_new).cloned().collect()
    }

    /// Closes the draining backends and lets go of those that are finished; to be called
    /// when nobody can pick them any more. Whether any went.
    pub fn dismiss(&mut self) -> bool {
        self.removed.drain(..).for_each(|backend| backend.dismiss());
        let finished = |entry: &mut Entry| entry.draining && entry.backend.close();
        let gone: Vec<Entry> = self.entries.extract_if(.., finished).collect();
        for entry in &gone {
            entry.forget();
            entry.backend.dismiss();
        }
        !gone.is_empty()
    }

    /// Tasks to be started since the last call.
    pub fn take_jobs(&mut self) -> Vec<Job> {
        std::mem::take(&mut self.jobs)
    }

    /// Drains backends of the source `id` that are not in `addresses`; whether there were any.
    fn drain_missing(&mut self, id: SourceId, addresses: &[SocketAddr]) -> bool {
        let mut changed = false;
        let of_source = self.entries.iter_mut().filter(|entry| entry.source == id);
        for entry in of_source.filter(|entry| !addresses.contains(&entry.backend.address())) {
            changed |= !std::mem::replace(&mut entry.draining, true);
        }
        changed
    }

    /// Lets those of `addresses` in that are not here; whether there were any.
    fn join_new(
        &mut self,
        id: SourceId,
        addresses: &[SocketAddr],
        presumed: bool,
        now: Instant,
    ) -> bool {
        let mut sources = self.sources.iter_mut().filter(|source| !source.is_out());
        let Some(source) = sources.find(|source| source.id == id) else {
            return false;
        };
        source.left_out.retain(|address| addresses.contains(address));
        let (origin, left_out) = (source.origin.clone(), source.left_out.clone());

        let mut changed = false;
        for address in addresses.iter().filter(|address| !left_out.contains(address)) {
            let mut here = self.entries.iter_mut();
            if let Some(entry) = here.find(|entry| entry.backend.address() == *address) {
                if entry.draining {
                    // Back before it was gone.
                    entry.backend.reopen();
                    (entry.draining, entry.source) = (false, id);
                    (entry.origin, entry.weight) = (origin.name(), origin.weight);
                    changed = true;
                }
                continue;
            }
            if self.entries.len() >= MAX_BACKENDS {
                tracing::warn!(source = origin.name(), %address, "left out: there are too many backends");
                break;
            }
            self.join(id, &origin, *address, presumed, now);
            changed = true;
        }
        changed
    }

    fn join(
        &mut self,
        source: SourceId,
        origin: &BackendUrl,
        address: SocketAddr,
        presumed: bool,
        now: Instant,
    ) {
        let id = BackendId(self.next_id());
        let backend = Arc::new(Backend::new(id, address, origin.name()));
        let health = match presumed {
            true => Health::presumed(now),
            false => Health::newcomer(now, &self.options),
        };
        self.jobs.push(Job::Check(backend.clone()));
        self.entries.push(Entry {
            backend,
            source,
            origin: origin.name(),
            weight: origin.weight,
            health,
            draining: false,
            last_check: None,
            reported: None,
        });
    }

    /// Takes what `name` means out for the operator, so that it does not come back by itself;
    /// its backends. A source that the configuration names is kept as a reminder of that, for
    /// as long as it does.
    fn take_out(&mut self, name: &str) -> Result<Vec<BackendId>, UnknownBackend> {
        let name = name.to_ascii_lowercase();
        let is_meant = |source: &&Source| source.origin.name() == name && !source.is_out();
        if let Some(source) = self.sources.iter().find(is_meant) {
            source.gone.cancel();
            let entries = self.entries.iter().filter(|entry| entry.source == source.id);
            let leaving = entries.map(|entry| entry.backend.id()).collect();
            self.sources.retain(|source| source.configured || !source.is_out());
            return Ok(leaving);
        }
        let entry = self.entries.iter().find(|entry| entry.backend.name() == name);
        let entry = entry.ok_or(UnknownBackend)?;
        if let Some(source) = self.sources.iter_mut().find(|source| source.id == entry.source) {
            source.left_out.push(entry.backend.address());
        }
        Ok(vec![entry.backend.id()])
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }
}

impl Source {
    /// Whether the operator took it out: it is here only because the configuration names it.
    fn is_out(&self) -> bool {
        self.gone.is_cancelled()
    }
}
