//! Blocks of IP addresses: whose word about a client's address is believed.

use std::{net::IpAddr, str::FromStr};

/// A set of blocks. The empty set stands for the addresses that no host on the internet has.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Networks(Vec<Block>);

/// Addresses that agree in their first bits, such as `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    net: IpAddr,
    bits: u8,
}

/// A text that is no block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("wanted an address or ADDRESS/BITS")]
pub struct BlockError;

impl Networks {
    /// Whether `ip` is in one of the blocks. Without blocks: whether it is a loopback, private,
    /// link-local or unique-local address. IPv4 written as IPv6 (`::ffff:…`) counts as IPv4.
    #[must_use]
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        if self.0.is_empty() {
            return match ip {
                IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
                IpAddr::V6(ip) => {
                    ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()
                }
            };
        }
        self.0.iter().any(|block| block.contains(ip))
    }
}

impl FromIterator<Block> for Networks {
    fn from_iter<T: IntoIterator<Item = Block>>(blocks: T) -> Self {
        Self(blocks.into_iter().collect())
    }
}

impl Block {
    fn contains(self, ip: IpAddr) -> bool {
        match (self.net, ip) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.bits)).unwrap_or(0);
                (net.to_bits() ^ ip.to_bits()) & mask == 0
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
                (net.to_bits() ^ ip.to_bits()) & mask == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for Block {
    type Err = BlockError;

    /// An address, or an address and the number of bits that count.
    fn from_str(text: &str) -> Result<Self, BlockError> {
        let (ip, bits) = match text.split_once('/') {
            Some((ip, bits)) => (ip, Some(bits.parse::<u8>().map_err(|_| BlockError)?)),
            None => (text, None),
        };
        let net: IpAddr = ip.parse().map_err(|_| BlockError)?;
        let most = if net.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        if bits > most {
            return Err(BlockError);
        }
        // `::ffff:10.0.0.0/104` is `10.0.0.0/8`.
        match (net.to_canonical(), bits.checked_sub(96)) {
            (v4 @ IpAddr::V4(_), Some(bits)) if net.is_ipv6() => Ok(Self { net: v4, bits }),
            _ => Ok(Self { net, bits }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn nets(blocks: &[&str]) -> Networks {
        blocks.iter().map(|text| text.parse::<Block>().unwrap()).collect()
    }

    #[test]
    fn blocks_hold_what_is_in_them() {
        let some = nets(&["10.2.0.0/15", "fd00::/8", "1.2.3.4", "::ffff:9.0.0.0/104"]);
        for inside in
            ["10.2.0.1", "10.3.255.255", "fdab::1", "1.2.3.4", "::ffff:1.2.3.4", "9.255.0.1"]
        {
            assert!(some.contains(ip(inside)), "{inside}");
        }
        for outside in ["10.4.0.0", "fe80::1", "1.2.3.5", "127.0.0.1", "8.0.0.1"] {
            assert!(!some.contains(ip(outside)), "{outside}");
        }
        assert!(nets(&["0.0.0.0/0"]).contains(ip("8.8.8.8")));
        assert!(!nets(&["0.0.0.0/0"]).contains(ip("2001:db8::1")));
        assert!(nets(&["::/0"]).contains(ip("2001:db8::1")));
    }

    #[test]
    fn what_is_no_block_is_refused() {
        for text in ["", "10.0.0.0/33", "x", "1.2.3.4/", "::1/129", "1.2.3.4/-1", "1.2.3/8"] {
            assert_eq!(text.parse::<Block>(), Err(BlockError), "{text}");
        }
    }

    #[test]
    fn without_blocks_private_addresses_are_meant() {
        let none = Networks::default();
        for inside in ["127.0.0.1", "192.168.1.1", "10.0.0.1", "172.17.0.1", "::1", "fd00::1"] {
            assert!(none.contains(ip(inside)), "{inside}");
        }
        for outside in ["8.8.8.8", "2001:db8::1", "172.32.0.1", "::ffff:8.8.8.8"] {
            assert!(!none.contains(ip(outside)), "{outside}");
        }
    }
}
