//! What `GET /api/info` shows, in one statement: one snapshot.

use crate::shop::{AccountId, Username};

use super::{Database, StorageError};

/// An account at one moment; both histories newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Coins at hand, 0 or more.
    pub coins: i64,
    /// Items and how many of each, in the catalogue's order.
    pub inventory: Vec<(String, i64)>,
    /// From whom, and how many coins.
    pub received: Vec<(Username, i64)>,
    /// To whom, and how many coins.
    pub sent: Vec<(Username, i64)>,
}

impl Database {
    /// What `account` holds, owns, received and sent, at most `history_limit` transfers
    /// each way; `None` if there is no such account.
    pub async fn info_fetch(
        &self,
        account: AccountId,
        history_limit: i64,
    ) -> Result<Option<Info>, StorageError> {
        // What it is, its place in the list, whose or what it is, the number of them.
        type Row = (i16, i64, i64, Option<String>, i64);
        let rows: Vec<Row> = self
            .run(move |connection| {
                Box::pin(async move {
                    sqlx::query_as(
                        "SELECT 0::int2, 0::int8, 0::int8, NULL::text, coins
                         FROM balance WHERE user_id = $1
                         UNION ALL
                         SELECT 1::int2, item_id, 0, name, quantity
                         FROM inventory JOIN merch ON merch.id = item_id WHERE user_id = $1
                         UNION ALL
                         (SELECT 2::int2, id, from_id, NULL, amount
                          FROM history WHERE to_id = $1 AND from_id IS NOT NULL
                          ORDER BY id DESC LIMIT $2)
                         UNION ALL
                         (SELECT 3::int2, id, to_id, NULL, amount
                          FROM history WHERE from_id = $1 AND item_id IS NULL
                          ORDER BY id DESC LIMIT $2)",
                    )
                    .bind(account.0)
                    .bind(history_limit)
                    .fetch_all(connection)
                    .await
                })
            })
            .await?;

        let mut coins = None;
        let mut inventory = Vec::new();
        let (mut received, mut sent) = (Vec::new(), Vec::new());
        for (part, place, other, name, number) in rows {
            match part {
                0 => coins = Some(number),
                1 => inventory.push((place, name.unwrap_or_default(), number)),
                2 => received.push((place, AccountId(other), number)),
                _ => sent.push((place, AccountId(other), number)),
            }
        }
        let Some(coins) = coins else {
            return Ok(None);
        };
        inventory.sort_unstable_by_key(|(item, ..)| *item);
        received.sort_unstable_by_key(|(entry, ..)| std::cmp::Reverse(*entry));
        sent.sort_unstable_by_key(|(entry, ..)| std::cmp::Reverse(*entry));
        let others = received.iter().chain(&sent).map(|(_, other, _)| *other);
        let names = self.usernames_fetch(others).await?;
        let named =
            |rows: Vec<(i64, AccountId, i64)>| -> Result<Vec<(Username, i64)>, StorageError> {
                let name = |account| names.get(account).cloned().ok_or_else(|| nameless(*account));
                rows.iter().map(|(_, other, amount)| Ok((name(other)?, *amount))).collect()
            };
        Ok(Some(Info {
            coins,
            inventory: inventory.into_iter().map(|(_, name, number)| (name, number)).collect(),
            received: named(received)?,
            sent: named(sent)?,
        }))
    }
}

fn nameless(account: AccountId) -> StorageError {
    StorageError::Unexpected(format!("user {} has history but no name", account.0))
}
