//! A whole node without sockets, disks or threads: shards, a log per slot, a store, and clients
//! that speak JSON-RPC. Time moves when a test says so.

#![allow(dead_code, reason = "each test file uses a part")]

mod store;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use jindou_core::{
    channel_info::ChannelInfo,
    effect::{Committed, Effect, Event, Inbox, Now, Outbox, Port, ReadId},
    id::{ChannelId, ConnId, LogId, Name, ShardId, SlotId},
    notice::Telling,
    request::{ApiSend, Reply, Request, RequestToken, Target},
    row::Rows,
    settings::Settings,
    shard::Shard,
};
use serde_json::{Value, json};
pub(crate) use store::Store;

/// Turns after which the shards must have come to rest.
const TURNS_MAX: usize = 20_000;

/// The world.
pub(crate) struct World {
    pub(crate) settings: Arc<Settings>,
    shards: Vec<Shard>,
    inboxes: Vec<Inbox>,
    pub(crate) store: Store,
    /// Every entry ever committed, by slot.
    pub(crate) logs: BTreeMap<SlotId, Vec<bytes::Bytes>>,
    /// Proposals that wait while commits are held back.
    held: VecDeque<(SlotId, bytes::Bytes)>,
    pub(crate) hold_commits: bool,
    /// Answers of the store that wait while reads are held back.
    held_reads: VecDeque<(usize, ReadId, Rows)>,
    pub(crate) hold_reads: bool,
    /// Whether the store fails to read.
    pub(crate) fail_reads: bool,
    /// Reads that the store was asked for.
    pub(crate) read_count: u64,
    outputs: BTreeMap<ConnId, Vec<u8>>,
    heard: BTreeMap<ConnId, Vec<Value>>,
    closed: BTreeSet<ConnId>,
    replies: BTreeMap<RequestToken, Reply>,
    pub(crate) warnings: Vec<String>,
    pub(crate) told: Vec<(usize, Telling)>,
    /// How often the datasource was to be asked.
    pub(crate) asked: u64,
    next_conn: u32,
    next_token: u64,
    term: u64,
    now: Now,
}

/// A client of the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Client(pub(crate) ConnId);

impl World {
    pub(crate) fn new(shard_count: u16) -> Self {
        Self::with(Settings { shard_count, slot_count: 8, ..Settings::default() })
    }

    pub(crate) fn with(settings: Settings) -> Self {
        Self::on_store(settings, Store::default(), BTreeMap::new())
    }

    /// A start on what a store and logs hold: entries beyond the applied position come again.
    pub(crate) fn on_store(
        settings: Settings,
        store: Store,
        logs: BTreeMap<SlotId, Vec<bytes::Bytes>>,
    ) -> Self {
        Self::replica(settings, store, logs, true)
    }

    /// A replica that leads or follows.
    pub(crate) fn replica(
        settings: Settings,
        store: Store,
        logs: BTreeMap<SlotId, Vec<bytes::Bytes>>,
        leading: bool,
    ) -> Self {
        let settings = Arc::new(settings);
        let count = settings.shard_count;
        let mut world = Self {
            shards: (0..count)
                .map(|n| {
                    let mut seed = [7; 32];
                    seed[0] = n.to_le_bytes()[0];
                    seed[1] = logs.len().to_le_bytes()[0];
                    Shard::new(ShardId(n), settings.clone(), seed)
                })
                .collect(),
            inboxes: (0..count).map(|_| Inbox::default()).collect(),
            store,
            logs,
            held: VecDeque::new(),
            hold_commits: false,
            held_reads: VecDeque::new(),
            hold_reads: false,
            fail_reads: false,
            read_count: 0,
            outputs: BTreeMap::new(),
            heard: BTreeMap::new(),
            closed: BTreeSet::new(),
            replies: BTreeMap::new(),
            warnings: Vec::new(),
            told: Vec::new(),
            asked: 0,
            next_conn: 0,
            next_token: 0,
            term: 0,
            now: Now { unix_ms: 1_700_000_000_000, mono_ms: 1_000 },
            settings,
        };
        for slot in (0..world.settings.slot_count).map(SlotId) {
            world.open_slot(slot);
            world.lead(slot, leading);
        }
        world.run();
        world
    }

    fn open_slot(&mut self, slot: SlotId) {
        let rows = Box::new(self.store.open(slot));
        let next = rows.applied.map_or(0, |id| id.index + 1);
        self.event(self.shard_of(slot), Event::SlotOpened { slot, rows });
        let log = self.logs.get(&slot).cloned().unwrap_or_default();
        for (index, entry) in (0..).zip(log).skip(usize::try_from(next).unwrap()) {
            self.commit(slot, index, entry);
        }
    }

    fn shard_of(&self, slot: SlotId) -> usize {
        ShardId::of(slot, self.settings.shard_count).0.into()
    }

    fn event(&mut self, shard: usize, event: Event) {
        self.inboxes[shard].events.push(event);
    }

    fn commit(&mut self, slot: SlotId, index: u64, entry: bytes::Bytes) {
        let log_id = LogId { term: 1, node: 1, index };
        let body = Committed::Entry(entry);
        self.event(self.shard_of(slot), Event::Committed { slot, log_id, body });
    }

    /// Steps every shard until nothing is left to do.
    pub(crate) fn run(&mut self) {
        for _ in 0..TURNS_MAX {
            let mut more = false;
            for shard in 0..self.shards.len() {
                let mut outbox = Outbox::default();
                let mut inbox = std::mem::take(&mut self.inboxes[shard]);
                more |= self.shards[shard].step(self.now, &mut inbox, &mut outbox).more;
                self.perform(shard, outbox);
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
                    assert!(!self.closed.contains(&conn), "a write after the close");
                    self.outputs.entry(conn).or_default().extend_from_slice(&bytes[range]);
                }
                Effect::Close { conn } => {
                    self.closed.insert(conn);
                }
                Effect::Send { to, envelope } => {
                    self.event(to.0.into(), Event::Envelope(envelope));
                }
                Effect::Propose { slot, entry, .. } => {
                    if self.hold_commits {
                        self.held.push_back((slot, entry));
                    } else {
                        self.append(slot, entry);
                    }
                }
                Effect::Persist(persist) => {
                    let size = Outbox::persist_size(&persist);
                    self.store.persist(persist);
                    self.event(shard, Event::Persisted { size });
                }
                Effect::Applied { .. } => {}
                Effect::Read { id, slot, read } => {
                    self.read_count += 1;
                    let rows = match self.fail_reads {
                        true => Rows::Failed("a broken disk".to_owned()),
                        false => self.store.read(slot, &read),
                    };
                    if self.hold_reads {
                        self.held_reads.push_back((shard, id, rows));
                    } else {
                        self.event(shard, Event::Read { id, rows });
                    }
                }
                Effect::Reply { token, reply } => {
                    assert!(self.replies.insert(token, reply).is_none(), "answered twice");
                }
                Effect::Forward { .. } | Effect::LeaderKnown { .. } | Effect::ClusterKey { .. } => {
                }
                Effect::Warn(text) => self.warnings.push(text),
                Effect::Tell(telling) => self.told.push((shard, telling)),
                Effect::AskSystems => self.asked += 1,
            }
        }
    }

    fn append(&mut self, slot: SlotId, entry: bytes::Bytes) {
        let log = self.logs.entry(slot).or_default();
        log.push(entry.clone());
        let index = u64::try_from(log.len() - 1).unwrap();
        self.commit(slot, index, entry);
    }

    /// Commits what was held back; from now on commits go through.
    pub(crate) fn release_commits(&mut self) {
        self.hold_commits = false;
        while let Some((slot, entry)) = self.held.pop_front() {
            self.append(slot, entry);
        }
        self.run();
    }

    /// Hands out what the store has answered; from now on answers go through.
    pub(crate) fn release_reads(&mut self) {
        self.hold_reads = false;
        while let Some((shard, id, rows)) = self.held_reads.pop_front() {
            self.event(shard, Event::Read { id, rows });
        }
        self.run();
    }

    /// Hands out one answer of the store, in a step of its own; `false` when there is none.
    pub(crate) fn release_read(&mut self) -> bool {
        let held = self.held_reads.pop_front();
        let released = held.map(|(shard, id, rows)| self.event(shard, Event::Read { id, rows }));
        self.run();
        released.is_some()
    }

    /// The receiver of webhooks has taken something.
    pub(crate) fn taken(&mut self, telling: &Telling) {
        let Telling { slot, life, number, .. } = *telling;
        self.event(self.shard_of(slot), Event::Told { slot, life, number });
    }

    /// What the datasource says to everybody.
    pub(crate) fn sourced(&mut self, uids: Option<&[&str]>) {
        for shard in 0..self.shards.len() {
            let uids = uids.map(|uids| uids.iter().map(|uid| Name::from(*uid)).collect());
            self.event(shard, Event::SystemsSourced { uids });
        }
        self.run();
    }

    /// Moves time on.
    pub(crate) fn advance(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(100) {
            self.now.mono_ms += 100;
            self.now.unix_ms += 100;
            self.run();
        }
    }

    /// Kills the node and starts it on what it has stored.
    pub(crate) fn restart(&mut self) {
        let settings = (*self.settings).clone();
        let old = std::mem::replace(self, Self::with(settings.clone()));
        *self = Self::on_store(settings, old.store, old.logs);
    }

    /// Every slot's leadership is won or lost.
    pub(crate) fn lead_all(&mut self, leading: bool) {
        for slot in (0..self.settings.slot_count).map(SlotId) {
            self.lead(slot, leading);
        }
        self.run();
    }

    /// The leadership of one slot is won or lost.
    pub(crate) fn lead(&mut self, slot: SlotId, leading: bool) {
        self.term += 1;
        let (shard, leader) = (self.shard_of(slot), leading.then_some(self.settings.node));
        self.event(shard, Event::Leader { slot, leader, term: self.term });
        self.event(shard, Event::Leading { slot, leading });
        if leading {
            self.event(shard, Event::Leases(vec![(slot, u64::MAX)]));
        }
    }

    /// A snapshot of the slot is installed: it holds what the store holds.
    pub(crate) fn install(&mut self, slot: SlotId) {
        self.lead(slot, false);
        self.open_slot(slot);
        self.lead(slot, true);
        self.run();
    }

    /// Commits an entry that none of these shards has proposed.
    pub(crate) fn commit_foreign(&mut self, slot: SlotId, entry: bytes::Bytes) {
        self.append(slot, entry);
        self.run();
    }

    // ---- clients ----

    pub(crate) fn open(&mut self) -> Client {
        self.open_from("127.0.0.1:9")
    }

    /// Opens a socket whose other end is there.
    pub(crate) fn open_from(&mut self, peer: &str) -> Client {
        self.next_conn += 1;
        let shards = u32::try_from(self.shards.len()).unwrap();
        let shard = ShardId(u16::try_from(self.next_conn % shards).unwrap());
        let conn = ConnId::new(shard, self.next_conn, 1);
        let peer = peer.parse().unwrap();
        self.event(shard.0.into(), Event::Opened { conn, port: Port::Tcp, peer });
        Client(conn)
    }

    /// The client's socket is gone.
    pub(crate) fn close(&mut self, client: Client) {
        let shard = usize::from(client.0.shard().0);
        self.event(shard, Event::Closed { conn: client.0 });
    }

    pub(crate) fn say(&mut self, client: Client, object: &Value) {
        self.say_bytes(client, object.to_string().as_bytes());
    }

    pub(crate) fn say_bytes(&mut self, client: Client, bytes: &[u8]) {
        let shard = usize::from(client.0.shard().0);
        self.inboxes[shard].push_bytes(client.0, bytes);
    }

    /// Connects and expects success.
    pub(crate) fn connect(&mut self, uid: &str) -> Client {
        let (client, answer) = self.try_connect(uid, "d", 0, "");
        assert_eq!(answer["result"]["reasonCode"], 1, "{answer}");
        client
    }

    pub(crate) fn try_connect(
        &mut self,
        uid: &str,
        device_id: &str,
        device_flag: u8,
        token: &str,
    ) -> (Client, Value) {
        let client = self.open();
        let params =
            json!({"uid": uid, "deviceId": device_id, "deviceFlag": device_flag, "token": token});
        self.say(client, &json!({"method": "connect", "id": "c", "params": params}));
        self.run();
        let answer = self.heard(client).into_iter().next().unwrap_or(Value::Null);
        (client, answer)
    }

    /// Sends without waiting.
    pub(crate) fn send(&mut self, client: Client, channel: &str, kind: u8, number: &str) {
        let params = json!({"channelId": channel, "channelType": kind, "clientMsgNo": number,
                            "payload": "aGk="});
        self.say(client, &json!({"method": "send", "id": number, "params": params}));
    }

    /// Sends and gives (reason, seq, message id).
    pub(crate) fn send_wait(
        &mut self,
        client: Client,
        channel: &str,
        kind: u8,
        number: &str,
    ) -> (u64, u64, String) {
        self.send(client, channel, kind, number);
        self.run();
        self.listen(client);
        let heard = self.heard.entry(client.0).or_default();
        let place = heard.iter().position(|o| o["id"] == number).expect("an answer");
        let result = &heard.remove(place)["result"];
        (
            result["reasonCode"].as_u64().unwrap(),
            result["messageSeq"].as_u64().unwrap(),
            result["messageId"].as_str().unwrap().to_owned(),
        )
    }

    /// What came since the last call.
    pub(crate) fn heard(&mut self, client: Client) -> Vec<Value> {
        self.listen(client);
        self.heard.remove(&client.0).unwrap_or_default()
    }

    fn listen(&mut self, client: Client) {
        let bytes = self.outputs.remove(&client.0).unwrap_or_default();
        let objects = serde_json::Deserializer::from_slice(&bytes).into_iter().map(Result::unwrap);
        self.heard.entry(client.0).or_default().extend(objects);
    }

    /// The seqs of the RECVs that came since the last call.
    pub(crate) fn received(&mut self, client: Client) -> Vec<u64> {
        let heard = self.heard(client);
        let recvs = heard.iter().filter(|o| o["method"] == "recv");
        recvs.map(|o| o["params"]["messageSeq"].as_u64().unwrap()).collect()
    }

    pub(crate) fn is_closed(&self, client: Client) -> bool {
        self.closed.contains(&client.0)
    }

    // ---- back end ----

    /// Asks without waiting.
    pub(crate) fn ask(&mut self, id: &str, request: Request) -> RequestToken {
        self.next_token += 1;
        let token = RequestToken(self.next_token);
        let shard = usize::try_from(self.next_token).unwrap() % self.shards.len();
        self.event(shard, Event::Request { token, to: Target::Id(id.into()), request });
        token
    }

    pub(crate) fn answer(&mut self, token: RequestToken) -> Option<Reply> {
        self.replies.remove(&token)
    }

    pub(crate) fn ask_wait(&mut self, id: &str, request: Request) -> Reply {
        let token = self.ask(id, request);
        self.run();
        self.answer(token).expect("an answer")
    }

    pub(crate) fn group(&mut self, id: &str, members: &[&str]) {
        let members = members.iter().map(|m| Name::from(*m)).collect();
        let channel = ChannelId::new(id, 2);
        let info = Some(ChannelInfo::default());
        let request = Request::WriteChannel { channel, info, reset: false, members };
        assert!(matches!(self.ask_wait(id, request), Reply::Done));
    }

    pub(crate) fn api_send(&mut self, from: &str, channel: ChannelId, number: &str) -> Reply {
        let id = channel.id.clone();
        let request = Request::Send(Box::new(ApiSend {
            channel,
            shown: None,
            from: from.into(),
            client_msg_no: number.into(),
            flags: 0,
            setting: 0,
            expire: 0,
            recipients: None,
            payload: b"hi".as_slice().into(),
        }));
        self.ask_wait(&id, request)
    }
}
