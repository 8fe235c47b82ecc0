//! Which nodes hold which slot.

use jindou_core::id::{NodeId, SlotId};

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
    nodes
        .iter()
        .cycle()
        .skip(first)
        .take(replica_count.min(nodes.len()))
        .copied()
        .collect()
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
        let mut held = [0usize; 5];
        let mut led = [0usize; 5];
        for slot in 0..64 {
            let replicas = replicas(SlotId(slot), &nodes, 3);
            assert_eq!(replicas.len(), 3);
            for (place, node) in replicas.iter().enumerate() {
                let place = (place, node.0 as usize);
                held.get_mut(place.1).into_iter().for_each(|n| *n += 1);
                if place.0 == 0 {
                    led.get_mut(place.1).into_iter().for_each(|n| *n += 1);
                }
            }
        }
        assert_eq!(held, [0, 48, 48, 48, 48]);
        assert_eq!(led, [0, 16, 16, 16, 16]);
        assert!(replicas(SlotId(3), &[], 3).is_empty());
        assert_eq!(replicas(SlotId(3), &nodes[..1], 3), [NodeId(1)]);
    }
}
