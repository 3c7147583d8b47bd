//! Accounts, as logging in needs them.

use std::collections::HashMap;

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

    /// The names of `accounts`; the database is asked for those that nobody remembers.
    pub async fn usernames_fetch(
        &self,
        accounts: impl Iterator<Item = AccountId>,
    ) -> Result<HashMap<AccountId, Username>, StorageError> {
        let mut names = HashMap::new();
        let mut unknown = Vec::new();
        for account in accounts {
            match self.names().username(account) {
                Some(username) => drop(names.insert(account, username)),
                None => unknown.push(account.0),
            }
        }
        if unknown.is_empty() {
            return Ok(names);
        }
        let rows: Vec<(i64, String)> = self
            .run(move |connection| {
                let unknown = unknown.clone();
                Box::pin(async move {
                    sqlx::query_as("SELECT id, username FROM users WHERE id = ANY($1)")
                        .bind(unknown)
                        .fetch_all(connection)
                        .await
                })
            })
            .await?;
        for (id, username) in rows {
            let (account, username) = (AccountId(id), Username::parse(&username));
            let username = username
                .map_err(|error| StorageError::Unexpected(format!("user {id}: {error}")))?;
            self.names().remember(account, &username);
            names.insert(account, username);
        }
        Ok(names)
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
