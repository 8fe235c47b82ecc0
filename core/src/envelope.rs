//! What one shard tells another, on the same node or across a link ([`crate::link`] has the bytes).
//!
//! Three ways of telling, each with its own remedy against loss:
//!
//! - A **send** is kept by the session's shard until [`Envelope::Sent`] and sent again, in order.
//! - An **ask** (request, login, question) is kept by whoever asks until [`Envelope::Answer`].
//! - A **parcel** (delivery, push, kick) is kept until [`Envelope::Delivered`], in order.
//!
//! Everything else heals by itself: it is told again when a link comes up or a leader changes.

use std::sync::Arc;

use rkyv::{Archive, Deserialize, Serialize, with};

use crate::{
    code::Code,
    entry::{AsText, AsTexts, ConversationChange, Shared},
    id::{ChannelId, ConnId, Name, NodeId, SessionAddr, ShardAddr, SlotId},
    message::{Message, SharedMessage},
    request::{Reply, Request, RequestToken},
};

/// Who waits for the outcome of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Origin {
    /// A client's SEND.
    Session {
        /// Its session.
        session: SessionAddr,
        /// Comes back in SENDACK.
        client_seq: u32,
        /// Echoed in SENDACK.
        flags: u8,
        /// The JSON-RPC request's place in its session, 0 for binary clients.
        rpc: u64,
    },
    /// A request of the API of the shard that keeps the send.
    Api {
        /// Its caller.
        token: RequestToken,
    },
}

impl Origin {
    /// The session that gets no RECV of its own message.
    pub fn session(&self) -> Option<SessionAddr> {
        match self {
            Self::Session { session, .. } => Some(*session),
            Self::Api { .. } => None,
        }
    }
}

/// A message on its way to its channel's slot, as the shard that keeps it sends it.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct SendTask {
    /// The message; seq 0, timestamp not set.
    pub message: Message,
    /// Recipients that come with the send; `None`: those of the channel.
    #[rkyv(with = with::Map<AsTexts>)]
    pub recipients: Option<Vec<Name>>,
    /// The sender is the system device: sender checks pass (protocol.md §4.3).
    pub trusted: bool,
    /// Who waits.
    pub origin: Origin,
    /// The shard that keeps it until it is answered.
    pub from: ShardAddr,
    /// Its place among the sends of that shard to that slot. Begins anywhere.
    pub number: u64,
}

/// The how-manieth time a shard sends what it keeps for one target. Within one epoch everything
/// arrives in order, and nothing after a loss or a refusal counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Archive, Serialize, Deserialize)]
pub struct Epoch {
    /// Drawn by the shard at its start.
    pub life: u64,
    /// Counts up in that life.
    pub count: u32,
}

impl Epoch {
    /// Whether this is the other one or came before it in the same life.
    pub fn is_until(self, other: Self) -> bool {
        self.life == other.life && self.count <= other.count
    }
}

/// What a session proves itself with, asked of the uid's home.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Login {
    /// The session.
    pub session: SessionAddr,
    /// The user.
    #[rkyv(with = AsText)]
    pub uid: Name,
    /// The device flag.
    pub device_flag: u8,
    /// The device.
    #[rkyv(with = AsText)]
    pub device_id: Name,
    /// The token as sent.
    #[rkyv(with = AsText)]
    pub token: Name,
    /// Unix ms of the CONNECT.
    pub since_ms: i64,
}

/// A rule of another slot that a send depends on (design.md §2a, reads before the entry).
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Question {
    /// May `sender` write to the user `receiver`? Answered by the receiver's home.
    Person {
        /// Who writes.
        #[rkyv(with = AsText)]
        sender: Name,
        /// To whom.
        #[rkyv(with = AsText)]
        receiver: Name,
    },
    /// May `sender` write to `channel`? Answered by that channel's slot; flags are not looked at.
    Member {
        /// Who writes.
        #[rkyv(with = AsText)]
        sender: Name,
        /// The base channel.
        channel: ChannelId,
    },
    /// May `sender` have a command stored for the recipients of `base`, and has each of them a row
    /// for its position? Answered by that channel's slot when they have.
    Commands {
        /// Who writes.
        #[rkyv(with = AsText)]
        sender: Name,
        /// The sender checks pass.
        trusted: bool,
        /// The base channel.
        base: ChannelId,
    },
}

/// What is asked of a slot's leader, or of a certain shard.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Ask {
    /// A request of the API.
    Request(Request),
    /// May this session in?
    Login(Login),
    /// A rule.
    Question(Question),
    /// Who of these uids of one slot has no master session?
    Absent {
        /// The uids.
        #[rkyv(with = AsTexts)]
        uids: Arc<[Name]>,
    },
    /// Who gets the messages of a channel?
    Recipients {
        /// The channel.
        channel: ChannelId,
    },
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Ask::Request`].
    Reply(Reply),
    /// To [`Ask::Login`]: the session is known at its home.
    Welcome {
        /// The session: if it is gone meanwhile its home must forget it.
        session: SessionAddr,
        /// The user.
        #[rkyv(with = AsText)]
        uid: Name,
        /// The level of the device.
        level: u8,
        /// The user may not send (25).
        send_ban: bool,
    },
    /// To [`Ask::Login`] and [`Ask::Question`]: success, or why not.
    Code(Code),
    /// Whoever was asked does not lead the slot (any more): ask again. Whether a change was carried
    /// out is not known.
    NotLeader,
    /// To [`Question::Commands`]: success, and the command's entry makes the sender's row.
    OpensSender,
    /// To [`Ask::Absent`] and [`Ask::Recipients`].
    Uids(#[rkyv(with = AsTexts)] Arc<[Name]>),
}

/// Where a message's place is, or why it has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum SendOutcome {
    /// Final.
    Done {
        /// The message's id; the first one's for a repeated client number.
        message_id: i64,
        /// Its seq; 0 when it is not stored.
        seq: u64,
        /// Success, or why not.
        code: Code,
    },
    /// Not carried out, or not known whether: nothing later of this epoch is carried out either.
    Again,
}

/// Uids of one slot.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Part {
    /// The slot.
    pub slot: SlotId,
    /// The uids.
    #[rkyv(with = AsTexts)]
    pub uids: Arc<[Name]>,
}

/// What a shard must take in order, and exactly as far as it says.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Content {
    /// To the home of these uids.
    Deliver {
        /// The message.
        #[rkyv(with = Shared)]
        message: SharedMessage,
        /// The recipients.
        parts: Vec<Part>,
        /// Who gets no RECV.
        except: Except,
    },
    /// To the slot of a base channel: deliver a command message to its recipients.
    FanOut {
        /// The message of the command channel.
        #[rkyv(with = Shared)]
        message: SharedMessage,
        /// The base channel.
        base: ChannelId,
        /// Who gets no RECV.
        except: Except,
    },
    /// To the shard of these connections.
    Push {
        /// The message.
        #[rkyv(with = Shared)]
        message: SharedMessage,
        /// The connections.
        conns: Vec<ConnId>,
    },
    /// To the session's shard: it ends, with this DISCONNECT text or without a frame.
    Kick {
        /// The connection.
        conn: ConnId,
        /// The text; `None`: no frame.
        #[rkyv(with = with::Map<AsText>)]
        text: Option<Name>,
    },
    /// To a shard that was away: pushes to these sessions went by, or may have. They end, without
    /// a frame, so that their clients come again and read.
    EndSessions {
        /// Of these connections.
        conns: Vec<ConnId>,
        /// Of the users of these slots.
        slots: Vec<SlotId>,
    },
    /// To the session's shard: the user's send ban changed.
    SendBan {
        /// The connection.
        conn: ConnId,
        /// Whether the user may not send.
        banned: bool,
    },
    /// To every shard: who the system accounts are.
    Systems {
        /// The index of the entry of group 0 that made the list.
        version: u64,
        /// All of them.
        #[rkyv(with = AsTexts)]
        uids: Vec<Name>,
    },
}

/// Which sessions of the recipients get no RECV.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Except {
    /// All get it.
    None,
    /// The one that sent it.
    Sender(SessionAddr),
    /// Those that logged in after this Unix time in ms. A new leader delivers again what may not have
    /// been; the message was committed before, so they have read it, or can (G7), and newer ones may
    /// have come to them already (G6).
    Since(i64),
}

/// How far the clocks of two nodes may be apart, in milliseconds, before a session may be left out
/// by mistake. In doubt it is served: it knows what it has got.
const SKEW_MS: i64 = 1_000;

impl Except {
    /// Whether this session is left out.
    pub fn leaves_out(self, session: SessionAddr, since_ms: i64) -> bool {
        match self {
            Self::None => false,
            Self::Sender(sender) => sender == session,
            Self::Since(ms) => since_ms > ms.saturating_add(SKEW_MS),
        }
    }
}

impl From<Option<SessionAddr>> for Except {
    fn from(sender: Option<SessionAddr>) -> Self {
        sender.map_or(Self::None, Self::Sender)
    }
}

/// What the sender of a parcel wants to hear back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Receipt {
    /// Who keeps it.
    pub from: ShardAddr,
    /// Which time it is sent.
    pub epoch: Epoch,
    /// The number of the first parcel of the epoch.
    pub begin: u64,
    /// Its place among the parcels from there to here; `begin` or directly above the one before.
    pub number: u64,
}

/// A session as its own shard announces it to its user's home.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Announced {
    /// The user.
    #[rkyv(with = AsText)]
    pub uid: Name,
    /// The connection.
    pub conn: ConnId,
    /// The device flag.
    pub device_flag: u8,
    /// The level of the device.
    pub level: u8,
    /// The device.
    #[rkyv(with = AsText)]
    pub device_id: Name,
    /// Unix ms of its CONNECT: of two that exclude each other the younger stays.
    pub since_ms: i64,
}

/// Between shards.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Envelope {
    /// To the slot of the message's channel.
    Send {
        /// The send.
        #[rkyv(with = Shared)]
        task: Arc<SendTask>,
        /// Which time it is sent.
        epoch: Epoch,
        /// The number of the send before it in this epoch; its own: it is the first.
        after: u64,
    },
    /// Back to the shard that keeps the send.
    Sent {
        /// The slot.
        slot: SlotId,
        /// The send.
        number: u64,
        /// Which time it was sent.
        epoch: Epoch,
        /// What became of it.
        outcome: SendOutcome,
    },
    /// To a slot's leader, or a certain shard.
    Ask {
        /// Who asks.
        from: ShardAddr,
        /// Names the question there. Begins anywhere.
        id: u64,
        /// What.
        #[rkyv(with = Shared)]
        ask: Arc<Ask>,
    },
    /// Back.
    Answer {
        /// Names the question.
        id: u64,
        /// The answer.
        answer: Box<Answer>,
    },
    /// To the uid's home: the session is over.
    Left {
        /// The session.
        session: SessionAddr,
        /// The user.
        #[rkyv(with = AsText)]
        uid: Name,
    },
    /// To be taken in order.
    Parcel {
        /// `None`: nobody wants to hear what became of it.
        receipt: Option<Receipt>,
        /// What.
        content: Content,
    },
    /// Back to whoever keeps the parcels: these have reached their sessions. Not only the first
    /// ones: what waits may wait for word of a push that came after it.
    Delivered {
        /// Who took them.
        by: ShardAddr,
        /// Everything up to this one.
        number: u64,
        /// Others that came later.
        later: Vec<u64>,
    },
    /// Back to whoever keeps the parcel: its uids of these slots have their home elsewhere. Later
    /// ones of the same epoch come back too.
    NotHome {
        /// Whose home it is not.
        by: ShardAddr,
        /// Which time it was sent.
        epoch: Epoch,
        /// The parcel.
        number: u64,
        /// The slots; those of a base channel too.
        slots: Vec<SlotId>,
    },
    /// To the target slot: take over an outbox row.
    Outbox {
        /// The source slot.
        source: SlotId,
        /// The target slot.
        target: SlotId,
        /// The row.
        index: u64,
        /// What to do.
        changes: Vec<ConversationChange>,
    },
    /// Back to the source slot: the target has committed everything up to `index`.
    OutboxTaken {
        /// The source slot.
        source: SlotId,
        /// The target slot.
        target: SlotId,
        /// The row.
        index: u64,
    },
    /// Who leads a slot, as the sender has it. Higher terms win.
    Leader {
        /// The slot.
        slot: SlotId,
        /// The leader's node; `None`: nobody is known.
        leader: Option<NodeId>,
        /// Its term.
        term: u64,
    },
    /// What this shard sent here before may be lost: ask again, send again.
    Resumed {
        /// Who says so.
        from: ShardAddr,
    },
    /// To a slot's leader: the sessions that a shard has of it, in one or more pieces. Together
    /// they replace what the home knew of that shard.
    Announce {
        /// Whose sessions.
        from: ShardAddr,
        /// The slot of their uids.
        slot: SlotId,
        /// The term of the leader to whom it is told.
        term: u64,
        /// The first piece.
        first: bool,
        /// The last piece.
        last: bool,
        /// The sessions.
        sessions: Vec<Announced>,
    },
}
