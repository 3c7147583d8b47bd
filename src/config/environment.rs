//! What the environment may hold: text, and no emptiness where that would mean another shop.

use std::ffi::OsString;

use super::InvalidConfig;

/// What every setting in the environment begins with, in any case.
const PREFIX: &[u8] = b"MERCH__";

/// What says which shop is meant: empty, as `$UNSET` is, it would be the one in ./data.
const SAYS_WHICH_SHOP: [&str; 2] = ["MERCH__DATABASE__URL", "MERCH__DATA_DIR"];

/// Refuses settings that are not text or that say which shop is meant and are empty, by name: what
/// was meant cannot be guessed, and a path of other bytes would become another path. Values are
/// not repeated, because some are secrets.
pub(super) fn check(
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<(), InvalidConfig> {
    for (key, value) in variables {
        let bytes = key.as_encoded_bytes();
        let is_ours = bytes.get(..PREFIX.len()).is_some_and(|it| it.eq_ignore_ascii_case(PREFIX));
        if is_ours && (key.to_str().is_none() || value.to_str().is_none()) {
            let why = "it is not UTF-8; flags take such paths as they are";
            return Err(InvalidConfig::new(&key.to_string_lossy(), why));
        }
        let says_which = SAYS_WHICH_SHOP.iter().any(|it| key.eq_ignore_ascii_case(it));
        if says_which && value.is_empty() {
            let why = "it is empty; give it a value, or unset it";
            return Err(InvalidConfig::new(&key.to_string_lossy(), why));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn a_variable_that_says_which_shop_is_meant_is_not_empty() {
        for (key, value, good) in [
            ("MERCH__DATABASE__URL", "", false),
            ("merch__database__url", "", false),
            ("MERCH__DATA_DIR", "", false),
            ("MERCH__DATA_DIR", "data", true),
            ("MERCH__LOG__FILE", "", true),
            ("DATA_DIR", "", true),
        ] {
            let checked = check([(key.into(), value.into())]).map_err(|error| error.to_string());
            assert_eq!(checked.is_ok(), good, "{key}={value}");
            assert!(checked.err().is_none_or(|said| said.starts_with(key)), "{key}={value}");
        }
    }

    #[test]
    fn settings_that_are_no_text_are_refused_by_name_and_not_repeated() {
        let text = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        for (key, value, good) in [
            (&b"MERCH__DATA_DIR"[..], &b"/srv/caf\xc3\xa9"[..], true),
            (b"MERCH__DATA_DIR", b"/srv/caf\xe9", false),
            (b"merch__auth__jwt_secret", b"hunter2\xff", false),
            (b"MERCH__LOG__\xff", b"1", false),
            (b"PATH", b"/srv/caf\xe9", true),
            (b"MERCH", b"\xff", true),
        ] {
            let refused = check([(text(key), text(value))]);
            assert_eq!(refused.is_ok(), good, "{:?}", text(key));
            if let Err(error) = refused {
                let (said, key) = (error.to_string(), text(key));
                assert!(said.starts_with(&*key.to_string_lossy()), "{said}");
                assert!(!said.contains("hunter2"), "{said}");
            }
        }
    }
}
