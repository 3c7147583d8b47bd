//! Who may: whoever shows the token.

use std::fmt;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::web::bearer::Shown;

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
    match Shown::by(request.headers()) {
        Shown::Token(shown) if admin.token.is(shown) => Ok(next.run(request).await),
        _ => Err(AdminError::Unauthorized),
    }
}
