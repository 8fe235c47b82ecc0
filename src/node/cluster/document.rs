//! What group 0 keeps of the cluster: who belongs to it, and what its nodes share. Every node has a
//! copy, fed by the keys that group 0 applies.

use std::{
    collections::BTreeMap,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use jindou_core::id::NodeId;
use serde::{Deserialize, Serialize};

/// The key of the cluster's number, eight bytes.
pub(super) const ID_KEY: &str = "cluster/id";
/// The key of the secret that nodes prove to each other.
pub(super) const SECRET_KEY: &str = "cluster/secret";
/// The key of what signs log-ins of managers.
pub(super) const LOGIN_KEY: &str = "jwt_secret";
/// What the keys of nodes begin with; the node id follows.
const NODE_PREFIX: &str = "node/";

/// How far a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    /// It is to get its share of the slots.
    Joining,
    /// It has its share.
    Joined,
    /// It is to give up its share.
    Leaving,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Member {
    /// Where its links are accepted, `host:port`.
    pub(super) addr: String,
    /// The base URL of its HTTP API.
    #[serde(default)]
    pub(super) api_url: String,
    /// How far it is.
    pub(super) status: Status,
    /// Unix seconds of its first entry.
    #[serde(default)]
    pub(super) created_at: i64,
}

/// A copy of what group 0 keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Document {
    /// Drawn by the first leader; 0: not known yet.
    pub(super) cluster_id: u64,
    /// Known to all nodes.
    pub(super) secret: Option<Bytes>,
    /// Signs log-ins of managers; drawn when the first of them is wanted.
    pub(super) login_key: Option<Bytes>,
    /// By id.
    pub(super) nodes: BTreeMap<NodeId, Member>,
}

impl Document {
    /// A key has a new value; an empty one removes it. Keys of other parts are none of its business.
    fn apply(&mut self, key: &str, value: &Bytes) {
        match key {
            ID_KEY => {
                if let Some(id) = value.first_chunk::<8>() {
                    self.cluster_id = u64::from_le_bytes(*id);
                }
            }
            SECRET_KEY => self.secret = Some(value.clone()).filter(|secret| !secret.is_empty()),
            LOGIN_KEY => self.login_key = Some(value.clone()).filter(|key| !key.is_empty()),
            _ => {
                let Some(node) = node_of(key) else { return };
                if value.is_empty() {
                    self.nodes.remove(&node);
                } else if let Ok(member) = serde_json::from_slice(value) {
                    self.nodes.insert(node, member);
                } else {
                    tracing::error!("the entry of node {} in group 0 is not understood", node.0);
                }
            }
        }
    }

    /// Nodes that are to hold data.
    pub(super) fn holders(&self) -> Vec<NodeId> {
        let holds = |status| matches!(status, Status::Joined | Status::Joining);
        self.nodes.iter().filter(|(_, m)| holds(m.status)).map(|(id, _)| *id).collect()
    }
}

fn node_of(key: &str) -> Option<NodeId> {
    key.strip_prefix(NODE_PREFIX)?.parse().ok().map(NodeId)
}

/// The entry of a node: its key and value.
pub(super) fn node_entry(node: NodeId, member: &Member) -> (String, Vec<u8>) {
    (format!("{NODE_PREFIX}{}", node.0), serde_json::to_vec(member).unwrap_or_default())
}

/// The entry that removes a node.
pub(super) fn removal(node: NodeId) -> (String, Vec<u8>) {
    (format!("{NODE_PREFIX}{}", node.0), Vec::new())
}

/// The document as the threads of this node share it. Changes are rare; whoever wants to know of
/// one compares versions.
#[derive(Debug, Default)]
pub(in crate::node) struct SharedDocument {
    document: RwLock<Document>,
    version: AtomicU64,
}

impl SharedDocument {
    /// Group 0 has applied a key.
    pub(in crate::node) fn apply(&self, key: &str, value: &Bytes) {
        self.change(|document| document.apply(key, value));
    }

    /// Knows at least this much, before group 0 is here: what another member told.
    pub(super) fn learn(&self, told: Document) {
        self.change(|document| {
            if document.cluster_id == 0 {
                *document = told;
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Document)) {
        let mut document = self.document.write().unwrap_or_else(PoisonError::into_inner);
        let before = document.clone();
        change(&mut document);
        if *document != before {
            self.version.fetch_add(1, Ordering::Release);
        }
    }

    /// Grows with every change.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// A look at it; short.
    pub(super) fn read<T>(&self, look: impl FnOnce(&Document) -> T) -> T {
        look(&self.document.read().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(status: Status) -> Member {
        Member { addr: "10.0.0.1:11110".into(), api_url: String::new(), status, created_at: 3 }
    }

    #[test]
    fn the_document_follows_the_keys() {
        let shared = SharedDocument::default();
        let (key, value) = node_entry(NodeId(7), &member(Status::Joining));
        shared.apply(&key, &value.into());
        shared.apply(ID_KEY, &Bytes::copy_from_slice(&9u64.to_le_bytes()));
        shared.apply(LOGIN_KEY, &Bytes::from_static(b"x"));
        shared.apply("none/of/its/business", &Bytes::from_static(b"x"));
        assert_eq!(shared.version(), 3);
        assert_eq!(shared.read(|d| d.login_key.clone()), Some(Bytes::from_static(b"x")));
        assert_eq!(shared.read(|d| (d.cluster_id, d.holders())), (9, vec![NodeId(7)]));
        let (key, value) = removal(NodeId(7));
        shared.apply(&key, &value.into());
        assert!(shared.read(|d| d.nodes.is_empty()));
    }

    #[test]
    fn who_leaves_is_to_hold_nothing() {
        let shared = SharedDocument::default();
        for (id, status) in [(1, Status::Leaving), (3, Status::Joined)] {
            let (key, value) = node_entry(NodeId(id), &member(status));
            shared.apply(&key, &value.into());
        }
        assert_eq!(shared.read(Document::holders), [NodeId(3)]);
    }

    #[test]
    fn what_a_member_told_counts_until_group_0_is_here() {
        let shared = SharedDocument::default();
        let told = Document { cluster_id: 5, ..Document::default() };
        shared.learn(told.clone());
        shared.learn(Document { cluster_id: 6, ..told });
        assert_eq!(shared.read(|d| d.cluster_id), 5);
    }
}
