//! What the first shard does for as long as the node runs: it keeps this node's entry true, and
//! where group 0 is led it keeps the cluster in the shape that its nodes call for.

use std::{collections::BTreeSet, time::Duration};

use futures::future::join_all;
use jindou_cluster::{Node, placement::Step};
use jindou_core::{effect::Place, id::NodeId, shard::CLUSTER_SLOT};

use super::{
    document::{Document, ID_KEY, Member, SECRET_KEY, Status, node_entry, removal},
    letters::{Answer, Ask},
    observed::Observed,
    office::{Office, pause},
    plan::plan,
};
use crate::node::process;

/// How often it looks while something changes, and while nothing does.
const BUSY_PAUSE: Duration = Duration::from_millis(200);
const IDLE_PAUSE: Duration = Duration::from_secs(1);
/// How long a change of members may take: a new replica may have to get all there is.
const CHANGE_MAX: Duration = Duration::from_secs(600);

impl Office {
    /// Runs for ever.
    pub(in crate::node) async fn preside(&self) {
        loop {
            let is_busy = if self.presides() {
                self.keep_shape().await
            } else {
                self.keep_own_entry().await;
                false
            };
            pause(if is_busy { BUSY_PAUSE } else { IDLE_PAUSE }).await;
        }
    }

    /// This node's addresses may have changed since the cluster heard of them.
    async fn keep_own_entry(&self) {
        let settings = self.settings();
        let Some(addr) = settings.addr.clone() else { return };
        let is_known = self.document().read(|document| {
            document.cluster_id == 0
                || document
                    .nodes
                    .get(&settings.node)
                    .is_none_or(|own| own.addr == addr && own.api_url == settings.api_url)
        });
        if is_known {
            return;
        }
        let ask = Ask::Enter {
            node: settings.node.0,
            addr,
            api_url: settings.api_url.clone(),
            fingerprint: settings.fingerprint,
            blank: false,
            hops: 0,
        };
        if let Answer::Failed { reason, .. } = self.answer(ask).await {
            tracing::debug!("this node's addresses are not told yet: {reason}");
        }
    }

    /// One look at the cluster, and the next steps. Whether there was something to do.
    async fn keep_shape(&self) -> bool {
        let document = self.document().read(Clone::clone);
        if document.cluster_id == 0 {
            return self.found_document().await;
        }
        self.keep_own_entry().await;
        let observed = self.look().await;
        let steps = plan(&document, &observed, |n| self.settings().replicas(n));
        if steps.is_empty() {
            return self.settle(&document, &observed).await;
        }
        let steps = steps.into_iter().map(|step| self.take(step, &observed));
        let taken = join_all(steps).await;
        taken.into_iter().any(|done| done)
    }

    /// The first leader of group 0 writes down what a cluster begins with.
    async fn found_document(&self) -> bool {
        let settings = self.settings();
        let Ok(dice) = process::seed() else { return false };
        let (id, secret) = dice.split_at(8);
        let now_s = self.now_ms() / 1_000;
        let own = (settings.node, settings.addr.clone().unwrap_or_default());
        let members =
            if settings.members.is_empty() { vec![own] } else { settings.members.clone() };
        let mut entries = vec![(SECRET_KEY.to_owned(), secret.to_vec())];
        for (node, addr) in members {
            let api_url =
                if node == settings.node { settings.api_url.clone() } else { String::new() };
            let member = Member { addr, api_url, status: Status::Joined, created_at: now_s };
            entries.push(node_entry(node, &member));
        }
        // Last: whoever knows it knows the others.
        entries.push((ID_KEY.to_owned(), id.to_vec()));
        if let Err(reason) = self.write(entries, true).await {
            tracing::debug!("the cluster's own state is not written yet: {reason}");
        }
        true
    }

    async fn take(&self, step: Step, observed: &Observed) -> bool {
        let (slot, ask) = match step {
            Step::SetVoters { slot, voters } => {
                let voters = voters.into_iter().map(|node| node.0).collect();
                (slot, Ask::SetVoters { slot: slot.0, voters })
            }
            Step::Transfer { slot, to } => (slot, Ask::Transfer { slot: slot.0, to: to.0 }),
        };
        let Some(leader) = observed.led.get(&slot).and_then(|group| group.leader) else {
            return false;
        };
        tracing::debug!(?ask, "a step of the cluster");
        match self.ask(NodeId(leader), Place::Slot(slot), ask, CHANGE_MAX).await {
            Answer::Failed { reason, .. } => {
                tracing::info!("{slot} is not changed yet: {reason}");
                false
            }
            Answer::Done | Answer::Entered { .. } | Answer::Groups { .. } | Answer::Logs { .. } => {
                true
            }
        }
    }

    /// Everything has its place: nodes that came are in, nodes that left are gone.
    async fn settle(&self, document: &Document, observed: &Observed) -> bool {
        if observed.led.len() <= usize::from(self.slot_count()) {
            // Not all groups were seen: who knows what they look like.
            return false;
        }
        let seated: BTreeSet<NodeId> = observed
            .led
            .values()
            .flat_map(|group| group.voters.iter().chain(&group.learners))
            .map(|id| NodeId(*id))
            .collect();
        self.keep_learners(document, observed).await;
        let mut entries = Vec::new();
        for (node, member) in &document.nodes {
            match member.status {
                Status::Joining if observed.nodes.contains_key(node) => {
                    tracing::info!("node {} has joined", node.0);
                    entries.push(node_entry(
                        *node,
                        &Member { status: Status::Joined, ..member.clone() },
                    ));
                }
                Status::Leaving if !seated.contains(node) => {
                    tracing::info!("node {} has left", node.0);
                    entries.push(removal(*node));
                }
                Status::Joining | Status::Joined | Status::Leaving => {}
            }
        }
        if entries.is_empty() {
            return false;
        }
        if let Err(reason) = self.write(entries, false).await {
            tracing::debug!("the nodes' status is not written yet: {reason}");
        }
        true
    }

    /// Every node reads the document: those that have no vote in group 0 copy it.
    async fn keep_learners(&self, document: &Document, observed: &Observed) {
        let Some(group) = observed.led.get(&CLUSTER_SLOT) else { return };
        let wanted: Vec<(NodeId, Node)> = document
            .nodes
            .iter()
            .filter(|(id, member)| {
                member.status != Status::Leaving && !group.voters.contains(&id.0)
            })
            .map(|(id, member)| {
                (*id, Node { addr: member.addr.clone(), api_url: member.api_url.clone() })
            })
            .collect();
        if group.learners.iter().copied().eq(wanted.iter().map(|(id, _)| id.0)) {
            return;
        }
        if let Err(error) = self.groups().set_learners(CLUSTER_SLOT, &wanted).await {
            tracing::info!("the learners of group 0 are not changed yet: {error}");
        }
    }
}
