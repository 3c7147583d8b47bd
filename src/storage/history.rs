//! Every movement of an account's coins, a page at a time, and totals.

use time::OffsetDateTime;

use crate::shop::Owner;

use super::{Database, StorageError};

/// Transfers that a summary adds up each way, newest first: about a second's work, and more
/// than anybody makes in a lifetime.
const SUMMARISED: i64 = 1_000_000;

/// One movement of an account's coins, seen from that account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Movement {
    /// Its row in `history`; a larger number is newer.
    pub id: i64,
    /// Whether the account gained or lost the coins, and to whom.
    pub kind: MovementKind,
    /// At least 1.
    pub amount: i64,
    /// When its transaction began, by the clock of the database.
    pub at: OffsetDateTime,
}

/// What moved the coins, with the other user's or the item's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MovementKind {
    /// The coins that an account starts with: gained.
    Grant,
    /// A transfer to the account: gained.
    Received {
        /// The giver's username.
        from: String,
    },
    /// A transfer from the account: lost.
    Sent {
        /// The recipient's username.
        to: String,
    },
    /// One piece was bought: lost.
    Purchase {
        /// The item's name in the catalogue.
        item: String,
    },
}

/// A page of history, newest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Newest first, at most as many as were asked for.
    pub movements: Vec<Movement>,
    /// There are older movements than these.
    pub more: bool,
}

/// An account's transfers added up by counterparty, largest total first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Who gave, at most as many as were asked for.
    pub received: Vec<Total>,
    /// Who was given, at most as many as were asked for.
    pub sent: Vec<Total>,
}

/// All transfers between an account and one counterparty, in one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Total {
    /// The counterparty.
    pub username: String,
    /// Coins, at least 1; a sum past `i64::MAX` is shown as that.
    pub amount: i64,
    /// How many there were, at least 1.
    pub transfers: i64,
}

impl Database {
    /// At most `limit` movements of the account of `owner` older than movement `before`; none
    /// if it is not theirs.
    pub async fn history_page_fetch(
        &self,
        owner: &Owner,
        before: i64,
        limit: u16,
    ) -> Result<Page, StorageError> {
        // Each branch reads its own index backwards and stops after a page.
        let one_more = i64::from(limit) + 1;
        type Row = (i64, i16, Option<String>, i64, OffsetDateTime);
        let owner = owner.clone();
        let rows: Vec<Row> = self
            .run(move |connection| {
                let owner = owner.clone();
                Box::pin(async move {
                    sqlx::query_as(
                        "SELECT id, kind, CASE kind
                         WHEN 1 THEN (SELECT username FROM users WHERE users.id = other_id)
                         WHEN 2 THEN (SELECT username FROM users WHERE users.id = other_id)
                         WHEN 3 THEN (SELECT name FROM merch WHERE merch.id = other_id)
                     END, amount, created_at
                     FROM (
                         (SELECT id, 0::int2 AS kind, 0::int8 AS other_id, amount, created_at
                          FROM history WHERE to_id = $1 AND from_id IS NULL AND id < $2
                          ORDER BY id DESC LIMIT $3)
                         UNION ALL
                         (SELECT id, 1::int2, from_id, amount, created_at
                          FROM history WHERE to_id = $1 AND from_id IS NOT NULL AND id < $2
                          ORDER BY id DESC LIMIT $3)
                         UNION ALL
                         (SELECT id, 2::int2, to_id, amount, created_at
                          FROM history WHERE from_id = $1 AND item_id IS NULL AND id < $2
                          ORDER BY id DESC LIMIT $3)
                         UNION ALL
                         (SELECT id, 3::int2, item_id, amount, created_at
                          FROM history WHERE from_id = $1 AND to_id IS NULL AND id < $2
                          ORDER BY id DESC LIMIT $3)
                     ) AS movement
                     WHERE EXISTS (SELECT 1 FROM users, identity
                                   WHERE users.id = $1 AND username = $4
                                   AND identity.id = $5 AND single AND table_oid = identity.tableoid)
                     ORDER BY id DESC LIMIT $3",
                    )
                    .bind(owner.account.0)
                    .bind(before)
                    .bind(one_more)
                    .bind(owner.username.as_str())
                    .bind(owner.books.0)
                    .fetch_all(connection)
                    .await
                })
            })
            .await?;

        let more = rows.len() > usize::from(limit);
        let movements = rows
            .into_iter()
            .take(usize::from(limit))
            .map(|(id, kind, name, amount, at)| {
                let name = name.unwrap_or_default();
                let kind = match kind {
                    0 => MovementKind::Grant,
                    1 => MovementKind::Received { from: name },
                    2 => MovementKind::Sent { to: name },
                    _ => MovementKind::Purchase { item: name },
                };
                Movement { id, kind, amount, at }
            })
            .collect();
        Ok(Page { movements, more })
    }

    /// The `limit` counterparties with the largest totals, each way, of the newest million of
    /// `owner`'s transfers; none if the account is not theirs. Costs as much as there are of
    /// those.
    pub async fn history_summary_fetch(
        &self,
        owner: &Owner,
        limit: u16,
    ) -> Result<Summary, StorageError> {
        let owner = owner.clone();
        let rows: Vec<(bool, String, i64, i64)> = self
            .run(move |connection| {
                let owner = owner.clone();
                Box::pin(async move {
                    // Coins that went back and forth may add up to more than they are.
                    sqlx::query_as(
                        "SELECT * FROM (
                     (SELECT true, username, amount, transfers
                      FROM (SELECT from_id, LEAST(sum(amount), 9223372036854775807)::int8 AS amount, count(*) AS transfers
                            FROM (SELECT from_id, amount FROM history
                                  WHERE to_id = $1 AND from_id IS NOT NULL
                                  ORDER BY id DESC LIMIT $3) AS newest
                            GROUP BY from_id ORDER BY 2 DESC, 1 LIMIT $2) AS total
                      JOIN users ON users.id = from_id)
                     UNION ALL
                     (SELECT false, username, amount, transfers
                      FROM (SELECT to_id, LEAST(sum(amount), 9223372036854775807)::int8 AS amount, count(*) AS transfers
                            FROM (SELECT to_id, amount FROM history
                                  WHERE from_id = $1 AND item_id IS NULL
                                  ORDER BY id DESC LIMIT $3) AS newest
                            GROUP BY to_id ORDER BY 2 DESC, 1 LIMIT $2) AS total
                      JOIN users ON users.id = to_id)
                     ) AS total
                     WHERE EXISTS (SELECT 1 FROM users, identity
                                   WHERE users.id = $1 AND username = $4
                                   AND identity.id = $5 AND single AND table_oid = identity.tableoid)
                     ORDER BY 3 DESC, 2",
                    )
                    .bind(owner.account.0)
                    .bind(i64::from(limit))
                    .bind(SUMMARISED)
                    .bind(owner.username.as_str())
                    .bind(owner.books.0)
                    .fetch_all(connection)
                    .await
                })
            })
            .await?;

        let mut summary = Summary::default();
        for (received, username, amount, transfers) in rows {
            let side = if received { &mut summary.received } else { &mut summary.sent };
            side.push(Total { username, amount, transfers });
        }
        Ok(summary)
    }
}
