//! Links: the connections between the shards of different nodes.
//!
//! ```text
//!   node A                                                     node B
//!   shard 0 ──┬── link ── asks, envelopes, pings ──────────►  shard 0
//!             │      ◄── answers, pongs ──
//!             └── link ─────────────────────────────────────►  shard 1
//!   shard 1 ──┬── …            each shard dials each shard of every peer
//! ```
//!
//! The links of a shard to one node are its *bundle*. A bundle is up when all its links are open;
//! when one fails, all are reset, the peer is told down, and they are dialled again. So between
//! [`PeerState::Up`] and [`PeerState::Down`] everything that is sent to a shard arrives in order,
//! and nothing arrives after a loss. What is sent while there is no bundle is dropped.
//!
//! - Links are pinged; a peer that does not answer in time is down.
//! - Every frame and every output has a bound. A peer that does not read costs its own bundle.
//! - One port per node: each shard accepts on it, reads the hello, and hands the socket over to the
//!   shard that it wants.
//! - Bodies are opaque: raft frames, control messages and encoded envelopes pass as they are.
//!
//! With TLS the bytes of a link are sealed and opened in [`tls`]; all else is the same.
//!
//! Who may have links is decided in [`hello`], [`Identity`] and its [`Gatekeeper`].

mod accept;
mod dial;
pub mod frame;
mod fuse;
mod greet;
pub mod hello;
mod identity;
mod output;
mod peer;
mod status;
mod tick;
pub(crate) mod tls;
mod waiters;
mod wire;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    fmt, io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::Arc,
};

use bytes::Bytes;
use jindou_core::{
    effect::{PeerState, Place},
    id::{NodeId, ShardAddr, ShardId},
};

use self::{
    accept::Accepted,
    frame::Frame,
    fuse::Fuses,
    greet::Doorman,
    identity::{Arrival, Door},
    output::BATCH_SIZE,
    peer::{Bundle, Outgoing, Peer},
    waiters::Waiters,
    wire::Flusher,
};
pub use self::{
    hello::{Purpose, Refusal, RefusalCode},
    identity::{Gatekeeper, HelloInfo, Identity, Secret},
    status::LinkStatus,
    tls::{LinkTls, PemFile, TlsError},
};
use crate::{
    handle::Handle,
    http::LocalBoxFuture,
    listener::{self, Listening},
    rt,
};

/// Sockets and host names that may wait for a shard.
const ARRIVAL_COUNT_MAX: usize = 1024;
/// Arrivals taken per turn.
const TAKE_COUNT_MAX: usize = 64;

/// Who a node is, and the bounds and times of its links. Sizes in bytes, times in milliseconds.
#[derive(Clone, Debug)]
pub struct LinkSettings {
    /// This node.
    pub node: NodeId,
    /// Drawn at this start.
    pub incarnation: u64,
    /// Its shards.
    pub shard_count: u16,
    /// The cluster's slots.
    pub slot_count: u16,
    /// Between two pings of a link.
    pub ping_ms: u64,
    /// A peer that has not answered for so long is down.
    pub timeout_ms: u64,
    /// A link that was accepted and brings no ping for so long is closed.
    pub silence_ms: u64,
    /// A peer that has been down for so long is dead.
    pub dead_ms: u64,
    /// How long connecting and saying hello may take together.
    pub handshake_ms: u64,
    /// How long a control message to an address may take.
    pub control_ms: u64,
    /// Pauses between dials: the first, doubled up to the last.
    pub pause_min_ms: u64,
    /// See [`LinkSettings::pause_min_ms`].
    pub pause_max_ms: u64,
    /// The largest frame.
    pub frame_size_max: usize,
    /// Output that may wait on one link; with more its bundle is reset.
    pub output_size_max: usize,
    /// Sockets that have not said hello yet, per shard; further ones are closed at once.
    pub greeting_count_max: usize,
    /// `None`: links are plain, and those with TLS are refused; else the other way round.
    pub tls: Option<LinkTls>,
}

impl LinkSettings {
    /// The defaults for a node.
    pub fn new(node: NodeId, incarnation: u64, shard_count: u16, slot_count: u16) -> Self {
        Self {
            node,
            incarnation,
            shard_count,
            slot_count,
            ping_ms: 150,
            timeout_ms: 600,
            silence_ms: 2_000,
            dead_ms: 1_500,
            handshake_ms: 1_000,
            control_ms: 5_000,
            pause_min_ms: 50,
            pause_max_ms: 1_000,
            frame_size_max: 16 << 20,
            output_size_max: 64 << 20,
            greeting_count_max: 256,
            tls: None,
        }
    }

    /// The largest envelope, so that a frame holds it together with others.
    fn envelope_size_max(&self) -> usize {
        self.frame_size_max.saturating_sub(BATCH_SIZE + 16)
    }

    /// The largest body of an ask, or of its answer.
    fn body_size_max(&self) -> usize {
        self.frame_size_max.saturating_sub(16)
    }
}

/// Why something was not carried.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LinkError {
    /// There is no bundle to that node now. Nothing was sent.
    #[error("node {} can't be reached", .0.0)]
    Unreachable(NodeId),
    /// Over the bound. Nothing was sent, and it will never be.
    #[error("{size} bytes, more than a link carries ({max})")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The bound.
        max: usize,
    },
    /// The link failed. What was sent may have arrived.
    #[error("the link failed: {0}")]
    Broken(String),
    /// The other node refuses.
    #[error("refused: {0}")]
    Refused(Refusal),
}

/// The answer to an ask; may be given later, on the shard's thread. Dropping it leaves the asker
/// waiting.
pub type Answerer = Box<dyn FnOnce(Bytes)>;

/// What comes from links. Called on the shard's thread, also from within [`Links`]' own methods:
/// so it must not call back into what called those, but queue (as [`Handle::push`] does).
pub trait LinkInbound {
    /// A raft frame for a group's replica here. Frames of one shard come in the order in which it
    /// sent them; answers may be given in any order.
    fn raft(&self, from: NodeId, group: u16, frame: Bytes, answer: Answerer);
    /// What a shard sent with [`Links::send`], one or more envelopes, one after the other, in
    /// order.
    fn envelopes(&self, from: ShardAddr, body: Bytes);
    /// A control message; `from` may be no member yet.
    fn control(&self, from: HelloInfo, body: Bytes, answer: Answerer);
    /// The links to a node came up or went down, or it counts as dead.
    fn peer(&self, node: NodeId, state: PeerState);
    /// A ping of a node came; called before it is answered.
    fn heard(&self, from: NodeId, mono_ms: u64);
    /// Every shard of the node has answered pings sent at `sent_mono_ms` (this node's clock) or
    /// later.
    fn answered(&self, node: NodeId, sent_mono_ms: u64);
    /// A node refuses the links of this one; told once until the reason changes.
    fn refused(&self, node: NodeId, refusal: &Refusal);
}

pub(crate) struct Inner {
    handle: Handle,
    settings: LinkSettings,
    identity: Arc<Identity>,
    inbound: Rc<dyn LinkInbound>,
    peers: RefCell<BTreeMap<NodeId, Peer>>,
    accepted: RefCell<Vec<Rc<Accepted>>>,
    flusher: Flusher,
    fuses: Fuses,
    lookups: Waiters<io::Result<Vec<SocketAddr>>>,
    controls: Waiters<Result<(NodeId, Bytes), LinkError>>,
    listening: RefCell<Vec<Rc<Listening>>>,
    greeting_count: Cell<usize>,
    /// When a stranger's TLS, or lack of it, was told last.
    stranger_told_ms: Cell<Option<u64>>,
    generation: Cell<u64>,
    is_stopped: Cell<bool>,
}

impl Inner {
    fn now_ms(&self) -> u64 {
        self.handle.now().mono_ms
    }
}

/// The links of one shard. Cheap to clone; never leaves the thread.
#[derive(Clone)]
pub struct Links(Rc<Inner>);

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links").field("shard", &self.0.handle.shard()).finish_non_exhaustive()
    }
}

impl Links {
    /// The links of the shard of `handle`; one per shard. What was queued leaves at the end of each
    /// turn of the shard's driver.
    pub fn new(
        handle: Handle,
        settings: LinkSettings,
        identity: Arc<Identity>,
        inbound: Rc<dyn LinkInbound>,
    ) -> Self {
        let flusher = Flusher::new(&handle);
        let (sender, arrivals) = flume::bounded(ARRIVAL_COUNT_MAX);
        let door = Door { sender, waker: handle.waker() };
        if identity.open_door(handle.shard().0, door).is_none() {
            tracing::error!(shard = handle.shard().0, "the shard has links already");
        }
        let links = Self(Rc::new(Inner {
            handle: handle.clone(),
            settings,
            identity,
            inbound,
            peers: RefCell::default(),
            accepted: RefCell::default(),
            flusher: flusher.clone(),
            fuses: Fuses::default(),
            lookups: Waiters::default(),
            controls: Waiters::default(),
            listening: RefCell::default(),
            greeting_count: Cell::new(0),
            stranger_told_ms: Cell::new(None),
            generation: Cell::new(0),
            is_stopped: Cell::new(false),
        }));
        handle.0.flushers.borrow_mut().push(Box::new(move || flusher.flush()));
        let inner = Rc::downgrade(&links.0);
        handle.add_source(move |_| {
            let Some(inner) = inner.upgrade() else {
                return false;
            };
            for arrival in arrivals.try_iter().take(TAKE_COUNT_MAX) {
                inner.arrive(arrival);
            }
            !arrivals.is_empty()
        });
        rt::spawn(tick::tick(Rc::downgrade(&links.0)));
        links
    }

    /// Accepts links on this shard's socket ([`crate::bind`]), until [`Links::stop`]: a drain does
    /// not end it, because what waits may need the peers.
    pub fn listen(&self, listener: TcpListener) -> io::Result<()> {
        let inner = &self.0;
        let doorman = Doorman(Rc::downgrade(inner));
        let listening = listener::listen_until_stopped(&inner.handle, listener, doorman)?;
        inner.listening.borrow_mut().push(listening);
        Ok(())
    }

    /// Dials a node at `address` (host:port; the host is looked up on a thread of its own, again
    /// for every dial) and keeps on doing so. `None` ends that, and its links. Both a new address
    /// and `None` take a bundle that is up down.
    pub fn set_peer(&self, node: NodeId, address: Option<String>) {
        self.0.set_peer(node, address);
    }

    /// Queues an envelope for a shard of another node; `encode` appends it to the frame that leaves
    /// after this turn. An envelope's encoding must tell its own end: what is sent to one shard in
    /// one turn arrives in one piece, in order. On an error it was dropped.
    pub fn send(
        &self,
        to: NodeId,
        place: Place,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), LinkError> {
        let bundle = self.0.bundle(to).ok_or(LinkError::Unreachable(to))?;
        let link = bundle.link(place).ok_or(LinkError::Unreachable(to))?;
        let max = self.0.settings.envelope_size_max();
        match link.wire.queue_envelope(max, encode) {
            Ok(Some(size)) if size > max => Err(LinkError::TooLarge { size, max }),
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(LinkError::Unreachable(to)),
            Err(error) => Err(self.0.broken(&bundle, &error)),
        }
    }

    /// Sends a raft frame to a group's replica on another node, on the link to the shard of
    /// `place`. It is queued now, not at the first poll: frames to one shard arrive in the order of
    /// the calls. Timing out is the caller's business; a future that is dropped forgets the answer.
    pub fn call(
        &self,
        to: NodeId,
        group: u16,
        place: Place,
        body: Bytes,
    ) -> LocalBoxFuture<Result<Bytes, LinkError>> {
        self.ask(to, place, body, |id, body| Frame::RaftAsk { id, group, body })
    }

    /// Sends a control message to a shard of a peer that is up.
    pub fn control(
        &self,
        to: NodeId,
        place: Place,
        body: Bytes,
    ) -> LocalBoxFuture<Result<Bytes, LinkError>> {
        self.ask(to, place, body, |id, body| Frame::ControlAsk { id, body })
    }

    /// Sends a control message to whoever listens at `address` (host:port), on a link of its own.
    /// Returns who answered, and the answer.
    pub fn control_at(
        &self,
        address: String,
        body: Bytes,
    ) -> LocalBoxFuture<Result<(NodeId, Bytes), LinkError>> {
        let max = self.0.settings.body_size_max();
        if body.len() > max {
            let size = body.len();
            return Box::pin(async move { Err(LinkError::TooLarge { size, max }) });
        }
        let (ticket, waiting) = self.0.controls.wait();
        rt::spawn(dial::control(Rc::clone(&self.0), address, body, ticket));
        Box::pin(waiting)
    }

    fn ask(
        &self,
        to: NodeId,
        place: Place,
        body: Bytes,
        frame: impl FnOnce(u64, Bytes) -> Frame,
    ) -> LocalBoxFuture<Result<Bytes, LinkError>> {
        match self.try_ask(to, place, body, frame) {
            Ok(waiting) => Box::pin(waiting),
            Err(error) => Box::pin(async move { Err(error) }),
        }
    }

    fn try_ask(
        &self,
        to: NodeId,
        place: Place,
        body: Bytes,
        frame: impl FnOnce(u64, Bytes) -> Frame,
    ) -> Result<waiters::Waiting<Result<Bytes, LinkError>>, LinkError> {
        let (size, max) = (body.len(), self.0.settings.body_size_max());
        if size > max {
            return Err(LinkError::TooLarge { size, max });
        }
        let bundle = self.0.bundle(to).ok_or(LinkError::Unreachable(to))?;
        let link = bundle.link(place).ok_or(LinkError::Unreachable(to))?;
        let (id, waiting) = link.calls.wait();
        match link.wire.queue(&frame(id, body)) {
            Ok(()) => Ok(waiting),
            Err(error) => Err(self.0.broken(&bundle, &error)),
        }
    }

    /// Starts the sends of what was queued now, before the end of the driver's turn.
    pub fn flush(&self) {
        self.0.flusher.flush();
    }

    /// Whether the links to a node are up.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.0.bundle(node).is_some()
    }

    /// How the links to each peer are, by node.
    pub fn status(&self) -> Vec<LinkStatus> {
        status::status(&self.0)
    }

    /// Closes everything. No event follows.
    pub fn stop(&self) {
        let inner = &self.0;
        inner.is_stopped.set(true);
        for listening in inner.listening.borrow_mut().drain(..) {
            listening.stop();
        }
        let peers = std::mem::take(&mut *inner.peers.borrow_mut());
        for peer in peers.into_values() {
            peer.end();
        }
        for accepted in inner.accepted.borrow_mut().drain(..) {
            accepted.end();
        }
    }
}

impl Inner {
    fn bundle(&self, node: NodeId) -> Option<Rc<Bundle>> {
        self.peers.borrow().get(&node)?.bundle.clone()
    }

    fn arrive(self: &Rc<Self>, arrival: Arrival) {
        match arrival {
            Arrival::Socket(caller) => self.take_over(caller),
            Arrival::Resolved { ticket, result } => self.lookups.answer(ticket, result),
        }
    }

    /// A bundle that cannot take more is reset.
    fn broken(self: &Rc<Self>, bundle: &Rc<Bundle>, error: &wire::WireError) -> LinkError {
        self.reset(bundle, &error.to_string());
        LinkError::Broken(error.to_string())
    }
}

impl Bundle {
    fn link(&self, place: Place) -> Option<&Outgoing> {
        let shard = match place {
            Place::Slot(slot) => ShardId::of(slot, self.shard_count),
            Place::Shard(shard) => shard,
        };
        self.links.get(usize::from(shard.0))
    }
}
