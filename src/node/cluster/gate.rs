//! Who may come in: what this node makes of another node's hello (operations.md §3.2, §3.12; G19).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use jindou_core::id::NodeId;
use jindou_net::link::{Gatekeeper, HelloInfo, Purpose, Refusal, RefusalCode};

use super::{document::SharedDocument, settings::ClusterSettings};

/// Decides. A node view: every shard asks the same one. What can be told without knowing the members
/// (another cluster, other slots, a wrong secret, an id in use) the link layer has decided before.
#[derive(Debug)]
pub(in crate::node) struct Gate {
    pub(in crate::node) settings: Arc<ClusterSettings>,
    pub(in crate::node) document: Arc<SharedDocument>,
    /// Who has said hello, with the number of its cluster, 0 for none.
    met: Mutex<BTreeMap<NodeId, u64>>,
}

impl Gate {
    pub(in crate::node) fn new(
        settings: Arc<ClusterSettings>,
        document: Arc<SharedDocument>,
    ) -> Self {
        Self { settings, document, met: Mutex::default() }
    }

    /// Who has said hello so far.
    pub(super) fn met(&self) -> BTreeMap<NodeId, u64> {
        self.met.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a node may stay; else a text for its log that says what to do.
    fn judge(
        &self,
        node: NodeId,
        cluster_id: u64,
        is_proven: bool,
        purpose: Purpose,
    ) -> Result<(), String> {
        let own = &self.settings;
        let id = node.0;
        if !(1..=1023).contains(&id) {
            return Err(format!("node id {id} is not within 1 to 1023"));
        }
        let (own_cluster_id, is_member, has_secret) = self.document.read(|document| {
            let is_member = document.nodes.contains_key(&node);
            (document.cluster_id, is_member, document.secret.is_some())
        });
        let is_invited = own.members.iter().any(|member| member.0 == node);
        let is_expected = own_cluster_id == 0 && (is_invited || own.is_joining);
        if is_member || is_expected {
            if cluster_id != 0 && has_secret && !is_proven {
                return Err(format!("node {id} does not know the cluster's secret"));
            }
            return Ok(());
        }
        if own_cluster_id == 0 {
            return Err(format!(
                "node {id} is not in this node's cluster.initNodes: the list must be the same on \
                 every node"
            ));
        }
        if cluster_id != 0 {
            return Err(format!(
                "node {id} was removed from the cluster: to join again, start it on an empty \
                 directory with cluster.seed"
            ));
        }
        if own.addr.is_none() {
            return Err(
                "this node has no cluster.serverAddr (WK_CLUSTER_SERVERADDR), so nobody can join it"
                    .to_owned(),
            );
        }
        if purpose == Purpose::Bundle {
            return Err(format!("node {id} is no member yet: it has to ask to be taken in"));
        }
        Ok(())
    }
}

impl Gatekeeper for Gate {
    fn admit(&self, hello: &HelloInfo) -> Result<(), Refusal> {
        self.judge(hello.node, hello.cluster_id, hello.is_proven, hello.purpose)
            .map_err(|text| Refusal::new(RefusalCode::NotMember, text))
    }

    fn met(&self, hello: &HelloInfo) {
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        met.insert(hello.node, hello.cluster_id);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{
        super::document::{ID_KEY, Member, SECRET_KEY, Status, node_entry},
        *,
    };

    fn gate(is_founded: bool) -> Gate {
        let document = SharedDocument::default();
        if is_founded {
            let member = Member {
                addr: "h:2".into(),
                api_url: String::new(),
                status: Status::Joined,
                created_at: 0,
            };
            let (key, value) = node_entry(NodeId(2), &member);
            document.apply(&key, &value.into());
            document.apply(ID_KEY, &Bytes::copy_from_slice(&7u64.to_le_bytes()));
            document.apply(SECRET_KEY, &Bytes::from_static(b"s"));
        }
        Gate::new(ClusterSettings::example().into(), document.into())
    }

    #[track_caller]
    fn refused(judged: Result<(), String>, word: &str) {
        let text = judged.err().unwrap_or_default();
        assert!(text.contains(word), "{text:?} does not say {word:?}");
    }

    #[test]
    fn a_first_start_takes_whom_the_list_names() {
        let gate = gate(false);
        assert_eq!(gate.judge(NodeId(2), 0, false, Purpose::Control), Ok(()));
        refused(gate.judge(NodeId(3), 0, false, Purpose::Control), "cluster.initNodes");
        refused(gate.judge(NodeId(5000), 0, false, Purpose::Control), "1 to 1023");
    }

    #[test]
    fn a_cluster_takes_members_wiped_members_and_new_nodes_only() {
        let gate = gate(true);
        assert_eq!(gate.judge(NodeId(2), 7, true, Purpose::Control), Ok(()));
        assert_eq!(gate.judge(NodeId(2), 0, false, Purpose::Control), Ok(()), "wiped");
        assert_eq!(gate.judge(NodeId(9), 0, false, Purpose::Control), Ok(()), "joining");
        refused(gate.judge(NodeId(2), 7, false, Purpose::Control), "secret");
        refused(gate.judge(NodeId(9), 7, true, Purpose::Control), "was removed");
    }
}
