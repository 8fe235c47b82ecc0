//! A shard: connections, sessions, and the slots that live on this core. One pure step at a time.
//!
//! `Shard` is a table of tables; each has its own module: `connection` and `deliver` for the
//! sockets, `home` for who is online, `send` and `apply` for a slot's log, `channel` and `user`
//! for state in memory, `waiting` for state on disk, `outbox` for what goes to other slots,
//! `requests` for the HTTP API.

mod apply;
mod cache;
mod channel;
mod connection;
mod dedupe;
mod deliver;
mod digests;
mod home;
mod ids;
mod outbox;
mod requests;
mod send;
mod slot;
mod unacked;
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
    cache::Cache,
    channel::Channel,
    connection::Conn,
    deliver::Job,
    digests::Gathering,
    home::Presence,
    ids::MessageIds,
    slot::Slot,
    user::User,
    waiting::{Purpose, Waiting},
};
use crate::{
    effect::{Effect, Event, Inbox, Now, Outbox, ReadId, Stepped},
    envelope::Envelope,
    id::{ChannelId, ConnId, Name, ShardId, SlotId},
    map::{Map, Set},
    request::{RequestToken, Vars},
    settings::Settings,
    wire::crypto::ServerKey,
};

/// The slot of group 0, which replicates the cluster's own state.
pub const CLUSTER_SLOT: SlotId = SlotId(u16::MAX);

/// How often outboxes and overdue proposals are looked after while there are any.
const HOUSEKEEPING_MS: u64 = 500;
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

    conns: Vec<Option<Box<Conn>>>,
    connection_count: u64,
    session_count: u64,
    /// When to look whether a connection has been silent too long; one entry per connection, which
    /// is set anew when it comes up.
    silence: BinaryHeap<Reverse<(u64, ConnId)>>,
    directory: Map<Name, Vec<Presence>>,

    slots: Map<SlotId, Slot>,
    /// Slots whose accumulator may be flushed at the end of this step.
    dirty: Set<SlotId>,
    channels: Cache<ChannelId, Channel, Waiting>,
    users: Cache<Name, User, Waiting>,
    reads: Map<ReadId, Purpose>,
    next_read: u64,
    /// Digests that are being read from several slots.
    digests: Map<u64, Gathering>,
    next_gathering: u64,
    /// Questions to other slots, by number: the channel whose gate waits.
    questions: Map<u64, ChannelId>,
    next_question: u64,
    /// Bytes handed to the state lane that it has not taken over.
    state_queue_size: usize,

    jobs: VecDeque<Job>,
    targets: Vec<ConnId>,
    open_requests: Set<RequestToken>,
    request_deadlines: VecDeque<(u64, RequestToken)>,
    next_housekeeping_ms: u64,
    next_retry_scan_ms: u64,
    vars: Vars,

    /// Envelopes for this shard itself, handled before the next event.
    local: VecDeque<Envelope>,
    out: Outbox,
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
            rng,
            ids: MessageIds::new(settings.node, id, settings.shard_count),
            server_key: None,
            empty: "".into(),
            draining: false,
            conns: Vec::new(),
            connection_count: 0,
            session_count: 0,
            silence: BinaryHeap::new(),
            directory: Map::default(),
            slots: Map::default(),
            dirty: Set::default(),
            channels: Cache::default(),
            users: Cache::default(),
            reads: Map::default(),
            next_read: 0,
            digests: Map::default(),
            next_gathering: 0,
            questions: Map::default(),
            next_question: 0,
            state_queue_size: 0,
            jobs: VecDeque::new(),
            targets: Vec::new(),
            open_requests: Set::default(),
            request_deadlines: VecDeque::new(),
            next_housekeeping_ms: 0,
            next_retry_scan_ms: 0,
            vars: Vars::default(),
            local: VecDeque::new(),
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
        self.handle_local();
        self.deliver_slice();
        self.flush_slots();
        self.handle_local();
        let size_max = self.settings.cache_size_max / 2;
        self.channels.shrink(size_max, Channel::has_gated);
        self.users.shrink(size_max, |_| false);
        std::mem::swap(&mut self.out, outbox);
        Stepped { more: !self.jobs.is_empty(), wake_at_ms: self.wake_at_ms() }
    }

    /// Whether nothing waits here: no send or change without its answer. For [`Event::Drain`].
    pub fn is_idle(&self) -> bool {
        self.jobs.is_empty()
            && self.open_requests.is_empty()
            && self.slots.values().all(Slot::is_idle)
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
                self.slots.insert(slot, Slot::new(*rows));
                let slot_count = self.settings.slot_count;
                self.channels.forget(|channel| channel.slot(slot_count) == slot);
                self.users.forget(|uid| SlotId::of(uid, slot_count) == slot);
            }
            Event::Leading { slot, leading: false } => self.resign(slot),
            Event::Leading { slot, leading: true } => {
                let Some(state) = self.slots.get_mut(&slot) else {
                    return;
                };
                state.leading = true;
                let targets = state.outbox_targets();
                self.send_outbox(slot, &targets);
                self.mark_dirty(slot);
            }
            Event::Remote { envelope, .. } => self.on_envelope(envelope),
            Event::Leader { .. } | Event::Leases(_) | Event::Peer { .. } => {}
            Event::Committed { slot, log_id, body } => self.on_committed(slot, log_id, body),
            Event::ProposeFailed { slot, proposal } => self.on_propose_failed(slot, proposal),
            Event::Read { id, rows } => self.on_rows(id, rows),
            Event::Persisted { size } => {
                self.state_queue_size = self.state_queue_size.saturating_sub(size);
            }
            Event::Drain => self.draining = true,
        }
    }

    fn on_envelope(&mut self, envelope: Envelope) {
        match envelope {
            Envelope::Send(task) => self.on_send(task),
            Envelope::Sent { origin, message_id, seq, code } => {
                self.on_sent(origin, message_id, seq, code);
            }
            Envelope::Login(login) => self.on_login(login),
            Envelope::LoggedIn { conn, uid, outcome, send_ban } => {
                self.on_logged_in(conn, uid, outcome, send_ban);
            }
            Envelope::Left { conn, uid } => self.on_left(conn, &uid),
            Envelope::Kick { conn, text } => self.on_kick(conn, text.as_deref()),
            Envelope::SendBan { conn, banned } => self.on_send_ban(conn, banned),
            Envelope::Ask { from, id, question } => self.on_ask(from, id, question),
            Envelope::Answer { id, code } => self.on_answer(id, code),
            Envelope::Deliver { message, uids, except } => self.on_deliver(message, uids, except),
            Envelope::FanOut { message, base, except } => self.on_fan_out(message, base, except),
            Envelope::Push { message, conns } => self.push(&message, &conns),
            Envelope::Request { from, token, request } => {
                self.on_shard_request(from, token, *request);
            }
            Envelope::Reply { token, reply } => self.on_reply(token, *reply),
            Envelope::Outbox { source, target, index, changes } => {
                self.on_outbox(source, target, index, changes);
            }
            Envelope::OutboxTaken { source, target, index } => {
                self.on_outbox_taken(source, target, index);
            }
        }
    }

    fn handle_local(&mut self) {
        while let Some(envelope) = self.local.pop_front() {
            self.on_envelope(envelope);
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
        self.answer_overdue_requests();
        if now >= self.next_housekeeping_ms {
            self.next_housekeeping_ms = now + HOUSEKEEPING_MS;
            self.answer_overdue();
            self.look_after_outboxes();
        }
        if now >= self.next_retry_scan_ms {
            self.next_retry_scan_ms = now + self.settings.retry_scan_ms;
            self.repeat_unacked();
        }
    }

    /// When something is due though nothing happens.
    fn wake_at_ms(&self) -> Option<u64> {
        let silence = self.silence.peek().map(|Reverse((due, _))| *due);
        let request = self.request_deadlines.front().map(|(due, _)| *due);
        let busy = self.slots.values().any(|slot| {
            !slot.proposals.is_empty() || !slot.sending.is_empty() || !slot.taken.is_empty()
        });
        let housekeeping = busy.then_some(self.next_housekeeping_ms);
        let retry = (self.session_count > 0).then_some(self.next_retry_scan_ms);
        [silence, request, housekeeping, retry].into_iter().flatten().min()
    }

    /// Sends an envelope; one for this shard is handled before the next event.
    fn send(&mut self, to: ShardId, envelope: Envelope) {
        if to == self.id {
            self.local.push_back(envelope);
        } else {
            self.out.effects.push(Effect::Send { to, envelope });
        }
    }

    fn shard_of(&self, id: &str) -> ShardId {
        ShardId::of(SlotId::of(id, self.settings.slot_count), self.settings.shard_count)
    }

    fn leads(&self, slot: SlotId) -> bool {
        self.slots.get(&slot).is_some_and(|slot| slot.leading)
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

    fn vars(&self) -> Vars {
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        Vars {
            connections: self.connection_count,
            sessions: self.session_count,
            online_users: count(self.directory.len()),
            unacked: self.conns.iter().flatten().fold(0, |sum, entry| {
                sum + entry.link.session.live().map_or(0, |live| count(live.unacked.count()))
            }),
            slots_leading: count(self.slots.values().filter(|slot| slot.leading).count()),
            channels_cached: count(self.channels.count()),
            users_cached: count(self.users.count()),
            ..self.vars
        }
    }
}
