//! Who leads which slot, as far as this node knows: a hint for forwarding and for /health. A
//! node view: every shard holds a handle, the shard of a slot writes its place.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use jindou_core::id::{NodeId, ShardId, SlotId};

use crate::types::{CLUSTER_SLOT, GroupId};

/// Leaders by group. A hint may be late; whoever is asked in vain says so.
#[derive(Clone, Debug)]
pub struct Router {
    node: NodeId,
    shard_count: u16,
    /// By group id; 0: nobody known.
    leaders: Arc<[AtomicU64]>,
    /// By group id; 1: this node leads and serves, or follows a leader that it knows.
    ready: Arc<[AtomicU64]>,
}

/// Where a slot's commands go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// To this shard of this node.
    Here(ShardId),
    /// To another node.
    Node(NodeId),
    /// No leader is known: retry.
    Unknown,
}

impl Router {
    /// A table for `slot_count` slots and the cluster's own group, nothing known.
    pub fn new(node: NodeId, shard_count: u16, slot_count: u16) -> Self {
        let table = || (0..=slot_count).map(|_| AtomicU64::new(0)).collect();
        Self { node, shard_count, leaders: table(), ready: table() }
    }

    /// The leader's node, if one is known.
    pub fn leader(&self, slot: SlotId) -> Option<NodeId> {
        let place = usize::from(GroupId::of(slot).0);
        self.leaders
            .get(place)
            .map(|leader| leader.load(Ordering::Relaxed))
            .filter(|leader| *leader != 0)
            .map(NodeId)
    }

    /// Where commands for a slot go.
    pub fn route(&self, slot: SlotId) -> Route {
        match self.leader(slot) {
            // The cluster's own group lives on the first shard.
            Some(leader) if leader == self.node && slot == CLUSTER_SLOT => Route::Here(ShardId(0)),
            Some(leader) if leader == self.node => Route::Here(ShardId::of(slot, self.shard_count)),
            Some(leader) => Route::Node(leader),
            None => Route::Unknown,
        }
    }

    /// This node.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// What the shard of a slot has learned from peers: the only source for slots without a
    /// replica here.
    pub fn learn(&self, slot: SlotId, leader: Option<NodeId>) {
        let ready = leader.is_some_and(|leader| leader != self.node);
        self.set(GroupId::of(slot), leader.map(|leader| leader.0), ready);
    }

    /// Groups that this node serves or can route to.
    pub fn ready(&self) -> usize {
        let ready = |flag: &&AtomicU64| flag.load(Ordering::Relaxed) != 0;
        self.ready.iter().filter(ready).count()
    }

    /// All groups: the slots and the cluster's own.
    pub fn count(&self) -> usize {
        self.leaders.len()
    }

    pub(crate) fn set(&self, group: GroupId, leader: Option<u64>, ready: bool) {
        let place = usize::from(group.0);
        if let (Some(place), Some(flag)) = (self.leaders.get(place), self.ready.get(place)) {
            place.store(leader.unwrap_or(0), Ordering::Relaxed);
            flag.store(u64::from(ready), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_go_where_the_leader_is() {
        let router = Router::new(NodeId(7), 2, 4);
        assert_eq!(router.count(), 5);
        assert_eq!(router.route(SlotId(3)), Route::Unknown);
        router.set(GroupId::of(SlotId(3)), Some(7), true);
        router.set(GroupId::CLUSTER, Some(8), true);
        assert_eq!(router.route(SlotId(3)), Route::Here(ShardId(1)));
        assert_eq!(router.route(CLUSTER_SLOT), Route::Node(NodeId(8)));
        router.set(GroupId::CLUSTER, Some(7), true);
        assert_eq!(router.route(CLUSTER_SLOT), Route::Here(ShardId(0)));
        assert_eq!(router.ready(), 2);
        assert_eq!(router.leader(SlotId(200)), None);
    }
}
