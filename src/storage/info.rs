//! What `GET /api/info` shows, in one statement: one snapshot.

use std::collections::HashMap;

use crate::shop::{AccountId, BooksId, Owner, Username};

use super::{Database, StorageError};

/// An account at one moment; both histories newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Coins at hand, 0 or more.
    pub coins: i64,
    /// Changes with every movement into or out of the account and never comes again: as long
    /// as it is the same, so is everything here.
    pub version: i64,
    /// Items and how many of each, in the catalogue's order.
    pub inventory: Vec<(String, i64)>,
    /// Transfers and reversals: from whom, and how many coins.
    pub received: Vec<(Username, i64)>,
    /// Transfers and reversals: to whom, and how many coins.
    pub sent: Vec<(Username, i64)>,
}

impl Database {
    /// What the account of `owner` holds, owns, received and sent, at most `history_limit`
    /// transfers each way; `None` if it is not there, or not theirs.
    pub async fn info_fetch(
        &self,
        owner: &Owner,
        history_limit: i64,
    ) -> Result<Option<Info>, StorageError> {
        // One row with columns of lists: half the work of two hundred rows, on either side.
        // What is sent to nobody is a correction; decision 4 says why that is not put plainly.
        type Row = (i64, i64, Vec<String>, Vec<i64>, Vec<i64>, Vec<i64>, Vec<i64>, Vec<i64>);
        let owner = owner.clone();
        let row: Option<Row> = self
            .run(move |connection| {
                let owner = owner.clone();
                Box::pin(async move {
                    sqlx::query_as(
                        "SELECT coins, version, coalesce(items, '{}'), coalesce(quantities, '{}'),
                                coalesce(senders, '{}'), coalesce(received, '{}'),
                                coalesce(recipients, '{}'), coalesce(sent, '{}')
                         FROM identity, users, balance,
                         (SELECT array_agg(name ORDER BY item_id), array_agg(quantity ORDER BY item_id)
                          FROM inventory JOIN merch ON merch.id = item_id
                          WHERE user_id = $1) AS owned (items, quantities),
                         (SELECT array_agg(from_id ORDER BY id DESC), array_agg(amount ORDER BY id DESC)
                          FROM (SELECT id, from_id, amount
                                FROM history WHERE to_id = $1 AND from_id IS NOT NULL
                                ORDER BY id DESC LIMIT $2) AS newest) AS earned (senders, received),
                         (SELECT array_agg(to_id ORDER BY id DESC), array_agg(amount ORDER BY id DESC)
                          FROM (SELECT id, to_id, amount
                                FROM history
                                WHERE from_id = $1 AND item_id IS NULL AND coalesce(to_id, 0) > 0
                                ORDER BY id DESC LIMIT $2) AS newest) AS given (recipients, sent)
                         WHERE balance.user_id = $1 AND users.id = $1 AND username = $3
                         AND identity.id = $4 AND single AND table_oid = identity.tableoid",
                    )
                    .bind(owner.account.0)
                    .bind(history_limit)
                    .bind(owner.username.as_str())
                    .bind(owner.books.0)
                    .fetch_optional(connection)
                    .await
                })
            })
            .await?;
        let Some((coins, version, items, quantities, senders, received, recipients, sent)) = row
        else {
            return Ok(None);
        };
        let mut received_from = self.usernames_fetch([senders, recipients].concat()).await?;
        let sent_to = received_from.split_off(received.len());
        Ok(Some(Info {
            coins,
            version,
            inventory: items.into_iter().zip(quantities).collect(),
            received: received_from.into_iter().zip(received).collect(),
            sent: sent_to.into_iter().zip(sent).collect(),
        }))
    }

    /// The versions of `accounts` in `books`, of those that exist: see [`Info::version`].
    pub async fn versions_fetch(
        &self,
        books: BooksId,
        accounts: Vec<AccountId>,
    ) -> Result<HashMap<AccountId, i64>, StorageError> {
        let accounts: Vec<i64> = accounts.into_iter().map(|account| account.0).collect();
        let rows: Vec<(i64, i64)> = self
            .run(move |connection| {
                let accounts = accounts.clone();
                Box::pin(async move {
                    sqlx::query_as(
                        "SELECT user_id, version FROM balance WHERE user_id = ANY($1)
                         AND $2 = (SELECT id FROM identity WHERE single AND table_oid = identity.tableoid)",
                    )
                    .bind(accounts)
                    .bind(books.0)
                    .fetch_all(connection)
                    .await
                })
            })
            .await?;
        Ok(rows.into_iter().map(|(account, version)| (AccountId(account), version)).collect())
    }
}
