//! Whose coins they are.

use uuid::Uuid;

use super::{AccountId, Username};

/// Which database the books are kept in: random, made with it, another one after a restore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BooksId(pub Uuid);

/// The books as they name themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Books {
    /// Their identity.
    pub id: BooksId,
    /// When they got it, in seconds since the Unix epoch; `None`: they were opened with it.
    pub renewed_at: Option<u64>,
}

/// The owner of an account, as a token says. The number alone is not enough: it is given out
/// again in a database that was reset or restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The account's number.
    pub account: AccountId,
    /// The name that must belong to that number.
    pub username: Username,
    /// The books in which it does.
    pub books: BooksId,
}
