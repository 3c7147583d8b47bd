//! The gateway: in front of any number of replicas, or of any HTTP backends.

pub mod admin;
