//! The way that a message took: who passed it on, how often it may still be passed on, and an
//! end to one that goes round in circles.

use hyper::header::{HeaderMap, HeaderValue, MAX_FORWARDS, VIA};
use hyper::http::request;
use hyper::{Method, Response, Version};

use super::answer::Refusal;

/// A request may have been here so often. Once can be meant: a backend that is a proxy itself may
/// ask for something else here.
const MOST_TIMES: usize = 3;

/// What a gateway writes into `Via` (RFC 9110, 7.6.3). Its name is drawn at random, so that no
/// other gateway in a chain has the same, and says nothing of where it runs.
#[derive(Debug)]
pub struct Via {
    name: String,
    http_1_0: HeaderValue,
    http_1_1: HeaderValue,
    http_2: HeaderValue,
}

impl Via {
    /// Of a gateway that starts now.
    pub fn new() -> Via {
        let name = format!("merch-gateway-{:016x}", rand::random::<u64>());
        let received = |version: &str| {
            let line = format!("{version} {name}").try_into();
            line.expect("a version and a name are a header value")
        };
        Via { http_1_0: received("1.0"), http_1_1: received("1.1"), http_2: received("2.0"), name }
    }

    /// Writes down that a request of `version` came by here, unless it has done so too often.
    pub fn mark_request(&self, headers: &mut HeaderMap, version: Version) -> Result<(), Refusal> {
        // A comment may hold commas; the name holds nothing that anybody else has.
        let times = |line: &HeaderValue| {
            memchr::memmem::find_iter(line.as_bytes(), self.name.as_bytes()).count()
        };
        if headers.get_all(VIA).iter().map(times).sum::<usize>() >= MOST_TIMES {
            return Err(Refusal::Loop);
        }
        headers.append(VIA, self.received(version));
        Ok(())
    }

    /// Writes down that a backend's answer came by here. From now on it is one of ours.
    pub fn mark_answer<B>(&self, response: &mut Response<B>) {
        let received = self.received(response.version());
        response.headers_mut().append(VIA, received);
        *response.version_mut() = Version::HTTP_11;
    }

    fn received(&self, version: Version) -> HeaderValue {
        match version {
            Version::HTTP_10 => &self.http_1_0,
            Version::HTTP_2 => &self.http_2,
            _ => &self.http_1_1,
        }
        .clone()
    }
}

/// Counts down how often an OPTIONS request may be passed on (RFC 9110, 7.6.2); whether it may be
/// at all. `Max-Forwards` of other methods says nothing.
pub fn may_forward(head: &mut request::Parts) -> Result<bool, Refusal> {
    if head.method != Method::OPTIONS {
        return Ok(true);
    }
    let mut lines = head.headers.get_all(MAX_FORWARDS).iter();
    let Some(line) = lines.next() else { return Ok(true) };
    let digits = line.as_bytes();
    if lines.next().is_some() || digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Refusal::Ambiguous("max-forwards"));
    }
    // A number that is too large to count with is lowered to one that is not.
    let left = line.to_str().ok().and_then(|digits| digits.parse().ok()).unwrap_or(u64::MAX);
    let Some(left) = left.checked_sub(1) else { return Ok(false) };
    head.headers.insert(MAX_FORWARDS, left.into());
    Ok(true)
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    #[test]
    fn a_request_may_come_by_a_few_times_and_not_for_ever() {
        let (one, other) = (Via::new(), Via::new());
        let mut headers = HeaderMap::new();
        headers.insert(VIA, HeaderValue::from_static("1.0 fred, 1.1 p (a, \"b\")"));
        for _ in 0..MOST_TIMES {
            assert_eq!(one.mark_request(&mut headers, Version::HTTP_2), Ok(()));
            assert_eq!(other.mark_request(&mut headers, Version::HTTP_11), Ok(()));
        }
        assert_eq!(one.mark_request(&mut headers, Version::HTTP_11), Err(Refusal::Loop));
        // In one line, as others may write it.
        let lines: Vec<&str> = headers.get_all(VIA).iter().map(|it| it.to_str().unwrap()).collect();
        let line = lines.join(", ");
        assert!(line.starts_with("1.0 fred, 1.1 p (a, \"b\"), 2.0 merch-gateway-"), "{line}");
        headers.insert(VIA, line.parse().unwrap());
        assert_eq!(other.mark_request(&mut headers, Version::HTTP_11), Err(Refusal::Loop));
        assert_eq!(Via::new().mark_request(&mut headers, Version::HTTP_11), Ok(()));
    }

    #[test]
    fn options_are_passed_on_as_often_as_they_may_be() {
        const MOST: &str = "18446744073709551614";
        for (lines, expected, left) in [
            (&[][..], Ok(true), None),
            (&["0"], Ok(false), Some("0")),
            (&["000"], Ok(false), Some("000")),
            (&["1"], Ok(true), Some("0")),
            (&["010"], Ok(true), Some("9")),
            (&["99999999999999999999999"], Ok(true), Some(MOST)),
            (&[""], Err(()), Some("")),
            (&["-1"], Err(()), Some("-1")),
            (&["+1"], Err(()), Some("+1")),
            (&["1.5"], Err(()), Some("1.5")),
            (&["1, 1"], Err(()), Some("1, 1")),
            (&["1", "1"], Err(()), Some("1")),
            (&["ten"], Err(()), Some("ten")),
        ] {
            for method in [Method::OPTIONS, Method::GET] {
                let mut request = Request::builder().method(&method);
                for line in lines {
                    request = request.header(MAX_FORWARDS, *line);
                }
                let (mut head, ()) = request.body(()).unwrap().into_parts();
                let counted = method == Method::OPTIONS;
                let may = may_forward(&mut head).map_err(|_| ());
                assert_eq!(may, if counted { expected } else { Ok(true) }, "{method} {lines:?}");
                let found = head.headers.get(MAX_FORWARDS).map(|it| it.to_str().unwrap());
                assert_eq!(found, if counted { left } else { lines.first().copied() });
            }
        }
    }
}
