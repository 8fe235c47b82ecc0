//! The sockets that a node listens on, bound before anything else is opened: a port that is taken
//! fails the start at once.

use std::net::{SocketAddr, TcpListener};

use anyhow::Context as _;
use jindou_net::bind;

use crate::config::{Listen, ListenAddr};

/// By listener: one socket per shard; none where the listener is switched off.
pub(super) struct Listeners {
    pub(super) tcp: Vec<TcpListener>,
    pub(super) ws: Vec<TcpListener>,
    pub(super) wss: Vec<TcpListener>,
    pub(super) http: Vec<TcpListener>,
    pub(super) manager: Vec<TcpListener>,
    pub(super) demo: Vec<TcpListener>,
    pub(super) cluster: Vec<TcpListener>,
}

impl Listeners {
    /// Binds every port that clients, back ends and other nodes use.
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
            wss: if_on("wssAddr", &listen.wss.as_ref().map(|wss| wss.addr.clone()))?,
            http: all("httpAddr", &listen.http)?,
            manager: if_on("manager.addr", &listen.manager)?,
            demo: if_on("demo.addr", &listen.demo)?,
            cluster: all("cluster.addr", &listen.cluster)?,
        })
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
    #![expect(clippy::unwrap_used, reason = "tests")]

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
        let counts =
            [&listeners.tcp, &listeners.ws, &listeners.http, &listeners.demo, &listeners.cluster];
        assert_eq!(counts.map(Vec::len), [3; 5]);
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
    }
}
