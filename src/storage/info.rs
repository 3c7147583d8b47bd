//! What `GET /api/info` shows, in one statement: one snapshot.

use crate::shop::AccountId;

use super::{Database, StorageError};

/// An account at one moment; both histories newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Coins at hand, 0 or more.
    pub coins: i64,
    /// Items and how many of each, in the catalogue's order.
    pub inventory: Vec<(String, i64)>,
    /// From whom, and how many coins.
    pub received: Vec<(String, i64)>,
    /// To whom, and how many coins.
    pub sent: Vec<(String, i64)>,
}

impl Database {
    /// What `account` holds, owns, received and sent, at most `history_limit` transfers
    /// each way; `None` if there is no such account.
    pub async fn info_fetch(
        &self,
        account: AccountId,
        history_limit: i64,
    ) -> Result<Option<Info>, StorageError> {
        let rows: Vec<(i16, i64, Option<String>, i64)> = self
            .run(move |connection| {
                Box::pin(async move {
                    sqlx::query_as(
                        "SELECT 0::int2, 0::int8, NULL::text, coins FROM balance WHERE user_id = $1
                     UNION ALL
                     SELECT 1::int2, item_id, name, quantity
                     FROM inventory JOIN merch ON merch.id = item_id WHERE user_id = $1
                     UNION ALL
                     SELECT 2::int2, entry.id, username, amount
                     FROM (SELECT id, from_id, amount FROM history
                           WHERE to_id = $1 AND from_id IS NOT NULL
                           ORDER BY id DESC LIMIT $2) AS entry
                     JOIN users ON users.id = from_id
                     UNION ALL
                     SELECT 3::int2, entry.id, username, amount
                     FROM (SELECT id, to_id, amount FROM history
                           WHERE from_id = $1 AND item_id IS NULL
                           ORDER BY id DESC LIMIT $2) AS entry
                     JOIN users ON users.id = to_id",
                    )
                    .bind(account.0)
                    .bind(history_limit)
                    .fetch_all(connection)
                    .await
                })
            })
            .await?;

        let mut coins = None;
        let mut parts: [Vec<(i64, String, i64)>; 3] = Default::default();
        for (part, order, name, number) in rows {
            match (part, name) {
                (part @ 1..=3, Some(name)) => {
                    parts[usize::from(part.unsigned_abs()) - 1].push((order, name, number));
                }
                _ => coins = Some(number),
            }
        }
        let Some(coins) = coins else {
            return Ok(None);
        };
        let [mut inventory, mut received, mut sent] = parts;
        inventory.sort_unstable_by_key(|(item, ..)| *item);
        received.sort_unstable_by_key(|(entry, ..)| std::cmp::Reverse(*entry));
        sent.sort_unstable_by_key(|(entry, ..)| std::cmp::Reverse(*entry));
        let named = |rows: Vec<(i64, String, i64)>| {
            rows.into_iter().map(|(_, name, number)| (name, number)).collect()
        };
        Ok(Some(Info {
            coins,
            inventory: named(inventory),
            received: named(received),
            sent: named(sent),
        }))
    }
}
