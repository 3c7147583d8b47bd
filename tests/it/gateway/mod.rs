//! The gateway between raw clients and raw backends.

pub mod admin;
mod bodies;
mod connections;
mod endings;
mod failures;
mod heads;
mod http2;
mod limits;
mod observe;
mod operation;
mod program;
mod replicas;
mod retries;
mod shared_limits;
mod smuggling;
mod tls;
mod upgrade;
pub mod upstreams;
mod via;
