//! The cluster for operators and the manager's pages: /cluster/… of nodes, slots and their
//! replicas (http-api.md §17.1, §17.2, §17.6; operations.md §3.14), and the changes of it.
//!
//! Any node answers with what it finds out itself, so nothing is forwarded and nothing can go round
//! in a circle. `view` is what the node says, `nodes` and `slots` write it as v2 does, `change`
//! judges what is asked to be changed.

mod change;
mod channel_change;
mod logs;
mod nodes;
mod slots;
mod view;

use http::StatusCode;
use jindou_core::id::{NodeId, SlotId};

#[cfg(test)]
mod tests;

pub(crate) use self::change::{MigrateBody, ReplaceBody};
pub use self::logs::{LogEntryView, LogPage, LogQuery};
pub use self::view::{
    ClusterChange, ClusterView, NodeStatus, NodeView, ReplicaRole, ReplicaView, SlotView,
};

use crate::{
    answer::{Answer, Refusal},
    api::{Api, Call},
    http::HttpResponse,
    node::Node,
};

/// A page of the cluster, or a change of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClusterRoute {
    Nodes,
    Node,
    SimpleNodes,
    Info,
    Slots,
    AllSlots,
    SlotConfig,
    SlotReplicas,
    SlotLocalReplica,
    CheckLogConflict,
    Migrate,
    Elect,
    Remove,
    Keep,
    Replace,
    ChannelMigrate,
    ChannelStart,
    ChannelStop,
    Logs,
}

/// Answers a route of this module.
pub(crate) async fn answer<N: Node>(api: &Api<N>, call: &Call, route: ClusterRoute) -> Answer {
    match route {
        ClusterRoute::Nodes => nodes::nodes(api).await,
        ClusterRoute::Node => nodes::node(api).await,
        ClusterRoute::SimpleNodes => nodes::simple_nodes(api).await,
        ClusterRoute::Info => nodes::info(api).await,
        ClusterRoute::Slots => slots::slots(api, call).await,
        ClusterRoute::AllSlots => slots::all_slots(api).await,
        ClusterRoute::SlotConfig => slots::config(api, call).await,
        ClusterRoute::SlotReplicas => slots::replicas(api, call).await,
        ClusterRoute::SlotLocalReplica => slots::local_replica(api, call).await,
        // v2 answers nothing, and checks nothing.
        ClusterRoute::CheckLogConflict => Ok(HttpResponse::empty(StatusCode::OK)),
        ClusterRoute::Migrate => change::migrate(api, call).await,
        ClusterRoute::Elect => change::elect(api, call).await,
        ClusterRoute::Remove => change::remove(api, call).await,
        ClusterRoute::Keep => change::keep(api, call).await,
        ClusterRoute::Replace => change::replace(api, call).await,
        ClusterRoute::Logs => logs::logs(api, call).await,
        ClusterRoute::ChannelMigrate => channel_change::migrate(call),
        ClusterRoute::ChannelStart | ClusterRoute::ChannelStop => {
            channel_change::start_or_stop(call)
        }
    }
}

/// What this node sees, with nodes and slots in order.
pub(crate) async fn view<N: Node>(api: &Api<N>) -> Result<ClusterView, Refusal> {
    let mut view = api.node.cluster().await.map_err(Refusal::Told)?;
    view.nodes.sort_by_key(|node| node.id);
    view.slots.sort_by_key(|slot| slot.slot);
    Ok(view)
}

/// The slot that a text names.
fn slot_of<'a>(view: &'a ClusterView, text: &str) -> Result<&'a SlotView, Refusal> {
    let id = text.parse().ok().map(SlotId);
    id.and_then(|id| view.slot(id)).ok_or(Refusal::Rule("slot not found"))
}

/// The member that a text names.
fn node_of<'a>(view: &'a ClusterView, text: &str) -> Result<&'a NodeView, Refusal> {
    let id = text.parse().ok().map(NodeId);
    id.and_then(|id| view.member(id)).ok_or(Refusal::Rule("node not found"))
}

/// A node id as v2 writes it: 0 for none.
fn number(node: Option<NodeId>) -> u64 {
    node.map_or(0, |node| node.0)
}

/// Node ids as numbers.
fn numbers(nodes: &[NodeId]) -> Vec<u64> {
    nodes.iter().map(|node| node.0).collect()
}

/// For fields that v2 leaves out when they are zero.
pub(crate) fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
