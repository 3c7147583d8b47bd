//! What the shop sells.

use std::fmt;
use std::sync::Arc;

/// The ten items and their prices in coins, as `migrations/` puts them on sale.
pub const CATALOGUE: [(&str, i64); 10] = [
    ("t-shirt", 80),
    ("cup", 20),
    ("book", 50),
    ("pen", 10),
    ("powerbank", 200),
    ("hoody", 300),
    ("umbrella", 200),
    ("socks", 10),
    ("wallet", 50),
    ("pink-hoody", 500),
];

/// A name that an item could have: 1 to 64 lowercase ASCII letters, digits and hyphens.
/// Whether it is on sale, the ledger says.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ItemName(Arc<str>);

impl ItemName {
    /// The longest name, in characters.
    pub const MAX_CHARS: usize = 64;

    /// The name that `text` spells; `None` if no item can be called that.
    pub fn parse(text: &str) -> Option<ItemName> {
        let fits = (1..=Self::MAX_CHARS).contains(&text.len());
        let spelled = text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
        (fits && spelled).then(|| ItemName(text.into()))
    }

    /// The name as paths, answers and the table `merch` spell it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ItemName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_name_is_lowercase_and_hyphenated() {
        for (name, _) in CATALOGUE {
            assert!(ItemName::parse(name).is_some(), "{name}");
        }
        let too_long = "x".repeat(65);
        for text in ["", "t_shirt", "T-shirt", "cup ", "c\0p", "кружка", &too_long] {
            assert_eq!(ItemName::parse(text), None, "{text:?}");
        }
    }
}
