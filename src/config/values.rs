//! How values are written: in a file, in the environment and in flags alike.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use secrecy::SecretString;
use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// `text` as errors show it, in quotes.
pub fn shown(text: &str) -> String {
    format!("{:?}", without_userinfo(text))
}

/// `text` without what stands before an @, where URLs have their passwords.
pub fn without_userinfo(text: &str) -> Cow<'_, str> {
    match text.rsplit_once('@') {
        Some((before, after)) => {
            let scheme = before.find("://").filter(|end| is_scheme(&before[..*end]));
            let scheme = scheme.map_or("", |end| &before[..end + "://".len()]);
            format!("{scheme}...@{after}").into()
        }
        None => text.into(),
    }
}

/// RFC 3986, 3.1; half of a password may stand before a colon, too.
fn is_scheme(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// A switch: a word that is none is not repeated as it stands.
pub fn switch<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Switch(bool),
        Number(i64),
        Word(String),
    }
    let word = match Written::deserialize(value) {
        Ok(Written::Switch(switch)) => return Ok(switch),
        Ok(Written::Number(number)) => number.to_string(),
        Ok(Written::Word(word)) => word,
        Err(_) => return Err(D::Error::custom("it is neither true nor false")),
    };
    match word.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "on" | "yes" => Ok(true),
        "0" | "false" | "off" | "no" => Ok(false),
        _ => Err(D::Error::custom(format!("{} is neither true nor false", shown(&word)))),
    }
}

/// An address to listen on, as IP:PORT.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    text.parse().map_err(|_| {
        let port = text.rsplit(':').next().filter(|port| port.parse::<u16>().is_ok());
        let port = port.unwrap_or("8080");
        format!(
            "{} is not IP:PORT, such as 127.0.0.1:{port} (this machine alone), \
             0.0.0.0:{port} (everybody) or [::1]:{port}",
            shown(text)
        )
    })
}

pub fn listening_address<'de, D: Deserializer<'de>>(value: D) -> Result<SocketAddr, D::Error> {
    address(&String::deserialize(value)?).map_err(D::Error::custom)
}

pub fn address_unless_empty<'de, D: Deserializer<'de>>(
    value: D,
) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(value)?;
    if text.trim().is_empty() {
        return Ok(None);
    }
    address(&text).map(Some).map_err(D::Error::custom)
}

/// A list in a file; in the environment and in flags, items with commas between them.
pub fn list<'de, D, T>(value: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err = String>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        List(Vec<String>),
        Text(String),
    }
    let items = match Written::deserialize(value)? {
        Written::List(items) => items,
        Written::Text(text) => text.split(',').map(str::to_owned).collect(),
    };
    // A comma in a password leaves its halves in two items, one of them with no @ behind it.
    let is_safe = items.len() == 1 || !items.iter().any(|item| item.contains('@'));
    let given = items.iter().map(|item| item.trim()).filter(|item| !item.is_empty());
    let parsed = given.map(|item| {
        item.parse().map_err(|why| match is_safe {
            true => why,
            false => {
                "an item that cannot be used, not shown because of an @ in the list".to_owned()
            }
        })
    });
    parsed.collect::<Result<_, _>>().map_err(Error::custom)
}

/// A setting that has one of a few values.
pub trait Choice: Copy + 'static {
    /// What it is written as, and what that is.
    const CHOICES: &[(&str, Self)];
}

/// One of a few values, however it is capitalised.
pub fn choice<'de, D: Deserializer<'de>, T: Choice>(value: D) -> Result<T, D::Error> {
    let text = String::deserialize(value)?;
    let chosen = T::CHOICES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text.trim()));
    chosen.map(|(_, chosen)| *chosen).ok_or_else(|| {
        let names: Vec<&str> = T::CHOICES.iter().map(|(name, _)| *name).collect();
        D::Error::custom(format!("{} is none of {}", shown(&text), names.join(", ")))
    })
}

pub fn milliseconds<'de, D: Deserializer<'de>>(value: D) -> Result<Duration, D::Error> {
    NonZeroU64::deserialize(value).map(|number| Duration::from_millis(number.get()))
}

pub fn milliseconds_or_none<'de, D: Deserializer<'de>>(value: D) -> Result<Duration, D::Error> {
    u64::deserialize(value).map(Duration::from_millis)
}

pub fn seconds<'de, D: Deserializer<'de>>(value: D) -> Result<Duration, D::Error> {
    NonZeroU64::deserialize(value).map(|number| Duration::from_secs(number.get()))
}

pub fn secret_unless_empty<'de, D: Deserializer<'de>>(
    value: D,
) -> Result<Option<SecretString>, D::Error> {
    let text = String::deserialize(value)?;
    Ok((!text.is_empty()).then(|| text.into()))
}

pub fn path_unless_empty<'de, D: Deserializer<'de>>(value: D) -> Result<Option<PathBuf>, D::Error> {
    let text = String::deserialize(value)?;
    Ok((!text.is_empty()).then(|| text.into()))
}
