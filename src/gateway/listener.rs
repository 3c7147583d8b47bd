//! One client's connection: TLS if there is a certificate, HTTP/1.1 or HTTP/2 as the client
//! has it, and an end to those that ask for nothing.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use metrics::gauge;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::SetOnce;
use tokio_util::sync::CancellationToken;

use super::forwarded::Peer;
use super::proxy::Proxy;
use super::tls::Tls;
use super::upgrade::Tunnel;
use super::wire::{Verdict, Watched};

/// How long a connection that was made while we were closing may take to ask for something.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// How long a client may take to notice that its idle connection is being closed.
const GOODBYE: Duration = Duration::from_secs(1);

/// Requests under way on one HTTP/2 connection.
const STREAMS: u32 = 128;

/// Limits on a connection.
#[derive(Clone, Copy, Debug)]
pub struct LinkOptions {
    /// The largest request head, in bytes; hyper wants at least 8192.
    pub header_limit: usize,
    /// How long a connection may be without a whole request, from its last answer on.
    pub header_timeout: Duration,
    /// How long a tunnel may stand still.
    pub tunnel_timeout: Duration,
    /// How long tunnels may go on after everything else has ended.
    pub tunnel_drain: Duration,
}

/// What the requests on one connection have in common.
pub struct Link {
    /// Who passes them on.
    pub proxy: Arc<Proxy>,
    /// The other end.
    pub peer: Peer,
    /// Whether its bytes can be trusted.
    pub verdict: Verdict,
    activity: Arc<Counted>,
    tunnel: Mutex<Option<Tunnel>>,
}

impl Link {
    /// A request begins; it ends when what is returned is dropped.
    pub fn begin(&self) -> Activity {
        // All but the first time it is set already.
        let _ = self.activity.heard.set(());
        self.activity.under_way.fetch_add(1, Ordering::Relaxed);
        Activity(self.activity.clone())
    }

    /// The connection is a tunnel once it is done with HTTP.
    pub fn becomes(&self, tunnel: Option<Tunnel>) {
        *self.tunnel.lock().unwrap_or_else(PoisonError::into_inner) = tunnel;
    }
}

/// A request under way.
#[derive(Debug)]
pub struct Activity(Arc<Counted>);

#[derive(Debug)]
struct Counted {
    start: Instant,
    under_way: AtomicU32,
    /// Milliseconds from the start to the end of the last request.
    last: AtomicU64,
    heard: SetOnce<()>,
}

impl Drop for Activity {
    fn drop(&mut self) {
        self.0.last.store(self.0.start.elapsed().as_millis() as u64, Ordering::Relaxed);
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Counted {
    fn new() -> Counted {
        Counted {
            start: Instant::now(),
            under_way: AtomicU32::new(0),
            last: AtomicU64::new(0),
            heard: SetOnce::new(),
        }
    }

    /// Resolves when there has been no request for so long. Looks now and then, so that a
    /// request does not have to set a timer.
    async fn idle(&self, timeout: Duration) {
        loop {
            let under_way = self.under_way.load(Ordering::Relaxed) > 0;
            let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
            let idle = self.start.elapsed().saturating_sub(last);
            if under_way {
                tokio::time::sleep(timeout).await;
            } else if idle < timeout {
                tokio::time::sleep(timeout - idle).await;
            } else {
                return;
            }
        }
    }
}

/// Serves one connection until either side ends it, or until `closing` and the requests
/// under way are answered.
pub async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    proxy: Arc<Proxy>,
    tls: Option<Arc<Tls>>,
    options: LinkOptions,
    closing: CancellationToken,
) {
    let open = gauge!("merch_gateway_connections");
    open.increment(1);
    match tls {
        None => {
            let peer = Peer::new(peer, "http", proxy.trusted());
            speak(stream, peer, proxy, options, closing).await;
        }
        Some(tls) => {
            let handshake = tls.acceptor().accept(stream);
            match tokio::time::timeout(options.header_timeout, handshake).await {
                Ok(Ok(stream)) => {
                    let peer = Peer::new(peer, "https", proxy.trusted());
                    speak(stream, peer, proxy, options, closing).await;
                }
                Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
                Err(_) => tracing::debug!("TLS handshake took too long"),
            }
        }
    }
    open.decrement(1);
}

async fn speak<T>(
    stream: T,
    peer: Peer,
    proxy: Arc<Proxy>,
    options: LinkOptions,
    closing: CancellationToken,
) where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let verdict = Verdict::default();
    let stream = Watched::new(stream, options.header_limit, verdict.clone());
    let activity = Arc::new(Counted::new());
    let link = Arc::new(Link {
        proxy,
        peer,
        verdict,
        activity: activity.clone(),
        tunnel: Mutex::default(),
    });
    let service = {
        let link = link.clone();
        service_fn(move |request: Request<Incoming>| {
            let link = link.clone();
            async move { Ok::<_, std::convert::Infallible>(Proxy::respond(link, request).await) }
        })
    };
    let http = http(options);
    let mut serving =
        std::pin::pin!(http.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = &mut serving => ended,
        () = activity.idle(options.header_timeout) => {
            serving.as_mut().graceful_shutdown();
            tokio::time::timeout(GOODBYE, serving).await.unwrap_or(Ok(()))
        }
        () = closing.cancelled() => {
            // hyper hangs up on a connection without a request yet; it is on its way.
            let first_request = async {
                tokio::select! {
                    ended = &mut serving => Some(ended),
                    _ = activity.heard.wait() => None,
                }
            };
            match tokio::time::timeout(FIRST_REQUEST, first_request).await {
                Ok(Some(ended)) => ended,
                Ok(None) | Err(_) => {
                    serving.as_mut().graceful_shutdown();
                    tokio::select! {
                        ended = serving => ended,
                        () = activity.idle(options.header_timeout) => Ok(()),
                    }
                }
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
    let tunnel = link.tunnel.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(tunnel) = tunnel {
        tunnel.run(options.tunnel_timeout, options.tunnel_drain, closing).await;
    }
}

fn http(options: LinkOptions) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    // The time for a head is the connection's idle time, which costs requests no timer.
    http.http1().header_read_timeout(None).max_buf_size(options.header_limit);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(options.header_limit.try_into().unwrap_or(u32::MAX))
        // Clients that are gone, or do not read, are noticed.
        .keep_alive_interval(options.header_timeout)
        .keep_alive_timeout(options.header_timeout);
    http
}
