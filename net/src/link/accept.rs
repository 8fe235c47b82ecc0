//! Links that others dial, from the answer to their hello on.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "in a handshake every frame but those that belong there is a fault of the peer"
)]

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
};

use bytes::Bytes;
use jindou_core::id::{NodeId, ShardAddr, ShardId};

use super::{
    Answerer, Inner, Refusal, RefusalCode,
    dial::{no_secret, no_version, other_secret},
    frame::{Frame, FrameError},
    fuse::Fuse,
    greet::{Greeted, Greeting},
    hello::{Challenge, Hello, Prover, Purpose, is_proof, prove},
    identity::{Held, HelloInfo, in_use},
    wire::{Reading, Traffic, Wire, WireError},
};

/// A link that another node's shard has opened.
pub(crate) struct Accepted {
    info: HelloInfo,
    wire: Rc<Wire>,
    is_over: Cell<bool>,
    /// Envelopes of an incarnation that this shard has no bundle to yet. What they say of it must
    /// come after the word that it is there.
    held: RefCell<Vec<Bytes>>,
    held_size: Cell<usize>,
    /// Keeps its node id from others.
    _held: Held,
}

impl Accepted {
    pub(crate) fn node(&self) -> NodeId {
        self.info.node
    }

    pub(crate) fn incarnation(&self) -> u64 {
        self.info.incarnation
    }

    /// Whether a member's dialler has sent nothing for so long.
    pub(crate) fn is_silent(&self, now_ms: u64, silence_ms: u64) -> bool {
        let is_bundle = self.info.purpose == Purpose::Bundle;
        is_bundle && now_ms > self.wire.heard_ms() + silence_ms
    }

    /// Cuts it off; nothing more of it is taken.
    pub(crate) fn end(&self) {
        self.is_over.set(true);
        self.held.borrow_mut().clear();
        self.wire.cut();
    }

    fn from(&self) -> ShardAddr {
        ShardAddr { node: self.info.node, shard: ShardId(self.info.shard) }
    }

    /// Queues an answer. A peer that does not take its answers loses the link.
    fn answer(wire: &Rc<Wire>, frame: &Frame, size_max: usize) {
        let size = frame.body_size();
        if size > size_max {
            tracing::warn!(size, "an answer is larger than a link carries");
            wire.cut();
        } else if wire.queue(frame).is_err() {
            wire.cut();
        }
    }

    fn answerer(&self, size_max: usize, frame: impl FnOnce(Bytes) -> Frame + 'static) -> Answerer {
        let wire = Rc::clone(&self.wire);
        Box::new(move |body| Self::answer(&wire, &frame(body), size_max))
    }
}

impl Inner {
    /// What the first frame says is right or wrong by itself.
    fn judge_hello(&self, hello: &Hello, address: SocketAddr) -> Result<u8, Refusal> {
        let version =
            hello.version().ok_or_else(|| no_version(hello.version_min, hello.version_max))?;
        if hello.side.node == self.settings.node {
            return Err(if hello.side.incarnation == self.settings.incarnation {
                let text = format!(
                    "this is node {} itself: its own address stands among those of its peers",
                    self.settings.node.0
                );
                Refusal::new(RefusalCode::Itself, text)
            } else {
                in_use(self.settings.node, &format!("the node that {} dialled", address.ip()))
            });
        }
        self.judge_side(&hello.side)?;
        if hello.wanted != self.handle.shard().0 {
            let text = format!(
                "node {} has {} shards, there is no shard {}",
                self.settings.node.0, self.settings.shard_count, hello.wanted
            );
            return Err(Refusal::new(RefusalCode::NoSuchShard, text));
        }
        Ok(version)
    }

    /// Takes a new link in. An older one of the same shard is over: nothing of it may come after
    /// what comes on the new one.
    fn take_in(&self, accepted: &Rc<Accepted>) {
        let mut all = self.accepted.borrow_mut();
        if accepted.info.purpose == Purpose::Bundle {
            for other in all.iter() {
                let is_same = other.from() == accepted.from();
                if is_same && other.info.purpose == Purpose::Bundle {
                    other.end();
                }
            }
            if let Some(peer) = self.peers.borrow().get(&accepted.node()) {
                accepted.wire.count_at(&peer.traffic);
            }
        }
        all.push(Rc::clone(accepted));
        self.handle.counters().links_accepted.set(all.len() as u64);
    }

    fn let_go(&self, accepted: &Rc<Accepted>) {
        let mut all = self.accepted.borrow_mut();
        all.retain(|other| !Rc::ptr_eq(other, accepted));
        self.handle.counters().links_accepted.set(all.len() as u64);
    }

    /// What came on a node's links before it was a peer counts too.
    pub(crate) fn count_accepted_at(&self, node: NodeId, traffic: &Rc<Traffic>) {
        for accepted in self.accepted.borrow().iter() {
            if accepted.info.purpose == Purpose::Bundle && accepted.node() == node {
                accepted.wire.count_at(traffic);
            }
        }
    }

    /// Cuts off links that a node's shards have dialled.
    pub(crate) fn end_accepted(&self, node: NodeId, which: impl Fn(&Accepted) -> bool) {
        for accepted in self.accepted.borrow().iter() {
            let is_bundle = accepted.info.purpose == Purpose::Bundle;
            if is_bundle && accepted.node() == node && which(accepted) {
                accepted.end();
            }
        }
    }

    /// Hands over what was held until the incarnation was known.
    pub(crate) fn release_held(&self, node: NodeId, incarnation: u64) {
        let all = self.accepted.borrow().clone();
        for accepted in all {
            if accepted.node() == node && accepted.incarnation() == incarnation {
                accepted.held_size.set(0);
                let held = std::mem::take(&mut *accepted.held.borrow_mut());
                for body in held {
                    self.inbound.envelopes(accepted.from(), body);
                }
            }
        }
    }

    /// Whether this shard has told of the incarnation, or will never do so.
    fn is_known(&self, node: NodeId, incarnation: u64) -> bool {
        let peers = self.peers.borrow();
        peers.get(&node).is_none_or(|peer| peer.incarnation == Some(incarnation))
    }

    fn on_ask(&self, accepted: &Accepted, frame: Frame) -> Result<(), WireError> {
        let (info, size_max) = (&accepted.info, self.settings.body_size_max());
        let is_member = info.purpose == Purpose::Bundle;
        match frame {
            Frame::Ping(sent_ms) => {
                if is_member {
                    self.inbound.heard(info.node, self.now_ms());
                }
                Accepted::answer(&accepted.wire, &Frame::Pong(sent_ms), size_max);
            }
            Frame::RaftAsk { id, group, body } if is_member => {
                let answer =
                    accepted.answerer(size_max, move |body| Frame::RaftAnswer { id, body });
                self.inbound.raft(info.node, group, body, answer);
            }
            Frame::Envelopes(body) if is_member => {
                if self.is_known(info.node, info.incarnation) {
                    self.inbound.envelopes(accepted.from(), body);
                } else {
                    let size = accepted.held_size.get() + body.len();
                    if size > self.settings.output_size_max {
                        return Err(WireError::TooSlow(size));
                    }
                    accepted.held_size.set(size);
                    accepted.held.borrow_mut().push(body);
                }
            }
            Frame::ControlAsk { id, body } => {
                let answer =
                    accepted.answerer(size_max, move |body| Frame::ControlAnswer { id, body });
                self.inbound.control(*info, body, answer);
            }
            Frame::Refusal(refusal) => return Err(WireError::Io(refusal.to_string())),
            Frame::Hello(_)
            | Frame::Challenge(_)
            | Frame::Proof(_)
            | Frame::Welcome
            | Frame::Pong(_)
            | Frame::RaftAsk { .. }
            | Frame::RaftAnswer { .. }
            | Frame::Envelopes(_)
            | Frame::ControlAnswer { .. } => {
                return Err(FrameError::OutOfPlace(frame.kind()).into());
            }
        }
        Ok(())
    }
}

/// How a handshake ends without a link.
enum NoLink {
    Refused(Refusal),
    Gone(WireError),
}

impl From<WireError> for NoLink {
    fn from(error: WireError) -> Self {
        Self::Gone(error)
    }
}

impl From<Refusal> for NoLink {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Answers a hello, and then asks and pings until the link ends.
pub(crate) async fn serve(inner: Rc<Inner>, fuse: Rc<Fuse>, greeted: Greeted, greeting: Greeting) {
    let Greeted { stream, address, hello, session } = greeted;
    let settings = &inner.settings;
    let (wire, mut reading) =
        Wire::new(stream, fuse, &inner.flusher, settings.output_size_max, Rc::default(), session);
    let welcome = welcome(&inner, &wire, &mut reading, address, &hello).await;
    let (info, held) = match welcome {
        Ok(welcome) => welcome,
        Err(NoLink::Gone(error)) => {
            tracing::debug!(%address, %error, "a link was not taken");
            return wire.cut();
        }
        Err(NoLink::Refused(refusal)) => {
            inner.handle.counters().link_refusals.add(1);
            tracing::debug!(%address, %refusal, "a link was refused");
            return inner.refuse(&wire, &mut reading, refusal).await;
        }
    };
    drop(greeting);
    let end_ms = inner.now_ms() + settings.control_ms;
    wire.fuse().set((info.purpose == Purpose::Control).then_some(end_ms));
    reading.set_size_max(settings.frame_size_max);
    let accepted = Rc::new(Accepted {
        info,
        wire,
        is_over: Cell::new(false),
        held: RefCell::default(),
        held_size: Cell::new(0),
        _held: held,
    });
    inner.take_in(&accepted);
    if info.purpose == Purpose::Bundle {
        inner.kick(info.node);
    }
    let _ = accepted.wire.queue(&Frame::Welcome);
    let error = loop {
        let frame = accepted.wire.read_frame(&mut reading).await;
        if accepted.is_over.get() {
            break WireError::Closed;
        }
        match frame.and_then(|frame| inner.on_ask(&accepted, frame)) {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    tracing::debug!(node = info.node.0, shard = info.shard, %error, "a link has ended");
    accepted.end();
    inner.let_go(&accepted);
}

/// The acceptor's part of the handshake, up to the welcome.
async fn welcome(
    inner: &Inner,
    wire: &Rc<Wire>,
    reading: &mut Reading,
    address: SocketAddr,
    got: &Bytes,
) -> Result<(HelloInfo, Held), NoLink> {
    let hello =
        Hello::decode(got).ok_or_else(|| WireError::Io("a hello that can't be read".to_owned()))?;
    let version = inner.judge_hello(&hello, address)?;
    let secret = inner.identity.secret();
    let side = &hello.side;
    let common = secret.as_ref().filter(|_| side.has_secret);
    if let Some(secret) = &secret
        && secret.is_required()
        && !side.has_secret
    {
        return Err(no_secret(side.node).into());
    }
    let mut challenge =
        Challenge { version, side: inner.side(secret.is_some()), proof: common.map(|_| [0; 32]) };
    let mut sent = Bytes::from(challenge.encode());
    if let Some(secret) = common {
        challenge.proof = Some(prove(secret.bytes(), Prover::Acceptor, got, &sent));
        sent = Bytes::from(challenge.encode());
    }
    wire.queue(&Frame::Challenge(sent.clone()))?;
    let proof = match wire.read_frame(reading).await? {
        Frame::Proof(proof) => proof,
        Frame::Refusal(refusal) => return Err(WireError::Io(refusal.to_string()).into()),
        other => return Err(WireError::from(FrameError::OutOfPlace(other.kind())).into()),
    };
    if let Some(secret) = common
        && !is_proof(secret.bytes(), Prover::Dialer, got, &sent, &proof)
    {
        return Err(other_secret(side.node, inner.settings.node).into());
    }
    let info = HelloInfo {
        version,
        node: side.node,
        incarnation: side.incarnation,
        shard: side.shard,
        shard_count: side.shard_count,
        cluster_id: side.cluster_id,
        is_proven: common.is_some(),
        purpose: hello.purpose,
        is_dialled: false,
        address,
    };
    let gatekeeper = inner.identity.gatekeeper();
    gatekeeper.met(&info);
    gatekeeper.admit(&info)?;
    let held = inner.identity.hold(&info)?;
    Ok((info, held))
}
