//! The gateway, with real servers behind it.

mod upstreams;
