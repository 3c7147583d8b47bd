//! Which backend gets a request, and how the gateway knows that it is well.

mod checks;
mod ejection;
mod members;
mod names;
mod server;
mod shares;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use merch_store::config::{self, Config};
use merch_store::gateway::upstream::{
    Addresses, BackendStatus, Failure, Itself, Lookup, Picked, State, Upstreams, system_lookup,
};
use merch_store::lifecycle::Lifecycle;
use tokio::time::timeout;

pub use server::{Manner, Server};

/// The longest that anything may take to come true.
const PATIENCE: Duration = Duration::from_secs(20);

/// Settings for backends at `urls`: checks every few milliseconds, everything else as it is.
pub fn options(urls: &[String]) -> config::Gateway {
    let mut options = Config::load(None, []).unwrap().gateway;
    options.backends = urls.iter().map(|url| url.parse().unwrap()).collect();
    options.upstream.health.interval = Duration::from_millis(5);
    options.upstream.health.timeout = PATIENCE;
    options.upstream.slow_start = Duration::ZERO;
    options.upstream.dns_interval = Duration::from_millis(5);
    options
}

/// The same for backends that are not asked, and so need not be there.
pub fn unasked(names: &[&str]) -> config::Gateway {
    let urls: Vec<String> = names.iter().map(|name| format!("http://{name}")).collect();
    let mut options = options(&urls);
    options.upstream.health.path.clear();
    options
}

/// Upstreams that are watched over until the test ends.
pub async fn start(options: &config::Gateway) -> Upstreams {
    start_with(options, system_lookup()).await
}

pub async fn start_with(options: &config::Gateway, lookup: Lookup) -> Upstreams {
    start_at(options, lookup, None).await.unwrap()
}

/// The same for a gateway that listens at `own`.
pub async fn start_at(
    options: &config::Gateway,
    lookup: Lookup,
    own: Option<SocketAddr>,
) -> Result<Upstreams, Itself> {
    let (backends, lifecycle) = (&options.backends, Lifecycle::default());
    Upstreams::start(backends, &options.upstream, lookup, own, &lifecycle).await
}

/// Other settings for upstreams that are at work.
pub async fn reconfigure(upstreams: &Upstreams, options: &config::Gateway) {
    let found = upstreams.find(&options.backends).await.unwrap();
    upstreams.reconfigure(found, &options.upstream);
}

/// A name server whose answer the test changes.
#[derive(Clone, Default)]
pub struct Names(Arc<Mutex<Option<Vec<SocketAddr>>>>);

impl Names {
    /// From now on every name leads to `addresses`.
    pub fn lead_to(&self, addresses: &[SocketAddr]) {
        *self.0.lock().unwrap() = Some(addresses.to_vec());
    }

    /// From now on there is no answer.
    pub fn fail(&self) {
        *self.0.lock().unwrap() = None;
    }

    pub fn lookup(&self) -> Lookup {
        let names = self.clone();
        Arc::new(move |_, _| -> Addresses {
            let answer = names.0.lock().unwrap().clone();
            Box::pin(async move { answer.ok_or_else(|| io::Error::other("no answer")) })
        })
    }
}

/// Waits until `is_so` of the backends.
pub async fn until(
    upstreams: &Upstreams,
    what: &str,
    mut is_so: impl FnMut(&[BackendStatus]) -> bool,
) {
    let mut changes = upstreams.changes();
    let waiting = async {
        while !is_so(&upstreams.status()) {
            changes.changed().await.unwrap();
        }
    };
    if timeout(PATIENCE, waiting).await.is_err() {
        panic!("never came true: {what}: {:?}", upstreams.status());
    }
}

/// Waits until the backend `name` is in `state`.
pub async fn until_state(upstreams: &Upstreams, name: &str, state: State) {
    let is_so = |backends: &[BackendStatus]| state_in(backends, name) == Some(state);
    until(upstreams, &format!("{name} is {state:?}"), is_so).await;
}

/// The state of the backend `name` now, if it is there.
pub fn state(upstreams: &Upstreams, name: &str) -> Option<State> {
    state_in(&upstreams.status(), name)
}

fn state_in(backends: &[BackendStatus], name: &str) -> Option<State> {
    backends.iter().find(|backend| backend.name == name).map(|backend| backend.state)
}

pub fn names(upstreams: &Upstreams) -> Vec<String> {
    upstreams.status().into_iter().map(|backend| backend.name).collect()
}

/// Picks `name`, which is one of the backends.
pub fn pick(upstreams: &Upstreams, name: &str) -> Picked {
    let mut tried = Vec::new();
    loop {
        let picked = upstreams.pick(&tried).unwrap_or_else(|| panic!("{name} is not picked"));
        if picked.backend.name() == name {
            return picked;
        }
        tried.push(picked.backend.id());
    }
}

/// Whether `name` gets requests.
pub fn is_picked(upstreams: &Upstreams, name: &str) -> bool {
    let mut tried = Vec::new();
    while let Some(picked) = upstreams.pick(&tried) {
        if picked.backend.name() == name {
            return true;
        }
        tried.push(picked.backend.id());
    }
    false
}

/// Refuses connections until it is ejected, as a dead process does.
pub fn dies(upstreams: &Upstreams, name: &str) {
    for _ in 0..2 {
        pick(upstreams, name).failed(Failure::Connect);
    }
}
