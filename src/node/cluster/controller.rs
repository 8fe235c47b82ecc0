//! Keeps the cluster in the shape that its nodes call for. Runs where group 0 is led and nowhere
//! else; everything it knows it asks for, so a new leader goes on where the old one was.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jindou_core::id::{NodeId, SlotId};

use super::letters::GroupStatus;

/// What is known of the groups, gathered from all nodes that answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Observed {
    /// Nodes that answered.
    pub(super) alive: BTreeSet<NodeId>,
    /// By slot: what its leader says; slots without a leader are missing.
    pub(super) led: BTreeMap<SlotId, GroupStatus>,
    /// Replicas that may not vote, because they began with nothing.
    pub(super) muted: BTreeSet<(SlotId, NodeId)>,
}

impl Observed {
    /// What one node says of its groups.
    pub(super) fn add(&mut self, node: NodeId, groups: Vec<GroupStatus>) {
        self.alive.insert(node);
        for group in groups {
            let slot = SlotId(group.slot);
            if group.muted {
                self.muted.insert((slot, node));
            }
            let is_newer = self.led.get(&slot).is_none_or(|known| known.term < group.term);
            if group.leader == Some(node.0) && is_newer {
                self.led.insert(slot, group);
            }
        }
    }
}
