//! A connection of HTTP/1.1 and nothing else, as the shop and the admin API have it.

use std::convert::Infallible;
use std::error::Error;
use std::time::Duration;

use ::http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::activity::{Activity, keep};
use super::body::{Arriving, answer};
use super::courteous::{Courteous, Protocols};

/// Limits on a connection.
#[derive(Clone, Copy, Debug)]
pub struct Http1Options {
    /// The largest request head, in bytes; hyper wants at least 8192.
    pub header_limit: usize,
    /// How long a head may take, from the connection's last answer on.
    pub header_timeout: Duration,
}

/// Has `serve` answer the requests on `stream`, until either side ends it, until nothing was done
/// for too long, or until `closing` and the request under way is answered. Returns the status of
/// the answer to what was no request, if that was how it ended.
pub async fn serve_http1<B, Answering>(
    stream: TcpStream,
    options: Http1Options,
    closing: &CancellationToken,
    serve: impl Fn(Request<Arriving>) -> Answering,
) -> Option<u16>
where
    B: Body<Error: Into<Box<dyn Error + Send + Sync>>> + 'static,
    Answering: Future<Output = Response<B>>,
{
    let activity = Activity::new();
    let stream = Courteous::new(activity.watch(stream), activity.clone(), Protocols::Http1);
    let (serve, activity) = (&serve, &activity);
    let service = service_fn(async |mut request: Request<Incoming>| {
        let _busy = activity.begin();
        if !request.body().is_end_stream() {
            // Asked when it took too long: what was it that did?
            request.extensions_mut().insert(activity.clone());
        }
        Ok::<_, Infallible>(answer(activity, request, serve).await)
    });
    let mut http = http1::Builder::new();
    // The time for a head is the connection's idle time, which costs requests no timer. Answers
    // are small: copying one is cheaper than writing it in pieces. A client that has closed its
    // sending side waits for its answer.
    http.header_read_timeout(None)
        .max_buf_size(options.header_limit)
        .writev(false)
        .half_close(true);
    let serving = http.serve_connection(TokioIo::new(stream), service);
    if let Err(error) = keep(serving, activity, options.header_timeout, closing).await {
        tracing::debug!(%error, "connection ended");
    }
    activity.refused()
}
