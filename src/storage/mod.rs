//! PostgreSQL: the only SQL in the program, one function a statement.
//!
//! Reads are single statements, each its own snapshot, on a pool of connections. Coins are
//! written through one [`Writer`], which runs each [`Transaction`] there is. What the driver says stays here: it leaves as a [`StorageError`].

mod accounts;
mod audit;
mod connect;
mod door;
mod error;
mod history;
mod idempotency;
mod identity;
mod info;
mod ledger;
mod limits;
mod merch;
mod migrate;
mod names;
mod pool;
mod rights;
mod seed;
mod session;
mod spellings;
mod url;

pub use accounts::Credentials;
pub use audit::{Audit, Lie, Totals};
pub use connect::{Database, DatabaseOptions};
pub use door::{Attempt, ReplayLimits, Transaction, Work, Writer};
pub use error::StorageError;
pub use history::{Movement, MovementKind, Page, Summary, Total};
pub use identity::renew_identity;
pub use info::Info;
pub use limits::ClientLimit;
pub use merch::MerchItem;
pub use migrate::{AppliedMigration, MigrationState, Migrations};
pub use names::Known;
pub use seed::Seed;
pub use url::InvalidUrl;
