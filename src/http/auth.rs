//! `POST /api/auth`: logging in, which the first time is signing up.

use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::extract::State;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use utoipa::{IntoResponses, ToSchema};

use crate::auth::password::{Password, Place};
use crate::engine::Party;
use crate::shop::ledger::{Command, Receipt, Refusal};
use crate::shop::{InvalidUsername, Owner, Username};
use crate::storage::Credentials;
use crate::web::document::Responses;

use super::Shop;
use super::docs;
use super::error::ApiError;
use super::extract::JsonBody;

/// Who is logging in, or signing up.
#[derive(Deserialize, ToSchema)]
pub struct AuthRequest {
    /// 1 to 255 characters, no control characters, no space at either end. A new one is made of
    /// letters and digits of any script, single spaces and the signs of ASCII (RFC 8265).
    #[schema(example = "alice", min_length = 1, max_length = 255)]
    username: String,
    /// 1 to 1024 bytes, no control characters, no space at either end; in a new account nothing
    /// that is invisible (RFC 8265).
    #[schema(value_type = String, format = Password, example = "alice's secret")]
    #[schema(min_length = 1, max_length = 1024)]
    password: SecretString,
}

/// What a login comes to.
#[derive(Serialize, ToSchema)]
pub struct AuthResponse {
    /// A JWT for the header `Authorization: Bearer <token>`.
    token: String,
}

/// Why nobody is logged in.
struct LoginRefusals;

impl IntoResponses for LoginRefusals {
    fn responses() -> Responses {
        let invalid = ApiError::from(InvalidUsername::Empty);
        docs::refusals([invalid, ApiError::WrongPassword])
    }
}

/// Log in; somebody unknown gets an account with 1000 coins.
#[utoipa::path(
    post, path = "/api/auth", tag = "shop", operation_id = "login", security(()),
    request_body = AuthRequest,
    responses(
        (status = OK, description = "Logged in.", body = AuthResponse, links(
            ("info" = (operation_id = "getInfo", description = "With the token.")),
        )),
        LoginRefusals,
    ),
)]
pub async fn auth(
    State(shop): State<Arc<Shop>>,
    JsonBody(request): JsonBody<AuthRequest>,
) -> Result<Json<AuthResponse>, ApiError> {
    let username = Username::typed(&request.username)?;
    let password = Password::parse(request.password)?;

    let owner = match recall(&shop, &username, &password).await? {
        Some(owner) => owner,
        None => {
            // Before any connection: those who cannot be hashed for must not hold one.
            let mut place = shop.hasher.place()?;
            match shop.database.credentials_fetch(&username).await? {
                Some(credentials) => {
                    log_in(&shop, &mut place, &username, &password, credentials).await?
                }
                None => sign_up(&shop, &mut place, &username, &password).await?,
            }
        }
    };

    let now = SystemTime::UNIX_EPOCH.elapsed().map_err(|_| ApiError::Internal)?;
    let token = shop.tokens.issue(&owner, now);
    Ok(Json(AuthResponse { token }))
}

/// The account of somebody whose password was verified a moment ago, if it is still theirs.
async fn recall(
    shop: &Shop,
    username: &Username,
    password: &Password,
) -> Result<Option<Owner>, ApiError> {
    let Some(proven) = shop.proofs.recall(username, password) else {
        return Ok(None);
    };
    let credentials = shop.database.credentials_fetch(username).await?;
    Ok(credentials.filter(|it| *it.password_hash == *proven).map(|it| it.owner))
}

async fn log_in(
    shop: &Shop,
    place: &mut Place,
    username: &Username,
    password: &Password,
    credentials: Credentials,
) -> Result<Owner, ApiError> {
    if !place.verify(password, credentials.password_hash.clone()).await {
        return Err(ApiError::WrongPassword);
    }
    shop.proofs.remember(username, password, &credentials.password_hash);
    Ok(credentials.owner)
}

async fn sign_up(
    shop: &Shop,
    place: &mut Place,
    username: &Username,
    password: &Password,
) -> Result<Owner, ApiError> {
    let new = username.canonical()?;
    let password_hash = place.hash(&password.prepared()?).await;
    let command = Command::OpenAccount { username: new.clone(), password_hash };
    match shop.engine.submit(Party::Employee, command).await?.result {
        Ok(Receipt::Opened(account)) => {
            let books = shop.database.books().ok_or(ApiError::Internal)?.id;
            Ok(Owner { account, username: new, books })
        }
        // Somebody was quicker: this is a login like any other.
        Err(Refusal::UsernameTaken) => {
            let credentials = shop.database.credentials_fetch(username).await?;
            log_in(shop, place, username, password, credentials.ok_or(ApiError::Internal)?).await
        }
        Ok(Receipt::Done(_)) => Err(ApiError::Internal),
        Err(refusal) => Err(refusal.into()),
    }
}
