//! What is answered to bytes that are no request. hyper would give a bare status line: it has
//! nobody to ask for words, since there is no request that it could ask with.

use bytes::Bytes;

/// HTTP/2 begins with this.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What hyper may see of it where it is not spoken: the rest would keep it from answering.
const HTTP2_HEAD: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

/// How hyper's own answers go on after their status, by version, and how long their end is.
const BARE: [(&[u8], &[u8]); 2] = [
    (b"HTTP/1.1 4", b"\r\nconnection: close\r\ncontent-length: 0\r\ndate: "),
    (b"HTTP/1.0 4", b"\r\ncontent-length: 0\r\ndate: "),
];
const VERSION: usize = "HTTP/1.1".len();
const DATE_AND_END: usize = "Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n".len();

/// Why what came is not a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Malformed,
    LineTooLong,
    HeadTooLarge,
    Version,
}

/// What is known of the first line after the last answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Line {
    /// Nothing of it has come.
    #[default]
    Unbegun,
    /// Its end has not come.
    Begun,
    /// It is there; its HTTP may be one that is not spoken here.
    Ended { other_version: bool },
}

impl Line {
    /// What is known once `bytes` have come too.
    pub(super) fn after(self, bytes: &[u8]) -> Line {
        if let Line::Ended { .. } = self {
            return self;
        }
        // Empty lines before a request are allowed (RFC 9112, 2.2).
        let bytes = if self == Line::Unbegun { bytes.trim_ascii_start() } else { bytes };
        match memchr::memchr(b'\n', bytes) {
            Some(end) => Line::Ended { other_version: names_other_version(&bytes[..end]) },
            None if bytes.is_empty() => self,
            None => Line::Begun,
        }
    }
}

fn names_other_version(line: &[u8]) -> bool {
    let version = line.trim_ascii_end().rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    version.starts_with(b"HTTP/") && version != b"HTTP/1.1" && version != b"HTTP/1.0"
}

/// How much of the preface of HTTP/2 has come after the last answer; none if anything else has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Preface(Option<usize>);

impl Default for Preface {
    fn default() -> Preface {
        Preface(Some(0))
    }
}

impl Preface {
    /// Takes the next bytes. Returns how many of them hyper may see where HTTP/2 is not spoken.
    pub(super) fn take(&mut self, bytes: &[u8]) -> usize {
        let Some(come) = self.0 else { return bytes.len() };
        let is_blank = |byte: &&u8| matches!(byte, b'\r' | b'\n');
        let blank = if come == 0 { bytes.iter().take_while(is_blank).count() } else { 0 };
        let (expected, bytes) = (&HTTP2[come..], &bytes[blank..]);
        let length = expected.len().min(bytes.len());
        self.0 = (expected[..length] == bytes[..length]).then_some(come + length);
        blank
            + match self.0 {
                Some(come_now) if come_now > HTTP2_HEAD.len() => {
                    HTTP2_HEAD.len().saturating_sub(come)
                }
                _ => bytes.len(),
            }
    }

    /// Whether it may still come.
    pub(super) fn may_come(self) -> bool {
        self.0.is_some()
    }

    /// Whether all of it has come.
    pub(super) fn is_whole(self) -> bool {
        self.0 == Some(HTTP2.len())
    }
}

impl Refused {
    /// What hyper says of itself if `written` is its own answer, and none of ours: they all have
    /// more headers.
    pub(super) fn in_bare(written: &[u8], line: Line) -> Option<Refused> {
        let (start, expected) = BARE.into_iter().find(|(start, _)| written.starts_with(start))?;
        let status = written[start.len()..].get(..2)?;
        let (_, headers) = written.split_at(memchr::memchr(b'\r', written)?);
        if headers.len() != expected.len() + DATE_AND_END || !headers.starts_with(expected) {
            return None;
        }
        Some(match status {
            b"14" => Refused::LineTooLong,
            b"31" if line == Line::Begun => Refused::LineTooLong,
            b"31" => Refused::HeadTooLarge,
            _ if line == (Line::Ended { other_version: true }) => Refused::Version,
            _ => Refused::Malformed,
        })
    }

    /// The whole answer in place of `bare`, hyper's own.
    pub(super) fn answer(self, bare: &[u8]) -> Bytes {
        let (version, date) = (&bare[..VERSION], &bare[bare.len() - DATE_AND_END..]);
        let (status, code, errors) = self.words();
        let body = format!(r#"{{"errors":"{errors}","code":"{code}"}}"#);
        let head = format!(
            " {status}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: \
             {}\r\ndate: ",
            body.len(),
        );
        [version, head.as_bytes(), date, body.as_bytes()].concat().into()
    }

    fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Refused::Malformed => {
                ("400 Bad Request", "invalid_request", "what came is not well-formed HTTP/1.1")
            }
            Refused::LineTooLong => {
                ("414 URI Too Long", "uri_too_long", "the request's target is too long")
            }
            Refused::HeadTooLarge => (
                "431 Request Header Fields Too Large",
                "head_too_large",
                "the request's headers are too many or too long",
            ),
            Refused::Version => (
                "505 HTTP Version Not Supported",
                "version_not_supported",
                "this version of HTTP is not spoken here",
            ),
        }
    }

    /// Its status.
    pub(super) fn status(self) -> u16 {
        match self {
            Refused::Malformed => 400,
            Refused::LineTooLong => 414,
            Refused::HeadTooLarge => 431,
            Refused::Version => 505,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";

    fn bare(status: &str) -> String {
        format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: 0\r\n{DATE}\r\n")
    }

    /// The same to a client of HTTP/1.0.
    fn bare_1_0(status: &str) -> String {
        bare(status).replace("1.1", "1.0").replace("connection: close\r\n", "")
    }

    #[test]
    fn only_an_answer_of_so_few_headers_and_no_body_is_hypers_own() {
        let own = bare("400 Bad Request");
        for own in [&own, &bare_1_0("400 Bad Request")] {
            assert_eq!(Refused::in_bare(own.as_bytes(), Line::Begun), Some(Refused::Malformed));
        }
        for ours in [
            "",
            "HTTP/1.1 4",
            "HTTP/1.1 400 Bad Request",
            &own.replace("400 Bad Request", "200 OK"),
            &own.replace("HTTP/1.1", "HTTP/1.0"),
            &own.replace("connection: close\r\n", ""),
            &own.replace("date", "x-request-id: 7\r\ndate"),
            &own.replace("GMT\r\n", "GMT\r\nvia: 1.1 a\r\n"),
            &own.replace("length: 0", "length: 1"),
            &(own.clone() + "x"),
        ] {
            assert_eq!(Refused::in_bare(ours.as_bytes(), Line::Begun), None, "{ours:?}");
        }
    }

    #[test]
    fn what_is_known_of_the_line_says_what_was_wrong() {
        let (too_large, bad) =
            (bare("431 Request Header Fields Too Large"), bare("400 Bad Request"));
        for (came, answer, expected) in [
            (&["GET /xxx", "xxx"][..], &too_large, Refused::LineTooLong),
            (&["GET /x HTTP/1.1\r\nx: xxx"], &too_large, Refused::HeadTooLarge),
            (&["GET /x HT", "TP/1.1\r\n", "x: xxx"], &too_large, Refused::HeadTooLarge),
            (&[], &bare("414 URI Too Long"), Refused::LineTooLong),
            (&["GET / HTTP/2.0\r\n"], &bad, Refused::Version),
            (&["\r\n", "\r\nGET / HTTP/1.2\r\nx"], &bad, Refused::Version),
            (&["GET / HTTP/1.1\r\n"], &bad, Refused::Malformed),
            (&["GET / HTTP/1.0\n"], &bad, Refused::Malformed),
            (&["GET /\r\n"], &bad, Refused::Malformed),
            (&["\0"], &bad, Refused::Malformed),
        ] {
            let line = came.iter().fold(Line::Unbegun, |line, bytes| line.after(bytes.as_bytes()));
            assert_eq!(Refused::in_bare(answer.as_bytes(), line), Some(expected), "{came:?}");
        }
    }

    #[test]
    fn what_is_said_instead_is_as_long_as_it_says_and_keeps_the_date() {
        for refused in
            [Refused::Malformed, Refused::LineTooLong, Refused::HeadTooLarge, Refused::Version]
        {
            let status = "400 Bad Request";
            for (bare, version) in [(bare(status), "1.1"), (bare_1_0(status), "1.0")] {
                let answer = refused.answer(bare.as_bytes());
                let answer = String::from_utf8(answer.to_vec()).unwrap();
                let (head, body) = answer.split_once("\r\n\r\n").unwrap();
                let start = format!("HTTP/{version} {} ", refused.status());
                assert!(head.starts_with(&start), "{answer}");
                assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{answer}");
                assert!(head.ends_with(DATE.trim_end()), "{answer}");
            }
        }
    }

    #[test]
    fn the_preface_of_http_2_is_known_however_it_comes_and_hyper_sees_its_head_alone() {
        let settings = [HTTP2, b"\0\0\0\x04\0\0\0\0\0"].concat();
        for (before, step) in [0, 2].into_iter().flat_map(|it| (1..33).map(move |step| (it, step)))
        {
            let bytes = [&b"\r\n"[..before], &settings].concat();
            let mut preface = Preface::default();
            let mut seen = 0;
            for bytes in bytes.chunks(step) {
                assert!(preface.may_come());
                if preface.is_whole() {
                    break;
                }
                seen += preface.take(bytes);
            }
            assert!(preface.is_whole(), "{step}");
            assert_eq!(seen, before + HTTP2_HEAD.len(), "{step}");
        }
        for other in ["POST / HTTP/1.1\r\n", "PRI * HTTP/1.1\r\n\r\nSM\r\n\r\n", "\0"] {
            let mut preface = Preface::default();
            assert_eq!(preface.take(other.as_bytes()), other.len());
            assert!(!preface.may_come(), "{other}");
        }
    }
}
