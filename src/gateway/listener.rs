//! One client's connection: TLS if there is a certificate, HTTP/1.1 or HTTP/2 as was agreed, or
//! without TLS as the client has it, and an end to those that ask for nothing.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use metrics::gauge;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::accept::{Activity, Courteous, Protocols, Socket, Watched, answer, keep};
use crate::web::forwarded::Peer;

use super::proxy::{Link, Proxy};
use super::tls::Tls;
use super::wire::{Agreed, Inspector, Verdict};

/// Requests under way on one HTTP/2 connection.
const STREAMS: u32 = 128;

/// How many times longer than its limit a head of HTTP/2 may be and still get an answer in words.
const HEAD_ROOM: usize = 4;

/// How long a handshake may still take that is under way when everything ends.
const LAST_HANDSHAKE: Duration = Duration::from_secs(1);

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
            speak(stream, Spoken::Plain, peer, proxy, options, closing).await;
        }
        Some(tls) => {
            let handshake = timeout(options.header_timeout, shake(stream, &tls));
            let closed = async {
                closing.cancelled().await;
                sleep(LAST_HANDSHAKE).await;
            };
            let shaken = tokio::select! {
                shaken = handshake => Some(shaken),
                () = closed => None,
            };
            match shaken {
                None => {}
                Some(Ok(Ok(Shaken::Plain(stream)))) => {
                    let peer = Peer::new(peer, "http", proxy.trusted());
                    speak(stream, Spoken::PlainByMistake, peer, proxy, options, closing).await;
                }
                Some(Ok(Ok(Shaken::Tls(stream)))) => {
                    let peer = Peer::new(peer, "https", proxy.trusted());
                    let agreed = Agreed::on(stream.get_ref().1.alpn_protocol());
                    speak(*stream, Spoken::Tls(agreed), peer, proxy, options, closing).await;
                }
                Some(Ok(Err(error))) => tracing::debug!(%error, "TLS handshake failed"),
                Some(Err(_)) => tracing::debug!("TLS handshake took too long"),
            }
        }
    }
    open.decrement(1);
}

/// How a connection came to be.
enum Spoken {
    Plain,
    /// In plain HTTP where HTTPS is spoken: every request is told so.
    PlainByMistake,
    Tls(Agreed),
}

/// What comes of a handshake.
enum Shaken {
    Tls(Box<TlsStream<TcpStream>>),
    /// The client asks for something in plain HTTP instead.
    Plain(TcpStream),
}

async fn shake(stream: TcpStream, tls: &Tls) -> io::Result<Shaken> {
    let mut first = [0];
    stream.peek(&mut first).await?;
    // A handshake begins with no letter, and a request with nothing else.
    if first[0].is_ascii_alphabetic() {
        return Ok(Shaken::Plain(stream));
    }
    Ok(Shaken::Tls(Box::new(tls.acceptor().accept(stream).await?)))
}

async fn speak<T>(
    stream: T,
    spoken: Spoken,
    peer: Peer,
    proxy: Arc<Proxy>,
    options: LinkOptions,
    closing: CancellationToken,
) where
    T: AsyncRead + AsyncWrite + Socket + Unpin + Send + 'static,
{
    let (verdict, activity) = (Verdict::default(), Activity::new());
    let (agreed, is_misled) = match spoken {
        Spoken::Plain => (None, false),
        Spoken::PlainByMistake => (None, true),
        Spoken::Tls(agreed) => (Some(agreed), false),
    };
    let inspector = Inspector::new(options.header_limit, agreed, verdict.clone(), activity.clone());
    let stream = Watched::new(stream, inspector);
    let stream = Courteous::new(stream, activity.clone(), Protocols::Http2);
    let link = Link::new(proxy, peer, verdict, activity.clone()).misled(is_misled);
    let link = Arc::new(link);
    let service = {
        let link = link.clone();
        service_fn(move |request: Request<Incoming>| {
            let link = link.clone();
            async move {
                let respond = |request| Proxy::respond(&link, request);
                Ok::<_, Infallible>(answer(link.activity(), request, respond).await)
            }
        })
    };
    let http = http(options);
    let serving = http.serve_connection_with_upgrades(TokioIo::new(stream), service);
    if let Err(error) = keep(serving, &activity, options.header_timeout, &closing).await {
        tracing::debug!(%error, "connection ended");
    }
    if let Some(status) = activity.refused() {
        link.count_refused(status);
    }
    if let Some(tunnel) = link.take_tunnel() {
        tunnel.run(options.tunnel_timeout, options.tunnel_drain, closing).await;
    }
}

fn http(options: LinkOptions) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    // The time for a head is the connection's idle time, which costs requests no timer.
    // A client that has closed its sending side waits for its answer.
    http.http1().header_read_timeout(None).max_buf_size(options.header_limit).half_close(true);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(
            options.header_limit.saturating_mul(HEAD_ROOM).try_into().unwrap_or(u32::MAX),
        )
        // Clients that are gone, or do not read, are noticed.
        .keep_alive_interval(options.header_timeout)
        .keep_alive_timeout(options.header_timeout);
    http
}
