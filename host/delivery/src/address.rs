//! Which addresses a delivery may go to.
//!
//! A tenant chooses the URL, so an unchecked client would let it reach whatever the host can reach:
//! the cloud's metadata service, the store, a colleague's desk. Only globally routable unicast
//! addresses are allowed, unless the operator says otherwise.
//!
//! Source: the IANA special-purpose address registries for IPv4 and IPv6 (RFC 6890, RFC 8190), as
//! of the reserved blocks that each row names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// IPv4 blocks that are not globally routable unicast: first address, prefix length.
#[allow(clippy::ip_constant)] // a row is a block, not the one address that begins it
const REFUSED_V4: &[(Ipv4Addr, u32)] = &[
    // "This network" (RFC 791): Linux connects 0.0.0.0 to the machine itself.
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    // Private use (RFC 1918), with 172.16/12 and 192.168/16 below.
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    // Shared address space of carrier-grade NAT (RFC 6598); some clouds keep services there.
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    // Loopback (RFC 1122).
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    // Link local (RFC 3927), and with it the metadata services of clouds.
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    // IETF protocol assignments (RFC 6890).
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    // Documentation (RFC 5737), with 198.51.100/24 and 203.0.113/24 below.
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    // Relays of 6to4, withdrawn (RFC 7526).
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    // Benchmarking (RFC 2544).
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    // Multicast (RFC 5771).
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    // Reserved (RFC 1112), limited broadcast (RFC 8190) included.
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// The only IPv6 block that IANA gives out for global unicast (RFC 4291). Everything outside it is
/// refused without being listed: `::`, `::1`, unique local `fc00::/7`, link local `fe80::/10`, site
/// local `fec0::/10`, multicast `ff00::/8`, discard-only `100::/64`, IPv4-compatible `::/96`,
/// local-use NAT64 `64:ff9b:1::/48`, segment routing `5f00::/16`.
const GLOBAL_V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// Blocks inside [`GLOBAL_V6`] that are not globally routable unicast all the same.
const REFUSED_V6: &[(Ipv6Addr, u32)] = &[
    // IETF protocol assignments (RFC 2928): Teredo, benchmarking, ORCHID.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    // Documentation (RFC 3849, RFC 9637).
    (Ipv6Addr::new(0x2001, 0x0db8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
    // 6to4 (RFC 3056): a tunnel to any IPv4 address.
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
];

/// NAT64 (RFC 6052): the last 32 bits are the IPv4 address that the packet ends at.
const NAT64: (Ipv6Addr, u32) = (Ipv6Addr::new(0x0064, 0xff9b, 0, 0, 0, 0, 0, 0), 96);

/// Whether an address is globally routable unicast. One that carries an IPv4 address
/// (`::ffff:0:0/96`, NAT64) is judged by what it carries.
pub fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !REFUSED_V4.iter().any(|block| in_v4(v4, *block)),
        IpAddr::V6(v6) => match carried(v6) {
            Some(v4) => is_global(IpAddr::V4(v4)),
            None => in_v6(v6, GLOBAL_V6) && !REFUSED_V6.iter().any(|block| in_v6(v6, *block)),
        },
    }
}

fn carried(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    if in_v6(v6, NAT64) {
        let [.., a, b, c, d] = v6.octets();
        return Some(Ipv4Addr::new(a, b, c, d));
    }
    v6.to_ipv4_mapped()
}

fn in_v4(address: Ipv4Addr, (first, prefix): (Ipv4Addr, u32)) -> bool {
    (address.to_bits() ^ first.to_bits()) >> (32 - prefix) == 0
}

fn in_v6(address: Ipv6Addr, (first, prefix): (Ipv6Addr, u32)) -> bool {
    (address.to_bits() ^ first.to_bits()) >> (128 - prefix) == 0
}

/// The operator's word on where deliveries may go. The default is the public internet only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    /// Allow every address. For demos and tests, and for hosts whose network is closed already.
    pub allow_private: bool,
    /// Blocks that are allowed although they are not globally routable, such as the network of a
    /// company's own receivers. An IPv4 block covers the IPv4-mapped forms of its addresses.
    pub allowed: Vec<IpNet>,
}

impl AddressPolicy {
    /// Whether a delivery may go to this address.
    pub fn allows(&self, address: IpAddr) -> bool {
        if self.allow_private || is_global(address) {
            return true;
        }
        let plain = address.to_canonical();
        self.allowed
            .iter()
            .any(|block| block.contains(&plain) || block.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_of_the_special_registries_are_refused_at_both_ends() {
        for text in [
            "0.0.0.0",
            "0.255.255.255",
            "10.0.0.0",
            "10.255.255.255",
            "100.64.0.0",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.0.0",
            "169.254.169.254",
            "169.254.255.255",
            "172.16.0.0",
            "172.31.255.255",
            "192.0.0.0",
            "192.0.0.255",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.0",
            "192.168.255.255",
            "198.18.0.0",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:10.1.2.3",
            "::ffff:169.254.169.254",
            "::ffff:0:127.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::8.8.8.8",
            "100::1",
            "2001::1",
            "2001:2::1",
            "2001:1ff:ffff::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:808:808::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_global(ip(text)), "{text} was allowed");
        }
    }

    #[test]
    fn neighbours_of_the_special_blocks_are_allowed() {
        for text in [
            "1.0.0.0",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2606:4700::1111",
            "2a00:1450::1",
        ] {
            assert!(is_global(ip(text)), "{text} was refused");
        }
    }

    #[test]
    fn the_operator_can_allow_a_block_or_everything() {
        let policy = AddressPolicy {
            allowed: vec!["10.1.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()],
            ..AddressPolicy::default()
        };
        for allowed in ["10.1.2.3", "::ffff:10.1.2.3", "fd12::1", "8.8.8.8"] {
            assert!(policy.allows(ip(allowed)), "{allowed}");
        }
        for refused in ["10.2.0.1", "127.0.0.1", "::ffff:10.2.0.1", "fe80::1"] {
            assert!(!policy.allows(ip(refused)), "{refused}");
        }
        let all = AddressPolicy {
            allow_private: true,
            ..AddressPolicy::default()
        };
        assert!(all.allows(ip("127.0.0.1")));
    }
}
