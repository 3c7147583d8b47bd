//! Which paths a list of patterns means, however they are written.

use std::borrow::Cow;

use crate::config::PathPattern;

/// A list of paths.
#[derive(Clone, Debug)]
pub struct Paths(Vec<PathPattern>);

impl Paths {
    /// The paths that `patterns` describe.
    pub fn new(patterns: Vec<PathPattern>) -> Paths {
        Paths(patterns)
    }

    /// Whether `path` is one of them, also where only a backend that decodes, drops
    /// parameters or ignores case and spare slashes would say so.
    pub fn contains(&self, path: &str) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let path = plain(path);
        self.0.iter().any(|pattern| match pattern {
            PathPattern::Exactly(exactly) => path.eq_ignore_ascii_case(exactly),
            PathPattern::Below(folder) => {
                path.get(..folder.len()).is_some_and(|start| start.eq_ignore_ascii_case(folder))
            }
        })
    }
}

/// `path` without escapes, dots, parameters, and slashes that say nothing.
fn plain(path: &str) -> Cow<'_, str> {
    let bytes = path.as_bytes();
    let is_odd = |at: usize| match bytes[at] {
        b'%' | b';' | b'\\' => true,
        b'/' => matches!(bytes.get(at + 1), None | Some(b'/' | b'.' | b'\\')),
        _ => false,
    };
    if bytes == b"/" || !(0..bytes.len()).any(is_odd) {
        return Cow::Borrowed(path);
    }
    let decoded = decode(bytes).replace('\\', "/");
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split('/') {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    Cow::Owned(format!("/{}", segments.join("/")))
}

/// `bytes` without percent signs, as often as it takes: some backends decode twice.
fn decode(bytes: &[u8]) -> String {
    let mut decoded = Vec::with_capacity(bytes.len());
    for byte in bytes {
        decoded.push(*byte);
        // An escape may end with a digit that was an escape itself.
        while let [.., b'%', high, low] = decoded[..] {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            let (Some(high), Some(low)) = (digit(high), digit(low)) else { break };
            decoded.truncate(decoded.len() - 3);
            decoded.push((high * 16 + low) as u8);
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_found_however_it_is_written() {
        let patterns = ["/metrics", "/health", "/health/*", "/api/buy/*"];
        let paths = Paths::new(patterns.map(|it| it.parse().unwrap()).into());
        for path in [
            "/metrics",
            "/metrics/",
            "//metrics",
            "/./metrics",
            "/x/../metrics",
            "/METRICS",
            "/%6detrics",
            "/%6Detrics",
            "/%256detrics",
            "/metrics;a=b",
            "/metrics%3b",
            "/%2fmetrics",
            "/..%2fmetrics",
            "/\\metrics",
            "/health",
            "/health/live",
            "/health//live",
            "/a/%2e%2e/health/live",
            "/api/buy/cup",
            "/api/buy/cup/",
            "/api//buy/cup",
            "/api/x/../buy/cup",
            "/api/buy%2fcup",
        ] {
            assert!(paths.contains(path), "{path}");
        }
        for path in [
            "/",
            "",
            "*",
            "/metric",
            "/metrics2",
            "/api/metrics",
            "/healthy",
            "/api/buy",
            "/api/buyer/cup",
            "/metrics/../info",
            "/api/info",
            "/%zz",
            "/%",
            "/%6",
            "/é",
        ] {
            assert!(!paths.contains(path), "{path}");
        }
        assert!(!Paths::new(vec![]).contains("/metrics"));
        assert!(Paths::new(vec!["/*".parse().unwrap()]).contains("/"));
    }
}
