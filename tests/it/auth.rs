//! `POST /api/auth`: logging in, which the first time is signing up.

use std::time::Duration;

use futures::future::join_all;
use merch_store::shop::Username;
use reqwest::Method;
use serde_json::json;

use crate::support::person::PASSWORD;
use crate::support::raw::Raw;
use crate::support::{Person, Reply, TestShop};

const ACCOUNTS: &str = "SELECT count(*) FROM users";

#[tokio::test]
async fn a_first_login_opens_an_account_with_1000_coins() {
    let shop = TestShop::open().await;
    let reply = shop.authenticates("alice", PASSWORD).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.json().as_object().unwrap().keys().collect::<Vec<_>>(), ["token"]);

    assert_eq!(shop.logs_in("alice").await.coins().await, 1000);
    assert_eq!(shop.database.number(ACCOUNTS).await, 1);
    shop.is_honest().await;
}

#[tokio::test]
async fn a_known_user_gets_in_with_the_right_password_only() {
    let shop = TestShop::open().await;
    let alice = shop.logs_in("alice").await;
    alice.buys("cup").await.is_done();

    shop.authenticates("alice", "correct horses").await.is_error(401, "wrong_password");
    shop.authenticates("alice", "Correct horse").await.is_error(401, "wrong_password");
    assert_eq!(shop.logs_in("alice").await.coins().await, 980);
    // To the letter: this is somebody else.
    assert_eq!(shop.logs_in("Alice").await.coins().await, 1000);
}

#[tokio::test]
async fn a_second_first_login_is_checked_against_the_firsts_password() {
    const ROUNDS: i64 = 8;
    let shop = TestShop::open().await;
    for round in 0..ROUNDS {
        let name = format!("alice {round}");
        let replies = tokio::join!(
            shop.authenticates(&name, "the first password"),
            shop.authenticates(&name, "the second password"),
        );
        let (winner, loser, password) = match replies {
            (first, second) if first.status == 200 => (first, second, "the first password"),
            (first, second) => (second, first, "the second password"),
        };
        assert_eq!(winner.status, 200, "{winner:?}");
        loser.is_error(401, "wrong_password");
        let winner = Person::logs_in(&shop.client, &shop.base, &name, password).await;
        assert_eq!(winner.coins().await, 1000);
    }
    assert_eq!(shop.database.number(ACCOUNTS).await, ROUNDS);
    shop.is_honest().await;
}

#[tokio::test]
async fn many_first_logins_with_the_same_password_share_one_account() {
    let shop = TestShop::open().await;
    let logins = (0..5).map(|_| shop.logs_in("alice"));
    for (spent, alice) in join_all(logins).await.into_iter().enumerate() {
        alice.buys("pen").await.is_done();
        assert_eq!(alice.owns("pen").await, spent as i64 + 1);
    }
    assert_eq!(shop.database.number(ACCOUNTS).await, 1);
    shop.is_honest().await;
}

#[tokio::test]
async fn a_sign_up_whose_client_hangs_up_leaves_a_whole_account_or_none() {
    let shop = TestShop::open().await;
    for round in 0..5 {
        let body = json!({"username": format!("alice {round}"), "password": PASSWORD}).to_string();
        let mut client = Raw::connect(shop.address).await;
        client
            .says(format!(
                "POST /api/auth HTTP/1.1\r\nHost: shop\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ))
            .await;
        drop(client);
    }
    for round in 0..5 {
        assert_eq!(shop.logs_in(&format!("alice {round}")).await.coins().await, 1000);
    }
    shop.is_honest().await;
}

#[tokio::test]
async fn one_database_connection_is_enough_for_everybody() {
    let shop = TestShop::with(|config| {
        config.database.max_connections = 1.try_into().unwrap();
        // Whoever needed two would wait in vain, and be told so, before this is over.
        config.database.acquire_timeout = Duration::from_secs(60);
    });
    let shop = shop.await;
    let alice = shop.logs_in("alice").await;
    let logins = join_all((0..6).map(|number| {
        let (shop, name) = (&shop, format!("colleague {number}"));
        async move { shop.logs_in(&name).await }
    }));
    let looks = join_all((0..30).map(|_| alice.coins()));
    let (logins, looks) = tokio::join!(logins, looks);
    assert_eq!(logins.len(), 6);
    assert_eq!(looks, [1000; 30]);
}

#[tokio::test]
async fn a_username_is_up_to_255_characters_in_any_script() {
    let shop = TestShop::open().await;
    let longest = "я".repeat(Username::MAX_CHARS);
    for name in ["a", "анна мария", "김민준", longest.as_str()] {
        assert_eq!(shop.logs_in(name).await.coins().await, 1000, "{name:?}");
    }
    shop.logs_in("a").await.sends(&longest, 1).await.is_done();

    let (too_long, too_long_in_latin) = ("я".repeat(256), "x".repeat(256));
    for name in [
        "",
        " ",
        " alice",
        "alice ",
        "\u{a0}alice",
        "al\0ice",
        "al\nice",
        "al\u{85}ice",
        "alice\u{7f}",
        &too_long,
        &too_long_in_latin,
    ] {
        shop.authenticates(name, PASSWORD).await.is_error(400, "invalid_request");
    }
    assert_eq!(shop.database.number(ACCOUNTS).await, 4);
}

#[tokio::test]
async fn a_password_is_up_to_1024_bytes_and_every_one_of_them_counts() {
    let shop = TestShop::open().await;
    let longest = "x".repeat(1024);
    let in_cyrillic = "п".repeat(512);
    for (name, password) in [("alice", &longest), ("анна", &in_cyrillic)] {
        assert_eq!(shop.authenticates(name, password).await.status, 200);
    }
    // The same as far as others look: 72 bytes, and all but the last one.
    for password in [&longest[..72], &longest[..1023], &format!("{}y", &longest[1..])] {
        shop.authenticates("alice", password).await.is_error(401, "wrong_password");
    }

    let (too_long, too_long_in_cyrillic) = ("x".repeat(1025), "п".repeat(513));
    for password in ["", " ", " secret", "secret ", "sec\tret", "sec\0ret"]
        .into_iter()
        .chain([too_long.as_str(), &too_long_in_cyrillic])
    {
        shop.authenticates("bob", password).await.is_error(400, "invalid_request");
    }
    assert_eq!(shop.database.number(ACCOUNTS).await, 2);
}

#[tokio::test]
async fn a_body_that_is_not_a_login_is_refused() {
    let shop = TestShop::open().await;
    let bodies: [&[u8]; 18] = [
        b"",
        b"{",
        b"null",
        b"\"alice\"",
        b"[]",
        b"[\"alice\", \"correct horse\"]",
        b"{}",
        b"{'username': 'alice', 'password': 'correct horse'}",
        br#"{"username": "alice"}"#,
        br#"{"password": "correct horse"}"#,
        br#"{"Username": "alice", "Password": "correct horse"}"#,
        br#"{"username": null, "password": "correct horse"}"#,
        br#"{"username": "alice", "password": null}"#,
        br#"{"username": "alice", "password": 12345678}"#,
        br#"{"username": ["alice"], "password": "correct horse"}"#,
        br#"{"username": "alice", "username": "bob", "password": "correct horse"}"#,
        br#"{"username": "alice", "password": "correct horse"} and more"#,
        b"{\"username\": \"al\xffice\", \"password\": \"correct horse\"}",
    ];
    for body in bodies {
        let request = shop.request(Method::POST, "/api/auth").body(body);
        Reply::to(request).await.is_error(400, "invalid_request");
    }
    assert_eq!(shop.database.number(ACCOUNTS).await, 0);
}

#[tokio::test]
async fn repeated_logins_need_no_place_in_the_hashing_queue() {
    let shop = TestShop::with(|config| {
        config.auth.hash_threads = 1;
        config.auth.hash_queue = 0;
    })
    .await;
    for _sign_up_and_login in 0..2 {
        shop.logs_in("alice").await;
    }
    let again = (0..20).map(|_| shop.authenticates("alice", PASSWORD));
    for reply in join_all(again).await {
        assert_eq!(reply.status, 200, "{reply:?}");
    }
    shop.authenticates("alice", "another password").await.is_error(401, "wrong_password");
}

#[tokio::test]
async fn a_password_that_was_changed_is_void_at_once() {
    let shop = TestShop::open().await;
    shop.authenticates("bob", "bob's password").await;
    for _sign_up_and_logins in 0..3 {
        shop.logs_in("alice").await;
    }
    shop.database
        .execute(
            "UPDATE users SET password_hash =
                 (SELECT password_hash FROM users WHERE username = 'bob')
             WHERE username = 'alice'",
        )
        .await;
    shop.authenticates("alice", PASSWORD).await.is_error(401, "wrong_password");
    assert_eq!(shop.authenticates("alice", "bob's password").await.status, 200);
}
