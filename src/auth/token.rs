//! Tokens: JWT, HS256 and nothing else.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, crypto};
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
    current: EncodingKey,
    /// The key in force first.
    live: Vec<LiveKey>,
    ttl: Duration,
}

/// A key whose tokens are accepted.
struct LiveKey {
    header: Header,
    /// The same as it stands at the beginning of a token, with the dot after it.
    encoded_header: String,
    key: DecodingKey,
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
struct Claims<'token> {
    #[serde(borrow)]
    iss: Cow<'token, str>,
    #[serde(borrow)]
    aud: Cow<'token, str>,
    /// The username.
    #[serde(borrow)]
    sub: Cow<'token, str>,
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
        Tokens {
            current: EncodingKey::from_secret(bytes(secret)),
            live: std::iter::once(secret).chain(previous).map(LiveKey::new).collect(),
            ttl,
        }
    }

    /// A token for `owner`, issued `now` (time since the Unix epoch).
    pub fn issue(&self, owner: &Owner, now: Duration) -> String {
        let claims = Claims {
            iss: ISSUER.into(),
            aud: AUDIENCE.into(),
            sub: owner.username.as_str().into(),
            uid: owner.account.0,
            db: Some(owner.books.0),
            iat: now.as_secs(),
            exp: (now + self.ttl).as_secs(),
        };
        jsonwebtoken::encode(&self.live[0].header, &claims, &self.current)
            .expect("claims are plain JSON")
    }

    /// What `token` says. The key is chosen by the header alone, the algorithm by us.
    pub fn verify(&self, token: &str) -> Result<Claim, InvalidToken> {
        let payload = self.payload(token).ok_or(InvalidToken::Invalid)?;
        let claims: Claims<'_> =
            serde_json::from_slice(&payload).map_err(|_| InvalidToken::Invalid)?;
        if claims.iss != ISSUER || claims.aud != AUDIENCE {
            return Err(InvalidToken::Invalid);
        }
        let username = Username::parse(&claims.sub).map_err(|_| InvalidToken::Invalid)?;
        // Last of all: of a token that is not ours nothing is said. A clock before 1970 says
        // nothing about tokens.
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

    /// What is signed with a live key, if anything is. `jsonwebtoken::decode` would parse the
    /// header twice and the claims once more, which takes longer than the signature.
    fn payload(&self, token: &str) -> Option<Vec<u8>> {
        let key = self.key(token)?;
        let (message, signature) = token.rsplit_once('.')?;
        let (_header, payload) = message.split_once('.')?;
        let is_signed = crypto::verify(signature, message.as_bytes(), key, Algorithm::HS256);
        is_signed.ok().filter(|is_signed| *is_signed)?;
        BASE64_URL_SAFE_NO_PAD.decode(payload).ok()
    }

    /// The key that the header of `token` names. One of ours is known by sight.
    fn key(&self, token: &str) -> Option<&DecodingKey> {
        let ours = self.live.iter().find(|it| token.starts_with(&it.encoded_header));
        let named = || {
            let Header { alg, kid: Some(kid), .. } = jsonwebtoken::decode_header(token).ok()?
            else {
                return None;
            };
            let named = self.live.iter().find(|it| it.header.kid.as_ref() == Some(&kid));
            named.filter(|_| alg == Algorithm::HS256)
        };
        ours.or_else(named).map(|it| &it.key)
    }
}

impl LiveKey {
    fn new(secret: &SecretString) -> LiveKey {
        let header = Header { kid: Some(key_id(secret)), ..Header::new(Algorithm::HS256) };
        let key = EncodingKey::from_secret(bytes(secret));
        let mut token = jsonwebtoken::encode(&header, &(), &key).expect("a header is plain JSON");
        token.truncate(token.find('.').map_or(0, |dot| dot + 1));
        let key = DecodingKey::from_secret(bytes(secret));
        LiveKey { header, encoded_header: token, key }
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
