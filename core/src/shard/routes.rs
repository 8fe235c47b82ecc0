//! Where things go: who leads which slot, which nodes are there, and when what was kept goes out
//! again.
//!
//! The shard of a slot hears from its replica ([`Event::Leader`](crate::effect::Event)) or from the
//! leader's node; it tells the other shards of its node, and, when its own node leads, all others.
//! Whatever is kept for a slot has a time when it is due; a change of leader makes it due at once.

use super::Shard;
use crate::{
    effect::{Effect, PeerState, Place},
    envelope::Envelope,
    id::{NodeId, SessionAddr, ShardAddr, ShardId, SlotId},
    map::{Map, Set},
};

/// After a refusal the first try waits this long, each further one twice as long.
pub(crate) const RETRY_MS: u64 = 50;
/// The longest wait between two tries.
pub(crate) const RETRY_MS_MAX: u64 = 400;
/// Waits for news of a leader or a link, not for a time.
pub(crate) const WHEN_TOLD: u64 = u64::MAX;

/// What is known of a slot's leader.
#[derive(Debug, Clone, Copy)]
struct Leader {
    node: Option<NodeId>,
    term: u64,
}

/// Another node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer {
    pub(crate) up: bool,
    /// It counts as gone until it comes up again.
    pub(crate) dead: bool,
    incarnation: u64,
    pub(crate) shard_count: u16,
}

/// Leaders and nodes as this shard knows them.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    leaders: Map<SlotId, Leader>,
    pub(crate) peers: Map<NodeId, Peer>,
    /// Slots with a new leader, or whose leader came up: settled at the end of the step.
    moved: Set<SlotId>,
    /// When the first of what is kept is due.
    due_ms: u64,
}

impl Shard {
    pub(super) fn me(&self) -> ShardAddr {
        ShardAddr { node: self.settings.node, shard: self.id }
    }

    pub(super) fn slot_of(&self, id: &str) -> SlotId {
        SlotId::of(id, self.settings.slot_count)
    }

    pub(super) fn leader_of(&self, slot: SlotId) -> Option<NodeId> {
        self.routes.leaders.get(&slot)?.node
    }

    pub(super) fn term_of(&self, slot: SlotId) -> u64 {
        self.routes.leaders.get(&slot).map_or(0, |leader| leader.term)
    }

    /// Whether there are other nodes: only then is anything numbered and acknowledged.
    pub(super) fn has_peers(&self) -> bool {
        !self.routes.peers.is_empty()
    }

    pub(super) fn is_up(&self, node: NodeId) -> bool {
        node == self.settings.node || self.routes.peers.get(&node).is_some_and(|peer| peer.up)
    }

    /// The shard that leads a slot, if that is known.
    pub(super) fn home_of(&self, slot: SlotId) -> Option<ShardAddr> {
        let node = self.leader_of(slot)?;
        let shard_count = if node == self.settings.node {
            self.settings.shard_count
        } else {
            self.routes.peers.get(&node)?.shard_count
        };
        Some(ShardAddr { node, shard: ShardId::of(slot, shard_count) })
    }

    /// The same if its node is not dead: what is delivered to a dead one waits for the next.
    pub(super) fn living_home_of(&self, slot: SlotId) -> Option<ShardAddr> {
        let is_dead = |node| self.routes.peers.get(&node).is_some_and(|peer: &Peer| peer.dead);
        self.home_of(slot).filter(|home| !is_dead(home.node))
    }

    /// Whether this shard leads the slot, and nobody is known to lead it with a higher term.
    pub(super) fn is_home(&self, slot: SlotId) -> bool {
        self.leads(slot) && self.leader_of(slot) == Some(self.settings.node)
    }

    /// Whether what is sent to the slot's leader now has a way to go.
    pub(super) fn can_reach(&self, slot: SlotId) -> bool {
        !self.routes.moved.contains(&slot)
            && self.leader_of(slot).is_some_and(|node| self.is_up(node))
    }

    /// Sends to a shard of any node.
    pub(super) fn send_to(&mut self, to: ShardAddr, envelope: Envelope) {
        if to.node == self.settings.node {
            self.send(to.shard, envelope);
        } else {
            let place = Place::Shard(to.shard);
            self.out.effects.push(Effect::Forward { to: to.node, place, envelope });
        }
    }

    /// Sends to the slot's leader; without one it is lost.
    pub(super) fn send_to_slot(&mut self, slot: SlotId, envelope: Envelope) {
        match self.leader_of(slot) {
            Some(node) if node == self.settings.node => {
                self.send(ShardId::of(slot, self.settings.shard_count), envelope);
            }
            Some(to) => {
                let place = Place::Slot(slot);
                self.out.effects.push(Effect::Forward { to, place, envelope });
            }
            None => {}
        }
    }

    /// The address of a session of this node.
    pub(super) fn session(&self, conn: crate::id::ConnId) -> SessionAddr {
        SessionAddr { node: self.settings.node, conn }
    }

    /// Somebody says who leads a slot. Higher terms win.
    pub(super) fn on_leader(&mut self, slot: SlotId, leader: Option<NodeId>, term: u64) {
        let news = match self.routes.leaders.get(&slot) {
            Some(known) => {
                term > known.term
                    || (term == known.term && known.node.is_none() && leader.is_some())
            }
            None => true,
        };
        if !news {
            return;
        }
        self.routes.leaders.insert(slot, Leader { node: leader, term });
        self.mark_moved(slot);
        self.take_back_parcels(slot);
        self.close_home_of_another(slot);
        if ShardId::of(slot, self.settings.shard_count) == self.id {
            for shard in (0..self.settings.shard_count).map(ShardId) {
                if shard != self.id {
                    self.send(shard, Envelope::Leader { slot, leader, term });
                }
            }
            if leader == Some(self.settings.node) {
                let peers = self.routes.peers.iter().filter(|(_, peer)| peer.up);
                let peers: Vec<NodeId> = peers.map(|(node, _)| *node).collect();
                for to in peers {
                    let envelope = Envelope::Leader { slot, leader, term };
                    let place = Place::Slot(slot);
                    self.out.effects.push(Effect::Forward { to, place, envelope });
                }
            }
            self.out.effects.push(Effect::LeaderKnown { slot, leader });
        }
    }

    /// What waits here to be delivered to a slot that another node leads is turned away.
    fn close_home_of_another(&mut self, slot: SlotId) {
        if self.home_of(slot) != Some(self.me()) {
            self.close_home(slot);
        }
    }

    /// Whoever took this shard for a slot's leader should know better.
    pub(super) fn tell_leader(&mut self, slot: SlotId, to: ShardAddr) {
        if to.node != self.settings.node
            && let Some(Leader { node: Some(node), term }) = self.routes.leaders.get(&slot).copied()
            && node != self.settings.node
        {
            self.send_to(to, Envelope::Leader { slot, leader: Some(node), term });
        }
    }

    /// The links to another node came up or went down.
    pub(super) fn on_peer(&mut self, node: NodeId, state: PeerState) {
        match state {
            PeerState::Up { incarnation, shard_count } => {
                let known = self.routes.peers.get(&node).copied();
                let peer = Peer { up: true, dead: false, incarnation, shard_count };
                self.routes.peers.insert(node, peer);
                if known.is_some_and(|known| known.incarnation != incarnation) {
                    self.forget_sessions_of(node);
                    self.drop_session_parcels(node);
                    self.redirect_parcels(node);
                    self.forget_missed(node);
                }
                self.tell_missed(node);
                let leaders = self.routes.leaders.iter();
                let leaders: Vec<_> = leaders.map(|(slot, leader)| (*slot, *leader)).collect();
                for (slot, Leader { node: leader, term }) in leaders {
                    let held_here = ShardId::of(slot, self.settings.shard_count) == self.id;
                    if leader == Some(node) {
                        self.mark_moved(slot);
                    } else if held_here && leader == Some(self.settings.node) {
                        let envelope = Envelope::Leader { slot, leader, term };
                        let place = Place::Slot(slot);
                        self.out.effects.push(Effect::Forward { to: node, place, envelope });
                    }
                }
                self.repeat_parcels(node);
                self.tell_systems_of(node, shard_count);
                for shard in (0..shard_count).map(ShardId) {
                    let from = self.me();
                    self.send_to(ShardAddr { node, shard }, Envelope::Resumed { from });
                }
            }
            PeerState::Down => {
                if let Some(peer) = self.routes.peers.get_mut(&node) {
                    peer.up = false;
                }
                self.stop_parcels(node);
                self.stop_sends(node);
                self.fail_asks_of(node);
            }
            PeerState::Dead => {
                if let Some(peer) = self.routes.peers.get_mut(&node) {
                    (peer.up, peer.dead) = (false, true);
                }
                // If it lives, its sessions miss from now on what is pushed to their users.
                for session in self.forget_sessions_of(node) {
                    self.miss(Self::shard_of_session(session), vec![session.conn], Vec::new());
                }
                for (shard, content) in self.drop_session_parcels(node) {
                    self.miss_content(shard, content);
                }
                self.redirect_parcels(node);
                self.open_complete_homes();
                self.end_sessions_if_cut_off();
            }
        }
    }

    /// With most of the other nodes gone this one can serve nobody: its clients are better off on
    /// another, which they look for when their connection ends (G12).
    fn end_sessions_if_cut_off(&mut self) {
        if self.is_cut_off() {
            self.end_all_connections();
        }
    }

    /// Whether most of the other nodes are gone.
    pub(super) fn is_cut_off(&self) -> bool {
        let up = self.routes.peers.values().filter(|peer| peer.up).count() + 1;
        self.has_peers() && 2 * up <= self.routes.peers.len() + 1
    }

    /// What a shard of another node has sent here may be lost: answers, and what it knows of
    /// deliveries.
    pub(super) fn on_resumed(&mut self, from: ShardAddr) {
        let slots: Vec<SlotId> = self.routes.leaders.keys().copied().collect();
        for slot in slots {
            if self.home_of(slot) == Some(from) {
                self.mark_moved(slot);
            }
        }
        self.repeat_parcels_to(from);
    }

    fn mark_moved(&mut self, slot: SlotId) {
        self.routes.moved.insert(slot);
        self.stop_sends_of(slot);
    }

    /// Something kept is due then.
    pub(super) fn due_at(&mut self, due_ms: u64) {
        self.routes.due_ms = self.routes.due_ms.min(due_ms);
    }

    pub(super) fn next_due_ms(&self) -> Option<u64> {
        (self.routes.due_ms < WHEN_TOLD).then_some(self.routes.due_ms)
    }

    /// Ends a step: slots that moved get their sessions announced and what is kept for them;
    /// whatever is due goes out.
    pub(super) fn settle(&mut self) {
        let moved = std::mem::take(&mut self.routes.moved);
        if !moved.is_empty() {
            // Before any login: an announcement replaces what the home knows.
            self.announce(&moved);
            self.resend_asks(&moved);
            for slot in &moved {
                self.resend_sends(*slot);
                self.send_homeless(*slot);
                self.resend_outbox_to(*slot);
            }
        }
        if self.routes.due_ms <= self.now.mono_ms {
            self.routes.due_ms = WHEN_TOLD;
            self.send_due_sends();
            self.send_due_asks();
            self.send_due_parcels();
            self.open_due_homes();
        }
    }

    /// All nodes that may have sessions, with their shards: this one and those that are not dead.
    pub(super) fn shards_alive(&self) -> Vec<ShardAddr> {
        self.shards_of(|peer| !peer.dead)
    }

    /// The same with the dead.
    pub(super) fn shards_known(&self) -> Vec<ShardAddr> {
        self.shards_of(|_| true)
    }

    fn shards_of(&self, which: impl Fn(&Peer) -> bool) -> Vec<ShardAddr> {
        let own = (self.settings.node, self.settings.shard_count);
        let peers = self.routes.peers.iter().filter(|(_, peer)| which(peer));
        std::iter::once(own)
            .chain(peers.map(|(node, peer)| (*node, peer.shard_count)))
            .flat_map(|(node, count)| {
                (0..count).map(move |shard| ShardAddr { node, shard: ShardId(shard) })
            })
            .collect()
    }
}
