//! A peer, as one shard sees it: its bundle of links, up or being dialled.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;
use jindou_core::{effect::PeerState, id::NodeId};

use super::{
    Inner, LinkError, Refusal,
    dial::{self, DialError, Open},
    frame::{Frame, FrameError},
    waiters::Waiters,
    wire::{Reading, Traffic, Wire, WireError},
};
use crate::{notify::Notify, rt};

/// A bundle that held for so long was a good one: the next dial is soon.
const GOOD_MS: u64 = 1_000;

/// See the module.
pub(crate) struct Peer {
    pub(crate) address: String,
    /// Which of all peers that were ever set; the task of an older one ends.
    generation: u64,
    /// Ends the pause before the next dial.
    kick: Rc<Notify>,
    pub(crate) bundle: Option<Rc<Bundle>>,
    /// Of the newest bundle.
    pub(crate) incarnation: Option<u64>,
    /// Since when there is no bundle.
    pub(crate) down_ms: u64,
    /// When it came back last without having been dead, nor started anew.
    pub(crate) returned_ms: Option<u64>,
    /// Whether that has been told.
    pub(crate) is_dead: bool,
    pub(crate) traffic: Rc<Traffic>,
    pub(crate) resets: u64,
    /// Why there is no bundle, or was none last.
    pub(crate) trouble: Option<String>,
    /// What has been told.
    pub(crate) refusal: Option<Refusal>,
}

impl Peer {
    /// Ends links and task.
    pub(crate) fn end(self) {
        if let Some(bundle) = &self.bundle {
            bundle.end("it is not wanted any more");
        }
        self.kick.notify();
    }
}

/// The open links of this shard to every shard of a node.
pub(crate) struct Bundle {
    pub(crate) node: NodeId,
    pub(crate) shard_count: u16,
    /// By shard.
    pub(crate) links: Vec<Outgoing>,
    is_over: Cell<bool>,
    ended: Notify,
    /// The newest pings that all links have answered: when they were sent.
    answered_ms: Cell<u64>,
    /// The newest ping.
    pub(crate) pinged: Cell<Option<(u64, Instant)>>,
    pub(crate) rtt_us: Cell<Option<u64>>,
}

/// One link.
pub(crate) struct Outgoing {
    pub(crate) wire: Rc<Wire>,
    pub(crate) calls: Waiters<Result<Bytes, LinkError>>,
    answered_ms: Cell<u64>,
}

impl Bundle {
    pub(crate) fn is_over(&self) -> bool {
        self.is_over.get()
    }

    /// When the link that has been silent for longest was heard.
    pub(crate) fn heard_ms(&self) -> u64 {
        self.links.iter().map(|link| link.wire.heard_ms()).min().unwrap_or(0)
    }

    /// The same for signs of life ([`Wire::alive_ms`]).
    pub(crate) fn alive_ms(&self) -> u64 {
        self.links.iter().map(|link| link.wire.alive_ms()).min().unwrap_or(0)
    }

    /// Cuts all links; who waits for an answer is told why.
    fn end(&self, reason: &str) {
        if self.is_over.replace(true) {
            return;
        }
        for link in &self.links {
            link.wire.cut();
        }
        for link in &self.links {
            link.calls.answer_all(|| Err(LinkError::Broken(reason.to_owned())));
        }
        self.ended.notify();
    }
}

impl Inner {
    pub(crate) fn set_peer(self: &Rc<Self>, node: NodeId, address: Option<String>) {
        if node == self.settings.node || self.is_stopped.get() {
            return;
        }
        let Some(address) = address else {
            let peer = self.peers.borrow_mut().remove(&node);
            if let Some(peer) = peer {
                let was_up = peer.bundle.is_some();
                peer.end();
                self.end_accepted(node, |_| true);
                self.count_links();
                if was_up {
                    self.inbound.peer(node, PeerState::Down);
                }
            }
            return;
        };
        let mut peers = self.peers.borrow_mut();
        if let Some(peer) = peers.get_mut(&node) {
            if peer.address == address {
                return;
            }
            peer.address = address;
            peer.kick.notify();
            let bundle = peer.bundle.clone();
            drop(peers);
            if let Some(bundle) = bundle {
                self.reset(&bundle, "the node has another address");
            }
            return;
        }
        self.generation.set(self.generation.get() + 1);
        let generation = self.generation.get();
        let traffic = Rc::default();
        self.count_accepted_at(node, &traffic);
        peers.insert(
            node,
            Peer {
                address,
                generation,
                kick: Rc::default(),
                bundle: None,
                incarnation: None,
                down_ms: self.now_ms(),
                returned_ms: None,
                is_dead: false,
                traffic,
                resets: 0,
                trouble: None,
                refusal: None,
            },
        );
        drop(peers);
        rt::spawn(keep(Rc::clone(self), node, generation));
    }

    /// What is needed to dial a peer, as long as it is the same.
    fn dialling(&self, node: NodeId, generation: u64) -> Option<(String, Rc<Traffic>, Rc<Notify>)> {
        let peers = self.peers.borrow();
        let peer = peers.get(&node).filter(|peer| peer.generation == generation)?;
        Some((peer.address.clone(), Rc::clone(&peer.traffic), Rc::clone(&peer.kick)))
    }

    /// Dials a peer that is not up at once: it seems to be back.
    pub(crate) fn kick(&self, node: NodeId) {
        if let Some(peer) = self.peers.borrow().get(&node)
            && peer.bundle.is_none()
        {
            peer.kick.notify();
        }
    }

    /// Takes links to all shards of a peer, if it is still wanted at that address.
    fn come_up(
        self: &Rc<Self>,
        node: NodeId,
        generation: u64,
        address: &str,
        opens: Vec<Open>,
    ) -> Option<Rc<Bundle>> {
        let info = opens.first()?.info;
        let (links, readings): (Vec<_>, Vec<_>) = opens
            .into_iter()
            .map(|open| {
                let link = Outgoing {
                    wire: open.wire,
                    calls: Waiters::default(),
                    answered_ms: Cell::new(0),
                };
                (link, open.reading)
            })
            .unzip();
        let bundle = Rc::new(Bundle {
            node,
            shard_count: info.shard_count,
            links,
            is_over: Cell::new(false),
            ended: Notify::default(),
            answered_ms: Cell::new(0),
            pinged: Cell::new(None),
            rtt_us: Cell::new(None),
        });
        {
            let mut peers = self.peers.borrow_mut();
            let peer = peers
                .get_mut(&node)
                .filter(|peer| peer.generation == generation && peer.address == address);
            let Some(peer) = peer else {
                drop(peers);
                bundle.end("it is not wanted any more");
                return None;
            };
            peer.bundle = Some(Rc::clone(&bundle));
            if peer.incarnation == Some(info.incarnation) && !peer.is_dead {
                peer.returned_ms = Some(self.now_ms());
            }
            peer.incarnation = Some(info.incarnation);
            peer.is_dead = false;
            peer.trouble = None;
            peer.refusal = None;
        }
        for (reading, place) in readings.into_iter().zip(0..) {
            rt::spawn(read(Rc::clone(self), Rc::clone(&bundle), place, reading));
        }
        self.count_links();
        tracing::debug!(node = node.0, shards = info.shard_count, "a node is up");
        let up = PeerState::Up { incarnation: info.incarnation, shard_count: info.shard_count };
        self.inbound.peer(node, up);
        self.end_accepted(node, |accepted| accepted.incarnation() != info.incarnation);
        self.release_held(node, info.incarnation);
        self.ping(&bundle);
        Some(bundle)
    }

    /// Resets a bundle, once.
    pub(crate) fn reset(&self, bundle: &Rc<Bundle>, reason: &str) {
        if bundle.is_over() {
            return;
        }
        bundle.end(reason);
        let mut is_current = false;
        if let Some(peer) = self.peers.borrow_mut().get_mut(&bundle.node)
            && peer.bundle.as_ref().is_some_and(|current| Rc::ptr_eq(current, bundle))
        {
            is_current = true;
            peer.bundle = None;
            peer.down_ms = self.now_ms();
            peer.resets += 1;
            peer.trouble = Some(reason.to_owned());
        }
        if is_current {
            self.count_links();
            self.handle.counters().link_resets.add(1);
            tracing::info!(node = bundle.node.0, reason, "the links to a node were reset");
            self.inbound.peer(bundle.node, PeerState::Down);
        }
    }

    /// Notes why a dial failed.
    fn dial_failed(&self, node: NodeId, generation: u64, error: &DialError) {
        let mut told = None;
        if let Some(peer) = self.peers.borrow_mut().get_mut(&node)
            && peer.generation == generation
        {
            peer.trouble = Some(error.to_string());
            if let DialError::Refused(refusal) = error
                && peer.refusal.as_ref() != Some(refusal)
            {
                peer.refusal = Some(refusal.clone());
                told = Some(refusal);
            }
        }
        tracing::debug!(node = node.0, %error, "a node can't be reached");
        if let Some(refusal) = told {
            tracing::warn!(node = node.0, "a node refuses links: {refusal}");
            self.inbound.refused(node, refusal);
        }
    }

    fn count_links(&self) {
        let peers = self.peers.borrow();
        let count: usize =
            peers.values().filter_map(|peer| peer.bundle.as_ref()).map(|b| b.links.len()).sum();
        self.handle.counters().links_open.set(count as u64);
    }

    /// Pings every link of a bundle, with the same time, so that the answers can be compared.
    pub(crate) fn ping(self: &Rc<Self>, bundle: &Rc<Bundle>) {
        let now_ms = self.now_ms();
        bundle.pinged.set(Some((now_ms, Instant::now())));
        for link in &bundle.links {
            if let Err(error) = link.wire.queue(&Frame::Ping(now_ms)) {
                self.reset(bundle, &error.to_string());
                return;
            }
        }
    }

    fn on_frame(&self, bundle: &Bundle, link: &Outgoing, frame: Frame) -> Result<(), WireError> {
        match frame {
            Frame::Pong(sent_ms) => self.on_pong(bundle, link, sent_ms),
            Frame::RaftAnswer { id, body } | Frame::ControlAnswer { id, body } => {
                link.calls.answer(id, Ok(body));
            }
            Frame::Refusal(refusal) => return Err(WireError::Io(refusal.to_string())),
            Frame::Hello(_)
            | Frame::Challenge(_)
            | Frame::Proof(_)
            | Frame::Welcome
            | Frame::Ping(_)
            | Frame::RaftAsk { .. }
            | Frame::Envelopes(_)
            | Frame::ControlAsk { .. } => {
                return Err(FrameError::OutOfPlace(frame.kind()).into());
            }
        }
        Ok(())
    }

    fn on_pong(&self, bundle: &Bundle, link: &Outgoing, sent_ms: u64) {
        let Some((newest_ms, at)) = bundle.pinged.get() else {
            return;
        };
        // A time that was never sent proves nothing.
        if sent_ms > newest_ms {
            return;
        }
        if sent_ms == newest_ms {
            let rtt_us = u64::try_from(at.elapsed().as_micros()).unwrap_or(u64::MAX);
            bundle.rtt_us.set(Some(rtt_us));
        }
        link.answered_ms.set(link.answered_ms.get().max(sent_ms));
        let all_ms = bundle.links.iter().map(|link| link.answered_ms.get()).min().unwrap_or(0);
        if all_ms > bundle.answered_ms.get() {
            bundle.answered_ms.set(all_ms);
            self.inbound.answered(bundle.node, all_ms);
        }
    }
}

/// Reads one link of a bundle to its end.
async fn read(inner: Rc<Inner>, bundle: Rc<Bundle>, place: usize, mut reading: Reading) {
    let Some(link) = bundle.links.get(place) else {
        return;
    };
    let error = loop {
        let frame = link.wire.read_frame(&mut reading).await;
        if bundle.is_over() {
            return;
        }
        match frame.and_then(|frame| inner.on_frame(&bundle, link, frame)) {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    inner.reset(&bundle, &format!("shard {place}: {error}"));
}

/// Keeps a peer's bundle up for as long as the peer is wanted.
async fn keep(inner: Rc<Inner>, node: NodeId, generation: u64) {
    let (min, max) = (inner.settings.pause_min_ms.max(1), inner.settings.pause_max_ms.max(1));
    let mut pause_ms = min;
    while let Some((address, traffic, kick)) = inner.dialling(node, generation) {
        kick.clear();
        match dial::bundle(&inner, node, &address, &traffic).await {
            Ok(opens) => {
                let begin_ms = inner.now_ms();
                if let Some(bundle) = inner.come_up(node, generation, &address, opens) {
                    bundle.ended.wait().await;
                }
                if inner.now_ms() >= begin_ms + GOOD_MS {
                    pause_ms = min;
                }
            }
            Err(error) => inner.dial_failed(node, generation, &error),
        }
        // Two nodes that reset each other must not do so in step.
        let pause = Duration::from_millis(pause_ms / 2 + inner.identity.dice(pause_ms / 2));
        let is_kicked = rest(&kick, pause).await;
        pause_ms = if is_kicked { min } else { (pause_ms * 2).min(max) };
    }
}

/// Waits for a while, or until it is kicked.
async fn rest(kick: &Notify, pause: Duration) -> bool {
    let mut sleep = pin!(monoio::time::sleep(pause));
    poll_fn(|context| {
        if kick.poll(context).is_ready() {
            return Poll::Ready(true);
        }
        sleep.as_mut().poll(context).map(|()| false)
    })
    .await
}
