//! Which nodes hold which slot.

mod plan;

use jindou_core::id::{NodeId, SlotId};

pub use plan::{NodeStatus, Placed, Step, next_steps};

/// The cluster's own group has at most so many voters; every other node copies it.
pub const CLUSTER_VOTER_COUNT_MAX: usize = 5;

/// How many replicas a slot has on so many nodes, unless configured (design.md §3): as many as
/// tolerate the most failures without a useless one, at most five.
pub fn replica_count(node_count: usize) -> usize {
    match node_count {
        0..=2 => node_count,
        3 | 4 => 3,
        _ => 5,
    }
}

/// The nodes that hold a slot, the one that should lead first. Depends on nothing but its
/// arguments, so every node finds the same; leaders and replicas are spread evenly. `nodes` in
/// ascending order.
pub fn replicas(slot: SlotId, nodes: &[NodeId], replica_count: usize) -> Vec<NodeId> {
    let first = usize::from(slot.0) % nodes.len().max(1);
    nodes.iter().cycle().skip(first).take(replica_count.min(nodes.len())).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_replica_count_follows_the_node_count() {
        let counts: Vec<_> = (1..=7).map(replica_count).collect();
        assert_eq!(counts, [1, 2, 3, 3, 5, 5, 5]);
    }

    #[test]
    fn replicas_and_leaders_are_spread_evenly() {
        let nodes: Vec<_> = (1..=4).map(NodeId).collect();
        let held: Vec<_> = (0..64).map(|slot| replicas(SlotId(slot), &nodes, 3)).collect();
        assert!(held.iter().all(|replicas| replicas.len() == 3));
        for node in &nodes {
            let holds = held.iter().filter(|replicas| replicas.contains(node));
            let leads = held.iter().filter(|replicas| replicas.first() == Some(node));
            assert_eq!((holds.count(), leads.count()), (48, 16));
        }
        assert!(replicas(SlotId(3), &[], 3).is_empty());
        assert_eq!(replicas(SlotId(3), &[NodeId(1)], 3), [NodeId(1)]);
    }
}
