//! Limits in PostgreSQL: what `storage` has, in the limits' own terms.

use crate::storage::{ClientLimit, Database, StorageError};

use super::super::bucket::Limit;
use super::super::key::ClientId;
use super::{Change, Snapshot, StoreError, parse};

pub(super) async fn version(database: &Database) -> Result<String, StoreError> {
    Ok(database.client_limits_version_fetch().await?.to_string())
}

pub(super) async fn read(database: &Database) -> Result<Snapshot, StoreError> {
    // The version first: rows that are newer than it are read once more the next time.
    let version = version(database).await?;
    let rows = database.client_limits_fetch_all().await?.into_iter();
    let limits =
        rows.map(|row| parse(&row.client_id, row.capacity.into(), row.rate_per_sec.into()));
    Ok(Snapshot { version, limits: limits.collect::<Result<_, _>>()? })
}

pub(super) async fn apply(database: &Database, change: Change) -> Result<bool, StoreError> {
    let done = match change {
        Change::Create(id, limit) => database.client_limits_insert(row(&id, limit)?).await?,
        Change::Update(id, limit) => database.client_limits_update(row(&id, limit)?).await?,
        Change::Put(id, limit) => database.client_limits_upsert(row(&id, limit)?).await?,
        Change::Delete(id) => database.client_limits_delete(id.as_str()).await?,
    };
    Ok(done)
}

fn row(id: &ClientId, limit: Limit) -> Result<ClientLimit, StoreError> {
    let number = |number: u32| {
        i32::try_from(number).map_err(|_| StoreError::Broken("a limit beyond all limits".into()))
    };
    Ok(ClientLimit {
        client_id: id.as_str().to_owned(),
        capacity: number(limit.capacity())?,
        rate_per_sec: number(limit.rate_per_sec())?,
    })
}

impl From<StorageError> for StoreError {
    fn from(error: StorageError) -> StoreError {
        StoreError::Away(error.to_string())
    }
}
