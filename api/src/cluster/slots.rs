//! The slots: /cluster/slots, /cluster/allslot, and one slot's replicas.

use serde::Serialize;

use super::{ClusterView, ReplicaRole, ReplicaView, SlotView, number, numbers, slot_of, view};
use crate::{
    answer::{Answer, Refusal, value},
    api::{Api, Call},
    node::Node,
};

#[derive(Serialize)]
struct SlotJson {
    id: u16,
    leader_id: u64,
    term: u64,
    replicas: Vec<u64>,
    channel_count: u64,
    log_index: u64,
    status: u8,
    status_format: &'static str,
}

impl SlotJson {
    fn new(slot: &SlotView) -> Self {
        let (status, status_format) = status(slot);
        Self {
            id: slot.slot.0,
            leader_id: number(slot.leader),
            term: slot.term,
            replicas: numbers(&slot.voters),
            // v2 never counts them.
            channel_count: 0,
            log_index: slot.last,
            status,
            status_format,
        }
    }
}

/// A slot's state in v2's numbers and words. While a new copy catches up v2 shows nothing special.
pub(super) fn status(slot: &SlotView) -> (u8, &'static str) {
    if slot.leader.is_none() {
        (1, "候选中")
    } else if slot.changing && slot.learners.is_empty() {
        (2, "领导者转移中")
    } else {
        (0, "正常")
    }
}

/// GET /cluster/slots: those of `ids=1,2`, in that order; none without it.
pub(super) async fn slots<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let ids = call.query.text("ids");
    if ids.is_empty() {
        return Ok(value::<[SlotJson]>(&[]));
    }
    let view = view(api).await?;
    let max = view.slots.len();
    let mut found = Vec::new();
    for id in ids.split(',') {
        if found.len() == max {
            return Err(Refusal::TooMany { what: "ids", max });
        }
        found.push(SlotJson::new(slot_of(&view, id)?));
    }
    Ok(value(&found))
}

#[derive(Serialize)]
struct AllSlotsJson {
    total: usize,
    data: Vec<SlotJson>,
}

/// GET /cluster/allslot.
pub(super) async fn all_slots<N: Node>(api: &Api<N>) -> Answer {
    let data: Vec<_> = view(api).await?.slots.iter().map(SlotJson::new).collect();
    Ok(value(&AllSlotsJson { total: data.len(), data }))
}

#[derive(Serialize)]
struct ConfigJson {
    id: u16,
    leader_id: u64,
    term: u64,
    replicas: Vec<u64>,
    log_max_index: u64,
    leader_log_max_index: u64,
    applied_index: u64,
}

/// The slot that the path names, what the cluster is, and what the slot's replicas say, by node.
async fn slot_and_replicas<N: Node>(
    api: &Api<N>,
    call: &Call,
) -> Result<(SlotView, ClusterView, Vec<ReplicaView>), Refusal> {
    let view = view(api).await?;
    let slot = slot_of(&view, call.params.text("id"))?.clone();
    let mut replicas = api.node.replicas(slot.slot).await.map_err(Refusal::Told)?;
    replicas.sort_by_key(|replica| replica.node);
    Ok((slot, view, replicas))
}

/// GET /cluster/slots/:id/config. A node without a replica has no log of it: 0.
pub(super) async fn config<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let (slot, view, replicas) = slot_and_replicas(api, call).await?;
    let of = |node| replicas.iter().find(|replica| Some(replica.node) == node);
    let own = of(Some(view.node));
    Ok(value(&ConfigJson {
        id: slot.slot.0,
        leader_id: number(slot.leader),
        term: slot.term,
        replicas: numbers(&slot.voters),
        log_max_index: own.map_or(0, |own| own.last),
        leader_log_max_index: of(slot.leader).map_or(slot.last, |leader| leader.last),
        applied_index: own.map_or(0, |own| own.applied),
    }))
}

/// A replica as its own node writes it.
#[derive(Serialize)]
struct LocalReplicaJson {
    replica_id: u64,
    leader_id: u64,
    running: u8,
    last_log_seq: u64,
    /// When the last entry was made, in ns: entries have no time here, so 0.
    last_log_time: u64,
    term: u64,
    applied_index: u64,
    committed_index: u64,
    conf_version: u64,
}

#[derive(Serialize)]
struct ReplicaJson {
    #[serde(flatten)]
    local: LocalReplicaJson,
    role: u8,
    role_format: &'static str,
    last_log_time_format: &'static str,
}

impl LocalReplicaJson {
    fn new(view: &ClusterView, replica: &ReplicaView) -> Self {
        Self {
            replica_id: replica.node.0,
            leader_id: number(replica.leader),
            running: replica.running.into(),
            last_log_seq: replica.last,
            last_log_time: 0,
            term: replica.term,
            applied_index: replica.applied,
            committed_index: replica.committed,
            conf_version: view.version,
        }
    }
}

/// GET /cluster/slots/:id/replicas: those that answered.
pub(super) async fn replicas<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let (_, view, replicas) = slot_and_replicas(api, call).await?;
    let list: Vec<_> = replicas
        .iter()
        .map(|replica| {
            let (role, role_format) = match replica.role {
                ReplicaRole::Follower => (1, "follower"),
                ReplicaRole::Candidate => (2, "candidate"),
                ReplicaRole::Leader => (3, "leader"),
                ReplicaRole::Learner => (4, "learner"),
            };
            let local = LocalReplicaJson::new(&view, replica);
            ReplicaJson { local, role, role_format, last_log_time_format: "" }
        })
        .collect();
    Ok(value(&list))
}

/// GET /cluster/slots/:id/localReplica: this node's.
pub(super) async fn local_replica<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let (_, view, replicas) = slot_and_replicas(api, call).await?;
    let own = replicas.iter().find(|replica| replica.node == view.node);
    let own = own.ok_or(Refusal::Rule("this node has no replica of the slot"))?;
    Ok(value(&LocalReplicaJson::new(&view, own)))
}
