//! What a proxy says of the way of a request: X-Forwarded-For, -Proto and -Host, or Forwarded
//! (RFC 7239). Nothing here decides whom to believe.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};

use ::http::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue};

use super::{FORWARDED_FOR, FORWARDED_HOST, FORWARDED_PROTO};
use crate::web::list;
use crate::web::target::is_host;

/// What was said, by the nearest proxy first. Each proxy adds to the lists, so that those of one
/// length say the same of one step in the same place.
#[derive(Default)]
pub struct Told<'a> {
    /// None where something else stands.
    addresses: Vec<Option<IpAddr>>,
    schemes: Vec<Cow<'a, str>>,
    hosts: Vec<Cow<'a, str>>,
}

impl<'a> Told<'a> {
    /// What `headers` say. Forwarded counts where there is no X-Forwarded-For.
    pub fn by(headers: &'a HeaderMap) -> Told<'a> {
        let addresses: Vec<_> = items(headers, &FORWARDED_FOR).map(node).collect();
        let mut told = match addresses.is_empty() {
            true => Told::by_elements(items(headers, &FORWARDED)),
            false => Told { addresses, ..Told::default() },
        };
        for (list, name) in
            [(&mut told.schemes, &FORWARDED_PROTO), (&mut told.hosts, &FORWARDED_HOST)]
        {
            if headers.contains_key(name) {
                *list = items(headers, name).map(Cow::Borrowed).collect();
            }
        }
        told
    }

    fn by_elements(elements: impl Iterator<Item = &'a str>) -> Told<'a> {
        let mut told = Told::default();
        for element in elements.filter(|it| split(it.as_bytes(), b';').next().is_some()) {
            let element = Element::read(element).unwrap_or_default();
            told.addresses.push(element.node.as_deref().and_then(node));
            told.schemes.push(element.scheme.unwrap_or_default());
            told.hosts.push(element.host.unwrap_or_default());
        }
        told
    }

    /// The addresses, the nearest first.
    pub fn addresses(&self) -> impl Iterator<Item = Option<IpAddr>> {
        self.addresses.iter().copied()
    }

    /// By which scheme the client came, if the nearest addresses are `believed`, so many.
    pub fn scheme(&self, believed: usize) -> Option<&'static str> {
        let scheme = self.of_client(&self.schemes, believed)?.to_ascii_lowercase();
        match scheme.as_str() {
            "https" | "wss" => Some("https"),
            "http" | "ws" => Some("http"),
            _ => None,
        }
    }

    /// Which host the client asked for, if the nearest addresses are `believed`, so many.
    pub fn host(&self, believed: usize) -> Option<HeaderValue> {
        let host = self.of_client(&self.hosts, believed)?;
        is_host(host.as_bytes()).then(|| HeaderValue::from_str(host).ok()).flatten()
    }

    /// What `list` says of the client's own step, which the proxy wrote that wrote its address. Of
    /// lists that do not go together it is the client's end.
    fn of_client<'b>(&self, list: &'b [Cow<'a, str>], believed: usize) -> Option<&'b str> {
        let item = match list.len() == self.addresses.len() {
            true => list.get(believed.saturating_sub(1)),
            false => list.last(),
        };
        item.map(|item| &**item)
    }
}

/// An element of Forwarded.
#[derive(Default)]
struct Element<'a> {
    node: Option<Cow<'a, str>>,
    scheme: Option<Cow<'a, str>>,
    host: Option<Cow<'a, str>>,
}

impl<'a> Element<'a> {
    /// None if a pair is not well-formed, or is there twice.
    fn read(text: &'a str) -> Option<Element<'a>> {
        let mut element = Element::default();
        for pair in split(text.as_bytes(), b';') {
            let (name, value) = pair.split_once('=')?;
            let place = match name.to_ascii_lowercase().as_str() {
                "for" => &mut element.node,
                "proto" => &mut element.scheme,
                "host" => &mut element.host,
                _ => continue,
            };
            if place.replace(unquoted(value)?).is_some() {
                return None;
            }
        }
        Some(element)
    }
}

/// The items of all lines of header `name`, the last first.
fn items<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers.get_all(name).into_iter().rev().flat_map(|line| split(line.as_bytes(), b','))
}

/// The parts of `bytes` between `separator`s that are not in quotes, without blanks around them,
/// the last first; empty ones are none (RFC 9110, 5.6.1). It is read from the right, where the
/// nearest proxy wrote: nothing that stands before can swallow its words, be it a quote or what
/// is no text.
fn split(bytes: &[u8], separator: u8) -> impl Iterator<Item = &str> {
    let mut left = Some(bytes);
    let parts = std::iter::from_fn(move || {
        let bytes = left?;
        match last_separator(bytes, separator) {
            Some(at) => {
                left = Some(&bytes[..at]);
                Some(&bytes[at + 1..])
            }
            None => left.take(),
        }
    });
    parts.map(<[u8]>::trim_ascii).filter(|part| !part.is_empty()).map(list::text)
}

fn last_separator(bytes: &[u8], separator: u8) -> Option<usize> {
    let is_escaped = |at: usize| {
        let escapes = bytes[..at].iter().rev().take_while(|byte| **byte == b'\\');
        escapes.count() % 2 == 1
    };
    let mut quoted = false;
    (0..bytes.len()).rev().find(|at| {
        quoted ^= bytes[*at] == b'"' && !is_escaped(*at);
        bytes[*at] == separator && !quoted
    })
}

/// A token as it is, or what a quoted string says; none if the quotes do not match.
fn unquoted(value: &str) -> Option<Cow<'_, str>> {
    let Some(quoted) = value.strip_prefix('"') else {
        return (!value.contains('"')).then_some(Cow::Borrowed(value));
    };
    let (mut text, mut rest) = (String::new(), quoted.chars());
    loop {
        match rest.next()? {
            '"' => return rest.next().is_none().then_some(Cow::Owned(text)),
            '\\' => text.push(rest.next()?),
            it => text.push(it),
        }
    }
}

/// The address in a node, with or without quotes, brackets and a port. None for `unknown`, for a
/// name that hides an address (`_hidden`), and for everything that is neither.
fn node(text: &str) -> Option<IpAddr> {
    let text = unquoted(text)?;
    let (address, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(address, port)| (without_zone(address), port))?,
        None => match text.split_once(':') {
            Some((address, port)) if !port.contains(':') => {
                (address, &text[text.len() - port.len() - 1..])
            }
            _ => (without_zone(&text), ""),
        },
    };
    if !port.is_empty() && !port.strip_prefix(':').is_some_and(is_port) {
        return None;
    }
    let address: IpAddr = match text.starts_with('[') {
        true => address.parse::<Ipv6Addr>().ok()?.into(),
        false => address.parse().ok()?,
    };
    Some(address.to_canonical())
}

/// An address without its zone, which means something to its own machine alone (RFC 4007, 11).
fn without_zone(address: &str) -> &str {
    match address.split_once('%') {
        Some((address, zone)) if !zone.is_empty() && address.contains(':') => address,
        _ => address,
    }
}

/// A port, or a name that hides one (RFC 7239, 6).
fn is_port(text: &str) -> bool {
    let hides = |it: &str| {
        !it.is_empty() && it.bytes().all(|it| it.is_ascii_alphanumeric() || b"._-".contains(&it))
    };
    text.strip_prefix('_').is_some_and(hides)
        || ((1..=5).contains(&text.len()) && text.bytes().all(|it| it.is_ascii_digit()))
}
