//! Databases as they are found: their addresses, roles, settings, poolers, and what becomes of
//! them while a shop is running.

mod addresses;
mod failover;
mod pooler;
mod roles;
mod sessions;
mod settings;
