//! Tokens: JWT, HS256 and nothing else.

use std::time::{Duration, SystemTime};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::shop::{AccountId, Books, BooksId, Owner, Username};

/// `iss` of every token.
pub const ISSUER: &str = "merch-store";
/// `aud` of every token.
pub const AUDIENCE: &str = "merch-store-api";

/// Issues tokens with the newest key and accepts those of all live keys.
pub struct Tokens {
    current: (String, EncodingKey),
    live: Vec<(String, DecodingKey)>,
    ttl: Duration,
    validation: Validation,
}

/// What a valid token says of whoever holds it: whether it is so, the database says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    account: AccountId,
    username: Username,
    /// Replicas of the release before this one name no books.
    books: Option<BooksId>,
    issued_at: u64,
}

/// The token does not say who is asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// It did once: everything else about it is right.
    #[error("the token has expired")]
    Expired,
    /// Malformed, or not one of ours.
    #[error("the token is not valid")]
    Invalid,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    /// The username.
    sub: String,
    /// The account's number, which spares a look-up by name.
    uid: i64,
    /// The identity of the database in which the number is that account's.
    #[serde(skip_serializing_if = "Option::is_none")]
    db: Option<Uuid>,
    iat: u64,
    exp: u64,
}

impl Tokens {
    /// Tokens that are signed with `secret` and live for `ttl`; during a rotation those
    /// signed with `previous` stay valid too.
    pub fn new(secret: &SecretString, previous: Option<&SecretString>, ttl: Duration) -> Tokens {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_required_spec_claims(&["iss", "aud", "sub", "exp"]);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        // Last of all, and by us: of a token that is not ours nothing is said.
        validation.validate_exp = false;
        let live = std::iter::once(secret)
            .chain(previous)
            .map(|secret| (key_id(secret), DecodingKey::from_secret(bytes(secret))))
            .collect();
        Tokens {
            current: (key_id(secret), EncodingKey::from_secret(bytes(secret))),
            live,
            ttl,
            validation,
        }
    }

    /// A token for `owner`, issued `now` (time since the Unix epoch).
    pub fn issue(&self, owner: &Owner, now: Duration) -> String {
        let (kid, key) = &self.current;
        let header = Header { kid: Some(kid.clone()), ..Header::new(Algorithm::HS256) };
        let claims = Claims {
            iss: ISSUER.into(),
            aud: AUDIENCE.into(),
            sub: owner.username.to_string(),
            uid: owner.account.0,
            db: Some(owner.books.0),
            iat: now.as_secs(),
            exp: (now + self.ttl).as_secs(),
        };
        jsonwebtoken::encode(&header, &claims, key).expect("claims are plain JSON")
    }

    /// What `token` says. The key is chosen by `kid` alone, the algorithm by us.
    pub fn verify(&self, token: &str) -> Result<Claim, InvalidToken> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| InvalidToken::Invalid)?;
        let live = self.live.iter().find(|(live, _)| Some(live) == header.kid.as_ref());
        let (_, key) = live.ok_or(InvalidToken::Invalid)?;
        let claims = jsonwebtoken::decode::<Claims>(token, key, &self.validation)
            .map_err(|_| InvalidToken::Invalid)?
            .claims;
        let username = Username::parse(&claims.sub).map_err(|_| InvalidToken::Invalid)?;
        // A clock before 1970 says nothing about tokens.
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        if claims.exp <= now.as_secs() {
            return Err(InvalidToken::Expired);
        }
        Ok(Claim {
            account: AccountId(claims.uid),
            username,
            books: claims.db.map(BooksId),
            issued_at: claims.iat,
        })
    }
}

impl Claim {
    /// Whom it speaks for, if it was issued for `books`: it names them, or it names none and
    /// they have not been renewed since.
    pub fn owner(&self, books: &Books) -> Option<Owner> {
        let issued_for_them = match self.books {
            Some(id) => id == books.id,
            None => books.renewed_at.is_none_or(|renewed_at| self.issued_at > renewed_at),
        };
        let (account, username) = (self.account, self.username.clone());
        issued_for_them.then_some(Owner { account, username, books: books.id })
    }
}

/// A key's public name: enough of a digest to tell two keys apart, and no help in guessing
/// a secret that is as long as ours must be.
fn key_id(secret: &SecretString) -> String {
    let digest = Sha256::new().chain_update(b"merch-store kid").chain_update(bytes(secret));
    digest.finalize()[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(secret: &SecretString) -> &[u8] {
    secret.expose_secret().as_bytes()
}
