//! Limits: how much each client may ask for.
//!
//! - [`bucket`]: the token bucket, pure.
//! - [`headers`]: what a client is told of it.
//! - [`key`]: who a client is.
//! - `nat64`: which addresses of IPv6 are clients of IPv4.
//! - `table`: the buckets that are held, bounded.
//! - [`link`]: a Redis that is there or known to be away; `shared`, the buckets in it.
//! - [`limiter`]: puts them together and decides.
//! - [`store`]: where limits of clients' own are kept; [`own`], how they come into force.
//!
//! Nothing here knows of a proxy or of the shop: the gateway mounts a [`Limiter`], and so can
//! `serve`.

pub mod bucket;
mod gate;
pub mod headers;
pub mod key;
pub mod limiter;
pub mod link;
mod nat64;
pub mod own;
mod shared;
pub mod store;
mod table;

pub use bucket::{Decision, InvalidLimit, Limit};
pub use gate::Gate;
pub use key::{ClientId, ClientKey, InvalidClientId, KeyBy, Subjects};
pub use limiter::{Limiter, LimiterOptions};
pub use link::Link;
pub use nat64::Nat64;
pub use own::{OwnLimits, OwnLimitsError};
pub use store::{Change, LimitsFile, Store, StoreError};
