//! Limits: shared by gateways, kept in stores, changed by operators, mounted by a shop.

mod admin;
#[cfg(target_os = "linux")]
mod memory;
mod migrating;
mod own;
mod shared;
mod shop;

use std::net::{IpAddr, Ipv4Addr};

use merch_store::limits::{ClientKey, Limit, Limiter, LimiterOptions, Link, Nat64};

fn limit(capacity: u32, rate_per_sec: u32) -> Limit {
    Limit::new(capacity, rate_per_sec).unwrap()
}

/// A gateway's limiter.
pub fn limiter(default: Option<Limit>, shared: Option<Link>) -> Limiter {
    Limiter::new(LimiterOptions { default, most_keys: 10_000, shared, nat64: Nat64::default() })
}

/// Somebody with an address of their own.
fn client(number: u8) -> ClientKey {
    ClientKey::address(IpAddr::V4(Ipv4Addr::new(203, 0, 113, number)))
}
