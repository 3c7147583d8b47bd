//! Every movement of an account's coins, a page at a time, and totals.

use time::OffsetDateTime;

use crate::shop::{AccountId, LogNumber, Owner};

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
    /// The movement that this one undoes.
    pub undoes: Option<i64>,
    /// When its transaction began, by the clock of the database.
    pub at: OffsetDateTime,
}

/// What moved the coins, with the other user's or the item's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MovementKind {
    /// Coins from the company, those that an account starts with among them: gained.
    Grant,
    /// Coins that the company took back: lost.
    Correction,
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
    /// A transfer from the account, undone: gained.
    GotBack {
        /// The recipient's username, from whom the coins come back.
        from: String,
    },
    /// A transfer to the account, undone: lost.
    GaveBack {
        /// The giver's username, to whom the coins go back.
        to: String,
    },
    /// One piece was bought: lost.
    Purchase {
        /// The item's name in the catalogue.
        item: String,
    },
    /// A purchase, undone: gained.
    Refund {
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

/// A row of the history as one of its accounts sees it.
#[derive(sqlx::FromRow)]
struct Row {
    id: i64,
    from_id: Option<i64>,
    to_id: Option<i64>,
    item_id: Option<i16>,
    #[sqlx(rename = "ref")]
    undoes: Option<i64>,
    amount: i64,
    created_at: OffsetDateTime,
    /// The name of the other account, if there is one.
    counterparty: Option<String>,
    /// The name of the item, if there is one.
    item: Option<String>,
}

/// Reads `Row`s out of rows of the history that account `$1` has a part in; none if it is not that
/// of the name `$3` in the books `$4`.
macro_rules! rows_from {
    ($rows:literal, $order:literal) => {
        concat!(
            "SELECT id, from_id, to_id, item_id, ref, amount, created_at,
                    (SELECT username FROM users
                     WHERE users.id = CASE WHEN from_id = $1 THEN to_id ELSE from_id END)
                    AS counterparty,
                    (SELECT name FROM merch WHERE merch.id = item_id) AS item
             FROM ",
            $rows,
            " AS movement
             WHERE EXISTS (SELECT 1 FROM users, identity
                           WHERE users.id = $1 AND username = $3
                           AND identity.id = $4 AND single AND table_oid = identity.tableoid) ",
            $order
        )
    };
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
        // Each branch reads its own index backwards and stops after a page. In this order:
        // grants and refunds; transfers and reversals to the account; those from it, and
        // corrections; purchases.
        let one_more = i64::from(limit) + 1;
        let account = owner.account;
        let owner = owner.clone();
        let rows: Vec<Row> = self
            .run(move |connection| {
                let owner = owner.clone();
                Box::pin(async move {
                    sqlx::query_as(rows_from!(
                        "((SELECT * FROM history
                           WHERE to_id = $1 AND from_id IS NULL AND id < $2
                           ORDER BY id DESC LIMIT $5)
                          UNION ALL
                          (SELECT * FROM history
                           WHERE to_id = $1 AND from_id IS NOT NULL AND id < $2
                           ORDER BY id DESC LIMIT $5)
                          UNION ALL
                          (SELECT * FROM history
                           WHERE from_id = $1 AND item_id IS NULL AND id < $2
                           ORDER BY id DESC LIMIT $5)
                          UNION ALL
                          (SELECT * FROM history
                           WHERE from_id = $1 AND to_id IS NULL AND item_id IS NOT NULL AND id < $2
                           ORDER BY id DESC LIMIT $5))",
                        "ORDER BY id DESC LIMIT $5"
                    ))
                    .bind(owner.account.0)
                    .bind(before)
                    .bind(owner.username.as_str())
                    .bind(owner.books.0)
                    .bind(one_more)
                    .fetch_all(connection)
                    .await
                })
            })
            .await?;

        let more = rows.len() > usize::from(limit);
        let page = rows.into_iter().take(usize::from(limit));
        Ok(Page { movements: page.map(|row| row.seen_by(account)).collect(), more })
    }

    /// Movement `number`, if the account of `owner` has a part in it, and is theirs.
    pub async fn history_fetch(
        &self,
        owner: &Owner,
        number: LogNumber,
    ) -> Result<Option<Movement>, StorageError> {
        let account = owner.account;
        let owner = owner.clone();
        let row: Option<Row> = self
            .run(move |connection| {
                let owner = owner.clone();
                Box::pin(async move {
                    sqlx::query_as(rows_from!(
                        "(SELECT * FROM history WHERE id = $2 AND (from_id = $1 OR to_id = $1))",
                        ""
                    ))
                    .bind(owner.account.0)
                    .bind(number.0)
                    .bind(owner.username.as_str())
                    .bind(owner.books.0)
                    .fetch_optional(connection)
                    .await
                })
            })
            .await?;
        Ok(row.map(|row| row.seen_by(account)))
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
                    // Coins that went back and forth may add up to more than they are. What is sent
                    // to nobody is a correction; decision 4 says why that is not put plainly.
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
                                  WHERE from_id = $1 AND item_id IS NULL AND coalesce(to_id, 0) > 0
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

impl Row {
    /// Which nulls a row has tells its kind; the schema allows no other rows.
    fn seen_by(self, account: AccountId) -> Movement {
        let counterparty = self.counterparty.unwrap_or_default();
        let item = self.item.unwrap_or_default();
        let kind = match (self.from_id, self.to_id, self.item_id, self.undoes) {
            (None, _, None, _) => MovementKind::Grant,
            (None, _, Some(_), _) => MovementKind::Refund { item },
            (Some(_), None, None, _) => MovementKind::Correction,
            (Some(_), None, Some(_), _) => MovementKind::Purchase { item },
            (Some(from), Some(_), _, None) if from == account.0 => {
                MovementKind::Sent { to: counterparty }
            }
            (Some(_), Some(_), _, None) => MovementKind::Received { from: counterparty },
            (Some(from), Some(_), _, Some(_)) if from == account.0 => {
                MovementKind::GaveBack { to: counterparty }
            }
            (Some(_), Some(_), _, Some(_)) => MovementKind::GotBack { from: counterparty },
        };
        Movement {
            id: self.id,
            kind,
            amount: self.amount,
            undoes: self.undoes,
            at: self.created_at,
        }
    }
}
