//! Who a request comes from, and what the backends are told about it; `told` reads what others
//! say.
//!
//! Everybody can write X-Forwarded-For. Only proxies that are on the list are believed, and
//! lists of addresses are read from the right, where the nearest proxy wrote: the first
//! address that is not a trusted proxy's is the client's, and what is left of it is dropped.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use ::http::header::{FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

mod told;

use told::Told;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
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
        drop_claims(headers);
        headers.insert(FORWARDED_FOR, self.forwarded_for.clone());
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(self.scheme));
        headers.insert(FORWARDED, self.forwarded.clone());
        match headers.get(HOST).cloned() {
            Some(host) => headers.insert(FORWARDED_HOST, host),
            None => headers.remove(FORWARDED_HOST),
        };
        Client { address: self.address, text: self.forwarded_for.clone() }
    }

    /// The address of the client whose request has `headers`, for who only wants to know.
    pub fn client(&self, headers: &HeaderMap, trusted: &Trusted) -> IpAddr {
        match self.is_trusted {
            true => self.chain(&Told::by(headers), trusted)[0],
            false => self.address,
        }
    }

    /// The client and the proxies after it, as far as they are believed.
    fn chain(&self, told: &Told, trusted: &Trusted) -> Vec<IpAddr> {
        // The peer last: it is who told us.
        let mut chain = vec![self.address];
        for address in told.addresses().take(LONGEST_CHAIN) {
            // Whoever wrote something else than an address wrote nothing.
            let Some(address) = address else { break };
            chain.insert(0, address);
            if !trusted.contains(address) {
                break;
            }
        }
        chain
    }

    fn rewrite_believing(&self, headers: &mut HeaderMap, trusted: &Trusted) -> Client {
        let told = Told::by(headers);
        let chain = self.chain(&told, trusted);
        let believed = chain.len() - 1;
        let scheme = told.scheme(believed).unwrap_or(self.scheme);
        let host = told.host(believed).or_else(|| headers.get(HOST).cloned());

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

/// Removes whatever else says where a request comes from.
fn drop_claims(headers: &mut HeaderMap) {
    let is_claim =
        |name: &&HeaderName| name.as_str().starts_with("x-forwarded-") || **name == REAL_IP;
    if headers.keys().any(|name| is_claim(&name)) {
        let claims: Vec<HeaderName> = headers.keys().filter(is_claim).cloned().collect();
        claims.iter().for_each(|name| drop(headers.remove(name)));
    }
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
mod tests;
