//! What a client is told of its limit: `RateLimit` and `RateLimit-Policy` as
//! draft-ietf-httpapi-ratelimit-headers has them (structured fields), and `Retry-After`.

use std::time::Duration;

use ::http::header::RETRY_AFTER;
use ::http::{HeaderMap, HeaderName, HeaderValue};
use itoa::{Buffer, Integer};

use super::bucket::Decision;

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

impl Decision {
    /// Puts the decision into an answer's headers, in place of what a backend said of limits
    /// of its own.
    ///
    /// - `RateLimit-Policy: "default";q=200;w=2`: the capacity, and the seconds in which it
    ///   flows back altogether.
    /// - `RateLimit: "default";r=199;t=1`: whole tokens left, and seconds until all of them
    ///   are back.
    /// - `Retry-After: 1`, on a refusal only.
    ///
    /// All seconds are whole and rounded up: whoever waits as told finds a token, unless the
    /// same client took it in between.
    pub fn write_headers(&self, headers: &mut HeaderMap) {
        let capacity = self.limit.capacity();
        let window = capacity.div_ceil(self.limit.rate_per_sec());
        let reset = whole_seconds(self.reset_after);
        headers.insert(RATE_LIMIT_POLICY, item(";q=", capacity, ";w=", window));
        headers.insert(RATE_LIMIT, item(";r=", self.remaining, ";t=", reset));
        if !self.allowed {
            headers.insert(RETRY_AFTER, HeaderValue::from(whole_seconds(self.retry_after)));
        }
    }
}

/// What is said of the one limit that there is. Every answer has two of these, so they are put
/// together without `format!`, which takes several times as long.
fn item(first: &str, value: impl Integer, second: &str, other: impl Integer) -> HeaderValue {
    let mut digits = Buffer::new();
    let mut text = String::with_capacity(48);
    text += "\"default\"";
    text += first;
    text += digits.format(value);
    text += second;
    text += digits.format(other);
    HeaderValue::try_from(text).expect("plain ASCII is a header value")
}

/// Rounded up: never so early that it is of no use.
fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::bucket::{Bucket, Limit, TOKEN};
    use super::*;

    fn headers(decision: Decision) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        decision.write_headers(&mut headers);
        let text = |value: &HeaderValue| value.to_str().unwrap().to_owned();
        headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
    }

    #[test]
    fn a_client_is_told_its_limit_what_is_left_and_when_to_come_back() {
        let (limit, mut bucket) = (Limit::new(2, 3).unwrap(), Bucket::default());
        let told = |decision| {
            let told = headers(decision);
            told.into_iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>()
        };
        let policy = r#"ratelimit-policy: "default";q=2;w=1"#;
        assert_eq!(told(bucket.take(limit, 0)), [policy, r#"ratelimit: "default";r=1;t=1"#]);
        assert_eq!(told(bucket.take(limit, 0)), [policy, r#"ratelimit: "default";r=0;t=1"#]);
        let refused = [policy, r#"ratelimit: "default";r=0;t=1"#, "retry-after: 1"];
        assert_eq!(told(bucket.take(limit, 0)), refused);
    }

    #[test]
    fn what_a_backend_said_of_its_own_limits_is_replaced() {
        let mut headers = HeaderMap::new();
        headers.append("ratelimit", HeaderValue::from_static("\"other\";r=7"));
        headers.append("ratelimit", HeaderValue::from_static("\"another\";r=8"));
        Bucket::default().take(Limit::new(1, 1).unwrap(), 0).write_headers(&mut headers);
        assert_eq!(headers.get_all("ratelimit").iter().count(), 1);
    }

    proptest! {
        #[test]
        fn whoever_waits_as_told_is_let_in_and_needs_not_wait_a_second_less(
            capacity in 1..10u32,
            rate in 1..5u32,
            start in 0..10 * TOKEN,
        ) {
            let (limit, mut bucket) = (Limit::new(capacity, rate).unwrap(), Bucket::default());
            let mut decision = bucket.take(limit, start);
            while decision.allowed {
                decision = bucket.take(limit, start);
            }
            let told = headers(decision).pop().unwrap();
            prop_assert_eq!(told.0, "retry-after");
            let seconds: u64 = told.1.parse().unwrap();
            prop_assert!(bucket.clone().take(limit, start + seconds * TOKEN).allowed);
            prop_assert!(Duration::from_secs(seconds - 1) < decision.retry_after);
        }
    }
}
