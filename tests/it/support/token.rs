//! Tokens, taken apart and signed anew.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use reqwest::Method;
use serde_json::{Value, json};

use super::Person;
use super::shop::SECRET;

/// Every route that wants a token. Those that could tell the shop who is asking come last.
pub const GUARDED: [(Method, &str); 6] = [
    (Method::GET, "/api/info"),
    (Method::GET, "/api/history"),
    (Method::GET, "/api/history/summary"),
    (Method::POST, "/api/sendCoin"),
    (Method::GET, "/api/buy/cup"),
    (Method::POST, "/api/buy/cup"),
];

/// A token in the making.
#[derive(Clone)]
pub struct Draft {
    pub header: Value,
    pub claims: Value,
}

impl Draft {
    pub fn from(person: &Person) -> Draft {
        let part = |index| {
            let part = person.token.split('.').nth(index).unwrap();
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
        };
        Draft { header: part(0), claims: part(1) }
    }

    /// Header and claims, as they are signed.
    pub fn message(&self) -> String {
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        format!("{}.{}", encode(&self.header), encode(&self.claims))
    }

    /// Signs with the shop's secret and `algorithm`, whatever the header says.
    pub fn sign(&self, algorithm: Algorithm) -> String {
        let (message, key) = (self.message(), EncodingKey::from_secret(SECRET.as_bytes()));
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).unwrap();
        format!("{message}.{signature}")
    }
}

impl Person {
    /// The same person with another token.
    pub fn with(&self, token: String) -> Person {
        let mut person = self.clone();
        person.token = token;
        person
    }

    /// No guarded route knows this person's token.
    pub async fn is_nobody(&self) {
        for (method, path) in GUARDED {
            let request = self.request(method.clone(), path);
            let reply = super::Reply::to(request.json(&json!({"toUser": "x", "amount": 1}))).await;
            assert_eq!(reply.status, 401, "{method} {path}: {reply:?}");
        }
    }
}
