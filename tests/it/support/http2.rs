//! A client of HTTP/2.

use std::future::poll_fn;
use std::pin::Pin;

use hyper::body::Body;
use hyper::client::conn::http2;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};

/// The answer to `request` on `stream`, on which nothing else was asked.
pub async fn asks_in_http_2<T, B>(stream: T, request: Request<B>) -> Response<String>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Unpin + Send + 'static,
{
    try_in_http_2(stream, request).await.unwrap()
}

/// The same, where there may be none.
pub async fn try_in_http_2<T, B>(stream: T, request: Request<B>) -> hyper::Result<Response<String>>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    B: Body<Data: Send, Error: std::error::Error + Send + Sync> + Unpin + Send + 'static,
{
    let io = TokioIo::new(stream);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
    tokio::spawn(connection);
    let (head, mut body) = sender.send_request(request).await?.into_parts();
    let mut text = Vec::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        text.extend_from_slice(&frame?.into_data().unwrap());
    }
    Ok(Response::from_parts(head, String::from_utf8(text).unwrap()))
}
