//! Changes of the cluster, for callers with the right to them (`manager/rights.rs`). Judged here is what can be seen at once, so that the caller hears the
//! real reason; the node that carries it out checks again what may have changed meanwhile.

use std::net::Ipv6Addr;

use jindou_core::id::NodeId;

use super::{ClusterChange, NodeStatus, node_of, slot_of, view};
use crate::{
    answer::{Answer, Refusal, ok},
    api::{Api, Call},
    json::{body, read},
    node::Node,
};

body! {
    /// POST /cluster/slots/:id/migrate.
    MigrateBody { migrate_from: u64, migrate_to: u64, }
}

body! {
    /// POST /cluster/nodes/:id/replace.
    ReplaceBody { addr: String, }
}

/// The longest address, in bytes: a DNS name has up to 253.
const ADDR_SIZE_MAX: usize = 300;

async fn carry_out<N: Node>(api: &Api<N>, change: ClusterChange) -> Answer {
    api.node.change_cluster(change).await.map_err(Refusal::Told)?;
    Ok(ok())
}

/// POST /cluster/slots/:id/migrate: another node takes a place, or the lead.
pub(super) async fn migrate<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let body: MigrateBody = read(&call.body)?;
    if body.migrate_from == 0 || body.migrate_to == 0 {
        return Err(Refusal::Rule("migrateFrom or migrateTo is 0"));
    }
    if body.migrate_from == body.migrate_to {
        return Err(Refusal::Rule("migrateFrom is equal to migrateTo"));
    }
    let (from, to) = (NodeId(body.migrate_from), NodeId(body.migrate_to));
    let view = view(api).await?;
    let slot = slot_of(&view, call.params.text("id"))?;
    let leader = slot.leader.ok_or(Refusal::Rule("leader not found"))?;
    if !slot.voters.contains(&from) {
        return Err(Refusal::Rule("MigrateFrom not in replicas"));
    }
    if slot.voters.contains(&to) && from != leader {
        return Err(Refusal::Rule("transition between followers is not supported"));
    }
    let target = view.member(to).ok_or(Refusal::Rule("node not found"))?;
    if !target.online {
        return Err(Refusal::Rule("node offline"));
    }
    if !target.votes {
        return Err(Refusal::Rule("migrateTo is a node that holds no slots"));
    }
    if target.status == NodeStatus::Leaving {
        return Err(Refusal::Rule("migrateTo is a node that is being removed"));
    }
    carry_out(api, ClusterChange::Migrate { slot: slot.slot, from, to }).await
}

/// POST /cluster/slots/:id/election. Refused where it could only do harm: v2 leaves a slot without
/// a leader for ever then (operations.md §3.8).
pub(super) async fn elect<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let view = view(api).await?;
    let slot = slot_of(&view, call.params.text("id"))?;
    if slot.voters.len() < 2 {
        return Err(Refusal::Rule("the slot has one replica: no other can lead it"));
    }
    let online = slot.voters.iter().filter(|voter| view.is_online(**voter)).count();
    if online <= slot.voters.len() / 2 {
        return Err(Refusal::Rule("most replicas of the slot are offline: none can be elected"));
    }
    carry_out(api, ClusterChange::Elect { slot: slot.slot }).await
}

/// POST /cluster/nodes/:id/remove.
pub(super) async fn remove<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let view = view(api).await?;
    let node = node_of(&view, call.params.text("id"))?.id;
    let stays = |id, status| id != node && status == NodeStatus::Joined;
    if !view.nodes.iter().any(|other| other.votes && stays(other.id, other.status)) {
        return Err(Refusal::Rule("no other node would be left to take its slots"));
    }
    carry_out(api, ClusterChange::Remove { node }).await
}

/// POST /cluster/nodes/:id/keep. A node that isn't leaving stays as it is.
pub(super) async fn keep<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let view = view(api).await?;
    let node = node_of(&view, call.params.text("id"))?.id;
    carry_out(api, ClusterChange::Keep { node }).await
}

/// POST /cluster/nodes/:id/replace.
pub(super) async fn replace<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let ReplaceBody { addr } = read(&call.body)?;
    let addr = addr.trim();
    if !is_address(addr) {
        return Err(Refusal::Rule("addr: wanted HOST:PORT"));
    }
    let view = view(api).await?;
    let node = node_of(&view, call.params.text("id"))?.id;
    if let Some(other) = view.nodes.iter().find(|other| other.addr == addr && other.id != node) {
        return Err(Refusal::Told(format!("addr is in use by node {}", other.id.0)));
    }
    carry_out(api, ClusterChange::Replace { node, addr: addr.to_owned() }).await
}

/// Whether a text is `host:port`: a name, an IPv4 address or an IPv6 address in brackets, and a
/// port from 1.
fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_host = match host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None => {
            let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            !host.is_empty() && host.bytes().all(is_name_byte)
        }
    };
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port != 0);
    text.len() <= ADDR_SIZE_MAX && is_host && is_port
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_host_and_port() {
        for good in ["a:1", "10.0.0.1:11110", "node-1.x_y.svc:65535", "[::1]:5001"] {
            assert!(is_address(good), "{good}");
        }
        let long = format!("{}:1", "a".repeat(ADDR_SIZE_MAX));
        for bad in [
            "",
            ":",
            "a",
            "a:",
            ":1",
            "a:0",
            "a:65536",
            "a:+1",
            "a: 1",
            "a b:1",
            "::1:5",
            "[::1]",
            "[x]:1",
            "tcp://a:1",
            "a/b:1",
            "1@a:1",
            "a\n:1",
            "ä:1",
            &long,
        ] {
            assert!(!is_address(bad), "{bad:?}");
        }
    }
}
