//! The data pages: members, channels, users, devices, conversations and messages of all slots
//! (http-api.md §17.3–17.6; operations.md §3.14).
//!
//! Any node answers for the whole cluster: it asks the leader of each slot for pages of what it has
//! (see [`jindou_core::scan`]) and keeps the best, so that an answer takes as much memory as it
//! shows, however much is stored. `node_id` names no node here but where a route says so.

mod channels;
mod conversations;
mod format;
mod members;
mod messages;
mod page;
mod replicas;
mod users;

#[cfg(test)]
mod tests;

use jindou_core::{
    channel_info::List,
    id::ChannelId,
    request::{Reply, Request, Target},
    scan::{Scan, ScanPage},
};

pub(crate) use self::replicas::StatusBody;
use crate::{
    answer::{Answer, Refusal},
    api::{Api, Call},
    cluster::view,
    node::Node,
    query::unsigned,
};

/// A data page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DataRoute {
    Subscribers,
    Denylist,
    Allowlist,
    Channels,
    NodeChannels,
    Users,
    Devices,
    Conversations,
    Messages,
    Config,
    Replicas,
    LocalReplica,
    Status,
}

/// Answers a route of this module.
pub(crate) async fn answer<N: Node>(api: &Api<N>, call: &Call, route: DataRoute) -> Answer {
    match route {
        DataRoute::Subscribers => members::list(api, call, List::Members).await,
        DataRoute::Denylist => members::list(api, call, List::Deny).await,
        DataRoute::Allowlist => members::list(api, call, List::Allow).await,
        DataRoute::Channels => channels::search(api, call).await,
        DataRoute::NodeChannels => channels::of_node(api, call).await,
        DataRoute::Users => users::users(api, call).await,
        DataRoute::Devices => users::devices(api, call).await,
        DataRoute::Conversations => conversations::search(api, call).await,
        DataRoute::Messages => messages::search(api, call).await,
        DataRoute::Config => replicas::config(api, call).await,
        DataRoute::Replicas => replicas::replicas(api, call).await,
        DataRoute::LocalReplica => replicas::local_replica(api, call).await,
        DataRoute::Status => replicas::status(api, call).await,
    }
}

/// A page of a slot, as its leader has it.
async fn scan<N: Node>(api: &Api<N>, scan: Scan) -> Result<ScanPage, Refusal> {
    let target = Target::Slot(scan.slot);
    let reply = api.node.ask(target, Request::Scan(Box::new(scan))).await;
    let Reply::Scanned(page) = reply else { return Err(Refusal::by(&reply, "")) };
    Ok(*page)
}

/// The channel that a path names, id as given. A type above 255 is 255.
fn named_channel<N: Node>(api: &Api<N>, call: &Call) -> Result<ChannelId, Refusal> {
    let id = call.params.text("id");
    let kind = u8::try_from(unsigned(call.params.text("type"))).unwrap_or(u8::MAX);
    // Person channels are named by a uid or by their stored id, which holds two.
    api.settings.check_channel(id, if id.contains('@') { 0 } else { kind })?;
    Ok(ChannelId::new(id, kind))
}
