//! What stands before every request: who is it, and has it a token?

use std::net::IpAddr;
use std::sync::Arc;

use ::http::HeaderMap;

use super::bucket::Decision;
use super::key::KeyBy;
use super::limiter::Limiter;

/// A limiter and what it tells clients apart by. Clones are handles to the same gate.
#[derive(Clone)]
pub struct Gate {
    limiter: Limiter,
    key_by: Arc<KeyBy>,
}

impl Gate {
    /// Puts `limiter` before requests of clients that are told apart by `key_by`.
    pub fn new(limiter: Limiter, key_by: KeyBy) -> Gate {
        Gate { limiter, key_by: Arc::new(key_by) }
    }

    /// Takes a token for a request with `headers` that comes from `address`, which is the
    /// peer's or one that a trusted proxy vouches for; `None` where no limit applies.
    pub async fn check(&self, address: IpAddr, headers: &HeaderMap) -> Option<Decision> {
        let key = self.key_by.key(self.limiter.nat64(), address, headers);
        self.limiter.check(&key).await
    }

    /// The limiter, whose default may change.
    pub fn limiter(&self) -> &Limiter {
        &self.limiter
    }
}
