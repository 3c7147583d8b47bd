//! Somebody who uses the shop, and what it answers.

use reqwest::header::HeaderMap;
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

/// The password of everybody who does not say otherwise.
pub const PASSWORD: &str = "correct horse";

/// A user with a token.
#[derive(Clone)]
pub struct Person {
    pub name: String,
    pub token: String,
    base: String,
    client: Client,
}

/// A whole answer.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Person {
    /// Logs in, or signs up, at the shop at `base`.
    pub async fn logs_in(client: &Client, base: &str, name: &str, password: &str) -> Person {
        let reply = authenticate(client, base, name, password).await;
        assert_eq!(reply.status, 200, "{name} logs in: {reply:?}");
        let token = reply.json()["token"].as_str().unwrap().to_owned();
        Person { name: name.into(), token, base: base.into(), client: client.clone() }
    }

    /// Somebody who has a token already, at no shop yet.
    pub fn with_token(client: &Client, name: &str, token: &str) -> Person {
        let (name, token, base) = (name.into(), token.into(), String::new());
        Person { name, token, base, client: client.clone() }
    }

    /// The same person at another replica, with the same token.
    pub fn at(&self, base: &str) -> Person {
        Person { base: base.into(), ..self.clone() }
    }

    /// The same person with another client.
    pub fn with_client(&self, client: &Client) -> Person {
        Person { client: client.clone(), ..self.clone() }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token)
    }

    pub async fn gets(&self, path: &str) -> Reply {
        Reply::to(self.request(Method::GET, path)).await
    }

    pub async fn buys(&self, item: &str) -> Reply {
        self.gets(&format!("/api/buy/{item}")).await
    }

    pub async fn buys_once(&self, item: &str, key: &str) -> Reply {
        let request = self.request(Method::GET, &format!("/api/buy/{item}"));
        Reply::to(request.header("Idempotency-Key", key)).await
    }

    pub async fn sends(&self, to: &str, amount: i64) -> Reply {
        self.posts_coins(json!({"toUser": to, "amount": amount})).await
    }

    pub async fn sends_once(&self, to: &str, amount: i64, key: &str) -> Reply {
        let body = json!({"toUser": to, "amount": amount});
        let request = self.request(Method::POST, "/api/sendCoin").json(&body);
        Reply::to(request.header("Idempotency-Key", key)).await
    }

    pub async fn posts_coins(&self, body: Value) -> Reply {
        Reply::to(self.request(Method::POST, "/api/sendCoin").json(&body)).await
    }

    /// The body of `GET /api/info`.
    pub async fn info(&self) -> Value {
        let reply = self.gets("/api/info").await;
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.json()
    }

    pub async fn coins(&self) -> i64 {
        self.info().await["coins"].as_i64().unwrap()
    }

    /// How many of `item` this person owns.
    pub async fn owns(&self, item: &str) -> i64 {
        let info = self.info().await;
        let inventory = info["inventory"].as_array().unwrap();
        inventory
            .iter()
            .find(|entry| entry["type"] == item)
            .map_or(0, |entry| entry["quantity"].as_i64().unwrap())
    }
}

impl Reply {
    pub async fn to(request: RequestBuilder) -> Reply {
        Reply::try_to(request).await.unwrap()
    }

    /// The answer, if there is a whole one.
    pub async fn try_to(request: RequestBuilder) -> reqwest::Result<Reply> {
        let response = request.send().await?;
        let (status, headers) = (response.status(), response.headers().clone());
        Ok(Reply { status, headers, text: response.text().await? })
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {self:?}"))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// It was done, and there is nothing to say about it.
    #[track_caller]
    pub fn is_done(&self) {
        assert_eq!((self.status.as_u16(), self.text.as_str()), (200, ""), "{self:?}");
    }

    /// It is an error of this status and code, in the shape of the contract.
    #[track_caller]
    pub fn is_error(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        let body = self.json();
        assert_eq!(body["code"], code, "{self:?}");
        let message = body["errors"].as_str().unwrap_or_default();
        assert!(!message.is_empty(), "{self:?}");
        assert_eq!(body.as_object().unwrap().len(), 2, "{self:?}");
    }
}

/// `POST /api/auth`, however it ends.
pub async fn authenticate(client: &Client, base: &str, name: &str, password: &str) -> Reply {
    let body = json!({"username": name, "password": password});
    Reply::to(client.post(format!("{base}/api/auth")).json(&body)).await
}
