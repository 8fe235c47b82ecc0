//! Blocks of IP addresses.

use std::net::IpAddr;

use super::keys;
use super::notice::Notice;
use super::reader::Reader;

/// Whose word about a client's address is believed.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Networks(Vec<(IpAddr, u8)>);

impl Networks {
    /// Whether `ip` is in one of the blocks. Without blocks: loopback, private and unique-local
    /// addresses are. IPv4 written as IPv6 (`::ffff:…`) counts as IPv4.
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
        self.0.iter().any(|(net, bits)| within(*net, *bits, ip))
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Networks {
        let mut blocks = Vec::new();
        for item in reader.list(&keys::TRUSTED_PROXIES) {
            match parse(&item) {
                Some(block) => blocks.push(block),
                None => reader.notices.push(Notice::Skipped {
                    key: keys::TRUSTED_PROXIES.name,
                    item,
                    why: "wanted an address or ADDRESS/BITS".to_owned(),
                }),
            }
        }
        Networks(blocks)
    }
}

fn parse(text: &str) -> Option<(IpAddr, u8)> {
    let (ip, bits) = match text.split_once('/') {
        Some((ip, bits)) => (ip, Some(bits.parse::<u8>().ok()?)),
        None => (text, None),
    };
    let ip: IpAddr = ip.parse().ok()?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(most);
    (bits <= most).then_some((ip, bits))
}

fn within(net: IpAddr, bits: u8, ip: IpAddr) -> bool {
    match (net, ip) {
        (IpAddr::V4(net), IpAddr::V4(ip)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            (net.to_bits() ^ ip.to_bits()) & mask == 0
        }
        (IpAddr::V6(net), IpAddr::V6(ip)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            (net.to_bits() ^ ip.to_bits()) & mask == 0
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn blocks_hold_what_is_in_them() {
        let nets = Networks(vec![
            parse("10.2.0.0/15").unwrap(),
            parse("fd00::/8").unwrap(),
            parse("1.2.3.4").unwrap(),
        ]);
        for inside in ["10.2.0.1", "10.3.255.255", "fdab::1", "1.2.3.4", "::ffff:1.2.3.4"] {
            assert!(nets.contains(ip(inside)), "{inside}");
        }
        for outside in ["10.4.0.0", "fe80::1", "1.2.3.5", "127.0.0.1"] {
            assert!(!nets.contains(ip(outside)), "{outside}");
        }
        assert!(Networks(vec![parse("0.0.0.0/0").unwrap()]).contains(ip("8.8.8.8")));
        for text in ["10.0.0.0/33", "x", "1.2.3.4/", "::1/129"] {
            assert!(parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn without_blocks_private_addresses_are_trusted() {
        let nets = Networks::default();
        assert!(
            nets.contains(ip("127.0.0.1"))
                && nets.contains(ip("192.168.1.1"))
                && nets.contains(ip("::1"))
        );
        assert!(!nets.contains(ip("8.8.8.8")) && !nets.contains(ip("2001:db8::1")));
    }
}
