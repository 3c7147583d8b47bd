//! Usernames: what the contract admits, and how the names of new accounts are spelled.

use std::fmt;
use std::sync::Arc;

use precis_profiles::UsernameCasePreserved;
use precis_profiles::precis_core::profile::{Profile, Rules};
use precis_profiles::precis_core::{Error, UnexpectedError};
use unicode_bidi::{BidiClass, bidi_class};
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

/// A name an account can have: 1 to 255 characters, none of them a control character,
/// with no white space at either end. Two names are the same only if every character is; how
/// one name is spelled in more than one way, [`Username::canonical`] knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Username(Arc<str>);

/// Why a text is not a username; its `Display` is meant for the person who typed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUsername {
    /// There is not one character.
    #[error("username must not be empty")]
    Empty,
    /// There are more than [`Username::MAX_CHARS`] characters.
    #[error("username must be at most {} characters long", Username::MAX_CHARS)]
    TooLong,
    /// A line break, NUL or another character of Unicode's category Cc is in it.
    #[error("username must not contain control characters")]
    ControlCharacter,
    /// White space, of any kind that Unicode knows, is at either end.
    #[error("username must not start or end with a space")]
    OuterSpace,
    /// Two spaces follow each other. Accounts from before may have such a name.
    #[error("username must not contain two spaces in a row")]
    DoubleSpace,
    /// RFC 8265 keeps this character out of names. Accounts from before may have it.
    #[error(
        "username must not contain U+{:04X}: a new name is made of letters and digits of any \
         script, single spaces and the signs of ASCII; emoji, other signs and what is invisible \
         are not among them",
        u32::from(*.0)
    )]
    Forbidden(char),
    /// A word starts with a mark, which would be drawn on whatever stands before the name.
    /// Accounts from before may have such a name.
    #[error("username must not have U+{:04X}, a mark, without a letter before it", u32::from(*.0))]
    LooseMark(char),
    /// A word could be read in two orders. Accounts from before may have it.
    #[error(
        "each word of a username must read in one direction; one that is written from right to \
         left starts with a letter and ends with a letter or a digit"
    )]
    MixedDirections,
}

impl Username {
    /// The longest name, in characters.
    pub const MAX_CHARS: usize = 255;

    /// The name that `text` spells, character for character, or the first rule it breaks.
    pub fn parse(text: &str) -> Result<Username, InvalidUsername> {
        if text.is_empty() {
            Err(InvalidUsername::Empty)
        } else if text.chars().nth(Self::MAX_CHARS).is_some() {
            Err(InvalidUsername::TooLong)
        } else if text.chars().any(char::is_control) {
            Err(InvalidUsername::ControlCharacter)
        } else if text.trim() != text {
            Err(InvalidUsername::OuterSpace)
        } else {
            Ok(Username(text.into()))
        }
    }

    /// The name that somebody typed. A letter counts as one, however many code points it was
    /// typed with.
    pub fn typed(text: &str) -> Result<Username, InvalidUsername> {
        Username::parse(text).or_else(|error| match error {
            InvalidUsername::TooLong => Username::parse(&text.nfc().collect::<String>()),
            error => Err(error),
        })
    }

    /// How a new account spells this name: words of RFC 8265's UsernameCasePreserved, a space
    /// between two (its section 3.5), or why no new account can have it. Spellings that are
    /// one name become the same.
    pub fn canonical(&self) -> Result<Username, InvalidUsername> {
        if self.0.contains("  ") {
            return Err(InvalidUsername::DoubleSpace);
        }
        if self.0.is_ascii() {
            return Ok(self.clone());
        }
        // First composed: the profile knows no conjoining jamo, which is how some keyboards
        // and file systems spell Korean.
        let composed: String = self.0.nfc().collect();
        let profile = UsernameCasePreserved::new();
        let mapped = profile.width_mapping_rule(composed).map_err(|error| why(&error))?;
        let mut name = String::with_capacity(mapped.len());
        for word in mapped.split(' ') {
            if word.is_empty() {
                return Err(InvalidUsername::DoubleSpace);
            }
            let word: String = profile.prepare(word).map_err(|error| why(&error))?.nfc().collect();
            if let Some(mark) = word.chars().next().filter(|it| is_combining_mark(*it)) {
                return Err(InvalidUsername::LooseMark(mark));
            }
            if !has_one_direction(&word) {
                return Err(InvalidUsername::MixedDirections);
            }
            if !name.is_empty() {
                name.push(' ');
            }
            name.push_str(&word);
        }
        Username::parse(&name)
    }

    /// The name, character for character as it was typed.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What the profile found fault with.
fn why(error: &Error) -> InvalidUsername {
    let code_point = match error {
        Error::BadCodepoint(at)
        | Error::Unexpected(
            UnexpectedError::ContextRuleNotApplicable(at) | UnexpectedError::MissingContextRule(at),
        ) => at.cp,
        _ => u32::from(char::REPLACEMENT_CHARACTER),
    };
    InvalidUsername::Forbidden(char::from_u32(code_point).unwrap_or(char::REPLACEMENT_CHARACTER))
}

/// The Bidi rule of RFC 5893, section 2, for words with something from right to left in them.
/// The profile's own refuses vowel signs in the middle of a word.
fn has_one_direction(word: &str) -> bool {
    use BidiClass::{AL, AN, BN, CS, EN, ES, ET, NSM, ON, R};
    let classes: Vec<BidiClass> = word.chars().map(bidi_class).collect();
    if !classes.iter().any(|class| matches!(class, R | AL | AN)) {
        return true;
    }
    let last = classes.iter().rfind(|class| **class != NSM);
    let (has_latin, has_arabic) = (classes.contains(&EN), classes.contains(&AN));
    matches!(classes.first(), Some(R | AL))
        && classes.iter().all(|it| matches!(it, R | AL | AN | EN | ES | CS | ET | ON | BN | NSM))
        && matches!(last, Some(R | AL | EN | AN))
        && !(has_latin && has_arabic)
}

impl fmt::Display for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests;
