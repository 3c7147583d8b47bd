//! What is remembered of the database: which one it is, and names and numbers of accounts,
//! which never change there, so what was read once need not be read again.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use quick_cache::sync::Cache;

use crate::shop::{AccountId, Books, BooksId, Owner, Username};

/// Accounts that are remembered, each way: about 12 MB of them.
const CAPACITY: usize = 100_000;

/// Owners that are remembered: 1 MB of them.
const OWNERS: usize = 1 << 17;

/// What is known of accounts that exist. Clones share it.
#[derive(Clone, Debug)]
pub struct Names {
    now: Arc<ArcSwap<Known>>,
    by_name: Arc<Cache<Username, (u64, AccountId)>>,
    by_number: Arc<Cache<AccountId, (u64, Username)>>,
    owners: Arc<Owners>,
}

/// Which name goes with which number, by a keyed digest of both: every order asks, and a name
/// itself would be several places of memory away. Decision 16 has what that costs.
#[derive(Debug)]
struct Owners {
    digests: Box<[AtomicU64]>,
    key: RandomState,
}

/// Since when what is remembered may be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// One more each time that everything was forgotten. Whatever is remembered carries the
    /// one that was in force before it was read.
    pub generation: u64,
    /// The books that it is of; `None` before they were read.
    pub books: Option<Books>,
}

impl Known {
    /// Whether it is of these books.
    pub fn is_of(&self, id: BooksId) -> bool {
        self.books.is_some_and(|books| books.id == id)
    }
}

impl Names {
    /// Nothing known yet.
    pub(super) fn new() -> Names {
        Names {
            now: Arc::new(ArcSwap::from_pointee(Known { generation: 0, books: None })),
            by_name: Arc::new(Cache::new(CAPACITY)),
            by_number: Arc::new(Cache::new(CAPACITY)),
            owners: Arc::new(Owners::new()),
        }
    }

    /// What may be believed now.
    pub(super) fn known(&self) -> Known {
        **self.now.load()
    }

    /// Takes note of which books these are; what is remembered of others is forgotten.
    pub(super) fn learn(&self, books: Books) {
        if self.known().books != Some(books) {
            self.learn_anew(books);
        }
    }

    /// The same, and forgets everything even if they are the same: a server that went away may
    /// come back with what it held long ago.
    pub(super) fn learn_anew(&self, books: Books) {
        self.now.rcu(|known| Known { generation: known.generation + 1, books: Some(books) });
    }

    /// Forgets everything: another server may not have what was read from the one before it.
    pub(super) fn forget(&self) {
        self.now.rcu(|known| Known { generation: known.generation + 1, ..**known });
    }

    /// The account of this name, if it is known.
    pub(super) fn account(&self, known: Known, username: &Username) -> Option<AccountId> {
        let (generation, account) = self.by_name.get(username)?;
        (generation == known.generation).then_some(account)
    }

    /// The name of this account, if it is known.
    pub(super) fn username(&self, known: Known, account: AccountId) -> Option<Username> {
        let (generation, username) = self.by_number.get(&account)?;
        (generation == known.generation).then_some(username)
    }

    /// Whether the account is known to be this owner's.
    pub(super) fn is_owner(&self, known: Known, owner: &Owner) -> bool {
        let (digest, place) = self.owners.find(known, owner.account, &owner.username);
        place.load(Ordering::Relaxed) == digest
    }

    /// Remembers what a committed row says that was read after `known` was.
    pub(super) fn remember(&self, known: Known, account: AccountId, username: &Username) {
        let (digest, place) = self.owners.find(known, account, username);
        place.store(digest, Ordering::Relaxed);
        self.by_name.insert(username.clone(), (known.generation, account));
        self.by_number.insert(account, (known.generation, username.clone()));
    }
}

impl Owners {
    fn new() -> Owners {
        let digests = std::iter::repeat_with(AtomicU64::default).take(OWNERS).collect();
        Owners { digests, key: RandomState::new() }
    }

    /// The digest of what a row says, never that of nothing, and where it is kept.
    fn find(&self, known: Known, account: AccountId, username: &Username) -> (u64, &AtomicU64) {
        let digest = self.key.hash_one((known.generation, account, username)) | 1;
        // Numbers are given out one after another, so few of them share a place.
        (digest, &self.digests[account.0 as usize % OWNERS])
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_was_read_from_other_books_is_not_believed_even_if_it_comes_late() {
        let books = |number| Books { id: BooksId(Uuid::from_u128(number)), renewed_at: None };
        let (names, alice) = (Names::new(), Username::parse("alice").unwrap());
        let owner = |account| Owner { account, username: alice.clone(), books: books(1).id };
        names.learn(books(1));
        let before = names.known();
        assert!(!names.is_owner(before, &owner(AccountId(7))));
        names.remember(before, AccountId(7), &alice);
        names.learn(books(1));
        assert_eq!(names.account(names.known(), &alice), Some(AccountId(7)));
        assert_eq!(names.username(names.known(), AccountId(7)), Some(alice.clone()));
        assert!(names.is_owner(names.known(), &owner(AccountId(7))));

        for forget in [|names: &Names, books| names.learn(books), Names::learn_anew] {
            forget(&names, books(2));
            // Read before, remembered after.
            names.remember(before, AccountId(7), &alice);
            assert_eq!(names.account(names.known(), &alice), None);
            assert_eq!(names.username(names.known(), AccountId(7)), None);
            assert!(!names.is_owner(names.known(), &owner(AccountId(7))));
        }
        names.remember(names.known(), AccountId(8), &alice);
        assert_eq!(names.account(names.known(), &alice), Some(AccountId(8)));
    }

    #[test]
    fn an_owner_is_one_by_name_and_number_together() {
        let books = Books { id: BooksId(Uuid::from_u128(1)), renewed_at: None };
        let names = Names::new();
        names.learn(books);
        let known = names.known();
        let owner = |number, name| Owner {
            account: AccountId(number),
            username: Username::parse(name).unwrap(),
            books: books.id,
        };
        names.remember(known, AccountId(7), &owner(7, "alice").username);
        names.remember(known, AccountId(8), &owner(8, "bob").username);
        for (number, name, expected) in [
            (7, "alice", true),
            (8, "bob", true),
            (7, "bob", false),
            (8, "alice", false),
            (7, "Alice", false),
            // Kept where the seventh is, and forgotten for it.
            (7 + OWNERS as i64, "alice", false),
            (0, "alice", false),
            (-1, "alice", false),
            (i64::MIN, "alice", false),
        ] {
            assert_eq!(names.is_owner(known, &owner(number, name)), expected, "{number} {name}");
        }
        names.remember(known, AccountId(7 + OWNERS as i64), &owner(9, "carol").username);
        assert!(!names.is_owner(known, &owner(7, "alice")), "one place keeps one");
    }
}
