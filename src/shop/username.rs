//! Usernames, as the contract admits them.

use std::fmt;
use std::sync::Arc;

/// A name an account can have: 1 to 255 characters, none of them a control character,
/// with no white space at either end. Two names are the same only if every character is.
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
}

impl Username {
    /// The longest name, in characters.
    pub const MAX_CHARS: usize = 255;

    /// The name that `text` spells, or the first rule it breaks.
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

    /// The name, character for character as it was typed.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_username_is_taken_to_the_letter_or_refused() {
        let longest = "я".repeat(255);
        let too_long = "я".repeat(256);
        for (text, expected) in [
            ("alice", Ok("alice")),
            ("Alice", Ok("Alice")),
            ("анна мария", Ok("анна мария")),
            ("😀", Ok("😀")),
            (longest.as_str(), Ok(longest.as_str())),
            ("", Err(InvalidUsername::Empty)),
            (too_long.as_str(), Err(InvalidUsername::TooLong)),
            ("a\0b", Err(InvalidUsername::ControlCharacter)),
            ("a\nb", Err(InvalidUsername::ControlCharacter)),
            ("a\u{85}b", Err(InvalidUsername::ControlCharacter)),
            (" alice", Err(InvalidUsername::OuterSpace)),
            ("alice\u{a0}", Err(InvalidUsername::OuterSpace)),
        ] {
            let parsed = Username::parse(text);
            assert_eq!(parsed.as_ref().map(Username::as_str), expected.as_ref().copied());
        }
    }
}
