//! Tags (http-api.md §11): v2's cache of who gets the messages of a channel. Here recipients follow
//! the channel's members at once: /tag shows those of now, and there is nothing to list or forget.

use std::collections::{BTreeMap, BTreeSet};

use jindou_core::{
    channel_info::kind,
    id::{ChannelId, Name, NodeId, SlotId},
    request::{Reply, Request, Target},
};
use serde::Serialize;

use crate::{
    answer::{Answer, Refusal, ok, value},
    api::{Api, Call},
    json::{body, read},
    node::Node,
    plugin::check_node,
    time::rfc3339,
};

body! {
    /// POST /tag/remove.
    RemoveBody { tag_key: String, channel_id: String, channel_type: u8, node_id: u64, }
}

#[derive(Serialize)]
struct TagJson<'a> {
    key: String,
    channel_id: &'a str,
    channel_type: u8,
    nodes: Vec<NodeJson>,
    created_at: &'a str,
    last_get_time: &'a str,
    node_version: u64,
    get_count: u64,
}

#[derive(Serialize)]
struct NodeJson {
    leader_id: u64,
    uids: Vec<Name>,
    slot_ids: BTreeSet<u16>,
}

const NOT_FOUND: Refusal = Refusal::Rule("tag not found");

/// What names the recipients of a channel: its type and its id.
fn key_of(channel: &ChannelId) -> String {
    format!("{}-{}", channel.kind, channel.id)
}

fn channel_of(key: &str) -> Option<ChannelId> {
    let (channel_kind, id) = key.split_once('-')?;
    Some(ChannelId::new(id, channel_kind.parse().ok()?))
}

/// GET /tag: by key, or by channel, who gets the messages of a channel, by the nodes that lead their
/// slots.
pub(crate) async fn tag<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let key = call.query.text("tag_key");
    let channel = if key.is_empty() {
        ChannelId::new(call.query.text("channel_id"), call.query.kind("channel_type"))
    } else {
        channel_of(key).ok_or(NOT_FOUND)?
    };
    api.settings.check_channel(&channel.id, kind::GROUP)?;
    let base = channel.command_base().unwrap_or_else(|| channel.clone());
    let target = Target::Id(base.id.clone());
    let reply = api.node.ask(target, Request::ReadRecipients { channel: base }).await;
    let Reply::List(recipients) = reply else {
        return Err(Refusal::by(&reply, ""));
    };
    if channel.id.is_empty() || recipients.is_empty() {
        return Err(NOT_FOUND);
    }
    let view = api.node.cluster().await.map_err(Refusal::Told)?;
    let leaders: BTreeMap<SlotId, NodeId> =
        view.slots.iter().filter_map(|slot| Some((slot.slot, slot.leader?))).collect();
    let mut nodes: BTreeMap<u64, NodeJson> = BTreeMap::new();
    for (uid, _) in recipients {
        let slot = api.node.slot_of(&uid);
        let leader_id = leaders.get(&slot).map_or(0, |leader| leader.0);
        let node = nodes.entry(leader_id).or_insert_with(|| NodeJson {
            leader_id,
            uids: Vec::new(),
            slot_ids: BTreeSet::new(),
        });
        node.slot_ids.insert(slot.0);
        node.uids.push(uid);
    }
    let now = rfc3339(api.node.now().unix_ms, api.settings.utc_offset_seconds);
    Ok(value(&TagJson {
        key: key_of(&channel),
        channel_id: &channel.id,
        channel_type: channel.kind,
        nodes: nodes.into_values().collect(),
        created_at: &now,
        last_get_time: &now,
        node_version: view.version,
        get_count: 0,
    }))
}

/// GET /tags.
pub(crate) fn tags() -> Answer {
    Ok(value::<[(); 0]>(&[]))
}

/// POST /tag/remove: `OK` always, but for a node that is no member.
pub(crate) async fn remove<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let body: RemoveBody = read(&call.body)?;
    check_node(api, body.node_id).await?;
    Ok(ok())
}
