//! Who may come in: what this node makes of another node's hello (operations.md §3.2, §3.12; G19).

use std::{net::IpAddr, sync::Arc};

use jindou_core::id::NodeId;

use super::{document::SharedDocument, settings::ClusterSettings};

/// What another node says of itself before anything else.
#[derive(Clone, Debug)]
pub(super) struct Visitor {
    /// Its id.
    pub(super) node: NodeId,
    /// The number of its cluster; 0: it belongs to none yet.
    pub(super) cluster_id: u64,
    /// See [`crate::config::Config::fingerprint`].
    pub(super) fingerprint: u64,
    /// It has proved that it knows the secret.
    pub(super) proved: bool,
    /// Where it came from.
    pub(super) from: IpAddr,
}

/// Decides. A node view: every shard asks the same one.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    pub(super) settings: Arc<ClusterSettings>,
    pub(super) document: Arc<SharedDocument>,
}

impl Gate {
    /// Whether the visitor may stay; else a text for its log that says what to do.
    pub(super) fn admit(&self, visitor: &Visitor) -> Result<(), String> {
        let own = &self.settings;
        let id = visitor.node.0;
        if visitor.node == own.node {
            return Err(format!(
                "node id {id} is this node's own: give each node its own cluster.nodeId \
                 (WK_CLUSTER_NODEID)"
            ));
        }
        if !(1..=1023).contains(&id) {
            return Err(format!("node id {id} is not within 1 to 1023"));
        }
        if visitor.fingerprint != own.fingerprint {
            return Err(
                "cluster.slotCount, dedupe or id limits differ: they must be the same on every node"
                    .to_owned(),
            );
        }
        let (cluster_id, is_member, has_secret) = self.document.read(|document| {
            let is_member = document.nodes.contains_key(&visitor.node);
            (document.cluster_id, is_member, document.secret.is_some())
        });
        let both_known = cluster_id != 0 && visitor.cluster_id != 0;
        if both_known && cluster_id != visitor.cluster_id {
            return Err(format!(
                "node {id} belongs to another cluster: to move it here, start it on an empty \
                 directory (rootDir)"
            ));
        }
        if own.secret.is_some() && !visitor.proved {
            return Err("cluster.secret (WK_CLUSTER_SECRET) is missing or another one".to_owned());
        }
        let is_invited = own.members.iter().any(|member| member.0 == visitor.node);
        if is_member || (cluster_id == 0 && (is_invited || own.is_joining)) {
            if visitor.cluster_id != 0 && has_secret && !visitor.proved {
                return Err(format!("node {id} does not know the cluster's secret"));
            }
            return Ok(());
        }
        if cluster_id == 0 {
            return Err(format!(
                "node {id} is not in this node's cluster.initNodes: the list must be the same on \
                 every node"
            ));
        }
        if visitor.cluster_id != 0 {
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
        tracing::info!("node {id} at {} asks to join", visitor.from);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use bytes::Bytes;

    use super::{
        super::document::{ID_KEY, Member, SECRET_KEY, Status, node_entry},
        *,
    };

    fn visitor(node: u64) -> Visitor {
        Visitor {
            node: NodeId(node),
            cluster_id: 0,
            fingerprint: 1,
            proved: false,
            from: Ipv4Addr::LOCALHOST.into(),
        }
    }

    fn gate(formed: bool) -> Gate {
        let settings = ClusterSettings::example();
        let document = SharedDocument::default();
        if formed {
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
        Gate { settings: settings.into(), document: document.into() }
    }

    #[track_caller]
    fn refused(gate: &Gate, visitor: &Visitor, word: &str) {
        let text = gate.admit(visitor).err().unwrap_or_default();
        assert!(text.contains(word), "{text:?} does not say {word:?}");
    }

    #[test]
    fn a_first_start_takes_whom_the_list_names() {
        let gate = gate(false);
        assert_eq!(gate.admit(&visitor(2)), Ok(()));
        refused(&gate, &visitor(3), "cluster.initNodes");
        refused(&gate, &visitor(1), "WK_CLUSTER_NODEID");
        refused(&gate, &Visitor { fingerprint: 2, ..visitor(2) }, "cluster.slotCount");
        refused(&gate, &visitor(5000), "1 to 1023");
    }

    #[test]
    fn a_cluster_takes_members_wiped_members_and_new_nodes_only() {
        let gate = gate(true);
        let member = Visitor { cluster_id: 7, proved: true, ..visitor(2) };
        assert_eq!(gate.admit(&member), Ok(()));
        assert_eq!(gate.admit(&visitor(2)), Ok(()), "wiped");
        assert_eq!(gate.admit(&visitor(9)), Ok(()), "joining");
        refused(&gate, &Visitor { proved: false, ..member.clone() }, "secret");
        refused(&gate, &Visitor { cluster_id: 8, ..member.clone() }, "another cluster");
        refused(&gate, &Visitor { node: NodeId(9), ..member }, "was removed");
    }

    #[test]
    fn a_configured_secret_is_asked_of_everybody() {
        let mut gate = gate(false);
        let settings = ClusterSettings { secret: Some("s".into()), ..(*gate.settings).clone() };
        gate.settings = settings.into();
        refused(&gate, &visitor(2), "WK_CLUSTER_SECRET");
        assert_eq!(gate.admit(&Visitor { proved: true, ..visitor(2) }), Ok(()));
    }
}
