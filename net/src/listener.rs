//! Listening sockets: one per shard and address, and the tasks that accept.

use std::{
    cell::Cell,
    io,
    net::{SocketAddr, TcpListener},
    os::fd::{AsRawFd, RawFd},
    rc::Rc,
    time::{Duration, Instant},
};

use jindou_core::effect::{Event, Port};
use monoio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{
    admission::Admission,
    client_tls::ClientTls,
    conn,
    conns::Tls,
    handle::Handle,
    probe::DriverKind,
    rt,
    sys::{self, Direction},
};

/// How long [`bind`] waits for an address that is in use, and between its tries.
const BIND_PATIENCE: Duration = Duration::from_secs(2);
const BIND_PAUSE: Duration = Duration::from_millis(20);
/// Connections that may wait to be accepted, per socket.
const BACKLOG: i32 = 4096;
/// Accepts under way at once per socket on io_uring. On epoll one task takes all that wait.
const ACCEPT_COUNT: usize = 16;
/// Accepts after which the driver gets a turn.
const BATCH_COUNT: u32 = 64;
/// How long accepting rests when there are no descriptors or no memory.
const REST: Duration = Duration::from_millis(100);

/// Binds an address once per shard (SO_REUSEPORT), and all or none. Port 0 picks a port, the same
/// for all. Call before the shards start, so that an address that is taken fails the start; one
/// that another process of ours listens on counts as taken, although the kernel would let us in
/// and give us a share of its connections.
///
/// The kernel closes the sockets of a killed process on io_uring some time after its end, so an
/// address in use is tried again for two seconds.
pub fn bind(address: SocketAddr, shard_count: u16) -> io::Result<Vec<TcpListener>> {
    let begin = Instant::now();
    while let Err(error) = try_alone(address) {
        if error.kind() != io::ErrorKind::AddrInUse || begin.elapsed() > BIND_PATIENCE {
            return Err(error);
        }
        std::thread::sleep(BIND_PAUSE);
    }
    let mut address = address;
    let mut listeners = Vec::new();
    for _ in 0..shard_count.max(1) {
        let socket = socket(address)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from(socket);
        address = listener.local_addr()?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// Whether nobody else listens there.
fn try_alone(address: SocketAddr) -> io::Result<()> {
    let socket = socket(address)?;
    socket.bind(&address.into())?;
    socket.listen(1)
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    Ok(socket)
}

/// A socket that accepts, until [`Listening::stop`].
pub(crate) struct Listening {
    listener: monoio::net::TcpListener,
    fd: RawFd,
    stopped: Cell<bool>,
    is_resting: Cell<bool>,
}

impl Listening {
    fn new(listener: TcpListener, driver: DriverKind) -> io::Result<Self> {
        // io_uring waits by itself only on sockets in blocking mode.
        listener.set_nonblocking(driver == DriverKind::Epoll)?;
        Ok(Self {
            fd: listener.as_raw_fd(),
            listener: monoio::net::TcpListener::from_std(listener)?,
            stopped: Cell::new(false),
            is_resting: Cell::new(false),
        })
    }

    /// Makes every accept under way fail, so that the tasks end. Connections that were not
    /// accepted yet are reset.
    pub(crate) fn stop(&self) {
        if !self.stopped.replace(true) {
            sys::shutdown(self.fd, Direction::Read);
        }
    }

    fn rests(&self, error: &io::Error) {
        if !self.is_resting.replace(true) {
            tracing::warn!(%error, "cannot accept connections, trying again");
        }
    }
}

/// What becomes of an accepted connection.
pub(crate) trait Accept: 'static {
    fn accepted(&self, handle: &Handle, stream: TcpStream, peer: SocketAddr);
}

/// Accepts on a socket until the drain, in tasks of their own.
pub(crate) fn listen(
    handle: &Handle,
    listener: TcpListener,
    accept: impl Accept,
) -> io::Result<()> {
    let listening = listen_until_stopped(handle, listener, accept)?;
    handle.0.listening.borrow_mut().push(listening);
    Ok(())
}

/// Accepts on a socket, in tasks of their own.
pub(crate) fn listen_until_stopped(
    handle: &Handle,
    listener: TcpListener,
    accept: impl Accept,
) -> io::Result<Rc<Listening>> {
    let listening = Rc::new(Listening::new(listener, handle.0.driver)?);
    let accept = Rc::new(accept);
    // epoll keeps one waker per socket, so there can be one task only.
    let count = match handle.0.driver {
        DriverKind::Epoll => 1,
        DriverKind::IoUring => ACCEPT_COUNT,
    };
    for _ in 0..count {
        rt::spawn(accept_all(handle.clone(), Rc::clone(&listening), Rc::clone(&accept)));
    }
    Ok(listening)
}

async fn accept_all<A: Accept>(handle: Handle, listening: Rc<Listening>, accept: Rc<A>) {
    let mut count = 0;
    loop {
        match listening.listener.accept().await {
            Ok((stream, peer)) => {
                listening.is_resting.set(false);
                accept.accepted(&handle, stream, peer);
            }
            Err(_) if listening.stopped.get() => return,
            Err(error) => {
                handle.0.counters.accept_errors.add(1);
                match error.raw_os_error() {
                    // That connection is gone already; the next one may be fine.
                    Some(libc::ECONNABORTED | libc::EINTR | libc::EPROTO | libc::EPERM) => {}
                    _ => {
                        listening.rests(&error);
                        monoio::time::sleep(REST).await;
                    }
                }
            }
        }
        count += 1;
        if count >= BATCH_COUNT {
            count = 0;
            handle.next_turn().await;
        }
    }
}

impl Handle {
    /// Waits for the driver's next turn.
    pub(crate) async fn next_turn(&self) {
        let turn = self.0.gate.turn();
        self.0.notify.notify();
        self.0.gate.pass(turn).await;
    }

    /// Serves client connections that this shard accepts on `listener` ([`bind`]), until the
    /// drain. Over its bounds `admission` refuses: the socket is closed at once and counted.
    pub fn listen(
        &self,
        listener: TcpListener,
        port: Port,
        admission: Admission,
    ) -> io::Result<()> {
        listen(self, listener, Clients { port, admission, tls: None })
    }

    /// Serves clients that speak TLS, in the same way. The machine hears of a connection when its
    /// handshake is over.
    pub fn listen_tls(
        &self,
        listener: TcpListener,
        port: Port,
        admission: Admission,
        tls: ClientTls,
    ) -> io::Result<()> {
        self.0.has_tls.set(true);
        listen(self, listener, Clients { port, admission, tls: Some(tls) })
    }
}

struct Clients {
    port: Port,
    admission: Admission,
    tls: Option<ClientTls>,
}

impl Accept for Clients {
    fn accepted(&self, handle: &Handle, stream: TcpStream, peer: SocketAddr) {
        let counters = &handle.0.counters;
        let Some(permit) = self.admission.admit(peer.ip()) else {
            counters.refused.add(1);
            return;
        };
        let session = self.tls.as_ref().map(ClientTls::session).transpose();
        let Ok(session) = session else {
            counters.accept_errors.add(1);
            return;
        };
        let is_plain = session.is_none();
        let tls = session.map(|session| Tls::new(session, self.port, peer));
        // A socket without it works too.
        let _ = stream.set_nodelay(true);
        let fd = stream.as_raw_fd();
        let (read, write) = rt::split(stream);
        let now_ms = handle.now().mono_ms;
        let conn = handle.0.conns.borrow_mut().insert(write, fd, permit, tls, now_ms);
        let Some(conn) = conn else {
            counters.refused.add(1);
            return;
        };
        counters.accepted.add(1);
        if is_plain {
            handle.push(Event::Opened { conn, port: self.port, peer });
        }
        rt::spawn(conn::read(handle.clone(), conn, read));
    }
}

/// Raises the limit of open files to what the system allows; call once at the start. Returns the
/// limit in force.
pub fn raise_open_files() -> io::Result<u64> {
    sys::raise_open_files()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

    use super::*;

    #[test]
    fn every_shard_gets_a_socket_of_the_same_port_and_nobody_else_does() {
        let listeners = bind(SocketAddr::from(([127, 0, 0, 1], 0)), 3).unwrap();
        let address = listeners[0].local_addr().unwrap();
        assert!(listeners.iter().all(|socket| socket.local_addr().unwrap() == address));
        assert_eq!(bind(address, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn an_address_that_becomes_free_is_waited_for() {
        let listeners = bind(SocketAddr::from(([127, 0, 0, 1], 0)), 1).unwrap();
        let address = listeners[0].local_addr().unwrap();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(listeners);
        });
        assert_eq!(bind(address, 2).unwrap().len(), 2);
        thread.join().unwrap();
    }
}
