//! A node without sockets, disks or threads, driven by a fuzzer: shards, a log per slot, a store.
//! It keeps the driver's side of the seam and checks the shards'.

pub mod input;
pub mod operations;
#[path = "../../../core/tests/world/store.rs"]
mod store;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use jindou_core::{
    effect::{Committed, Effect, Event, Inbox, Now, Outbox, Port, ReadId},
    id::{ConnId, LogId, ShardId, SlotId},
    request::{Reply, Request, RequestToken, Target, Vars},
    row::{Read, Rows},
    settings::Settings,
    shard::Shard,
};
use store::Store;

/// Turns after which the shards must have come to rest.
const TURNS_MAX: usize = 20_000;

/// One end of a connection, as the driver sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Line {
    Open,
    /// The peer left; the shard has not been told yet.
    Leaving,
    Gone,
}

/// Which slots lead at the end.
#[derive(Clone, Copy)]
pub enum Leads {
    All,
    Some,
    None,
}

/// The node.
pub struct Node {
    settings: Arc<Settings>,
    shards: Vec<Shard>,
    inboxes: Vec<Inbox>,
    store: Store,
    logs: BTreeMap<SlotId, Vec<Committed>>,
    leading: BTreeSet<SlotId>,
    hold_commits: bool,
    held_entries: VecDeque<(SlotId, u64, bytes::Bytes)>,
    hold_reads: bool,
    held_reads: VecDeque<(usize, ReadId, Rows)>,
    /// Reads that the store will not answer.
    failing_reads: u8,
    lines: BTreeMap<ConnId, Line>,
    /// The connection at each place, with how it speaks.
    clients: [Option<Client>; 3],
    next_generation: u32,
    /// Of connections that say only whole JSON objects: the sends that must be answered.
    sends: BTreeMap<ConnId, Vec<u64>>,
    outputs: BTreeMap<ConnId, Vec<u8>>,
    next_send: u64,
    open_tokens: BTreeSet<RequestToken>,
    next_token: u64,
    last_vars: Vars,
    now: Now,
}

#[derive(Clone, Copy, Debug)]
struct Client {
    conn: ConnId,
    port: Port,
    upgraded: bool,
    /// Text or frames; `None`: nothing was said.
    json: Option<bool>,
}

impl Node {
    pub fn new(settings: Settings) -> Self {
        Self::on_store(settings, Store::default(), BTreeMap::new(), true, 7)
    }

    /// A start on what a store and logs hold: entries beyond the applied position come again.
    fn on_store(
        settings: Settings,
        store: Store,
        logs: BTreeMap<SlotId, Vec<Committed>>,
        leading: bool,
        seed: u8,
    ) -> Self {
        let settings = Arc::new(settings);
        let count = settings.shard_count;
        let shard = |n: u16| {
            let [low, _] = n.to_le_bytes();
            let mut bytes = [seed; 32];
            bytes[0] = low;
            Shard::new(ShardId(n), settings.clone(), bytes)
        };
        let mut node = Self {
            shards: (0..count).map(shard).collect(),
            inboxes: (0..count).map(|_| Inbox::default()).collect(),
            store,
            logs,
            leading: BTreeSet::new(),
            hold_commits: false,
            held_entries: VecDeque::new(),
            hold_reads: false,
            held_reads: VecDeque::new(),
            failing_reads: 0,
            lines: BTreeMap::new(),
            clients: [None; 3],
            next_generation: 1,
            sends: BTreeMap::new(),
            outputs: BTreeMap::new(),
            next_send: 0,
            open_tokens: BTreeSet::new(),
            next_token: 0,
            last_vars: Vars::default(),
            now: Now { unix_ms: 1_700_000_000_000, mono_ms: 1_000 },
            settings,
        };
        for slot in (0..node.settings.slot_count).map(SlotId) {
            node.open_slot(slot);
            if leading {
                node.lead(slot, true);
            }
        }
        node.run();
        node
    }

    fn shard_of(&self, slot: SlotId) -> usize {
        ShardId::of(slot, self.settings.shard_count).0.into()
    }

    fn event(&mut self, shard: usize, event: Event) {
        self.inboxes[shard].events.push(event);
    }

    fn open_slot(&mut self, slot: SlotId) {
        let rows = Box::new(self.store.open(slot));
        let next = rows.applied.map_or(0, |id| id.index + 1);
        self.event(self.shard_of(slot), Event::SlotOpened { slot, rows });
        let log = self.logs.get(&slot).cloned().unwrap_or_default();
        for (index, body) in (0..).zip(log) {
            if index >= next {
                self.commit(slot, index, body);
            }
        }
    }

    fn lead(&mut self, slot: SlotId, leading: bool) {
        if leading {
            self.leading.insert(slot);
        } else {
            self.leading.remove(&slot);
        }
        self.event(self.shard_of(slot), Event::Leading { slot, leading });
    }

    fn commit(&mut self, slot: SlotId, index: u64, body: Committed) {
        let log_id = LogId { term: 1, node: 1, index };
        self.event(self.shard_of(slot), Event::Committed { slot, log_id, body });
    }

    fn append(&mut self, slot: SlotId, body: Committed) {
        let log = self.logs.entry(slot).or_default();
        log.push(body.clone());
        let index = u64::try_from(log.len() - 1).expect("small");
        self.commit(slot, index, body);
    }

    fn fail(&mut self, slot: SlotId, proposal: u64) {
        self.event(self.shard_of(slot), Event::ProposeFailed { slot, proposal });
    }

    /// Steps every shard until nothing is left to do.
    pub fn run(&mut self) {
        for _ in 0..TURNS_MAX {
            let mut more = false;
            for shard in 0..self.shards.len() {
                let mut outbox = Outbox::default();
                let mut inbox = std::mem::take(&mut self.inboxes[shard]);
                let left: Vec<ConnId> = inbox.events.iter().filter_map(closed).collect();
                more |= self.shards[shard].step(self.now, &mut inbox, &mut outbox).more;
                self.perform(shard, outbox);
                for conn in left {
                    self.lines.insert(conn, Line::Gone);
                }
            }
            if !more && self.inboxes.iter().all(Inbox::is_empty) {
                return;
            }
        }
        panic!("the shards never come to rest");
    }

    fn perform(&mut self, shard: usize, outbox: Outbox) {
        let Outbox { effects, bytes } = outbox;
        for effect in effects {
            match effect {
                Effect::Write { conn, range } => {
                    let line = self.lines.get(&conn).expect("a write to nobody");
                    assert_ne!(*line, Line::Gone, "a write to a closed connection");
                    assert_eq!(usize::from(conn.shard().0), shard, "another shard's connection");
                    let bytes = bytes.get(range).expect("within the bytes");
                    assert!(!bytes.is_empty());
                    if let Some(output) = self.outputs.get_mut(&conn) {
                        output.extend_from_slice(bytes);
                    }
                }
                Effect::Close { conn } => {
                    let line = self.lines.insert(conn, Line::Gone).expect("closed nobody");
                    assert_ne!(line, Line::Gone, "closed twice");
                }
                Effect::Send { to, envelope } => {
                    assert_ne!(usize::from(to.0), shard, "an envelope for oneself");
                    self.event(to.0.into(), Event::Envelope(envelope));
                }
                Effect::Propose { slot, proposal, entry } => {
                    assert!(self.leading.contains(&slot), "a follower proposes");
                    self.held_entries.push_back((slot, proposal, entry));
                }
                Effect::Persist(persist) => {
                    let size = Outbox::persist_size(&persist);
                    self.store.persist(persist);
                    self.event(shard, Event::Persisted { size });
                }
                Effect::Applied { .. }
                | Effect::Forward { .. }
                | Effect::LeaderKnown { .. }
                | Effect::ClusterKey { .. }
                | Effect::Warn(_) => {}
                Effect::Read { id, read, .. } => {
                    let rows = self.answer(&read);
                    self.held_reads.push_back((shard, id, rows));
                }
                Effect::Reply { token, reply } => {
                    assert!(self.open_tokens.remove(&token), "answered twice");
                    if let Reply::Vars(vars) = reply {
                        self.last_vars = *vars;
                    }
                }
            }
        }
        if !self.hold_commits {
            self.release_commits();
        }
        if !self.hold_reads {
            self.release_reads(None);
        }
    }

    fn answer(&mut self, read: &Read) -> Rows {
        if let Some(left) = self.failing_reads.checked_sub(1) {
            self.failing_reads = left;
            return Rows::Failed("no".to_owned());
        }
        match read {
            Read::Messages { first, last, .. } if first > last => Rows::Messages(Vec::new()),
            read => self.store.read(read),
        }
    }

    fn release_commits(&mut self) {
        while let Some((slot, _, entry)) = self.held_entries.pop_front() {
            self.append(slot, Committed::Entry(entry));
        }
    }

    fn release_reads(&mut self, of: Option<usize>) {
        for (shard, id, rows) in std::mem::take(&mut self.held_reads) {
            if of.is_none_or(|of| of == shard) {
                self.event(shard, Event::Read { id, rows });
            } else {
                self.held_reads.push_back((shard, id, rows));
            }
        }
    }

    /// What was offered to the group is lost.
    fn lose_proposals(&mut self, of: Option<SlotId>) {
        for (slot, proposal, entry) in std::mem::take(&mut self.held_entries) {
            if of.is_none_or(|of| of == slot) {
                self.fail(slot, proposal);
            } else {
                self.held_entries.push_back((slot, proposal, entry));
            }
        }
    }

    /// A snapshot of the slot is installed: it holds what the store holds.
    fn install(&mut self, slot: SlotId) {
        self.release_reads(Some(self.shard_of(slot)));
        self.lead(slot, false);
        self.lose_proposals(Some(slot));
        self.run();
        self.open_slot(slot);
        self.run();
        self.lead(slot, true);
    }

    /// Kills the node and starts it on what it has stored.
    fn restart(&mut self) {
        let settings = (*self.settings).clone();
        let (store, logs) = (self.store.clone(), std::mem::take(&mut self.logs));
        let seed = u8::try_from(self.next_generation % 199).unwrap_or(0) + 8;
        let mut next = Self::on_store(settings, store, logs, true, seed);
        next.next_generation = self.next_generation + 1;
        next.next_token = self.next_token;
        *self = next;
    }

    fn open(&mut self, place: usize, port: Port) {
        self.close(place);
        let shard = ShardId(u16::try_from(place).unwrap_or(0) % self.settings.shard_count);
        self.next_generation += 1;
        let conn = ConnId::new(shard, u32::try_from(place).unwrap_or(0), self.next_generation);
        let peer = "127.0.0.1:9".parse().expect("an address");
        self.lines.insert(conn, Line::Open);
        self.clients[place] = Some(Client { conn, port, upgraded: false, json: None });
        if !self.settings.json_off {
            self.sends.insert(conn, Vec::new());
            self.outputs.insert(conn, Vec::new());
        }
        self.event(shard.0.into(), Event::Opened { conn, port, peer });
    }

    /// The peer leaves.
    fn close(&mut self, place: usize) {
        if let Some(client) = self.clients[place].take()
            && self.lines.get(&client.conn) == Some(&Line::Open)
        {
            self.lines.insert(client.conn, Line::Leaving);
            self.event(client.conn.shard().0.into(), Event::Closed { conn: client.conn });
        }
    }

    fn say(&mut self, client: Client, bytes: &[u8]) {
        self.inboxes[usize::from(client.conn.shard().0)].push_bytes(client.conn, bytes);
    }

    fn ask(&mut self, to: Target, request: Request) {
        self.next_token += 1;
        let token = RequestToken(self.next_token);
        let shard = self.next_generation as usize % self.shards.len();
        self.open_tokens.insert(token);
        self.event(shard, Event::Request { token, to, request });
    }

    fn advance(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.unix_ms += i64::try_from(ms).unwrap_or(0);
        self.run();
    }

    /// What this connection says from now on need not be whole.
    fn garble(&mut self, conn: ConnId) {
        self.sends.remove(&conn);
        self.outputs.remove(&conn);
    }

    /// The peers leave: then nobody is online.
    fn all_leave(&mut self) {
        let still: Vec<ConnId> = self
            .lines
            .iter()
            .filter(|(_, line)| **line == Line::Open)
            .map(|(conn, _)| *conn)
            .collect();
        for conn in still {
            self.event(conn.shard().0.into(), Event::Closed { conn });
        }
        self.run();
        for shard in (0..self.settings.shard_count).map(ShardId) {
            self.ask(Target::Shard(shard), Request::Vars);
            self.run();
            let vars = &self.last_vars;
            assert_eq!((vars.connections, vars.sessions, vars.online_users), (0, 0, 0));
        }
    }

    /// Lets everything finish, with leaders or without: then nobody waits, and a follower that
    /// has read the logs from their beginning holds the same state.
    pub fn finish(mut self, leads: Leads) {
        (self.hold_commits, self.hold_reads, self.failing_reads) = (false, false, 0);
        self.release_reads(None);
        for slot in (0..self.settings.slot_count).map(SlotId) {
            let leading = match leads {
                Leads::All => true,
                Leads::Some => slot.0 % 2 == 0,
                Leads::None => false,
            };
            self.lead(slot, leading);
            if !leading {
                self.lose_proposals(Some(slot));
            }
        }
        self.release_commits();
        self.run();
        for _ in 0..20 {
            self.advance(self.settings.request_ms / 5);
        }
        assert!(self.open_tokens.is_empty(), "a caller without an answer");
        assert!(self.shards.iter().all(Shard::is_idle), "somebody waits for ever");
        for (conn, numbers) in &self.sends {
            if self.lines.get(conn) == Some(&Line::Open) {
                let output = String::from_utf8_lossy(&self.outputs[conn]);
                for number in numbers {
                    let count = output.matches(&format!("\"id\":\"s{number}\"")).count();
                    assert_eq!(count, 1, "answers to a send: {output}");
                }
            }
        }
        self.all_leave();
        let settings = (*self.settings).clone();
        let replica = Self::on_store(settings, Store::default(), self.logs, false, 255);
        assert_eq!(replica.store, self.store);
    }
}

fn closed(event: &Event) -> Option<ConnId> {
    match event {
        Event::Closed { conn } => Some(*conn),
        _ => None,
    }
}
