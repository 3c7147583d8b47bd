//! Where limits of clients' own are kept: PostgreSQL, Redis, or a file.

mod file;
mod postgres;
mod redis;

use crate::storage::Database;

use super::bucket::Limit;
use super::key::ClientId;
use super::link::Link;
use super::nat64::Nat64;

pub use file::LimitsFile;

/// The one place where they are kept; all gateways that share it share them.
pub enum Store {
    /// In the table `client_limits`.
    Postgres(Box<Database>),
    /// In a hash; kept for as long as the server keeps its data.
    Redis(Link),
    /// In a file, for the gateways on one machine.
    File(LimitsFile),
}

/// A change of one client's limit.
#[derive(Clone, Debug)]
pub enum Change {
    /// Only if there is none.
    Create(ClientId, Limit),
    /// Only if there is one.
    Update(ClientId, Limit),
    /// Whether or not there is one.
    Put(ClientId, Limit),
    /// Only if there is one.
    Delete(ClientId),
}

/// All limits as they were at one version or later.
pub struct Snapshot {
    /// Changes with every change, whoever makes it.
    pub version: String,
    /// In no order.
    pub limits: Vec<(ClientId, Limit)>,
}

/// Why a store did not do what it was asked. `Display` is meant for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It does not answer now. A change may or may not have been made.
    #[error("the limits are out of reach: {0}")]
    Away(String),
    /// What it holds is not what was put there.
    #[error("the limits cannot be read: {0}")]
    Broken(String),
}

impl Store {
    /// The version of what is there, without reading it all.
    pub async fn version(&self) -> Result<String, StoreError> {
        match self {
            Store::Postgres(database) => postgres::version(database).await,
            Store::Redis(link) => redis::version(link).await,
            Store::File(file) => file.version().await,
        }
    }

    /// Everything that is there.
    pub async fn read(&self) -> Result<Snapshot, StoreError> {
        match self {
            Store::Postgres(database) => postgres::read(database).await,
            Store::Redis(link) => redis::read(link).await,
            Store::File(file) => file.read().await,
        }
    }

    /// Makes the change, on disk where the store has one when this returns: whether there was
    /// anything to change.
    pub async fn apply(&self, change: Change) -> Result<bool, StoreError> {
        match self {
            Store::Postgres(database) => postgres::apply(database, change).await,
            Store::Redis(link) => redis::apply(link, change).await,
            Store::File(file) => file.apply(change).await,
        }
    }
}

/// What a store holds is checked like what a client sends.
fn parse(id: &str, capacity: i64, rate_per_sec: i64) -> Result<(ClientId, Limit), StoreError> {
    let broken = || StoreError::Broken(format!("{id:?} has no limit that can be"));
    let id = ClientId::parse(id, &Nat64::default()).map_err(|_| broken())?;
    let number = |number: i64| u32::try_from(number).map_err(|_| broken());
    let limit = Limit::new(number(capacity)?, number(rate_per_sec)?).map_err(|_| broken())?;
    Ok((id, limit))
}
