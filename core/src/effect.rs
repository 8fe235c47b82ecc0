//! The seam between the rules and the world: events in, effects out.
//!
//! `Shard::step(now, inbox, outbox)` reads events and writes effects and does nothing else. The
//! driver (for real: `jindou-net` and `src/`; in tests: a simulator) gathers the one and performs
//! the other, in order.

use std::{net::SocketAddr, ops::Range, sync::Arc};

use bytes::Bytes;

use crate::{
    envelope::Envelope,
    id::{ConnId, LogId, Name, NodeId, ShardId, SlotId},
    notice::Telling,
    request::{Reply, Request, RequestToken, Target},
    row::{Persist, Read, Rows, SlotRows},
};

/// The time of a step, passed in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Unix time in milliseconds. May jump.
    pub unix_ms: i64,
    /// Milliseconds of a clock that never goes back, from any origin. For deadlines.
    pub mono_ms: u64,
}

/// Which listener accepted a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// Frames straight on TCP.
    Tcp,
    /// WebSocket.
    Ws,
}

/// Names a read of the state store that is under way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ReadId(pub u64);

/// What a committed entry holds.
#[derive(Clone, Debug)]
pub enum Committed {
    /// Nothing (a leader's first entry).
    Blank,
    /// An archived [`crate::entry::Entry`].
    Entry(Bytes),
    /// A change of the group's members, opaque to the core.
    Membership(Bytes),
}

/// Another node, as seen by one shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// What is sent from now on arrives in order, until it is down.
    Up {
        /// Drawn by the node at its start: with another one, all its sessions are new.
        incarnation: u64,
        /// Its shards.
        shard_count: u16,
    },
    /// What was sent since it came up may be lost, whole or in part, but nothing after a loss
    /// arrives.
    Down,
    /// It has been down for so long that it counts as dead: its sessions are gone.
    Dead,
}

/// The target on another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// The shard that holds this slot there.
    Slot(SlotId),
    /// This shard.
    Shard(ShardId),
}

/// What happened, as the driver tells it.
#[derive(Debug)]
pub enum Event {
    /// A socket was accepted. The driver chose the id.
    Opened {
        /// The connection.
        conn: ConnId,
        /// The listener.
        port: Port,
        /// The other end.
        peer: SocketAddr,
    },
    /// Bytes came; they stand in [`Inbox::bytes`].
    Bytes {
        /// The connection.
        conn: ConnId,
        /// Where in the inbox.
        range: Range<usize>,
    },
    /// The socket is gone (closed by the peer, failed, or its output was over the bound). Nothing
    /// follows for this connection.
    Closed {
        /// The connection.
        conn: ConnId,
    },
    /// From another shard of this node.
    Envelope(Envelope),
    /// From this shard's API.
    Request {
        /// Names the caller.
        token: RequestToken,
        /// Where it goes.
        to: Target,
        /// What it asks.
        request: Request,
    },
    /// A slot of this shard is ready to take entries: its rows, read at start or after a
    /// snapshot was installed. Everything known of the slot before is void.
    SlotOpened {
        /// The slot.
        slot: SlotId,
        /// What must be in memory.
        rows: Box<SlotRows>,
    },
    /// The slot's leader is this shard, or is not any more.
    Leading {
        /// The slot.
        slot: SlotId,
        /// Whether it leads and its own first entry is committed.
        leading: bool,
    },
    /// Who leads a slot of this shard changed, as this node's replica or a peer's word has it. Higher
    /// terms win; `None`: nobody is known.
    Leader {
        /// The slot.
        slot: SlotId,
        /// The leader's node; may be this one, then [`Event::Leading`] tells when it serves.
        leader: Option<NodeId>,
        /// The leader's term.
        term: u64,
    },
    /// For these slots, which this shard leads, a majority of the voters can elect nobody else before
    /// the given `Now::mono_ms`: until then what is in memory is the newest there is (G7).
    Leases(Vec<(SlotId, u64)>),
    /// The links between this shard and the shards of another node came up or went down.
    Peer {
        /// The other node.
        node: NodeId,
        /// How it is now.
        state: PeerState,
    },
    /// From a shard of another node, in the order in which that shard sent.
    Remote {
        /// The node that sent.
        from: NodeId,
        /// What.
        envelope: Envelope,
    },
    /// An entry of a slot is committed. In index order; the next one may come before
    /// [`Effect::Applied`] of this one.
    Committed {
        /// The slot.
        slot: SlotId,
        /// Its position.
        log_id: LogId,
        /// What it holds.
        body: Committed,
    },
    /// A proposal will not be committed by this leader, or it is not known whether (leadership
    /// was lost). Callers get a retryable answer.
    ProposeFailed {
        /// The slot.
        slot: SlotId,
        /// The number given in [`Effect::Propose`].
        proposal: u64,
    },
    /// The answer to [`Effect::Read`].
    Read {
        /// Names the read.
        id: ReadId,
        /// The rows.
        rows: Rows,
    },
    /// The state lane has taken over this many bytes of [`Effect::Persist`] (see
    /// [`Outbox::persist_size`]).
    Persisted {
        /// Bytes.
        size: usize,
    },
    /// The process is told to stop. Alone, it takes no new sends, and waiting ones finish. With
    /// peers it goes on serving while its slots are handed over, and after that through their new
    /// leaders, so that clients see no error.
    Drain,
    /// The receiver of webhooks has taken a [`Telling`], or there is none for it.
    Told {
        /// The slot.
        slot: SlotId,
        /// [`Telling::life`].
        life: u64,
        /// [`Telling::number`].
        number: u64,
    },
    /// The datasource has been asked for system accounts, at the start or by [`Effect::AskSystems`].
    SystemsSourced {
        /// Their uids, which count beside those of group 0; `None`: it has not answered.
        uids: Option<Arc<[Name]>>,
    },
}

/// What a step asks of the world; performed in order, after `step` returns.
#[derive(Debug)]
pub enum Effect {
    /// Bytes for a connection; they stand in [`Outbox::bytes`].
    Write {
        /// The connection.
        conn: ConnId,
        /// Where in the outbox.
        range: Range<usize>,
    },
    /// The connection ends: what was written before leaves first, then the socket closes. No
    /// [`Event::Closed`] follows.
    Close {
        /// The connection.
        conn: ConnId,
    },
    /// To another shard of this node; the driver publishes once per target and step.
    Send {
        /// The target.
        to: ShardId,
        /// What.
        envelope: Envelope,
    },
    /// To a shard of another node. Kept in order per target; lost when the links go down, which
    /// [`Event::Peer`] tells. Without a link it is dropped.
    Forward {
        /// The node.
        to: NodeId,
        /// Which of its shards.
        place: Place,
        /// What.
        envelope: Envelope,
    },
    /// This shard has learned who leads a slot: for the node's routes and its health.
    LeaderKnown {
        /// The slot.
        slot: SlotId,
        /// The leader's node.
        leader: Option<NodeId>,
    },
    /// A key of the cluster's own state has a new value (group 0, applied here).
    ClusterKey {
        /// The key.
        key: String,
        /// The value.
        value: Bytes,
    },
    /// An entry for a slot that this shard leads.
    Propose {
        /// The slot.
        slot: SlotId,
        /// Comes back in [`Event::ProposeFailed`].
        proposal: u64,
        /// An archived [`crate::entry::Entry`].
        entry: Bytes,
    },
    /// State and applied position, for the state lane; not fsynced (the log is the truth).
    Persist(Persist),
    /// The committed entry has been applied and its [`Effect::Persist`] handed over.
    Applied {
        /// The slot.
        slot: SlotId,
        /// Its position.
        log_id: LogId,
    },
    /// A question to the state lane.
    Read {
        /// Comes back in [`Event::Read`].
        id: ReadId,
        /// The slot it concerns.
        slot: SlotId,
        /// What.
        read: Read,
    },
    /// The answer to [`Event::Request`].
    Reply {
        /// Names the caller.
        token: RequestToken,
        /// The answer.
        reply: Reply,
    },
    /// Something an operator should know; the driver logs it. Never holds tokens or content.
    Warn(String),
    /// Something to tell the receiver of webhooks. Bounded: a slot has a window of them under way,
    /// until [`Event::Told`].
    Tell(Telling),
    /// A send hangs on what the datasource says: it is to be asked now.
    /// [`Event::SystemsSourced`] answers.
    AskSystems,
}

/// Events of one step.
#[derive(Debug, Default)]
pub struct Inbox {
    /// In the order in which they happened.
    pub events: Vec<Event>,
    /// The bytes that [`Event::Bytes`] points at.
    pub bytes: Vec<u8>,
}

impl Inbox {
    /// Adds bytes that came for a connection.
    pub fn push_bytes(&mut self, conn: ConnId, bytes: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.events.push(Event::Bytes { conn, range: start..self.bytes.len() });
    }

    /// Forgets what was read; keeps the memory.
    pub fn clear(&mut self) {
        self.events.clear();
        self.bytes.clear();
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

/// Effects of one step.
#[derive(Debug, Default)]
pub struct Outbox {
    /// In the order in which they must happen.
    pub effects: Vec<Effect>,
    /// The bytes that [`Effect::Write`] points at.
    pub bytes: Vec<u8>,
}

impl Outbox {
    /// Forgets what was performed; keeps the memory.
    pub fn clear(&mut self) {
        self.effects.clear();
        self.bytes.clear();
    }

    /// What one [`Persist`] counts for, in bytes: the same on both sides of the seam.
    pub fn persist_size(persist: &Persist) -> usize {
        persist.rows.iter().map(crate::row::Row::size).sum::<usize>() + 64
    }
}

/// What `step` leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stepped {
    /// There is work left that needs no event (a large fan-out in slices): step again soon, after
    /// other tasks had a turn.
    pub more: bool,
    /// Step again at this time (`Now::mono_ms`) at the latest.
    pub wake_at_ms: Option<u64>,
}

/// Who performs the effects that are not about connections or rings: for real the wiring in
/// `src/`, in tests a simulator. Called on the shard's thread, must not block.
pub trait Executor {
    /// [`Effect::Propose`].
    fn propose(&mut self, slot: SlotId, proposal: u64, entry: Bytes);
    /// [`Effect::Persist`].
    fn persist(&mut self, persist: Persist);
    /// [`Effect::Applied`].
    fn applied(&mut self, slot: SlotId, log_id: LogId);
    /// [`Effect::Read`].
    fn read(&mut self, id: ReadId, slot: SlotId, read: Read);
    /// [`Effect::Forward`].
    fn forward(&mut self, to: NodeId, place: Place, envelope: Envelope);
    /// [`Effect::LeaderKnown`].
    fn leader_known(&mut self, slot: SlotId, leader: Option<NodeId>);
    /// [`Effect::ClusterKey`].
    fn cluster_key(&mut self, key: String, value: Bytes);
    /// [`Effect::Reply`].
    fn reply(&mut self, token: RequestToken, reply: Reply);
    /// [`Effect::Warn`].
    fn warn(&mut self, text: &str);
    /// [`Effect::Tell`].
    fn tell(&mut self, telling: Telling);
    /// [`Effect::AskSystems`].
    fn ask_systems(&mut self);
}
