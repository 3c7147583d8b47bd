//! Limits: how much each client may ask for.
//!
//! - [`bucket`]: the token bucket, pure.
//! - [`headers`]: what a client is told of it.
//! - [`key`]: who a client is.
//! - [`table`]: the buckets that are held, bounded.
//! - [`limiter`]: puts them together and decides.
//!
//! Nothing here knows of a proxy or of the shop: the gateway mounts a [`Limiter`], and so can
//! `serve`.

pub mod bucket;
pub mod headers;
pub mod key;
pub mod limiter;
mod table;

pub use bucket::{Decision, InvalidLimit, Limit};
pub use key::{ClientId, ClientKey, InvalidClientId, KeyBy, Subjects};
pub use limiter::{Limiter, LimiterOptions};
