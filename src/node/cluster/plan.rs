//! From the document and what the groups look like to the next steps.

use std::collections::BTreeMap;

use jindou_cluster::placement::{NodeStatus, Placed, Step, next_steps};
use jindou_core::id::{NodeId, SlotId};

use super::{
    document::{Document, Status},
    observed::Observed,
};

/// Changes that are under way at a time.
const STEP_COUNT_MAX: usize = 8;

/// What to change next; nothing: everything has its place, or whoever would have to take a place does
/// not answer.
///
/// A replica that began with nothing may not vote before it was left out and taken in anew
/// ([`jindou_cluster::Groups::receive`]), so leaving it out comes first.
pub(super) fn plan(
    document: &Document,
    observed: &Observed,
    replicas: impl Fn(usize) -> usize,
) -> Vec<Step> {
    let mut slots: BTreeMap<SlotId, Placed> = BTreeMap::new();
    let mut steps = Vec::new();
    for (slot, group) in &observed.led {
        let voters: Vec<NodeId> = group.voters.iter().copied().map(NodeId).collect();
        let muted = voters.iter().find(|voter| observed.is_muted(*slot, **voter)).copied();
        if let Some(muted) = muted {
            let voters: Vec<NodeId> = voters.into_iter().filter(|voter| *voter != muted).collect();
            if !voters.is_empty() {
                steps.push(Step::SetVoters { slot: *slot, voters });
            }
        } else {
            slots.insert(*slot, Placed { voters, leader: group.leader.map(NodeId) });
        }
    }
    let nodes: BTreeMap<NodeId, NodeStatus> = document
        .nodes
        .iter()
        .map(|(id, member)| {
            let status = match member.status {
                Status::Joining => NodeStatus::Joining,
                Status::Joined => NodeStatus::Joined,
                Status::Leaving => NodeStatus::Leaving,
            };
            (*id, status)
        })
        .collect();
    let replica_count = replicas(document.holders().len());
    let next = next_steps(&nodes, replica_count, &slots, STEP_COUNT_MAX);
    steps.extend(next);
    let answers = |node: &NodeId| observed.nodes.contains_key(node);
    steps.retain(|step| match step {
        Step::Transfer { to, .. } => answers(to) && !observed.is_retiring(*to),
        // A set of voters whose majority is away could not even be left again.
        Step::SetVoters { slot, voters } => {
            let before = slots.get(slot).map_or(&[][..], |placed| &placed.voters);
            let alive = voters.iter().filter(|voter| answers(voter)).count();
            2 * alive > voters.len()
                && voters.iter().filter(|voter| !before.contains(voter)).all(answers)
        }
    });
    steps.truncate(STEP_COUNT_MAX);
    steps
}

#[cfg(test)]
mod tests {
    use super::{
        super::{document::Member, letters::GroupStatus, observed::Seen},
        *,
    };

    fn document(nodes: &[(u64, Status)]) -> Document {
        let member =
            |status| Member { addr: String::new(), api_url: String::new(), status, created_at: 0 };
        let nodes = nodes.iter().map(|(id, status)| (NodeId(*id), member(*status))).collect();
        Document { cluster_id: 1, nodes, ..Document::default() }
    }

    fn group(leads: bool, muted: bool) -> GroupStatus {
        GroupStatus { leader: Some(1), leads, muted, voters: vec![1, 2, 3], ..Default::default() }
    }

    fn observed(alive: &[u64], muted: &[u64]) -> Observed {
        let mut observed = Observed::default();
        for id in alive {
            let groups = vec![group(*id == 1, muted.contains(id))];
            observed.add(NodeId(*id), Seen { groups, ..Seen::default() });
        }
        observed
    }

    const JOINED: [(u64, Status); 3] =
        [(1, Status::Joined), (2, Status::Joined), (3, Status::Joined)];

    #[test]
    fn a_replica_that_lost_everything_is_left_out_first() {
        let three = document(&JOINED);
        assert_eq!(plan(&three, &observed(&[1, 2, 3], &[]), |n| n.min(3)), []);
        let steps = plan(&three, &observed(&[1, 2, 3], &[3]), |n| n.min(3));
        let voters = vec![NodeId(1), NodeId(2)];
        assert_eq!(steps, [Step::SetVoters { slot: SlotId(0), voters }]);
        // Without a third node two would have to agree, of which one is away.
        assert_eq!(plan(&three, &observed(&[1, 3], &[3]), |n| n.min(3)), []);
    }

    #[test]
    fn no_leader_is_moved_to_a_node_that_stops() {
        let three = document(&JOINED);
        let seen = |retiring| {
            let group = |slot, leads| GroupStatus {
                slot,
                leader: Some(1),
                leads,
                voters: vec![1, 2, 3],
                retiring,
                ..Default::default()
            };
            Seen { groups: (0..9).map(|slot| group(slot, !retiring)).collect(), ..Seen::default() }
        };
        let mut observed = Observed::default();
        observed.add(NodeId(1), seen(false));
        observed.add(NodeId(3), seen(true));
        let moved = |observed: &Observed| {
            let steps = plan(&three, observed, |n| n.min(3));
            let to = |step| match step {
                Step::Transfer { to, .. } => Some(to.0),
                Step::SetVoters { .. } => None,
            };
            steps.into_iter().filter_map(to).collect::<Vec<u64>>()
        };
        assert!(moved(&observed).is_empty());
        observed.add(NodeId(2), Seen::default());
        assert!(!moved(&observed).is_empty() && moved(&observed).iter().all(|to| *to == 2));
    }

    #[test]
    fn nothing_is_moved_to_a_node_that_does_not_answer() {
        let mut nodes = JOINED.to_vec();
        nodes.push((4, Status::Joining));
        let four = document(&nodes);
        let leaving = document(&[JOINED[0], JOINED[1], (3, Status::Leaving), (4, Status::Joining)]);
        assert_eq!(plan(&leaving, &observed(&[1, 2, 3], &[]), |_| 3), []);
        let steps = plan(&leaving, &observed(&[1, 2, 3, 4], &[]), |_| 3);
        let takes = |step: &Step| matches!(step, Step::SetVoters { voters, .. } if voters.contains(&NodeId(4)));
        assert!(steps.iter().any(takes), "{steps:?}");
        assert!(plan(&four, &observed(&[1, 2, 3], &[]), |_| 3).is_empty());
    }
}
