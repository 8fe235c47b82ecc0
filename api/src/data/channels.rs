//! /cluster/channels and /cluster/nodes/:id/channels (http-api.md §17.1, §17.4).

use futures::future::join_all;
use jindou_core::{
    id::{NodeId, ShardId, SlotId},
    request::{Reply, Request, Target},
    scan::{Bounds, ChannelFilter, ChannelSummary, Scan, ScanOf, ScanRows},
};
use serde::Serialize;

use super::{
    format::{TimesJson, channel_row_id, kind_name, time},
    page::{self, ByTime, Dated, Page, PageJson},
    scan,
};
use crate::{
    answer::{Answer, Refusal, value},
    api::{Api, Call},
    cluster::{ClusterView, SlotView},
    node::Node,
};

impl Dated for ChannelSummary {
    fn pick(rows: ScanRows) -> Option<Vec<Self>> {
        if let ScanRows::Channels(channels) = rows { Some(channels) } else { None }
    }

    fn created_ns(&self) -> i64 {
        self.times.created_ns
    }
}

#[derive(Serialize)]
struct ChannelJson {
    id: u64,
    slot: u16,
    channel_id: String,
    channel_type: u8,
    ban: u8,
    disband: u8,
    subscriber_count: u64,
    allowlist_count: u64,
    denylist_count: u64,
    last_msg_seq: u64,
    last_msg_time: i64,
    last_msg_time_format: String,
    status_format: &'static str,
    #[serde(flatten)]
    times: TimesJson,
}

impl ChannelJson {
    fn new<N: Node>(api: &Api<N>, found: &ChannelSummary) -> Self {
        let offset = api.settings.utc_offset_seconds;
        Self {
            id: channel_row_id(&found.channel),
            slot: api.node.slot_of(&found.channel.id).0,
            channel_id: found.channel.id.to_string(),
            channel_type: found.channel.kind,
            ban: found.info.ban.into(),
            disband: found.info.disband.into(),
            subscriber_count: found.members,
            allowlist_count: found.allow,
            denylist_count: found.deny,
            last_msg_seq: found.last_seq,
            last_msg_time: found.last_timestamp,
            last_msg_time_format: time(found.last_timestamp.saturating_mul(1000), offset),
            status_format: match (found.info.ban, found.info.disband) {
                (_, true) => "解散",
                (true, false) => "封禁",
                (false, false) => "正常",
            },
            times: TimesJson::new(found.times, offset),
        }
    }
}

/// What a query filters by. A flag is asked for by 0 or 1, a count by its bounds; v2 crashes on
/// both.
fn filter(call: &Call) -> ChannelFilter {
    let is_given = |name: &str| !call.query.text(name).is_empty();
    let flag = |name: &str| is_given(name).then(|| call.query.signed(name) == 1);
    let bounds = |name: &str| {
        let (min, max) = (format!("{name}_gte"), format!("{name}_lte"));
        Bounds {
            min: call.query.unsigned(&min),
            max: if is_given(&max) { call.query.unsigned(&max) } else { u64::MAX },
        }
    };
    ChannelFilter {
        kind: (call.query.unsigned("channel_type") > 0).then(|| call.query.kind("channel_type")),
        ban: flag("ban"),
        disband: flag("disband"),
        members: bounds("subscriber_count"),
        deny: bounds("denylist_count"),
        allow: bounds("allowlist_count"),
    }
}

/// The channels of these slots that a query asks for.
async fn found<N: Node>(
    api: &Api<N>,
    call: &Call,
    slots: &[SlotId],
) -> Result<Page<ChannelSummary>, Refusal> {
    let id = call.query.text("channel_id").trim();
    let filter = filter(call);
    if id.is_empty() {
        let what = |made| ScanOf::Channels { made, filter };
        return page::by_time(api, slots, ByTime::read(call), what).await;
    }
    // A person's stored id holds two uids.
    api.settings.check_channel(id, 0)?;
    let slot = api.node.slot_of(id);
    let mut rows = Vec::new();
    if slots.contains(&slot) {
        let what = ScanOf::ChannelsOf { id: id.into(), filter };
        let request = Scan { slot, what, after: None, count_max: 256 };
        rows = ChannelSummary::pick(scan(api, request).await?.rows).ok_or(Refusal::Confused)?;
    }
    Ok(Page { rows, more: false, errors: Vec::new() })
}

/// GET /cluster/channels.
pub(super) async fn search<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let Page { rows, more, errors } = found(api, call, &page::slots(api)).await?;
    let data = rows.iter().map(|channel| ChannelJson::new(api, channel)).collect();
    Ok(value(&PageJson::new(data, more, errors)))
}

#[derive(Serialize)]
struct NodeChannelJson {
    channel_id: String,
    channel_type: u8,
    channel_type_format: &'static str,
    replica_count: usize,
    replicas: Vec<u64>,
    leader_id: u64,
    term: u64,
    slot_id: u16,
    slot_leader_id: u64,
    last_message_seq: u64,
    last_append_time: String,
    active: u8,
    active_format: &'static str,
    status: u8,
    status_format: &'static str,
    migrate_from: u64,
    migrate_to: u64,
    #[serde(flatten)]
    times: TimesJson,
}

impl NodeChannelJson {
    fn new<N: Node>(api: &Api<N>, slot: &SlotView, found: &ChannelSummary) -> Self {
        let offset = api.settings.utc_offset_seconds;
        let leader = slot.leader.map_or(0, |node| node.0);
        Self {
            channel_id: found.channel.id.to_string(),
            channel_type: found.channel.kind,
            channel_type_format: kind_name(found.channel.kind),
            replica_count: slot.voters.len(),
            replicas: slot.voters.iter().map(|node| node.0).collect(),
            leader_id: leader,
            term: slot.term,
            slot_id: slot.slot.0,
            slot_leader_id: leader,
            last_message_seq: found.last_seq,
            last_append_time: time(found.last_timestamp.saturating_mul(1000), offset),
            // A channel lives with its slot, and needs nothing started of its own.
            active: 1,
            active_format: "运行中",
            status: 0,
            status_format: "正常",
            migrate_from: 0,
            migrate_to: 0,
            times: TimesJson::new(found.times, offset),
        }
    }
}

#[derive(Serialize)]
struct NodeChannelsJson {
    /// Channels that the node has in memory.
    running: u64,
    #[serde(flatten)]
    page: PageJson<NodeChannelJson>,
}

/// GET /cluster/nodes/:id/channels: those of the slots that the node leads.
pub(super) async fn of_node<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let view = super::view(api).await?;
    let node = call.params.text("id").parse().ok().map(NodeId);
    let member = node.and_then(|node| view.member(node)).ok_or(Refusal::Rule("node not found"))?;
    if !member.online {
        return Err(Refusal::Rule("node offline"));
    }
    let led = |slot: &&SlotView| slot.leader == Some(member.id);
    let mut slots: Vec<SlotId> = view.slots.iter().filter(led).map(|slot| slot.slot).collect();
    slots.sort_unstable();
    let running = running(api, member.id).await?;
    let Page { rows, more, errors } = found(api, call, &slots).await?;
    let data = rows.iter().filter_map(|channel| {
        let slot = slot_of(api, &view, channel)?;
        Some(NodeChannelJson::new(api, slot, channel))
    });
    let page = PageJson::new(data.collect(), more, errors);
    Ok(value(&NodeChannelsJson { running, page }))
}

fn slot_of<'a, N: Node>(
    api: &Api<N>,
    view: &'a ClusterView,
    found: &ChannelSummary,
) -> Option<&'a SlotView> {
    view.slot(api.node.slot_of(&found.channel.id))
}

/// How many channels a node has in memory. Nodes of a cluster have the same number of shards.
async fn running<N: Node>(api: &Api<N>, node: NodeId) -> Result<u64, Refusal> {
    let asked = (0..api.node.shards()).map(|shard| {
        let shard = ShardId(shard);
        let target = if node == api.settings.node {
            Target::Shard(shard)
        } else {
            Target::Node(node, shard)
        };
        api.node.ask(target, Request::Vars)
    });
    let mut running = 0;
    for reply in join_all(asked).await {
        let Reply::Vars(vars) = reply else { return Err(Refusal::by(&reply, "")) };
        running += vars.channels_cached;
    }
    Ok(running)
}
