//! Which headers go through, and which requests do not.

use hyper::body::Body;
use hyper::header::{
    self, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE,
    TRANSFER_ENCODING, UPGRADE,
};
use hyper::http::request;
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Response, StatusCode, Uri, Version};

use crate::web::{self, REQUEST_ID, list};

use super::answer::Refusal;
use super::upgrade;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

/// What belongs to one connection and not to the message (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 7] =
    [CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, TE, TRANSFER_ENCODING, UPGRADE, HTTP2_SETTINGS];

/// What `Connection` cannot make part of a connection: where a message goes and ends.
const END_TO_END: [HeaderName; 2] = [HOST, CONTENT_LENGTH];

/// Turns the head of a request, as hyper has read it, into what a backend may be sent, or
/// says why it is not sent at all. Leaves a path and a `Host` (if the client named one), and
/// no header that belongs to the client's connection.
pub fn admit(head: &mut request::Parts) -> Result<(), Refusal> {
    if head.method == Method::CONNECT || head.method == Method::TRACE {
        return Err(Refusal::MethodNotAllowed);
    }
    let mut encodings = head.headers.get_all(TRANSFER_ENCODING).iter();
    if let Some(encoding) = encodings.next()
        && (!encoding.as_bytes().eq_ignore_ascii_case(b"chunked")
            || encodings.next().is_some()
            || head.headers.contains_key(CONTENT_LENGTH)
            || head.version == Version::HTTP_2)
    {
        return Err(Refusal::Ambiguous("transfer-encoding"));
    }
    if head.headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(Refusal::Ambiguous("content-length"));
    }
    web::admit(&head.method, &head.uri, head.version, &head.headers).map_err(Refusal::Unfit)?;
    settle_host(head);
    strip(&mut head.headers);
    if head.version == Version::HTTP_2 {
        join_cookies(&mut head.headers);
    }
    // Only HTTP/1.1 clients are sent a 100; what others expect is not passed on.
    if head.version != Version::HTTP_11 {
        head.headers.remove(EXPECT);
    }
    head.version = Version::HTTP_11;
    head.extensions.clear();
    Ok(())
}

/// Refuses a head of HTTP/2 that would be longer than `limit` bytes in HTTP/1.1, where hyper sees to
/// it. Until here there is room for several times that, so that there is somebody to answer.
pub fn measure(head: &request::Parts, limit: usize) -> Result<(), Refusal> {
    if head.version != Version::HTTP_2 {
        return Ok(());
    }
    let target = head.uri.path_and_query().map_or(0, |it| it.as_str().len());
    if target > limit {
        return Err(Refusal::TargetTooLong);
    }
    let host = head.uri.authority().map_or(0, |it| it.as_str().len());
    let line = |(name, value): (&HeaderName, &HeaderValue)| {
        name.as_str().len() + ": ".len() + value.len() + "\r\n".len()
    };
    let length = target + host + head.headers.iter().map(line).sum::<usize>();
    if length > limit { Err(Refusal::HeadTooLarge) } else { Ok(()) }
}

/// Leaves the host that the request is for in `Host`, and nothing but a path in the target.
fn settle_host(head: &mut request::Parts) {
    let Some(authority) = head.uri.authority() else { return };
    // What is a host is a header's value.
    if let Ok(host) = HeaderValue::from_str(authority.as_str()) {
        head.headers.insert(HOST, host);
    }
    let path = head.uri.path_and_query().cloned();
    head.uri = Uri::from(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
}

/// Removes names with an underscore, which much that is behind a gateway takes for a dash: such a
/// name would say unseen what everything here says of the name with a dash.
pub fn drop_underscores(headers: &mut HeaderMap) {
    let is_odd = |name: &&HeaderName| name.as_str().contains('_');
    if headers.keys().any(|name| is_odd(&name)) {
        let odd: Vec<HeaderName> = headers.keys().filter(is_odd).cloned().collect();
        odd.iter().for_each(|name| drop(headers.remove(name)));
    }
}

/// Removes what belongs to the connection that `headers` came on.
pub fn strip(headers: &mut HeaderMap) {
    if !headers.keys().any(|name| HOP_BY_HOP.contains(name)) {
        return;
    }
    let named: Vec<HeaderName> = list::items(headers, &CONNECTION)
        .filter(|option| !["keep-alive", "close"].contains(option))
        .filter_map(|option| option.parse().ok())
        .filter(|name| !END_TO_END.contains(name))
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// The request's id; in its place in `headers` from now on.
pub fn request_id(headers: &mut HeaderMap) -> HeaderValue {
    let id = web::request_id(headers);
    headers.insert(REQUEST_ID, id.clone());
    id
}

/// Says of a message that its connection is to be switched to `protocol`.
pub fn insert_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// Says of a message that its connection ends with it.
pub fn insert_close(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
}

/// Says how the end of a request's body is found: by its length or in chunks. That a body is empty
/// is said where a method is expected to have one (RFC 9110, 8.6); HTTP/2 need not say so.
pub fn frame(head: &mut request::Parts, body: &impl Body) {
    if head.headers.contains_key(CONTENT_LENGTH) {
        return;
    }
    let bare = [Method::GET, Method::HEAD, Method::DELETE, Method::OPTIONS];
    if !body.is_end_stream() {
        head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    } else if !bare.contains(&head.method) {
        head.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
}

/// Makes a backend's answer fit for the client, or says why it is none, as one to a request that
/// `offered` these protocols to go on with.
pub fn fit<B>(
    response: &mut Response<B>,
    offered: Option<&HeaderValue>,
) -> Result<(), &'static str> {
    let status = response.status();
    let headers = response.headers_mut();
    // The only answers whose `Upgrade` is for the client: what is spoken now, or has to be.
    let upgrade = match status {
        StatusCode::SWITCHING_PROTOCOLS => Some(upgrade::choice(headers, offered)?),
        StatusCode::UPGRADE_REQUIRED => upgrade::protocols(headers),
        _ => None,
    };
    strip(headers);
    if let Some(protocols) = upgrade {
        insert_upgrade(headers, protocols);
    }
    // No body, and no length either: clients wait for what it announces. 304 may have one, which
    // no cache takes over (RFC 9111, 3.2).
    let is_bare =
        [StatusCode::SWITCHING_PROTOCOLS, StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED];
    if is_bare.contains(&status) {
        headers.remove(CONTENT_LENGTH);
    }
    Ok(())
}

/// HTTP/2 may split cookies into lines; HTTP/1.1 has one (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<&[u8]> =
        headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, joined);
    }
}
