//! Names and passwords in any spelling: one letter is one letter, new names hide nothing, and
//! accounts from before stay reachable as they are.

use futures::future::join_all;
use merch_store::auth::password::{self, Password};
use reqwest::Method;
use serde_json::json;

use crate::support::person::PASSWORD;
use crate::support::token::Draft;
use crate::support::{Person, Reply, TestDatabase, TestShop};

const ACCOUNTS: &str = "SELECT count(*) FROM users";

/// An account as the release before would have opened it, for any name and password.
async fn was_opened(database: &TestDatabase, name: &str, password: &str) {
    let hash = password::hash(&Password::parse(password.into()).unwrap());
    let mut connection = database.connect().await;
    sqlx::query(
        "WITH opened AS (INSERT INTO users (username, password_hash) VALUES ($1, $2) RETURNING id),
              funded AS (INSERT INTO balance (user_id, coins) SELECT id, 1000 FROM opened)
         INSERT INTO history (to_id, amount) SELECT id, 1000 FROM opened",
    )
    .bind(name)
    .bind(&*hash)
    .execute(&mut connection)
    .await
    .unwrap();
}

/// Whose token it is: number and name.
fn whose(person: &Person) -> (i64, String) {
    let claims = Draft::from(person).claims;
    (claims["uid"].as_i64().unwrap(), claims["sub"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn however_a_name_is_typed_it_is_one_person() {
    let shop = TestShop::open().await;
    let bob = shop.logs_in("bob").await;
    let people = [
        ["é", "e\u{301}", "ｅ\u{301}"],
        ["Zoë Ångström", "Zoe\u{308} A\u{30a}ngstro\u{308}m", "Zoë\u{3000}\u{212b}ngström"],
        ["김", "\u{1100}\u{1175}\u{11b7}", "\u{1100}\u{1175}\u{11b7}"],
        ["alice", "ａｌｉｃｅ", "aｌice"],
        ["ガ", "ｶﾞ", "カ\u{3099}"],
    ];
    for (others, spellings) in people.iter().enumerate() {
        // Whichever is first.
        let first = shop.logs_in(spellings[(others + 1) % 3]).await;
        for (typed, name) in spellings.iter().enumerate() {
            let person = shop.logs_in(name).await;
            assert_eq!(whose(&person), (whose(&first).0, spellings[0].to_owned()), "{name}");
            shop.authenticates(name, "another password").await.is_error(401, "wrong_password");
            bob.sends(name, 1).await.is_done();
            assert_eq!(person.coins().await, 1001 + typed as i64);
            person.sends(name, 1).await.is_error(400, "self_transfer");
        }
        assert_eq!(bob.info().await["coinHistory"]["sent"][0]["toUser"], spellings[0]);
    }
    assert_eq!(shop.database.number(ACCOUNTS).await, 1 + people.len() as i64);
    shop.is_honest().await;
}

#[tokio::test]
async fn first_logins_at_once_in_several_spellings_share_one_account() {
    let shop = TestShop::open().await;
    let other = shop.replica(|_| {}).await;
    for round in 1..=4 {
        let spellings = ["éa", "e\u{301}a", "ｅ\u{301}a", "é\u{ff41}"];
        let names = spellings.map(|name| format!("{name} {round}"));
        let bases = [&shop.base, &other];
        let logins = names.iter().zip(bases.iter().cycle());
        let logins = logins.map(|(name, at)| Person::logs_in(&shop.client, at, name, PASSWORD));
        for person in join_all(logins).await {
            assert_eq!(whose(&person).1, names[0]);
        }
        assert_eq!(shop.database.number(ACCOUNTS).await, round);
    }
    shop.is_honest().await;
}

#[tokio::test]
async fn a_new_name_hides_nothing_and_the_refusal_says_what_is_wrong() {
    let shop = TestShop::open().await;
    for (name, words) in [
        ("al\u{202e}ice", "U+202E"),
        ("alice\u{200b}", "U+200B"),
        ("al\u{200d}ice", "U+200D"),
        ("\u{feff}alice", "U+FEFF"),
        ("al\u{ad}ice", "U+00AD"),
        ("\u{3164}", "U+3164"),
        ("\u{e0041}", "U+E0041"),
        ("al\u{378}ice", "U+0378"),
        ("al\u{fffe}ice", "U+FFFE"),
        ("ﬁona", "U+FB01"),
        ("😀", "emoji"),
        ("anna\u{a0}maria", "U+00A0"),
        ("anna  maria", "two spaces"),
        ("aliceא", "one direction"),
        ("al\0ice", "control"),
        ("alice\u{3000}", "start or end"),
        (&"\u{958}".repeat(200), "255"),
    ] {
        let reply = shop.authenticates(name, PASSWORD).await;
        reply.is_error(400, "invalid_request");
        let said = reply.json()["errors"].as_str().unwrap().to_owned();
        assert!(said.contains(words), "{name:?}: {said}");
        assert!(!said.chars().any(|it| it.is_control() || it == '\u{202e}'), "{said:?}");
    }
    for body in [
        r#"{"username": "al\ud800ice", "password": "correct horse"}"#,
        r#"{"username": "al\udc00\ud800ice", "password": "correct horse"}"#,
        r#"{"username": "alice", "password": "\udfff correct"}"#,
    ] {
        let request = shop.request(Method::POST, "/api/auth").body(body);
        Reply::to(request).await.is_error(400, "invalid_request");
    }
    for password in ["a\u{200b}b", "a\u{202e}b", "\u{feff}ab", "a\u{ad}b"] {
        shop.authenticates("alice", password).await.is_error(400, "invalid_request");
    }
    assert_eq!(shop.database.number(ACCOUNTS).await, 0);
}

#[tokio::test]
async fn accounts_from_before_are_reached_as_they_are_and_by_what_they_mean() {
    let shop = TestShop::open().await;
    let bob = shop.logs_in("bob").await;
    // As it is in the books, and another spelling that means it, if one does.
    let from_before = [
        ("e\u{301}va", Some("éva")),
        ("ｆｉｏｎａ", Some("fiona")),
        ("\u{1100}\u{1175}\u{11b7}", Some("김")),
        ("😀", None),
        ("al\u{200b}ice", None),
        ("ﬁn", None),
        ("anna  maria", None),
        ("אa", None),
    ];
    for (position, (name, other)) in from_before.into_iter().enumerate() {
        was_opened(&shop.database, name, PASSWORD).await;
        let person = shop.logs_in(name).await;
        let number = 2 + position as i64;
        assert_eq!(whose(&person), (number, name.to_owned()));
        bob.sends(name, 1).await.is_done();
        assert_eq!(bob.info().await["coinHistory"]["sent"][0]["toUser"], name);
        person.buys("pen").await.is_done();
        assert_eq!(person.coins().await, 991);
        shop.authenticates(name, "another password").await.is_error(401, "wrong_password");
        if let Some(other) = other {
            shop.authenticates(other, "another password").await.is_error(401, "wrong_password");
            assert_eq!(whose(&shop.logs_in(other).await), (number, name.to_owned()));
            bob.sends(other, 1).await.is_done();
            assert_eq!(person.coins().await, 992);
        }
    }
    let people = 1 + from_before.len() as i64;
    assert_eq!(shop.database.number(ACCOUNTS).await, people);

    // What only looks alike is somebody else.
    assert_eq!(whose(&shop.logs_in("alice").await).1, "alice");
    assert_eq!(whose(&shop.logs_in("fin").await).1, "fin");
    bob.sends("fin", 1).await.is_done();
    assert_eq!(shop.database.number(ACCOUNTS).await, people + 2);
    shop.is_honest().await;
}

#[tokio::test]
async fn two_accounts_from_before_with_one_name_keep_to_their_own_spellings() {
    let shop = TestShop::open().await;
    let bob = shop.logs_in("bob").await;
    for name in ["e\u{301}", "ｅ\u{301}", "é"] {
        was_opened(&shop.database, name, name).await;
    }
    for name in ["e\u{301}", "ｅ\u{301}", "é"] {
        let person = Person::logs_in(&shop.client, &shop.base, name, name).await;
        assert_eq!(whose(&person).1, name);
        bob.sends(name, 1).await.is_done();
        assert_eq!(person.coins().await, 1001);
    }
    assert_eq!(shop.database.number(ACCOUNTS).await, 4);
}

#[tokio::test]
async fn a_password_is_the_same_on_every_keyboard_and_as_it_was_typed_before() {
    let shop = TestShop::open().await;
    let typed = ["pàssword é 가", "pa\u{300}ssword\u{a0}e\u{301}\u{3000}\u{1100}\u{1161}"];
    for (name, first, second) in [("alice", 0, 1), ("anna", 1, 0)] {
        for password in [typed[first], typed[second], typed[first]] {
            Person::logs_in(&shop.client, &shop.base, name, password).await;
        }
        shop.authenticates(name, "passwоrd e 가").await.is_error(401, "wrong_password");
    }
    for (name, password) in
        [("before", typed[1]), ("long ago", "a\u{200b}b"), ("once", "a\u{fffe}")]
    {
        was_opened(&shop.database, name, password).await;
        for _hashed_and_remembered in 0..2 {
            Person::logs_in(&shop.client, &shop.base, name, password).await;
        }
        shop.authenticates(name, "ab").await.is_error(401, "wrong_password");
    }
    let body = json!({"username": "emoji", "password": "👍\u{1f3fd} \u{1fae0}"});
    let request = shop.request(Method::POST, "/api/auth").json(&body);
    assert_eq!(Reply::to(request).await.status, 200);
}

#[tokio::test]
async fn a_name_is_found_by_its_spellings_without_reading_everybody() {
    let shop = TestShop::open().await;
    was_opened(&shop.database, "e\u{301}va", PASSWORD).await;
    shop.database
        .execute(
            "INSERT INTO users (username, password_hash)
             SELECT 'user' || number, '' FROM generate_series(1, 20000) AS number; ANALYZE users",
        )
        .await;
    let mut connection = shop.database.connect().await;
    let plan: Vec<String> = sqlx::query_scalar(
        "EXPLAIN SELECT id FROM users WHERE normalize(username, NFKC) = ANY('{éva,anna}')
         AND username IS NOT NFKC NORMALIZED",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    assert!(plan.iter().any(|line| line.contains("users_other_spellings_idx")), "{plan:?}");
}
