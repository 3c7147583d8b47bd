//! The limiter: finds a client's limit and its bucket, and decides.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use metrics::{Counter, Gauge, counter, gauge};
use tokio::time::Instant;

use super::bucket::{Bucket, Decision, Limit};
use super::key::{ClientId, ClientKey};
use super::link::{self, Link};
use super::nat64::Nat64;
use super::shared;
use super::table::Table;

/// What a limiter starts with.
pub struct LimiterOptions {
    /// The limit of clients without one of their own; `None`: they have none.
    pub default: Option<Limit>,
    /// Clients without a limit of their own whose buckets are held at once, about; the rest
    /// share one.
    pub most_keys: usize,
    /// Where buckets are shared with other gateways; `None`, and while it is away: nowhere.
    pub shared: Option<Link>,
    /// Whose addresses are those of clients of IPv4.
    pub nat64: Nat64,
}

/// Decides who may pass. Clones are handles to the same limiter.
#[derive(Clone)]
pub struct Limiter(Arc<Inner>);

struct Inner {
    rules: RwLock<Rules>,
    shared: Option<Link>,
    nat64: Nat64,
    table: Table,
    started: Instant,
    metrics: Metrics,
}

/// Whom which limit applies to.
struct Rules {
    default: Option<Limit>,
    own: HashMap<ClientKey, Own>,
}

/// A limit of one's own and its bucket, which no flood of strangers can push out.
struct Own {
    limit: Limit,
    bucket: Arc<Mutex<Bucket>>,
}

/// Handles that were looked up once: a look-up costs as much as a decision.
struct Metrics {
    allowed: Counter,
    refused: Counter,
    overflowed: Counter,
    keys: Gauge,
}

impl Limiter {
    /// A limiter whose buckets are all full. Metrics are those of the recorder that is
    /// installed by now.
    pub fn new(options: LimiterOptions) -> Limiter {
        if options.shared.is_none() {
            link::show(false);
        }
        let decisions = |result| counter!("merch_limits_decisions_total", "result" => result);
        Limiter(Arc::new(Inner {
            rules: RwLock::new(Rules { default: options.default, own: HashMap::new() }),
            shared: options.shared,
            nat64: options.nat64,
            table: Table::new(options.most_keys),
            started: Instant::now(),
            metrics: Metrics {
                allowed: decisions("allowed"),
                refused: decisions("refused"),
                overflowed: counter!("merch_limits_overflow_total"),
                keys: gauge!("merch_limits_keys"),
            },
        }))
    }

    /// Takes a token from the client's bucket, if there is one; `None` where no limit applies
    /// to the client.
    pub async fn check(&self, client: &ClientKey) -> Option<Decision> {
        let decision = match self.check_shared(client).await {
            Some(decision) => decision,
            None => self.check_here(client)?,
        };
        let metrics = &self.0.metrics;
        if decision.allowed { &metrics.allowed } else { &metrics.refused }.increment(1);
        Some(decision)
    }

    /// Changes the limit of clients without one of their own; what they spent stays spent.
    pub fn set_default(&self, default: Option<Limit>) {
        self.0.rules.write().unwrap_or_else(PoisonError::into_inner).default = default;
        if default.is_none() {
            self.0.table.clear();
        }
    }

    /// Replaces all limits of clients' own; what they spent stays spent where they keep one.
    pub fn set_own(&self, limits: &[(ClientId, Limit)]) {
        let keys = limits.iter().flat_map(|(id, limit)| id.keys().map(move |key| (key, *limit)));
        let rules = &self.0.rules;
        let own = {
            let before = rules.read().unwrap_or_else(PoisonError::into_inner);
            let own = keys.map(|(key, limit)| {
                let bucket = before.own.get(&key).map(|own| own.bucket.clone());
                (key, Own { limit, bucket: bucket.unwrap_or_default() })
            });
            own.collect()
        };
        // Dropped after the lock: there may be many.
        let _before = {
            let mut rules = rules.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut rules.own, own)
        };
    }

    /// Whose addresses are those of clients of IPv4.
    pub fn nat64(&self) -> &Nat64 {
        &self.0.nat64
    }

    /// Buckets of clients without a limit of their own that are held.
    pub fn keys(&self) -> usize {
        self.0.table.len()
    }

    /// Decides by the buckets that are shared; `None` where there are none, or no limit.
    async fn check_shared(&self, client: &ClientKey) -> Option<Decision> {
        let link = self.0.shared.as_ref()?;
        let limit = {
            let rules = self.0.rules.read().unwrap_or_else(PoisonError::into_inner);
            rules.own.get(client).map_or(rules.default, |own| Some(own.limit))
        };
        shared::take(link, client, limit?).await
    }

    /// Decides by this process's buckets.
    fn check_here(&self, client: &ClientKey) -> Option<Decision> {
        let inner = &*self.0;
        let now = inner.now();
        let rules = inner.rules.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = rules.own.get(client) {
            let mut bucket = own.bucket.lock().unwrap_or_else(PoisonError::into_inner);
            return Some(bucket.take(own.limit, now));
        }
        let taken = inner.table.take(client, rules.default?, now);
        if taken.overflowed {
            inner.metrics.overflowed.increment(1);
        }
        Some(taken.decision)
    }

    /// Drops some of the buckets that are full again; `turn` counts up from call to call.
    pub(super) fn sweep(&self, turn: usize) {
        let inner = &*self.0;
        let default = inner.rules.read().unwrap_or_else(PoisonError::into_inner).default;
        if let Some(limit) = default {
            inner.table.sweep(turn, limit, inner.now());
        }
        inner.metrics.keys.set(inner.table.len() as f64);
    }
}

impl Inner {
    /// Nanoseconds since the limiter started; 64 bits are enough for 584 years.
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    fn clients(number: u32) -> ClientKey {
        ClientKey::address(std::net::Ipv4Addr::from_bits(number).into())
    }

    #[test]
    fn metrics_tell_what_was_decided_by_whose_buckets_and_how_many_there_are() {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            let default = Limit::new(2, 1).ok();
            let limiter = Limiter::new(LimiterOptions {
                default,
                most_keys: 1,
                shared: None,
                nat64: Nat64::default(),
            });
            let check = |number| limiter.check(&clients(number)).now_or_never().unwrap().unwrap();
            // Room for one in each of 64 shards, so that most of a thousand share one bucket.
            let allowed = (0..1000).filter(|number| check(*number).allowed).count();
            limiter.sweep(0);
            let text = recorder.handle().render();
            let held = limiter.keys();
            assert_eq!(allowed, held + 2);
            for line in [
                format!("merch_limits_decisions_total{{result=\"allowed\"}} {allowed}"),
                format!("merch_limits_decisions_total{{result=\"refused\"}} {}", 1000 - allowed),
                format!("merch_limits_overflow_total {}", 1000 - held),
                format!("merch_limits_keys {held}"),
                "merch_limits_mode{mode=\"local\"} 1".to_owned(),
                "merch_limits_mode{mode=\"shared\"} 0".to_owned(),
            ] {
                assert!(text.contains(&line), "{line} in {text}");
            }
            link::show(true);
            assert!(recorder.handle().render().contains("merch_limits_mode{mode=\"shared\"} 1"));
        });
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_default_is_in_force_at_once_and_forgives_nothing() {
        let limit = |capacity| Limit::new(capacity, 1).ok();
        let options = LimiterOptions {
            default: limit(5),
            most_keys: 100,
            shared: None,
            nat64: Nat64::default(),
        };
        let limiter = Limiter::new(options);
        let remaining = async || limiter.check(&clients(1)).await.map(|it| it.remaining);
        assert_eq!(remaining().await, Some(4));
        limiter.set_default(limit(3));
        assert_eq!(remaining().await, Some(1));
        limiter.set_default(None);
        assert_eq!(remaining().await, None);
        limiter.set_default(limit(3));
        assert_eq!(remaining().await, Some(2));
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        assert_eq!(remaining().await, Some(2));
    }
}
