//! The catalogue.

use super::{Database, StorageError};

/// An item on sale and its price in coins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MerchItem {
    /// As `/api/buy/{item}` wants it.
    pub name: String,
    /// Coins for one, at least 1.
    pub price: i64,
}

impl Database {
    /// Everything on sale, in the catalogue's order.
    pub async fn merch_fetch_all(&self) -> Result<Vec<MerchItem>, StorageError> {
        let rows: Vec<(String, i64)> = self
            .read(|pool| async move {
                sqlx::query_as("SELECT name, price FROM merch ORDER BY id").fetch_all(&pool).await
            })
            .await?;
        Ok(rows.into_iter().map(|(name, price)| MerchItem { name, price }).collect())
    }
}
