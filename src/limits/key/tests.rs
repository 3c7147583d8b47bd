//! Who is who, and who cannot be made to look like somebody else.

use ::http::HeaderValue;
use jsonwebtoken::{EncodingKey, Header};
use proptest::prelude::*;
use serde_json::json;

use super::*;

const SECRET: &str = "the secret that signs tokens in tests";
const PREVIOUS: &str = "the secret that signed them yesterday";
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 7));

fn nat64() -> Nat64 {
    Nat64::new(["64:ff9b::/96", "64:ff9b:1::/48"].map(|it| it.parse().unwrap()).into())
}

fn named(name: &str) -> ClientKey {
    ClientKey::name(name, &nat64())
}

fn parse(text: &str) -> Result<ClientId, InvalidClientId> {
    ClientId::parse(text, &nat64())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn by_subject() -> KeyBy {
    KeyBy::Subject(Box::new(Subjects::new(&SECRET.into(), Some(&PREVIOUS.into()))))
}

fn token(algorithm: Algorithm, secret: &str, claims: serde_json::Value) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(algorithm), &claims, &key).unwrap()
}

/// The key of a request with `authorization`.
fn key_with(authorization: &str) -> ClientKey {
    by_subject().key(&nat64(), HERE, &headers(&[("authorization", authorization)]))
}

#[test]
fn addresses_are_told_apart_as_far_as_their_owners_are() {
    for (one, other, same) in [
        ("203.0.113.7", "203.0.113.7", true),
        ("203.0.113.7", "203.0.113.8", false),
        ("203.0.113.7", "::ffff:203.0.113.7", true),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff", true),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", false),
        ("::1", "0.0.0.1", false),
    ] {
        let (one, other) = (ClientKey::address(ip(one)), ClientKey::address(ip(other)));
        assert_eq!(one == other, same, "{one} {other}");
        assert_eq!(one.to_string() == other.to_string(), same, "{one} {other}");
    }
    for spelled in ["203.0.113.7", "2001:db8::1"] {
        let (address, name) = (ClientKey::address(ip(spelled)), named(spelled));
        assert_ne!(address, name);
        assert_ne!(address.to_string(), name.to_string());
    }
}

#[test]
fn clients_behind_a_translator_are_as_many_as_their_addresses_of_ipv4() {
    let key = |text| KeyBy::Address.key(&nat64(), ip(text), &HeaderMap::new());
    for (one, other, same) in [
        ("64:ff9b::203.0.113.7", "203.0.113.7", true),
        ("64:ff9b::203.0.113.7", "64:ff9b::203.0.113.8", false),
        ("64:ff9b:1:cb00:71:700::", "203.0.113.7", true),
        ("64:ff9b:1:cb00:71:700::", "64:ff9b:1:cb00:71:800::", false),
        // Below a prefix that nobody named it is IPv6 like any other.
        ("2001:db8::203.0.113.7", "2001:db8::203.0.113.8", true),
    ] {
        assert_eq!(key(one) == key(other), same, "{one} {other}");
    }
}

#[test]
fn by_address_no_header_matters() {
    let spoofed = headers(&[
        ("x-forwarded-for", "192.0.2.1"),
        ("forwarded", "for=192.0.2.1"),
        ("x-real-ip", "192.0.2.1"),
        ("authorization", "Bearer x"),
    ]);
    assert_eq!(KeyBy::Address.key(&nat64(), HERE, &spoofed), ClientKey::address(HERE));
}

#[test]
fn a_header_names_its_client_unless_it_is_no_name() {
    let by_header = KeyBy::Header(HeaderName::from_static("x-api-key"));
    let longest = "k".repeat(MAX_NAME);
    for name in ["alice", "203.0.113.9", &longest] {
        let key = by_header.key(&nat64(), HERE, &headers(&[("x-api-key", name)]));
        assert_eq!(key, named(name));
    }
    let too_long = "k".repeat(MAX_NAME + 1);
    let twice = [("x-api-key", "alice"), ("x-api-key", "bob")];
    for wrong in [&[][..], &[("x-api-key", "")], &[("x-api-key", &too_long)], &twice] {
        assert_eq!(
            by_header.key(&nat64(), HERE, &headers(wrong)),
            ClientKey::address(HERE),
            "{wrong:?}"
        );
    }
}

#[test]
fn an_address_in_a_header_or_a_token_is_one_client_however_it_is_spelled() {
    let by_header = KeyBy::Header(HeaderName::from_static("x-real-ip"));
    for (spellings, expected) in [
        (
            &[
                "203.0.113.9",
                "203.0.113.9:890",
                "::ffff:203.0.113.9",
                "[::ffff:cb00:7109]:1",
                "64:ff9b::203.0.113.9",
                "[64:FF9B:0::CB00:7109]:890",
                "64:ff9b:1:cb00:71:900::",
            ][..],
            "n:203.0.113.9",
        ),
        (
            &["2001:db8::1", "2001:DB8:0:0::2", "[2001:db8::3]", "[2001:db8::4]:890"],
            "n:2001:db8::/64",
        ),
    ] {
        for spelling in spellings {
            let claims = json!({"sub": spelling, "exp": 4_000_000_000u64});
            let token = token(Algorithm::HS256, SECRET, claims);
            let of_header = by_header.key(&nat64(), HERE, &headers(&[("x-real-ip", spelling)]));
            for key in [of_header, key_with(&format!("Bearer {token}"))] {
                assert_eq!(key.to_string(), expected, "{spelling}");
                assert!(parse(spelling).unwrap().keys().any(|it| it == key), "{key}");
            }
        }
    }
}

#[test]
fn a_token_that_we_signed_names_its_subject() {
    let later = 4_000_000_000u64;
    let claims = json!({"sub": "alice", "exp": later, "aud": "anybody", "iss": "somebody"});
    for secret in [SECRET, PREVIOUS] {
        let token = token(Algorithm::HS256, secret, claims.clone());
        for scheme in ["Bearer", "bearer", "BEARER"] {
            assert_eq!(key_with(&format!("{scheme} {token}")), named("alice"));
        }
    }
}

#[test]
fn an_invented_token_leaves_its_client_at_its_address() {
    let later = 4_000_000_000u64;
    let good = json!({"sub": "alice", "exp": later});
    let signed = token(Algorithm::HS256, SECRET, good.clone());
    let (head_and_claims, _) = signed.rsplit_once('.').unwrap();
    let long_name = "n".repeat(MAX_NAME + 1);
    let padding = "p".repeat(MAX_TOKEN);
    for (why, token) in [
        ("another secret", token(Algorithm::HS256, "another secret", good.clone())),
        ("another algorithm", token(Algorithm::HS512, SECRET, good.clone())),
        ("no signature", format!("{head_and_claims}.")),
        // {"alg":"none"}
        ("no algorithm", format!("eyJhbGciOiJub25lIn0.{}", &head_and_claims[21..])),
        ("expired", token(Algorithm::HS256, SECRET, json!({"sub": "alice", "exp": 1}))),
        ("no end", token(Algorithm::HS256, SECRET, json!({"sub": "alice"}))),
        ("no subject", token(Algorithm::HS256, SECRET, json!({"exp": later}))),
        ("no name", token(Algorithm::HS256, SECRET, json!({"sub": "", "exp": later}))),
        ("a long name", token(Algorithm::HS256, SECRET, json!({"sub": long_name, "exp": later}))),
        (
            "a long token",
            token(Algorithm::HS256, SECRET, json!({"sub": "alice", "exp": later, "x": padding})),
        ),
        ("nothing", String::new()),
        ("not a token", "alice".into()),
    ] {
        assert_eq!(key_with(&format!("Bearer {token}")), ClientKey::address(HERE), "{why}");
    }
    for authorization in ["", "Bearer", &format!("Basic {signed}"), &format!("Bearer{signed}")] {
        assert_eq!(key_with(authorization), ClientKey::address(HERE), "{authorization}");
    }
}

#[test]
fn an_id_has_one_spelling_and_finds_its_client() {
    let here = ClientKey::address(HERE);
    let net = ClientKey::address(ip("2001:db8:0:1::1"));
    for (text, canonical, key) in [
        ("203.0.113.7", "203.0.113.7", &here),
        ("203.0.113.7:890", "203.0.113.7", &here),
        ("::ffff:203.0.113.7", "203.0.113.7", &here),
        ("[::ffff:203.0.113.7]:1", "203.0.113.7", &here),
        ("64:ff9b::203.0.113.7", "203.0.113.7", &here),
        ("[64:ff9b:1:cb00:71:700::]:1", "203.0.113.7", &here),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64", &net),
        ("2001:DB8:0:1:2:3:4:5", "2001:db8:0:1::/64", &net),
        ("[2001:db8:0:1::1]", "2001:db8:0:1::/64", &net),
        ("[2001:db8:0:1::1]:890", "2001:db8:0:1::/64", &net),
        ("2001:db8:0:1::/64", "2001:db8:0:1::/64", &net),
        ("alice", "alice", &named("alice")),
        ("Alice ", "Alice ", &named("Alice ")),
        ("203.0.113.7/32", "203.0.113.7/32", &named("203.0.113.7/32")),
        ("203.0.113.7:70000", "203.0.113.7:70000", &named("203.0.113.7:70000")),
    ] {
        let id = parse(text).unwrap();
        assert_eq!(id.as_str(), canonical, "{text}");
        assert!(id.keys().any(|it| it == *key), "{text}");
        assert!(id.keys().any(|it| it == named(canonical)), "{text}");
    }
    for text in ["", "a\nb", "\0", &"n".repeat(MAX_NAME + 1)] {
        assert_eq!(parse(text), Err(InvalidClientId), "{text:?}");
    }
}

proptest! {
    #[test]
    fn an_id_read_again_is_the_same(text in "[0-9a-f:./\\[\\]]{1,40}|\\PC{1,60}") {
        let id = parse(&text).unwrap();
        prop_assert_eq!(parse(id.as_str()).unwrap(), id);
    }

    #[test]
    fn a_limit_applies_to_whoever_comes_with_the_name_that_it_was_made_for(
        name in "[0-9a-f:./\\[\\]]{1,40}|\\PC{1,60}",
    ) {
        let id = parse(&name).unwrap();
        prop_assert!(id.keys().any(|key| key == named(&name)));
    }

    #[test]
    fn no_authorization_but_a_signed_one_moves_a_client_off_its_address(
        authorization in "[ -~]{0,80}",
    ) {
        prop_assert_eq!(key_with(&authorization), ClientKey::address(HERE));
    }
}
