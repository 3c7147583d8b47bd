//! Who a client is: what its bucket is found by, and what its own limit is named by.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ::http::{HeaderMap, HeaderName};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::nat64::Nat64;

use crate::web::bearer::Credentials;

/// The longest name of a client, in bytes; who comes with a longer one goes by its address.
pub const MAX_NAME: usize = 255;

/// The longest token that is looked at, in bytes.
const MAX_TOKEN: usize = 4096;

/// What a client's bucket is found by. Addresses and names never meet, even where they are
/// spelled alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientKey(Kind);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Kind {
    V4(u32),
    /// The upper half: whoever has one address of a /64 has all of them.
    V6(u64),
    Name(Box<str>),
}

impl ClientKey {
    /// The client at `address`: IPv4 alone, IPv6 together with its /64, and IPv4 in IPv6's
    /// clothes (`::ffff:192.0.2.1`) as IPv4.
    pub fn address(address: IpAddr) -> ClientKey {
        ClientKey(match address.to_canonical() {
            IpAddr::V4(address) => Kind::V4(address.to_bits()),
            IpAddr::V6(address) => Kind::V6((address.to_bits() >> 64) as u64),
        })
    }

    /// The client that `name` stands for: a token's subject or a header's value. A name that
    /// can be read as an address is spelled as [`ClientId`] has it, or a limit of its own
    /// would never find it.
    pub fn name(name: &str, nat64: &Nat64) -> ClientKey {
        ClientKey(Kind::Name(address(name, nat64).map_or_else(|| name.into(), spelling)))
    }
}

/// One spelling a key: `a:203.0.113.7`, `a:2001:db8::/64` or `n:alice`.
impl fmt::Display for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::V4(bits) => write!(f, "a:{}", Ipv4Addr::from_bits(*bits)),
            Kind::V6(bits) => write!(f, "a:{}/64", Ipv6Addr::from_bits(u128::from(*bits) << 64)),
            Kind::Name(name) => write!(f, "n:{name}"),
        }
    }
}

/// What clients are told apart by.
pub enum KeyBy {
    /// The address that a request comes from.
    Address,
    /// The subject of a token in `Authorization` that [`Subjects`] believes, else the address.
    Subject(Box<Subjects>),
    /// The value of a header, else the address. Only as good as whoever sets the header.
    Header(HeaderName),
}

impl KeyBy {
    /// By the header of this name; `None` if no header can have it.
    pub fn header(name: &str) -> Option<KeyBy> {
        HeaderName::from_bytes(name.as_bytes()).ok().map(KeyBy::Header)
    }

    /// The key of a request with `headers` that comes from `address`, where those of `nat64` are
    /// clients of IPv4. A token that is not
    /// believed, a header that is missing, empty, given twice or too long: the address is
    /// the key, so that inventing them neither escapes a limit nor drains another's bucket.
    pub fn key(&self, nat64: &Nat64, address: IpAddr, headers: &HeaderMap) -> ClientKey {
        let name = match self {
            KeyBy::Address => None,
            KeyBy::Subject(subjects) => {
                subjects.subject(headers).map(|name| ClientKey::name(&name, nat64))
            }
            KeyBy::Header(header) => only(headers, header).map(|name| ClientKey::name(name, nat64)),
        };
        name.unwrap_or_else(|| ClientKey::address(nat64.client(address)))
    }
}

/// Believes tokens: JWT, HS256, signed with one of its secrets, not expired.
pub struct Subjects {
    keys: Vec<DecodingKey>,
    validation: Validation,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
}

impl Subjects {
    /// Believes tokens that were signed with `secret`, or during a rotation with `previous`.
    pub fn new(secret: &SecretString, previous: Option<&SecretString>) -> Subjects {
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_required_spec_claims(&["sub", "exp"]);
        // Whom a token is meant for is for the backend to say.
        validation.validate_aud = false;
        validation.leeway = 0;
        let key =
            |secret: &SecretString| DecodingKey::from_secret(secret.expose_secret().as_bytes());
        let keys = std::iter::once(secret).chain(previous).map(key).collect();
        Subjects { keys, validation }
    }

    fn subject(&self, headers: &HeaderMap) -> Option<String> {
        let token = Credentials::of(headers).token().filter(|token| token.len() <= MAX_TOKEN)?;
        let verified = |key| jsonwebtoken::decode::<Claims>(token, key, &self.validation).ok();
        let subject = self.keys.iter().find_map(verified)?.claims.sub;
        (1..=MAX_NAME).contains(&subject.len()).then_some(subject)
    }
}

/// The value of a header that is there once and can be a name.
fn only<'a>(headers: &'a HeaderMap, header: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(header).iter();
    let value = values.next()?.to_str().ok()?;
    (values.next().is_none() && (1..=MAX_NAME).contains(&value.len())).then_some(value)
}

/// What a limit of one's own is named by, in one spelling.
///
/// Everything that can be read as an address is one: `203.0.113.7`, with a port
/// (`203.0.113.7:890`, `[2001:db8::1]:890`, whose port is ignored), `2001:db8::1`, which is
/// `2001:db8::/64`, or that itself. Anything else is a name, kept as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId {
    text: Box<str>,
    address: Option<IpAddr>,
}

/// The text cannot name a client; `Display` is meant for whoever sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("client_id must be 1 to {MAX_NAME} bytes without control characters")]
pub struct InvalidClientId;

impl ClientId {
    /// The client that `text` names, where addresses of `nat64` are clients of IPv4.
    pub fn parse(text: &str, nat64: &Nat64) -> Result<ClientId, InvalidClientId> {
        if !(1..=MAX_NAME).contains(&text.len()) || text.chars().any(char::is_control) {
            return Err(InvalidClientId);
        }
        let address = address(text, nat64);
        Ok(ClientId { text: address.map_or_else(|| text.into(), spelling), address })
    }

    /// The one spelling.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The keys that the limit applies to. An address is also what a header or a token may
    /// say, as in `X-Real-IP`; as a name it has a bucket of its own.
    pub fn keys(&self) -> impl Iterator<Item = ClientKey> {
        let address = self.address.map(ClientKey::address);
        address.into_iter().chain([ClientKey(Kind::Name(self.text.clone()))])
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The address that `text` can be read as: the same one for all spellings of one client.
fn address(text: &str, nat64: &Nat64) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let prefix = || text.strip_suffix("/64")?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let one: Option<IpAddr> = bare.parse().ok().or_else(with_port);
    let address = one.map(|address| nat64.client(address)).or_else(prefix)?;
    Some(match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        // Its /64, so that all of them are equal.
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    })
}

/// The one spelling of what [`address`] found.
fn spelling(address: IpAddr) -> Box<str> {
    match address {
        IpAddr::V4(address) => address.to_string().into(),
        IpAddr::V6(prefix) => format!("{prefix}/64").into(),
    }
}

#[cfg(test)]
mod tests;
