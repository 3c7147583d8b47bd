//! Limits of gateways' clients. Every change moves the version on in the same statement, so
//! that a gateway which polls reads one row, not all.

use super::{Database, StorageError};

/// One client's own limit.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct ClientLimit {
    /// As the gateway spells it.
    pub client_id: String,
    /// Requests at once, at least 1.
    pub capacity: i32,
    /// Requests a second, at least 1.
    pub rate_per_sec: i32,
}

/// What follows a statement that changed something.
macro_rules! and_move_on {
    ($changed:literal) => {
        concat!(
            "/* client_limits_change */ WITH changed AS (",
            $changed,
            " RETURNING 1) UPDATE client_limits_version SET version = version + 1
             WHERE EXISTS (SELECT FROM changed)"
        )
    };
}

impl Database {
    /// Moves on with every change.
    pub async fn client_limits_version_fetch(&self) -> Result<i64, StorageError> {
        self.run(|connection| {
            Box::pin(
                sqlx::query_scalar("SELECT version FROM client_limits_version")
                    .fetch_one(connection),
            )
        })
        .await
    }

    /// All of them.
    pub async fn client_limits_fetch_all(&self) -> Result<Vec<ClientLimit>, StorageError> {
        self.run(|connection| {
            Box::pin(
                sqlx::query_as("SELECT client_id, capacity, rate_per_sec FROM client_limits")
                    .fetch_all(connection),
            )
        })
        .await
    }

    /// Whether the client had none.
    pub async fn client_limits_insert(&self, limit: ClientLimit) -> Result<bool, StorageError> {
        self.client_limits_change(
            and_move_on!(
                "INSERT INTO client_limits (client_id, capacity, rate_per_sec)
                 VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
            ),
            limit,
        )
        .await
    }

    /// Whether the client had one.
    pub async fn client_limits_update(&self, limit: ClientLimit) -> Result<bool, StorageError> {
        self.client_limits_change(
            and_move_on!(
                "UPDATE client_limits SET capacity = $2, rate_per_sec = $3 WHERE client_id = $1"
            ),
            limit,
        )
        .await
    }

    /// Whether or not the client had one: `true`.
    pub async fn client_limits_upsert(&self, limit: ClientLimit) -> Result<bool, StorageError> {
        self.client_limits_change(
            and_move_on!(
                "INSERT INTO client_limits (client_id, capacity, rate_per_sec)
                 VALUES ($1, $2, $3) ON CONFLICT (client_id)
                 DO UPDATE SET capacity = $2, rate_per_sec = $3"
            ),
            limit,
        )
        .await
    }

    /// Whether the client had one.
    pub async fn client_limits_delete(&self, client_id: &str) -> Result<bool, StorageError> {
        let client_id = client_id.to_owned();
        self.run_once(move |connection| {
            let client_id = client_id.clone();
            Box::pin(async move {
                sqlx::query(and_move_on!("DELETE FROM client_limits WHERE client_id = $1"))
                    .bind(client_id)
                    .execute(connection)
                    .await
                    .map(|done| done.rows_affected() == 1)
            })
        })
        .await
    }

    async fn client_limits_change(
        &self,
        sql: &'static str,
        limit: ClientLimit,
    ) -> Result<bool, StorageError> {
        self.run_once(move |connection| {
            let ClientLimit { client_id, capacity, rate_per_sec } = limit.clone();
            Box::pin(async move {
                sqlx::query(sql)
                    .bind(client_id)
                    .bind(capacity)
                    .bind(rate_per_sec)
                    .execute(connection)
                    .await
                    .map(|done| done.rows_affected() == 1)
            })
        })
        .await
    }
}
