//! Users in bulk, for load tests and benchmarks.

use std::time::Duration;

use sqlx::SqlSafeStr;

use crate::shop::Amount;

use super::{Attempt, DatabaseOptions, ReplayLimits, StorageError, Transaction, Writer};

/// Nobody waits for an answer: what loses is tried for long.
const LIMITS: ReplayLimits = ReplayLimits {
    max_attempts: 100,
    replay_deadline: Duration::from_secs(60),
    outcome_deadline: Duration::from_secs(60),
};

/// A session that creates users `user1` to `userN`, all alike.
#[derive(Debug)]
pub struct Seed {
    writer: Writer,
    location: String,
}

impl Seed {
    /// Connects.
    pub async fn connect(options: &DatabaseOptions) -> Result<Seed, StorageError> {
        let mut writer = Writer::for_a_tool(options);
        writer.ensure_connected().await?;
        Ok(Seed { writer, location: options.location() })
    }

    /// Creates the users numbered `first` to `last`, each with `password_hash` and a
    /// starting grant of `coins`, in one transaction: how many were not there before.
    pub async fn users_insert_many(
        &mut self,
        first: u32,
        last: u32,
        coins: Amount,
        password_hash: &str,
    ) -> Result<u64, StorageError> {
        let users = Users { first, last, coins, password_hash };
        let seeding = self.writer.run("seed_users", LIMITS, &users, users_insert_many).await;
        seeding.map_err(|error| error.at(&self.location))
    }

    /// Lets the planner know what the tables hold now, where the role may, and hangs up.
    /// Elsewhere the server finds that out by itself, a little later.
    pub async fn finish(mut self) -> Result<(), StorageError> {
        let analysed = self.analyse().await;
        self.writer.close().await;
        analysed.map_err(|error| StorageError::from(error).at(&self.location))
    }

    async fn analyse(&mut self) -> Result<(), sqlx::Error> {
        let asking = self.writer.ask(|statements| {
            let sql = "SELECT count(*) = 4 FROM pg_class
                       WHERE oid IN ('users'::regclass, 'balance'::regclass,
                                     'history'::regclass, 'inventory'::regclass)
                       AND pg_has_role(relowner, 'USAGE')";
            Box::pin(sqlx::query_scalar(sql).fetch_one(statements))
        });
        match asking.await? {
            true => {
                let sql = "ANALYZE users, balance, history, inventory";
                self.writer.execute(sql.into_sql_str()).await
            }
            false => Ok(()),
        }
    }
}

/// Users to be created.
struct Users<'seed> {
    first: u32,
    last: u32,
    coins: Amount,
    password_hash: &'seed str,
}

fn users_insert_many<'a>(
    transaction: &'a mut Transaction<'_>,
    users: &'a Users<'_>,
) -> Attempt<'a, u64> {
    let (writer, batch) = transaction.signature();
    Box::pin(async move {
        let created = transaction
            .writer
            .within_patience(async |connection| {
                sqlx::query(
                    "/* seed_users_insert_many */
                     WITH opened AS (
                         INSERT INTO users (username, password_hash)
                         SELECT 'user' || number, $4 FROM generate_series($1::int8, $2::int8) AS number
                         ON CONFLICT (username) DO NOTHING
                         RETURNING id
                     ), head AS (
                         UPDATE log_head SET id = id + (SELECT count(*) FROM opened) WHERE single
                         RETURNING id - (SELECT count(*) FROM opened) AS id
                     ), funded AS (
                         INSERT INTO balance (user_id, coins) SELECT id, $3 FROM opened
                     ), signed AS (
                         INSERT INTO writers (id, batch) VALUES ($5, $6)
                         ON CONFLICT (id)
                         DO UPDATE SET batch = excluded.batch, updated_at = excluded.updated_at
                     )
                     INSERT INTO history (id, to_id, amount)
                     SELECT head.id + row_number() OVER (ORDER BY opened.id), opened.id, $3
                     FROM opened, head",
                )
                .bind(i64::from(users.first))
                .bind(i64::from(users.last))
                .bind(users.coins.get())
                .bind(users.password_hash)
                .bind(writer)
                .bind(batch)
                .execute(connection)
                .await
            })
            .await?;
        Ok(created.rows_affected())
    })
}
