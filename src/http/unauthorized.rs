//! What a token is refused for, in the words of RFC 6750. A forger learns nothing: whether a
//! token has expired is said of one that was ours.

use axum::http::HeaderValue;

use crate::auth::token::InvalidToken;

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unauthorized {
    /// It shows nothing.
    NoToken,
    /// It shows something without the word Bearer.
    NoBearer,
    /// Its token was one of ours.
    Expired,
    /// Its token is none of ours, or speaks for nobody here.
    Invalid,
}

impl Unauthorized {
    /// The reason, for people.
    pub fn message(self) -> &'static str {
        match self {
            Unauthorized::NoToken => {
                "a token is required: Authorization: Bearer <token from POST /api/auth>"
            }
            Unauthorized::NoBearer => {
                "the word Bearer is missing before the token: Authorization: Bearer <token from \
                 POST /api/auth>"
            }
            Unauthorized::Expired => "the token has expired; POST /api/auth gives a new one",
            Unauthorized::Invalid => "the token is not valid; POST /api/auth gives a valid one",
        }
    }

    /// The same for machines, in `WWW-Authenticate`: no error where no token was shown.
    pub fn challenge(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Unauthorized::NoToken | Unauthorized::NoBearer => "Bearer realm=\"merch-store\"",
            Unauthorized::Expired => {
                "Bearer realm=\"merch-store\", error=\"invalid_token\", \
                 error_description=\"the token has expired\""
            }
            Unauthorized::Invalid => {
                "Bearer realm=\"merch-store\", error=\"invalid_token\", \
                 error_description=\"the token is not valid\""
            }
        })
    }
}

impl From<InvalidToken> for Unauthorized {
    fn from(error: InvalidToken) -> Unauthorized {
        match error {
            InvalidToken::Expired => Unauthorized::Expired,
            InvalidToken::Invalid => Unauthorized::Invalid,
        }
    }
}
