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

    /// The names of the accounts with these numbers, in the same order; the database is asked
    /// for those that nobody remembers.
    pub(super) async fn usernames_fetch(
        &self,
        accounts: Vec<i64>,
    ) -> Result<Vec<Username>, StorageError> {
        let known: Vec<Option<Username>> =
            accounts.iter().map(|account| self.names().username(AccountId(*account))).collect();
        let mut unknown: Vec<i64> = accounts
            .iter()
            .zip(&known)
            .filter_map(|(account, name)| name.is_none().then_some(*account))
            .collect();
        if unknown.is_empty() {
            return Ok(known.into_iter().flatten().collect());
        }
        unknown.sort_unstable();
        unknown.dedup();
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
        let mut read = HashMap::with_capacity(rows.len());
        for (id, username) in rows {
            let username = Username::parse(&username)
                .map_err(|error| StorageError::Unexpected(format!("user {id}: {error}")))?;
            self.names().remember(AccountId(id), &username);
            read.insert(id, username);
        }
        let name = |(account, known): (i64, Option<Username>)| {
            known.or_else(|| read.get(&account).cloned()).ok_or_else(|| {
                StorageError::Unexpected(format!("user {account} has history but no name"))
            })
        };
        accounts.into_iter().zip(known).map(name).collect()
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
