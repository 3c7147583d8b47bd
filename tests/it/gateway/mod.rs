//! The gateway, with real servers behind it.

mod admin;
mod upstreams;
