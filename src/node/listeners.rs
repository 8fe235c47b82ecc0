//! The sockets that a node listens on, bound before anything else is opened: a port that is taken
//! fails the start at once.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use jindou_net::bind;

use crate::config::{Listen, ListenAddr};

/// By listener: one socket per shard; none where the listener is switched off.
pub(super) struct Listeners {
    pub(super) tcp: Vec<TcpListener>,
    pub(super) ws: Vec<TcpListener>,
    pub(super) http: Vec<TcpListener>,
    pub(super) manager: Vec<TcpListener>,
    pub(super) demo: Vec<TcpListener>,
}

impl Listeners {
    /// Binds every port that clients and back ends use.
    ///
    /// # Errors
    /// Names the key and the address that can't be had.
    pub(super) fn bind(listen: &Listen, shard_count: u16) -> anyhow::Result<Self> {
        let all = |key: &str, address: &ListenAddr| bind_one(key, address, shard_count);
        let if_on = |key: &str, address: &Option<ListenAddr>| {
            address.as_ref().map_or(Ok(Vec::new()), |address| all(key, address))
        };
        Ok(Self {
            tcp: all("addr", &listen.tcp)?,
            ws: all("wsAddr", &listen.ws)?,
            http: all("httpAddr", &listen.http)?,
            manager: if_on("manager.addr", &listen.manager)?,
            demo: if_on("demo.addr", &listen.demo)?,
        })
    }
}

/// Takes the port for other nodes, so that no two nodes ever share it. A single node has nothing
/// to say there: it closes what connects.
///
/// # Errors
/// The port can't be had; names key and address.
pub(super) fn hold_cluster_port(address: &ListenAddr) -> anyhow::Result<()> {
    for socket in bind_one("cluster.addr", address, 1)? {
        thread::Builder::new().name("cluster-port".into()).spawn(move || refuse_all(&socket))?;
    }
    Ok(())
}

fn refuse_all(socket: &TcpListener) {
    loop {
        match socket.accept() {
            Ok((stream, _)) => drop(stream),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            // No descriptors or no memory: it will pass.
            Err(_) => thread::sleep(Duration::from_millis(100)),
        }
    }
}

fn bind_one(
    key: &str,
    address: &ListenAddr,
    socket_count: u16,
) -> anyhow::Result<Vec<TcpListener>> {
    let resolved: SocketAddr =
        address.resolve().with_context(|| format!("{key}: {address} is no address"))?;
    let sockets = bind(resolved, socket_count)
        .with_context(|| format!("{key}: cannot listen on {address}"))?;
    tracing::info!("{key}: listening on {resolved}");
    Ok(sockets)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use std::{io::Read as _, net::TcpStream};

    use super::*;

    fn loopback(port: u16) -> ListenAddr {
        ListenAddr { host: "127.0.0.1".to_owned(), port }
    }

    fn listen(demo: Option<ListenAddr>) -> Listen {
        Listen {
            tcp: loopback(0),
            ws: loopback(0),
            wss: None,
            http: loopback(0),
            manager: None,
            demo,
            cluster: loopback(0),
        }
    }

    #[test]
    fn each_shard_has_a_socket_of_each_port_that_is_on() {
        let listeners = Listeners::bind(&listen(Some(loopback(0))), 3).unwrap();
        let counts = [&listeners.tcp, &listeners.ws, &listeners.http, &listeners.demo];
        assert_eq!(counts.map(Vec::len), [3; 4]);
        assert!(listeners.manager.is_empty());
    }

    #[test]
    fn a_port_that_is_taken_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = loopback(taken.local_addr().unwrap().port());
        let expect = |key: &str, error: anyhow::Error| {
            let text = format!("{error:#}");
            assert!(text.starts_with(&format!("{key}: cannot listen on {address}: ")), "{text}");
        };
        let Err(error) = Listeners::bind(&listen(Some(address.clone())), 1) else {
            panic!("bound a taken port");
        };
        expect("demo.addr", error);
        expect("cluster.addr", hold_cluster_port(&address).unwrap_err());
    }

    #[test]
    fn what_connects_to_the_cluster_port_is_closed() {
        let sockets = bind_one("cluster.addr", &loopback(0), 1).unwrap();
        let at = sockets[0].local_addr().unwrap();
        thread::spawn(move || refuse_all(&sockets[0]));
        let mut stream = TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    }
}
