//! What tests are written with.

use std::time::Duration;

use tokio::time::{interval, timeout};

pub mod database;
pub mod person;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod shop;

pub use database::TestDatabase;
pub use person::{Person, Reply};
pub use process::Process;
pub use shop::TestShop;

/// Waits until `holds`, asking again and again; what takes a minute does not happen.
#[track_caller]
pub fn eventually<F: Future<Output = bool>>(
    what: &str,
    mut holds: impl FnMut() -> F,
) -> impl Future<Output = ()> {
    let asking = async move {
        let mut ticks = interval(Duration::from_millis(10));
        while !holds().await {
            ticks.tick().await;
        }
    };
    async move { timeout(Duration::from_secs(60), asking).await.expect(what) }
}
