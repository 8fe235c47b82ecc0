//! Connections of this node: /connz (http-api.md §3.4), /conn/kick and /conn/remove (§6).

use futures::future::join_all;
use jindou_core::{
    id::{ConnId, Name, NodeId, ShardId},
    request::{ConnectionInfo, Failure, Reply, Request, Target},
};
use serde::Serialize;

use crate::{
    answer::{Answer, Refusal, done, ok, value},
    api::{Api, Call},
    json::{body, read},
    node::Node,
    time::{duration, rfc3339},
};

/// How many connections a list shows when the caller says nothing.
const LIMIT_DEFAULT: usize = 20;
/// How many it shows at most.
const LIMIT_MAX: usize = 10_000;

/// One connection, as v2 shows it.
#[derive(Debug, Serialize)]
pub(crate) struct ConnectionJson {
    id: u64,
    uid: Name,
    ip: String,
    port: u16,
    last_activity: String,
    uptime: String,
    idle: String,
    pending_bytes: u64,
    in_msgs: u64,
    out_msgs: u64,
    in_msg_bytes: u64,
    out_msg_bytes: u64,
    in_packets: u64,
    out_packets: u64,
    in_packet_bytes: u64,
    out_packet_bytes: u64,
    device: String,
    device_id: Name,
    version: u8,
    proxy_type_format: &'static str,
    leader_id: u64,
    node_id: u64,
}

impl ConnectionJson {
    /// A connection as it is at `now_ms`.
    pub(crate) fn new<N: Node>(api: &Api<N>, info: &ConnectionInfo, now_ms: i64) -> Self {
        let node = api.settings.node.0;
        Self {
            id: info.conn.0,
            uid: info.uid.clone(),
            ip: info.peer.ip().to_canonical().to_string(),
            port: info.peer.port(),
            last_activity: rfc3339(info.last_activity_ms, api.settings.utc_offset_seconds),
            uptime: duration(now_ms.saturating_sub(info.opened_ms)),
            idle: duration(now_ms.saturating_sub(info.last_activity_ms)),
            pending_bytes: 0,
            in_msgs: info.traffic.messages_in,
            out_msgs: info.traffic.messages_out,
            in_msg_bytes: info.traffic.message_bytes_in,
            out_msg_bytes: info.traffic.message_bytes_out,
            in_packets: info.traffic.frames_in,
            out_packets: info.traffic.frames_out,
            in_packet_bytes: info.traffic.bytes_in,
            out_packet_bytes: info.traffic.bytes_out,
            device: device(info.device_flag, info.device_level),
            device_id: info.device_id.clone(),
            version: info.version,
            proxy_type_format: "本地连接",
            leader_id: node,
            node_id: node,
        }
    }
}

/// A device by flag and level.
fn device(flag: u8, level: u8) -> String {
    let name = match flag {
        0 => "App",
        1 => "Web",
        2 => "PC",
        _ => "未知",
    };
    let level = if level == 1 { "主" } else { "从" };
    format!("{name}({level})")
}

/// Every connection of a node, from all shards; nodes of a cluster have the same number of them.
pub(crate) async fn all<N: Node>(
    api: &Api<N>,
    node_id: u64,
) -> Result<Vec<ConnectionInfo>, Refusal> {
    let asked = (0..api.node.shards())
        .map(|shard| api.node.ask(shard_at(api, node_id, ShardId(shard)), Request::Connections));
    let mut connections = Vec::new();
    for reply in join_all(asked).await {
        let Reply::Connections(of_shard) = reply else {
            return Err(unknown_node(&reply, "节点不存在！"));
        };
        connections.extend(of_shard);
    }
    Ok(connections)
}

/// How many to show, from what was asked.
pub(crate) fn limit(asked: i64) -> usize {
    match usize::try_from(asked) {
        Ok(0) | Err(_) => LIMIT_DEFAULT,
        Ok(asked) => asked.min(LIMIT_MAX),
    }
}

#[derive(Serialize)]
struct ConnzJson {
    connections: Vec<ConnectionJson>,
    now: String,
    total: usize,
    offset: usize,
    limit: usize,
}

/// GET /connz. `total` counts every socket; shown are those past CONNECT.
pub(crate) async fn connz<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let query = &call.query;
    let offset = usize::try_from(query.signed("offset")).unwrap_or(0);
    let limit = limit(query.signed("limit"));
    let mut connections = all(api, query.unsigned("node_id")).await?;
    let total = connections.len();
    let now_ms = api.node.now().unix_ms;
    connections.retain(|info| info.live && info.uid.contains(query.text("uid")));
    sort(&mut connections, query.text("sort"), now_ms);
    let shown = connections
        .iter()
        .skip(offset)
        .take(limit)
        .map(|info| ConnectionJson::new(api, info, now_ms))
        .collect();
    Ok(value(&ConnzJson {
        connections: shown,
        now: rfc3339(now_ms, api.settings.utc_offset_seconds),
        total,
        offset,
        limit,
    }))
}

/// Sorts by what the caller names, with `Desc` behind it from the largest down. Equal ones, and
/// all when the name is unknown, stand in the order in which they were accepted: v2's ids grow
/// with time, ours need not.
fn sort(connections: &mut [ConnectionInfo], by: &str, now_ms: i64) {
    let age = |since: i64| u64::try_from(now_ms.saturating_sub(since)).unwrap_or(0);
    let (name, is_descending) = match by.strip_suffix("Desc") {
        Some(name) => (name, true),
        None => (by, false),
    };
    let key = |info: &ConnectionInfo| {
        let value = match name {
            "inMsg" => info.traffic.messages_in,
            "outMsg" => info.traffic.messages_out,
            "inMsgBytes" => info.traffic.message_bytes_in,
            "outMsgBytes" => info.traffic.message_bytes_out,
            "inPacket" => info.traffic.frames_in,
            "outPacket" => info.traffic.frames_out,
            "inPacketBytes" => info.traffic.bytes_in,
            "outPacketBytes" => info.traffic.bytes_out,
            "uptime" => age(info.opened_ms),
            "idle" => age(info.last_activity_ms),
            "protoVersion" => u64::from(info.version),
            _ => 0,
        };
        (value, info.opened_ms, info.conn)
    };
    connections.sort_by_key(key);
    if is_descending {
        connections.reverse();
    }
}

/// Whether a node id in a request means this node. 0 does.
pub(crate) fn is_here<N: Node>(api: &Api<N>, node_id: u64) -> bool {
    node_id == 0 || node_id == api.settings.node.0
}

body! {
    /// POST /conn/kick and /conn/remove.
    EndBody { uid: String, conn_id: i64, node_id: u64, op_node_id: u64, }
}

/// POST /conn/kick (with a DISCONNECT first) and /conn/remove. A connection that isn't there is
/// no error.
pub(crate) async fn end<N: Node>(api: &Api<N>, call: &Call, kick: bool) -> Answer {
    let body: EndBody = read(&call.body)?;
    if !is_here(api, body.op_node_id) {
        let view = api.node.cluster().await;
        if !view.is_ok_and(|view| view.member(NodeId(body.op_node_id)).is_some()) {
            return Err(Refusal::Rule("node not found"));
        }
    }
    if body.conn_id == 0 {
        return Err(Refusal::Rule("conn_id is 0"));
    }
    let Ok(conn) = u64::try_from(body.conn_id).map(ConnId) else {
        return Ok(ok());
    };
    let node_id = if body.node_id == 0 { body.op_node_id } else { body.node_id };
    if is_here(api, node_id) && conn.shard().0 >= api.node.shards() {
        return Ok(ok());
    }
    let request = Request::EndConnection { uid: body.uid.into(), conn, kick };
    let reply = api.node.ask(shard_at(api, node_id, conn.shard()), request).await;
    // A node that is not there has no connections.
    if matches!(reply, Reply::Failed(Failure::NoLeader)) && !is_here(api, node_id) {
        return Ok(ok());
    }
    done(&reply, "")
}

/// A shard of the node that a request names.
fn shard_at<N: Node>(api: &Api<N>, node_id: u64, shard: ShardId) -> Target {
    if is_here(api, node_id) { Target::Shard(shard) } else { Target::Node(NodeId(node_id), shard) }
}

/// The refusal when a node does not answer: nobody knows it, or it can't be reached.
fn unknown_node(reply: &Reply, text: &'static str) -> Refusal {
    if matches!(reply, Reply::Failed(Failure::NoLeader)) {
        Refusal::Rule(text)
    } else {
        Refusal::by(reply, "")
    }
}

#[cfg(test)]
mod tests;
