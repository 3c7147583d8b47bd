//! Answers are read as they are meant however they arrive, and what is none is refused.

use hyper::http::uri::PathAndQuery;
use hyper::{Request, Uri};
use proptest::prelude::*;

use super::*;

/// What comes of `answer` to a `method` request when it arrives `step` bytes at a time and
/// then ends: its status, its body, its trailers, whether the connection can be used again,
/// and what is left over; or why it is none.
fn read(method: &Method, answer: &[u8], step: usize) -> Result<Read, String> {
    let mut bytes = Bytes::new();
    let mut steps = answer.chunks(step);
    let mut more = |bytes: &mut Bytes| match steps.next() {
        Some(step) => {
            *bytes = [bytes, step].concat().into();
            true
        }
        None => false,
    };
    let head = loop {
        if let Some(head) = read_head(&mut bytes, method).map_err(|it| it.to_string())? {
            break head;
        }
        if !more(&mut bytes) {
            return Err("ends in its head".to_owned());
        }
    };
    let status = head.response.status().as_u16();
    let mut decoder = head.response.into_body();
    let announced = decoder.size_hint().exact();
    let (mut body, mut trailers) = (Vec::new(), None);
    while !decoder.is_over() {
        match decoder.next(&mut bytes).map_err(|it| it.to_string())? {
            Some(frame) => match frame.into_data() {
                Ok(data) => {
                    assert!(!data.is_empty());
                    body.extend_from_slice(&data);
                }
                Err(frame) => trailers = frame.into_trailers().ok(),
            },
            None if decoder.is_over() || more(&mut bytes) => {}
            None if decoder.end() => {}
            None => return Err("ends in its body".to_owned()),
        }
    }
    assert!(announced.is_none_or(|it| it == body.len() as u64));
    while more(&mut bytes) {}
    let body = String::from_utf8_lossy(&body).into_owned();
    let trailers = trailers.map(|it| it.len()).unwrap_or_default();
    let left = String::from_utf8_lossy(&bytes).into_owned();
    Ok(Read { status, body, trailers, keeps_open: head.keeps_open, left })
}

#[derive(Debug, PartialEq, Eq)]
struct Read {
    status: u16,
    body: String,
    trailers: usize,
    keeps_open: bool,
    left: String,
}

/// Status, body, trailers, whether it is kept open, what is left over.
type Expected = (u16, &'static str, usize, bool, &'static str);

/// Answers, and what is to be read.
const ANSWERS: &[(&str, Expected)] = &[
    ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcHTTP", (200, "abc", 0, true, "HTTP")),
    ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", (200, "", 0, true, "")),
    (
        "HTTP/1.1 200\r\ncontent-length:3\r\nconnection: x, Close\r\n\r\nabc",
        (200, "abc", 0, false, ""),
    ),
    ("HTTP/1.1 200 OK\r\n\r\nabc", (200, "abc", 0, false, "")),
    ("HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nabc", (200, "abc", 0, false, "")),
    ("HTTP/1.0 200 OK\r\n\r\nabc", (200, "abc", 0, false, "")),
    ("HTTP/1.1 204 No\r\n\r\nabc", (204, "", 0, true, "abc")),
    ("HTTP/1.1 304 No\r\ncontent-length: 3\r\n\r\n", (304, "", 0, true, "")),
    ("HTTP/1.1 100 Go\r\n\r\nHTTP", (100, "", 0, true, "HTTP")),
    (
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nx",
        (200, "abc", 0, true, "x"),
    ),
    (
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
         003;x=\"y\"\r\nabc\r\nA\r\n0123456789\r\n00\r\na: b\r\nc: d\r\n\r\nx",
        (200, "abc0123456789", 2, true, "x"),
    ),
    ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", (200, "", 0, true, "")),
];

const MALFORMED: &[&str] = &[
    "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc",
    "HTTP/1.1 200 OK\r\ncontent-length: 3, 3\r\n\r\nabc",
    "HTTP/1.1 200 OK\r\ncontent-length: +3\r\n\r\nabc",
    "HTTP/1.1 200 OK\r\ncontent-length: -3\r\n\r\nabc",
    "HTTP/1.1 200 OK\r\ncontent-length: 0x3\r\n\r\nabc",
    "HTTP/1.1 200 OK\r\ncontent-length:\r\n\r\nabc",
    "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\nabc",
    "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\na: b\r\n folded: c\r\n\r\n",
    "HTTP/1.1 200 OK\r\na : b\r\n\r\n",
    "HTTP/1.1 200 OK\r\na: \0\r\n\r\n",
    "HTTP/1.1 099 OK\r\n\r\n",
    "HTTP/2 200 OK\r\n\r\n",
    "SSH-2.0-OpenSSH_9.2\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\nabc\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n11111111111111111\r\nabc",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n folded\r\n\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n\r\n\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n;x\r\n\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n \r\n\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;\nabc\r\nabc\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;a\nb\r\nabc\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\n",
    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\na: b\n\n",
];

#[test]
fn an_answer_to_head_has_no_body_whatever_it_says() {
    for answer in ["content-length: 3\r\n", "transfer-encoding: chunked\r\n", ""] {
        let answer = format!("HTTP/1.1 200 OK\r\n{answer}\r\n");
        let read = read(&Method::HEAD, answer.as_bytes(), 1000).unwrap();
        assert_eq!((read.body.as_str(), read.keeps_open), ("", true), "{answer}");
    }
}

#[test]
fn nothing_is_waited_for_without_a_limit() {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    for endless in ["HTTP/1.1 200 OK\r\na: ", &format!("{head}3;"), &format!("{head}0\r\na: ")] {
        let endless = endless.to_owned() + &"a".repeat(HEAD_LIMIT + 1);
        // Nor is it taken if it happens to come at once.
        for answer in [endless.clone(), endless + "\r\n\r\n"] {
            for step in [1000, answer.len()] {
                let refusal = read(&Method::GET, answer.as_bytes(), step).unwrap_err();
                assert!(refusal.contains("too l"), "{refusal}");
            }
        }
    }
}

#[test]
fn trailers_say_nothing_of_a_connection_or_of_lengths() {
    let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nconnection: x\r\n\
                  x: y\r\ntransfer-encoding: gzip\r\ncontent-length: 7\r\nkept: yes\r\n\r\n";
    assert_eq!(read(&Method::GET, answer.as_bytes(), 7).unwrap().trailers, 1);
}

#[test]
fn a_target_is_a_path_whatever_the_client_called_it() {
    for (target, expected) in [
        ("/a?b=c", "GET /a?b=c HTTP/1.1\r\n\r\n"),
        ("/", "GET / HTTP/1.1\r\n\r\n"),
        ("?b=c", "GET /?b=c HTTP/1.1\r\n\r\n"),
        ("*", "GET * HTTP/1.1\r\n\r\n"),
    ] {
        let target = PathAndQuery::try_from(target).unwrap();
        let (head, ()) = Request::get(Uri::from(target)).body(()).unwrap().into_parts();
        let mut bytes = Vec::new();
        write_head(&mut bytes, &head);
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }
}

#[test]
fn a_reason_of_the_backends_own_is_passed_on() {
    for (line, expected) in
        [("HTTP/1.1 200 OK", None), ("HTTP/1.1 200", None), ("HTTP/1.1 200 Fine", Some("Fine"))]
    {
        let mut bytes = Bytes::from(format!("{line}\r\n\r\n"));
        let head = read_head(&mut bytes, &Method::GET).unwrap().unwrap();
        let reason = head.response.extensions().get::<ReasonPhrase>();
        assert_eq!(reason.map(ReasonPhrase::as_bytes), expected.map(str::as_bytes));
    }
}

#[test]
fn a_body_must_be_as_long_as_was_announced() {
    for (data, expected) in [("ab", "shorter"), ("abcd", "longer")] {
        let (mut encoder, mut bytes) = (Encoder::Bytes(3), Vec::new());
        let written = encoder.write(&mut bytes, data.as_bytes());
        let ended = written.and_then(|()| encoder.end(&mut bytes));
        assert!(ended.unwrap_err().to_string().contains(expected));
    }
}

proptest! {
    #[test]
    fn answers_are_read_alike_however_they_arrive(
        (answer, expected) in prop::sample::select(ANSWERS),
        step in 1..200_usize,
    ) {
        let (status, body, trailers, keeps_open, left) = expected;
        let (body, left) = (body.to_owned(), left.to_owned());
        let expected = Read { status, body, trailers, keeps_open, left };
        prop_assert_eq!(read(&Method::GET, answer.as_bytes(), step), Ok(expected));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_not_read(
        answer in prop::sample::select(MALFORMED),
        step in 1..200_usize,
    ) {
        let refusal = read(&Method::GET, answer.as_bytes(), step).unwrap_err();
        prop_assert!(!refusal.starts_with("ends"), "{}", refusal);
    }

    #[test]
    fn part_of_an_answer_is_never_all_of_it(
        (answer, (_, body, ..)) in prop::sample::select(ANSWERS),
        end in any::<prop::sample::Index>(),
        step in 1..200_usize,
    ) {
        let is_framed = answer.contains("content-length") || answer.contains("hunked");
        let part = &answer[..end.index(answer.len())];
        if let Ok(read) = read(&Method::GET, part.as_bytes(), step) {
            prop_assert!(!is_framed || read.body == body, "{}", read.body);
        }
    }

    #[test]
    fn anything_at_all_is_read_or_refused(
        head in prop::sample::select(ANSWERS),
        bytes in prop::collection::vec(any::<u8>(), 0..100),
        at in any::<prop::sample::Index>(),
        step in 1..200_usize,
    ) {
        let mut answer = head.0.as_bytes().to_vec();
        let at = at.index(answer.len());
        answer.splice(at..at, bytes);
        // It does not panic, and comes to an end.
        let _ = read(&Method::GET, &answer, step);
    }

    #[test]
    fn what_is_written_in_chunks_is_read_again(
        parts in prop::collection::vec("[a-z]{0,40}", 0..10),
        step in 1..200_usize,
    ) {
        let mut bytes = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        let mut encoder = Encoder::Chunks;
        for part in &parts {
            encoder.write(&mut bytes, part.as_bytes()).unwrap();
        }
        encoder.end(&mut bytes).unwrap();
        prop_assert_eq!(read(&Method::GET, &bytes, step).unwrap().body, parts.concat());
    }
}
