//! The proof that no coin was lost or minted, read from one snapshot.

use super::door::SNAPSHOT;
use super::session::{Purpose, Session, Statements};
use super::{DatabaseOptions, StorageError};

/// The most lies that one kind of check reports; more would not say more.
const LIES_SHOWN: i64 = 10;

/// What the books say, and where they contradict themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// Sums over everything, whether the books are honest or not.
    pub totals: Totals,
    /// Empty if the books are honest; at most 10 of each kind.
    pub lies: Vec<Lie>,
}

/// The shop in numbers; coins are sums over all users, so they may pass 64 bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Rows of `users`.
    pub users: i64,
    /// Rows of `history`.
    pub movements: i64,
    /// Coins that grants brought into circulation.
    pub granted: i128,
    /// Coins that corrections took out of circulation.
    pub corrected: i128,
    /// Coins in all balances.
    pub held: i128,
    /// Coins that purchases took out of circulation.
    pub spent: i128,
    /// Coins that refunds gave back.
    pub refunded: i128,
    /// Moved from user to user, there and back.
    pub transferred: i128,
    /// Items that people own.
    pub items: i128,
}

/// Something that cannot be true of honest books, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lie(pub String);

impl Audit {
    /// Reads everything once, in one snapshot, while the shop goes on working.
    pub async fn run(options: &DatabaseOptions) -> Result<Audit, StorageError> {
        let mut session = Session::connect(options, Purpose::Look).await?;
        let audit = Audit::read(&mut session).await;
        session.close().await;
        audit.map_err(|error| error.at(&options.location()))
    }

    async fn read(session: &mut Session) -> Result<Audit, StorageError> {
        // Whole tables are read here: the opposite of what other sessions are set up for.
        let begin = session.transaction(
            SNAPSHOT,
            "SET LOCAL statement_timeout = 0; SET LOCAL enable_seqscan = on;
             SET LOCAL enable_hashjoin = on; SET LOCAL enable_mergejoin = on;
             SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL work_mem = '256MB'",
        );
        session.execute(begin).await?;
        let totals = totals(session.statements()).await?;
        let mut lies = Vec::new();
        lies.extend(balances_that_lie(session.statements()).await?);
        lies.extend(inventories_that_lie(session.statements()).await?);
        lies.extend(rows_below_zero(session.statements()).await?);
        lies.extend(movements_that_lie(session.statements()).await?);
        lies.extend(grants_too_many(session.statements()).await?);
        lies.extend(undone_wrongly(session.statements()).await?);
        lies.extend(undone_twice(session.statements()).await?);
        lies.extend(numbers_given_out_twice(session.statements()).await?);
        lies.extend(heads_that_lie(session.statements()).await?);
        lies.extend(totals.lie());
        Ok(Audit { totals, lies })
    }
}

impl Totals {
    /// What came into circulation is there, or went out of it again.
    fn lie(&self) -> Option<Lie> {
        let Totals { granted, corrected, held, spent, refunded, .. } = self;
        (granted - corrected != held + spent - refunded).then(|| {
            let corrections = match corrected {
                0 => String::new(),
                _ => format!(" and {corrected} taken back"),
            };
            let refunds = match refunded {
                0 => String::new(),
                _ => format!(", {refunded} of them refunded"),
            };
            Lie(format!(
                "{granted} coins were granted{corrections}, but {held} are held and {spent} were \
                 spent{refunds}"
            ))
        })
    }
}

async fn totals(statements: Statements<'_>) -> Result<Totals, StorageError> {
    // Sums of int8 are numeric, which travels best as text.
    type Row = (i64, i64, String, String, String, String, String, String, String);
    let row: Row = sqlx::query_as(
        "SELECT (SELECT count(*) FROM users),
                count(*),
                coalesce(sum(amount) FILTER (WHERE from_id IS NULL AND item_id IS NULL), 0)::text,
                coalesce(sum(amount) FILTER (WHERE to_id IS NULL AND item_id IS NULL), 0)::text,
                (SELECT coalesce(sum(coins), 0)::text FROM balance),
                coalesce(sum(amount) FILTER (WHERE to_id IS NULL AND item_id IS NOT NULL), 0)::text,
                coalesce(sum(amount) FILTER (WHERE from_id IS NULL AND item_id IS NOT NULL), 0)::text,
                coalesce(sum(amount) FILTER (WHERE from_id IS NOT NULL AND to_id IS NOT NULL), 0)::text,
                (SELECT coalesce(sum(quantity), 0)::text FROM inventory)
         FROM history",
    )
    .fetch_one(statements)
    .await?;
    let (users, movements, granted, corrected, held, spent, refunded, transferred, items) = row;
    let number = |text: String| {
        text.parse::<i128>().map_err(|_| StorageError::Unexpected(format!("not a sum: {text}")))
    };
    Ok(Totals {
        users,
        movements,
        granted: number(granted)?,
        corrected: number(corrected)?,
        held: number(held)?,
        spent: number(spent)?,
        refunded: number(refunded)?,
        transferred: number(transferred)?,
        items: number(items)?,
    })
}

/// Users whose coins are not the sum of their history, or who have no balance at all.
async fn balances_that_lie(statements: Statements<'_>) -> Result<Vec<Lie>, StorageError> {
    let rows: Vec<(i64, Option<String>, Option<i64>, String)> = sqlx::query_as(
        "SELECT coalesce(users.id, summed.user_id, balance.user_id), username, coins,
                coalesce(summed.coins_moved, 0)::text
         FROM users
         FULL JOIN balance ON balance.user_id = users.id
         FULL JOIN (
             SELECT user_id, sum(amount) AS coins_moved FROM (
                 SELECT to_id AS user_id, amount FROM history WHERE to_id IS NOT NULL
                 UNION ALL
                 SELECT from_id, -amount FROM history WHERE from_id IS NOT NULL
             ) AS moved GROUP BY user_id
         ) AS summed ON summed.user_id = coalesce(users.id, balance.user_id)
         WHERE username IS NULL OR coins IS NULL OR coins <> coalesce(summed.coins_moved, 0)
         ORDER BY 1 LIMIT $1",
    )
    .bind(LIES_SHOWN)
    .fetch_all(statements)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(id, username, coins, summed)| {
            let user = username.map_or(format!("user {id}, who does not exist,"), |name| {
                format!("user {id} ({name})")
            });
            Lie(match coins {
                Some(coins) => format!("{user} holds {coins} coins, but the history says {summed}"),
                None => format!("{user} has no balance, but the history says {summed}"),
            })
        })
        .collect())
}

/// Users who own another number of an item than they bought and did not give back.
async fn inventories_that_lie(statements: Statements<'_>) -> Result<Vec<Lie>, StorageError> {
    let rows: Vec<(i64, i16, i64, i64)> = sqlx::query_as(
        "SELECT coalesce(owned.user_id, bought.user_id), coalesce(owned.item_id, bought.item_id),
                coalesce(owned.quantity, 0), coalesce(bought.quantity, 0)
         FROM inventory AS owned
         FULL JOIN (
             SELECT coalesce(from_id, to_id) AS user_id, item_id,
                    count(*) FILTER (WHERE from_id IS NOT NULL)
                    - count(*) FILTER (WHERE from_id IS NULL) AS quantity
             FROM history WHERE item_id IS NOT NULL GROUP BY 1, 2
         ) AS bought ON bought.user_id = owned.user_id AND bought.item_id = owned.item_id
         WHERE coalesce(owned.quantity, 0) <> coalesce(bought.quantity, 0)
         ORDER BY 1, 2 LIMIT $1",
    )
    .bind(LIES_SHOWN)
    .fetch_all(statements)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(user, item, owned, bought)| {
            Lie(format!("user {user} owns {owned} of item {item}, but bought {bought}"))
        })
        .collect())
}

/// Rows that the tables' own constraints should have kept out.
async fn rows_below_zero(statements: Statements<'_>) -> Result<Vec<Lie>, StorageError> {
    let rows: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT 'balance', user_id, coins FROM balance WHERE coins < 0
         UNION ALL
         SELECT 'inventory', user_id, quantity FROM inventory WHERE quantity <= 0
         LIMIT $1",
    )
    .bind(LIES_SHOWN)
    .fetch_all(statements)
    .await?;
    let lie = |(what, id, number)| Lie(format!("{what} of user {id} is {number}"));
    Ok(rows.into_iter().map(lie).collect())
}

/// Rows of the history that lie by themselves: that are none of the six kinds of movement, name
/// somebody or something that is not there, or have a number that the head did not give out.
async fn movements_that_lie(statements: Statements<'_>) -> Result<Vec<Lie>, StorageError> {
    let rows: Vec<(String,)> = sqlx::query_as(
        "SELECT 'movement ' || id || ' ' || lie
         FROM (
             SELECT id, lie, row_number() OVER (PARTITION BY kind ORDER BY id) AS nth
             FROM (
                 SELECT history.id, ARRAY[
                     CASE WHEN CASE WHEN ref IS NULL
                         THEN (from_id IS NULL AND to_id IS NULL)
                           OR (item_id IS NOT NULL AND (from_id IS NULL OR to_id IS NOT NULL))
                         ELSE to_id IS NULL OR (from_id IS NULL) = (item_id IS NULL)
                     END THEN 'is of no kind' END,
                     CASE WHEN amount <= 0 THEN 'is of ' || amount || ' coins' END,
                     CASE WHEN actor_id IS NOT NULL AND actor.id IS NULL
                         THEN 'was made by user ' || actor_id || ', who does not exist' END,
                     CASE WHEN item_id IS NOT NULL AND item.id IS NULL
                         THEN 'is about item ' || item_id || ', which does not exist' END,
                     CASE WHEN history.id > head
                         THEN 'is beyond the head of the log, ' || head END,
                     CASE WHEN history.id < 1 THEN 'has a number from before the log' END
                 ] AS lies
                 FROM history
                 CROSS JOIN (SELECT max(id) AS head FROM log_head) AS log
                 LEFT JOIN users AS actor ON actor.id = actor_id
                 LEFT JOIN merch AS item ON item.id = item_id
             ) AS looked_at, unnest(lies) WITH ORDINALITY AS told (lie, kind)
             WHERE num_nonnulls(VARIADIC lies) > 0 AND lie IS NOT NULL
         ) AS numbered
         WHERE nth <= $1 ORDER BY id, lie",
    )
    .bind(LIES_SHOWN)
    .fetch_all(statements)
    .await?;
    Ok(rows.into_iter().map(|(lie,)| Lie(lie)).collect())
}

/// Users who were granted more than once with no name to it: coins minted by an entry that
/// balances.
async fn grants_too_many(statements: Statements<'_>) -> Result<Vec<Lie>, StorageError> {
    let rows: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT to_id, count(*) FROM history
         WHERE from_id IS NULL AND to_id IS NOT NULL AND item_id IS NULL AND actor_id IS NULL
         GROUP BY to_id HAVING count(*) > 1 ORDER BY 1 LIMIT $1",
    )
    .bind(LIES_SHOWN)
    .fetch_all(statements)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(user, grants)| Lie(format!("user {user} was granted coins {grants} times")))
        .collect())
}

/// Refunds of what was not bought like that, and reversals of what was not sent like that.
async fn undone_wrongly(statements: Statements<'_>) -> Result<Vec<Lie>, StorageError> {
    let rows: Vec<(i64, bool, i64)> = sqlx::query_as(
        "SELECT undo.id, undo.item_id IS NOT NULL, undo.ref
         FROM history AS undo LEFT JOIN history AS done ON done.id = undo.ref
         WHERE undo.ref IS NOT NULL AND (
             done.id IS NULL OR done.ref IS NOT NULL OR done.id > undo.id
             OR done.from_id IS DISTINCT FROM undo.to_id
             OR done.to_id IS DISTINCT FROM undo.from_id
             OR done.item_id IS DISTINCT FROM undo.item_id
             OR done.amount <> undo.amount
         )
         ORDER BY 1 LIMIT $1",
    )
    .bind(LIES_SHOWN)
    .fetch_all(statements)
    .await?;
    let lie = |(id, is_refund, undone)| {
        let kind = if is_refund { "refund" } else { "reversal" };
        Lie(format!("{kind} {id} does not undo movement {undone}"))
    };
    Ok(rows.into_iter().map(lie).collect())
}

/// Movements that were undone more than once.
async fn undone_twice(statements: Statements<'_>) -> Result<Vec<Lie>, StorageError> {
    let rows: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT ref, count(*) FROM history WHERE ref IS NOT NULL
         GROUP BY ref HAVING count(*) > 1 ORDER BY 1 LIMIT $1",
    )
    .bind(LIES_SHOWN)
    .fetch_all(statements)
    .await?;
    let lie = |(id, times)| Lie(format!("movement {id} was undone {times} times"));
    Ok(rows.into_iter().map(lie).collect())
}

/// Numbers that two movements have.
async fn numbers_given_out_twice(statements: Statements<'_>) -> Result<Vec<Lie>, StorageError> {
    let rows: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT id, count(*) FROM history GROUP BY id HAVING count(*) > 1 ORDER BY id LIMIT $1",
    )
    .bind(LIES_SHOWN)
    .fetch_all(statements)
    .await?;
    let lie = |(id, times)| Lie(format!("number {id} was given out {times} times"));
    Ok(rows.into_iter().map(lie).collect())
}

/// No head of the log, or more than one.
async fn heads_that_lie(statements: Statements<'_>) -> Result<Option<Lie>, StorageError> {
    let (heads,): (i64,) =
        sqlx::query_as("SELECT count(*) FROM log_head").fetch_one(statements).await?;
    Ok((heads != 1).then(|| Lie(format!("the log has {heads} heads"))))
}
