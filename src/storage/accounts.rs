//! Accounts, as logging in needs them.

use std::collections::HashMap;

use uuid::Uuid;

use crate::shop::{AccountId, BooksId, Owner, Username};

use super::spellings::Spellings;
use super::{Database, StorageError};

/// What a password is checked against.
#[derive(Clone)]
pub struct Credentials {
    /// Whose password it is.
    pub owner: Owner,
    /// A PHC string.
    pub password_hash: String,
}

impl Database {
    /// The credentials of `username`, if there is such an account: as it was typed first, then
    /// as new accounts spell it, then as one from before does.
    pub async fn credentials_fetch(
        &self,
        username: &Username,
    ) -> Result<Option<Credentials>, StorageError> {
        let spellings = Spellings::of(username);
        let asked = spellings.clone();
        let rows: Vec<(i64, String, String, Uuid)> = self
            .run(move |connection| {
                let asked = asked.clone();
                Box::pin(async move {
                    sqlx::query_as(
                        "SELECT users.id, username, password_hash, identity.id
                         FROM users, identity
                         WHERE username = ANY($1) AND single AND table_oid = identity.tableoid
                         UNION ALL
                         SELECT users.id, username, password_hash, identity.id
                         FROM users, identity
                         WHERE normalize(username, NFKC) = $2
                         AND username IS NOT NFKC NORMALIZED
                         AND single AND table_oid = identity.tableoid",
                    )
                    .bind(asked.texts())
                    .bind(asked.canonical().map(Username::as_str))
                    .fetch_all(connection)
                    .await
                })
            })
            .await?;
        let mut found = Vec::with_capacity(rows.len());
        for (id, username, password_hash, books) in rows {
            let (account, username) = (AccountId(id), stored(id, &username)?);
            let owner = Owner { account, username, books: BooksId(books) };
            found.push(Credentials { owner, password_hash });
        }
        let distance = |it: &Credentials| spellings.distance(it.owner.account, &it.owner.username);
        found.retain(|it| distance(it).is_some());
        Ok(found.into_iter().min_by_key(distance))
    }

    /// The names of the accounts with these numbers, in the same order; the database is asked
    /// for those that nobody remembers.
    pub(super) async fn usernames_fetch(
        &self,
        accounts: Vec<i64>,
    ) -> Result<Vec<Username>, StorageError> {
        let known = self.known();
        let remembered: Vec<Option<Username>> = accounts
            .iter()
            .map(|account| self.names().username(known, AccountId(*account)))
            .collect();
        let mut unknown: Vec<i64> = accounts
            .iter()
            .zip(&remembered)
            .filter_map(|(account, name)| name.is_none().then_some(*account))
            .collect();
        if unknown.is_empty() {
            return Ok(remembered.into_iter().flatten().collect());
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
            let username = stored(id, &username)?;
            self.names().remember(known, AccountId(id), &username);
            read.insert(id, username);
        }
        let name = |(account, remembered): (i64, Option<Username>)| {
            remembered.or_else(|| read.get(&account).cloned()).ok_or_else(|| {
                StorageError::Unexpected(format!("user {account} has history but no name"))
            })
        };
        accounts.into_iter().zip(remembered).map(name).collect()
    }

    /// Whether the account is there and is this owner's.
    pub async fn account_exists(&self, owner: &Owner) -> Result<bool, StorageError> {
        let owner = owner.clone();
        self.run(move |connection| {
            let owner = owner.clone();
            Box::pin(async move {
                sqlx::query_scalar(
                    "SELECT EXISTS (SELECT 1 FROM users, identity
                     WHERE users.id = $1 AND username = $2
                     AND identity.id = $3 AND single AND table_oid = identity.tableoid)",
                )
                .bind(owner.account.0)
                .bind(owner.username.as_str())
                .bind(owner.books.0)
                .fetch_one(connection)
                .await
            })
        })
        .await
    }
}

/// The name in a row of `users`.
fn stored(id: i64, username: &str) -> Result<Username, StorageError> {
    Username::parse(username)
        .map_err(|error| StorageError::Unexpected(format!("user {id}: {error}")))
}
