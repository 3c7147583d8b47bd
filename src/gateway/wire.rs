//! What the bytes of an HTTP/1.1 request must look like before anything else reads them.
//!
//! Two servers that disagree on where a request ends can be made to see different requests
//! (request smuggling). hyper reads such requests in one of the possible ways and forgets the
//! other, so by the time that we are asked it is too late to refuse them. Here they are
//! seen as they arrive: both lengths at once, a length twice, a folded line, a line without
//! its carriage return. A connection on which another protocol is spoken than was agreed ends
//! here, too.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::accept::{Activity, Watch};

use super::http1::{chunk_size, digits};

/// The longest chunk-size line: 16 digits and a little.
const CHUNK_LINE: usize = 64;

/// The first line of HTTP/2, which frames its messages without ambiguity.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r";

/// What HTTP/2 says between answers (settings, pings, windows) is no longer than this, in bytes.
const CONTROL_FRAMES: usize = 64;

/// Whether something on a connection was not well-formed; nothing after it is to be trusted.
#[derive(Clone, Debug, Default)]
pub struct Verdict(Arc<AtomicBool>);

impl Verdict {
    /// Something was not well-formed: refuse the request, and close the connection.
    pub fn is_ambiguous(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// The protocol that a handshake agreed on, until the first bytes have shown it (RFC 7301).
#[derive(Debug)]
pub struct Agreed {
    is_http2: bool,
    /// So many bytes that HTTP/2 begins with have come.
    come: usize,
}

/// Looks at what goes over a client's connection.
#[derive(Debug)]
pub struct Inspector {
    agreed: Option<Agreed>,
    framing: Framing,
    verdict: Verdict,
    activity: Activity,
}

impl Inspector {
    /// For a connection on which no request head is longer than `header_limit`. If nothing was
    /// `agreed`, the client may speak HTTP/1.1 or HTTP/2 as it likes.
    pub fn new(
        header_limit: usize,
        agreed: Option<Agreed>,
        verdict: Verdict,
        activity: Activity,
    ) -> Inspector {
        Inspector { agreed, framing: Framing::new(header_limit), verdict, activity }
    }
}

impl Agreed {
    /// What a TLS handshake came to: HTTP/2 only where it says so (RFC 9113, 3.2).
    pub fn on(protocol: Option<&[u8]>) -> Agreed {
        Agreed { is_http2: protocol == Some(b"h2"), come: 0 }
    }

    /// Whether `bytes`, which are the next ones, keep to it; none if that cannot be told yet.
    fn is_kept(&mut self, bytes: &[u8]) -> Option<bool> {
        for byte in bytes {
            if *byte != HTTP2[self.come] {
                return Some(!self.is_http2);
            }
            self.come += 1;
            if self.come == HTTP2.len() {
                return Some(self.is_http2);
            }
        }
        None
    }
}

impl Watch for Inspector {
    fn came(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(is_kept) = self.agreed.as_mut().and_then(|agreed| agreed.is_kept(bytes)) {
            self.agreed = None;
            if !is_kept {
                return Err(io::Error::other("not the protocol that was agreed"));
            }
        }
        if self.framing.read(bytes).is_err() {
            self.verdict.0.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Some of an answer was taken, unless it is only what HTTP/2 says between answers.
    fn left(&mut self, bytes: usize) {
        let is_http2 = matches!(self.framing.state, State::Off);
        if !is_http2 || bytes > CONTROL_FRAMES {
            self.activity.touch();
        }
    }
}

/// The bytes are not a sequence of requests that every server reads alike.
#[derive(Debug, PartialEq, Eq)]
struct Ambiguous;

/// Where in a sequence of requests we are.
#[derive(Debug)]
struct Framing {
    state: State,
    /// The beginning of a line whose end has not arrived.
    line: Vec<u8>,
    header_limit: usize,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// Before a request line.
    Start,
    /// Among the headers.
    Headers(Length),
    /// So many bytes of a body are to come.
    Body(u64),
    ChunkSize,
    /// So many bytes of a chunk are to come, the line end after it included.
    Chunk(u64),
    Trailers,
    /// HTTP/2, or nothing that is worth looking at any more.
    Off,
}

/// What the headers so far say of the body.
#[derive(Clone, Copy, Debug)]
enum Length {
    Unsaid,
    Bytes(u64),
    Chunked,
}

impl Framing {
    fn new(header_limit: usize) -> Framing {
        Framing { state: State::Start, line: Vec::new(), header_limit }
    }

    /// Takes the next bytes; after an error there is nothing more to be found.
    fn read(&mut self, bytes: &[u8]) -> Result<(), Ambiguous> {
        let read = self.advance(bytes);
        if read.is_err() {
            self.state = State::Off;
            self.line = Vec::new();
        }
        read
    }

    fn advance(&mut self, mut bytes: &[u8]) -> Result<(), Ambiguous> {
        while !bytes.is_empty() {
            match &mut self.state {
                State::Off => return Ok(()),
                State::Body(left) | State::Chunk(left) => {
                    let taken = (*left).min(bytes.len() as u64);
                    *left -= taken;
                    bytes = &bytes[taken as usize..];
                    match self.state {
                        State::Body(0) => self.state = State::Start,
                        State::Chunk(0) => self.state = State::ChunkSize,
                        _ => {}
                    }
                }
                State::Start | State::Headers(_) | State::ChunkSize | State::Trailers => {
                    let Some(end) = memchr::memchr(b'\n', bytes) else {
                        return self.keep(bytes);
                    };
                    let (line, rest) = (&bytes[..end], &bytes[end + 1..]);
                    bytes = rest;
                    self.state = if self.line.is_empty() {
                        self.state.after(line)?
                    } else {
                        self.keep(line)?;
                        let after = self.state.after(&self.line)?;
                        self.line.clear();
                        after
                    };
                }
            }
        }
        Ok(())
    }

    /// Remembers the beginning of a line; longer ones than this are refused by hyper too.
    fn keep(&mut self, bytes: &[u8]) -> Result<(), Ambiguous> {
        let limit =
            if matches!(self.state, State::ChunkSize) { CHUNK_LINE } else { self.header_limit };
        if self.line.len() + bytes.len() > limit {
            return Err(Ambiguous);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }
}

impl State {
    /// The state after `line`, which is without its line feed.
    fn after(self, line: &[u8]) -> Result<State, Ambiguous> {
        if matches!(self, State::Start) && line == HTTP2 {
            return Ok(State::Off);
        }
        let line = line.strip_suffix(b"\r").ok_or(Ambiguous)?;
        match self {
            // Empty lines before a request are allowed (RFC 9112, 2.2).
            State::Start if line.is_empty() => Ok(State::Start),
            State::Start => Ok(State::Headers(Length::Unsaid)),
            State::Headers(length) if line.is_empty() => Ok(match length {
                Length::Unsaid | Length::Bytes(0) => State::Start,
                Length::Bytes(bytes) => State::Body(bytes),
                Length::Chunked => State::ChunkSize,
            }),
            State::Headers(length) => Ok(State::Headers(length.after(line)?)),
            State::ChunkSize => match chunk_size(line).ok_or(Ambiguous)? {
                0 => Ok(State::Trailers),
                size => Ok(State::Chunk(size.checked_add(2).ok_or(Ambiguous)?)),
            },
            State::Trailers if line.is_empty() => Ok(State::Start),
            State::Trailers => Ok(State::Trailers),
            State::Body(_) | State::Chunk(_) | State::Off => Ok(self),
        }
    }
}

impl Length {
    /// What is known of the body after a header's line.
    fn after(self, line: &[u8]) -> Result<Length, Ambiguous> {
        if matches!(line[0], b' ' | b'\t') {
            return Err(Ambiguous);
        }
        // All other names are nobody's business here.
        if !matches!(line[0], b'c' | b'C' | b't' | b'T') {
            return Ok(self);
        }
        let is = |name: &str| {
            line.get(..name.len()).is_some_and(|it| it.eq_ignore_ascii_case(name.as_bytes()))
        };
        let value = |name: &str| line[name.len()..].trim_ascii();
        if is(LENGTH) {
            match (self, digits(value(LENGTH), 10)) {
                (Length::Unsaid, Some(bytes)) => Ok(Length::Bytes(bytes)),
                _ => Err(Ambiguous),
            }
        } else if is(ENCODING) {
            match self {
                Length::Unsaid if value(ENCODING).eq_ignore_ascii_case(b"chunked") => {
                    Ok(Length::Chunked)
                }
                _ => Err(Ambiguous),
            }
        } else {
            Ok(self)
        }
    }
}

const LENGTH: &str = "content-length:";
const ENCODING: &str = "transfer-encoding:";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 16384;

    /// What comes of `bytes` when they arrive `step` at a time.
    fn verdict(bytes: &[u8], step: usize) -> Result<(), Ambiguous> {
        let mut framing = Framing::new(LIMIT);
        bytes.chunks(step).try_for_each(|bytes| framing.read(bytes))
    }

    const PLAIN: &[&str] = &[
        "GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n\n:\nab",
        "POST / HTTP/1.1\r\ncontent-length:0\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\n\n \n\nx\r\nA;x=y\r\n0123456789\r\n0\r\nt: u\r\n\r\n",
        "PUT / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\ncookie: content-length: 5\r\nte: trailers\r\n\r\n",
    ];

    const AMBIGUOUS: &[&str] = &[
        "POST / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: 5\r\nCONTENT-LENGTH: 6\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: 5, 5\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: +5\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: -5\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: 0x5\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length:\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: xchunked\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: identity\r\n\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding:\x0bchunked\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\n folded: b\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\n\tfolded: b\r\n\r\n",
        "GET / HTTP/1.1\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\n\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\nabcde\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n+5\r\nabcde\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n\r\n",
    ];

    #[test]
    fn what_two_servers_could_read_differently_is_ambiguous() {
        for bytes in AMBIGUOUS {
            assert_eq!(verdict(bytes.as_bytes(), LIMIT), Err(Ambiguous), "{bytes:?}");
        }
        for bytes in PLAIN {
            assert_eq!(verdict(bytes.as_bytes(), LIMIT), Ok(()), "{bytes:?}");
        }
    }

    #[test]
    fn a_connection_that_begins_with_the_preface_of_http_2_is_left_alone() {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\n\n";
        assert_eq!(verdict(preface, 1), Ok(()));
    }

    #[test]
    fn what_was_agreed_is_spoken_however_the_bytes_arrive() {
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let requests: [&[u8]; 4] =
            [b"GET / HTTP/1.1\r\n", b"PRINT / HTTP/1.1", b"\r\nPRI", preface];
        for (protocol, is_http2) in
            [(Some(&b"h2"[..]), true), (Some(b"http/1.1"), false), (None, false)]
        {
            for (request, step) in requests.iter().flat_map(|it| [1, 3, 100].map(|step| (it, step)))
            {
                let mut agreed = Agreed::on(protocol);
                let kept = request.chunks(step).find_map(|bytes| agreed.is_kept(bytes));
                assert_eq!(
                    kept,
                    Some((*request == preface) == is_http2),
                    "{protocol:?} {request:?}"
                );
            }
        }
    }

    #[test]
    fn a_line_without_an_end_is_not_kept_for_ever() {
        let mut framing = Framing::new(LIMIT);
        let read = std::iter::repeat_n(&[b'a'; 1000], 20).try_for_each(|it| framing.read(it));
        assert_eq!(read, Err(Ambiguous));
        assert_eq!(framing.line.capacity(), 0);
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_bytes_arrive(
            before in prop::collection::vec(prop::sample::select(PLAIN), 0..5),
            last in prop::sample::select(AMBIGUOUS),
            step in 1..200usize,
        ) {
            let before = before.concat();
            prop_assert_eq!(verdict(before.as_bytes(), step), Ok(()));
            let all = before + last;
            prop_assert_eq!(verdict(all.as_bytes(), step), Err(Ambiguous));
        }
    }
}
