//! Who may: whoever shows the token.

use std::fmt;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::Response;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::web::bearer::Credentials;

use super::Admin;
use super::error::AdminError;

/// The admin token, as a digest: whatever it is compared with, both have the same length,
/// and how long the comparison takes says nothing of either.
pub struct Token([u8; 32]);

impl Token {
    /// The token that requests must show.
    pub fn new(token: &SecretString) -> Token {
        Token(Sha256::digest(token.expose_secret()).into())
    }

    fn is(&self, shown: &[u8]) -> bool {
        let shown: [u8; 32] = Sha256::digest(shown).into();
        self.0.ct_eq(&shown).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Lets a request pass that shows the token.
pub async fn authorize(
    State(admin): State<Arc<Admin>>,
    request: Request,
    next: Next,
) -> Result<Response, AdminError> {
    let refusal = match Credentials::of(request.headers()) {
        Credentials::Token(shown) if admin.token.is(shown) => return Ok(next.run(request).await),
        Credentials::Token(_) => Unauthorized::Wrong,
        Credentials::Other => Unauthorized::NoBearer,
        Credentials::Nothing => Unauthorized::NoToken,
    };
    Err(AdminError::Unauthorized(refusal))
}

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unauthorized {
    /// It shows nothing.
    NoToken,
    /// It shows something without the word Bearer.
    NoBearer,
    /// Its token is another one.
    Wrong,
}

impl Unauthorized {
    /// The reason, for people.
    pub fn message(self) -> &'static str {
        match self {
            Unauthorized::NoToken => {
                "the admin token is required: Authorization: Bearer <gateway.admin.token>"
            }
            Unauthorized::NoBearer => {
                "the word Bearer is missing before the token: Authorization: Bearer \
                 <gateway.admin.token>"
            }
            Unauthorized::Wrong => "the token is not this gateway's gateway.admin.token",
        }
    }

    /// The same for machines, in `WWW-Authenticate`: no error where no token was shown (RFC 6750).
    pub fn challenge(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Unauthorized::NoToken | Unauthorized::NoBearer => "Bearer",
            Unauthorized::Wrong => "Bearer error=\"invalid_token\"",
        })
    }
}
