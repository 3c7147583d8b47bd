//! Forgetting what need not be remembered any longer.

use super::{Database, StorageError};

impl Database {
    /// Deletes at most `limit` idempotency keys older than 7 days: how many it found.
    pub async fn idempotency_keys_purge(&self, limit: i64) -> Result<u64, StorageError> {
        self.run(move |connection| {
            Box::pin(async move {
                sqlx::query(
                    "DELETE FROM idempotency_keys WHERE (user_id, key) IN (
                     SELECT user_id, key FROM idempotency_keys
                     WHERE created_at < now() - interval '7 days'
                     ORDER BY created_at LIMIT $1)",
                )
                .bind(limit)
                .execute(connection)
                .await
                .map(|done| done.rows_affected())
            })
        })
        .await
    }

    /// Deletes the traces of writers that committed nothing for a day. One that is only
    /// idle writes its row again with its next batch.
    pub async fn writers_purge(&self) -> Result<u64, StorageError> {
        self.run(|connection| {
            Box::pin(async move {
                sqlx::query("DELETE FROM writers WHERE updated_at < now() - interval '1 day'")
                    .execute(connection)
                    .await
                    .map(|done| done.rows_affected())
            })
        })
        .await
    }
}
