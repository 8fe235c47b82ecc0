//! What the configuration needs to know about the machine, read once so that the rest is a function of it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

/// The facts of one machine and process.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// `$HOME`.
    pub home: Option<PathBuf>,
    /// Cores that this process may run on (its affinity mask, and a container's CPU quota), at least 1.
    pub cores: usize,
    /// IPv4 addresses of interfaces that are up and not loopback, with the interface's name.
    pub addresses: Vec<(String, Ipv4Addr)>,
    /// The address in `./external_ip.txt`, if there is one.
    pub external_ip: Option<String>,
}

impl Machine {
    /// This machine.
    pub fn read() -> Machine {
        Machine {
            home: std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            addresses: addresses(),
            external_ip: std::fs::read_to_string("external_ip.txt")
                .ok()
                .map(|text| text.trim().to_owned())
                .filter(|text| text.parse::<IpAddr>().is_ok()),
        }
    }

    /// The first private address, leaving out interfaces of containers (operations.md §1.4).
    pub(super) fn private_ipv4(&self) -> Option<Ipv4Addr> {
        self.addresses
            .iter()
            .filter(|(name, _)| !name.starts_with("docker") && !name.starts_with("w-"))
            .map(|(_, ip)| *ip)
            .find(Ipv4Addr::is_private)
    }
}

fn addresses() -> Vec<(String, Ipv4Addr)> {
    use nix::net::if_::InterfaceFlags;
    let Ok(list) = nix::ifaddrs::getifaddrs() else {
        return Vec::new();
    };
    list.filter(|interface| {
        interface.flags.contains(InterfaceFlags::IFF_UP)
            && !interface.flags.contains(InterfaceFlags::IFF_LOOPBACK)
    })
    .filter_map(|interface| {
        let address = interface.address?;
        Some((interface.interface_name, address.as_sockaddr_in()?.ip()))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_private_address_wins_but_not_a_containers() {
        let mut machine = Machine {
            addresses: vec![
                ("docker0".to_owned(), Ipv4Addr::new(172, 17, 0, 1)),
                ("w-1".to_owned(), Ipv4Addr::new(10, 0, 0, 1)),
                ("eth0".to_owned(), Ipv4Addr::new(8, 8, 8, 8)),
                ("eth1".to_owned(), Ipv4Addr::new(172, 31, 0, 9)),
                ("eth2".to_owned(), Ipv4Addr::new(192, 168, 0, 9)),
            ],
            ..Machine::default()
        };
        assert_eq!(machine.private_ipv4(), Some(Ipv4Addr::new(172, 31, 0, 9)));
        machine.addresses.truncate(3);
        assert_eq!(machine.private_ipv4(), None);
    }

    #[test]
    fn this_machine_has_a_core() {
        assert!(Machine::read().cores >= 1);
    }
}
