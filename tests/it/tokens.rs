//! Tokens: what every guarded route lets through, and what not.

use std::time::{Duration, SystemTime};

use jsonwebtoken::Algorithm;
use reqwest::Method;
use reqwest::header::HeaderValue;
use serde_json::{Value, json};

use crate::support::shop::SECRET;
use crate::support::token::{Draft, GUARDED};
use crate::support::{Person, Reply, TestShop};

#[tokio::test]
async fn every_guarded_route_wants_a_bearer_token() {
    let shop = TestShop::open().await;
    let alice = shop.logs_in("alice").await;
    let token = alice.token.as_str();
    let authorizations = [
        None,
        Some(String::new()),
        Some("Bearer".into()),
        Some("Bearer ".into()),
        Some("BearerX".into()),
        Some(format!("BearerX {token}")),
        Some(format!("Bearer{token}")),
        Some(format!("Bearer\t{token}")),
        Some(format!("Bearer {token} {token}")),
        Some(format!("Basic {token}")),
        Some("Basic YWxpY2U6Y29ycmVjdCBob3JzZQ==".into()),
        Some(format!("Token {token}")),
        Some(token.into()),
        Some("Bearer null".into()),
        Some("Bearer ..".into()),
        Some("Bearer a.b.c".into()),
        Some(format!("Bearer {token}.more")),
        Some(format!("Bearer {}", &token[..token.len() - 1])),
        Some(format!("Bearer {}", token.rsplit_once('.').unwrap().0)),
        Some("Bearer ключ".into()),
    ];
    for (method, path) in GUARDED {
        for authorization in &authorizations {
            let mut request = shop.request(method.clone(), path);
            if let Some(value) = authorization {
                let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
                request = request.header("Authorization", value);
            }
            let reply = Reply::to(request).await;
            assert_eq!(reply.status, 401, "{method} {path} {authorization:?}");
            let challenge = reply.header("www-authenticate").unwrap();
            assert!(challenge.starts_with("Bearer realm=\"merch-store\""), "{challenge}");
            reply.is_error(401, "unauthorized");
        }
    }
    assert_eq!(alice.coins().await, 1000);
}

#[tokio::test]
async fn the_schemes_name_may_be_written_in_any_case() {
    let shop = TestShop::open().await;
    let alice = shop.logs_in("alice").await;
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let request = shop.request(Method::GET, "/api/info");
        let request = request.header("Authorization", format!("{scheme} {}", alice.token));
        assert_eq!(Reply::to(request).await.status, 200, "{scheme}");
    }
}

#[tokio::test]
async fn a_token_says_who_for_whom_and_until_when() {
    let shop = TestShop::with(|config| config.auth.token_ttl = Duration::from_secs(600)).await;
    let alice = shop.logs_in("alice").await;
    let Draft { header, claims } = Draft::from(&alice);
    assert_eq!(header["alg"], "HS256");
    assert!(header["kid"].is_string());
    assert_eq!(claims["iss"], "merch-store");
    assert_eq!(claims["aud"], "merch-store-api");
    assert_eq!(claims["sub"], "alice");
    let (issued, expires) = (claims["iat"].as_u64().unwrap(), claims["exp"].as_u64().unwrap());
    assert!(issued.abs_diff(now()) < 60);
    assert_eq!(expires - issued, 600);
}

#[tokio::test]
async fn a_token_that_is_not_quite_ours_is_refused() {
    let shop = TestShop::open().await;
    let alice = shop.logs_in("alice").await;
    let genuine = Draft::from(&alice);
    let status = async |token: String| {
        Reply::to(shop.request(Method::GET, "/api/info").bearer_auth(token)).await.status.as_u16()
    };
    // Signed anew it passes, so whatever is refused below is refused for what it changes.
    assert_eq!(status(genuine.sign(Algorithm::HS256)).await, 200);

    let changes: [(&str, &str, Value); 18] = [
        ("claims", "exp", json!(now() - 1)),
        ("claims", "exp", json!("tomorrow")),
        ("claims", "exp", Value::Null),
        ("claims", "iss", json!("another-shop")),
        ("claims", "iss", Value::Null),
        ("claims", "aud", json!("another-api")),
        ("claims", "aud", Value::Null),
        ("claims", "sub", json!("")),
        ("claims", "sub", json!("al\u{0}ice")),
        ("claims", "sub", Value::Null),
        ("claims", "uid", json!("1")),
        ("claims", "uid", json!(1.5)),
        ("claims", "uid", Value::Null),
        ("header", "kid", json!("00000000")),
        ("header", "kid", json!("")),
        ("header", "kid", json!(7)),
        ("header", "kid", Value::Null),
        ("header", "alg", Value::Null),
    ];
    for (part, field, value) in changes {
        let mut draft = genuine.clone();
        let part = if part == "header" { &mut draft.header } else { &mut draft.claims };
        match value {
            // Absent altogether.
            Value::Null => drop(part.as_object_mut().unwrap().remove(field)),
            _ => part[field] = value.clone(),
        }
        assert_eq!(status(draft.sign(Algorithm::HS256)).await, 401, "{field}: {value}");
    }
}

#[tokio::test]
async fn the_algorithm_is_ours_to_choose() {
    let shop = TestShop::open().await;
    let alice = shop.logs_in("alice").await;
    let genuine = Draft::from(&alice);
    let with = |algorithm: &str| {
        let mut draft = genuine.clone();
        draft.header["alg"] = json!(algorithm);
        draft
    };
    let mut tokens = vec![
        // Signed with the right secret, and with the algorithm that they name.
        with("HS384").sign(Algorithm::HS384),
        with("HS512").sign(Algorithm::HS512),
    ];
    for name in ["none", "None", "NONE", "", "HS384", "HS512", "RS256", "ES256", "EdDSA"] {
        // Signed with the right secret and our own algorithm, or not signed at all.
        tokens.push(with(name).sign(Algorithm::HS256));
        tokens.push(format!("{}.", with(name).message()));
    }
    for token in tokens {
        let request = shop.request(Method::GET, "/api/buy/cup").bearer_auth(&token);
        Reply::to(request).await.is_error(401, "unauthorized");
    }
    assert_eq!(alice.coins().await, 1000);
}

#[tokio::test]
async fn a_token_cannot_be_altered() {
    let shop = TestShop::open().await;
    let (alice, bob) = (shop.logs_in("alice").await, shop.logs_in("bob").await);
    let (_, signature) = alice.token.rsplit_once('.').unwrap();
    let message = Draft::from(&bob).message();
    let swapped =
        shop.request(Method::GET, "/api/info").bearer_auth(format!("{message}.{signature}"));
    Reply::to(swapped).await.is_error(401, "unauthorized");
}

#[tokio::test]
async fn a_rotation_accepts_the_previous_secret_until_it_is_over() {
    const NEXT: &str = "the next secret, of which nobody knows yet";
    let shop = TestShop::open().await;
    let alice = shop.logs_in("alice").await;
    let rotating = shop.replica(|config| {
        config.auth.jwt_secret = Some(NEXT.into());
        config.auth.jwt_previous_secret = Some(SECRET.into());
    });
    let rotating = rotating.await;
    let rotated = shop.replica(|config| config.auth.jwt_secret = Some(NEXT.into())).await;

    let renewed = Person::logs_in(&shop.client, &rotating, "alice", "correct horse").await;
    for (person, base, status) in [
        (&alice, &rotating, 200),
        (&alice, &rotated, 401),
        (&renewed, &rotating, 200),
        (&renewed, &rotated, 200),
        (&renewed, &shop.base, 401),
    ] {
        let reply = person.at(base).gets("/api/info").await;
        assert_eq!(reply.status, status, "{reply:?}");
    }
}

#[tokio::test]
async fn a_rotation_in_two_phases_is_noticed_by_nobody() {
    const NEXT: &str = "the next secret, of which nobody knows yet";
    let shop = TestShop::open().await;
    shop.logs_in("alice").await;
    let with = async |secret: &'static str, other: Option<&'static str>| {
        let replica = shop.replica(move |config| {
            config.auth.jwt_secret = Some(secret.into());
            config.auth.jwt_previous_secret = other.map(Into::into);
        });
        replica.await
    };
    let phases = [(SECRET, None), (SECRET, Some(NEXT)), (NEXT, Some(SECRET)), (NEXT, Some(NEXT))];
    let mut replicas = [with(SECRET, None).await, with(SECRET, None).await];
    let mut tokens = Vec::new();
    for (secret, other) in phases {
        if other == Some(NEXT) && secret == NEXT {
            // The old ones have expired: it is over, and the same key twice does no harm.
            let newest = Draft::from(tokens.last().unwrap()).header;
            tokens.retain(|token: &Person| Draft::from(token).header == newest);
        }
        for position in 0..replicas.len() {
            replicas[position] = with(secret, other).await;
            for base in &replicas {
                tokens.push(Person::logs_in(&shop.client, base, "alice", "correct horse").await);
            }
            for token in &tokens {
                for base in &replicas {
                    assert_eq!(token.at(base).coins().await, 1000, "{secret} {other:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_token_of_an_account_that_does_not_exist_is_refused() {
    let shop = TestShop::open().await;
    let mut ghost = shop.logs_in("alice").await;
    let mut draft = Draft::from(&ghost);
    draft.claims["uid"] = json!(1_000_000);
    draft.claims["sub"] = json!("ghost");
    ghost.token = draft.sign(Algorithm::HS256);
    for (method, path) in GUARDED {
        let request = ghost.request(method.clone(), path);
        let reply = Reply::to(request.json(&json!({"toUser": "alice", "amount": 1}))).await;
        assert_eq!(reply.status, 401, "{method} {path}");
        let code = reply.json()["code"].as_str().unwrap().to_owned();
        assert!(["unauthorized", "unknown_account"].contains(&code.as_str()), "{code}");
    }
    shop.is_honest().await;
}

#[tokio::test]
async fn a_refusal_says_what_is_wrong_and_only_of_a_token_that_was_ours_that_it_has_expired() {
    let shop = TestShop::open().await;
    let alice = shop.logs_in("alice").await;
    let genuine = Draft::from(&alice);
    let expired = |change: &dyn Fn(&mut Draft)| {
        let mut draft = genuine.clone();
        draft.claims["exp"] = json!(now() - 60);
        change(&mut draft);
        draft
    };
    let bearer = |draft: Draft| Some(format!("Bearer {}", draft.sign(Algorithm::HS256)));
    let forged = expired(&|_| {}).message();
    let forged = format!("Bearer {forged}.{}", alice.token.rsplit_once('.').unwrap().1);
    let invalid = "error=\"invalid_token\", error_description=\"the token is not valid\"";
    let old = "error=\"invalid_token\", error_description=\"the token has expired\"";
    for (authorization, word, challenge) in [
        (None, "a token is required", None),
        (Some(String::new()), "a token is required", None),
        (Some("Bearer".into()), "a token is required", None),
        (Some(alice.token.clone()), "the word Bearer is missing", None),
        (Some(format!("Token {}", alice.token)), "the word Bearer is missing", None),
        (bearer(expired(&|_| {})), "has expired", Some(old)),
        (Some(forged), "is not valid", Some(invalid)),
        (bearer(expired(&|it| it.claims["iss"] = json!("other"))), "is not valid", Some(invalid)),
        (bearer(expired(&|it| it.claims["aud"] = json!("other"))), "is not valid", Some(invalid)),
        (bearer(expired(&|it| it.claims["sub"] = json!(""))), "is not valid", Some(invalid)),
        (bearer(expired(&|it| it.header["kid"] = json!("0"))), "is not valid", Some(invalid)),
        (
            Some(format!("Bearer {}", expired(&|_| {}).sign(Algorithm::HS512))),
            "is not valid",
            Some(invalid),
        ),
        (Some("Bearer nonsense".into()), "is not valid", Some(invalid)),
    ] {
        for (method, path) in GUARDED {
            let mut request = shop.request(method, path).body("{}");
            if let Some(authorization) = &authorization {
                request = request.header("Authorization", authorization);
            }
            let reply = Reply::to(request).await;
            let place = format!("{path} {authorization:?}: {reply:?}");
            assert!(reply.json()["errors"].as_str().unwrap().contains(word), "{place}");
            let said = reply.header("www-authenticate").unwrap().to_owned();
            let rest = said.strip_prefix("Bearer realm=\"merch-store\"").unwrap();
            assert_eq!(rest.strip_prefix(", "), challenge, "{place}");
            reply.is_error(401, "unauthorized");
        }
    }
    assert_eq!(alice.coins().await, 1000);
}

fn now() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()
}
