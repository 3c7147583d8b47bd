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

/// Whether to say `message` now, because of `cause`; if not, it is counted, and the count is said
/// by [`tell_repeats`]. For everything that a client or a broken part can cause many times a
/// second.
pub fn is_news(message: &'static str, cause: &str) -> bool {
    lock().is_news(message, cause, Instant::now())
}

/// Says how often messages came that were not said. To be called every few seconds.
pub fn tell_repeats() {
    tell(Instant::now());
}

/// Says it of those, too, whose time is not over: before the last line of a log.
pub fn tell_all_repeats() {
    tell(Instant::now() + QUIET);
}

fn tell(now: Instant) {
    // Said without the lock: a line may take as long as its disk.
    let repeated = lock().take(now);
    for (message, cause, times) in repeated {
        let seconds = QUIET.as_secs();
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

    /// What was counted long enough. What did not come again is news the next time.
    fn take(&mut self, now: Instant) -> Vec<(&'static str, String, u64)> {
        let mut repeated = Vec::new();
        self.0.retain(|(message, cause), counted| {
            if now.duration_since(counted.since) < QUIET {
                return true;
            }
            let times = std::mem::take(&mut counted.times);
            counted.since = now;
            if times > 0 {
                repeated.push((*message, cause.clone(), times));
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

    #[test]
    fn a_message_that_repeats_is_said_once_and_then_counted() {
        let (mut said, start) = (Said(BTreeMap::new()), Instant::now());
        assert!(said.is_news(MESSAGE, "no files", start));
        for _ in 0..57 {
            assert!(!said.is_news(MESSAGE, "no files", start));
        }
        assert!(said.is_news(MESSAGE, "no memory", start), "another cause is news");
        assert!(said.is_news("cannot read", "no files", start), "another message is news");
        assert_eq!(said.take(start + QUIET / 2), [], "its time is not over");
        assert_eq!(said.take(start + QUIET), [(MESSAGE, "no files".to_owned(), 57)]);

        // It goes on: counted, and said again every time.
        assert!(!said.is_news(MESSAGE, "no files", start + QUIET));
        assert!(said.is_news(MESSAGE, "no memory", start + QUIET), "it did not come again");
        assert_eq!(said.take(start + QUIET * 2), [(MESSAGE, "no files".to_owned(), 1)]);
        // It is over: the next one is news.
        assert_eq!(said.take(start + QUIET * 3), []);
        assert!(said.is_news(MESSAGE, "no files", start + QUIET * 3));
    }

    #[test]
    fn messages_with_a_thousand_causes_are_few_lines() {
        let (mut said, now) = (Said(BTreeMap::new()), Instant::now());
        let news = (0..1000).filter(|number| said.is_news(MESSAGE, &number.to_string(), now));
        assert_eq!(news.count(), MOST + 1);
        assert_eq!(said.take(now + QUIET), [(MESSAGE, "different ones".to_owned(), 935)]);
    }
}
