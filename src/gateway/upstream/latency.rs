//! How quick a backend has been lately: a moving average that jumps up at once and comes
//! down slowly ("peak EWMA"), so that one slow answer is noticed before many wait behind it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// After this long without an answer two thirds of what was known are forgotten.
const MEMORY: Duration = Duration::from_secs(10);

/// The average and the time it is of, as one word: it is written without a lock.
#[derive(Debug, Default)]
pub struct Latency(AtomicU64);

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Average {
    seconds: f32,
    /// Milliseconds on the caller's clock; wraps after 49 days, as differences do.
    at: u32,
}

impl Latency {
    /// Takes note of an answer that took `latency` and came when the caller's clock showed
    /// `now`.
    pub fn observe(&self, latency: Duration, now: Duration) {
        self.update(now, |_| latency.as_secs_f32());
    }

    /// Takes note of a failure that took `latency`: however quick it was, the backend is not
    /// quicker for it.
    pub fn observe_failure(&self, latency: Duration, now: Duration) {
        self.update(now, |average| latency.as_secs_f32().max(average));
    }

    /// The average in seconds when the caller's clock shows `now`; 0: nothing is known.
    pub fn seconds(&self, now: Duration) -> f32 {
        Average::unpack(self.0.load(Ordering::Relaxed)).faded(millis(now)).seconds
    }

    /// The average in seconds as of the last answer; none before that.
    pub fn last(&self) -> Option<f32> {
        let seconds = Average::unpack(self.0.load(Ordering::Relaxed)).seconds;
        (seconds > 0.0).then_some(seconds)
    }

    fn update(&self, now: Duration, observed: impl Fn(f32) -> f32) {
        let now = millis(now);
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |word| {
            let average = Average::unpack(word);
            Some(average.observed(observed(average.seconds), now).pack())
        });
    }
}

impl Average {
    fn observed(self, seconds: f32, now: u32) -> Average {
        let kept = self.kept(now);
        let mixed = self.seconds * kept + seconds * (1.0 - kept);
        Average { seconds: if seconds > self.seconds { seconds } else { mixed }, at: now }
    }

    fn faded(self, now: u32) -> Average {
        Average { seconds: self.seconds * self.kept(now), at: now }
    }

    /// The part of what was known that still counts. Two threads may be a moment apart: time
    /// that seems to run backwards is no time.
    fn kept(self, now: u32) -> f32 {
        let passed = now.wrapping_sub(self.at).cast_signed().max(0);
        (-(passed as f32) / MEMORY.as_millis() as f32).exp()
    }

    fn pack(self) -> u64 {
        (u64::from(self.seconds.to_bits()) << 32) | u64::from(self.at)
    }

    fn unpack(word: u64) -> Average {
        Average { seconds: f32::from_bits((word >> 32) as u32), at: word as u32 }
    }
}

fn millis(now: Duration) -> u32 {
    now.as_millis() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_slow_answer_counts_at_once_and_quick_ones_bit_by_bit() {
        let latency = Latency::default();
        assert_eq!(latency.seconds(SECOND), 0.0);
        latency.observe(10 * MS, SECOND);
        latency.observe(SECOND, SECOND);
        assert_eq!(latency.seconds(SECOND), 1.0);
        latency.observe(10 * MS, 2 * SECOND);
        let after_one = latency.seconds(2 * SECOND);
        assert!((0.8..1.0).contains(&after_one), "{after_one}");
        for second in 3..60 {
            latency.observe(10 * MS, second * SECOND);
        }
        let after_many = latency.seconds(60 * SECOND);
        assert!((0.005..0.02).contains(&after_many), "{after_many}");
    }

    #[test]
    fn what_was_known_fades_for_the_choice_and_is_told_as_it_was() {
        let latency = Latency::default();
        assert_eq!(latency.last(), None);
        latency.observe(10 * MS, SECOND);
        assert!(latency.seconds(1000 * SECOND) < 1e-6);
        assert_eq!(latency.last(), Some(0.01));
    }

    #[test]
    fn a_backend_does_not_look_quick_by_failing_quickly() {
        let latency = Latency::default();
        latency.observe(100 * MS, SECOND);
        latency.observe_failure(MS, 2 * SECOND);
        assert!(latency.seconds(2 * SECOND) >= 0.1);
        latency.observe_failure(SECOND, 2 * SECOND);
        assert_eq!(latency.seconds(2 * SECOND), 1.0);
    }

    #[test]
    fn a_clock_that_wraps_or_steps_back_is_no_time() {
        let latency = Latency::default();
        let wraps = Duration::from_millis(u64::from(u32::MAX));
        latency.observe(SECOND, wraps);
        assert!(latency.seconds(wraps + 2 * MS) > 0.99);
        assert_eq!(latency.seconds(wraps - SECOND), 1.0);
    }
}
