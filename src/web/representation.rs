//! Answers that are the same for everybody: with a tag, so that who has one already is not
//! sent it again, and compressed for those who can read that.

use std::io::{Read, Write};
use std::sync::OnceLock;

use ::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY,
};
use ::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use super::list::items;

/// What is shorter fits into a packet or two as it is, in bytes.
const WORTH_COMPRESSING: usize = 1024;

/// The part of a digest that tells two contents apart, in bytes.
const TAG: usize = 15;

/// A content, and how it is sent.
pub struct Representation {
    content_type: HeaderValue,
    plain: Bytes,
    /// Made when it is wanted first.
    gzip: OnceLock<Bytes>,
    tag: String,
}

/// The client takes neither what is compressed nor what is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAcceptable;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Identity,
    Gzip,
}

impl Representation {
    /// Of `plain`, which is a `content_type`.
    pub fn new(content_type: HeaderValue, plain: Bytes) -> Representation {
        let tag = URL_SAFE_NO_PAD.encode(&Sha256::digest(&plain)[..TAG]);
        Representation { content_type, plain, gzip: OnceLock::new(), tag }
    }

    /// The same of what is compressed already.
    pub fn of_gzip(content_type: HeaderValue, gzip: Bytes) -> std::io::Result<Representation> {
        let mut plain = Vec::new();
        GzDecoder::new(&gzip[..]).read_to_end(&mut plain)?;
        let representation = Representation::new(content_type, plain.into());
        Ok(Representation { gzip: gzip.into(), ..representation })
    }

    /// The content.
    pub fn plain(&self) -> &Bytes {
        &self.plain
    }

    /// The answer to a GET or HEAD with `headers`: the content, or that it is still the same.
    pub fn answer(&self, headers: &HeaderMap) -> Result<Response, NotAcceptable> {
        let is_image = self.content_type.as_bytes().starts_with(b"image/");
        let worth = self.plain.len() >= WORTH_COMPRESSING && !is_image;
        let coding = wanted(headers, worth)?;
        let tag = match coding {
            Coding::Identity => format!("\"{}\"", self.tag),
            Coding::Gzip => format!("\"{}-gzip\"", self.tag),
        };
        let is_known = is_among(headers, &tag);
        let common = [
            (ETAG, HeaderValue::try_from(tag).expect("letters and digits are a header value")),
            // It may change with the next start, or the next second.
            (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            (VARY, HeaderValue::from(ACCEPT_ENCODING)),
        ];
        if is_known {
            return Ok((StatusCode::NOT_MODIFIED, common).into_response());
        }
        let content_type = [(CONTENT_TYPE, self.content_type.clone())];
        Ok(match coding {
            Coding::Identity => (common, content_type, self.plain.clone()).into_response(),
            Coding::Gzip => {
                let coding = [(CONTENT_ENCODING, HeaderValue::from_static("gzip"))];
                let gzip = self.gzip.get_or_init(|| compressed(&self.plain)).clone();
                (common, content_type, coding, gzip).into_response()
            }
        })
    }
}

fn compressed(plain: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let written = encoder.write_all(plain).and_then(|()| encoder.finish());
    written.expect("memory takes everything").into()
}

/// The coding that a client gets (RFC 9110, 12.5.3); without a word of it, none.
fn wanted(headers: &HeaderMap, worth: bool) -> Result<Coding, NotAcceptable> {
    let gzip = weight(headers, &["gzip", "x-gzip"]).unwrap_or(0.0);
    let identity = weight(headers, &["identity"]);
    let is_preferred = gzip > 0.0 && identity.is_none_or(|identity| gzip >= identity);
    match identity {
        _ if is_preferred && worth => Ok(Coding::Gzip),
        Some(0.0) if gzip > 0.0 => Ok(Coding::Gzip),
        Some(0.0) => Err(NotAcceptable),
        _ => Ok(Coding::Identity),
    }
}

/// How much a client wants one of `codings`, from 0 to 1, by name or by the star.
fn weight(headers: &HeaderMap, codings: &[&str]) -> Option<f32> {
    let listed = |wanted: &dyn Fn(&str) -> bool| {
        items(headers, &ACCEPT_ENCODING).find_map(|item| {
            let (coding, parameter) = item.split_once(';').unwrap_or((item, ""));
            wanted(coding.trim()).then(|| quality(parameter))
        })
    };
    let by_name = listed(&|it| codings.iter().any(|coding| it.eq_ignore_ascii_case(coding)));
    by_name.or_else(|| listed(&|it| it == "*"))
}

/// What is no number wants nothing.
fn quality(parameter: &str) -> f32 {
    let Some((name, value)) = parameter.split_once('=') else { return 1.0 };
    let value = value.trim().parse().ok().filter(|value| (0.0..=1.0).contains(value));
    match name.trim() {
        "q" | "Q" => value.unwrap_or(0.0),
        _ => 1.0,
    }
}

/// Whether the client has what is tagged so already, by weak comparison (RFC 9110, 13.1.2).
fn is_among(headers: &HeaderMap, tag: &str) -> bool {
    // A tag of ours has no comma in it.
    items(headers, &IF_NONE_MATCH).any(|it| it == "*" || it.trim_start_matches("W/") == tag)
}

#[cfg(test)]
mod tests {
    use ::http::HeaderName;

    use super::*;

    fn representation(length: usize) -> Representation {
        let plain = "merch ".repeat(length / 6 + 1).into_bytes();
        Representation::new(HeaderValue::from_static("text/plain"), plain.into())
    }

    fn headers(name: HeaderName, lines: &[&str]) -> HeaderMap {
        lines.iter().map(|line| (name.clone(), line.parse().unwrap())).collect()
    }

    #[test]
    fn a_client_gets_the_coding_that_it_wants_most_of_those_there_are() {
        use Coding::{Gzip, Identity};
        for (lines, expected) in [
            (&[][..], Ok(Identity)),
            (&[""], Ok(Identity)),
            (&["gzip"], Ok(Gzip)),
            (&["GZip"], Ok(Gzip)),
            (&["x-gzip"], Ok(Gzip)),
            (&["br, gzip, deflate, zstd"], Ok(Gzip)),
            (&["br", "gzip"], Ok(Gzip)),
            (&["br"], Ok(Identity)),
            (&["gzipped"], Ok(Identity)),
            (&["*"], Ok(Gzip)),
            (&["gzip;q=0"], Ok(Identity)),
            (&["gzip;q=0, *"], Ok(Identity)),
            (&["gzip; q=0.000"], Ok(Identity)),
            (&["gzip ; q=0.001"], Ok(Gzip)),
            (&["gzip;q=0.5, identity"], Ok(Identity)),
            (&["gzip;q=0.5, identity;q=0.5"], Ok(Gzip)),
            (&["gzip;q=0.5, *;q=0.8"], Ok(Identity)),
            (&["gzip;q=two"], Ok(Identity)),
            (&["gzip;q=2"], Ok(Identity)),
            (&["gzip;q=NaN"], Ok(Identity)),
            (&["identity;q=0, gzip"], Ok(Gzip)),
            (&["identity;q=0, gzip;q=0.1"], Ok(Gzip)),
            (&["*;q=0, gzip"], Ok(Gzip)),
            (&["identity;q=0"], Err(NotAcceptable)),
            (&["identity;q=0, br"], Err(NotAcceptable)),
            (&["*;q=0"], Err(NotAcceptable)),
            (&["br, *;q=0"], Err(NotAcceptable)),
            (&["identity, *;q=0"], Ok(Identity)),
        ] {
            assert_eq!(wanted(&headers(ACCEPT_ENCODING, lines), true), expected, "{lines:?}");
        }
        // What is short is compressed only for those who take nothing else.
        for (line, expected) in [("gzip", Identity), ("identity;q=0, gzip", Gzip)] {
            assert_eq!(wanted(&headers(ACCEPT_ENCODING, &[line]), false), Ok(expected), "{line}");
        }
    }

    #[test]
    fn each_coding_has_a_tag_of_its_own_and_the_same_content_the_same_one() {
        let tag = |it: &Representation, coding: &str| {
            let answer = it.answer(&headers(ACCEPT_ENCODING, &[coding])).unwrap();
            answer.headers()[ETAG].to_str().unwrap().to_owned()
        };
        let (one, other) = (representation(2000), representation(3000));
        let tags = [tag(&one, "gzip"), tag(&one, ""), tag(&other, "gzip"), tag(&other, "")];
        for (at, tag) in tags.iter().enumerate() {
            assert!(tag.starts_with('"') && tag.ends_with('"'), "{tag}");
            assert!(!tags[..at].contains(tag), "{tags:?}");
        }
        assert_eq!(tag(&representation(2000), "gzip"), tags[0]);
    }

    #[test]
    fn who_has_it_already_is_told_so_and_nobody_else() {
        let it = representation(100);
        let tag = format!("\"{}\"", it.tag);
        let gzip = format!("\"{}-gzip\"", it.tag);
        for (lines, known) in [
            (&[tag.as_str()][..], true),
            (&[&format!("W/{tag}")], true),
            (&[&format!("\"other\", {tag}")], true),
            (&["\"other\"", &tag], true),
            (&[&format!("W/\"a\" ,W/{tag} , \"b\"")], true),
            (&["*"], true),
            (&[], false),
            (&[""], false),
            (&["\"other\""], false),
            (&[&it.tag], false),
            (&[&gzip], false),
            (&["\"*\""], false),
        ] {
            let answer = it.answer(&headers(IF_NONE_MATCH, lines)).unwrap();
            let expected = if known { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
            assert_eq!(answer.status(), expected, "{lines:?}");
            for name in [ETAG, CACHE_CONTROL, VARY] {
                assert!(answer.headers().contains_key(&name), "{name}");
            }
            assert_eq!(answer.headers().contains_key(CONTENT_TYPE), !known);
        }
    }

    #[test]
    fn what_is_compressed_is_the_same_content() {
        let it = representation(2000);
        let packed = compressed(it.plain());
        assert!(packed.len() < it.plain().len() / 10);
        let again = Representation::of_gzip(HeaderValue::from_static("text/plain"), packed);
        assert_eq!(again.unwrap().plain(), it.plain());
    }
}
