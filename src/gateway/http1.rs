//! HTTP/1.1 as backends speak it (RFC 9112): heads of requests written, heads of answers read,
//! and where bodies end. Nothing here touches a socket.

use std::io::Write;
use std::mem::MaybeUninit;

use bytes::{Buf, Bytes};
use httparse::{ParserConfig, Status};
use hyper::body::{Frame, SizeHint};
use hyper::ext::ReasonPhrase;
use hyper::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use hyper::header::{InvalidHeaderName, InvalidHeaderValue, TRANSFER_ENCODING};
use hyper::http::request;
use hyper::{Method, Response, StatusCode, Version};

use crate::web::list;

use super::headers;

/// The most headers that an answer may have, and the most trailers.
const MOST_HEADERS: usize = 100;

/// Room for the headers that the gateway adds to an answer.
const OUR_HEADERS: usize = 5;

/// The largest answer head, in bytes.
const HEAD_LIMIT: usize = 64 * 1024;

/// The longest line with a chunk's size, and the largest trailers, in bytes.
const CHUNK_LINE_LIMIT: usize = 256;
const TRAILERS_LIMIT: usize = 16 * 1024;

/// What ends a chunk, and what comes after the last one, which is empty.
const LINE_END: &[u8] = b"\r\n";
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
const END_AFTER_A_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

/// What came is no HTTP/1.1, or could be read in more than one way.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(&'static str);

/// An answer's head, and what comes after it.
#[derive(Debug)]
pub struct Head {
    /// The head, and where its body ends.
    pub response: Response<Decoder>,
    /// Whether the backend will take another request after it.
    pub keeps_open: bool,
}

/// Where the body of an answer ends.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoder(Rest);

/// What is still to come of a body.
#[derive(Debug, PartialEq, Eq)]
enum Rest {
    Nothing,
    /// So many bytes.
    Bytes(u64),
    Chunks(Chunk),
    /// Everything, until the backend closes the connection.
    UntilClosed,
}

/// Where in a body of chunks we are.
#[derive(Debug, PartialEq, Eq)]
enum Chunk {
    /// Before its size.
    Size,
    /// So many bytes of it are to come.
    Bytes(u64),
    /// After its last byte.
    End,
    /// After the last one.
    Trailers,
}

/// How the body of a request is written.
#[derive(Debug)]
pub enum Encoder {
    /// As it is, so many bytes of it still.
    Bytes(u64),
    /// In chunks.
    Chunks,
}

/// Adds the head of a request to `bytes`.
pub fn write_head(bytes: &mut Vec<u8>, head: &request::Parts) {
    // Not as the client wrote it: that may be a query and nothing else.
    for part in [head.method.as_str(), " ", head.uri.path()] {
        bytes.extend_from_slice(part.as_bytes());
    }
    if let Some(query) = head.uri.query() {
        bytes.push(b'?');
        bytes.extend_from_slice(query.as_bytes());
    }
    bytes.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, value) in &head.headers {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(LINE_END);
    }
    bytes.extend_from_slice(LINE_END);
}

/// Takes the head of an answer to a `method` request from the front of `bytes`, if all of it is
/// there.
pub fn read_head(bytes: &mut Bytes, method: &Method) -> Result<Option<Head>, Malformed> {
    let front = bytes.clone();
    let mut headers = [const { MaybeUninit::uninit() }; MOST_HEADERS];
    let mut parsed = httparse::Response::new(&mut []);
    let parser = ParserConfig::default();
    match parser.parse_response_with_uninit_headers(&mut parsed, &front, &mut headers) {
        Ok(Status::Complete(length)) if length <= HEAD_LIMIT => bytes.advance(length),
        Ok(Status::Partial) if front.len() <= HEAD_LIMIT => return Ok(None),
        Ok(_) => return Err(Malformed("an answer's head is too large")),
        Err(_) => return Err(Malformed("what came is no HTTP")),
    }
    let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok());
    let status = status.ok_or(Malformed("an answer has no valid status"))?;
    let is_http_11 = parsed.version == Some(1);

    let mut response = Response::new(Decoder(Rest::Nothing));
    *response.status_mut() = status;
    if !is_http_11 {
        *response.version_mut() = Version::HTTP_10;
    }
    *response.headers_mut() = map(parsed.headers, &front)?;
    let reason =
        parsed.reason.filter(|it| !it.is_empty() && Some(*it) != status.canonical_reason());
    if let Some(Ok(reason)) = reason.map(|it| ReasonPhrase::try_from(it.as_bytes())) {
        response.extensions_mut().insert(reason);
    }
    let rest = rest_after(method, status, is_http_11, response.headers())?;
    let says_close =
        || list::items(response.headers(), &CONNECTION).any(|it| it.eq_ignore_ascii_case("close"));
    let keeps_open = is_http_11 && rest != Rest::UntilClosed && !says_close();
    *response.body_mut() = Decoder(rest);
    Ok(Some(Head { response, keeps_open }))
}

/// The headers that were found in `whole`.
fn map(parsed: &[httparse::Header<'_>], whole: &Bytes) -> Result<HeaderMap, Malformed> {
    let mut headers = HeaderMap::with_capacity(parsed.len() + OUR_HEADERS);
    for header in parsed {
        let name = HeaderName::from_bytes(header.name.as_bytes())?;
        headers.append(name, HeaderValue::from_maybe_shared(whole.slice_ref(header.value))?);
    }
    Ok(headers)
}

/// Where the body after a head ends (RFC 9112, 6.3), if there is no doubt about it.
fn rest_after(
    method: &Method,
    status: StatusCode,
    is_http_11: bool,
    headers: &HeaderMap,
) -> Result<Rest, Malformed> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let length = lengths.next().map(|length| length_of(length).ok_or(Malformed("no valid length")));
    let length = length.transpose()?;
    if lengths.next().is_some() {
        return Err(Malformed("more than one length"));
    }
    let mut encodings = headers.get_all(TRANSFER_ENCODING).iter();
    let encoding = encodings.next();
    if let Some(encoding) = encoding
        && (!encoding.as_bytes().eq_ignore_ascii_case(b"chunked")
            || encodings.next().is_some()
            || length.is_some()
            || !is_http_11)
    {
        return Err(Malformed("an ambiguous transfer-encoding"));
    }
    let has_none = *method == Method::HEAD
        || status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED;
    Ok(match (has_none, encoding, length) {
        (true, ..) | (_, None, Some(0)) => Rest::Nothing,
        (_, Some(_), _) => Rest::Chunks(Chunk::Size),
        (_, None, Some(length)) => Rest::Bytes(length),
        (_, None, None) => Rest::UntilClosed,
    })
}

fn length_of(value: &HeaderValue) -> Option<u64> {
    digits(value.as_bytes(), 10)
}

/// The size in a chunk's line, without its line end, in front of extensions that nobody uses.
pub fn chunk_size(line: &[u8]) -> Option<u64> {
    let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
    digits(size.trim_ascii_end(), 16)
}

/// A number of nothing but digits.
pub fn digits(text: &[u8], radix: u32) -> Option<u64> {
    // A sign is no digit, but from_str_radix takes one.
    let text = std::str::from_utf8(text).ok().filter(|text| !text.starts_with('+'))?;
    u64::from_str_radix(text, radix).ok()
}

impl Decoder {
    /// Takes the next part of the body from the front of `bytes`; none if the body is over or
    /// more bytes are needed.
    pub fn next(&mut self, bytes: &mut Bytes) -> Result<Option<Frame<Bytes>>, Malformed> {
        match &mut self.0 {
            Rest::Nothing => Ok(None),
            Rest::Bytes(_) | Rest::UntilClosed if bytes.is_empty() => Ok(None),
            Rest::UntilClosed => Ok(Some(Frame::data(std::mem::take(bytes)))),
            Rest::Bytes(left) => {
                let data = take(bytes, left);
                if *left == 0 {
                    self.0 = Rest::Nothing;
                }
                Ok(Some(Frame::data(data)))
            }
            Rest::Chunks(_) => self.next_of_chunks(bytes),
        }
    }

    fn next_of_chunks(&mut self, bytes: &mut Bytes) -> Result<Option<Frame<Bytes>>, Malformed> {
        while let Rest::Chunks(chunk) = &mut self.0 {
            *chunk = match chunk {
                Chunk::Bytes(_) if bytes.is_empty() => return Ok(None),
                Chunk::Bytes(left) => {
                    let data = take(bytes, left);
                    // Mostly the end is here too: then whoever takes the data knows of it.
                    if *left == 0 && bytes.starts_with(END_AFTER_A_CHUNK) {
                        bytes.advance(END_AFTER_A_CHUNK.len());
                        self.0 = Rest::Nothing;
                    } else if *left == 0 {
                        *chunk = Chunk::End;
                    }
                    return Ok(Some(Frame::data(data)));
                }
                Chunk::End if take_line_end(bytes)? => Chunk::Size,
                Chunk::End => return Ok(None),
                Chunk::Size => match take_size(bytes)? {
                    None => return Ok(None),
                    Some(0) => Chunk::Trailers,
                    Some(size) => Chunk::Bytes(size),
                },
                Chunk::Trailers => {
                    let Some(trailers) = take_trailers(bytes)? else { return Ok(None) };
                    self.0 = Rest::Nothing;
                    return Ok((!trailers.is_empty()).then(|| Frame::trailers(trailers)));
                }
            };
        }
        Ok(None)
    }

    /// No more bytes will come. Returns whether the body is whole.
    pub fn end(&mut self) -> bool {
        if self.0 == Rest::UntilClosed {
            self.0 = Rest::Nothing;
        }
        self.is_over()
    }

    /// Whether all of the body was taken.
    pub fn is_over(&self) -> bool {
        self.0 == Rest::Nothing
    }

    /// What is known of how much is still to come.
    pub fn size_hint(&self) -> SizeHint {
        match self.0 {
            Rest::Nothing => SizeHint::with_exact(0),
            Rest::Bytes(left) => SizeHint::with_exact(left),
            Rest::Chunks(_) | Rest::UntilClosed => SizeHint::default(),
        }
    }
}

/// Takes the line end after a chunk from the front of `bytes`, if it is there.
fn take_line_end(bytes: &mut Bytes) -> Result<bool, Malformed> {
    if bytes.starts_with(LINE_END) {
        bytes.advance(LINE_END.len());
        Ok(true)
    } else if LINE_END.starts_with(bytes) {
        Ok(false)
    } else {
        Err(Malformed("a chunk is longer than it says"))
    }
}

/// Takes the line in front of a chunk from the front of `bytes`, if all of it is there.
fn take_size(bytes: &mut Bytes) -> Result<Option<u64>, Malformed> {
    let end = memchr::memchr(b'\n', bytes).unwrap_or(bytes.len());
    if end > CHUNK_LINE_LIMIT {
        return Err(Malformed("a chunk's line is too long"));
    }
    if end == bytes.len() {
        return Ok(None);
    }
    let size = bytes[..end].strip_suffix(b"\r").and_then(chunk_size);
    bytes.advance(end + 1);
    size.map(Some).ok_or(Malformed("a chunk has no valid size"))
}

/// Takes the trailers from the front of `bytes`, if all of them are there.
fn take_trailers(bytes: &mut Bytes) -> Result<Option<HeaderMap>, Malformed> {
    let front = bytes.clone();
    let mut trailers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let (length, trailers) = match httparse::parse_headers(&front, &mut trailers) {
        Ok(Status::Complete(parsed)) if parsed.0 <= TRAILERS_LIMIT => parsed,
        Ok(Status::Partial) if front.len() <= TRAILERS_LIMIT => return Ok(None),
        Ok(_) => return Err(Malformed("the trailers are too large")),
        Err(_) => return Err(Malformed("the trailers are not valid")),
    };
    let mut lines = front[..length].split_inclusive(|byte| *byte == b'\n');
    if !lines.all(|line| line.ends_with(LINE_END)) {
        return Err(Malformed("the trailers are not valid"));
    }
    let mut trailers = map(trailers, &front)?;
    headers::strip(&mut trailers);
    // That the body is over has been settled, whatever they say of its length.
    trailers.remove(CONTENT_LENGTH);
    bytes.advance(length);
    Ok(Some(trailers))
}

/// Takes what there is of `left` bytes from the front of `bytes`.
fn take(bytes: &mut Bytes, left: &mut u64) -> Bytes {
    let length = usize::try_from(*left).map_or(bytes.len(), |left| left.min(bytes.len()));
    *left -= length as u64;
    bytes.split_to(length)
}

impl Encoder {
    /// As `headers` announce the body.
    pub fn of(headers: &HeaderMap) -> Encoder {
        match headers.contains_key(TRANSFER_ENCODING) {
            true => Encoder::Chunks,
            false => Encoder::Bytes(headers.get(CONTENT_LENGTH).and_then(length_of).unwrap_or(0)),
        }
    }

    /// Adds `data` to `bytes`; an error if that is more than was announced.
    pub fn write(&mut self, bytes: &mut Vec<u8>, data: &[u8]) -> Result<(), Malformed> {
        match self {
            Encoder::Bytes(left) => {
                let rest = left.checked_sub(data.len() as u64);
                *left = rest.ok_or(Malformed("a body is longer than its length"))?;
                bytes.extend_from_slice(data);
            }
            // An empty one would be the last.
            Encoder::Chunks if data.is_empty() => {}
            Encoder::Chunks => {
                write!(bytes, "{:x}\r\n", data.len()).expect("a Vec takes everything");
                bytes.extend_from_slice(data);
                bytes.extend_from_slice(LINE_END);
            }
        }
        Ok(())
    }

    /// Adds what ends the body to `bytes`; an error if it is shorter than was announced.
    pub fn end(&self, bytes: &mut Vec<u8>) -> Result<(), Malformed> {
        match self {
            Encoder::Bytes(0) => {}
            Encoder::Bytes(_) => return Err(Malformed("a body is shorter than its length")),
            Encoder::Chunks => bytes.extend_from_slice(LAST_CHUNK),
        }
        Ok(())
    }
}

impl From<InvalidHeaderName> for Malformed {
    fn from(_: InvalidHeaderName) -> Malformed {
        Malformed("a header has no valid name")
    }
}

impl From<InvalidHeaderValue> for Malformed {
    fn from(_: InvalidHeaderValue) -> Malformed {
        Malformed("a header has no valid value")
    }
}

#[cfg(test)]
mod tests;
