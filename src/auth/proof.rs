//! Proofs that a password was verified a moment ago, so that somebody who logs in again and
//! again costs one hash a minute. `docs/decisions/0010-login-proofs.md` has the threat model.

use std::sync::Arc;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use quick_cache::sync::Cache;
use secrecy::ExposeSecret;
use sha2::Sha256;
use tokio::time::Instant;

use crate::shop::Username;

use super::password::Password;

/// How long a proof holds.
const LIFETIME: Duration = Duration::from_secs(60);
/// Proofs at once; the least used make room.
const CAPACITY: usize = 10_000;

/// What this process has verified lately. Nothing in it is worth anything elsewhere: entries
/// are digests under a key that was made at start and never leaves.
#[derive(Clone)]
pub struct Proofs {
    key: [u8; 32],
    proven: Arc<Cache<[u8; 32], Proof>>,
}

/// That a password once matched a stored hash.
#[derive(Clone)]
struct Proof {
    password_hash: Arc<str>,
    until: Instant,
}

impl Default for Proofs {
    fn default() -> Proofs {
        Proofs { key: rand::random(), proven: Arc::new(Cache::new(CAPACITY)) }
    }
}

impl Proofs {
    /// Remembers that `password` of `username` matched `password_hash`.
    pub fn remember(&self, username: &Username, password: &Password, password_hash: &str) {
        let proof = Proof { password_hash: password_hash.into(), until: Instant::now() + LIFETIME };
        self.proven.insert(self.digest(username, password), proof);
    }

    /// The stored hash that `password` of `username` matched less than a minute ago. It proves
    /// nothing unless it is still the one that is stored.
    pub fn recall(&self, username: &Username, password: &Password) -> Option<Arc<str>> {
        let proof = self.proven.get(&self.digest(username, password))?;
        (Instant::now() < proof.until).then_some(proof.password_hash)
    }

    fn digest(&self, username: &Username, password: &Password) -> [u8; 32] {
        let username = username.as_str().as_bytes();
        Hmac::<Sha256>::new_from_slice(&self.key)
            .expect("HMAC takes keys of any length")
            .chain_update((username.len() as u64).to_be_bytes())
            .chain_update(username)
            .chain_update(password.as_secret().expose_secret())
            .finalize()
            .into_bytes()
            .into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> Password {
        Password::parse(text.into()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_proof_is_for_one_name_and_one_password_for_a_minute() {
        let proofs = Proofs::default();
        let alice = Username::parse("alice").unwrap();
        proofs.remember(&alice, &password("secret"), "stored");
        let recall = |name: &str, text: &str| {
            let hash = proofs.recall(&Username::parse(name).unwrap(), &password(text));
            hash.as_deref().map(str::to_owned)
        };
        assert_eq!(recall("alice", "secret").as_deref(), Some("stored"));
        for (name, text) in [("alice", "Secret"), ("alic", "esecret"), ("bob", "secret")] {
            assert_eq!(recall(name, text), None, "{name} {text}");
        }
        tokio::time::advance(LIFETIME).await;
        assert_eq!(recall("alice", "secret"), None);
    }

    #[test]
    fn what_one_process_has_proven_says_nothing_to_another() {
        let (first, second) = (Proofs::default(), Proofs::default());
        let alice = Username::parse("alice").unwrap();
        assert_ne!(
            first.digest(&alice, &password("secret")),
            second.digest(&alice, &password("secret"))
        );
    }
}
