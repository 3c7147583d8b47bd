//! How many requests may be tried again: a part of what came in lately, plus a few a second
//! for a gateway with little to do. When everything fails, retries must not double the load.

use std::array::from_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::config;

/// The window in which requests pay for retries, the second under way included.
const WINDOW_SECONDS: usize = 10;

/// Counts requests and says whether one may be tried again.
#[derive(Debug)]
pub struct RetryBudget {
    options: config::RetryBudget,
    start: Instant,
    /// Requests a second: the number of the second above, the count below. One word each, so
    /// that a request costs one atomic addition.
    requests: [AtomicU64; WINDOW_SECONDS],
    retries: Mutex<[Retries; WINDOW_SECONDS]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Retries {
    second: u32,
    free: u32,
    paid: u32,
}

impl RetryBudget {
    /// A budget that nothing was paid into yet.
    pub fn new(options: config::RetryBudget) -> RetryBudget {
        RetryBudget {
            options,
            start: Instant::now(),
            requests: from_fn(|_| AtomicU64::new(0)),
            retries: Mutex::default(),
        }
    }

    /// Counts a request from a client; its retries do not count as requests.
    pub fn request(&self) {
        self.request_at(Instant::now());
    }

    /// Whether a retry may be made; if so, it is spent.
    pub fn try_retry(&self) -> bool {
        self.try_retry_at(Instant::now())
    }

    fn request_at(&self, now: Instant) {
        let second = self.second(now);
        let slot = &self.requests[second as usize % WINDOW_SECONDS];
        let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            Some(match unpack(word) {
                (of, count) if of == second => pack(second, count.saturating_add(1)),
                _ => pack(second, 1),
            })
        });
    }

    fn try_retry_at(&self, now: Instant) -> bool {
        let second = self.second(now);
        let mut retries = self.retries.lock().unwrap_or_else(PoisonError::into_inner);
        let paid: u64 = retries
            .iter()
            .filter(|slot| is_recent(slot.second, second))
            .map(|slot| u64::from(slot.paid))
            .sum();
        let requests: u64 = self
            .requests
            .iter()
            .map(|slot| unpack(slot.load(Ordering::Relaxed)))
            .filter(|(of, _)| is_recent(*of, second))
            .map(|(_, count)| u64::from(count))
            .sum();

        let slot = &mut retries[second as usize % WINDOW_SECONDS];
        if slot.second != second {
            *slot = Retries { second, ..Retries::default() };
        }
        if slot.free < self.options.per_second {
            slot.free += 1;
            return true;
        }
        let affordable = (paid + 1) * 100 <= requests * u64::from(self.options.percent);
        slot.paid += u32::from(affordable);
        affordable
    }

    /// Seconds since the start; wraps after a century.
    fn second(&self, now: Instant) -> u32 {
        now.saturating_duration_since(self.start).as_secs() as u32
    }
}

fn is_recent(second: u32, now: u32) -> bool {
    now.wrapping_sub(second) < WINDOW_SECONDS as u32
}

fn pack(second: u32, count: u32) -> u64 {
    (u64::from(second) << 32) | u64::from(count)
}

fn unpack(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn budget(percent: u32, per_second: u32) -> RetryBudget {
        RetryBudget::new(config::RetryBudget { percent, per_second })
    }

    #[test]
    fn ten_a_second_are_free_and_not_saved_up() {
        let budget = budget(20, 10);
        for second in [0, 1, 60] {
            let now = budget.start + Duration::from_secs(second);
            let granted = (0..50).filter(|_| budget.try_retry_at(now)).count();
            assert_eq!(granted, 10, "in second {second}");
        }
    }

    #[test]
    fn a_fifth_of_the_requests_may_be_tried_again_until_they_are_long_ago() {
        let budget = budget(20, 0);
        (0..100).for_each(|_| budget.request_at(budget.start));
        let at = |seconds| budget.start + Duration::from_secs(seconds);
        assert_eq!((0..50).filter(|_| budget.try_retry_at(at(0))).count(), 20);
        assert!(!budget.try_retry_at(at(9)));
        (0..100).for_each(|_| budget.request_at(at(9)));
        assert_eq!((0..50).filter(|_| budget.try_retry_at(at(9))).count(), 20);
        assert!(!budget.try_retry_at(at(10)));
        assert!(!budget.try_retry_at(at(30)));
    }

    proptest! {
        /// When a retry is granted beyond the free ones, those beyond the free ones of the
        /// last ten seconds, this one included, are paid for by the requests of the same ten
        /// seconds.
        #[test]
        fn retries_never_exceed_the_budget(
            events in vec((any::<bool>(), 0u64..400), 1..600),
            percent in 0u32..=100,
            per_second in 0u32..=20,
        ) {
            let budget = budget(percent, per_second);
            let (mut requests, mut retries) = ([0u64; 300], [0u64; 300]);
            let mut now = Duration::ZERO;
            for (is_request, pause) in events {
                now += Duration::from_millis(pause);
                let second = now.as_secs() as usize;
                if is_request {
                    budget.request_at(budget.start + now);
                    requests[second] += 1;
                } else if budget.try_retry_at(budget.start + now) {
                    retries[second] += 1;
                    if retries[second] > u64::from(per_second) {
                        let window = second.saturating_sub(9)..=second;
                        let paid: u64 = retries[window.clone()]
                            .iter()
                            .map(|granted| granted.saturating_sub(u64::from(per_second)))
                            .sum();
                        let requests: u64 = requests[window].iter().sum();
                        prop_assert!(paid * 100 <= requests * u64::from(percent));
                    }
                }
            }
        }
    }
}
