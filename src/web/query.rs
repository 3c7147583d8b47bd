//! What stands after the question mark.

use serde::{Deserialize, Deserializer, de};

/// A number of digits and nothing else: no sign, no space.
pub fn digits<'de, D: Deserializer<'de>>(value: D) -> Result<Option<u16>, D::Error> {
    let text = String::deserialize(value)?;
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| is_number);
    number.map(Some).ok_or_else(|| de::Error::custom("not a number"))
}
