//! The link to a Redis that several gateways share: there, or known to be away.
//!
//! While it is away nobody waits for it. The one request that finds out waits for the time
//! limit at most, and those under way with it are let go at the same moment; a task of its
//! own, not the requests, tries whether it is back.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use metrics::gauge;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisResult};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Requests under way at once; more wait, and all of them no longer than they may.
const IN_FLIGHT: usize = 1024;

/// How long connecting may take, and the first question on a new connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long to wait before trying again: half of it at first on average, doubled each time
/// up to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// How often to make sure that it is still there, so that seldom a request has to find out.
const HEARTBEAT: Duration = Duration::from_millis(250);

/// A handle to the link; clones share it.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    client: Client,
    /// How long a request may wait for its answer.
    patience: Duration,
    live: RwLock<Option<Arc<Live>>>,
}

/// A connection that answered when it was last asked.
struct Live {
    connection: MultiplexedConnection,
    places: Semaphore,
    /// Cancelled by the first who gets no answer.
    broken: CancellationToken,
}

/// The URL is none of a Redis; `Display` does not repeat it, for it may hold a password.
#[derive(Debug, thiserror::Error)]
#[error("not a URL like redis://host:6379/0 or redis+unix:///path (TLS is not built in)")]
pub struct InvalidRedisUrl;

impl Link {
    /// A link to the Redis at `url`, away until [`Link::keep`] has found it. No request waits
    /// longer than `patience` for an answer.
    pub fn new(url: &str, patience: Duration) -> Result<Link, InvalidRedisUrl> {
        let client = Client::open(url).map_err(|_| InvalidRedisUrl)?;
        show(false);
        Ok(Link(Arc::new(Inner { client, patience, live: RwLock::new(None) })))
    }

    /// Whether it answered when it was last asked.
    pub fn is_up(&self) -> bool {
        self.live().is_some()
    }

    /// Asks; `None` if it is away, at once where that is known.
    pub async fn ask<T>(
        &self,
        question: impl AsyncFnOnce(MultiplexedConnection) -> RedisResult<T>,
    ) -> Option<T> {
        self.ask_within(self.0.patience, question).await
    }

    /// Asks, and waits for up to `patience`.
    pub async fn ask_within<T>(
        &self,
        patience: Duration,
        question: impl AsyncFnOnce(MultiplexedConnection) -> RedisResult<T>,
    ) -> Option<T> {
        let live = self.live()?;
        let asking = async {
            let _place = live.places.acquire().await.expect("never closed");
            question(live.connection.clone()).await
        };
        let answer = tokio::select! {
            answer = timeout(patience, asking) => answer,
            () = live.broken.cancelled() => return None,
        };
        let why = match answer {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => error.to_string(),
            Err(_elapsed) => "no answer in time".to_owned(),
        };
        self.give_up(&live, &why);
        None
    }

    /// Keeps up the link, forever: tries with growing, random pauses while it is away.
    pub async fn keep(&self) {
        let mut failures = 0;
        loop {
            match self.connect().await {
                Ok(live) => {
                    tracing::info!("Redis is there: buckets are shared");
                    failures = 0;
                    self.set(Some(live.clone()));
                    tokio::select! {
                        () = live.broken.cancelled() => {}
                        () = self.watch() => {}
                    }
                }
                // Not found at the start, and so nobody was told yet.
                Err(why) if failures == 0 => {
                    tracing::warn!(why, "Redis is away: buckets are this process's own");
                }
                Err(why) => tracing::debug!(why, "Redis is still away"),
            }
            sleep(pause(failures, rand::random())).await;
            failures += 1;
        }
    }

    /// Returns when a heartbeat finds that it is away.
    async fn watch(&self) {
        while self.ask(ping).await.is_some() {
            sleep(HEARTBEAT).await;
        }
    }

    async fn connect(&self) -> Result<Arc<Live>, String> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            // Ours are shorter, and end all requests under way together.
            .set_response_timeout(None)
            .set_pipeline_buffer_size(IN_FLIGHT);
        let connecting = async {
            let connection =
                self.0.client.get_multiplexed_async_connection_with_config(&config).await?;
            ping(connection.clone()).await?;
            RedisResult::Ok(connection)
        };
        let connection = timeout(CONNECT_TIMEOUT, connecting)
            .await
            .map_err(|_elapsed| "no answer in time".to_owned())?
            .map_err(|error| error.to_string())?;
        let (places, broken) = (Semaphore::new(IN_FLIGHT), CancellationToken::new());
        Ok(Arc::new(Live { connection, places, broken }))
    }

    fn live(&self) -> Option<Arc<Live>> {
        self.0.live.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, live: Option<Arc<Live>>) {
        show(live.is_some());
        *self.0.live.write().unwrap_or_else(PoisonError::into_inner) = live;
    }

    fn give_up(&self, live: &Live, why: &str) {
        if !live.broken.is_cancelled() {
            // In this order: whoever [`Link::keep`] wakes must not find it up.
            self.set(None);
            live.broken.cancel();
            tracing::warn!(why, "Redis is away: buckets are this process's own");
        }
    }
}

/// A question that only a server which can be written to answers.
async fn ping(mut connection: MultiplexedConnection) -> RedisResult<()> {
    let mut set = redis::cmd("SET");
    set.arg("merch-store:limits:probe").arg("").arg("PX").arg(1).query_async(&mut connection).await
}

/// How long to pause after so many `failures`: a random part, from 0 to 1, of a time that
/// doubles. Random from nothing on, so that many who lost it at once come back one by one.
fn pause(failures: u32, random: f64) -> Duration {
    let longest = FIRST_WAIT.saturating_mul(1 << failures.min(10)).min(LONGEST_WAIT);
    longest.mul_f64(random)
}

/// Says in the metrics whose buckets count.
pub(super) fn show(shared: bool) {
    gauge!("merch_limits_mode", "mode" => "shared").set(f64::from(u8::from(shared)));
    gauge!("merch_limits_mode", "mode" => "local").set(f64::from(u8::from(!shared)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_longest_and_are_random_from_nothing_on() {
        for (failures, longest) in [(0, 100), (1, 200), (4, 1600), (5, 2000), (u32::MAX, 2000)] {
            assert_eq!(pause(failures, 0.0), Duration::ZERO);
            assert_eq!(pause(failures, 0.5), Duration::from_millis(longest / 2));
            assert_eq!(pause(failures, 1.0), Duration::from_millis(longest));
        }
    }

    #[test]
    fn a_url_that_is_none_is_refused_without_repeating_it() {
        for url in ["", "localhost:6379", "http://host", "rediss://:hunter2@host"] {
            let error = Link::new(url, Duration::from_millis(50)).err().unwrap().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
