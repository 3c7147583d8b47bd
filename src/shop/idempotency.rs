//! Idempotency keys: a client's promise that two requests are the same one.

use std::sync::Arc;

/// A client's name for one request: 1 to 255 printable ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdempotencyKey(Arc<str>);

/// The text is not an idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Idempotency-Key must be 1 to 255 printable ASCII characters")]
pub struct InvalidIdempotencyKey;

impl IdempotencyKey {
    /// The key that the header's bytes spell.
    pub fn parse(bytes: &[u8]) -> Result<IdempotencyKey, InvalidIdempotencyKey> {
        let printable = bytes.iter().all(|byte| matches!(byte, b' '..=b'~'));
        match std::str::from_utf8(bytes) {
            Ok(text) if printable && (1..=255).contains(&text.len()) => {
                Ok(IdempotencyKey(text.into()))
            }
            _ => Err(InvalidIdempotencyKey),
        }
    }

    /// The header's value, character for character.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A digest of what a request asks for: the same key with another digest is a mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_printable_ascii_of_bounded_length() {
        let longest = "k".repeat(255);
        let too_long = "k".repeat(256);
        for (bytes, valid) in [
            (b"a".as_slice(), true),
            (b"0b9f-17 {}~", true),
            (longest.as_bytes(), true),
            (b"", false),
            (too_long.as_bytes(), false),
            (b"tab\there", false),
            ("ключ".as_bytes(), false),
            (b"\xff", false),
        ] {
            assert_eq!(IdempotencyKey::parse(bytes).is_ok(), valid, "{bytes:?}");
        }
    }
}
