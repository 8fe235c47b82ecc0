//! The cluster in the words of the HTTP API.

use std::time::Duration;

use jindou_api::{
    ClusterChange, ClusterView, NodeStatus, NodeView, ReplicaRole, ReplicaView, SlotView,
};
use jindou_core::{
    effect::Place,
    id::{NodeId, SlotId},
    shard::CLUSTER_SLOT,
};

use super::{
    document::{Document, Status},
    letters::{Answer, Ask, GroupStatus, NodeChange},
    office::{Office, pause},
};

/// A change that an operator asked for is answered within this time or goes on unseen.
const CHANGE_MAX: Duration = Duration::from_secs(50);
/// How long to wait for the document of a new cluster, and how often to look.
const FOUNDING_MAX: Duration = Duration::from_secs(3);
const FOUNDING_PAUSE: Duration = Duration::from_millis(20);
/// Copies that v2 tells of when nothing is configured.
const USUAL_REPLICA_COUNT: usize = 3;

fn ids(nodes: &[u64]) -> Vec<NodeId> {
    nodes.iter().copied().map(NodeId).collect()
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

impl Office {
    /// The document. A new cluster serves messages a moment before its first leader has written it:
    /// that moment passes here.
    async fn founded(&self) -> Result<Document, String> {
        let tries = FOUNDING_MAX.as_millis() / FOUNDING_PAUSE.as_millis();
        for _ in 0..tries {
            let document = self.document().read(Clone::clone);
            if document.cluster_id != 0 {
                return Ok(document);
            }
            pause(FOUNDING_PAUSE).await;
        }
        Err("this node belongs to no cluster yet".to_owned())
    }

    /// The cluster as this node can find out now.
    pub(in crate::node) async fn view(&self) -> Result<ClusterView, String> {
        let document = self.founded().await?;
        let observed = self.look().await;
        let group_0 = observed.led.get(&CLUSTER_SLOT);
        let slots: Vec<SlotView> = (0..self.slot_count())
            .map(|slot| {
                let led = observed.led.get(&SlotId(slot)).cloned().unwrap_or_default();
                SlotView {
                    slot: SlotId(slot),
                    leader: led.leader.map(NodeId),
                    term: led.term,
                    voters: ids(&led.voters),
                    learners: ids(&led.learners),
                    last: led.last,
                    changing: led.changing,
                }
            })
            .collect();
        let nodes = document
            .nodes
            .iter()
            .map(|(id, member)| {
                let seen = observed.nodes.get(id);
                NodeView {
                    id: *id,
                    addr: member.addr.clone(),
                    api_url: member.api_url.clone(),
                    online: seen.is_some(),
                    status: match member.status {
                        Status::Joining => NodeStatus::Joining,
                        Status::Joined => NodeStatus::Joined,
                        Status::Leaving => NodeStatus::Leaving,
                    },
                    created_at: member.created_at,
                    slot_count: count(slots.iter().filter(|s| s.voters.contains(id)).count()),
                    leader_count: count(slots.iter().filter(|s| s.leader == Some(*id)).count()),
                    uptime_s: seen.map(|seen| seen.uptime_s),
                    app_version: seen.map(|seen| seen.version.clone()),
                    votes: true,
                }
            })
            .collect();
        let replica_count = self.settings().replicas(document.nodes.len().max(USUAL_REPLICA_COUNT));
        Ok(ClusterView {
            node: self.settings().node,
            version: group_0.map_or(0, |group| group.applied),
            slot_count: self.slot_count(),
            replica_count: u16::try_from(replica_count).unwrap_or(u16::MAX),
            leader: group_0.and_then(|group| group.leader).map(NodeId),
            term: group_0.map_or(0, |group| group.term),
            nodes,
            slots,
        })
    }

    /// What the replicas of one slot say.
    pub(in crate::node) async fn replicas(&self, slot: SlotId) -> Result<Vec<ReplicaView>, String> {
        let observed = self.look().await;
        let of = |node: NodeId, group: &GroupStatus| ReplicaView {
            node,
            leader: group.leader.map(NodeId),
            term: group.term,
            last: group.last,
            applied: group.applied,
            committed: group.committed,
            role: match group {
                group if group.leads => ReplicaRole::Leader,
                group if !group.voters.contains(&node.0) => ReplicaRole::Learner,
                group if group.leader.is_none() => ReplicaRole::Candidate,
                _ => ReplicaRole::Follower,
            },
            running: true,
        };
        Ok(observed
            .nodes
            .iter()
            .filter_map(|(node, seen)| {
                let group = seen.groups.iter().find(|group| group.slot == slot.0)?;
                Some(of(*node, group))
            })
            .collect())
    }

    /// Changes the cluster.
    pub(in crate::node) async fn change(&self, change: ClusterChange) -> Result<(), String> {
        let ask = match change {
            ClusterChange::Migrate { slot, from, to } => return self.migrate(slot, from, to).await,
            ClusterChange::Elect { slot } => return self.elect(slot).await,
            ClusterChange::Remove { node } => (node, NodeChange::Leave),
            ClusterChange::Keep { node } => (node, NodeChange::Stay),
            ClusterChange::Replace { node, addr } => (node, NodeChange::Replace { addr }),
        };
        let (node, change) = ask;
        outcome(self.answer(Ask::Node { node: node.0, change, hops: 0 }).await)
    }

    async fn led(&self, slot: SlotId) -> Result<(NodeId, GroupStatus), String> {
        let observed = self.look().await;
        let group = observed.led.get(&slot).ok_or("the slot has no leader")?;
        let leader = group.leader.ok_or("the slot has no leader")?;
        Ok((NodeId(leader), group.clone()))
    }

    async fn migrate(&self, slot: SlotId, from: NodeId, to: NodeId) -> Result<(), String> {
        let (leader, group) = self.led(slot).await?;
        let ask = if group.voters.contains(&to.0) {
            Ask::Transfer { slot: slot.0, to: to.0 }
        } else {
            let others = group.voters.iter().copied().filter(|voter| *voter != from.0);
            Ask::SetVoters { slot: slot.0, voters: others.chain([to.0]).collect() }
        };
        outcome(self.ask(leader, Place::Slot(slot), ask, CHANGE_MAX).await)
    }

    /// The voter after the present leader takes over.
    async fn elect(&self, slot: SlotId) -> Result<(), String> {
        let (leader, group) = self.led(slot).await?;
        let others: Vec<u64> =
            group.voters.iter().copied().filter(|voter| *voter != leader.0).collect();
        let next = others.iter().find(|voter| **voter > leader.0).or(others.first());
        let to = *next.ok_or("the slot has a single replica: there is nobody else to lead it")?;
        let ask = Ask::Transfer { slot: slot.0, to };
        outcome(self.ask(leader, Place::Slot(slot), ask, CHANGE_MAX).await)
    }
}

fn outcome(answer: Answer) -> Result<(), String> {
    match answer {
        Answer::Done | Answer::Entered { .. } | Answer::Groups { .. } | Answer::Logs { .. } => {
            Ok(())
        }
        Answer::Failed { reason, .. } => Err(reason),
    }
}
