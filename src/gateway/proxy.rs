//! One request's way through: looked at, counted against its client's limit, given to a
//! backend.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::Body;
use hyper::header::UPGRADE;
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HeaderMap, HeaderValue,
};
use hyper::http::request;
use hyper::upgrade::OnUpgrade;
use hyper::{Request, Response, StatusCode, Version};

use crate::accept::{self, Activity};
use crate::lifecycle::Lifecycle;
use crate::limits::{Decision, Gate};
use crate::web::cors::{self, Cors};
use crate::web::forwarded::{Peer, Trusted};
use crate::web::{REQUEST_ID, path};

use super::answer::{METHODS, Refusal};
use super::client::Connection;
use super::forward::Forwarder;
use super::headers;
use super::http1::Decoder;
use super::observe::{Answers, Record};
use super::paths::Paths;
use super::request_body::{RequestBody, is_small};
use super::response_body::ResponseBody;
use super::upgrade::{self, Tunnel};
use super::via::{self, Via};
use super::wire::Verdict;

/// What decides about a request before a backend is asked.
#[derive(Debug)]
pub struct ProxyOptions {
    /// Whose word is taken for where a request comes from.
    pub trusted: Trusted,
    /// Whose pages may read the gateway's own refusals; backends speak for themselves.
    pub cors: Option<Cors>,
    /// What clients cannot reach.
    pub hidden: Paths,
    /// The largest head, in bytes.
    pub header_limit: usize,
    /// The largest body, in bytes.
    pub body_limit: u64,
    /// How long a small body may take.
    pub body_timeout: Duration,
    /// Whether names of headers with an underscore are left out.
    pub drop_underscore_headers: bool,
    /// Whether each request gets a line in the log.
    pub access_log: bool,
}

/// Passes requests on.
pub struct Proxy {
    options: ProxyOptions,
    gate: Gate,
    forwarder: Forwarder,
    via: Via,
    own: Arc<Answers>,
    lifecycle: Lifecycle,
}

/// What the gateway answers itself.
enum Own {
    /// It is well; the text says how.
    Health(&'static str),
    /// What may be asked, to a request that must not be passed on any more.
    Options,
}

/// What the requests on one connection have in common.
pub struct Link {
    proxy: Arc<Proxy>,
    peer: Peer,
    /// Whether its bytes can be trusted.
    verdict: Verdict,
    /// Whether it is in plain HTTP where HTTPS is spoken.
    is_misled: bool,
    activity: Activity,
    tunnel: Mutex<Option<Tunnel>>,
}

/// A client's end of a tunnel, and what it offers to speak through it.
type Upgrade = (OnUpgrade, HeaderValue);

/// A backend's answer, and the connection that its body comes on.
type Answered = (Response<Decoder>, Box<Connection>);

impl Proxy {
    /// Passes requests that `gate` lets through on by `forwarder`, until `lifecycle` ends.
    pub fn new(
        options: ProxyOptions,
        gate: Gate,
        forwarder: Forwarder,
        lifecycle: Lifecycle,
    ) -> Proxy {
        let own = Arc::new(Answers::own());
        Proxy { options, gate, forwarder, via: Via::new(), own, lifecycle }
    }

    /// Whose word is taken for where a request comes from.
    pub fn trusted(&self) -> &Trusted {
        &self.options.trusted
    }

    /// What goes on in the background.
    pub async fn keep(&self) {
        self.forwarder.keep(self.lifecycle.clone()).await;
    }

    /// Answers one request that came on `link`.
    pub async fn respond(
        link: &Link,
        mut request: Request<accept::Arriving>,
    ) -> Response<ResponseBody> {
        let proxy = &*link.proxy;
        let is_http1 = request.version() != Version::HTTP_2;
        let upgrade = wanted_upgrade(&mut request);
        let (mut head, incoming) = request.into_parts();
        let target = (head.method.clone(), head.uri.clone());
        let admitted = link.admit(&mut head, &incoming);
        let client = link.peer.rewrite(&mut head.headers, proxy.trusted());
        let id = headers::request_id(&mut head.headers);
        let mut record = Record::new(
            target,
            id,
            client.text,
            proxy.own.clone(),
            proxy.options.access_log,
            link.activity.begin(),
        );
        let origin = proxy.options.cors.as_ref().map(|cors| cors.origin(&head.headers));
        let (answered, decision) = match admitted.and_then(|()| proxy.own_answer(&mut head)) {
            Err(refusal) => (Err(refusal), None),
            Ok(Some(own)) => return proxy.answer(own, record),
            Ok(None) => {
                proxy.ask(client.address, head, incoming, upgrade.as_ref(), &mut record).await
            }
        };
        let mut response = match answered {
            Err(refusal) => proxy.refuse(refusal, record, is_http1, origin),
            Ok((response, connection)) => link.answer(response, connection, upgrade, record),
        };
        if let Some(decision) = decision {
            decision.write_headers(response.headers_mut());
        }
        if is_http1 && proxy.lifecycle.is_ending() && !switches(&response) {
            // Whoever keeps connections open should look for another gateway.
            headers::insert_close(response.headers_mut());
        }
        response
    }

    /// Makes the head of a request fit for a backend, or says why the request is not passed on.
    fn admit(&self, head: &mut request::Parts, body: &impl Body) -> Result<(), Refusal> {
        headers::measure(head, self.options.header_limit)?;
        let version = head.version;
        if self.options.drop_underscore_headers {
            headers::drop_underscores(&mut head.headers);
        }
        headers::admit(head)?;
        if body.size_hint().lower() > self.options.body_limit {
            return Err(Refusal::BodyTooLarge);
        }
        self.via.mark_request(&mut head.headers, version)
    }

    /// What the gateway answers itself, or that there is nothing.
    fn own_answer(&self, head: &mut request::Parts) -> Result<Option<Own>, Refusal> {
        match &*path::settled(head.uri.path()) {
            "/health/live" => return Ok(Some(Own::Health("ok"))),
            "/health/ready" if self.lifecycle.is_ending() => return Err(Refusal::ShuttingDown),
            "/health/ready" if !self.forwarder.is_ready() => return Err(Refusal::NoBackend),
            "/health/ready" => return Ok(Some(Own::Health("ok"))),
            _ if self.options.hidden.contains(head.uri.path()) => return Err(Refusal::NotFound),
            _ => {}
        }
        Ok(if via::may_forward(head)? { None } else { Some(Own::Options) })
    }

    /// Gives an admitted request to a backend, if `client` is within its limit, and says what came
    /// of both.
    async fn ask(
        &self,
        client: IpAddr,
        head: request::Parts,
        incoming: accept::Arriving,
        upgrade: Option<&Upgrade>,
        record: &mut Record,
    ) -> (Result<Answered, Refusal>, Option<Decision>) {
        let decision = self.gate.check(client, &head.headers).await;
        let answered = match &decision {
            Some(decision) if !decision.allowed => Err(Refusal::RateLimited),
            _ => self.pass_on(head, incoming, upgrade, record).await,
        };
        (answered, decision)
    }

    async fn pass_on(
        &self,
        mut head: request::Parts,
        incoming: accept::Arriving,
        upgrade: Option<&Upgrade>,
        record: &mut Record,
    ) -> Result<Answered, Refusal> {
        headers::frame(&mut head, &incoming);
        if let Some((_, protocols)) = upgrade {
            headers::insert_upgrade(&mut head.headers, protocols.clone());
        }
        let body = if incoming.is_end_stream() {
            RequestBody::Empty
        } else {
            let expects = head.headers.contains_key(EXPECT);
            match !expects && is_small(&incoming) {
                true => RequestBody::take(incoming, self.options.body_timeout).await?,
                false => RequestBody::stream(incoming, self.options.body_limit, expects),
            }
        };
        let (mut response, connection) = self.forwarder.forward(head, body, record).await?;
        self.via.mark_answer(&mut response);
        response.headers_mut().entry(REQUEST_ID).or_insert_with(|| record.id.clone());
        Ok((response, connection))
    }

    fn refuse(
        &self,
        refusal: Refusal,
        mut record: Record,
        is_http1: bool,
        origin: Option<Option<HeaderValue>>,
    ) -> Response<ResponseBody> {
        record.refused(refusal.status(), &self.own);
        let mut headers = HeaderMap::new();
        refusal.write_headers(&mut headers);
        if let Some(origin) = origin {
            cors::write(origin, &mut headers);
        }
        if is_http1 && refusal.ends_connection() {
            headers::insert_close(&mut headers);
        }
        own_response(refusal.status(), headers, refusal.body(), record)
    }

    fn answer(&self, own: Own, mut record: Record) -> Response<ResponseBody> {
        record.refused(StatusCode::OK, &self.own);
        let mut headers = HeaderMap::new();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        let body = match own {
            Own::Options => {
                headers.insert(ALLOW, METHODS);
                String::new()
            }
            Own::Health(status) => {
                record.unlogged();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                serde_json::json!({ "status": status }).to_string()
            }
        };
        own_response(StatusCode::OK, headers, body, record)
    }
}

impl Link {
    /// A connection to `peer` whose requests `proxy` passes on.
    pub fn new(proxy: Arc<Proxy>, peer: Peer, verdict: Verdict, activity: Activity) -> Link {
        Link { proxy, peer, verdict, is_misled: false, activity, tunnel: Mutex::default() }
    }

    /// The same if it is in plain HTTP where HTTPS is spoken.
    pub fn misled(self, is_misled: bool) -> Link {
        Link { is_misled, ..self }
    }

    /// What goes on on it.
    pub fn activity(&self) -> &Activity {
        &self.activity
    }

    /// What came was no request, and was answered with `status`.
    pub fn count_refused(&self, status: u16) {
        self.proxy.own.count_refused(status);
    }

    /// What the connection has become once it is done with HTTP, if it is a tunnel.
    pub fn take_tunnel(&self) -> Option<Tunnel> {
        self.becomes(None)
    }

    /// Makes the head of a request that came on it fit for a backend, or says why the request is
    /// not passed on.
    fn admit(&self, head: &mut request::Parts, body: &impl Body) -> Result<(), Refusal> {
        if self.verdict.is_ambiguous() {
            Err(Refusal::Ambiguous(""))
        } else if self.is_misled {
            Err(Refusal::NotHttps)
        } else {
            self.proxy.admit(head, body)
        }
    }

    /// Passes a backend's answer on, and with a 101 the connection itself.
    fn answer(
        &self,
        response: Response<Decoder>,
        connection: Box<Connection>,
        upgrade: Option<Upgrade>,
        mut record: Record,
    ) -> Response<ResponseBody> {
        match upgrade {
            Some((client, _)) if switches(&response) => {
                self.tunnel(client, response, connection, record)
            }
            _ => {
                record.answered(response.status());
                response.map(|decoder| ResponseBody::backend(decoder, connection, record))
            }
        }
    }

    /// Answers 101, after which the connection is a tunnel.
    fn tunnel(
        &self,
        client: OnUpgrade,
        response: Response<Decoder>,
        connection: Box<Connection>,
        mut record: Record,
    ) -> Response<ResponseBody> {
        record.answered(response.status());
        record.completed();
        self.activity.becomes_tunnel();
        self.becomes(Some(Tunnel::new(client, connection, record)));
        response.map(|_| ResponseBody::none())
    }

    fn becomes(&self, tunnel: Option<Tunnel>) -> Option<Tunnel> {
        std::mem::replace(&mut self.tunnel.lock().unwrap_or_else(PoisonError::into_inner), tunnel)
    }
}

fn own_response(
    status: StatusCode,
    mut headers: HeaderMap,
    body: String,
    record: Record,
) -> Response<ResponseBody> {
    headers.insert(REQUEST_ID, record.id.clone());
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    let mut response = Response::new(ResponseBody::own(body, record));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn wanted_upgrade(request: &mut Request<impl Body>) -> Option<Upgrade> {
    if !request.headers().contains_key(UPGRADE) {
        return None;
    }
    let protocols = upgrade::offer(request)?;
    Some((hyper::upgrade::on(request), protocols))
}

fn switches<B>(response: &Response<B>) -> bool {
    response.status() == StatusCode::SWITCHING_PROTOCOLS
}
