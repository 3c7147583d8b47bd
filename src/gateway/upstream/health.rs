//! Whether one backend is well: a state machine with two witnesses, and the time passed in.
//!
//! Checks say `up` or down after so many answers in a row; while down, nothing else counts.
//! Real requests eject: after so many failures in a row the backend is sent away for a time
//! that doubles from one ejection to the next. Whoever returns from either starts slowly.
//! Whether an ejection may happen at all depends on the others, so that is decided above.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::config;

/// Slow start goes in so many steps, and a whole share counts for so much.
pub const FULL_SHARE: u32 = 10;

/// More doublings than any maximum has room for.
const MOST_DOUBLINGS: u32 = 20;

/// What may be expected of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It gets its share of requests.
    Healthy,
    /// It has returned, and its share grows.
    SlowStart,
    /// It failed at real requests and is left alone for a while, unless nobody else is left.
    Ejected,
    /// It failed its checks, or has not passed one yet; it gets no requests.
    Unhealthy,
    /// It gets no new requests and goes when those under way are finished.
    Draining,
}

/// How a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No connection could be made.
    Connect,
    /// The connection broke, or what came was not HTTP.
    Broken,
    /// There was no answer in time.
    TimedOut,
    /// The answer was 502, 503 or 504.
    Unavailable,
}

/// What is known of one backend's health.
#[derive(Clone, Debug)]
pub struct Health {
    up: bool,
    /// Checks in a row that say the contrary of `up`.
    contrary: u32,
    /// Requests in a row that failed, and the last of them that failed to connect.
    failures: u32,
    connect_failures: u32,
    ejection: Option<Ejection>,
    /// How often the time of the next ejection is doubled, and since when it behaves.
    doublings: u32,
    good_since: Instant,
    /// When its slow start began.
    returned: Option<Instant>,
}

#[derive(Clone, Debug)]
struct Ejection {
    until: Instant,
    cause: Cause,
    /// Checks in a row that passed since.
    passes: u32,
}

impl Cause {
    /// Whether an overloaded backend that is otherwise well fails like this as well.
    pub fn may_be_overload(self) -> bool {
        matches!(self, Cause::TimedOut | Cause::Unavailable)
    }

    /// For logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Cause::Connect => "connect",
            Cause::Broken => "broken",
            Cause::TimedOut => "timed_out",
            Cause::Unavailable => "unavailable",
        }
    }
}

impl State {
    /// For logs and metrics, and as in the admin API.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Healthy => "healthy",
            State::SlowStart => "slow-start",
            State::Ejected => "ejected",
            State::Unhealthy => "unhealthy",
            State::Draining => "draining",
        }
    }
}

impl Health {
    /// Of a backend that is believed to be well until it shows otherwise.
    pub fn presumed(now: Instant) -> Health {
        Health {
            up: true,
            contrary: 0,
            failures: 0,
            connect_failures: 0,
            ejection: None,
            doublings: 0,
            good_since: now,
            returned: None,
        }
    }

    /// Of a backend that joins others: down, but one check that passes brings it up. Without
    /// checks it is believed to be well, and starts slowly.
    pub fn newcomer(now: Instant, options: &config::Upstream) -> Health {
        let contrary = options.health.rise.get() - 1;
        let mut health = Health { up: false, contrary, ..Health::presumed(now) };
        health.tick(now, options);
        health
    }

    /// As of the last call that was given the time.
    pub fn state(&self) -> State {
        match (&self.ejection, self.returned) {
            _ if !self.up => State::Unhealthy,
            (Some(_), _) => State::Ejected,
            (None, Some(_)) => State::SlowStart,
            (None, None) => State::Healthy,
        }
    }

    /// Requests that failed in a row.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// A check was answered.
    pub fn checked(&mut self, passed: bool, now: Instant, options: &config::Upstream) {
        self.tick(now, options);
        let rise = options.health.rise.get();
        if passed == self.up {
            self.contrary = 0;
        } else {
            self.contrary += 1;
            if self.contrary >= if passed { rise } else { options.health.fall.get() } {
                self.up = passed;
                self.contrary = 0;
                if passed {
                    self.come_back(now, options);
                }
            }
        }
        if let Some(ejection) = &mut self.ejection {
            ejection.passes = if passed { ejection.passes + 1 } else { 0 };
            // Whoever could not be reached and now can be is back. Other failures say nothing
            // of that kind: their backend passed its checks all along.
            if ejection.cause == Cause::Connect && ejection.passes >= rise {
                self.good_since = now;
                self.come_back(now, options);
            }
        }
    }

    /// A request was answered by something other than 502, 503 or 504.
    pub fn served(&mut self) {
        self.failures = 0;
        self.connect_failures = 0;
    }

    /// A request failed; whether that is reason enough to eject.
    pub fn failed(&mut self, cause: Cause, now: Instant, options: &config::Upstream) -> bool {
        self.tick(now, options);
        // Requests that were under way when it was found out are no news.
        if !self.up || self.ejection.is_some() {
            return false;
        }
        self.failures = self.failures.saturating_add(1);
        self.connect_failures =
            if cause == Cause::Connect { self.connect_failures.saturating_add(1) } else { 0 };
        self.failures >= options.ejection.failures.get()
            || self.connect_failures >= options.ejection.connect_failures.get()
    }

    /// Sends it away from `now` on; for how long.
    pub fn eject(&mut self, cause: Cause, now: Instant, options: &config::Upstream) -> Duration {
        let ejection = &options.ejection;
        let behaved = now.saturating_duration_since(self.good_since);
        let forgiven = behaved.as_millis() / ejection.max.as_millis().max(1);
        let forgiven = u32::try_from(forgiven).unwrap_or(u32::MAX);
        self.doublings = self.doublings.saturating_sub(forgiven);
        let time = (ejection.base * 2u32.pow(self.doublings)).min(ejection.max);
        self.doublings = (self.doublings + 1).min(MOST_DOUBLINGS);

        self.ejection = Some(Ejection { until: now + time, cause, passes: 0 });
        self.good_since = now + time;
        self.returned = None;
        self.served();
        time
    }

    /// Does what is due at `now`.
    pub fn tick(&mut self, now: Instant, options: &config::Upstream) {
        // Nobody can show that it is well again where nobody is asked.
        if !self.up && options.health.path.is_empty() {
            self.up = true;
            self.come_back(now, options);
        }
        if self.ejection.as_ref().is_some_and(|ejection| ejection.until <= now) {
            self.come_back(now, options);
        }
        if self.returned.is_some_and(|returned| returned + options.slow_start <= now) {
            self.returned = None;
        }
    }

    /// When something will be due without anything happening.
    pub fn next_tick(&self, now: Instant, options: &config::Upstream) -> Option<Instant> {
        let step = self.returned.map(|returned| {
            let step = options.slow_start / FULL_SHARE;
            returned + step * (self.share(now, options) + 1).min(FULL_SHARE)
        });
        let due = [self.ejection.as_ref().map(|ejection| ejection.until), step];
        due.into_iter().flatten().min()
    }

    /// The part of its weight that it gets, of `FULL_SHARE`; linear over the slow start.
    pub fn share(&self, now: Instant, options: &config::Upstream) -> u32 {
        let Some(returned) = self.returned else { return FULL_SHARE };
        let step = (options.slow_start / FULL_SHARE).as_nanos().max(1);
        let steps = now.saturating_duration_since(returned).as_nanos() / step;
        u32::try_from(steps).map_or(FULL_SHARE, |steps| steps.clamp(1, FULL_SHARE))
    }

    fn come_back(&mut self, now: Instant, options: &config::Upstream) {
        self.ejection = None;
        self.served();
        self.returned = (!options.slow_start.is_zero()).then_some(now);
    }
}

#[cfg(test)]
mod tests;
