//! What one shard sends another. The same vocabulary will cross node links.

use crate::{
    code::Code,
    entry::ConversationChange,
    id::{ChannelId, ConnId, Name, ShardId, SlotId},
    message::SharedMessage,
    request::{Reply, Request, RequestToken},
};

/// Who waits for the outcome of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A client's SEND.
    Session {
        /// Its connection.
        conn: ConnId,
        /// Comes back in SENDACK.
        client_seq: u32,
        /// Echoed in SENDACK.
        flags: u8,
        /// The JSON-RPC request's place in its session, 0 for binary clients.
        rpc: u64,
    },
    /// A request of the API.
    Api {
        /// The shard that waits.
        shard: ShardId,
        /// Its caller.
        token: RequestToken,
    },
}

/// A message on its way to its channel's slot.
#[derive(Clone, Debug)]
pub struct SendTask {
    /// The message; seq 0, timestamp not set.
    pub message: crate::message::Message,
    /// Recipients that come with the send; `None`: those of the channel.
    pub recipients: Option<Vec<Name>>,
    /// The sender is the system device: sender checks pass (protocol.md §4.3).
    pub trusted: bool,
    /// Who waits.
    pub origin: Origin,
}

/// What a session proves itself with, asked of the uid's home.
#[derive(Clone, Debug)]
pub struct Login {
    /// The connection.
    pub conn: ConnId,
    /// The user.
    pub uid: Name,
    /// The device flag.
    pub device_flag: u8,
    /// The device.
    pub device_id: Name,
    /// The token as sent.
    pub token: Name,
}

/// A rule of another slot that a send depends on (design.md §2a, reads before the entry).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// May `sender` write to the user `receiver`? Answered by the receiver's home.
    Person {
        /// Who writes.
        sender: Name,
        /// To whom.
        receiver: Name,
    },
    /// May `sender` write to `channel`? Answered by that channel's slot; flags are not looked at.
    Member {
        /// Who writes.
        sender: Name,
        /// The base channel.
        channel: ChannelId,
    },
}

/// Between shards.
#[derive(Clone, Debug)]
pub enum Envelope {
    /// To the slot of `message.channel`.
    Send(Box<SendTask>),
    /// To the session's shard.
    Sent {
        /// Who waits.
        origin: Origin,
        /// The message's id.
        message_id: i64,
        /// Its seq.
        seq: u64,
        /// Success, or why not.
        code: Code,
    },
    /// To the uid's home.
    Login(Box<Login>),
    /// Back to the session's shard.
    LoggedIn {
        /// The connection.
        conn: ConnId,
        /// The user.
        uid: Name,
        /// The level of the device, or the reason of the refusal.
        outcome: Result<u8, Code>,
        /// The user may not send (25).
        send_ban: bool,
    },
    /// To the uid's home: the session is over.
    Left {
        /// The connection.
        conn: ConnId,
        /// The user.
        uid: Name,
    },
    /// To the session's shard: it ends, with this DISCONNECT text or without a frame.
    Kick {
        /// The connection.
        conn: ConnId,
        /// The text; `None`: no frame.
        text: Option<Name>,
    },
    /// To the session's shard: the user's send ban changed.
    SendBan {
        /// The connection.
        conn: ConnId,
        /// Whether the user may not send.
        banned: bool,
    },
    /// To another slot's leader.
    Ask {
        /// Who asks.
        from: ShardId,
        /// Names the question there.
        id: u64,
        /// The question.
        question: Question,
    },
    /// Back.
    Answer {
        /// Names the question.
        id: u64,
        /// Success, or why not.
        code: Code,
    },
    /// To the homes of these uids, all of the target shard.
    Deliver {
        /// The message.
        message: SharedMessage,
        /// The recipients.
        uids: std::sync::Arc<[Name]>,
        /// The connection that sent it and gets no RECV.
        except: Option<ConnId>,
    },
    /// To the slot of a base channel: deliver a command message to its recipients.
    FanOut {
        /// The message of the command channel.
        message: SharedMessage,
        /// The base channel.
        base: ChannelId,
        /// The connection that sent it.
        except: Option<ConnId>,
    },
    /// To the shard of these connections.
    Push {
        /// The message.
        message: SharedMessage,
        /// The connections, each with whether its user is the sender.
        conns: Vec<ConnId>,
    },
    /// A request of another shard's API.
    Request {
        /// The shard that waits.
        from: ShardId,
        /// Its caller.
        token: RequestToken,
        /// What it asks.
        request: Box<Request>,
    },
    /// Back.
    Reply {
        /// The caller.
        token: RequestToken,
        /// The answer.
        reply: Box<Reply>,
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
}
