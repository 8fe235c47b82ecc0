//! The members: /cluster/nodes, /cluster/simpleNodes, /cluster/node, and the document of the whole
//! cluster: /cluster/info (operations.md §3.4).

use serde::Serialize;

use super::{ClusterView, NodeStatus, NodeView, SlotView, is_zero, number, numbers, slots, view};
use crate::{
    answer::{Answer, Refusal, value},
    api::Api,
    node::Node,
    time::duration,
};

#[derive(Serialize)]
struct NodeJson<'a> {
    id: u64,
    #[serde(skip_serializing_if = "is_zero")]
    is_leader: u8,
    role: u8,
    cluster_addr: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    api_server_addr: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    online: u8,
    allow_vote: u8,
    #[serde(skip_serializing_if = "is_zero")]
    slot_count: u32,
    #[serde(skip_serializing_if = "is_zero")]
    term: u64,
    #[serde(skip_serializing_if = "is_zero")]
    slot_leader_count: u32,
    #[serde(skip_serializing_if = "is_zero")]
    import_count: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    imports: Vec<ImportJson>,
    #[serde(skip_serializing_if = "String::is_empty")]
    uptime: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    app_version: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    config_version: u64,
    status: u8,
    status_format: &'static str,
}

/// A slot that a node is being given; `from` is who sends it the data.
#[derive(Serialize)]
struct ImportJson {
    slot_id: u16,
    from: u64,
    to: u64,
    status: u8,
}

impl<'a> NodeJson<'a> {
    /// What the cluster's document says of a node.
    fn simple(view: &ClusterView, node: &'a NodeView) -> Self {
        let (status, status_format) = status(node.status);
        Self {
            id: node.id.0,
            is_leader: (view.leader == Some(node.id)).into(),
            role: role(node),
            cluster_addr: &node.addr,
            api_server_addr: &node.api_url,
            online: node.online.into(),
            allow_vote: node.votes.into(),
            slot_count: node.slot_count,
            term: 0,
            slot_leader_count: node.leader_count,
            import_count: 0,
            imports: Vec::new(),
            uptime: String::new(),
            app_version: "",
            config_version: 0,
            status,
            status_format,
        }
    }

    /// The same with what the node says of itself.
    fn full(view: &ClusterView, node: &'a NodeView) -> Self {
        let is_taking = |slot: &&SlotView| slot.learners.contains(&node.id);
        let imports: Vec<_> = view
            .slots
            .iter()
            .filter(is_taking)
            .map(|slot| ImportJson {
                slot_id: slot.slot.0,
                from: number(slot.leader),
                to: node.id.0,
                status: 0,
            })
            .collect();
        let uptime_ms = node
            .uptime_s
            .map(|seconds| i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000));
        Self {
            term: view.term,
            import_count: imports.len(),
            imports,
            uptime: uptime_ms.map_or_else(String::new, duration),
            // v2.2.5 leaves its own version empty, and a lone node has nobody to differ from.
            app_version: match &node.app_version {
                Some(version) if view.nodes.len() > 1 => version,
                Some(_) | None => "",
            },
            config_version: view.version,
            ..Self::simple(view, node)
        }
    }
}

/// 0: holds slots, 1: connections only.
fn role(node: &NodeView) -> u8 {
    u8::from(!node.votes)
}

/// A status in v2's numbers and words. That a node leaves, v2 has no word for.
fn status(status: NodeStatus) -> (u8, &'static str) {
    match status {
        NodeStatus::Joining => (2, "加入中"),
        NodeStatus::Joined => (3, "已加入"),
        NodeStatus::Leaving => (4, "离开中"),
    }
}

#[derive(Serialize)]
struct Total<T> {
    total: usize,
    data: Vec<T>,
}

/// GET /cluster/nodes: all members by id, those that did not answer included.
pub(super) async fn nodes<N: Node>(api: &Api<N>) -> Answer {
    let view = view(api).await?;
    let data: Vec<_> = view.nodes.iter().map(|node| NodeJson::full(&view, node)).collect();
    Ok(value(&Total { total: data.len(), data }))
}

/// GET /cluster/simpleNodes: the same without what only the nodes themselves know.
pub(super) async fn simple_nodes<N: Node>(api: &Api<N>) -> Answer {
    let view = view(api).await?;
    let data: Vec<_> = view.nodes.iter().map(|node| NodeJson::simple(&view, node)).collect();
    Ok(value(&Total { total: data.len(), data }))
}

/// GET /cluster/node: this node.
pub(super) async fn node<N: Node>(api: &Api<N>) -> Answer {
    let view = view(api).await?;
    let node = view.member(view.node).ok_or(Refusal::Rule("node not found"))?;
    Ok(value(&NodeJson::full(&view, node)))
}

/// The cluster's document, as protobuf writes JSON: what is zero is left out.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InfoJson<'a> {
    #[serde(skip_serializing_if = "is_zero")]
    version: u64,
    #[serde(skip_serializing_if = "is_zero")]
    slot_count: u16,
    #[serde(skip_serializing_if = "is_zero")]
    slot_replica_count: u16,
    #[serde(skip_serializing_if = "is_zero")]
    channel_replica_count: u16,
    #[serde(skip_serializing_if = "is_zero")]
    term: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    nodes: Vec<InfoNodeJson<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    slots: Vec<InfoSlotJson>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InfoNodeJson<'a> {
    #[serde(skip_serializing_if = "is_zero")]
    id: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    cluster_addr: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    api_server_addr: &'a str,
    #[serde(skip_serializing_if = "is_zero")]
    online: bool,
    #[serde(skip_serializing_if = "is_zero")]
    allow_vote: bool,
    #[serde(skip_serializing_if = "is_zero")]
    role: u8,
    status: u8,
    #[serde(skip_serializing_if = "is_zero")]
    created_at: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InfoSlotJson {
    #[serde(skip_serializing_if = "is_zero")]
    id: u16,
    #[serde(skip_serializing_if = "is_zero")]
    leader: u64,
    #[serde(skip_serializing_if = "is_zero")]
    term: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    replicas: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    learners: Vec<u64>,
    #[serde(skip_serializing_if = "is_zero")]
    status: u8,
    /// Not v2's: its voters or its leader are being changed.
    #[serde(skip_serializing_if = "is_zero")]
    changing: bool,
}

/// GET /cluster/info: the whole document.
pub(super) async fn info<N: Node>(api: &Api<N>) -> Answer {
    let view = view(api).await?;
    let nodes = view
        .nodes
        .iter()
        .map(|node| InfoNodeJson {
            id: node.id.0,
            cluster_addr: &node.addr,
            api_server_addr: &node.api_url,
            online: node.online,
            allow_vote: node.votes,
            role: role(node),
            status: status(node.status).0,
            created_at: node.created_at,
        })
        .collect();
    let slots = view
        .slots
        .iter()
        .map(|slot| InfoSlotJson {
            id: slot.slot.0,
            leader: number(slot.leader),
            term: slot.term,
            replicas: numbers(&slot.voters),
            learners: numbers(&slot.learners),
            status: slots::status(slot).0,
            changing: slot.changing,
        })
        .collect();
    Ok(value(&InfoJson {
        version: view.version,
        slot_count: view.slot_count,
        slot_replica_count: view.replica_count,
        // A channel lives in its slot.
        channel_replica_count: view.replica_count,
        term: view.term,
        nodes,
        slots,
    }))
}
