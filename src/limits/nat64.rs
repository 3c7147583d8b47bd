//! Clients of IPv4 behind a translator, whose addresses look like IPv6 (RFC 6052).

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::Ipv6Net;

/// The octet of bits 64 to 71, which no address of IPv4 goes into.
const UNUSED_OCTET: usize = 8;

/// Prefixes below which addresses of IPv4 are embedded. Clones are handles to the same.
#[derive(Clone, Debug, Default)]
pub struct Nat64(Arc<[Ipv6Net]>);

impl Nat64 {
    /// With `prefixes` of 32, 40, 48, 56, 64 or 96 bits.
    pub fn new(prefixes: Vec<Ipv6Net>) -> Nat64 {
        Nat64(prefixes.into())
    }

    /// Who is at `address`: the client of IPv4 that a translator has put into it, if one has.
    pub fn client(&self, address: IpAddr) -> IpAddr {
        let IpAddr::V6(outer) = address.to_canonical() else { return address };
        let octets = outer.octets();
        let embeds = |prefix: &&Ipv6Net| {
            prefix.contains(&outer) && (prefix.prefix_len() == 96 || octets[UNUSED_OCTET] == 0)
        };
        // Of two that fit it is the one that says more.
        let Some(prefix) = self.0.iter().filter(embeds).max_by_key(|it| it.prefix_len()) else {
            return address;
        };
        let mut rest = (usize::from(prefix.prefix_len()) / 8..).filter(|at| *at != UNUSED_OCTET);
        let inner: [u8; 4] = std::array::from_fn(|_| rest.next().map_or(0, |at| octets[at]));
        Ipv4Addr::from(inner).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_that_was_translated_is_found_below_every_prefix() {
        // As in RFC 6052, 2.4.
        for (prefix, address) in [
            ("2001:db8::/32", "2001:db8:c000:221::"),
            ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
            ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
            ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
            ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
            ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
            ("64:ff9b::/96", "64:ff9b::192.0.2.33"),
            ("64:ff9b:1::/48", "64:ff9b:1:c000:2:2100::"),
            // What comes after the address says nothing.
            ("64:ff9b:1::/48", "64:ff9b:1:c000:2:2100:0:5"),
        ] {
            let nat64 = Nat64::new(vec![prefix.parse().unwrap()]);
            let address = address.parse().unwrap();
            assert_eq!(nat64.client(address).to_string(), "192.0.2.33", "{prefix}");
            let stranger = "2001:db9::1".parse().unwrap();
            assert_eq!(nat64.client(stranger), stranger);
            assert_eq!(Nat64::default().client(address), address);
        }
    }

    #[test]
    fn what_is_no_translation_is_left_alone() {
        let nat64 = ["64:ff9b::/96", "2001:db8:122::/48", "2001:db8:122::/96"];
        let nat64 = Nat64::new(nat64.map(|it| it.parse().unwrap()).into());
        for (address, client) in [
            ("64:ff9b::1:192.0.2.33", "64:ff9b::1:c000:221"),
            ("2001:db8:122:c000:102:2100::", "2001:db8:122:c000:102:2100::"),
            ("2001:db8:122::192.0.2.33", "192.0.2.33"),
            ("::ffff:192.0.2.33", "::ffff:192.0.2.33"),
            ("192.0.2.33", "192.0.2.33"),
            ("2002:c000:221::1", "2002:c000:221::1"),
        ] {
            assert_eq!(nat64.client(address.parse().unwrap()), client.parse::<IpAddr>().unwrap());
        }
    }
}
