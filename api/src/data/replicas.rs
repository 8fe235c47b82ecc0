//! A channel as a replicated thing: …/config, …/replicas and …/localReplica of one channel, and
//! /cluster/channel/status of many (http-api.md §17.6).
//!
//! v2 runs a Raft group per channel. Here a channel has the replicas, the leader and the term of its
//! slot, so that is what is shown.

use std::collections::BTreeMap;

use futures::future::join_all;
use jindou_core::{
    id::{ChannelId, Name, SlotId},
    request::{Reply, Request, Target},
    row::{Digest, DigestQuery},
    scan::{ChannelFilter, ChannelSummary, Scan, ScanOf},
};
use serde::Serialize;

use super::{
    format::{channel_row_id, time},
    named_channel,
    page::{Dated as _, SLOTS_AT_ONCE},
    scan,
};
use crate::{
    answer::{Answer, Refusal, value},
    api::{Api, Call},
    cluster::{ClusterView, ReplicaRole, ReplicaView, SlotView, is_zero},
    json::{body, read},
    node::Node,
};

#[derive(Serialize)]
struct ConfigJson {
    id: u64,
    channel_id: Name,
    channel_type: u8,
    replica_max_count: u16,
    replicas: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    learners: Vec<u64>,
    /// As v2 spells it.
    learder_id: u64,
    #[serde(skip_serializing_if = "is_zero")]
    term: u64,
    #[serde(skip_serializing_if = "is_zero")]
    conf_version: u64,
    #[serde(skip_serializing_if = "is_zero")]
    created_at: i64,
    #[serde(skip_serializing_if = "is_zero")]
    updated_at: i64,
}

/// The channel of a path with the cluster and its slot in it.
async fn placed<N: Node>(
    api: &Api<N>,
    call: &Call,
) -> Result<(ChannelId, ClusterView, SlotView), Refusal> {
    let channel = named_channel(api, call)?;
    let view = super::view(api).await?;
    let slot = view.slot(api.node.slot_of(&channel.id)).cloned();
    let slot = slot.ok_or(Refusal::Rule("slot not found"))?;
    Ok((channel, view, slot))
}

/// GET /cluster/channels/:id/:type/config. Any node knows it.
pub(super) async fn config<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let (channel, view, slot) = placed(api, call).await?;
    let numbers = |nodes: &[jindou_core::id::NodeId]| nodes.iter().map(|node| node.0).collect();
    let filter = ChannelFilter { kind: Some(channel.kind), ..ChannelFilter::default() };
    let what = ScanOf::ChannelsOf { id: channel.id.clone(), filter };
    let found = scan(api, Scan { slot: slot.slot, what, after: None, count_max: 1 }).await?;
    let found = ChannelSummary::pick(found.rows).ok_or(Refusal::Confused)?;
    let times = found.first().map(|found| found.times).unwrap_or_default();
    Ok(value(&ConfigJson {
        id: channel_row_id(&channel),
        channel_id: channel.id,
        channel_type: channel.kind,
        replica_max_count: view.replica_count,
        replicas: numbers(&slot.voters),
        learners: numbers(&slot.learners),
        learder_id: slot.leader.map_or(0, |node| node.0),
        term: slot.term,
        conf_version: view.version,
        created_at: times.created_ns,
        updated_at: times.updated_ms.saturating_mul(1_000_000),
    }))
}

#[derive(Serialize)]
struct LocalReplicaJson {
    replica_id: u64,
    leader_id: u64,
    running: u8,
    last_msg_seq: u64,
    /// In ns.
    last_msg_time: i64,
    term: u64,
    conf_version: u64,
}

#[derive(Serialize)]
struct ReplicaJson {
    #[serde(flatten)]
    local: LocalReplicaJson,
    role: u8,
    role_format: &'static str,
    last_msg_time_format: String,
}

/// The end of a channel's history, and how far its replicas are.
struct Standing {
    view: ClusterView,
    replicas: Vec<ReplicaView>,
    digest: Digest,
    /// Up to which entry the leader has applied.
    applied: u64,
}

impl Standing {
    async fn read<N: Node>(api: &Api<N>, call: &Call) -> Result<Self, Refusal> {
        let (channel, view, slot) = placed(api, call).await?;
        let mut replicas = api.node.replicas(slot.slot).await.map_err(Refusal::Told)?;
        replicas.sort_by_key(|replica| replica.node);
        let applied = replicas.iter().map(|replica| replica.applied).max().unwrap_or(0);
        let digest = digests(api, slot.slot, vec![channel]).await?.pop().unwrap_or_default();
        Ok(Self { view, replicas, digest, applied })
    }

    /// A replica. One that has not applied everything yet may lack the newest messages: which, is
    /// not known here, so it shows none.
    fn local(&self, replica: &ReplicaView) -> LocalReplicaJson {
        let is_whole = replica.applied >= self.applied;
        let (seq, ms) = if is_whole { end(&self.digest) } else { (0, 0) };
        LocalReplicaJson {
            replica_id: replica.node.0,
            leader_id: replica.leader.map_or(0, |node| node.0),
            running: replica.running.into(),
            last_msg_seq: seq,
            last_msg_time: ms.saturating_mul(1_000_000),
            term: replica.term,
            conf_version: self.view.version,
        }
    }
}

/// Seq and time in Unix ms of a channel's last message.
fn end(digest: &Digest) -> (u64, i64) {
    let timestamp = digest.recents.first().map_or(0, |message| message.timestamp);
    (digest.last_seq, timestamp.saturating_mul(1000))
}

/// GET /cluster/channels/:id/:type/replicas: those that answered.
pub(super) async fn replicas<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let standing = Standing::read(api, call).await?;
    let list: Vec<ReplicaJson> = standing
        .replicas
        .iter()
        .map(|replica| {
            let local = standing.local(replica);
            let (role, role_format) = match replica.role {
                ReplicaRole::Follower => (1, "follower"),
                ReplicaRole::Candidate => (2, "candidate"),
                ReplicaRole::Leader => (3, "leader"),
                ReplicaRole::Learner => (4, "learner"),
            };
            let last_ms = local.last_msg_time / 1_000_000;
            let last_msg_time_format = time(last_ms, api.settings.utc_offset_seconds);
            ReplicaJson { local, role, role_format, last_msg_time_format }
        })
        .collect();
    Ok(value(&list))
}

/// GET /cluster/channels/:id/:type/localReplica: this node's.
pub(super) async fn local_replica<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let standing = Standing::read(api, call).await?;
    let own = standing.replicas.iter().find(|replica| replica.node == standing.view.node);
    let own = own.ok_or(Refusal::Rule("this node has no replica of the channel"))?;
    Ok(value(&standing.local(own)))
}

body! {
    /// One channel of POST /cluster/channel/status.
    ChannelBody { channel_id: String, channel_type: u8, }
}

body! {
    /// POST /cluster/channel/status.
    StatusBody { channels: Vec<ChannelBody>, }
}

/// The most channels of one request.
const STATUS_COUNT_MAX: usize = 10_000;

#[derive(Clone, Serialize)]
struct StatusJson {
    channel_id: String,
    channel_type: u8,
    running: u8,
    last_msg_seq: u64,
    /// In ns.
    last_msg_time: i64,
}

/// POST /cluster/channel/status, in the order of the question. A channel runs when its slot does.
pub(super) async fn status<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let body: StatusBody = read(&call.body)?;
    if body.channels.len() > STATUS_COUNT_MAX {
        return Err(Refusal::TooMany { what: "channels", max: STATUS_COUNT_MAX });
    }
    let mut by_slot: BTreeMap<SlotId, Vec<usize>> = BTreeMap::new();
    let mut list: Vec<StatusJson> = Vec::with_capacity(body.channels.len());
    for (place, ChannelBody { channel_id, channel_type }) in body.channels.into_iter().enumerate() {
        api.settings.check_channel(&channel_id, 0)?;
        by_slot.entry(api.node.slot_of(&channel_id)).or_default().push(place);
        list.push(StatusJson {
            channel_id,
            channel_type,
            running: 0,
            last_msg_seq: 0,
            last_msg_time: 0,
        });
    }
    let by_slot: Vec<_> = by_slot.into_iter().collect();
    for wave in by_slot.chunks(SLOTS_AT_ONCE) {
        let asked = wave.iter().map(|(slot, places)| {
            let channel = |place: &usize| {
                let item = list.get(*place)?;
                Some(ChannelId::new(item.channel_id.as_str(), item.channel_type))
            };
            digests(api, *slot, places.iter().filter_map(channel).collect())
        });
        for ((_, places), digests) in wave.iter().zip(join_all(asked).await) {
            // A slot without a leader runs nowhere.
            let Ok(digests) = digests else { continue };
            for (place, digest) in places.iter().zip(digests) {
                if let Some(item) = list.get_mut(*place) {
                    let (seq, ms) = end(&digest);
                    item.running = 1;
                    item.last_msg_seq = seq;
                    item.last_msg_time = ms.saturating_mul(1_000_000);
                }
            }
        }
    }
    Ok(value(&list))
}

/// What the channels of a slot have, each with its newest message, in order.
async fn digests<N: Node>(
    api: &Api<N>,
    slot: SlotId,
    channels: Vec<ChannelId>,
) -> Result<Vec<Digest>, Refusal> {
    let query = |channel| DigestQuery { channel, after: 0, count_max: 1 };
    let items = channels.into_iter().map(query).collect();
    let request = Request::Digests { uid: Name::from(""), items };
    let reply = api.node.ask(Target::Slot(slot), request).await;
    if let Reply::Digests(digests) = reply { Ok(digests) } else { Err(Refusal::by(&reply, "")) }
}
