//! The gateway's admin API.

pub mod limits;
