//! Host names become backends: each address one, looked up again and again.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::config::BackendUrl;
use crate::telemetry::is_news;

use super::Upstreams;
use super::check::jittered;
use super::table::SourceId;

/// The longest that a lookup may take. A resolver that is asked again after its own timeout
/// has answered by then.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// What a lookup comes to.
pub type Addresses = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Finds the addresses of a host name and port; handed over, so that a test can move them.
pub type Lookup = Arc<dyn Fn(String, u16) -> Addresses + Send + Sync>;

/// The lookup of the operating system.
pub fn system_lookup() -> Lookup {
    Arc::new(|host, port| {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, port)).await?.collect()) })
    })
}

/// Looks `origin` up again and again until it is `gone`. While there is no answer, its
/// backends stay.
pub async fn keep_resolving(
    upstreams: Upstreams,
    id: SourceId,
    origin: BackendUrl,
    gone: CancellationToken,
) {
    let resolving = async {
        loop {
            let interval = upstreams.table().options().dns_interval;
            sleep(jittered(interval, rand::random())).await;
            match upstreams.look_up(&origin).await {
                Ok(addresses) => upstreams.resolved(id, &addresses),
                Err(error) => {
                    let source = origin.name();
                    if is_news("cannot look up", &format!("{source}: {error}")) {
                        tracing::warn!(source, %error, "cannot look up; keeping what there is");
                    }
                }
            }
        }
    };
    tokio::select! {
        () = resolving => {}
        () = gone.cancelled() => {}
    }
}

impl Upstreams {
    /// Where `origin` leads to: at least one address, or an error.
    pub(super) async fn look_up(&self, origin: &BackendUrl) -> io::Result<Vec<SocketAddr>> {
        if let Some(address) = origin.address() {
            return Ok(vec![address]);
        }
        let looking = (self.0.lookup)(origin.host.clone(), origin.port);
        let found = timeout(LOOKUP_TIMEOUT, looking).await;
        let addresses = one_family(found.map_err(io::Error::other)??);
        if addresses.is_empty() {
            return Err(io::Error::other("the name has no address"));
        }
        Ok(addresses)
    }

    fn resolved(&self, id: SourceId, addresses: &[SocketAddr]) {
        let changed = self.table().resolved(id, addresses, tokio::time::Instant::now());
        if changed {
            self.change(|_, _| ());
        }
    }
}

/// A name with addresses of both families names the same machines twice, and which of them
/// listen on both is their secret (`localhost` is the usual case): IPv4 where there is any.
fn one_family(mut addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    if addresses.iter().any(SocketAddr::is_ipv4) {
        addresses.retain(SocketAddr::is_ipv4);
    }
    // Name servers shuffle.
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_family_each_address_once() {
        let addresses = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        for (found, expected) in [
            (vec!["[::1]:80", "127.0.0.1:80"], vec!["127.0.0.1:80"]),
            (vec!["10.0.0.2:80", "10.0.0.1:80", "10.0.0.2:80"], vec!["10.0.0.1:80", "10.0.0.2:80"]),
            (vec!["[::1]:80"], vec!["[::1]:80"]),
            (vec![], vec![]),
        ] {
            assert_eq!(one_family(addresses(&found)), addresses(&expected), "{found:?}");
        }
    }
}
