//! The admin API, asked over its own address.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use merch_store::cli::gateway::Server;
use merch_store::config::Config;
use merch_store::gateway::admin::{self, Admin, Reload, Token};
use merch_store::gateway::upstream::Upstreams;
use merch_store::lifecycle::Lifecycle;
use merch_store::limits::{LimitsFile, OwnLimits, Store};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::upstreams::{names, pick, start, unasked};
use crate::limits::limiter;
use crate::support::process::command;
use crate::support::raw;

const A: &str = "127.0.0.1:1";
const B: &str = "127.0.0.1:2";
pub const TOKEN: &str = "the token of the integration tests";

pub struct Desk {
    pub address: SocketAddr,
    upstreams: Upstreams,
    reloads: mpsc::Receiver<Reload>,
    _folder: TempDir,
}

impl Desk {
    /// An admin API for backends that nobody asks how they are.
    pub async fn open(backends: &[&str]) -> Desk {
        let upstreams = start(&unasked(backends)).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, reloads) = mpsc::channel(1);
        let folder = tempfile::tempdir().unwrap();
        let store = Store::File(LimitsFile::new(folder.path().to_owned()));
        let admin = Admin {
            upstreams: upstreams.clone(),
            limits: OwnLimits::new(store, limiter(None, None)),
            token: Token::new(&TOKEN.into()),
            reloads: sender,
        };
        tokio::spawn(admin::serve(listener, admin, Lifecycle::default()));
        Desk { address, upstreams, reloads, _folder: folder }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        Client::new().request(method, format!("http://{}{path}", self.address))
    }

    /// The status and the body of what the operator is told.
    async fn asks(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let mut request = self.request(method.parse().unwrap(), path).bearer_auth(TOKEN);
        if !body.is_null() {
            request = request.body(body.to_string());
        }
        told(request).await
    }
}

async fn told(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let body = response.text().await.unwrap();
    (status, serde_json::from_str(&body).unwrap_or(Value::Null))
}

#[tokio::test]
async fn nothing_is_shown_or_done_without_the_token() {
    let desk = Desk::open(&[A]).await;
    for (method, path) in [
        ("GET", "/backends"),
        ("POST", "/backends"),
        ("DELETE", "/backends?backend=127.0.0.1:1"),
        ("POST", "/backends/drain?backend=127.0.0.1:1"),
        ("GET", "/limits"),
        ("GET", "/limits/get?client_id=203.0.113.7"),
        ("POST", "/limits/create"),
        ("PUT", "/limits/update"),
        ("DELETE", "/limits/delete"),
        ("POST", "/clients"),
        ("DELETE", "/clients/delete"),
        ("GET", "/log/level"),
        ("PUT", "/log/level"),
        ("POST", "/reload"),
        ("GET", "/metrics"),
    ] {
        for shown in [
            None,
            Some("Bearer "),
            Some("Bearer"),
            Some("BearerX"),
            Some("Bearer the token of the integration test"),
            Some("Bearer the token of the integration tests!"),
            Some("Basic the token of the integration tests"),
            Some(TOKEN),
        ] {
            let mut request = desk.request(method.parse().unwrap(), path);
            if let Some(shown) = shown {
                request = request.header("Authorization", shown);
            }
            let (status, body) = told(request).await;
            let place = format!("{method} {path} {shown:?}");
            assert_eq!((status, &body["code"]), (401, &json!("unauthorized")), "{place}");
        }
    }
    assert_eq!(names(&desk.upstreams), [A]);
}

#[tokio::test]
async fn who_is_not_let_in_is_told_what_is_missing() {
    let desk = Desk::open(&[A]).await;
    let (bare, wrong) = ("Bearer", "Bearer error=\"invalid_token\"");
    for (shown, said, challenge) in [
        ("", "the admin token is required", bare),
        ("Bearer ", "the admin token is required", bare),
        (TOKEN, "the word Bearer is missing", bare),
        ("Basic YTpi", "the word Bearer is missing", bare),
        ("Bearer the token of the integration test", "the token is not", wrong),
        ("Bearer x", "the token is not", wrong),
    ] {
        let request = desk.request(Method::GET, "/backends").header("Authorization", shown);
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["www-authenticate"], challenge, "{shown}");
        let body: Value = response.json().await.unwrap();
        assert!(body["errors"].as_str().unwrap().starts_with(said), "{shown}: {body}");
    }
}

#[tokio::test]
async fn a_file_whose_name_is_no_text_is_not_found() {
    let desk = Desk::open(&[A]).await;
    for file in ["/docs/%FF", "/docs/nothing"] {
        let (status, body) = told(desk.request(Method::GET, file)).await;
        assert_eq!((status, &body["code"]), (404, &json!("not_found")), "{file}");
    }
}

#[tokio::test]
async fn a_request_for_two_hosts_or_with_two_tokens_is_refused() {
    let desk = Desk::open(&[A]).await;
    let token = format!("authorization: Bearer {TOKEN}\r\n");
    for (heads, status) in [
        (format!("host: a\r\n{token}"), 200),
        (token.clone(), 400),
        (format!("host: a\r\nhost: a\r\n{token}"), 400),
        (format!("host: a/b\r\n{token}"), 400),
        (format!("host: a\r\n{token}{token}"), 400),
        (format!("host: a\r\n{token}authorization: Basic YTpi\r\n"), 400),
    ] {
        let request = format!("GET /backends HTTP/1.1\r\nconnection: close\r\n{heads}\r\n");
        let answer = raw::answer(desk.address, request).await;
        assert_eq!(raw::status(&answer), status, "{heads}: {answer}");
        assert_eq!(answer.contains("\"code\":\"invalid_request\""), status == 400, "{answer}");
    }
}

#[tokio::test]
async fn the_list_says_what_every_backend_is_like() {
    let desk = Desk::open(&["127.0.0.1:1#weight=5"]).await;
    let _under_way = pick(&desk.upstreams, A);
    let (status, body) = desk.asks("GET", "/backends", Value::Null).await;
    let expected = json!({"backends": [{
        "name": A, "address": A, "source": A, "weight": 5, "state": "healthy", "in_flight": 1,
        "consecutive_failures": 0, "latency_ms": null, "last_check": null,
    }]});
    assert_eq!((status, body), (200, expected));
}

#[tokio::test]
async fn a_backend_is_added_drained_and_removed() {
    let desk = Desk::open(&[A]).await;
    let new = json!({"url": format!("http://{B}"), "weight": 3});
    let (status, body) = desk.asks("POST", "/backends", new.clone()).await;
    assert_eq!((status, &body["backends"][0]["weight"]), (201, &json!(3)), "{body}");
    let (status, body) = desk.asks("POST", "/backends", new.clone()).await;
    assert_eq!((status, &body["code"]), (409, &json!("backend_exists")));

    let under_way = pick(&desk.upstreams, B);
    let (status, _) = desk.asks("POST", "/backends/drain", json!({"backend": B})).await;
    assert_eq!(status, 204);
    let (_, body) = desk.asks("GET", "/backends", Value::Null).await;
    assert_eq!(body["backends"][1]["state"], "draining");
    drop(under_way);
    assert_eq!(names(&desk.upstreams), [A]);

    assert_eq!(desk.asks("POST", "/backends", new.clone()).await.0, 201);
    for (path, body) in [
        (format!("/backends?backend={B}"), Value::Null),
        ("/backends".to_owned(), json!({"backend": A})),
    ] {
        assert_eq!(desk.asks("DELETE", &path, body.clone()).await.0, 204);
        let (status, body) = desk.asks("DELETE", &path, body).await;
        assert_eq!((status, &body["code"]), (404, &json!("backend_not_found")));
    }
    assert!(names(&desk.upstreams).is_empty());
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused_with_a_reason() {
    let desk = Desk::open(&[A]).await;
    for (method, path, body, status, code) in [
        ("POST", "/backends", json!({"url": "ftp://x"}), 400, "invalid_request"),
        ("POST", "/backends", json!({"url": "http://x:1", "weight": 0}), 400, "invalid_request"),
        ("POST", "/backends", json!({"url": "http://x:1", "wieght": 1}), 400, "invalid_request"),
        ("POST", "/backends", json!(["http://x:1", 1]), 400, "invalid_request"),
        ("POST", "/backends", json!("x".repeat(20_000)), 413, "body_too_large"),
        ("POST", "/backends", json!({"url": "http://x.invalid"}), 400, "backend_unresolved"),
        ("POST", "/backends/drain", json!({}), 400, "invalid_request"),
        ("POST", "/backends/drain", Value::Null, 400, "invalid_request"),
        ("POST", "/backends/drain", json!({"backend": "b:1"}), 404, "backend_not_found"),
        ("DELETE", "/backends?backend=b:1", json!({"backend": A}), 400, "invalid_request"),
        ("GET", "/limits/get", json!({"client_id": A}), 404, "limit_not_found"),
        ("GET", "/limits?limit=many", Value::Null, 400, "invalid_request"),
        ("POST", "/limits/create", json!("x".repeat(20_000)), 413, "body_too_large"),
        ("PUT", "/log/level", json!({"level": "a=b=c"}), 400, "invalid_config"),
        ("PATCH", "/backends", Value::Null, 405, "method_not_allowed"),
        ("GET", "/no/such/path", Value::Null, 404, "not_found"),
        ("GET", "/docs/no/such/file", Value::Null, 404, "not_found"),
    ] {
        let place = format!("{method} {path} {body}").chars().take(80).collect::<String>();
        let (answered, body) = desk.asks(method, path, body).await;
        assert_eq!((answered, &body["code"]), (status, &json!(code)), "{place}: {body}");
        assert!(body["errors"].as_str().is_some_and(|why| !why.is_empty()), "{place}");
    }
    assert_eq!(names(&desk.upstreams), [A]);
}

#[tokio::test]
async fn a_reload_is_answered_when_the_settings_are_in_force() {
    let mut desk = Desk::open(&[A]).await;
    let wish = desk.request(Method::POST, "/reload").bearer_auth(TOKEN);
    let asking = tokio::spawn(told(wish));
    desk.reloads.recv().await.unwrap().send(Ok(())).unwrap();
    assert_eq!(asking.await.unwrap().0, 204);

    let wish = desk.request(Method::POST, "/reload").bearer_auth(TOKEN);
    let asking = tokio::spawn(told(wish));
    let invalid = Config::load(None, [("gateway.backends", "x".to_owned())]).unwrap_err();
    desk.reloads.recv().await.unwrap().send(Err(invalid)).unwrap();
    let (status, body) = asking.await.unwrap();
    assert_eq!((status, &body["code"]), (400, &json!("invalid_config")));
    assert!(body["errors"].as_str().unwrap().contains("gateway.backends"), "{body}");

    desk.reloads.close();
    assert_eq!(desk.asks("POST", "/reload", Value::Null).await.0, 501);
}

#[tokio::test]
async fn a_gateway_goes_on_with_the_settings_that_it_is_told_to_read_again() {
    let settings = |backends: &str| {
        let settings = [
            ("gateway.address", "127.0.0.1:0"),
            ("gateway.backends", backends),
            ("gateway.upstream.health.path", ""),
            ("gateway.admin.address", "127.0.0.1:0"),
            ("gateway.admin.token", TOKEN),
        ];
        Config::load(None, settings.map(|(key, value)| (key, value.to_owned())))
    };
    let written = Arc::new(Mutex::new("http://127.0.0.1:1".to_owned()));
    let first = settings(&written.lock().unwrap()).unwrap();
    let mut server = Server::start(&first, Lifecycle::default()).await.unwrap();
    let read = written.clone();
    server.reload_with(move || settings(&read.lock().unwrap())).unwrap();
    let asks = async |method: &str, path: &str| {
        let url = format!("http://{}{path}", server.admin_address().unwrap());
        told(Client::new().request(method.parse().unwrap(), url).bearer_auth(TOKEN)).await
    };
    let names = async || {
        let (_, body) = asks("GET", "/backends").await;
        let backends = body["backends"].as_array().unwrap().iter();
        backends.map(|it| it["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names().await, [A]);
    *written.lock().unwrap() = "http://127.0.0.1:2".into();
    assert_eq!(asks("POST", "/reload").await.0, 204);
    assert_eq!(names().await, [B]);
    for bad in ["nonsense", ""] {
        *written.lock().unwrap() = bad.into();
        let (status, body) = asks("POST", "/reload").await;
        assert_eq!((status, &body["code"]), (400, &json!("invalid_config")), "{body}");
        assert!(body["errors"].as_str().unwrap().contains("gateway.backends"), "{body}");
        assert_eq!(names().await, [B]);
    }
}

#[tokio::test]
async fn the_document_and_its_page_are_for_everybody() {
    let desk = Desk::open(&[A]).await;
    let (status, served) = told(desk.request(Method::GET, "/openapi.json")).await;
    assert_eq!(status, 200);
    assert!(served["openapi"].as_str().unwrap().starts_with("3.1."));
    for (path, method) in [
        ("/backends", "get"),
        ("/backends", "post"),
        ("/backends", "delete"),
        ("/backends/drain", "post"),
        ("/limits", "get"),
        ("/limits/get", "get"),
        ("/limits/create", "post"),
        ("/limits/update", "put"),
        ("/limits/delete", "delete"),
        ("/clients", "post"),
        ("/clients/delete", "delete"),
        ("/log/level", "get"),
        ("/log/level", "put"),
        ("/reload", "post"),
    ] {
        assert!(served["paths"][path][method].is_object(), "{method} {path}");
    }
    let printed = command(&["openapi", "--api", "admin"]).output().await.unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&printed.stdout).unwrap(), served);
    let page = desk.request(Method::GET, "/docs/").send().await.unwrap();
    let page = page.text().await.unwrap();
    assert!(page.contains("<title>merch-store gateway</title>"), "{page}");
}

#[tokio::test]
async fn the_postman_collection_is_the_one_that_the_program_prints() {
    let kept = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/gateway-admin.postman_collection.json");
    let arguments = ["openapi", "--api", "admin", "--format", "postman"];
    let printed = command(&arguments).output().await.unwrap();
    let (kept, printed) = (std::fs::read(kept).unwrap(), printed.stdout);
    assert!(kept == printed, "run merch-store {} > docs/gateway-admin...", arguments.join(" "));
    let collection: Value = serde_json::from_slice(&kept).unwrap();
    let folders = collection["item"].as_array().unwrap();
    let requests: usize = folders.iter().map(|it| it["item"].as_array().unwrap().len()).sum();
    assert_eq!(requests, 15);
}
