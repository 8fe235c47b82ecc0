//! Where this node listens, and what it tells clients about that.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

use super::ConfigError;
use super::keys::{self, Key};
use super::machine::Machine;
use super::notice::Notice;
use super::reader::Reader;

/// A listener's address. Read from `HOST:PORT`, `:PORT`, `[IPV6]:PORT`, each with an optional
/// `tcp://`, `ws://`, `wss://`, `http://` in front. An empty host is every IPv4 address; port 0 lets
/// the system choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddr {
    /// A name or an address without brackets; empty: every IPv4 address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl ListenAddr {
    /// The address to bind: the first one that the host resolves to.
    ///
    /// # Errors
    /// The host is a name that does not resolve.
    pub fn resolve(&self) -> io::Result<SocketAddr> {
        if self.host.is_empty() {
            return Ok(SocketAddr::from((Ipv4Addr::UNSPECIFIED, self.port)));
        }
        (self.host.as_str(), self.port).to_socket_addrs()?.next().ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("{} has no address", self.host))
        })
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false if self.host.is_empty() => write!(f, "0.0.0.0:{}", self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl FromStr for ListenAddr {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<ListenAddr, &'static str> {
        let text = text.trim();
        let text = text.split_once("://").map_or(text, |(_, rest)| rest);
        let text = text.strip_suffix('/').unwrap_or(text);
        let (host, port) = text.rsplit_once(':').ok_or("the port is missing")?;
        let port = port.parse().map_err(|_| "the port is not a number up to 65535")?;
        let host = match host.strip_prefix('[') {
            Some(inner) => {
                let inner = inner.strip_suffix(']').ok_or("the bracket is not closed")?;
                inner.parse::<Ipv6Addr>().map_err(|_| "not an IPv6 address in brackets")?;
                inner
            }
            None if host.contains(':') => return Err("an IPv6 address needs brackets"),
            None => host,
        };
        if host.contains(|c: char| c.is_whitespace() || c == '/' || c == '@') {
            return Err("not a host name");
        }
        Ok(ListenAddr { host: host.to_owned(), port })
    }
}

/// The listeners of this node. `None`: switched off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Clients over TCP. Default `0.0.0.0:5100`.
    pub tcp: ListenAddr,
    /// Clients over WebSocket. Default `0.0.0.0:5200`.
    pub ws: ListenAddr,
    /// Clients over WebSocket with TLS. Default off.
    pub wss: Option<Wss>,
    /// The HTTP API. Default `0.0.0.0:5001`.
    pub http: ListenAddr,
    /// The manager pages and `/metrics`. Default `0.0.0.0:5300`.
    pub manager: Option<ListenAddr>,
    /// The chat demo. Default `0.0.0.0:5172`.
    pub demo: Option<ListenAddr>,
    /// Other nodes. Default `0.0.0.0:11110`.
    pub cluster: ListenAddr,
}

/// The TLS listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wss {
    /// Its address.
    pub addr: ListenAddr,
    /// PEM file of the certificate chain.
    pub cert: PathBuf,
    /// PEM file of the private key.
    pub key: PathBuf,
}

impl Listen {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Listen, ConfigError> {
        let wss = match reader.text_if_any(&keys::WSS_ADDR) {
            Some(_) => {
                let addr = listen_addr(reader, &keys::WSS_ADDR)?;
                let cert = reader.text_if_any(&keys::WSS_CERT);
                let key = reader.text_if_any(&keys::WSS_KEY);
                match (cert, key) {
                    (Some(cert), Some(key)) => {
                        Some(Wss { addr, cert: cert.into(), key: key.into() })
                    }
                    _ => return Err(ConfigError::HalfKeyPair),
                }
            }
            None => {
                let cert = reader.text_if_any(&keys::WSS_CERT);
                if cert.or(reader.text_if_any(&keys::WSS_KEY)).is_some() {
                    reader.notices.push(Notice::Conflict(
                        "wssConfig is ignored: wssAddr is not set".to_owned(),
                    ));
                }
                None
            }
        };
        let manager_addr = listen_addr(reader, &keys::MANAGER_ADDR)?;
        let demo_addr = listen_addr(reader, &keys::DEMO_ADDR)?;
        Ok(Listen {
            tcp: listen_addr(reader, &keys::ADDR)?,
            ws: listen_addr(reader, &keys::WS_ADDR)?,
            wss,
            http: listen_addr(reader, &keys::HTTP_ADDR)?,
            manager: reader.flag(&keys::MANAGER_ON).then_some(manager_addr),
            demo: reader.flag(&keys::DEMO_ON).then_some(demo_addr),
            cluster: listen_addr(reader, &keys::CLUSTER_ADDR)?,
        })
    }
}

/// An address that cannot be understood stops the start: a node that listens elsewhere than it was
/// told would be worse.
fn listen_addr(reader: &mut Reader<'_>, key: &'static Key) -> Result<ListenAddr, ConfigError> {
    let text = reader.text(key);
    text.parse().map_err(|why| ConfigError::Address { key: key.name, value: text, why })
}

/// What `/route` and `/varz` tell (operations.md §1.4, external and intranet). Any of them may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// `tcp_addr`: host and port without scheme.
    pub tcp: String,
    /// `ws_addr`, with `ws://`.
    pub ws: String,
    /// `wss_addr`, with `wss://`; empty while that listener is off.
    pub wss: String,
    /// Manager address for `/varz`: host and port.
    pub manager: String,
    /// Base URL of the API for the demo page.
    pub api: String,
    /// `tcp_addr` of `/route?intranet=1`.
    pub intranet_tcp: String,
}

impl Route {
    pub(super) fn read(reader: &mut Reader<'_>, listen: &Listen, machine: &Machine) -> Route {
        let ip = external_ip(reader, machine);
        let mut or = |key: &'static Key, scheme: &str, port: Option<u16>| {
            let text = reader.text(key);
            if !text.is_empty() {
                return text;
            }
            let Some(port) = port else {
                return String::new();
            };
            let host = if ip.contains(':') { format!("[{ip}]") } else { ip.clone() };
            let text = format!("{scheme}{host}:{port}");
            reader.derive(key, text.clone());
            text
        };
        let tcp = or(&keys::EXTERNAL_TCP, "", Some(listen.tcp.port));
        let tcp = match tcp.split_once("://") {
            Some((_, bare)) => bare.to_owned(), // the Helm chart writes a scheme here
            None => tcp,
        };
        Route {
            tcp,
            ws: or(&keys::EXTERNAL_WS, "ws://", Some(listen.ws.port)),
            wss: or(&keys::EXTERNAL_WSS, "wss://", listen.wss.as_ref().map(|wss| wss.addr.port)),
            manager: or(&keys::EXTERNAL_MANAGER, "", listen.manager.as_ref().map(|m| m.port)),
            api: or(&keys::EXTERNAL_API, "http://", Some(listen.http.port)),
            intranet_tcp: or(&keys::INTRANET_TCP, "", None),
        }
    }
}

fn external_ip(reader: &mut Reader<'_>, machine: &Machine) -> String {
    let written = reader.text(&keys::EXTERNAL_IP);
    let auto = reader.flag(&keys::EXTERNAL_AUTO);
    if !written.is_empty() {
        return written;
    }
    if auto && machine.external_ip.is_none() {
        reader.notices.push(Notice::Conflict(
            "external.autoGetExternalIP: ./external_ip.txt is missing, and this server asks no \
             service on the internet; write the address there or set external.ip"
                .to_owned(),
        ));
    }
    let ip = match machine.external_ip.clone().filter(|_| auto) {
        Some(ip) => ip,
        None => machine.private_ipv4().map(|ip| ip.to_string()).unwrap_or_default(),
    };
    if !ip.is_empty() {
        reader.derive(&keys::EXTERNAL_IP, ip.clone());
    }
    ip
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn addresses_are_read_in_all_usual_forms() {
        for (text, host, port, shown) in [
            ("tcp://0.0.0.0:5100", "0.0.0.0", 5100, "0.0.0.0:5100"),
            ("ws://127.0.0.1:0/", "127.0.0.1", 0, "127.0.0.1:0"),
            (":5001", "", 5001, "0.0.0.0:5001"),
            ("[::1]:80", "::1", 80, "[::1]:80"),
            ("node-1.local:65535", "node-1.local", 65535, "node-1.local:65535"),
        ] {
            let addr: ListenAddr = text.parse().unwrap();
            assert_eq!((addr.host.as_str(), addr.port), (host, port));
            assert_eq!(addr.to_string(), shown);
        }
        for text in
            ["", "5100", "host", "host:", "host:99999", "::1:80", "[::1:80", "a b:1", "a/b:1"]
        {
            assert!(text.parse::<ListenAddr>().is_err(), "{text:?}");
        }
        let any: ListenAddr = ":7".parse().unwrap();
        assert_eq!(any.resolve().unwrap(), SocketAddr::from(([0, 0, 0, 0], 7)));
    }
}
