//! Who a request comes from, and what the backends are told about it.
//!
//! Everybody can write X-Forwarded-For. Only proxies that are on the list are believed, and
//! lists of addresses are read from the right, where the nearest proxy wrote: the first
//! address that is not a trusted proxy's is the client's, and what is left of it is dropped.

use std::fmt::Write;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use ::http::header::{FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

use super::target::is_host;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// The most proxies that a request may have come through.
const LONGEST_CHAIN: usize = 32;

/// Proxies that are believed.
#[derive(Clone, Debug, Default)]
pub struct Trusted(Vec<IpNet>);

/// Who a request comes from.
#[derive(Debug)]
pub struct Client {
    /// Its address.
    pub address: IpAddr,
    /// The same, written out.
    pub text: HeaderValue,
}

/// The other end of a connection, and what is said of every request on it.
#[derive(Clone, Debug)]
pub struct Peer {
    address: IpAddr,
    is_trusted: bool,
    scheme: &'static str,
    forwarded_for: HeaderValue,
    forwarded: HeaderValue,
}

impl Trusted {
    /// Believes proxies with an address in one of `networks`.
    pub fn new(networks: Vec<IpNet>) -> Trusted {
        Trusted(networks)
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

impl Peer {
    /// Whoever connected from `address`, with `scheme` (`http` or `https`).
    pub fn new(address: SocketAddr, scheme: &'static str, trusted: &Trusted) -> Peer {
        // An IPv4 client of a socket that takes both is an IPv4 client.
        let address = address.ip().to_canonical();
        Peer {
            address,
            is_trusted: trusted.contains(address),
            scheme,
            forwarded_for: header_value(&address.to_string()),
            forwarded: header_value(&element(address, None, scheme)),
        }
    }

    /// Replaces what `headers` say of the way of a request by what is true. Returns who
    /// the client is.
    pub fn rewrite(&self, headers: &mut HeaderMap, trusted: &Trusted) -> Client {
        if self.is_trusted {
            return self.rewrite_believing(headers, trusted);
        }
        headers.remove(FORWARDED_PORT);
        headers.remove(REAL_IP);
        headers.insert(FORWARDED_FOR, self.forwarded_for.clone());
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(self.scheme));
        headers.insert(FORWARDED, self.forwarded.clone());
        match headers.get(HOST).cloned() {
            Some(host) => headers.insert(FORWARDED_HOST, host),
            None => headers.remove(FORWARDED_HOST),
        };
        Client { address: self.address, text: self.forwarded_for.clone() }
    }

    fn rewrite_believing(&self, headers: &mut HeaderMap, trusted: &Trusted) -> Client {
        let told = match headers.contains_key(FORWARDED_FOR) {
            true => addresses(headers, &FORWARDED_FOR, ',', parse_address),
            false => addresses(headers, &FORWARDED, ',', parse_element),
        };
        // The peer last: it is who told us.
        let mut chain = vec![self.address];
        for address in told.into_iter().rev().take(LONGEST_CHAIN) {
            // Whoever wrote something else than an address wrote nothing.
            let Some(address) = address else { break };
            chain.insert(0, address);
            if !trusted.contains(address) {
                break;
            }
        }
        let scheme = match headers.get(FORWARDED_PROTO).map(HeaderValue::as_bytes) {
            Some(b"https") => "https",
            Some(b"http") => "http",
            _ => self.scheme,
        };
        let host = headers.get(FORWARDED_HOST).filter(|host| is_host(host.as_bytes()));
        let host = host.or(headers.get(HOST)).cloned();

        let mut forwarded_for = chain[0].to_string();
        let client = Client { address: chain[0], text: header_value(&forwarded_for) };
        let mut forwarded = element(chain[0], host.as_ref(), scheme);
        for address in &chain[1..] {
            let _ = write!(forwarded_for, ", {address}");
            let _ = write!(forwarded, ", for={}", node(*address));
        }
        headers.remove(REAL_IP);
        headers.insert(FORWARDED_FOR, header_value(&forwarded_for));
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme));
        headers.insert(FORWARDED, header_value(&forwarded));
        match host {
            Some(host) => headers.insert(FORWARDED_HOST, host),
            None => headers.remove(FORWARDED_HOST),
        };
        client
    }
}

/// The items of all lines of header `name`, each as `parse` reads it.
fn addresses(
    headers: &HeaderMap,
    name: &HeaderName,
    separator: char,
    parse: impl Fn(&str) -> Option<IpAddr>,
) -> Vec<Option<IpAddr>> {
    let lines = headers.get_all(name).iter().map(|line| line.to_str().unwrap_or("unreadable"));
    lines.flat_map(|line| line.split(separator)).map(|item| parse(item.trim())).collect()
}

/// An address, with or without brackets and a port.
fn parse_address(text: &str) -> Option<IpAddr> {
    let address = text.parse().ok().or_else(|| text.parse().ok().map(|it: SocketAddr| it.ip()));
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok();
    address.or_else(|| bracketed().map(IpAddr::V6)).map(|address| address.to_canonical())
}

/// The address in an element of `Forwarded` (RFC 7239).
fn parse_element(element: &str) -> Option<IpAddr> {
    let node = element.split(';').find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        name.eq_ignore_ascii_case("for").then_some(value)
    })?;
    parse_address(node.trim_matches('"'))
}

/// The first element of `Forwarded`.
fn element(address: IpAddr, host: Option<&HeaderValue>, scheme: &str) -> String {
    let mut element = format!("for={}", node(address));
    if let Some(host) = host.and_then(|host| host.to_str().ok()) {
        let _ = write!(element, ";host=\"{host}\"");
    }
    element + ";proto=" + scheme
}

/// An address as `Forwarded` has it: IPv6 in brackets and quotes.
fn node(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("\"[{address}]\""),
    }
}

fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("addresses and hosts are header values")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a request with `given` headers from `peer` becomes: the client's address, and
    /// X-Forwarded-For, -Proto, -Host and Forwarded.
    fn rewritten(peer: &str, given: &[(&'static str, &str)]) -> [String; 5] {
        let trusted = ["10.0.0.0/8", "fd00::/8"].map(|it| it.parse().unwrap());
        let trusted = Trusted::new(trusted.into());
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_static("shop"));
        for (name, value) in given {
            headers.append(*name, value.parse().unwrap());
        }
        let peer = Peer::new(SocketAddr::new(peer.parse().unwrap(), 1), "http", &trusted);
        let client = peer.rewrite(&mut headers, &trusted).address;
        let one = |name: HeaderName| {
            assert_eq!(headers.get_all(&name).iter().count(), 1, "{name}");
            headers[name].to_str().unwrap().to_owned()
        };
        assert!(!headers.contains_key(REAL_IP));
        let told = [FORWARDED_FOR, FORWARDED_PROTO, FORWARDED_HOST, FORWARDED].map(one);
        let [forwarded_for, proto, host, forwarded] = told;
        [client.to_string(), forwarded_for, proto, host, forwarded]
    }

    #[test]
    fn what_somebody_says_who_is_not_trusted_is_dropped() {
        let spoofed = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil"),
            ("forwarded", "for=1.1.1.1;proto=https;host=evil"),
            ("x-real-ip", "1.1.1.1"),
        ];
        for given in [&[][..], &spoofed[..]] {
            assert_eq!(
                rewritten("203.0.113.7", given),
                ["203.0.113.7", "203.0.113.7", "http", "shop", "for=203.0.113.7;proto=http"]
            );
        }
        assert_eq!(
            rewritten("2001:db8::7", &spoofed),
            ["2001:db8::7", "2001:db8::7", "http", "shop", "for=\"[2001:db8::7]\";proto=http"]
        );
        assert_eq!(rewritten("::ffff:203.0.113.7", &spoofed)[0], "203.0.113.7");
    }

    #[test]
    fn chains_are_read_from_the_right_as_far_as_they_are_trusted() {
        for (given, client, forwarded_for) in [
            (&[][..], "10.0.0.1", "10.0.0.1"),
            (&["1.1.1.1"], "1.1.1.1", "1.1.1.1, 10.0.0.1"),
            (&["6.6.6.6, 1.1.1.1"], "1.1.1.1", "1.1.1.1, 10.0.0.1"),
            (&["6.6.6.6", "1.1.1.1"], "1.1.1.1", "1.1.1.1, 10.0.0.1"),
            (&["1.1.1.1, 10.0.0.2"], "1.1.1.1", "1.1.1.1, 10.0.0.2, 10.0.0.1"),
            (&["10.6.6.6, 1.1.1.1, fd00::2"], "1.1.1.1", "1.1.1.1, fd00::2, 10.0.0.1"),
            (&["10.0.0.3, 10.0.0.2"], "10.0.0.3", "10.0.0.3, 10.0.0.2, 10.0.0.1"),
            (&["1.1.1.1, nonsense"], "10.0.0.1", "10.0.0.1"),
            (&["1.1.1.1, nonsense, 10.0.0.2"], "10.0.0.2", "10.0.0.2, 10.0.0.1"),
            (&[""], "10.0.0.1", "10.0.0.1"),
            (&["1.1.1.1:1234"], "1.1.1.1", "1.1.1.1, 10.0.0.1"),
            (&["[2001:db8::1]:1234"], "2001:db8::1", "2001:db8::1, 10.0.0.1"),
            (&["[2001:db8::1]"], "2001:db8::1", "2001:db8::1, 10.0.0.1"),
            (&["::ffff:1.1.1.1"], "1.1.1.1", "1.1.1.1, 10.0.0.1"),
        ] {
            let headers: Vec<_> = given.iter().map(|line| ("x-forwarded-for", *line)).collect();
            let told = rewritten("10.0.0.1", &headers);
            assert_eq!(told[..2], [client, forwarded_for], "{given:?}");
        }
    }

    #[test]
    fn a_trusted_proxy_may_say_the_rest_too() {
        for (given, proto, host, forwarded) in [
            (&[][..], "http", "shop", "for=10.0.0.1;host=\"shop\";proto=http"),
            (
                &[("x-forwarded-proto", "https"), ("x-forwarded-host", "merch.example")],
                "https",
                "merch.example",
                "for=10.0.0.1;host=\"merch.example\";proto=https",
            ),
            (
                &[("x-forwarded-proto", "gopher"), ("x-forwarded-host", "a\"b")],
                "http",
                "shop",
                "for=10.0.0.1;host=\"shop\";proto=http",
            ),
            (
                &[("forwarded", "for=6.6.6.6, For=\"[2001:db8::1]:99\";proto=https")],
                "http",
                "shop",
                "for=\"[2001:db8::1]\";host=\"shop\";proto=http, for=10.0.0.1",
            ),
        ] {
            assert_eq!(rewritten("10.0.0.1", given)[2..], [proto, host, forwarded], "{given:?}");
        }
        let both = [("forwarded", "for=6.6.6.6"), ("x-forwarded-for", "1.1.1.1")];
        assert_eq!(rewritten("10.0.0.1", &both)[0], "1.1.1.1");
    }
}
