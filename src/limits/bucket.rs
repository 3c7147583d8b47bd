//! The token bucket, pure: whole numbers, and time is passed in.
//!
//! A bucket is what was spent of it, and when that was so; what was spent flows back at the
//! limit's rate. This is GCRA with its arrival time in billionths of a token instead of
//! nanoseconds: `nanoseconds * tokens a second` are billionths of a token, so every whole
//! rate is exact and nothing is ever rounded.

use std::time::Duration;

/// Billionths of a token in a token.
pub const TOKEN: u64 = 1_000_000_000;

/// The largest capacity and the largest rate. Products of both and [`TOKEN`] fit into 64 bits.
pub const MAX: u32 = 1_000_000;

/// How many requests a client may make at once, and how many more each second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    capacity: u32,
    rate_per_sec: u32,
}

/// A capacity or a rate that cannot be; `Display` is meant for whoever asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} must be a whole number from 1 to {MAX}")]
pub struct InvalidLimit(&'static str);

impl Limit {
    /// A bucket of `capacity` tokens that gains `rate_per_sec` a second: whole numbers from 1
    /// to [`MAX`] each.
    pub fn new(capacity: u32, rate_per_sec: u32) -> Result<Limit, InvalidLimit> {
        for (name, value) in [("capacity", capacity), ("rate_per_sec", rate_per_sec)] {
            if !(1..=MAX).contains(&value) {
                return Err(InvalidLimit(name));
            }
        }
        Ok(Limit { capacity, rate_per_sec })
    }

    /// Requests at once, at most.
    pub fn capacity(&self) -> u32 {
        self.capacity
    }

    /// Requests a second, in the long run.
    pub fn rate_per_sec(&self) -> u32 {
        self.rate_per_sec
    }

    /// The whole bucket, in billionths of a token.
    fn brim(&self) -> u64 {
        u64::from(self.capacity) * TOKEN
    }

    /// How long `spent` billionths of a token take to flow back, rounded up to a nanosecond.
    fn time_to_regain(&self, spent: u64) -> Duration {
        Duration::from_nanos(spent.div_ceil(u64::from(self.rate_per_sec)))
    }
}

/// Whether a request may pass, and how its client stands after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether the request has its token.
    pub allowed: bool,
    /// The limit that decided.
    pub limit: Limit,
    /// Whole tokens that are left.
    pub remaining: u32,
    /// From now until there is a token again: a request is refused one nanosecond earlier,
    /// and allowed then if nobody else took the token. Zero if this one was allowed.
    pub retry_after: Duration,
    /// From now until the bucket is full, if nothing else is taken.
    pub reset_after: Duration,
}

impl Decision {
    /// The decision that left `spent` billionths of a token to flow back.
    pub fn after(limit: Limit, allowed: bool, spent: u64) -> Decision {
        let left = limit.brim().saturating_sub(spent);
        let missing = if allowed { 0 } else { TOKEN.saturating_sub(left) };
        Decision {
            allowed,
            limit,
            remaining: u32::try_from(left / TOKEN).unwrap_or(limit.capacity),
            retry_after: limit.time_to_regain(missing),
            reset_after: limit.time_to_regain(spent),
        }
    }
}

/// One client's bucket; the default is a full one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Billionths of a token that had not flowed back yet ...
    spent: u64,
    /// ... at this time, in nanoseconds since some fixed moment.
    at: u64,
}

impl Bucket {
    /// Takes one token at `now`, if there is one. A limit that differs from the one before
    /// applies at once: what was spent stays spent, up to a whole new bucket.
    pub fn take(&mut self, limit: Limit, now: u64) -> Decision {
        let spent = self.spent_at(limit, now);
        let allowed = spent + TOKEN <= limit.brim();
        let spent = if allowed { spent + TOKEN } else { spent };
        // Time that goes backwards gives nothing, and nothing twice when it comes again.
        *self = Bucket { spent, at: self.at.max(now) };
        Decision::after(limit, allowed, spent)
    }

    /// Whether everything has flowed back, so that a new bucket would be no better.
    pub fn is_full(&self, limit: Limit, now: u64) -> bool {
        self.spent_at(limit, now) == 0
    }

    fn spent_at(&self, limit: Limit, now: u64) -> u64 {
        let elapsed = now.saturating_sub(self.at);
        let regained = elapsed.saturating_mul(u64::from(limit.rate_per_sec));
        self.spent.saturating_sub(regained).min(limit.brim())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limit(capacity: u32, rate_per_sec: u32) -> Limit {
        Limit::new(capacity, rate_per_sec).unwrap()
    }

    fn limits() -> impl Strategy<Value = Limit> {
        let number = || prop_oneof![1..20u32, Just(3), Just(999_983), 1..=MAX];
        (number(), number()).prop_map(|(capacity, rate)| limit(capacity, rate))
    }

    /// Times that mostly go on, by a step that a bucket notices; some stand still or go back.
    fn times() -> impl Strategy<Value = Vec<u64>> {
        let step = prop_oneof![
            3 => 0..5_000_000_000i64,
            3 => 0..2_000_000i64,
            2 => Just(0i64),
            1 => -3_000_000_000..0i64,
        ];
        prop::collection::vec(step, 1..200).prop_map(|steps| {
            let mut now = 10_000_000_000i64;
            let walk = steps.into_iter().map(|step| {
                now = (now + step).max(0);
                now.cast_unsigned()
            });
            walk.collect()
        })
    }

    /// Takes at each of `times`: the times of those that were allowed, with time that goes
    /// backwards standing still.
    fn admitted(bucket: &mut Bucket, limit: Limit, times: &[u64]) -> Vec<u64> {
        let mut latest = 0;
        let mut admitted = Vec::new();
        for &now in times {
            latest = now.max(latest);
            if bucket.take(limit, now).allowed {
                admitted.push(latest);
            }
        }
        admitted
    }

    #[test]
    fn limits_are_whole_numbers_from_one_to_a_million() {
        for (capacity, rate, wrong) in [
            (0, 1, Some("capacity")),
            (1, 0, Some("rate_per_sec")),
            (MAX + 1, 1, Some("capacity")),
            (1, u32::MAX, Some("rate_per_sec")),
            (1, 1, None),
            (MAX, MAX, None),
        ] {
            assert_eq!(Limit::new(capacity, rate).err(), wrong.map(InvalidLimit));
        }
    }

    #[test]
    fn a_bucket_gives_its_capacity_at_once_and_then_its_rate() {
        let (limit, mut bucket) = (limit(3, 4), Bucket::default());
        for remaining in [2, 1, 0] {
            let decision = bucket.take(limit, 0);
            assert!(decision.allowed);
            assert_eq!((decision.remaining, decision.retry_after), (remaining, Duration::ZERO));
        }
        let refused = bucket.take(limit, 0);
        assert_eq!((refused.allowed, refused.remaining), (false, 0));
        assert_eq!(refused.retry_after, Duration::from_millis(250));
        assert_eq!(refused.reset_after, Duration::from_millis(750));
        assert!(!bucket.take(limit, 249_999_999).allowed);
        assert!(bucket.take(limit, 250_000_000).allowed);
        assert!(!bucket.take(limit, 250_000_000).allowed);
        assert!(!bucket.is_full(limit, 999_999_999));
        assert!(bucket.is_full(limit, 1_000_000_000));
    }

    #[test]
    fn time_that_goes_backwards_gives_nothing_twice() {
        let (limit, mut bucket) = (limit(1, 1), Bucket::default());
        assert!(bucket.take(limit, 5 * TOKEN).allowed);
        assert!(!bucket.take(limit, 0).allowed);
        assert!(!bucket.take(limit, 5 * TOKEN).allowed);
        assert!(!bucket.take(limit, 6 * TOKEN - 1).allowed);
        assert!(bucket.take(limit, 6 * TOKEN).allowed);
    }

    #[test]
    fn the_end_of_time_is_a_time_like_any_other() {
        let (limit, mut bucket) = (limit(MAX, MAX), Bucket::default());
        assert!(bucket.take(limit, u64::MAX).allowed);
        assert!(bucket.take(limit, 0).allowed);
        assert_eq!(bucket.take(limit, u64::MAX).remaining, MAX - 3);
    }

    proptest! {
        #[test]
        fn no_window_admits_more_than_capacity_and_rate_allow(
            limit in limits(),
            times in times(),
        ) {
            let admitted = admitted(&mut Bucket::default(), limit, &times);
            for (first, from) in admitted.iter().enumerate() {
                for (last, to) in admitted.iter().enumerate().skip(first) {
                    let tokens = (last - first + 1) as u64 * TOKEN;
                    let gained = (to - from).saturating_mul(u64::from(limit.rate_per_sec));
                    prop_assert!(tokens <= limit.brim().saturating_add(gained));
                }
            }
        }

        #[test]
        fn retry_after_is_exact_to_the_nanosecond(limit in limits(), times in times()) {
            let mut bucket = Bucket::default();
            for now in times {
                let decision = bucket.take(limit, now);
                if decision.allowed {
                    prop_assert_eq!(decision.retry_after, Duration::ZERO);
                    continue;
                }
                // Seen from a clock that went backwards, the wait is the bucket's own.
                let then = bucket.at + u64::try_from(decision.retry_after.as_nanos()).unwrap();
                prop_assert!(then > bucket.at);
                prop_assert!(!bucket.clone().take(limit, then - 1).allowed);
                prop_assert!(bucket.clone().take(limit, then).allowed);
            }
        }

        #[test]
        fn reset_after_is_exact_to_the_nanosecond(limit in limits(), times in times()) {
            let mut bucket = Bucket::default();
            for now in times {
                let decision = bucket.take(limit, now);
                let then = bucket.at + u64::try_from(decision.reset_after.as_nanos()).unwrap();
                prop_assert!(bucket.is_full(limit, then));
                prop_assert!(then == bucket.at || !bucket.is_full(limit, then - 1));
            }
        }

        #[test]
        fn remaining_is_what_can_be_taken_at_once(
            capacity in 1..50u32,
            rate in 1..50u32,
            times in times(),
        ) {
            let (limit, mut bucket) = (limit(capacity, rate), Bucket::default());
            for now in times {
                let remaining = bucket.take(limit, now).remaining;
                let mut copy = bucket;
                let more = (0..=capacity).take_while(|_| copy.take(limit, now).allowed).count();
                prop_assert_eq!(more, remaining as usize);
            }
        }

        #[test]
        fn a_new_limit_never_gives_more_than_its_own_capacity(
            before in limits(),
            after in (1..50u32, 1..50u32),
            times in times(),
        ) {
            let mut bucket = Bucket::default();
            admitted(&mut bucket, before, &times);
            let now = times.iter().copied().max().unwrap();
            let after = limit(after.0, after.1);
            let at_once = admitted(&mut bucket, after, &[now; 60]);
            prop_assert!(at_once.len() <= after.capacity as usize);
        }

        #[test]
        fn a_new_limit_gives_back_nothing_that_was_spent(
            before in 1..50u32,
            after in 1..50u32,
            taken in 0..60usize,
        ) {
            let mut bucket = Bucket::default();
            let taken = admitted(&mut bucket, limit(before, 1), &vec![7; taken]).len();
            let left = admitted(&mut bucket, limit(after, 9), &[7; 60]).len();
            prop_assert_eq!(left, (after as usize).saturating_sub(taken));
        }
    }
}
