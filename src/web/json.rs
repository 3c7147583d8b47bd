//! Bodies in JSON.

use serde::de::{DeserializeOwned, Error};

/// The object that `bytes` spell. serde alone would also take the fields' values in an array, which
/// no contract mentions.
pub fn object<T: DeserializeOwned>(bytes: &[u8]) -> serde_json::Result<T> {
    if bytes.trim_ascii_start().first() != Some(&b'{') {
        return Err(Error::custom("not a JSON object"));
    }
    serde_json::from_slice(bytes)
}
