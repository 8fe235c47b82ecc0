//! The groups of the cluster as all nodes tell of them.

use std::collections::BTreeMap;

use jindou_core::id::{NodeId, SlotId};

use super::letters::GroupStatus;

/// What one node tells.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Its replicas.
    pub(super) groups: Vec<GroupStatus>,
    /// Seconds since it started.
    pub(super) uptime_s: u64,
    /// What it runs.
    pub(super) version: String,
}

/// What is known of the groups, gathered from all nodes that answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Observed {
    /// Nodes that answered.
    pub(super) nodes: BTreeMap<NodeId, Seen>,
    /// By slot: what its leader says; slots without a leader are missing.
    pub(super) led: BTreeMap<SlotId, GroupStatus>,
}

impl Observed {
    /// What one node says of its groups.
    pub(super) fn add(&mut self, node: NodeId, seen: Seen) {
        for group in &seen.groups {
            let slot = SlotId(group.slot);
            let is_newer = self.led.get(&slot).is_none_or(|known| known.term < group.term);
            if group.leads && is_newer {
                self.led.insert(slot, group.clone());
            }
        }
        self.nodes.insert(node, seen);
    }

    /// Whether a node has said that it stops.
    pub(super) fn is_retiring(&self, node: NodeId) -> bool {
        let seen = self.nodes.get(&node);
        seen.is_some_and(|seen| seen.groups.iter().any(|group| group.retiring))
    }

    /// Replicas of nodes that may not vote, because they began with nothing.
    pub(super) fn is_muted(&self, slot: SlotId, node: NodeId) -> bool {
        let seen = self.nodes.get(&node);
        seen.is_some_and(|seen| seen.groups.iter().any(|g| g.slot == slot.0 && g.muted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_that_think_they_lead_the_newer_one_counts() {
        let group = |term| GroupStatus { slot: 4, leads: true, term, ..GroupStatus::default() };
        let seen = |term| Seen { groups: vec![group(term)], ..Seen::default() };
        let mut observed = Observed::default();
        observed.add(NodeId(1), seen(3));
        observed.add(NodeId(2), seen(2));
        assert_eq!(observed.led.get(&SlotId(4)).map(|group| group.term), Some(3));
        assert_eq!(observed.nodes.len(), 2);
        let muted = GroupStatus { muted: true, leads: false, ..group(4) };
        observed.add(NodeId(3), Seen { groups: vec![muted], ..Seen::default() });
        assert!(
            observed.is_muted(SlotId(4), NodeId(3)) && !observed.is_muted(SlotId(4), NodeId(1))
        );
    }
}
