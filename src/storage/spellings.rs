//! Which account a name means, where names are spelled in more ways than one.

use crate::shop::{AccountId, Username};

/// A name that somebody typed, and how the account that it means may be spelled.
#[derive(Clone, Debug)]
pub(super) struct Spellings {
    typed: Username,
    canonical: Option<Username>,
}

/// How far a spelling is from the one that was typed; accounts that are equally far apart are
/// told apart by their age.
pub(super) type Distance = (u8, AccountId);

impl Spellings {
    pub fn of(typed: &Username) -> Spellings {
        Spellings { typed: typed.clone(), canonical: typed.canonical().ok() }
    }

    /// As it was typed.
    pub fn typed(&self) -> &Username {
        &self.typed
    }

    /// As new accounts spell it, if one could have it. Accounts from before that mean the same
    /// have it as their NFKC.
    pub fn canonical(&self) -> Option<&Username> {
        self.canonical.as_ref()
    }

    /// The spellings to look for, each once.
    pub fn texts(&self) -> Vec<&str> {
        let canonical = self.canonical.as_ref().filter(|it| **it != self.typed);
        [Some(&self.typed), canonical].into_iter().flatten().map(Username::as_str).collect()
    }

    /// How far `username`, which `account` is called, is from what was typed; `None`: it is
    /// another name.
    pub fn distance(&self, account: AccountId, username: &Username) -> Option<Distance> {
        if *username == self.typed {
            return Some((0, account));
        }
        let canonical = self.canonical.as_ref()?;
        if username == canonical {
            return Some((1, account));
        }
        (username.canonical().as_ref() == Ok(canonical)).then_some((2, account))
    }
}
