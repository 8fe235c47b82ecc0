//! A shard's part in the affairs of the cluster: it asks shards of this and other nodes, and
//! answers them.

use std::{
    cell::Cell,
    collections::BTreeMap,
    net::TcpListener,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use futures::future::{Either, join_all, select};
use jindou_cluster::{AsyncRuntime, CLUSTER_SLOT, Node, Router, Runtime};
use jindou_core::{
    effect::Place,
    id::{NodeId, ShardId, SlotId},
    request::{ClusterWrite, Reply, Request, Target},
};
use jindou_net::{
    Handle,
    link::{Identity, LinkStatus, Links, Secret},
};

use super::{
    document::{Document, Member, SharedDocument, Status, node_entry},
    gate::Gate,
    letters::{Answer, Ask, GroupStatus, NodeChange, read_answer, to_bytes},
    observed::{Observed, Seen},
    post::{Letter, Post},
    settings::ClusterSettings,
};
use crate::node::executor::ShardGroups;

/// How long another node may take for an answer about its groups.
const LOOK_MAX: Duration = Duration::from_millis(1_000);
/// How often a node that stops looks whether it leads something again.
const HAND_OVER_PAUSE: Duration = Duration::from_millis(50);
/// How often a letter to the leader of group 0 is passed on.
const HOPS_MAX: u8 = 3;

/// A shard view; clones are handles to the same.
#[derive(Clone)]
pub(in crate::node) struct Office(Rc<OfficeParts>);

/// What an office works with.
pub(in crate::node) struct OfficeParts {
    pub(super) handle: Handle,
    pub(super) shard_count: u16,
    pub(super) slot_count: u16,
    pub(super) settings: Arc<ClusterSettings>,
    pub(super) document: Arc<SharedDocument>,
    pub(super) gate: Arc<Gate>,
    pub(super) identity: Arc<Identity>,
    pub(super) post: Post,
    pub(super) links: Links,
    /// Opened when the groups on disk are.
    pub(super) listener: Cell<Option<TcpListener>>,
    pub(super) groups: ShardGroups,
    pub(super) router: Router,
}

impl Office {
    pub(super) fn new(parts: OfficeParts) -> Self {
        Self(Rc::new(parts))
    }

    /// Lets other nodes in, and looks for those that the configuration names.
    pub(super) fn open_links(&self) -> anyhow::Result<()> {
        if let Some(listener) = self.0.listener.take() {
            self.0.links.listen(listener).context("other nodes can't be accepted")?;
        }
        let settings = &self.0.settings;
        for (node, addr) in &settings.members {
            self.know(*node, addr);
        }
        self.follow_document();
        Ok(())
    }

    fn know(&self, node: NodeId, addr: &str) {
        if node != self.0.settings.node {
            self.0.links.set_peer(node, Some(addr.to_owned()));
        }
    }

    /// The document has changed: whom to have links with, and what to say at a hello.
    pub(super) fn follow_document(&self) {
        let Document { cluster_id, secret, nodes, .. } = self.0.document.read(Clone::clone);
        if cluster_id == 0 {
            return;
        }
        self.0.identity.set_cluster_id(cluster_id);
        if self.0.settings.secret.is_none() {
            self.0.identity.set_secret(secret.as_deref().map(Secret::drawn));
        }
        for (node, member) in &nodes {
            self.know(*node, &member.addr);
        }
        for peer in self.0.links.status() {
            if !nodes.contains_key(&peer.node) {
                self.0.links.set_peer(peer.node, None);
            }
        }
    }

    /// Asks a shard in the words of the API.
    pub(super) async fn request(&self, to: Target, request: Request) -> Reply {
        self.0.handle.request(to, request).await
    }

    /// Whether this node belongs to a cluster.
    pub(super) fn is_member(&self) -> bool {
        self.0.document.read(|document| document.cluster_id != 0)
    }

    /// Who has said hello, with the number of its cluster.
    pub(super) fn met(&self) -> BTreeMap<NodeId, u64> {
        self.0.gate.met()
    }

    /// Why other nodes do not want this one, in a line; empty: they do.
    pub(super) fn refusals(&self) -> String {
        let refused = |peer: LinkStatus| {
            peer.refusal.map(|text| format!("node {} refuses this node: {text}", peer.node.0))
        };
        let texts: Vec<String> = self.0.links.status().into_iter().filter_map(refused).collect();
        texts.join("; ")
    }

    pub(super) fn settings(&self) -> &ClusterSettings {
        &self.0.settings
    }

    pub(super) fn document(&self) -> &SharedDocument {
        &self.0.document
    }

    pub(super) fn groups(&self) -> &ShardGroups {
        &self.0.groups
    }

    pub(super) fn links(&self) -> &Links {
        &self.0.links
    }

    pub(super) fn post(&self) -> &Post {
        &self.0.post
    }

    pub(super) fn router(&self) -> &Router {
        &self.0.router
    }

    pub(super) fn slot_count(&self) -> u16 {
        self.0.slot_count
    }

    pub(super) fn shard_count(&self) -> u16 {
        self.0.shard_count
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.0.handle.now().unix_ms
    }

    /// Whether this node leads group 0 and this shard holds it.
    pub(super) fn presides(&self) -> bool {
        self.0.groups.is_leading(CLUSTER_SLOT) && !self.0.groups.is_retiring()
    }

    /// Takes the letters of this node's other shards. Returns whether something is left.
    pub(in crate::node) fn take_letters(&self) -> bool {
        while let Some(letter) = self.0.post.take(self.0.handle.shard()) {
            // Whoever asked may have gone.
            match letter {
                Letter::Figures(answer) => drop(answer.send(self.shard_figures())),
                Letter::Ask(ask, answer) => {
                    let office = self.clone();
                    drop(Runtime::spawn(async move {
                        let _ = answer.send(office.answer(ask).await);
                    }));
                }
            }
        }
        false
    }

    /// Asks a shard of a node, this one included.
    pub(super) async fn ask(
        &self,
        to: NodeId,
        place: Place,
        ask: Ask,
        time_max: Duration,
    ) -> Answer {
        if to == self.0.settings.node {
            let shard = match place {
                Place::Shard(shard) => shard,
                Place::Slot(slot) => self.shard_of(slot),
            };
            if shard == self.0.handle.shard() {
                return Box::pin(self.answer(ask)).await;
            }
            return self.0.post.ask(shard, ask).await;
        }
        let asked = self.0.links.control(to, place, to_bytes(&ask));
        match select(asked, Box::pin(pause(time_max))).await {
            Either::Left((Ok(answer), _)) => read_answer(&answer),
            Either::Left((Err(error), _)) => Answer::later(error.to_string()),
            Either::Right(_) => Answer::later(format!("node {} does not answer", to.0)),
        }
    }

    fn shard_of(&self, slot: SlotId) -> ShardId {
        if slot == CLUSTER_SLOT {
            return ShardId(0);
        }
        ShardId::of(slot, self.0.shard_count)
    }

    /// Asks whoever listens at an address, before there are links.
    pub(super) async fn ask_at(&self, addr: String, ask: &Ask, time_max: Duration) -> Answer {
        let asked = self.0.links.control_at(addr.clone(), to_bytes(ask));
        match select(asked, Box::pin(pause(time_max))).await {
            Either::Left((Ok((_, answer)), _)) => read_answer(&answer),
            Either::Left((Err(error), _)) => Answer::later(error.to_string()),
            Either::Right(_) => Answer::later(format!("{addr} does not answer")),
        }
    }

    /// Answers another node. One that is no member may ask to be taken in, for itself, and nothing
    /// else.
    pub(super) async fn answer_node(&self, from: NodeId, ask: Ask) -> Answer {
        let is_member = self.0.document.read(|document| document.nodes.contains_key(&from));
        let is_own_wish = matches!(&ask, Ask::Enter { node, .. } if *node == from.0);
        if !is_member && !is_own_wish {
            return Answer::refuse(format!("node {} is no member", from.0));
        }
        if ask == Ask::HandOver {
            return Answer::refuse(
                "a node hands over when it stops, and not when another wants it",
            );
        }
        self.answer(ask).await
    }

    /// Answers a question that came to this shard.
    pub(super) async fn answer(&self, ask: Ask) -> Answer {
        match ask {
            Ask::Groups => Answer::Groups {
                groups: self.statuses(),
                shard_count: self.0.shard_count,
                uptime_s: self.0.handle.now().mono_ms / 1_000,
                version: env!("CARGO_PKG_VERSION").to_owned(),
            },
            Ask::HandOver => {
                self.hand_over().await;
                Answer::Done
            }
            Ask::SetVoters { slot, voters } => self.set_voters(SlotId(slot), voters).await,
            Ask::Transfer { slot, to } => {
                match self.0.groups.transfer(SlotId(slot), NodeId(to)).await {
                    Ok(()) => Answer::Done,
                    Err(error) => Answer::later(error.to_string()),
                }
            }
            Ask::Enter { .. } | Ask::Node { .. } if !self.presides() => self.pass_on(ask).await,
            Ask::Enter { fingerprint, .. } if fingerprint != self.0.settings.fingerprint => {
                Answer::refuse(
                    "cluster.slotCount, dedupe or id limits differ: they must be the same on \
                     every node",
                )
            }
            Ask::Enter { node, addr, api_url, blank, .. } => {
                self.enter(NodeId(node), addr, api_url, blank).await
            }
            Ask::Node { node, change, .. } => self.change_node(NodeId(node), change).await,
            Ask::Logs { slot, after, before, limit } => {
                self.read_logs(SlotId(slot), after, before, limit).await
            }
        }
    }

    /// This node stops: others are to lead, also what it is elected for from now on.
    async fn hand_over(&self) {
        let begin = Instant::now();
        let count = self.0.groups.hand_over().await;
        let (shard, took) = (self.0.handle.shard().0, begin.elapsed());
        tracing::info!(shard, "others lead {count} group(s) now, after {took:.0?}");
        let groups = self.0.groups.clone();
        drop(Runtime::spawn(async move {
            loop {
                pause(HAND_OVER_PAUSE).await;
                groups.hand_over().await;
            }
        }));
    }

    /// To the leader of group 0, wherever it is.
    async fn pass_on(&self, mut ask: Ask) -> Answer {
        if let Ask::Enter { hops, .. } | Ask::Node { hops, .. } = &mut ask {
            *hops += 1;
            if *hops > HOPS_MAX {
                return Answer::later("the leader of group 0 is changing");
            }
        }
        match self.0.router.leader(CLUSTER_SLOT) {
            Some(leader) => {
                Box::pin(self.ask(leader, Place::Slot(CLUSTER_SLOT), ask, LOOK_MAX * 5)).await
            }
            None => Answer::later("group 0 has no leader that this node knows"),
        }
    }

    pub(super) fn statuses(&self) -> Vec<GroupStatus> {
        let groups = &self.0.groups;
        let status = |slot| groups.status(slot).map(|status| told(slot, &status));
        groups.slots().into_iter().filter_map(status).collect()
    }

    async fn set_voters(&self, slot: SlotId, voters: Vec<u64>) -> Answer {
        let members: Result<Vec<(NodeId, Node)>, u64> = self.0.document.read(|document| {
            voters
                .iter()
                .map(|id| {
                    let member = document.nodes.get(&NodeId(*id)).ok_or(*id)?;
                    let (addr, api_url) = (member.addr.clone(), member.api_url.clone());
                    Ok((NodeId(*id), Node { addr, api_url }))
                })
                .collect()
        });
        match members {
            Err(id) => Answer::later(format!("node {id} is not known here")),
            Ok(members) => match self.0.groups.change_voters(slot, &members).await {
                Ok(()) => Answer::Done,
                Err(error) => Answer::later(error.to_string()),
            },
        }
    }

    /// A node asks to be taken in, or tells its addresses.
    async fn enter(&self, node: NodeId, addr: String, api_url: String, blank: bool) -> Answer {
        let (known, is_founded) = self
            .0
            .document
            .read(|document| (document.nodes.get(&node).cloned(), document.cluster_id != 0));
        if !is_founded {
            return Answer::later("the cluster is being founded");
        }
        let member = match known {
            None if !blank => return Answer::refuse(format!("node {} was removed", node.0)),
            None => {
                tracing::info!("node {} at {addr} joins", node.0);
                let created_at = self.0.handle.now().unix_ms / 1_000;
                Member { addr, api_url, status: Status::Joining, created_at }
            }
            Some(known) if blank && known.addr != addr => {
                return Answer::refuse(format!(
                    "node {} is registered at {}: if this is its replacement, say so first with \
                     `jindou cluster replace {} {addr}`; if it is another node, give it another \
                     cluster.nodeId",
                    node.0, known.addr, node.0
                ));
            }
            Some(known) if known.addr == addr && known.api_url == api_url => {
                return self.entered();
            }
            Some(known) => {
                tracing::info!("node {} is at {addr} now, its API at {api_url}", node.0);
                Member { addr, api_url, ..known }
            }
        };
        match self.write(vec![node_entry(node, &member)], false).await {
            Ok(()) => self.entered(),
            Err(reason) => Answer::later(reason),
        }
    }

    fn entered(&self) -> Answer {
        self.0.document.read(|document| Answer::Entered {
            cluster_id: document.cluster_id,
            secret: document.secret.as_deref().unwrap_or_default().to_vec(),
            nodes: document.nodes.iter().map(|(id, member)| (id.0, member.clone())).collect(),
        })
    }

    async fn change_node(&self, node: NodeId, change: NodeChange) -> Answer {
        let (known, others) = self.0.document.read(|document| {
            let others = document.holders().into_iter().filter(|id| *id != node).count();
            (document.nodes.get(&node).cloned(), others)
        });
        let Some(known) = known else {
            return Answer::refuse(format!("there is no node {}", node.0));
        };
        let member = match change {
            NodeChange::Leave if others == 0 => {
                return Answer::refuse("the last node can't leave the cluster");
            }
            NodeChange::Leave => Member { status: Status::Leaving, ..known },
            NodeChange::Stay if known.status == Status::Leaving => {
                Member { status: Status::Joining, ..known }
            }
            NodeChange::Stay => return Answer::Done,
            NodeChange::Replace { addr } => Member { addr, ..known },
        };
        match self.write(vec![node_entry(node, &member)], false).await {
            Ok(()) => Answer::Done,
            Err(reason) => Answer::later(reason),
        }
    }

    /// Writes keys of group 0.
    pub(super) async fn write(
        &self,
        entries: Vec<(String, Vec<u8>)>,
        if_absent: bool,
    ) -> Result<(), String> {
        let write = |(key, value)| ClusterWrite { key, value, if_absent };
        let entries = entries.into_iter().map(write).collect();
        let request = Request::WriteClusterKeys { entries };
        let reply = self.0.handle.request(Target::Slot(CLUSTER_SLOT), request).await;
        if let Reply::Failed(failure) = reply {
            return Err(failure.to_string());
        }
        let is_done = matches!(reply, Reply::Done);
        is_done.then_some(()).ok_or_else(|| "the shard answered another question".to_owned())
    }

    /// What the groups look like, by the word of every node that answers.
    pub(super) async fn look(&self) -> Observed {
        let nodes: Vec<NodeId> =
            self.0.document.read(|document| document.nodes.keys().copied().collect());
        let looks = nodes.into_iter().map(|node| self.look_at(node));
        let mut observed = Observed::default();
        for (node, seen) in join_all(looks).await.into_iter().flatten() {
            observed.add(node, seen);
        }
        observed
    }

    async fn look_at(&self, node: NodeId) -> Option<(NodeId, Seen)> {
        let ask = |shard| self.ask(node, Place::Shard(ShardId(shard)), Ask::Groups, LOOK_MAX);
        let Answer::Groups { mut groups, shard_count, uptime_s, version } = ask(0).await else {
            return None;
        };
        for answer in join_all((1..shard_count).map(ask)).await {
            let Answer::Groups { groups: more, .. } = answer else { return None };
            groups.extend(more);
        }
        Some((node, Seen { groups, uptime_s, version }))
    }
}

/// A group as other nodes are told of it.
fn told(slot: SlotId, status: &jindou_cluster::GroupStatus) -> GroupStatus {
    let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect();
    GroupStatus {
        slot: slot.0,
        leader: status.leader.map(|leader| leader.0),
        leads: status.leading,
        term: status.term,
        voters: ids(&status.voters),
        learners: ids(&status.learners),
        last: status.last_log.unwrap_or(0),
        applied: status.applied.unwrap_or(0),
        committed: status.committed.unwrap_or(0),
        changing: status.joint,
        muted: !status.may_vote,
        retiring: status.retiring,
    }
}

/// Lets time pass on this shard.
pub(super) async fn pause(time: Duration) {
    <Runtime as AsyncRuntime>::sleep(time).await;
}
