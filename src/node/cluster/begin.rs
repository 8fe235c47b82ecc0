//! From the start of the process to the moment at which the node belongs to a cluster. The first
//! shard finds out what is to be done, all shards do it.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
    time::Duration,
};

use jindou_cluster::Node;
use jindou_core::{
    id::{NodeId, SlotId},
    shard::CLUSTER_SLOT,
};

use super::{
    document::Document,
    letters::{Answer, Ask},
    office::{Office, pause},
    startup::{Decision, decide},
};
use crate::node::health::NodeHealth;

/// How often a node that waits looks around, and how often it asks to be taken in.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
const ENTER_PAUSE: Duration = Duration::from_millis(500);
/// How long an answer to the wish to be taken in may take.
const ENTER_MAX: Duration = Duration::from_secs(5);

/// What all shards do once the first has found out.
#[derive(Clone, Debug)]
pub(in crate::node) enum Beginning {
    /// The groups are found on disk, or their leaders will bring them.
    Follow,
    /// Make the groups of a new cluster.
    Found {
        /// All nodes.
        nodes: BTreeMap<NodeId, Node>,
        /// How many replicas each slot has.
        replica_count: usize,
    },
}

/// What the first shard tells the others. A node view.
#[derive(Debug, Default)]
pub(in crate::node) struct Begun {
    /// It has read what it has on disk: hellos say which cluster this node belongs to. Before, they
    /// would look like those of a node without data, and others might found a cluster with it.
    has_read: OnceLock<()>,
    beginning: OnceLock<Beginning>,
}

/// Waits until the first shard has told it.
async fn told<T>(news: &OnceLock<T>) -> &T {
    loop {
        match news.get() {
            Some(told) => return told,
            None => pause(LOOK_PAUSE).await,
        }
    }
}

impl Office {
    /// Begins: with the groups of `slots` that are on disk, or as what the others say that this
    /// node is. Returns when the node belongs to a cluster; that may take for ever.
    pub(in crate::node) async fn begin(
        &self,
        slots: &[SlotId],
        begun: &Arc<Begun>,
        health: &NodeHealth,
    ) -> anyhow::Result<()> {
        let stored = self.groups().open_stored(slots).await?;
        let is_first = slots.contains(&CLUSTER_SLOT);
        if is_first {
            let _ = begun.has_read.set(());
        }
        told(&begun.has_read).await;
        self.open_links()?;
        if is_first {
            let beginning = if stored.contains(&CLUSTER_SLOT) {
                Beginning::Follow
            } else {
                self.find_out(health).await
            };
            // Told once per process.
            let _ = begun.beginning.set(beginning);
        }
        if let Beginning::Found { nodes, replica_count } = told(&begun.beginning).await {
            self.groups().bootstrap_placed(slots, nodes, *replica_count).await?;
        }
        if is_first {
            health.set_waiting(None);
        }
        Ok(())
    }

    /// For a node that has nothing on disk.
    async fn find_out(&self, health: &NodeHealth) -> Beginning {
        loop {
            if let Some((seed, addr)) = self.settings().seed.clone() {
                match self.enter_at(seed, addr).await {
                    Ok(()) => return Beginning::Follow,
                    Err(reason) => health.set_waiting(Some(reason)),
                }
                pause(ENTER_PAUSE).await;
                continue;
            }
            match decide(self.settings(), &self.met()) {
                Decision::Found(nodes) => return self.found(nodes),
                Decision::Enter(through) => {
                    for (node, addr) in through {
                        match self.enter_at(node, addr).await {
                            Ok(()) => return Beginning::Follow,
                            Err(reason) => health.set_waiting(Some(reason)),
                        }
                    }
                    pause(ENTER_PAUSE).await;
                }
                Decision::Wait(text) => {
                    let refused = self.refusals();
                    let text = if refused.is_empty() { text } else { format!("{text}; {refused}") };
                    health.set_waiting(Some(text));
                    pause(LOOK_PAUSE).await;
                }
            }
        }
    }

    fn found(&self, ids: Vec<NodeId>) -> Beginning {
        let settings = self.settings();
        let addr_of = |id: &NodeId| {
            let listed = settings.members.iter().find(|(node, _)| node == id);
            listed.map(|(_, addr)| addr.clone()).or_else(|| settings.addr.clone())
        };
        let replica_count = settings.replicas(ids.len());
        let nodes = ids
            .into_iter()
            .map(|id| {
                let api_url =
                    if id == settings.node { settings.api_url.clone() } else { String::new() };
                (id, Node { addr: addr_of(&id).unwrap_or_default(), api_url })
            })
            .collect();
        Beginning::Found { nodes, replica_count }
    }

    /// Asks a member to be taken in. The error is for the operator.
    async fn enter_at(&self, node: NodeId, addr: String) -> Result<(), String> {
        let settings = self.settings();
        let ask = Ask::Enter {
            node: settings.node.0,
            addr: settings.addr.clone().unwrap_or_default(),
            api_url: settings.api_url.clone(),
            fingerprint: settings.fingerprint,
            blank: true,
            hops: 0,
        };
        let asking = format!("asking node {} at {addr} to be taken in", node.0);
        match self.ask_at(addr, &ask, ENTER_MAX).await {
            Answer::Entered { cluster_id, secret, nodes } => {
                let nodes = nodes.into_iter().map(|(id, member)| (NodeId(id), member)).collect();
                let secret = Some(secret.into()).filter(|secret: &bytes::Bytes| !secret.is_empty());
                self.document().learn(Document { cluster_id, secret, login_key: None, nodes });
                // Before anybody says hello again.
                self.follow_document();
                tracing::info!("node {} has taken this node in", node.0);
                Ok(())
            }
            Answer::Failed { reason, .. } => Err(format!("{asking}: {reason}")),
            Answer::Done | Answer::Groups { .. } | Answer::Logs { .. } => {
                Err(format!("{asking}: it answered another question"))
            }
        }
    }
}
