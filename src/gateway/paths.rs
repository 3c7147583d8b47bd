//! Which paths a list of patterns means, however they are written.

use crate::config::PathPattern;

/// A list of paths.
#[derive(Clone, Debug)]
pub struct Paths(Vec<PathPattern>);

impl Paths {
    /// The paths that `patterns` describe.
    pub fn new(patterns: Vec<PathPattern>) -> Paths {
        Paths(patterns)
    }

    /// Whether `path` is one of them, as it is written or where only a backend that decodes,
    /// drops parameters or ignores case and spare slashes would say so.
    pub fn contains(&self, path: &str) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let is_one = |path: &str| self.0.iter().any(|pattern| matches(pattern, path));
        match plain(path) {
            None => is_one(path),
            // There are backends that do none of this, too.
            Some(plain) => is_one(&plain) || is_one(path),
        }
    }
}

fn matches(pattern: &PathPattern, path: &str) -> bool {
    match pattern {
        PathPattern::Exactly(exactly) => path.eq_ignore_ascii_case(exactly),
        PathPattern::Below(folder) => {
            path.get(..folder.len()).is_some_and(|start| start.eq_ignore_ascii_case(folder))
        }
    }
}

/// `path` without escapes, dots, parameters, and what says nothing, if it has any of it.
fn plain(path: &str) -> Option<String> {
    let bytes = path.as_bytes();
    let is_odd = |at: usize| match bytes[at] {
        b'%' | b';' | b'\\' => true,
        b'/' => matches!(bytes.get(at + 1), None | Some(b'/' | b'.' | b'\\')),
        _ => false,
    };
    if bytes == b"/" || !(0..bytes.len()).any(is_odd) {
        return None;
    }
    let decoded = decode(bytes).replace('\\', "/");
    // Whoever decodes before looking for a query finds one here; C ends its texts at a NUL.
    let decoded = decoded.split(['?', '#', '\0']).next().unwrap_or_default();
    let mut segments: Vec<&str> = Vec::new();
    for segment in decoded.split('/') {
        let is_blank = |it: char| it.is_whitespace() || it.is_control();
        match segment.split(';').next().unwrap_or_default().trim_matches(is_blank) {
            "" | "." => {}
            ".." => drop(segments.pop()),
            segment => segments.push(segment),
        }
    }
    Some(format!("/{}", segments.join("/")))
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
    use proptest::prelude::*;

    use crate::web::path::settled;

    use super::*;

    proptest! {
        #[test]
        fn no_spelling_that_leads_somewhere_is_missed(
            path in prop::sample::select(vec!["/metrics", "/health/live", "/api/buy/t-shirt"]),
            escapes in prop::collection::vec(0..3, 20),
            slash in any::<bool>(),
        ) {
            let mut spelt = String::new();
            for (byte, escape) in path.bytes().zip(escapes) {
                match escape {
                    1 if byte != b'/' => spelt += &format!("%{byte:02x}"),
                    2 if byte != b'/' => spelt += &format!("%{byte:02X}"),
                    _ => spelt.push(char::from(byte)),
                }
            }
            spelt += if slash { "/" } else { "" };
            prop_assert_eq!(settled(&spelt), path);
            let patterns = ["/metrics", "/health/*", "/api/buy/*"];
            let paths = Paths::new(patterns.map(|it| it.parse().unwrap()).into());
            prop_assert!(paths.contains(&spelt), "{}", spelt);
        }
    }

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
            "/metrics%00",
            "/metrics%00.png",
            "/metrics%20",
            "/%0ametrics",
            "/metrics%3fx",
            "/metrics%2523",
            // For a backend that leaves dots alone, this is below the folder.
            "/health/../info",
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
