//! The shop's law, pure: no I/O, no clock, no randomness, nothing of ours imported.
//!
//! Input is parsed into these types once, at the edge; from there on a negative amount or
//! a username with a line break in it cannot be written down.

mod coins;
mod idempotency;
mod item;
pub mod ledger;
mod owner;
mod username;

pub use coins::{Amount, Coins, STARTING_COINS};
pub use idempotency::{Fingerprint, IdempotencyKey, InvalidIdempotencyKey};
pub use item::{CATALOGUE, ItemName};
pub use owner::{Books, BooksId, Owner};
pub use username::{InvalidUsername, Username};

/// An account's number in the database (`users.id`), at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId(pub i64);

/// The number of a row of the log, at least 1. All append-only rows share one series, without
/// gaps and in the order in which they were committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogNumber(pub i64);

/// An item's number in the database (`merch.id`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ItemId(pub i16);
