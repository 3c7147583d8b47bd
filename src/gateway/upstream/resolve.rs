//! Host names become backends: each address of one family one, looked up again and again.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
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

/// How long a connection may take that shows whether an address of a name answers. Backends are
/// near.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How often to look again while nobody answers, if not more often.
const UNSETTLED_INTERVAL: Duration = Duration::from_secs(1);

/// What a lookup comes to.
pub type Addresses = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Finds the addresses of a host name and port; handed over, so that a test can move them.
pub type Lookup = Arc<dyn Fn(String, u16) -> Addresses + Send + Sync>;

/// The lookup of the operating system.
pub fn system_lookup() -> Lookup {
    Arc::new(|host, port| Box::pin(look_up_here(host, port)))
}

/// Names of this machine itself lead to both of its loopback addresses, whatever its files say of
/// them (RFC 6761, 6.3): servers listen on either.
async fn look_up_here(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    let name = host.strip_suffix('.').unwrap_or(&host);
    let is_here = name == "localhost" || name.ends_with(".localhost");
    let found = tokio::net::lookup_host((host.as_str(), port)).await.map(Iterator::collect);
    if !is_here {
        return found;
    }
    let mut found: Vec<SocketAddr> = found.unwrap_or_default();
    for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
        if !found.iter().any(|address| address.ip() == ip) {
            found.push(SocketAddr::new(ip, port));
        }
    }
    Ok(found)
}

/// A backend, by its name, that is the gateway which asks for it.
#[derive(Debug, thiserror::Error)]
#[error("http://{0} is this gateway itself")]
pub struct Itself(pub String);

/// Why a lookup came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// There is no answer, or none that is an address.
    #[error(transparent)]
    Nowhere(#[from] io::Error),
    /// It leads back here.
    #[error(transparent)]
    Itself(Itself),
}

/// Where a name leads.
pub struct Located {
    /// At least one, each a backend.
    pub addresses: Vec<SocketAddr>,
    /// Whether the choice among them will do until the next lookup.
    is_settled: bool,
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
        // Its backends may start after us.
        let mut is_settled = false;
        loop {
            let interval = upstreams.table().options().dns_interval;
            let interval = if is_settled { interval } else { interval.min(UNSETTLED_INTERVAL) };
            sleep(jittered(interval, rand::random())).await;
            match upstreams.look_up(&origin).await {
                Ok(located) => {
                    is_settled = located.is_settled;
                    upstreams.resolved(id, &located.addresses);
                }
                Err(error) => {
                    is_settled = true;
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
    /// Where `origin` leads to.
    pub(super) async fn look_up(&self, origin: &BackendUrl) -> Result<Located, LookupError> {
        let found = match origin.address() {
            Some(address) => vec![address],
            None => {
                let looking = (self.0.lookup)(origin.host.clone(), origin.port);
                timeout(LOOKUP_TIMEOUT, looking).await.map_err(io::Error::other)??
            }
        };
        if found.iter().any(|address| self.0.own.is_some_and(|own| is_same(own, *address))) {
            return Err(LookupError::Itself(Itself(origin.name())));
        }
        let (v4, v6): (Vec<_>, Vec<_>) = found.iter().partition(|address| address.is_ipv4());
        let Some(first) = found.first().filter(|_| !v4.is_empty() && !v6.is_empty()) else {
            return located([v4, v6].concat(), true);
        };
        let answering = answering(&found).await;
        let kept = self.table().is_ipv4(&origin.name());
        let is_ipv4 = family(first.is_ipv4(), &answering, kept);
        located(if is_ipv4 { v4 } else { v6 }, !answering.is_empty())
    }

    fn resolved(&self, id: SourceId, addresses: &[SocketAddr]) {
        let changed = self.table().resolved(id, addresses, tokio::time::Instant::now());
        if changed {
            self.change(|_, _| ());
        }
    }
}

fn located(mut addresses: Vec<SocketAddr>, is_settled: bool) -> Result<Located, LookupError> {
    if addresses.is_empty() {
        return Err(io::Error::other("the name has no address").into());
    }
    // Name servers shuffle.
    addresses.sort_unstable();
    addresses.dedup();
    Ok(Located { addresses, is_settled })
}

/// Whether a server that listens at `own` would be found at `address`.
fn is_same(own: SocketAddr, address: SocketAddr) -> bool {
    let (here, there) = (own.ip().to_canonical(), address.ip().to_canonical());
    // Whoever listens everywhere listens at every address of this machine, of IPv4 too if the
    // machine has it so, which it nearly always has. No other address can be taken.
    let is_local = || UdpSocket::bind((there, 0)).is_ok();
    let is_everywhere = here.is_unspecified() && (here.is_ipv6() || there.is_ipv4());
    own.port() == address.port() && (here == there || is_everywhere && is_local())
}

/// Those of `addresses` where a connection can be made.
async fn answering(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let mut tries = JoinSet::new();
    for address in addresses.iter().copied() {
        tries.spawn(async move {
            let connected = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await;
            connected.is_ok_and(|connected| connected.is_ok()).then_some(address)
        });
    }
    tries.join_all().await.into_iter().flatten().collect()
}

/// Whether those of IPv4 are taken of a name with addresses of both families: it names the same
/// machines twice, and which of them listen on both is their secret. The family of which most
/// are `answering` is, of equals the one that the system puts first (RFC 6724); but once one is
/// `kept` it stays for as long as any of it answers, or none of the others does.
fn family(first_is_ipv4: bool, answering: &[SocketAddr], kept: Option<bool>) -> bool {
    let count = |is_ipv4| answering.iter().filter(|it| it.is_ipv4() == is_ipv4).count();
    match kept {
        Some(kept) if count(kept) > 0 || answering.is_empty() => kept,
        _ if count(first_is_ipv4) >= count(!first_is_ipv4) => first_is_ipv4,
        _ => !first_is_ipv4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_family_is_taken_and_it_is_one_that_answers() {
        const V4: &str = "127.0.0.1:1";
        const V6: &str = "[::1]:1";
        for (first_is_ipv4, answering, kept, expected) in [
            (false, &[V4, V6][..], None, V6),
            (true, &[V4, V6], None, V4),
            (false, &[V4], None, V4),
            (true, &[V6], None, V6),
            (false, &[], None, V6),
            (true, &[], None, V4),
            // Of three machines one has a family that does not work.
            (false, &[V4, V4, V4, V6, V6], None, V4),
            (false, &[V4, V4, V4, V6, V6], Some(V6), V6),
            (false, &[V4], Some(V6), V4),
            (false, &[V4, V6], Some(V4), V4),
            (false, &[], Some(V4), V4),
        ] {
            let parsed = |it: &str| it.parse::<SocketAddr>().unwrap();
            let all: Vec<_> = answering.iter().map(|it| parsed(it)).collect();
            let kept_is_ipv4 = kept.map(|it| parsed(it).is_ipv4());
            let is_ipv4 = family(first_is_ipv4, &all, kept_is_ipv4);
            assert_eq!(
                is_ipv4,
                parsed(expected).is_ipv4(),
                "{first_is_ipv4} {answering:?} {kept:?}"
            );
        }
    }

    #[test]
    fn a_gateway_knows_itself() {
        for (own, address, same) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "[::ffff:127.0.0.1]:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("127.0.0.1:80", "192.0.2.1:80", false),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "0.0.0.0:80", true),
            ("0.0.0.0:80", "127.0.0.1:81", false),
            ("0.0.0.0:80", "192.0.2.1:80", false),
            ("0.0.0.0:80", "[::1]:80", false),
            ("[::]:80", "127.0.0.1:80", true),
            ("[::]:80", "[2001:db8::1]:80", false),
            ("[::1]:80", "[::1]:80", true),
            ("[::1]:80", "127.0.0.1:80", false),
        ] {
            let same_place = is_same(own.parse().unwrap(), address.parse().unwrap());
            assert_eq!(same_place, same, "{own} {address}");
        }
    }
}
