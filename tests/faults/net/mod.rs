//! Hosts for nodes: network namespaces of the test's own making, with a wire between them that can
//! be cut and slowed down; or loopback where namespaces are refused.

mod namespace;
mod switch;
mod sys;

use std::io;
use std::net::Ipv4Addr;
use std::panic;
use std::sync::Arc;
use std::thread;

use crate::support::node::{Place, Spawn};
use crate::support::ports::Ports;

use namespace::Namespace;
use switch::Switch;
pub use switch::{Host, Wire};

/// Where the clients are.
const CLIENTS: Host = 254;

/// A network for nodes, and for the clients of this thread and those that it starts.
pub enum Network {
    /// A host for each.
    Hosts(Switch),
    /// All on one host, whose packets nothing touches.
    Loopback,
}

/// Runs a test on a thread of its own with a network of its own.
pub fn with_network<T: Send>(test: impl FnOnce(&Network) -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| test(&Network::new()));
        thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
    })
}

impl Network {
    /// From here on this thread, and what it starts, sees the hosts of this network only.
    fn new() -> Self {
        let refused = |e: &dyn std::fmt::Display| {
            eprintln!("no network namespaces ({e}): all nodes share the loopback of this host");
            Self::Loopback
        };
        // Tried on another thread: what is half done cannot be undone.
        if let Err(e) = Namespace::new(address(CLIENTS)) {
            return refused(&e);
        }
        match namespace::enter(address(CLIENTS)) {
            Err(e) => refused(&e),
            Ok(tunnel) => {
                let switch = Switch::new();
                switch.plug(CLIENTS, tunnel);
                Self::Hosts(switch)
            }
        }
    }

    /// A place for a node; `host` is counted from 1.
    pub fn place(&self, host: Host) -> io::Result<Place> {
        match self {
            Self::Loopback => Ok(Place::Loopback(Ports::reserve())),
            Self::Hosts(switch) => {
                let (namespace, tunnel) = Namespace::new(address(host))?;
                switch.plug(host, tunnel);
                let spawn: Spawn = Arc::new(move |command| namespace.spawn(command));
                Ok(Place::Host { address: address(host).to_string(), spawn })
            }
        }
    }

    /// Takes a host off the wire, or puts it back, for everybody; `others` are the other hosts.
    pub fn set_unplugged(&self, host: Host, others: &[Host], cut: bool) {
        let wire = Wire { cut, ..Wire::default() };
        let switch = self.wire().unwrap();
        for other in others.iter().copied().chain([CLIENTS]) {
            switch.set(host, other, wire);
            switch.set(other, host, wire);
        }
    }

    /// The wire, if there is one that can be changed.
    pub fn wire(&self) -> Option<&Switch> {
        match self {
            Self::Hosts(switch) => Some(switch),
            Self::Loopback => None,
        }
    }
}

fn address(host: Host) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, host)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::process::{Child, Command, Stdio};
    use std::sync::Barrier;
    use std::time::{Duration, Instant};

    use super::*;

    /// A host that sends back what it gets on port 7; it lives as long as the second value.
    fn echo(network: &Network, host: Host) -> (Child, Spawn) {
        let Place::Host { spawn, .. } = network.place(host).unwrap() else {
            panic!("no host");
        };
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["net::tests::echo_process", "--exact"]).env("JINDOU_ECHO", "1");
        command.stdout(Stdio::null()).stderr(Stdio::null());
        (spawn(command).unwrap(), spawn)
    }

    /// No test: what [`echo`] starts.
    #[test]
    fn echo_process() {
        if std::env::var_os("JINDOU_ECHO").is_none() {
            return;
        }
        let listener = TcpListener::bind("0.0.0.0:7").unwrap();
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let mut bytes = [0; 4096];
            while let Ok(size @ 1..) = socket.read(&mut bytes) {
                socket.write_all(&bytes[..size]).unwrap();
            }
        }
    }

    fn connect(host: Host) -> TcpStream {
        let end = Instant::now() + Duration::from_secs(10);
        let target = (address(host), 7).into();
        loop {
            match TcpStream::connect_timeout(&target, Duration::from_secs(1)) {
                Ok(socket) => return socket,
                Err(e) => assert!(Instant::now() < end, "{e}"),
            }
        }
    }

    fn round_trip(socket: &mut TcpStream, within: Duration) -> io::Result<Duration> {
        let start = Instant::now();
        socket.set_read_timeout(Some(within))?;
        socket.write_all(b"x")?;
        socket.read_exact(&mut [0])?;
        Ok(start.elapsed())
    }

    #[test]
    fn packets_pass_and_are_cut_one_way_and_slowed_down() {
        with_network(|network| {
            let Some(wire) = network.wire() else {
                return;
            };
            let (mut child, _host) = echo(network, 1);
            let mut socket = connect(1);
            round_trip(&mut socket, Duration::from_secs(5)).unwrap();
            wire.set(1, CLIENTS, Wire { cut: true, ..Wire::default() });
            assert!(round_trip(&mut socket, Duration::from_millis(300)).is_err());
            wire.heal();
            // What was lost comes by TCP's own repeats.
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            socket.read_exact(&mut [0]).unwrap();
            let delay = Duration::from_millis(30);
            wire.set(CLIENTS, 1, Wire { delay, ..Wire::default() });
            assert!(round_trip(&mut socket, Duration::from_secs(5)).unwrap() >= delay);
            child.kill().unwrap();
            child.wait().unwrap();
        });
    }

    #[test]
    fn two_networks_do_not_meet() {
        // Both networks are there, and the first has been tried.
        let (tried, over) = (Barrier::new(2), Barrier::new(2));
        thread::scope(|scope| {
            scope.spawn(|| {
                with_network(|network| {
                    let host = network.wire().map(|_| echo(network, 1));
                    if host.is_some() {
                        connect(1);
                    }
                    tried.wait();
                    over.wait();
                    if let Some((mut child, _)) = host {
                        child.kill().unwrap();
                        child.wait().unwrap();
                    }
                });
            });
            with_network(|network| {
                tried.wait();
                if network.wire().is_some() {
                    let target = (address(1), 7).into();
                    let met = TcpStream::connect_timeout(&target, Duration::from_millis(300));
                    assert!(met.is_err());
                }
                over.wait();
            });
        });
    }
}
