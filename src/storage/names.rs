//! Names and numbers of accounts, remembered: neither ever changes, so what was read once
//! need not be read again.

use std::sync::Arc;

use quick_cache::sync::Cache;

use crate::shop::{AccountId, Username};

/// Accounts that are remembered, each way: about 10 MB of them.
const CAPACITY: usize = 100_000;

/// What is known of accounts that exist.
#[derive(Clone, Debug)]
pub struct Names {
    by_name: Arc<Cache<Username, AccountId>>,
    by_number: Arc<Cache<AccountId, Username>>,
}

impl Names {
    /// Nothing known yet.
    pub(super) fn new() -> Names {
        Names { by_name: Arc::new(Cache::new(CAPACITY)), by_number: Arc::new(Cache::new(CAPACITY)) }
    }

    /// The account of this name, if it is known.
    pub(super) fn account(&self, username: &Username) -> Option<AccountId> {
        self.by_name.get(username)
    }

    /// The name of this account, if it is known.
    pub(super) fn username(&self, account: AccountId) -> Option<Username> {
        self.by_number.get(&account)
    }

    /// Remembers what a committed row says.
    pub(super) fn remember(&self, account: AccountId, username: &Username) {
        self.by_name.insert(username.clone(), account);
        self.by_number.insert(account, username.clone());
    }
}
