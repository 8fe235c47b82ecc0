//! A shard: connections, sessions, and the slots that live on this core. One pure step at a time.
//!
//! `Shard` is a table of tables; each has its own module: `connection` and `deliver` for the
//! sockets, `home` for who is online, `send` and `apply` for a slot's log, `channel` and `user`
//! for state in memory, `waiting` for state on disk, `requests` for the HTTP API. Between shards
//! and nodes: `routes` knows who leads, `sends`, `asks`, `parcels` and `outbox` keep what others
//! have not answered.

mod apply;
mod asks;
mod cache;
mod channel;
mod command_positions;
mod connection;
mod dedupe;
mod deliver;
mod drain;
mod events;
mod home;
mod ids;
mod notices;
mod openings;
mod outbox;
mod parcels;
mod requests;
mod routes;
mod send;
mod sends;
mod slot;
mod stream;
mod systems;
mod tail;
mod unacked;
mod undelivered;
mod user;
mod waiting;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    sync::Arc,
};

use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore as _, SeedableRng as _};

use self::{
    asks::Asks,
    cache::Cache,
    channel::Channel,
    connection::Conn,
    deliver::{FanOut, Job},
    drain::Leaving,
    home::Home,
    ids::MessageIds,
    parcels::{Parcels, Parent},
    routes::Routes,
    send::Inflow,
    sends::Sends,
    slot::{Caller, Slot},
    stream::Stream,
    systems::Systems,
    user::User,
    waiting::{Purpose, Waiting},
};
use crate::{
    channel_info::kind,
    code::Code,
    effect::{Effect, Event, Inbox, Now, Outbox, ReadId, Stepped},
    envelope::{Ask, Envelope, Epoch, Except, Origin, SendTask},
    id::{ChannelId, ConnId, Name, ShardAddr, ShardId, SlotId},
    map::{Map, Set},
    request::{RequestToken, Vars},
    settings::Settings,
    stream::StreamKey,
    wire::crypto::ServerKey,
};

pub use systems::SYSTEM_UID_PREFIX;

/// The slot of group 0, which replicates the cluster's own state.
pub const CLUSTER_SLOT: SlotId = SlotId(u16::MAX);

/// How often outboxes and overdue proposals are looked after while there are any.
const HOUSEKEEPING_MS: u64 = 500;
/// A shard without work for so long keeps no more than so many bytes in each of its caches.
const REST_MS: u64 = 10_000;
const REST_SIZE: usize = 256 << 10;
/// How long one server key pair serves (issue of X25519 cost; keys of sessions stay independent).
const SERVER_KEY_MS: u64 = 60_000;

/// One core's share of a node. Reachable from one thread; does nothing but [`Shard::step`].
pub struct Shard {
    id: ShardId,
    settings: Arc<Settings>,
    now: Now,
    rng: ChaCha12Rng,
    /// Marks this shard's own entries, see [`crate::entry::EntryHead`].
    proposer: u64,
    ids: MessageIds,
    server_key: Option<(u64, Arc<ServerKey>)>,
    empty: Name,
    draining: bool,
    /// A draining node of a cluster ends its clients' connections: they go on elsewhere.
    leaving: Option<Leaving>,

    conns: Vec<Option<Box<Conn>>>,
    connection_count: u64,
    session_count: u64,
    /// When to look whether a connection has been silent too long; one entry per connection, which
    /// is set anew when it comes up.
    silence: BinaryHeap<Reverse<(u64, ConnId)>>,
    /// By slot that this shard leads, or is about to: whose sessions are where.
    homes: Map<SlotId, Home>,

    routes: Routes,
    sends: Sends,
    asks: Asks,
    parcels: Parcels,
    /// By slot and shard: what has come of its sends.
    inflows: Map<(SlotId, ShardAddr), Inflow>,
    /// Marks what this shard asks and sends in this life of the process.
    life: u64,
    /// Numbers begin anywhere, so that an answer meant for an earlier life fits nothing.
    next_id: u64,

    slots: Map<SlotId, Slot>,
    systems: Systems,
    /// By base channel: rows for its commands are being made, and who waits for them.
    openings: Map<ChannelId, Vec<(Caller, Arc<Ask>)>>,
    /// Slots whose accumulator may be flushed at the end of this step.
    dirty: Set<SlotId>,
    channels: Cache<ChannelId, Channel, Waiting>,
    users: Cache<Name, User, Waiting>,
    streams: Cache<StreamKey, Stream, Waiting>,
    reads: Map<ReadId, Purpose>,
    next_read: u64,
    /// Reads of channels and users that failed, and when each is asked for again.
    failed_reads: VecDeque<(u64, Purpose)>,
    /// Bytes handed to the state lane that it has not taken over.
    state_queue_size: usize,

    jobs: VecDeque<Job>,
    targets: Vec<ConnId>,
    open_requests: Set<RequestToken>,
    next_housekeeping_ms: u64,
    next_retry_scan_ms: u64,
    /// `Now::mono_ms` when there was work last, and whether the caches were emptied since.
    worked_ms: u64,
    is_resting: bool,
    vars: Vars,

    /// What this shard tells itself, handled before the next event.
    local: VecDeque<Local>,
    /// Answers to sessions of this shard, written before the next event.
    acks: VecDeque<(Origin, i64, u64, Code)>,
    out: Outbox,
}

/// What a shard tells itself.
#[derive(Debug)]
enum Local {
    Envelope(Envelope),
    /// A send whose channel is loaded.
    Send(Arc<SendTask>, Epoch),
    /// A command message whose base channel is loaded.
    FanOut(Box<FanOut>),
}

/// Whether this is work, for which rows are kept in memory.
fn works(event: &Event) -> bool {
    matches!(
        event,
        Event::Committed { .. } | Event::Request { .. } | Event::Read { .. } | Event::Opened { .. }
    )
}

impl Shard {
    /// An empty shard. `seed` must be unguessable and differ at each start: keys, salts and the
    /// proposer number come from it.
    pub fn new(id: ShardId, settings: Arc<Settings>, seed: [u8; 32]) -> Self {
        let mut rng = ChaCha12Rng::from_seed(seed);
        Self {
            id,
            now: Now::default(),
            proposer: rng.next_u64(),
            life: rng.next_u64(),
            next_id: rng.next_u64(),
            rng,
            ids: MessageIds::new(settings.node, id, settings.shard_count),
            server_key: None,
            empty: "".into(),
            draining: false,
            leaving: None,
            conns: Vec::new(),
            connection_count: 0,
            session_count: 0,
            silence: BinaryHeap::new(),
            homes: Map::default(),
            routes: Routes::default(),
            sends: Sends::default(),
            asks: Asks::default(),
            parcels: Parcels::default(),
            inflows: Map::default(),
            slots: Map::default(),
            systems: Systems::default(),
            openings: Map::default(),
            dirty: Set::default(),
            channels: Cache::default(),
            users: Cache::default(),
            streams: Cache::default(),
            reads: Map::default(),
            next_read: 0,
            failed_reads: VecDeque::new(),
            state_queue_size: 0,
            jobs: VecDeque::new(),
            targets: Vec::new(),
            open_requests: Set::default(),
            next_housekeeping_ms: 0,
            next_retry_scan_ms: 0,
            worked_ms: 0,
            is_resting: false,
            vars: Vars::default(),
            local: VecDeque::new(),
            acks: VecDeque::new(),
            out: Outbox::default(),
            settings,
        }
    }

    /// One turn: reads all events of `inbox`, leaves effects in `outbox`. Bounded work per event;
    /// large fan-outs are cut into slices (`Stepped::more`). Both must be cleared by the caller.
    pub fn step(&mut self, now: Now, inbox: &mut Inbox, outbox: &mut Outbox) -> Stepped {
        self.now = now;
        std::mem::swap(&mut self.out, outbox);
        let Inbox { events, bytes } = inbox;
        if events.iter().any(works) {
            (self.worked_ms, self.is_resting) = (self.now.mono_ms, false);
        }
        for event in events.drain(..) {
            if let Event::Bytes { conn, range } = event {
                if let Some(bytes) = bytes.get_mut(range) {
                    self.on_bytes(conn, bytes);
                }
            } else {
                self.on_event(event);
            }
            self.handle_local();
        }
        self.on_time();
        self.settle();
        self.handle_local();
        self.deliver_slice();
        self.handle_local();
        self.flush_slots();
        self.pay_receipts();
        self.handle_local();
        self.shrink_caches();
        std::mem::swap(&mut self.out, outbox);
        let more = !self.jobs.is_empty() || !self.dirty.is_empty();
        Stepped { more, wake_at_ms: self.wake_at_ms() }
    }

    /// Keeps the caches within their bound. Over it stay only rows that something waits with: for
    /// each slot those of the entry that it applies, channels with sends at the gate, and users
    /// whose login also needs the personal channel. Evicted, they would be asked for without end.
    ///
    /// A shard that has had nothing to do for a while keeps little: what is asked for is read again.
    fn shrink_caches(&mut self) {
        let size_max = self.settings.cache_size_max / 2;
        let rests = self.rests_at_ms().is_some_and(|at| at <= self.now.mono_ms);
        let bound = if rests { size_max.min(REST_SIZE) } else { size_max };
        let channels = &mut self.channels;
        let has_gated = |_: &ChannelId, channel: &Channel| channel.has_gated();
        if rests {
            channels.rest(bound, has_gated)
        } else {
            channels.shrink(bound, has_gated)
        }
        let channels = &self.channels;
        let logs_in =
            |uid: &Name, _: &User| channels.is_loading(&ChannelId::new(uid.clone(), kind::PERSON));
        if rests {
            self.users.rest(bound, logs_in)
        } else {
            self.users.shrink(bound, logs_in)
        }
        // One that something waits for is pinned.
        let bound = (self.settings.cache_size_max / 8).min(bound);
        if rests {
            self.streams.rest(bound, |_, _| false)
        } else {
            self.streams.shrink(bound, |_, _| false)
        }
        self.is_resting |= rests;
    }

    /// When a shard that has nothing to do lets go of what it keeps.
    fn rests_at_ms(&self) -> Option<u64> {
        let size = self.channels.size().max(self.users.size()).max(self.streams.size());
        let much = size > REST_SIZE;
        (much && !self.is_resting).then_some(self.worked_ms + REST_MS)
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Opened { conn, port, peer } => self.on_opened(conn, port, peer),
            // Handled by `step`, which has the bytes.
            Event::Bytes { .. } => {}
            Event::Closed { conn } => self.on_closed(conn),
            Event::Envelope(envelope) => self.on_envelope(envelope),
            Event::Request { token, to, request } => self.on_request(token, to, request),
            Event::SlotOpened { slot, rows } => {
                self.resign(slot);
                if slot == CLUSTER_SLOT {
                    let keys = rows.cluster.iter().filter(|(_, value)| !value.is_empty());
                    let tell = |(key, value): &(String, bytes::Bytes)| Effect::ClusterKey {
                        key: key.clone(),
                        value: value.clone(),
                    };
                    self.out.effects.extend(keys.map(tell));
                }
                let mut opened = Slot::new(*rows);
                // Entries of before may still be committed: no number is given twice.
                opened.next_proposal = self.slots.get(&slot).map_or(0, |old| old.next_proposal);
                self.slots.insert(slot, opened);
                let slot_count = self.settings.slot_count;
                // The entry that waited for them is part of what was opened.
                let stale = |waiter: &Waiting| matches!(waiter, Waiting::Apply(_));
                self.channels.forget(|channel| channel.slot(slot_count) == slot, stale);
                self.users.forget(|uid| SlotId::of(uid, slot_count) == slot, stale);
                self.streams.forget(|stream| stream.slot(slot_count) == slot, stale);
                self.read_again(slot);
                if slot == CLUSTER_SLOT {
                    self.tell_systems(Parent::None);
                }
            }
            Event::Leading { slot, leading: false } => self.resign(slot),
            Event::Leading { slot, leading: true } => self.begin_to_lead(slot),
            Event::Leader { slot, leader, term } => self.on_leader(slot, leader, term),
            Event::Leases(leases) => {
                for (slot, until_ms) in leases {
                    if let Some(state) = self.slots.get_mut(&slot) {
                        state.lease_ms = until_ms;
                        self.release_held(slot);
                    }
                }
            }
            Event::Peer { node, state } => self.on_peer(node, state),
            Event::Remote { envelope, .. } => self.on_envelope(envelope),
            Event::Committed { slot, log_id, body } => self.on_committed(slot, log_id, body),
            Event::ProposeFailed { slot, proposal } => self.on_propose_failed(slot, proposal),
            Event::Read { id, rows } => self.on_rows(id, rows),
            Event::Persisted { size } => {
                self.state_queue_size = self.state_queue_size.saturating_sub(size);
            }
            Event::Drain => self.begin_drain(),
            Event::SystemsSourced { uids } => self.on_systems_sourced(uids.as_deref()),
            Event::Told { slot, life, number } => self.on_told(slot, life, number),
        }
    }

    fn begin_to_lead(&mut self, slot: SlotId) {
        let Some(state) = self.slots.get_mut(&slot) else {
            return;
        };
        state.leading = true;
        let leader = Some(self.settings.node);
        self.out.effects.push(Effect::LeaderKnown { slot, leader });
        let targets = state.outbox_targets();
        let kept: Vec<_> = state.recent.take(self.now.unix_ms).collect();
        self.begin_home(slot);
        self.send_homeless(slot);
        // What the last leader may not have delivered (G8).
        for undelivered::Kept { index, applied_ms, message, recipients, .. } in kept {
            let parent = self.entry_parent(slot, index);
            self.deliver(message, recipients, Except::Since(applied_ms), parent);
        }
        self.send_outbox(slot, &targets);
        self.take_early_rows(slot);
        if slot == CLUSTER_SLOT {
            self.tell_systems(Parent::None);
        }
        self.begin_feed(slot);
        self.mark_dirty(slot);
    }

    fn on_envelope(&mut self, envelope: Envelope) {
        match envelope {
            Envelope::Send { task, epoch, after } => self.on_send(task, epoch, after),
            Envelope::Sent { slot, number, epoch, outcome } => {
                self.on_sent(slot, number, epoch, outcome);
            }
            Envelope::Ask { from, id, ask } => self.on_ask(from, id, ask),
            Envelope::Answer { id, answer } => self.on_answer(id, *answer),
            Envelope::Left { session, uid } => self.on_left(session, &uid),
            Envelope::Parcel { receipt, content } => self.on_parcel(receipt, content),
            Envelope::Delivered { by, number, later } => self.on_delivered(by, number, &later),
            Envelope::NotHome { by, epoch, slots, .. } => self.on_not_home(by, epoch, &slots),
            Envelope::Leader { slot, leader, term } => self.on_leader(slot, leader, term),
            Envelope::Resumed { from } => self.on_resumed(from),
            Envelope::Announce { from, slot, term, first, last, sessions } => {
                self.on_announce(from, (slot, term), (first, last), sessions);
            }
            Envelope::Outbox { source, target, index, changes } => {
                self.on_outbox(source, target, index, changes);
            }
            Envelope::OutboxTaken { source, target, index } => {
                self.on_outbox_taken(source, target, index);
            }
        }
    }

    fn handle_local(&mut self) {
        loop {
            while let Some((origin, message_id, seq, code)) = self.acks.pop_front() {
                self.acknowledge(origin, message_id, seq, code);
            }
            match self.local.pop_front() {
                Some(Local::Envelope(envelope)) => self.on_envelope(envelope),
                Some(Local::Send(task, epoch)) => self.take_send(task, epoch),
                Some(Local::FanOut(fan_out)) => self.on_fan_out_loaded(*fan_out),
                None => return,
            }
        }
    }

    fn on_time(&mut self) {
        let now = self.now.mono_ms;
        while let Some(Reverse((due, conn))) = self.silence.peek().copied() {
            if due > now {
                break;
            }
            self.silence.pop();
            self.check_silence(conn);
        }
        self.end_clients();
        self.answer_overdue_asks();
        self.retry_reads();
        if now >= self.next_housekeeping_ms {
            self.next_housekeeping_ms = now + HOUSEKEEPING_MS;
            self.answer_overdue();
            self.answer_overdue_sends();
            self.look_after_parcels();
            self.look_after_outboxes();
            self.look_after_notices();
        }
        if now >= self.next_retry_scan_ms {
            self.next_retry_scan_ms = now + self.settings.retry_scan_ms;
            self.repeat_unacked();
        }
    }

    /// When something is due though nothing happens.
    fn wake_at_ms(&self) -> Option<u64> {
        let silence = self.silence.peek().map(|Reverse((due, _))| *due);
        let ask = self.asks.next_deadline_ms();
        let read = self.failed_reads.front().map(|(due, _)| *due);
        let end = self.leaving.as_ref().map(Leaving::due_ms);
        let waits = !self.sends.is_empty() || self.parcels.count() > 0;
        let busy = waits
            || self.slots.values().any(|slot| {
                !slot.proposals.is_empty()
                    || !slot.sending.is_empty()
                    || !slot.taken.is_empty()
                    || (slot.leading && slot.notices.is_busy())
            });
        let housekeeping = busy.then_some(self.next_housekeeping_ms);
        let retry = (self.session_count > 0).then_some(self.next_retry_scan_ms);
        let rest = self.rests_at_ms();
        let due = [silence, ask, read, end, rest, self.next_due_ms(), housekeeping, retry];
        due.into_iter().flatten().min()
    }

    /// Sends an envelope; one for this shard is handled before the next event.
    fn send(&mut self, to: ShardId, envelope: Envelope) {
        if to == self.id {
            self.local.push_back(Local::Envelope(envelope));
        } else {
            self.out.effects.push(Effect::Send { to, envelope });
        }
    }

    fn leads(&self, slot: SlotId) -> bool {
        self.slots.get(&slot).is_some_and(|slot| slot.leading)
    }

    /// Whether it leads, and nobody else can: what it reads is the newest there is (G7).
    fn leads_now(&self, slot: SlotId) -> bool {
        let now = self.now.mono_ms;
        self.slots.get(&slot).is_some_and(|slot| slot.leading && slot.lease_ms > now)
    }

    fn mark_dirty(&mut self, slot: SlotId) {
        self.dirty.insert(slot);
    }

    fn watch(&mut self, conn: ConnId, due_ms: u64) {
        self.silence.push(Reverse((due_ms, conn)));
    }

    fn warn(&mut self, text: String) {
        self.out.effects.push(Effect::Warn(text));
    }

    /// Most topics and stream numbers are empty: one allocation serves all of them.
    fn short_name(&self, text: &str) -> Name {
        if text.is_empty() { self.empty.clone() } else { text.into() }
    }

    fn server_key(&mut self) -> Arc<ServerKey> {
        let now = self.now.mono_ms;
        if let Some((made, key)) = &self.server_key
            && now < made + SERVER_KEY_MS
        {
            return key.clone();
        }
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let key = Arc::new(ServerKey::from_seed(seed));
        self.server_key = Some((now, key.clone()));
        key
    }

    fn led(&self) -> impl Iterator<Item = &Slot> {
        self.slots.values().filter(|slot| slot.leading)
    }

    fn vars(&self) -> Vars {
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        Vars {
            connections: self.connection_count,
            sessions: self.session_count,
            online_users: self.homes.values().fold(0, |sum, home| sum + count(home.users.len())),
            unacked: self.conns.iter().flatten().fold(0, |sum, entry| {
                sum + entry.link.session.live().map_or(0, |live| count(live.unacked.count()))
            }),
            slots_leading: count(self.slots.values().filter(|slot| slot.leading).count()),
            channels_cached: count(self.channels.count()),
            users_cached: count(self.users.count()),
            streams_cached: count(self.streams.count()),
            notices: self.led().map(|slot| slot.notices.head.count()).sum(),
            notices_size: self.led().map(|slot| slot.notices.head.size()).sum(),
            ..self.vars
        }
    }
}
