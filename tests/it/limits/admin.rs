//! The admin API of limits, line by line.

use std::time::Duration;

use merch_store::gateway::admin::{self, Token};
use merch_store::lifecycle::Lifecycle;
use merch_store::limits::{ClientKey, Limiter, LimitsFile, OwnLimits, Store};
use merch_store::storage::{Database, DatabaseOptions};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::{limit, limiter};
use crate::gateway::upstreams;
use crate::support::proxy::{Fault, Proxy, Stage};
use crate::support::{Reply, TestDatabase};

const TOKEN: &str = "the token of the integration tests";

struct Admin {
    base: String,
    limiter: Limiter,
    client: Client,
    _folder: Option<TempDir>,
}

impl Admin {
    async fn start() -> Admin {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::File(LimitsFile::new(folder.path().to_owned()));
        Admin { _folder: Some(folder), ..Admin::of(store).await }
    }

    async fn of(store: Store) -> Admin {
        let limiter = limiter(Some(limit(200, 100)), None);
        let own = OwnLimits::new(store, limiter.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let admin = admin::Admin {
            upstreams: upstreams::start(&upstreams::unasked(&["127.0.0.1:1"])).await,
            limits: own,
            token: Token::new(&TOKEN.into()),
            reloads: mpsc::channel(1).0,
        };
        tokio::spawn(admin::serve(listener, admin, Lifecycle::default()));
        Admin { base, limiter, client: Client::new(), _folder: None }
    }

    async fn asks(&self, method: &str, path: &str, body: Option<&Value>) -> Reply {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request =
            self.client.request(method, format!("{}{path}", self.base)).bearer_auth(TOKEN);
        Reply::to(match body {
            Some(body) => request.json(body),
            None => request,
        })
        .await
    }

    /// Asks, line by line: method, path, body, and the status and body of the answer.
    async fn answers(&self, lines: &[(&str, &str, Value, u16, Value)]) {
        for (method, path, body, status, answer) in lines {
            let reply = self.asks(method, path, Some(body).filter(|it| !it.is_null())).await;
            let what = format!("{method} {path} {body}: {reply:?}");
            assert_eq!(reply.status, *status, "{what}");
            match answer {
                Value::Null => assert_eq!(reply.text, "", "{what}"),
                Value::String(code) => assert_eq!(reply.json()["code"], *code, "{what}"),
                answer => assert_eq!(reply.json(), *answer, "{what}"),
            }
        }
    }
}

#[tokio::test]
async fn limits_are_created_read_changed_and_deleted_as_the_contract_says() {
    let admin = Admin::start().await;
    let id = || json!({"client_id": "123.5.6.7:890"});
    let limit = |capacity: u32, rate: u32| json!({"client_id": "123.5.6.7:890", "capacity": capacity, "rate_per_sec": rate});
    admin
        .answers(&[
            ("GET", "/limits/get", id(), 404, json!("limit_not_found")),
            ("PUT", "/limits/update", limit(10, 1), 404, json!("limit_not_found")),
            ("DELETE", "/limits/delete", id(), 404, json!("limit_not_found")),
            ("POST", "/limits/create", limit(10, 1), 201, json!(null)),
            ("POST", "/limits/create", limit(20, 2), 409, json!("limit_exists")),
            ("GET", "/limits/get", id(), 200, limit(10, 1)),
            ("PUT", "/limits/update", limit(30, 3), 204, json!(null)),
            ("GET", "/limits/get", id(), 200, limit(30, 3)),
            ("DELETE", "/limits/delete", id(), 204, json!(null)),
            ("GET", "/limits/get", id(), 404, json!("limit_not_found")),
        ])
        .await;
}

#[tokio::test]
async fn a_client_may_be_named_in_the_query_and_must_be_the_same_in_the_body() {
    let admin = Admin::start().await;
    let numbers = json!({"capacity": 10, "rate_per_sec": 1});
    let answer = |id: &str| json!({"client_id": id, "capacity": 10, "rate_per_sec": 1});
    let (other, nothing) = (json!({"client_id": "203.0.113.8"}), json!(null));
    admin
        .answers(&[
            ("POST", "/limits/create?client_id=203.0.113.7", numbers.clone(), 201, nothing.clone()),
            (
                "GET",
                "/limits/get?client_id=203.0.113.7",
                nothing.clone(),
                200,
                answer("203.0.113.7"),
            ),
            (
                "GET",
                "/limits/get?client_id=203.0.113.7:80",
                json!({}),
                200,
                answer("203.0.113.7:80"),
            ),
            // Another spelling is the same client.
            (
                "GET",
                "/limits/get?client_id=203.0.113.7:1",
                json!({"client_id": "::ffff:203.0.113.7"}),
                200,
                answer("::ffff:203.0.113.7"),
            ),
            (
                "GET",
                "/limits/get?client_id=203.0.113.7",
                other.clone(),
                400,
                json!("invalid_request"),
            ),
            (
                "DELETE",
                "/limits/delete?client_id=203.0.113.7",
                other,
                400,
                json!("invalid_request"),
            ),
            ("PUT", "/limits/update?client_id=203.0.113.7", numbers, 204, nothing.clone()),
            ("DELETE", "/limits/delete?client_id=203.0.113.7", nothing.clone(), 204, nothing),
        ])
        .await;
}

#[tokio::test]
async fn clients_are_put_and_deleted_as_the_other_contract_says() {
    let admin = Admin::start().await;
    let address = json!({"ip": "203.0.113.7"});
    let answer = |capacity: u32, rate: u32| json!({"client_id": "203.0.113.7", "capacity": capacity, "rate_per_sec": rate});
    let put = |name: &str, capacity: u32, rate: u32| json!({name: "203.0.113.7", "capacity": capacity, "rate": rate});
    admin
        .answers(&[
            ("POST", "/clients", put("ip", 10, 1), 200, answer(10, 1)),
            // Some languages have no other numbers.
            (
                "POST",
                "/clients",
                json!({"ip": "203.0.113.7", "capacity": 11.0, "rate": 1.0}),
                200,
                answer(11, 1),
            ),
            ("POST", "/clients", put("client_id", 20, 2), 200, answer(20, 2)),
            ("GET", "/limits/get?ip=203.0.113.7", json!(null), 200, answer(20, 2)),
            ("DELETE", "/clients/delete", address.clone(), 204, json!(null)),
            ("DELETE", "/clients/delete", address, 404, json!("limit_not_found")),
            ("POST", "/clients", put("ip", 10, 1), 200, answer(10, 1)),
            ("DELETE", "/clients/delete?ip=203.0.113.7", json!(null), 204, json!(null)),
        ])
        .await;
}

#[tokio::test]
async fn what_is_not_well_formed_is_refused_and_changes_nothing() {
    let admin = Admin::start().await;
    let with = |id: Value, capacity: Value, rate: Value| json!({"client_id": id, "capacity": capacity, "rate_per_sec": rate});
    let refused = |body: Value| ("POST", "/limits/create", body, 400, json!("invalid_request"));
    admin
        .answers(&[
            refused(json!(null)),
            refused(json!([])),
            refused(json!(["203.0.113.7", 1, 1])),
            refused(json!({"capacity": 1, "rate_per_sec": 1})),
            refused(json!({"client_id": "a", "capacity": 1})),
            refused(with(json!(""), json!(1), json!(1))),
            refused(with(json!("a\nb"), json!(1), json!(1))),
            refused(with(json!("a".repeat(256)), json!(1), json!(1))),
            refused(with(json!(7), json!(1), json!(1))),
            refused(with(json!("a"), json!(0), json!(1))),
            refused(with(json!("a"), json!(1), json!(0))),
            refused(with(json!("a"), json!(-1), json!(1))),
            refused(with(json!("a"), json!(1.5), json!(1))),
            refused(with(json!("a"), json!("1"), json!(1))),
            refused(with(json!("a"), json!(1_000_001), json!(1))),
            refused(with(json!("a"), json!(1), json!(18_446_744_073_709_551_615u64))),
            ("GET", "/limits/get", json!(null), 400, json!("invalid_request")),
            ("DELETE", "/clients/delete", json!({}), 400, json!("invalid_request")),
            ("GET", "/limits?limit=0", json!(null), 400, json!("invalid_request")),
            ("GET", "/limits?limit=%2B5", json!(null), 400, json!("invalid_request")),
            ("GET", "/limits?limit=101", json!(null), 400, json!("invalid_request")),
            ("GET", "/limits?cursor=%01", json!(null), 400, json!("invalid_request")),
            ("GET", "/limits", json!(null), 200, json!({"limits": [], "nextCursor": null})),
        ])
        .await;
    let half = with(json!("a"), json!(1), json!(0.5));
    let reply = admin.asks("POST", "/limits/create", Some(&half)).await;
    assert_eq!(reply.json()["errors"], "rate_per_sec must be a whole number from 1 to 1000000");
    let huge = json!({"client_id": "a".repeat(20_000), "capacity": 1, "rate_per_sec": 1});
    let reply = admin.asks("POST", "/limits/create", Some(&huge)).await;
    assert_eq!((reply.status.as_u16(), &reply.json()["code"]), (413, &json!("body_too_large")));
}

#[tokio::test]
async fn the_list_comes_in_pages() {
    let admin = Admin::start().await;
    for number in 0..7 {
        let body =
            json!({"client_id": format!("client {number}"), "capacity": 1, "rate_per_sec": 1});
        assert_eq!(admin.asks("POST", "/limits/create", Some(&body)).await.status, 201);
    }
    // An empty cursor is the first page.
    let (mut path, mut seen) = ("/limits?limit=3&cursor=".to_owned(), Vec::new());
    loop {
        let page = admin.asks("GET", &path, None).await.json();
        let limits = page["limits"].as_array().unwrap().iter();
        seen.extend(limits.map(|it| it["client_id"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["nextCursor"].as_str() else { break };
        path = format!("/limits?limit=3&cursor={}", cursor.replace(' ', "%20"));
    }
    let expected: Vec<String> = (0..7).map(|number| format!("client {number}")).collect();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn a_limit_is_in_force_when_its_creation_is_answered() {
    let admin = Admin::start().await;
    let client = ClientKey::address("203.0.113.7".parse().unwrap());
    let body = json!({"client_id": "203.0.113.7", "capacity": 1, "rate_per_sec": 1});
    assert_eq!(admin.asks("POST", "/limits/create", Some(&body)).await.status, 201);
    assert_eq!(admin.limiter.check(&client).await.unwrap().limit, limit(1, 1));
}

#[tokio::test]
async fn a_change_whose_answer_is_lost_is_made_once_at_most_and_said_to_be_in_doubt() {
    let limit = |id: &str| json!({"client_id": id, "capacity": 10, "rate_per_sec": 1});
    for (fault, made) in [(Fault::CutBefore, 0), (Fault::CutAfter, 1)] {
        let database = TestDatabase::fresh().await;
        let proxy = Proxy::start(database.url()).await;
        let url = database.url_through(proxy.port());
        let mut options = DatabaseOptions::from_url(url.as_str()).unwrap();
        options.acquire_timeout = Duration::from_secs(3);
        let admin = Admin::of(Store::Postgres(Database::new(options).into())).await;
        // The statement is prepared with the first change.
        let reply = admin.asks("POST", "/limits/create", Some(&limit("10.0.0.1"))).await;
        assert_eq!(reply.status, 201, "{reply:?}");
        proxy.inject(Stage::Limit, fault);
        let reply = admin.asks("POST", "/limits/create", Some(&limit("10.0.0.2"))).await;
        proxy.has_injected_everything();
        reply.is_error(503, "limits_away");
        assert!(reply.text.contains("not known whether the change was made"), "{reply:?}");
        let changes = "SELECT version FROM client_limits_version";
        assert_eq!(database.number(changes).await, 1 + made, "{fault:?}");

        // Where nothing can have been sent, nothing is in doubt.
        proxy.goes_away();
        let reply = admin.asks("POST", "/limits/create", Some(&limit("10.0.0.3"))).await;
        reply.is_error(503, "limits_away");
        assert!(reply.text.contains("stay in force"), "{reply:?}");
    }
}
