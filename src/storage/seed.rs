//! Users in bulk, for load tests and benchmarks.

use crate::shop::Amount;

use super::session::{Purpose, Session};
use super::{DatabaseOptions, StorageError};

/// A session that creates users `user1` to `userN`, all alike.
#[derive(Debug)]
pub struct Seed {
    session: Session,
}

impl Seed {
    /// Connects.
    pub async fn connect(options: &DatabaseOptions) -> Result<Seed, StorageError> {
        Ok(Seed { session: Session::connect(options, Purpose::Work).await? })
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
        let password_hash = password_hash.to_owned();
        let inserting = self.session.run(move |statements| {
            let inserting = sqlx::query(
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
            .execute(statements);
            Box::pin(inserting)
        });
        Ok(inserting.await?.rows_affected())
    }

    /// Lets the planner know what the tables hold now, where the role may, and hangs up.
    /// Elsewhere the server finds that out by itself, a little later.
    pub async fn finish(mut self) -> Result<(), StorageError> {
        let owns = self.session.run(|statements| {
            let sql = "SELECT count(*) = 4 FROM pg_class
                       WHERE oid IN ('users'::regclass, 'balance'::regclass, 'history'::regclass,
                                     'inventory'::regclass) AND pg_has_role(relowner, 'USAGE')";
            Box::pin(sqlx::query_scalar(sql).fetch_one(statements))
        });
        let owns: bool = owns.await?;
        if owns {
            self.session.execute("ANALYZE users, balance, history, inventory").await?;
        }
        self.session.close().await;
        Ok(())
    }
}
