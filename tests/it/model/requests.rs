//! What people ask for, sensible and not.

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use reqwest::Method;
use serde_json::json;

use crate::support::{Person, Reply};

use super::books::Books;

/// A request as far as it matters: two that are equal ask for the same.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    Buy {
        item: String,
    },
    Send {
        to: String,
        amount: i64,
    },
    /// A body for sendCoin that nobody could mean, and what it is told.
    Nonsense {
        body: String,
        code: &'static str,
    },
}

const ITEMS: [&str; 12] = [
    "pen",
    "pen",
    "socks",
    "cup",
    "book",
    "wallet",
    "t-shirt",
    "hoody",
    "pink-hoody",
    "yacht",
    "t_shirt",
    "Cup",
];

/// Some of whom come later, some never.
const RECIPIENTS: [&str; 14] = [
    "alice", "bob", "carol", "dave", "eve", "alice", "bob", "user1", "user2", "user3", "user4",
    "nobody", "", " bob",
];

const NONSENSE: [(&str, &str); 16] = [
    ("", "invalid_request"),
    ("{", "invalid_request"),
    ("null", "invalid_request"),
    ("[\"bob\"]", "invalid_request"),
    ("{}", "invalid_request"),
    (r#"{"toUser": "bob"}"#, "invalid_request"),
    (r#"{"amount": 1}"#, "invalid_request"),
    (r#"{"toUser": 5, "amount": 1}"#, "invalid_request"),
    (r#"{"toUser": "bob", "amount": "10"}"#, "invalid_request"),
    (r#"{"toUser": "bob", "amount": 1.5}"#, "invalid_request"),
    (r#"{"toUser": "bob", "amount": 1e30}"#, "invalid_request"),
    (r#"{"toUser": "bob", "amount": 9223372036854775808}"#, "invalid_request"),
    (r#"{"toUser": "bob", "amount": null}"#, "invalid_request"),
    (r#"{"toUser": "bob", "amount": 0}"#, "invalid_amount"),
    (r#"{"toUser": "bob", "amount": -1}"#, "invalid_amount"),
    (r#"{"toUser": "nobody", "amount": -9223372036854775808}"#, "invalid_amount"),
];

/// Something that `by` might ask for, given what they have.
pub fn random_request(rng: &mut StdRng, books: &Books, by: &str) -> Request {
    match rng.random_range(0..20) {
        0..8 => Request::Buy { item: (*ITEMS.choose(rng).unwrap()).into() },
        8..18 => {
            let to = (*RECIPIENTS.choose(rng).unwrap()).into();
            let has = books.coins(by);
            let amount = match rng.random_range(0..8) {
                0 => has.max(1),
                1 => has + 1,
                2 => i64::MAX,
                _ => rng.random_range(1..60),
            };
            Request::Send { to, amount }
        }
        _ => {
            let (body, code) = *NONSENSE.choose(rng).unwrap();
            Request::Nonsense { body: body.into(), code }
        }
    }
}

impl Request {
    /// Sends it, in one of the ways that it can be put.
    pub async fn ask(&self, by: &Person, key: Option<&str>, rng: &mut StdRng) -> Reply {
        let mut request = match self {
            Request::Buy { item } => {
                let method = [Method::GET, Method::POST].choose(rng).unwrap().clone();
                by.request(method, &format!("/api/buy/{item}"))
            }
            Request::Send { to, amount } => {
                let plain = json!({"toUser": to, "amount": amount}).to_string();
                let airy = format!("{{ \"amount\" : {amount},\n\"toUser\" : {} }}", json!(to));
                let is_a_name = !to.is_empty() && to.trim() == to;
                let body = if is_a_name && rng.random_bool(0.5) { airy } else { plain };
                by.request(Method::POST, "/api/sendCoin").body(body)
            }
            Request::Nonsense { body, .. } => {
                by.request(Method::POST, "/api/sendCoin").body(body.clone())
            }
        };
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        Reply::to(request).await
    }
}
