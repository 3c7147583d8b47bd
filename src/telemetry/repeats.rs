//! Messages that repeat are counted, not repeated: the first is said at once, then how many came
//! after it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a message that was said is only counted.
const QUIET: Duration = Duration::from_secs(10);

/// Messages that are told apart; those beyond are counted under their text alone.
const MOST: usize = 64;

static SAID: Mutex<Said> = Mutex::new(Said(BTreeMap::new()));

/// What was said a moment ago, by text and cause.
struct Said(BTreeMap<(&'static str, String), Counted>);

struct Counted {
    since: Instant,
    times: u64,
}

/// How often a message came that was not said, and in how many seconds, rounded up.
#[derive(Debug, PartialEq, Eq)]
struct Repeated {
    message: &'static str,
    cause: String,
    times: u64,
    seconds: u64,
}

/// Whether to say `message` now, because of `cause`; if not, it is counted, and the count is said
/// by [`tell_repeats`]. For everything that a client or a broken part can cause many times a
/// second.
pub fn is_news(message: &'static str, cause: &str) -> bool {
    lock().is_news(message, cause, Instant::now())
}

/// Says how often messages came that were not said. To be called every few seconds.
pub fn tell_repeats() {
    tell(QUIET);
}

/// Says it of those, too, whose time is not over: before the last line of a log.
pub fn tell_all_repeats() {
    tell(Duration::ZERO);
}

fn tell(quiet: Duration) {
    // Said without the lock: a line may take as long as its disk.
    let repeated = lock().take(quiet, Instant::now());
    for Repeated { message, cause, times, seconds } in repeated {
        tracing::warn!(cause, "{times} times more in {seconds} s: {message}");
    }
}

fn lock() -> std::sync::MutexGuard<'static, Said> {
    SAID.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Said {
    fn is_news(&mut self, message: &'static str, cause: &str, now: Instant) -> bool {
        let cause = if self.0.len() < MOST { cause } else { "different ones" };
        match self.0.get_mut(&(message, cause.to_owned())) {
            Some(counted) => {
                counted.times += 1;
                false
            }
            None => {
                self.0.insert((message, cause.to_owned()), Counted { since: now, times: 0 });
                true
            }
        }
    }

    /// What was counted for as long as `quiet`. What did not come again is news the next time.
    fn take(&mut self, quiet: Duration, now: Instant) -> Vec<Repeated> {
        let mut repeated = Vec::new();
        self.0.retain(|(message, cause), counted| {
            let counted_for = now.duration_since(counted.since);
            if counted_for < quiet {
                return true;
            }
            let times = std::mem::take(&mut counted.times);
            counted.since = now;
            if times > 0 {
                let seconds = (counted_for.as_millis() as u64).div_ceil(1000).max(1);
                repeated.push(Repeated { message, cause: cause.clone(), times, seconds });
            }
            times > 0
        });
        repeated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: &str = "cannot accept a connection";

    fn repeated(cause: &str, times: u64, seconds: u64) -> Repeated {
        Repeated { message: MESSAGE, cause: cause.into(), times, seconds }
    }

    #[test]
    fn a_message_that_repeats_is_said_once_and_then_counted() {
        let (mut said, start) = (Said(BTreeMap::new()), Instant::now());
        assert!(said.is_news(MESSAGE, "no files", start));
        for _ in 0..57 {
            assert!(!said.is_news(MESSAGE, "no files", start));
        }
        assert!(said.is_news(MESSAGE, "no memory", start), "another cause is news");
        assert!(said.is_news("cannot read", "no files", start), "another message is news");
        assert_eq!(said.take(QUIET, start + QUIET / 2), [], "its time is not over");
        assert_eq!(said.take(QUIET, start + QUIET), [repeated("no files", 57, 10)]);

        // It goes on: counted, and said again every time.
        assert!(!said.is_news(MESSAGE, "no files", start + QUIET));
        assert!(said.is_news(MESSAGE, "no memory", start + QUIET), "it did not come again");
        assert_eq!(said.take(QUIET, start + QUIET * 2), [repeated("no files", 1, 10)]);
        // It is over: the next one is news.
        assert_eq!(said.take(QUIET, start + QUIET * 3), []);
        assert!(said.is_news(MESSAGE, "no files", start + QUIET * 3));
    }

    #[test]
    fn the_seconds_are_those_that_were_counted() {
        for (quiet, milliseconds, seconds) in [
            (QUIET, 10_000, 10),
            (QUIET, 14_200, 15),
            (QUIET, 62_000, 62),
            (Duration::ZERO, 2_000, 2),
            (Duration::ZERO, 3, 1),
            (Duration::ZERO, 0, 1),
        ] {
            let (mut said, start) = (Said(BTreeMap::new()), Instant::now());
            for _ in 0..3 {
                said.is_news(MESSAGE, "no files", start);
            }
            let now = start + Duration::from_millis(milliseconds);
            assert_eq!(said.take(quiet, now), [repeated("no files", 2, seconds)], "{now:?}");
        }
    }

    #[test]
    fn messages_with_a_thousand_causes_are_few_lines() {
        let (mut said, now) = (Said(BTreeMap::new()), Instant::now());
        let news = (0..1000).filter(|number| said.is_news(MESSAGE, &number.to_string(), now));
        assert_eq!(news.count(), MOST + 1);
        assert_eq!(said.take(QUIET, now + QUIET), [repeated("different ones", 935, 10)]);
    }
}
