//! Who a request comes from: its client's address from the start, and an account once a token
//! has shown it.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use crate::shop::AccountId;

/// One request's, shared by those who find out and those who want to know.
#[derive(Clone, Debug)]
pub struct Asker(Arc<Known>);

#[derive(Debug)]
struct Known {
    address: IpAddr,
    account: OnceLock<AccountId>,
}

impl Asker {
    /// Somebody at `address`.
    pub fn at(address: IpAddr) -> Asker {
        Asker(Arc::new(Known { address, account: OnceLock::new() }))
    }

    /// The client's address, as far as proxies are believed.
    pub fn address(&self) -> IpAddr {
        self.0.address
    }

    /// It is the owner of `account`.
    pub fn is(&self, account: AccountId) {
        let _ = self.0.account.set(account);
    }

    /// The number of its account, if it has shown a good token.
    pub fn account(&self) -> Option<i64> {
        self.0.account.get().map(|account| account.0)
    }
}
