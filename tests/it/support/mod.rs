//! What tests are written with.

pub mod backend;
pub mod browser;
pub mod database;
pub mod gateway;
pub mod http2;
pub mod person;
pub mod pgbouncer;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod redis;
pub mod shop;
pub mod token;

use std::time::{Duration, Instant};

pub use backend::{Act, Backend};
pub use database::TestDatabase;
pub use gateway::TestGateway;
pub use person::{Person, Reply};
pub use process::Process;
pub use redis::TestRedis;
pub use shop::TestShop;

/// The longest that anything which must come true may take to.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks again and again until `what` is so.
pub async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let since = Instant::now();
    while !is_so().await {
        assert!(since.elapsed() < PATIENCE, "never came true: {what}");
        tokio::task::yield_now().await;
    }
}
