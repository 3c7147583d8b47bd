//! What all servers here have in common. How the head of a request is read: which host and
//! path it is for, who asks, where it comes from; the shop, the gateway, its limits and its
//! admin API read it alike. And how what is the same for everybody is sent.

pub mod bearer;
pub mod cors;
pub mod docs;
pub mod document;
pub mod forwarded;
pub mod json;
pub mod list;
pub mod path;
pub mod query;
pub mod representation;
mod request_id;
mod target;

use ::http::header::{AUTHORIZATION, HeaderMap};
use ::http::{Method, Uri, Version};

pub use request_id::{REQUEST_ID, request_id};

/// Why the head of a request is not taken for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// Not exactly one host, or one that is none (RFC 9112, 3.2).
    Host,
    /// Neither a path, nor the star of OPTIONS, nor the host of CONNECT.
    Target,
    /// Two servers could each believe another one.
    Authorization,
}

impl Unfit {
    /// The same for the client.
    pub fn message(self) -> &'static str {
        match self {
            Unfit::Host => "exactly one valid Host is required",
            Unfit::Target => "the request's target is not a path",
            Unfit::Authorization => "Authorization must be given once",
        }
    }
}

/// Refuses a head that two servers could read differently.
pub fn admit(
    method: &Method,
    uri: &Uri,
    version: Version,
    headers: &HeaderMap,
) -> Result<(), Unfit> {
    target::check(method, uri, version, headers)?;
    match headers.get_all(AUTHORIZATION).iter().nth(1) {
        None => Ok(()),
        Some(_) => Err(Unfit::Authorization),
    }
}
