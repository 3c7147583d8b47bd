//! Password hashing: argon2id, off the runtime's threads, a bounded number at a time.

use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use metrics::{Gauge, gauge};
use precis_profiles::OpaqueString;
use precis_profiles::precis_core::profile::{Profile, Rules};
use precis_profiles::precis_core::{DerivedPropertyValue, FreeformClass, StringClass};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use unicode_normalization::UnicodeNormalization;

/// The longest password, in bytes as it is hashed. Every byte counts: nothing is cut off.
pub const MAX_PASSWORD_BYTES: usize = 1024;

/// How much lower than the rest of the process hashing threads run (Unix "nice"): a flood
/// of logins gets the processor time that nobody else wants.
const NICENESS: i32 = 10;

/// A password somebody could have: 1 to [`MAX_PASSWORD_BYTES`] bytes without control
/// characters, with no white space at either end.
#[derive(Clone, Debug)]
pub struct Password(SecretString);

/// Why a text is not a password; `Display` is meant for the person who typed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPassword {
    /// There is not one byte.
    #[error("password must not be empty")]
    Empty,
    /// There are more than [`MAX_PASSWORD_BYTES`] bytes.
    #[error("password must be at most {MAX_PASSWORD_BYTES} bytes long")]
    TooLong,
    /// A line break, NUL or another character of Unicode's category Cc is in it.
    #[error("password must not contain control characters")]
    ControlCharacter,
    /// White space, of any kind that Unicode knows, is at either end.
    #[error("password must not start or end with a space")]
    OuterSpace,
    /// RFC 8265 keeps a character of it out of passwords. Accounts from before may have it.
    #[error(
        "password must not contain invisible characters, or others that keyboards do not agree on"
    )]
    Forbidden,
}

/// Hashes passwords: so many at once, so many waiting, no more.
#[derive(Clone, Debug)]
pub struct Hasher {
    threads: Arc<Semaphore>,
    places: Arc<Semaphore>,
    waiting: Gauge,
}

/// A place in the hashing queue, to be had before anything that is scarce is taken.
#[derive(Debug)]
pub struct Place {
    threads: Arc<Semaphore>,
    _place: OwnedSemaphorePermit,
    _waiting: WaitingGuard,
}

/// The hashing queue has no place left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many logins at once")]
pub struct HashingQueueFull;

impl Password {
    /// The password that `text` spells, or the first rule it breaks.
    pub fn parse(text: SecretString) -> Result<Password, InvalidPassword> {
        let plain = text.expose_secret();
        if plain.is_empty() {
            Err(InvalidPassword::Empty)
        } else if plain.nfc().map(char::len_utf8).sum::<usize>() > MAX_PASSWORD_BYTES {
            // A letter may be typed with more bytes than it is hashed with, or with fewer.
            Err(InvalidPassword::TooLong)
        } else if plain.chars().any(char::is_control) {
            Err(InvalidPassword::ControlCharacter)
        } else if plain.trim() != plain {
            Err(InvalidPassword::OuterSpace)
        } else {
            Ok(Password(text))
        }
    }
}

impl Password {
    /// The password as that of a new account is hashed, or why it cannot be one: RFC 8265's
    /// OpaqueString, so that it is the same whatever it is typed on. What was not yet assigned in
    /// the profile's Unicode may be an emoji, and passes.
    pub fn prepared(&self) -> Result<Password, InvalidPassword> {
        let typed = self.0.expose_secret();
        if typed.is_ascii() {
            return Ok(self.clone());
        }
        let (profile, class) = (OpaqueString::new(), FreeformClass::default());
        let is_assigned =
            |it: &char| class.get_value_from_char(*it) != DerivedPropertyValue::Unassigned;
        let composed: SecretString = typed.nfc().collect::<String>().into();
        let composed = composed.expose_secret();
        let assigned: SecretString =
            composed.chars().filter(is_assigned).collect::<String>().into();
        let assigned = assigned.expose_secret();
        if !assigned.is_empty() && profile.prepare(assigned).is_err() {
            return Err(InvalidPassword::Forbidden);
        }
        let mapped = profile.additional_mapping_rule(composed);
        mapped
            .map(|text| Password(text.into_owned().into()))
            .map_err(|_| InvalidPassword::Forbidden)
    }

    /// The password itself, for a keyed digest.
    pub(super) fn as_secret(&self) -> &SecretString {
        &self.0
    }
}

impl Hasher {
    /// A hasher that works on `threads` passwords at once and lets `queue` more wait.
    pub fn new(threads: usize, queue: usize) -> Hasher {
        Hasher {
            threads: Arc::new(Semaphore::new(threads)),
            places: Arc::new(Semaphore::new(threads + queue)),
            waiting: gauge!("merch_hashing_queue_depth"),
        }
    }

    /// Takes a place in the queue, at once or not at all.
    pub fn place(&self) -> Result<Place, HashingQueueFull> {
        let place = self.places.clone().try_acquire_owned().map_err(|_| HashingQueueFull)?;
        self.waiting.increment(1);
        Ok(Place {
            threads: self.threads.clone(),
            _place: place,
            _waiting: WaitingGuard(self.waiting.clone()),
        })
    }
}

impl Place {
    /// The PHC string of `password`, which should be prepared, with a salt of its own.
    pub async fn hash(&mut self, password: &Password) -> Arc<str> {
        let password = password.clone();
        self.run(move || hash(&password)).await
    }

    /// Whether `password` is the one that `phc` was made from, as it is prepared or, for accounts
    /// from before, as it was typed. Two hashes only where those differ.
    pub async fn verify(&mut self, password: &Password, phc: String) -> bool {
        let password = password.clone();
        self.run(move || verify(&password, &phc)).await
    }

    /// Runs `work` when it is its turn. The turn ends with the work, not with the wait for
    /// it: clients that hang up cannot have more of it done at once.
    async fn run<T: Send + 'static>(&mut self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let turn = self.threads.clone().acquire_owned().await.expect("never closed");
        let working = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            yield_to_others();
            work()
        });
        match working.await {
            Ok(result) => result,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        }
    }
}

/// Hashes on this thread: for `seed`, which needs one hash.
pub fn hash(password: &Password) -> Arc<str> {
    argon2id()
        .hash_password(password.0.expose_secret().as_bytes())
        .expect("the parameters are valid and the system has randomness")
        .to_string()
        .into()
}

fn verify(password: &Password, phc: &str) -> bool {
    let Ok(phc) = PasswordHash::new(phc) else {
        tracing::error!("a stored password hash is not a PHC string");
        return false;
    };
    let is_right = |password: &Password| {
        argon2id().verify_password(password.0.expose_secret().as_bytes(), &phc).is_ok()
    };
    let prepared = password.prepared().ok();
    let differs =
        prepared.as_ref().is_none_or(|it| it.0.expose_secret() != password.0.expose_secret());
    prepared.is_some_and(|it| is_right(&it)) || (differs && is_right(password))
}

/// 19 MiB, two passes, one lane: the first choice of OWASP's password storage cheat sheet.
fn argon2id() -> Argon2<'static> {
    let params = Params::new(19 * 1024, 2, 1, None).expect("valid parameters");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// Lowers this thread's priority; on systems that know only processes, or forbid it, all
/// stays as it was.
fn yield_to_others() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::setpriority_process(None, NICENESS);
}

/// Counts a place as taken for as long as it lives.
#[derive(Debug)]
struct WaitingGuard(Gauge);

impl Drop for WaitingGuard {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(text: &str) -> Password {
        Password::parse(text.into()).unwrap()
    }

    #[test]
    fn a_password_is_bounded_and_free_of_control_characters() {
        let longest = "п".repeat(512);
        let too_long = "x".repeat(1025);
        for (text, expected) in [
            ("secret", None),
            ("with space inside", None),
            (longest.as_str(), None),
            ("", Some(InvalidPassword::Empty)),
            (too_long.as_str(), Some(InvalidPassword::TooLong)),
            ("a\tb", Some(InvalidPassword::ControlCharacter)),
            ("secret ", Some(InvalidPassword::OuterSpace)),
        ] {
            assert_eq!(Password::parse(text.into()).err(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_password_is_the_same_whatever_it_is_typed_on() {
        for (typed, prepared) in [
            ("secret", "secret"),
            ("пароль", "пароль"),
            ("e\u{301}", "é"),
            ("a\u{a0}b\u{3000}c", "a b c"),
            ("\u{1100}\u{1161}", "가"),
            // Case and width count, and so does what is not in the profile's Unicode yet.
            ("Ａa", "Ａa"),
            ("☠ 😀", "☠ 😀"),
            ("\u{1fae0}", "\u{1fae0}"),
            ("👍\u{1f3fd}", "👍\u{1f3fd}"),
        ] {
            let password = password(typed).prepared().unwrap();
            assert_eq!(password.0.expose_secret(), prepared, "{typed:?}");
            let again = password.prepared().unwrap();
            assert_eq!(again.0.expose_secret(), prepared, "{typed:?}");
        }
        for forbidden in
            ["a\u{200b}b", "a\u{202e}b", "a\u{ad}b", "\u{feff}ab", "\u{115f}", "a\u{fffe}"]
        {
            assert_eq!(password(forbidden).prepared().err(), Some(InvalidPassword::Forbidden));
        }
    }

    #[test]
    fn a_password_from_before_is_right_as_it_was_typed() {
        for typed in ["e\u{301}", "a\u{a0}b", "a\u{200b}b"] {
            let phc = hash(&password(typed));
            assert!(verify(&password(typed), &phc), "{typed:?}");
            assert!(!verify(&password("é"), &phc), "{typed:?}");
        }
        let phc = hash(&password("é").prepared().unwrap());
        for (typed, right) in [("é", true), ("e\u{301}", true), ("e", false)] {
            assert_eq!(verify(&password(typed), &phc), right, "{typed:?}");
        }
    }

    #[test]
    fn a_password_is_as_long_as_what_is_hashed() {
        let decomposed = "e\u{301}".repeat(400);
        assert_eq!(decomposed.len(), 1200);
        // Composed, this letter is two, of twice as many bytes.
        let growing = "\u{958}".repeat(341);
        assert_eq!(growing.len(), 1023);
        assert_eq!(Password::parse(growing.into()).err(), Some(InvalidPassword::TooLong));
        assert!(Password::parse(decomposed.into()).is_ok());
        let too_long = Password::parse("e\u{301}".repeat(513).into());
        assert_eq!(too_long.err(), Some(InvalidPassword::TooLong));
    }

    #[test]
    fn a_password_verifies_only_against_its_own_hash_to_the_last_byte() {
        let long = "x".repeat(100);
        let phc = hash(&password(&long));
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
        assert!(verify(&password(&long), &phc));
        assert!(!verify(&password(&format!("{}y", &long[1..])), &phc));
        assert!(!verify(&password(&long[..72]), &phc));
        assert!(!verify(&password(&long), "not a hash"));
    }

    #[tokio::test]
    async fn a_full_hashing_queue_refuses_at_once_and_recovers() {
        let hasher = Hasher::new(1, 1);
        let first = hasher.place().unwrap();
        let second = hasher.place().unwrap();
        assert_eq!(hasher.place().err(), Some(HashingQueueFull));
        drop(first);
        let mut third = hasher.place().unwrap();
        drop(second);
        let phc = third.hash(&password("secret")).await;
        assert!(third.verify(&password("secret"), phc.to_string()).await);
    }

    #[test]
    fn a_password_is_not_shown_when_debugged() {
        assert!(!format!("{:?}", password("hunter2")).contains("hunter2"));
    }
}
