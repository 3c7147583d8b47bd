//! Users in bulk, for load tests and benchmarks.

use sqlx::{Connection, PgConnection};

use crate::shop::Amount;

use super::{DatabaseOptions, StorageError};

/// A session that creates users `user1` to `userN`, all alike.
#[derive(Debug)]
pub struct Seed {
    connection: PgConnection,
}

impl Seed {
    /// Connects.
    pub async fn connect(options: &DatabaseOptions) -> Result<Seed, StorageError> {
        Ok(Seed { connection: options.connect().await? })
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
        let created = sqlx::query(
            "WITH opened AS (
                 INSERT INTO users (username, password_hash)
                 SELECT 'user' || number, $4 FROM generate_series($1::int8, $2::int8) AS number
                 ON CONFLICT (username) DO NOTHING
                 RETURNING id
             ), funded AS (
                 INSERT INTO balance (user_id, coins) SELECT id, $3 FROM opened
             )
             INSERT INTO history (to_id, amount) SELECT id, $3 FROM opened ORDER BY id",
        )
        .bind(i64::from(first))
        .bind(i64::from(last))
        .bind(coins.get())
        .bind(password_hash)
        .execute(&mut self.connection)
        .await?;
        Ok(created.rows_affected())
    }

    /// Lets the planner know what the tables hold now, and hangs up.
    pub async fn finish(mut self) -> Result<(), StorageError> {
        sqlx::raw_sql("ANALYZE").execute(&mut self.connection).await?;
        // Everything is committed; a connection that cannot be closed politely is dropped.
        let _ = self.connection.close().await;
        Ok(())
    }
}
