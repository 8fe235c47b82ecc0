//! What to change next so that every slot has its replicas where they belong, evenly.
//!
//! A pure function of what there is: the controller asks it again after every change, so it keeps no
//! plan and survives a new controller. Each slot takes one step at a time and each step exchanges at
//! most one voter, so that a majority of the voters before is always among those after. First what is
//! missing or must go, then the balance of replicas, and only when nothing else is left, leaders.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jindou_core::id::{NodeId, SlotId};

use super::CLUSTER_VOTER_COUNT_MAX;
use crate::types::CLUSTER_SLOT;

/// What may be placed on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeStatus {
    /// New: gets its share.
    Joining,
    /// A member.
    Joined,
    /// Gives away everything that it holds.
    Leaving,
    /// Will not come back: what it held is made anew on others.
    Removed,
}

/// Where a slot is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// Its voters.
    pub voters: Vec<NodeId>,
    /// Who leads it, if known.
    pub leader: Option<NodeId>,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make these the voters ([`crate::Groups::change_voters`] on the leader).
    SetVoters {
        /// The slot.
        slot: SlotId,
        /// All of them; one may be new, one may be gone.
        voters: Vec<NodeId>,
    },
    /// Let another voter lead ([`crate::Groups::transfer`] on the leader).
    Transfer {
        /// The slot.
        slot: SlotId,
        /// The new leader.
        to: NodeId,
    },
}

/// The next steps, at most `step_count_max`, at most one for each slot. None: everything is in place,
/// replicas and leaders each within one of even. A node that `nodes` does not know counts as removed.
/// The cluster's own group ([`CLUSTER_SLOT`]) has up to five voters and takes no part in the balance.
pub fn next_steps(
    nodes: &BTreeMap<NodeId, NodeStatus>,
    replica_count: usize,
    slots: &BTreeMap<SlotId, Placed>,
    step_count_max: usize,
) -> Vec<Step> {
    let usable: BTreeSet<NodeId> = nodes
        .iter()
        .filter(|(_, status)| matches!(status, NodeStatus::Joining | NodeStatus::Joined))
        .map(|(id, _)| *id)
        .collect();
    if usable.is_empty() || replica_count == 0 {
        return Vec::new();
    }
    let mut plan = Plan { usable, replica_count, slots: slots.clone(), steps: Vec::new() };
    plan.repair(step_count_max);
    plan.spread(step_count_max);
    if plan.steps.is_empty() {
        plan.spread_leaders(step_count_max);
    }
    plan.steps
}

struct Plan {
    usable: BTreeSet<NodeId>,
    replica_count: usize,
    /// As it is, with the steps taken.
    slots: BTreeMap<SlotId, Placed>,
    steps: Vec<Step>,
}

impl Plan {
    fn wanted(&self, slot: SlotId) -> usize {
        let count = if slot == CLUSTER_SLOT { CLUSTER_VOTER_COUNT_MAX } else { self.replica_count };
        count.min(self.usable.len())
    }

    /// Replicas of slots on each usable node.
    fn load(&self) -> BTreeMap<NodeId, usize> {
        self.count(|placed| placed.voters.clone())
    }

    fn count<I>(&self, of: impl Fn(&Placed) -> I) -> BTreeMap<NodeId, usize>
    where
        I: IntoIterator<Item = NodeId>,
    {
        let mut counts: BTreeMap<NodeId, usize> = self.usable.iter().map(|id| (*id, 0)).collect();
        for (_, placed) in self.slots.iter().filter(|(slot, _)| **slot != CLUSTER_SLOT) {
            for node in of(placed) {
                if let Some(count) = counts.get_mut(&node) {
                    *count += 1;
                }
            }
        }
        counts
    }

    fn set(&mut self, slot: SlotId, voters: Vec<NodeId>) {
        self.steps.push(Step::SetVoters { slot, voters: voters.clone() });
        if let Some(placed) = self.slots.get_mut(&slot) {
            placed.voters = voters;
        }
    }

    /// Slots with too few voters, too many, or some that must go.
    fn repair(&mut self, step_count_max: usize) {
        let slots: Vec<SlotId> = self.slots.keys().copied().collect();
        for slot in slots {
            if self.steps.len() >= step_count_max {
                return;
            }
            if let Some(voters) = self.repaired(slot) {
                self.set(slot, voters);
            }
        }
    }

    fn repaired(&self, slot: SlotId) -> Option<Vec<NodeId>> {
        let placed = self.slots.get(&slot)?;
        let mut voters = placed.voters.clone();
        // A slot without voters is one of which nothing is known.
        if voters.is_empty() {
            return None;
        }
        let wanted = self.wanted(slot);
        let load = self.load();
        let load_of = |id: &NodeId| load.get(id).copied().unwrap_or(usize::MAX);
        let misplaced = voters.iter().position(|id| !self.usable.contains(id));
        let free =
            self.usable.iter().filter(|id| !voters.contains(id)).min_by_key(|id| load_of(id));
        match (misplaced, free) {
            // The only voter must not go before another has its log.
            (Some(_), Some(new)) if voters.len() == 1 => voters.push(*new),
            (Some(place), Some(new)) if voters.len() <= wanted => {
                *voters.get_mut(place)? = *new;
            }
            (Some(place), _) if voters.len() > 1 => drop(voters.remove(place)),
            (None, Some(new)) if voters.len() < wanted => voters.push(*new),
            (None, _) if voters.len() > wanted => {
                let leads = |id: &NodeId| placed.leader == Some(*id);
                let most = voters.iter().max_by_key(|id| (load_of(id), !leads(id)))?;
                let most = *most;
                voters.retain(|id| *id != most);
            }
            _ => return None,
        }
        Some(voters)
    }

    /// Moves replicas from the node that holds the most to the one that holds the least.
    fn spread(&mut self, step_count_max: usize) {
        while self.steps.len() < step_count_max {
            let load = self.load();
            let most = load.iter().max_by_key(|(_, count)| **count);
            let least = load.iter().min_by_key(|(_, count)| **count);
            let (Some((from, most)), Some((to, least))) = (most, least) else { return };
            if most - least <= 1 {
                return;
            }
            let moved: BTreeSet<SlotId> = self.steps.iter().map(Step::slot).collect();
            let movable = |(slot, placed): &(&SlotId, &Placed)| {
                **slot != CLUSTER_SLOT
                    && !moved.contains(slot)
                    && placed.voters.contains(from)
                    && !placed.voters.contains(to)
            };
            let leads = |placed: &Placed| placed.leader == Some(*from);
            let best = self.slots.iter().filter(movable).min_by_key(|(_, placed)| leads(placed));
            let Some((slot, placed)) = best else { return };
            let mut voters = placed.voters.clone();
            if voters.len() == 1 {
                voters.push(*to);
            } else if let Some(place) = voters.iter_mut().find(|id| *id == from) {
                *place = *to;
            }
            self.set(*slot, voters);
        }
    }

    /// Leaders that must go, then those of which a node has too many. A slot's leader can only go to
    /// one of its voters, so a surplus may have to move over several nodes.
    fn spread_leaders(&mut self, step_count_max: usize) {
        while self.steps.len() < step_count_max {
            let Some((slot, to)) = self.misled().or_else(|| self.surplus()) else { return };
            self.steps.push(Step::Transfer { slot, to });
            if let Some(placed) = self.slots.get_mut(&slot) {
                placed.leader = Some(to);
            }
        }
    }

    fn free_slots(&self) -> impl Iterator<Item = (&SlotId, &Placed, NodeId)> {
        let moved: BTreeSet<SlotId> = self.steps.iter().map(Step::slot).collect();
        let free = self.slots.iter().filter(move |(slot, _)| !moved.contains(slot));
        free.filter_map(|(slot, placed)| Some((slot, placed, placed.leader?)))
    }

    fn misled(&self) -> Option<(SlotId, NodeId)> {
        let leads = self.count(|placed| placed.leader);
        let (slot, placed, _) =
            self.free_slots().find(|(_, _, leader)| !self.usable.contains(leader))?;
        let voters = placed.voters.iter().filter(|id| self.usable.contains(id));
        Some((*slot, *voters.min_by_key(|id| leads.get(id).copied())?))
    }

    /// The last move on the shortest way from a node that leads too many to one that leads fewer by two
    /// or more. Either it makes the numbers more even, or it keeps them and leaves a shorter way: whoever
    /// gives in it leads more than whoever takes, or the way would have ended there.
    fn surplus(&self) -> Option<(SlotId, NodeId)> {
        let leads = self.count(|placed| placed.leader);
        let mut by_count: Vec<(NodeId, usize)> = leads.iter().map(|(id, n)| (*id, *n)).collect();
        by_count.sort_by_key(|(id, count)| (std::cmp::Reverse(*count), *id));
        by_count.into_iter().find_map(|(from, count)| {
            let low = |id: &NodeId| leads.get(id).is_some_and(|other| other + 2 <= count);
            self.last_move(from, low)
        })
    }

    fn last_move(
        &self,
        from: NodeId,
        is_goal: impl Fn(&NodeId) -> bool,
    ) -> Option<(SlotId, NodeId)> {
        let mut seen = BTreeSet::from([from]);
        let mut queue = VecDeque::from([from]);
        while let Some(node) = queue.pop_front() {
            let led = self
                .free_slots()
                .filter(|(slot, _, leader)| *leader == node && **slot != CLUSTER_SLOT);
            for (slot, placed, _) in led {
                for to in placed.voters.iter().filter(|id| self.usable.contains(id)) {
                    if !seen.insert(*to) {
                        continue;
                    }
                    if is_goal(to) {
                        return Some((*slot, *to));
                    }
                    queue.push_back(*to);
                }
            }
        }
        None
    }
}

impl Step {
    /// The slot that the step changes.
    pub fn slot(&self) -> SlotId {
        match self {
            Self::SetVoters { slot, .. } | Self::Transfer { slot, .. } => *slot,
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;
    use crate::placement::replicas;

    type Nodes = BTreeMap<NodeId, NodeStatus>;
    type Slots = BTreeMap<SlotId, Placed>;

    fn placed(slot_count: u16, nodes: &[NodeId], replica_count: usize) -> Slots {
        let place = |slot| {
            let voters = replicas(SlotId(slot), nodes, replica_count);
            let leader = voters.first().copied();
            (SlotId(slot), Placed { voters, leader })
        };
        (0..slot_count).map(place).collect()
    }

    fn apply(slots: &mut Slots, step: &Step) {
        let placed = slots.get_mut(&step.slot()).unwrap();
        match step {
            Step::SetVoters { voters, .. } => {
                let gone = placed.voters.iter().filter(|id| !voters.contains(id)).count();
                let new = voters.iter().filter(|id| !placed.voters.contains(id)).count();
                assert!(gone <= 1 && new <= 1, "{placed:?} {step:?}");
                assert!(gone * 2 <= placed.voters.len(), "a majority stays: {placed:?} {step:?}");
                assert_eq!(voters.iter().collect::<BTreeSet<_>>().len(), voters.len());
                placed.voters.clone_from(voters);
                // Whoever leads and leaves hands over to any of the others.
                if !placed.leader.is_some_and(|leader| voters.contains(&leader)) {
                    placed.leader = voters.last().copied();
                }
            }
            Step::Transfer { to, .. } => {
                assert!(placed.voters.contains(to));
                assert_ne!(placed.leader, Some(*to));
                placed.leader = Some(*to);
            }
        }
    }

    /// Follows the plan to its end. Returns the voters that were added.
    fn run(nodes: &Nodes, replica_count: usize, slots: &mut Slots) -> usize {
        let mut added = 0;
        for _ in 0..2_000 {
            let steps = next_steps(nodes, replica_count, slots, 4);
            assert!(steps.len() <= 4);
            let changed: BTreeSet<_> = steps.iter().map(Step::slot).collect();
            assert_eq!(changed.len(), steps.len(), "one step for each slot");
            if steps.is_empty() {
                return added;
            }
            for step in &steps {
                let before = slots[&step.slot()].voters.clone();
                apply(slots, step);
                let after = &slots[&step.slot()].voters;
                added += after.iter().filter(|id| !before.contains(id)).count();
            }
        }
        panic!("no end: {slots:?}");
    }

    fn check_end(nodes: &Nodes, replica_count: usize, slots: &Slots) {
        let usable: Vec<_> = nodes
            .iter()
            .filter(|(_, s)| matches!(s, NodeStatus::Joining | NodeStatus::Joined))
            .map(|(id, _)| *id)
            .collect();
        let spread =
            |counts: Vec<usize>| counts.iter().max().unwrap() - counts.iter().min().unwrap();
        let own = |(slot, _): &(&SlotId, &Placed)| **slot != CLUSTER_SLOT;
        for (slot, placed) in slots.iter() {
            let wanted = if *slot == CLUSTER_SLOT { 5 } else { replica_count };
            assert_eq!(placed.voters.len(), wanted.min(usable.len()), "{slot}");
            assert!(placed.voters.iter().all(|id| usable.contains(id)));
            assert!(usable.contains(&placed.leader.unwrap()));
        }
        let held = |id: &NodeId| {
            slots.iter().filter(own).filter(|(_, placed)| placed.voters.contains(id)).count()
        };
        let led = |id: &NodeId| {
            slots.iter().filter(own).filter(|(_, placed)| placed.leader == Some(*id)).count()
        };
        assert!(spread(usable.iter().map(held).collect()) <= 1, "{slots:?}");
        assert!(spread(usable.iter().map(led).collect()) <= 1, "{slots:?}");
    }

    fn status() -> impl Strategy<Value = NodeStatus> {
        prop_oneof![
            1 => Just(NodeStatus::Joining),
            4 => Just(NodeStatus::Joined),
            1 => Just(NodeStatus::Leaving),
            1 => Just(NodeStatus::Removed),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn every_plan_ends_with_all_in_place(
            statuses in prop::collection::vec(status(), 1..8),
            held in prop::collection::vec(prop::collection::btree_set(1u64..8, 1..5), 1..70),
            replica_count in 1usize..6,
        ) {
            let nodes: Nodes = (1..).map(NodeId).zip(statuses).collect();
            prop_assume!(nodes.values().any(|s| {
                matches!(s, NodeStatus::Joining | NodeStatus::Joined)
            }));
            let mut slots: Slots = (0..).map(SlotId).zip(held.into_iter().map(|ids| {
                let voters: Vec<_> = ids.into_iter().map(NodeId).collect();
                let leader = voters.first().copied();
                Placed { voters, leader }
            })).collect();
            slots.insert(CLUSTER_SLOT, Placed { voters: vec![NodeId(1)], leader: Some(NodeId(1)) });
            run(&nodes, replica_count, &mut slots);
            check_end(&nodes, replica_count, &slots);
        }
    }

    fn joined(ids: impl IntoIterator<Item = u64>) -> Nodes {
        ids.into_iter().map(|id| (NodeId(id), NodeStatus::Joined)).collect()
    }

    #[test]
    fn what_is_in_place_stays() {
        let ids: Vec<_> = (1..=4).map(NodeId).collect();
        let slots = placed(64, &ids, 3);
        assert_eq!(next_steps(&joined(1..=4), 3, &slots, 100), []);
    }

    #[test]
    fn a_fourth_node_gets_its_share_and_nothing_else_moves() {
        let ids: Vec<_> = (1..=3).map(NodeId).collect();
        let mut slots = placed(64, &ids, 3);
        let mut nodes = joined(1..=3);
        nodes.insert(NodeId(4), NodeStatus::Joining);
        let added = run(&nodes, 3, &mut slots);
        check_end(&nodes, 3, &slots);
        assert_eq!(added, 48);
    }

    #[test]
    fn a_replaced_node_is_made_anew_on_its_heir_only() {
        let ids: Vec<_> = (1..=3).map(NodeId).collect();
        let mut slots = placed(64, &ids, 3);
        let mut nodes = joined([1, 2, 4]);
        nodes.insert(NodeId(3), NodeStatus::Removed);
        let added = run(&nodes, 3, &mut slots);
        check_end(&nodes, 3, &slots);
        assert_eq!(added, 64);
    }

    #[test]
    fn a_cluster_of_one_grows_and_shrinks() {
        let mut slots = placed(64, &[NodeId(1)], 1);
        run(&joined(1..=3), 3, &mut slots);
        check_end(&joined(1..=3), 3, &slots);
        let mut nodes = joined([2]);
        nodes.extend([(NodeId(1), NodeStatus::Leaving), (NodeId(3), NodeStatus::Leaving)]);
        run(&nodes, 1, &mut slots);
        check_end(&nodes, 1, &slots);
        let none = BTreeMap::from([(NodeId(2), NodeStatus::Leaving)]);
        assert_eq!(next_steps(&none, 1, &slots, 9), []);
    }
}
