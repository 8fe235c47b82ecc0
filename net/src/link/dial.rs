//! Opening links: look the host up, connect, say hello.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "in a handshake every frame but those that belong there is a fault of the peer"
)]

use std::{
    fmt, io,
    net::{SocketAddr, ToSocketAddrs},
    rc::Rc,
};

use bytes::Bytes;
use jindou_core::id::NodeId;
use monoio::net::TcpStream;
use rustls::pki_types::ServerName;
use socket2::{Domain, Protocol, Socket, Type};

use super::{
    Inner, LinkError, Refusal, RefusalCode,
    frame::{Frame, FrameError},
    fuse::Fuse,
    hello::{Challenge, Hello, Prover, Purpose, Side, VERSION_MAX, VERSION_MIN, is_proof, prove},
    identity::{Arrival, HelloInfo},
    tls::{Session, TlsFault, peer_name},
    waiters::Waiters,
    wire::{Reading, Traffic, Wire, WireError, prepare},
};
use crate::{probe::DriverKind, rt};

/// Addresses of one host that are tried.
const ADDRESS_COUNT_MAX: usize = 4;

/// Why a link did not come about.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("{address}: {source}")]
    LookUp { address: String, source: io::Error },
    #[error("{address}: {source}")]
    Connect { address: SocketAddr, source: io::Error },
    #[error("{address}: {source}")]
    Hello { address: SocketAddr, source: WireError },
    #[error("{0}")]
    Refused(Refusal),
    #[error("its shards answer as different nodes")]
    Mixed,
}

/// A link that is open.
pub(crate) struct Open {
    pub(crate) wire: Rc<Wire>,
    pub(crate) reading: Reading,
    pub(crate) info: HelloInfo,
}

/// What is dialled.
#[derive(Clone)]
struct Dial {
    wanted: u16,
    expected: Option<NodeId>,
    purpose: Purpose,
    traffic: Rc<Traffic>,
    /// Whose certificate is wanted, with TLS.
    name: Option<ServerName<'static>>,
}

/// Opens a link to every shard of a node.
pub(crate) async fn bundle(
    inner: &Rc<Inner>,
    node: NodeId,
    address: &str,
    traffic: &Rc<Traffic>,
) -> Result<Vec<Open>, DialError> {
    let dial = Dial {
        wanted: 0,
        expected: Some(node),
        purpose: Purpose::Bundle,
        traffic: Rc::clone(traffic),
        name: inner.peer_name(address)?,
    };
    let (first, address) = open(inner, address, &dial).await?;
    let info = first.info;
    // Each in a task of its own, so that all are under way at once and none is dropped.
    let others = Waiters::default();
    let mut waiting = Vec::new();
    for wanted in 1..info.shard_count {
        let (ticket, other) = others.wait();
        waiting.push(other);
        let (inner, others) = (Rc::clone(inner), others.clone());
        let dial = Dial { wanted, ..dial.clone() };
        rt::spawn(async move {
            let open = open_at(&inner, address, &dial).await;
            others.answer(ticket, open);
        });
    }
    let mut opens = vec![Ok(first)];
    for other in waiting {
        opens.push(other.await);
    }
    let opens = opens.into_iter().collect::<Result<Vec<_>, _>>()?;
    let is_same = opens.iter().zip(0..).all(|(open, shard)| {
        open.info.incarnation == info.incarnation
            && open.info.shard_count == info.shard_count
            && open.info.shard == shard
    });
    if is_same { Ok(opens) } else { Err(DialError::Mixed) }
}

/// Carries one control message to an address.
pub(crate) async fn control(inner: Rc<Inner>, address: String, body: Bytes, ticket: u64) {
    let opened = match inner.peer_name(&address) {
        Ok(name) => {
            let (purpose, traffic) = (Purpose::Control, Rc::default());
            let dial = Dial { wanted: 0, expected: None, purpose, traffic, name };
            open(&inner, &address, &dial).await
        }
        Err(error) => Err(error),
    };
    let answer = match opened {
        Ok((Open { wire, mut reading, info }, _)) => {
            wire.fuse().set(Some(inner.now_ms() + inner.settings.control_ms));
            let answer = ask(&wire, &mut reading, body).await;
            wire.cut();
            answer.map(|body| (info.node, body))
        }
        Err(DialError::Refused(refusal)) => Err(LinkError::Refused(refusal)),
        Err(error) => Err(LinkError::Broken(error.to_string())),
    };
    inner.controls.answer(ticket, answer);
}

async fn ask(wire: &Rc<Wire>, reading: &mut Reading, body: Bytes) -> Result<Bytes, LinkError> {
    let broken = |error: WireError| LinkError::Broken(error.to_string());
    wire.queue(&Frame::ControlAsk { id: 0, body }).map_err(broken)?;
    match wire.read_frame(reading).await.map_err(broken)? {
        Frame::ControlAnswer { body, .. } => Ok(body),
        Frame::Refusal(refusal) => Err(LinkError::Refused(refusal)),
        other => Err(broken(FrameError::OutOfPlace(other.kind()).into())),
    }
}

async fn open(
    inner: &Rc<Inner>,
    address: &str,
    dial: &Dial,
) -> Result<(Open, SocketAddr), DialError> {
    let failed = |source| DialError::LookUp { address: address.to_owned(), source };
    let addresses = look_up(inner, address).await.map_err(failed)?;
    let mut trouble = failed(io::ErrorKind::NotFound.into());
    for address in addresses.into_iter().take(ADDRESS_COUNT_MAX) {
        match open_at(inner, address, dial).await {
            Ok(open) => return Ok((open, address)),
            Err(error) => trouble = error,
        }
    }
    Err(trouble)
}

/// The addresses of host:port. What is no address already is looked up on a thread of its own:
/// that may take seconds.
async fn look_up(inner: &Rc<Inner>, address: &str) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = address.parse() {
        return Ok(vec![address]);
    }
    let door = inner.identity.door(inner.handle.shard().0).ok_or(io::ErrorKind::NotConnected)?;
    let (door, address) = (door.clone(), address.to_owned());
    let (ticket, waiting) = inner.lookups.wait();
    std::thread::Builder::new().name("look-up".to_owned()).spawn(move || {
        let result = address.to_socket_addrs().map(Iterator::collect);
        // Nobody waits any more when the shard has ended.
        let _ = door.put(Arrival::Resolved { ticket, result });
    })?;
    waiting.await
}

async fn open_at(inner: &Rc<Inner>, address: SocketAddr, dial: &Dial) -> Result<Open, DialError> {
    let (stream, fuse) =
        connect(inner, address).await.map_err(|source| DialError::Connect { address, source })?;
    let settings = &inner.settings;
    let session = match (&settings.tls, &dial.name) {
        (Some(tls), Some(name)) => {
            let session = Session::dialer(tls, name.clone());
            Some(session.map_err(|fault| tls_refused(&address, &fault))?)
        }
        (_, _) => None,
    };
    let (size_max, traffic) = (settings.output_size_max, Rc::clone(&dial.traffic));
    let (wire, mut reading) = Wire::new(stream, fuse, &inner.flusher, size_max, traffic, session);
    match say_hello(inner, &wire, &mut reading, dial, address).await {
        Ok(info) => {
            wire.fuse().set(None);
            reading.set_size_max(settings.frame_size_max);
            Ok(Open { wire, reading, info })
        }
        Err(error) => {
            wire.finish();
            Err(match error {
                DialError::Hello { source: WireError::Tls(fault), .. } => {
                    tls_refused(&address, &fault)
                }
                error => error,
            })
        }
    }
}

/// What TLS finds wrong is told as a refusal is: it stays until somebody changes something.
fn tls_refused(address: &dyn fmt::Display, fault: &TlsFault) -> DialError {
    DialError::Refused(Refusal::new(RefusalCode::Tls, format!("{address}: {fault}")))
}

/// Connects. It is the socket that is shut down when the time is over, not the waiting that is
/// given up.
async fn connect(inner: &Inner, address: SocketAddr) -> io::Result<(TcpStream, Rc<Fuse>)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    prepare(&socket);
    let fuse = Fuse::new(socket.try_clone()?);
    fuse.set(Some(inner.now_ms() + inner.settings.handshake_ms));
    inner.fuses.add(&fuse);
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let second = socket.try_clone()?;
    let stream = TcpStream::from_std(socket.into())?;
    stream.writable(false).await?;
    if let Some(error) = second.take_error()? {
        return Err(error);
    }
    // Fails when the time was over.
    second.peer_addr().map_err(|_| io::ErrorKind::TimedOut)?;
    // io_uring waits by itself only on sockets in blocking mode.
    second.set_nonblocking(inner.handle.0.driver == DriverKind::Epoll)?;
    Ok((stream, fuse))
}

/// The dialer's part of the handshake.
async fn say_hello(
    inner: &Inner,
    wire: &Rc<Wire>,
    reading: &mut Reading,
    dial: &Dial,
    address: SocketAddr,
) -> Result<HelloInfo, DialError> {
    let failed = |source: WireError| DialError::Hello { address, source };
    let secret = inner.identity.secret();
    let hello = Hello {
        version_min: VERSION_MIN,
        version_max: VERSION_MAX,
        purpose: dial.purpose,
        wanted: dial.wanted,
        side: inner.side(secret.is_some()),
    };
    let sent = Bytes::from(hello.encode());
    wire.queue(&Frame::Hello(sent.clone())).map_err(failed)?;
    let got = match wire.read_frame(reading).await.map_err(failed)? {
        Frame::Challenge(body) => body,
        Frame::Refusal(refusal) => return Err(DialError::Refused(refusal)),
        other => return Err(failed(FrameError::OutOfPlace(other.kind()).into())),
    };
    let challenge = Challenge::decode(&got)
        .ok_or_else(|| failed(WireError::Io("its challenge can't be read".to_owned())))?;
    let other = &challenge.side;
    let info = HelloInfo {
        version: challenge.version,
        node: other.node,
        incarnation: other.incarnation,
        shard: other.shard,
        shard_count: other.shard_count,
        cluster_id: other.cluster_id,
        is_proven: challenge.proof.is_some(),
        purpose: dial.purpose,
        is_dialled: true,
        address,
    };
    inner.identity.gatekeeper().met(&info);
    let mut proof = Bytes::new();
    let verdict = inner.judge_challenge(dial, &challenge, address).and_then(|()| {
        match (&secret, &challenge.proof) {
            (Some(secret), Some(theirs)) => {
                if !is_proof(secret.bytes(), Prover::Acceptor, &sent, &got, theirs) {
                    return Err(other_secret(other.node, inner.settings.node));
                }
                let ours = prove(secret.bytes(), Prover::Dialer, &sent, &got);
                proof = Bytes::copy_from_slice(&ours);
                Ok(())
            }
            (Some(secret), None) if secret.is_required() || other.has_secret => {
                Err(no_secret(other.node))
            }
            (Some(_) | None, _) => Ok(()),
        }
    });
    if let Err(refusal) = verdict {
        // So that the other side's log has it too.
        wire.queue(&Frame::Refusal(refusal.clone())).map_err(failed)?;
        return Err(DialError::Refused(refusal));
    }
    wire.queue(&Frame::Proof(proof)).map_err(failed)?;
    match wire.read_frame(reading).await.map_err(failed)? {
        Frame::Welcome => Ok(info),
        Frame::Refusal(refusal) => Err(DialError::Refused(refusal)),
        other => Err(failed(FrameError::OutOfPlace(other.kind()).into())),
    }
}

impl Inner {
    /// The name that a peer's certificate must bear.
    fn peer_name(&self, address: &str) -> Result<Option<ServerName<'static>>, DialError> {
        if self.settings.tls.is_none() {
            return Ok(None);
        }
        peer_name(address).map(Some).map_err(|fault| tls_refused(&address, &fault))
    }

    /// This end of a link.
    pub(crate) fn side(&self, has_secret: bool) -> Side {
        Side {
            node: self.settings.node,
            incarnation: self.settings.incarnation,
            shard: self.handle.shard().0,
            shard_count: self.settings.shard_count,
            slot_count: self.settings.slot_count,
            cluster_id: self.identity.cluster_id(),
            has_secret,
            nonce: self.identity.nonce(),
        }
    }

    /// What must be the same on both sides.
    pub(crate) fn judge_side(&self, side: &Side) -> Result<(), Refusal> {
        let (own, other) = (self.identity.cluster_id(), side.cluster_id);
        if own != 0 && other != 0 && own != other {
            let text = format!(
                "node {} belongs to cluster {other:016x}, node {} to cluster {own:016x}: check the \
                 addresses of the peers, or empty the data directory of the one that is to join",
                side.node.0, self.settings.node.0
            );
            return Err(Refusal::new(RefusalCode::Cluster, text));
        }
        let (own, other) = (self.settings.slot_count, side.slot_count);
        if own != other {
            let text = format!(
                "node {} has {other} slots, node {} has {own}: the slot count must be the same on \
                 all nodes and can't be changed",
                side.node.0, self.settings.node.0
            );
            return Err(Refusal::new(RefusalCode::SlotCount, text));
        }
        Ok(())
    }

    fn judge_challenge(
        &self,
        dial: &Dial,
        challenge: &Challenge,
        address: SocketAddr,
    ) -> Result<(), Refusal> {
        if !(VERSION_MIN..=VERSION_MAX).contains(&challenge.version) {
            return Err(no_version(challenge.version, challenge.version));
        }
        let side = &challenge.side;
        if let Some(expected) = dial.expected
            && side.node != expected
        {
            let text = format!(
                "{address} answers as node {}, not as node {}: check the addresses of the peers",
                side.node.0, expected.0
            );
            return Err(Refusal::new(RefusalCode::OtherNode, text));
        }
        self.judge_side(side)
    }
}

/// The refusal of a version.
pub(crate) fn no_version(min: u8, max: u8) -> Refusal {
    let text = format!(
        "link versions {min} to {max} are spoken on one side and {VERSION_MIN} to {VERSION_MAX} on \
         the other: upgrade one release at a time"
    );
    Refusal::new(RefusalCode::Version, text)
}

/// The refusal of a node with another secret.
pub(crate) fn other_secret(a: NodeId, b: NodeId) -> Refusal {
    let text = format!(
        "nodes {} and {} have different secrets: set the same WK_CLUSTER_SECRET on all nodes",
        a.0, b.0
    );
    Refusal::new(RefusalCode::Secret, text)
}

/// The refusal of a node without a secret.
pub(crate) fn no_secret(node: NodeId) -> Refusal {
    let text = format!(
        "node {} has no secret: set the WK_CLUSTER_SECRET that the other nodes have",
        node.0
    );
    Refusal::new(RefusalCode::Secret, text)
}
