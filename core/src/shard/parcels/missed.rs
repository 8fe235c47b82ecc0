//! What went by at sessions of shards that were away. Such a shard, if it is still the same when it
//! comes back, hears which of its sessions missed something: they end, and their clients come again
//! and read (G8). It may know nothing of it itself: a link can fail in one direction, and homes can
//! move on while it is away.

use crate::{
    envelope::Content,
    id::{ConnId, NodeId, ShardAddr, SlotId},
    map::Set,
    shard::{Shard, parcels::Parent},
};

/// What went by at one shard. Bounded by its sessions and the number of slots.
#[derive(Debug, Default)]
pub(super) struct Missed {
    conns: Set<ConnId>,
    slots: Set<SlotId>,
}

impl Shard {
    /// Something for sessions of a shard that is away.
    pub(in crate::shard) fn miss_content(&mut self, at: ShardAddr, content: Content) {
        match content {
            Content::Push { conns, .. } => self.miss(at, conns, Vec::new()),
            Content::Kick { conn, .. } | Content::SendBan { conn, .. } => {
                self.miss(at, vec![conn], Vec::new());
            }
            Content::EndSessions { conns, slots } => self.miss(at, conns, slots),
            // Told again when its node is back.
            Content::Systems { .. } => {}
            Content::Deliver { .. } | Content::FanOut { .. } => {}
        }
    }

    /// Pushes go by at these connections, and at the users of these slots.
    pub(in crate::shard) fn miss(&mut self, at: ShardAddr, conns: Vec<ConnId>, slots: Vec<SlotId>) {
        let own = at.node == self.settings.node;
        if own || self.routes.peers.get(&at.node).is_some_and(|peer| !peer.dead) {
            return self.send_parcel(at, Content::EndSessions { conns, slots }, Parent::None);
        }
        let missed = self.parcels.missed.entry(at).or_default();
        missed.conns.extend(conns);
        missed.slots.extend(slots);
    }

    /// The node runs anew: it has no session of before.
    pub(in crate::shard) fn forget_missed(&mut self, node: NodeId) {
        self.parcels.missed.retain(|at, _| at.node != node);
    }

    /// The node is back.
    pub(in crate::shard) fn tell_missed(&mut self, node: NodeId) {
        let missed = &mut self.parcels.missed;
        let there: Vec<ShardAddr> = missed.keys().filter(|at| at.node == node).copied().collect();
        for at in there {
            if let Some(Missed { conns, slots }) = self.parcels.missed.swap_remove(&at) {
                self.miss(at, conns.into_iter().collect(), slots.into_iter().collect());
            }
        }
    }

    /// Sessions of this shard missed something.
    pub(super) fn on_end_sessions(&mut self, mut conns: Vec<ConnId>, slots: &[SlotId]) {
        let count = self.settings.slot_count;
        let of_slots = self.conns.iter().flatten().filter_map(|entry| {
            let live = entry.link.session.live()?;
            slots.contains(&SlotId::of(&live.uid, count)).then_some(entry.link.conn)
        });
        conns.extend(of_slots.collect::<Vec<_>>());
        for conn in conns {
            self.vars.sessions_out_of_step += 1;
            self.on_kick(conn, None);
        }
    }
}
