//! Accounts, as logging in needs them.

use crate::shop::{AccountId, Username};

use super::{Database, StorageError};

/// What a password is checked against.
#[derive(Clone)]
pub struct Credentials {
    /// Whose password it is.
    pub account: AccountId,
    /// A PHC string.
    pub password_hash: String,
}

impl Database {
    /// The credentials of `username`, if there is such an account.
    pub async fn credentials_fetch(
        &self,
        username: &Username,
    ) -> Result<Option<Credentials>, StorageError> {
        let username = username.clone();
        let row: Option<(i64, String)> = self
            .run(move |connection| {
                let username = username.clone();
                Box::pin(async move {
                    sqlx::query_as("SELECT id, password_hash FROM users WHERE username = $1")
                        .bind(username.as_str())
                        .fetch_optional(connection)
                        .await
                })
            })
            .await?;
        Ok(row.map(|(id, password_hash)| Credentials { account: AccountId(id), password_hash }))
    }

    /// Whether there is such an account.
    pub async fn account_exists(&self, account: AccountId) -> Result<bool, StorageError> {
        self.run(move |connection| {
            Box::pin(async move {
                sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM users WHERE id = $1)")
                    .bind(account.0)
                    .fetch_one(connection)
                    .await
            })
        })
        .await
    }
}
