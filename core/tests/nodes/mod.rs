//! Several nodes without sockets, disks or threads: shards, a log per slot that every replica
//! applies, links that a test can cut, leaders that a test moves. What crosses a link does so as
//! bytes. Time moves when a test says so.

#![allow(dead_code, reason = "each test file uses a part")]

mod clients;
#[path = "../world/store.rs"]
mod store;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use jindou_core::{
    channel_info::ChannelInfo,
    effect::{Committed, Effect, Event, Inbox, Now, Outbox, PeerState, Place, Port},
    entry::DedupeWindow,
    id::{ChannelId, ConnId, LogId, Name, NodeId, ShardId, SlotId},
    link,
    notice::Telling,
    request::{Reply, Request, RequestToken, Target},
    settings::Settings,
    shard::{CLUSTER_SLOT, Shard},
};
use serde_json::{Value, json};
use store::Store;

/// From a node's shard to a node.
type Link = (usize, u16, usize);
/// (id, reason, seq) of the answer to a send.
pub(crate) type Ack = (String, u64, u64);
/// (channel, seq) of a RECV.
pub(crate) type Recv = (String, u64);

/// How long a node is down before it counts as dead.
const DEAD_MS: u64 = 1_500;

/// A client of one of the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Client {
    pub(crate) node: usize,
    pub(crate) conn: ConnId,
}

struct Node {
    settings: Arc<Settings>,
    shards: Vec<Shard>,
    inboxes: Vec<Inbox>,
    store: Store,
    /// By slot: the index of the next entry to apply.
    next: BTreeMap<SlotId, usize>,
    alive: bool,
    incarnation: u64,
}

/// The nodes and what is between them.
pub(crate) struct Nodes {
    nodes: Vec<Node>,
    /// The first so many nodes have a replica of each slot.
    replicas: usize,
    pub(crate) slot_count: u16,
    logs: BTreeMap<SlotId, Vec<Bytes>>,
    pub(crate) leaders: BTreeMap<SlotId, usize>,
    terms: BTreeMap<SlotId, u64>,
    /// By (from, its shard, to): what is on its way.
    links: BTreeMap<Link, VecDeque<(Place, Vec<u8>)>>,
    /// Cut links and since when.
    cut: BTreeMap<(usize, usize), u64>,
    dead: BTreeSet<(usize, usize)>,
    /// Who still takes itself for the leader of a slot.
    stale: BTreeSet<(usize, SlotId)>,
    pub(crate) hold_commits: bool,
    held: VecDeque<(usize, SlotId, u64, Bytes)>,
    outputs: BTreeMap<Client, Vec<u8>>,
    heard: BTreeMap<Client, Vec<Value>>,
    pub(crate) closed: BTreeSet<Client>,
    replies: BTreeMap<RequestToken, Reply>,
    pub(crate) told: Vec<(usize, u16, Telling)>,
    pub(crate) known_leaders: BTreeMap<(usize, SlotId), Option<NodeId>>,
    pub(crate) keys: BTreeMap<(usize, String), Bytes>,
    next_conn: u32,
    next_token: u64,
    now: Now,
}

fn node_id(node: usize) -> NodeId {
    NodeId(1001 + u64::try_from(node).unwrap())
}

impl Nodes {
    /// `shards` by node; the first `replicas` nodes have a replica of each slot.
    pub(crate) fn new(shards: &[u16], replicas: usize, slot_count: u16) -> Self {
        let nodes = (0..shards.len()).map(|n| Node {
            settings: Arc::new(Settings {
                node: node_id(n),
                shard_count: shards[n],
                slot_count,
                ..Settings::default()
            }),
            shards: Vec::new(),
            inboxes: Vec::new(),
            store: Store::default(),
            next: BTreeMap::new(),
            alive: false,
            incarnation: 0,
        });
        let mut this = Self {
            nodes: nodes.collect(),
            replicas,
            slot_count,
            logs: BTreeMap::new(),
            leaders: BTreeMap::new(),
            terms: BTreeMap::new(),
            links: BTreeMap::new(),
            cut: BTreeMap::new(),
            dead: BTreeSet::new(),
            stale: BTreeSet::new(),
            hold_commits: false,
            held: VecDeque::new(),
            outputs: BTreeMap::new(),
            heard: BTreeMap::new(),
            closed: BTreeSet::new(),
            replies: BTreeMap::new(),
            told: Vec::new(),
            known_leaders: BTreeMap::new(),
            keys: BTreeMap::new(),
            next_conn: 0,
            next_token: 0,
            now: Now { unix_ms: 1_700_000_000_000, mono_ms: 1_000 },
        };
        for node in 0..shards.len() {
            this.start(node);
        }
        for (n, slot) in this.slots().into_iter().enumerate() {
            this.lead(slot, n % replicas);
        }
        this.run();
        this
    }

    fn slots(&self) -> Vec<SlotId> {
        (0..self.slot_count).map(SlotId).chain([CLUSTER_SLOT]).collect()
    }

    /// Another setting for one node, which starts anew with it.
    pub(crate) fn remember(&mut self, node: usize, window: DedupeWindow) {
        self.kill(node);
        self.lead_elsewhere(node);
        Arc::make_mut(&mut self.nodes[node].settings).dedupe_window = window;
        self.start(node);
        self.run();
    }

    pub(crate) fn slot_of(&self, id: &str) -> SlotId {
        SlotId::of(id, self.slot_count)
    }

    fn event(&mut self, node: usize, shard: u16, event: Event) {
        if let Some(inbox) = self.nodes[node].inboxes.get_mut(usize::from(shard)) {
            inbox.events.push(event);
        }
    }

    fn slot_event(&mut self, node: usize, slot: SlotId, event: Event) {
        let shard = ShardId::of(slot, self.nodes[node].settings.shard_count);
        self.event(node, shard.0, event);
    }

    // ---- nodes and links ----

    /// Starts a node on what it has stored.
    pub(crate) fn start(&mut self, node: usize) {
        let of = &mut self.nodes[node];
        let count = of.settings.shard_count;
        of.incarnation += 1;
        of.alive = true;
        let incarnation = of.incarnation;
        of.shards = (0..count)
            .map(|n| {
                let mut seed = [u8::try_from(node).unwrap() + 1; 32];
                seed[0] = n.to_le_bytes()[0];
                seed[1] = incarnation.to_le_bytes()[0];
                Shard::new(ShardId(n), of.settings.clone(), seed)
            })
            .collect();
        of.inboxes = (0..count).map(|_| Inbox::default()).collect();
        of.next.clear();
        if node < self.replicas {
            for slot in self.slots() {
                let rows = Box::new(self.nodes[node].store.open(slot));
                let next = rows.applied.map_or(0, |id| usize::try_from(id.index).unwrap() + 1);
                self.nodes[node].next.insert(slot, next);
                self.slot_event(node, slot, Event::SlotOpened { slot, rows });
                if let Some(leader) = self.leaders.get(&slot).copied() {
                    let (leader, term) = (Some(node_id(leader)), self.terms[&slot]);
                    self.slot_event(node, slot, Event::Leader { slot, leader, term });
                }
            }
        }
        for other in 0..self.nodes.len() {
            if other != node && self.nodes[other].alive {
                self.tell_up(node, other);
            }
        }
        self.catch_up();
    }

    /// The process dies: its sessions, its memory and what was on its way.
    pub(crate) fn kill(&mut self, node: usize) {
        self.nodes[node].alive = false;
        self.stale.retain(|(of, _)| *of != node);
        self.held.retain(|h| h.0 != node);
        self.nodes[node].shards.clear();
        self.nodes[node].inboxes.clear();
        for other in 0..self.nodes.len() {
            if other != node {
                self.lose_link(node, other);
            }
        }
        let clients: Vec<Client> = self.heard.keys().copied().collect();
        self.closed.extend(clients.into_iter().filter(|client| client.node == node));
    }

    fn pair(a: usize, b: usize) -> (usize, usize) {
        (a.min(b), a.max(b))
    }

    pub(crate) fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cut.contains_key(&Self::pair(a, b))
    }

    fn can_talk(&self, a: usize, b: usize) -> bool {
        a == b || (self.nodes[a].alive && self.nodes[b].alive && !self.is_cut(a, b))
    }

    fn tell_up(&mut self, a: usize, b: usize) {
        for (me, other) in [(a, b), (b, a)] {
            let (incarnation, shard_count) =
                (self.nodes[other].incarnation, self.nodes[other].settings.shard_count);
            let state = PeerState::Up { incarnation, shard_count };
            for shard in 0..self.nodes[me].settings.shard_count {
                self.event(me, shard, Event::Peer { node: node_id(other), state });
            }
        }
        self.cut.remove(&Self::pair(a, b));
        self.dead.remove(&Self::pair(a, b));
    }

    fn tell(&mut self, a: usize, b: usize, state: PeerState) {
        for (me, other) in [(a, b), (b, a)] {
            for shard in 0..self.nodes[me].settings.shard_count {
                self.event(me, shard, Event::Peer { node: node_id(other), state });
            }
        }
    }

    /// One node takes another for dead, which knows nothing of it.
    pub(crate) fn bury(&mut self, me: usize, other: usize) {
        for shard in 0..self.nodes[me].settings.shard_count {
            let state = PeerState::Dead;
            self.event(me, shard, Event::Peer { node: node_id(other), state });
        }
    }

    fn lose_link(&mut self, a: usize, b: usize) {
        self.links.retain(|(from, _, to), _| Self::pair(*from, *to) != Self::pair(a, b));
        self.cut.insert(Self::pair(a, b), self.now.mono_ms);
        self.tell(a, b, PeerState::Down);
    }

    /// What is on its way between two nodes is lost, and nothing goes until it is healed.
    pub(crate) fn cut(&mut self, a: usize, b: usize) {
        if self.can_talk(a, b) && a != b {
            self.lose_link(a, b);
        }
    }

    /// The links of two nodes come up.
    pub(crate) fn heal(&mut self, a: usize, b: usize) {
        if self.is_cut(a, b) && self.nodes[a].alive && self.nodes[b].alive {
            self.tell_up(a, b);
            self.catch_up();
        }
    }

    pub(crate) fn heal_all(&mut self) {
        for (a, b) in self.cut.keys().copied().collect::<Vec<_>>() {
            self.heal(a, b);
        }
    }

    // ---- groups ----

    /// Makes a node the leader of a slot. The old one is told, if it can be.
    pub(crate) fn lead(&mut self, slot: SlotId, node: usize) {
        self.elect(slot, node);
        self.serve(slot);
    }

    /// All hear of a slot's next leader, which does not lead before [`Nodes::serve`].
    pub(crate) fn elect(&mut self, slot: SlotId, node: usize) {
        let old = self.leaders.insert(slot, node);
        let term = *self.terms.entry(slot).and_modify(|term| *term += 1).or_insert(1);
        if let Some(old) = old.filter(|old| self.nodes[*old].alive) {
            if old == node || self.can_talk(node, old) {
                self.resign(old, slot);
            } else {
                // It does not hear of it, and only knows that its lease is over.
                self.stale.insert((old, slot));
                self.slot_event(old, slot, Event::Leases(vec![(slot, 0)]));
            }
        }
        if self.stale.remove(&(node, slot)) {
            self.resign(node, slot);
        }
        self.apply_to(node, slot);
        for replica in 0..self.replicas {
            if self.can_talk(node, replica) {
                let leader = Some(node_id(node));
                self.slot_event(replica, slot, Event::Leader { slot, leader, term });
            }
        }
    }

    /// The leader of a slot leads.
    pub(crate) fn serve(&mut self, slot: SlotId) {
        let node = self.leaders[&slot];
        self.slot_event(node, slot, Event::Leading { slot, leading: true });
        self.slot_event(node, slot, Event::Leases(vec![(slot, u64::MAX)]));
        self.catch_up();
    }

    fn resign(&mut self, node: usize, slot: SlotId) {
        self.slot_event(node, slot, Event::Leading { slot, leading: false });
        let (failed, rest): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.held).into_iter().partition(|h| h.0 == node && h.1 == slot);
        self.held = rest;
        for (_, _, proposal, _) in failed {
            self.slot_event(node, slot, Event::ProposeFailed { slot, proposal });
        }
    }

    /// Until when the leader of a slot knows that it is the only one.
    pub(crate) fn lease(&mut self, slot: SlotId, until_ms: u64) {
        let leader = self.leaders[&slot];
        self.slot_event(leader, slot, Event::Leases(vec![(slot, until_ms)]));
    }

    /// A node is told to stop.
    pub(crate) fn drain(&mut self, node: usize) {
        for shard in 0..self.nodes[node].settings.shard_count {
            self.event(node, shard, Event::Drain);
        }
    }

    pub(crate) fn is_idle(&self, node: usize) -> bool {
        self.nodes[node].shards.iter().all(Shard::is_idle)
    }

    /// All slots of a node go to others that are alive.
    pub(crate) fn lead_elsewhere(&mut self, node: usize) {
        let slots: Vec<SlotId> =
            self.leaders.iter().filter(|(_, n)| **n == node).map(|(slot, _)| *slot).collect();
        let others: Vec<usize> =
            (0..self.replicas).filter(|n| *n != node && self.nodes[*n].alive).collect();
        for (slot, other) in slots.into_iter().zip(others.into_iter().cycle()) {
            self.lead(slot, other);
        }
    }

    fn apply_to(&mut self, node: usize, slot: SlotId) {
        let log = self.logs.get(&slot).cloned().unwrap_or_default();
        let from = self.nodes[node].next.get(&slot).copied().unwrap_or(0);
        for (index, entry) in log.into_iter().enumerate().skip(from) {
            let log_id = LogId { term: 1, node: 1, index: u64::try_from(index).unwrap() };
            let body = Committed::Entry(entry);
            self.slot_event(node, slot, Event::Committed { slot, log_id, body });
            self.nodes[node].next.insert(slot, index + 1);
        }
    }

    /// Replicas that their leader reaches, and that do not know it, hear of it; and of all entries.
    fn catch_up(&mut self) {
        for (node, slot) in self.stale.clone() {
            let leader = self.leaders[&slot];
            if self.nodes[leader].alive && self.can_talk(leader, node) {
                self.stale.remove(&(node, slot));
                self.resign(node, slot);
            }
        }
        for (slot, leader) in self.leaders.clone() {
            if !self.nodes[leader].alive {
                continue;
            }
            for replica in 0..self.replicas {
                if self.nodes[replica].alive && self.can_talk(leader, replica) {
                    let (node, term) = (Some(node_id(leader)), self.terms[&slot]);
                    let event = Event::Leader { slot, leader: node, term };
                    self.slot_event(replica, slot, event);
                    self.apply_to(replica, slot);
                }
            }
        }
    }

    /// How many entries a slot has.
    pub(crate) fn log_len(&self, slot: SlotId) -> usize {
        self.logs.get(&slot).map_or(0, Vec::len)
    }

    fn append(&mut self, slot: SlotId, entry: Bytes) {
        self.logs.entry(slot).or_default().push(entry);
        let leader = self.leaders[&slot];
        for replica in 0..self.replicas {
            if self.can_talk(leader, replica) {
                self.apply_to(replica, slot);
            }
        }
    }

    pub(crate) fn release_commits(&mut self) {
        self.hold_commits = false;
        for (node, slot, proposal, entry) in std::mem::take(&mut self.held) {
            if self.leaders[&slot] == node {
                self.append(slot, entry);
            } else if self.stale.contains(&(node, slot)) {
                self.held.push_back((node, slot, proposal, entry));
            } else {
                self.slot_event(node, slot, Event::ProposeFailed { slot, proposal });
            }
        }
    }

    // ---- time ----

    /// One turn of every shard, then `deliver` messages of each link.
    pub(crate) fn turn(&mut self, deliver: usize) -> bool {
        let mut busy = false;
        for node in 0..self.nodes.len() {
            for shard in 0..self.nodes[node].shards.len() {
                let of = &mut self.nodes[node];
                let mut inbox = std::mem::take(&mut of.inboxes[shard]);
                busy |= !inbox.is_empty();
                let mut outbox = Outbox::default();
                busy |= of.shards[shard].step(self.now, &mut inbox, &mut outbox).more;
                self.perform(node, shard, outbox);
            }
        }
        for link in self.links.keys().copied().collect::<Vec<_>>() {
            let (from, _, to) = link;
            for _ in 0..deliver {
                let Some((place, bytes)) = self.links.get_mut(&link).and_then(VecDeque::pop_front)
                else {
                    break;
                };
                busy = true;
                let shard = match place {
                    Place::Slot(slot) => ShardId::of(slot, self.nodes[to].settings.shard_count),
                    Place::Shard(shard) => shard,
                };
                for envelope in link::decode(&bytes.into()).expect("our own bytes") {
                    self.event(to, shard.0, Event::Remote { from: node_id(from), envelope });
                }
            }
        }
        busy
    }

    /// Turns until nothing is left to do.
    pub(crate) fn run(&mut self) {
        let mut turns = 0;
        while self.turn(usize::MAX) {
            turns += 1;
            assert!(turns < 10_000, "it goes on for ever");
        }
    }

    pub(crate) fn advance(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(50) {
            self.tick(50);
            self.run();
        }
    }

    /// Moves time on, and does nothing else.
    pub(crate) fn tick(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.unix_ms += i64::try_from(ms).unwrap();
        let now = self.now.mono_ms;
        let late = self.cut.iter().filter(|(_, since)| **since + DEAD_MS <= now);
        let late: Vec<_> = late.map(|(pair, _)| *pair).collect();
        for (a, b) in late {
            if self.dead.insert((a, b)) {
                self.tell(a, b, PeerState::Dead);
            }
        }
    }

    fn perform(&mut self, node: usize, shard: usize, outbox: Outbox) {
        let Outbox { effects, bytes } = outbox;
        let place = u16::try_from(shard).unwrap();
        for effect in effects {
            match effect {
                Effect::Write { conn, range } => {
                    let client = Client { node, conn };
                    assert!(!self.closed.contains(&client), "a write after the close");
                    self.outputs.entry(client).or_default().extend_from_slice(&bytes[range]);
                }
                Effect::Close { conn } => {
                    self.closed.insert(Client { node, conn });
                }
                Effect::Send { to, envelope } => self.event(node, to.0, Event::Envelope(envelope)),
                Effect::Forward { to, place: at, envelope } => {
                    let to = usize::try_from(to.0 - 1001).unwrap();
                    assert_ne!(to, node, "to itself");
                    if self.can_talk(node, to) {
                        let mut bytes = Vec::new();
                        link::push(&mut bytes, &envelope).expect("an envelope");
                        self.links.entry((node, place, to)).or_default().push_back((at, bytes));
                    }
                }
                Effect::Propose { slot, proposal, entry } => {
                    if self.hold_commits || self.stale.contains(&(node, slot)) {
                        self.held.push_back((node, slot, proposal, entry));
                    } else if self.leaders[&slot] == node {
                        self.append(slot, entry);
                    } else {
                        self.slot_event(node, slot, Event::ProposeFailed { slot, proposal });
                    }
                }
                Effect::Persist(persist) => {
                    let size = Outbox::persist_size(&persist);
                    self.nodes[node].store.persist(persist);
                    self.event(node, place, Event::Persisted { size });
                }
                Effect::Read { id, slot, read } => {
                    let rows = self.nodes[node].store.read(slot, &read);
                    self.event(node, place, Event::Read { id, rows });
                }
                Effect::Reply { token, reply } => {
                    assert!(self.replies.insert(token, reply).is_none(), "answered twice");
                }
                Effect::LeaderKnown { slot, leader } => {
                    self.known_leaders.insert((node, slot), leader);
                }
                Effect::ClusterKey { key, value } => {
                    self.keys.insert((node, key), value);
                }
                Effect::Applied { .. } => {}
                Effect::Warn(text) => panic!("{text}"),
                Effect::Tell(telling) => self.told.push((node, place, telling)),
                Effect::AskSystems => panic!("there is no datasource"),
            }
        }
    }
}
