//! How a node that has nothing on disk begins: alone, with others for the first time, or as one
//! that a cluster takes in (operations.md §3.5, §3.7; G15).

use std::collections::BTreeMap;

use jindou_core::id::NodeId;

use super::settings::ClusterSettings;

/// What is to be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Begin a cluster of these nodes. All of them do the same, whoever is first.
    Found(Vec<NodeId>),
    /// There is a cluster already: ask one of these nodes to be taken in.
    Enter(Vec<(NodeId, String)>),
    /// Look again later; the text says what for.
    Wait(String),
}

/// Decides for a node without any state and without a seed. `met`: nodes that have answered a hello, with the number
/// of the cluster that they belong to, 0 for none.
///
/// Whoever lost its disk looks as if it started for the first time. So a node asks before it
/// founds anything: if a single other one knows of a cluster, there is one.
pub(super) fn decide(settings: &ClusterSettings, met: &BTreeMap<NodeId, u64>) -> Decision {
    let is_within = |node: &NodeId| met.get(node).is_some_and(|cluster_id| *cluster_id != 0);
    let within: Vec<_> =
        settings.members.iter().filter(|(node, _)| is_within(node)).cloned().collect();
    if !within.is_empty() {
        return Decision::Enter(within);
    }
    let members: Vec<NodeId> = settings.members.iter().map(|(node, _)| *node).collect();
    if members.is_empty() || members == [settings.node] {
        return Decision::Found(vec![settings.node]);
    }
    let present = |node: &&NodeId| **node == settings.node || met.contains_key(*node);
    let present = members.iter().filter(present).count();
    if present > members.len() / 2 {
        return Decision::Found(members);
    }
    let missing: Vec<String> = settings
        .members
        .iter()
        .filter(|(node, _)| *node != settings.node && !met.contains_key(node))
        .map(|(node, addr)| format!("{}@{addr}", node.0))
        .collect();
    Decision::Wait(format!(
        "waiting for a majority of cluster.initNodes: {present} of {} are here, not {}",
        members.len(),
        missing.join(" ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> ClusterSettings {
        let members = (1..=3).map(|n| (NodeId(n), format!("h:{n}"))).collect();
        ClusterSettings { members, ..ClusterSettings::example() }
    }

    fn met(nodes: &[(u64, u64)]) -> BTreeMap<NodeId, u64> {
        nodes.iter().map(|(node, id)| (NodeId(*node), *id)).collect()
    }

    #[test]
    fn a_majority_of_the_list_founds_the_cluster() {
        let wait = decide(&three(), &met(&[]));
        let Decision::Wait(text) = wait else { panic!("{wait:?}") };
        assert!(text.contains("1 of 3") && text.contains("2@h:2 3@h:3"), "{text}");
        let all = vec![NodeId(1), NodeId(2), NodeId(3)];
        assert_eq!(decide(&three(), &met(&[(3, 0)])), Decision::Found(all));
    }

    #[test]
    fn whoever_meets_a_cluster_founds_none() {
        let enter = Decision::Enter(vec![(NodeId(2), "h:2".to_owned())]);
        assert_eq!(decide(&three(), &met(&[(2, 9), (3, 0)])), enter);
    }

    #[test]
    fn a_node_alone_founds_at_once() {
        let alone = ClusterSettings { members: vec![], ..ClusterSettings::example() };
        assert_eq!(decide(&alone, &met(&[])), Decision::Found(vec![NodeId(1)]));
    }
}
