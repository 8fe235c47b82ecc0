//! Raft entries: what replicas agree on, and nothing else.
//!
//! An entry carries many commands (design.md §2.3). One rkyv encoding serves the log, the wire
//! and apply. Everything that depends on a clock, on dice or on another slot was decided before
//! the entry was proposed and stands in it, so that apply is a function of state and entry.

use bytes::Bytes;
use rkyv::{Archive, Deserialize, Serialize, rancor};

use crate::{
    channel_info::{ChannelInfo, List, ListChange},
    id::{ChannelId, Name},
    import::Import,
    message::is_stream,
    stream::StreamEvent,
};

mod text;

pub use text::{AsCount, AsText, AsTexts, NamedTimes, Shared};

/// The largest command, and the most that an accumulator may be configured to gather for one entry,
/// in bytes. An entry of that, or an envelope with it, fits the largest frame of a link (16 MiB): one
/// that does not would never reach a follower, and stop its slot.
pub const COMMAND_SIZE_MAX: usize = 8 << 20;

/// One Raft entry of a slot. Its bytes: the head's five numbers as little-endian u64, then the
/// archived commands, so that a leader knows its own entry without decoding it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Who proposed, and which of its proposals.
    pub head: EntryHead,
    /// The commands, in the order in which they take effect.
    pub commands: Vec<Command>,
}

/// How long the slot remembers sends (G4). It is the proposer's setting: nodes may have different
/// ones, replicas must forget alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DedupeWindow {
    /// How many, at most.
    pub count_max: u64,
    /// Milliseconds.
    pub ms: u64,
}

/// The first 40 bytes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHead {
    /// A number that a shard draws at its start, so that a leader finds the callers that wait for
    /// its own entries and nobody answers for another's.
    pub proposer: u64,
    /// The proposer's count of proposals in this slot.
    pub proposal: u64,
    /// Unix time in milliseconds at the leader when it proposed. Apply knows no other time.
    pub time_ms: i64,
    /// What of the sends before this entry is still remembered.
    pub window: DedupeWindow,
}

/// A channel in an entry: stored id and type.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ChannelRef {
    /// The stored id.
    #[rkyv(with = AsText)]
    pub id: Name,
    /// The channel type.
    pub kind: u8,
}

/// A message that asks for a seq. The leader has checked that it may be sent.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct NewMessage {
    /// 63-bit snowflake.
    pub id: i64,
    /// The channel.
    pub channel: ChannelRef,
    /// The sender.
    #[rkyv(with = AsText)]
    pub from: Name,
    /// The sender's idempotency key; empty: not deduplicated.
    #[rkyv(with = AsText)]
    pub client_msg_no: Name,
    /// Bits of [`crate::message::flag`].
    pub flags: u8,
    /// Bits of [`crate::message::setting`].
    pub setting: u8,
    /// Seconds; stored only.
    pub expire: u32,
    /// With the setting bit.
    #[rkyv(with = AsText)]
    pub topic: Name,
    /// Stream number of old clients.
    #[rkyv(with = AsText)]
    pub stream_no: Name,
    /// How receivers see the channel, when it can't be derived.
    #[rkyv(with = rkyv::with::Map<AsText>)]
    pub shown: Option<Name>,
    /// The first message of a person channel opens a conversation for both
    /// (semantics.md §8.2; depends on a setting, so it stands in the entry).
    pub opens_conversations: bool,
    /// Plaintext content.
    pub payload: Bytes,
}

impl NewMessage {
    /// Whether events may be appended to it.
    pub fn is_stream(&self) -> bool {
        is_stream(self.setting, &self.client_msg_no)
    }
}

/// A user's conversation row, as one slot asks another to change it.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ConversationChange {
    /// Whose.
    #[rkyv(with = AsText)]
    pub uid: Name,
    /// Of which channel.
    pub channel: ChannelRef,
    /// What happens.
    pub action: ConversationAction,
}

/// What happens to a conversation row (semantics.md §8.2–8.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum ConversationAction {
    /// A row with this read position, if there is none.
    OpenIfAbsent {
        /// The read position of a new row.
        read_to: u64,
    },
    /// The read position is this, whatever it was; the deletion mark stays.
    Reopen {
        /// The read position.
        read_to: u64,
    },
    /// The read position moves up to this, never back. A row is made if `read_to` > 0.
    ReadTo {
        /// The read position.
        read_to: u64,
    },
    /// Messages up to this seq are hidden; only an existing row changes.
    DeleteTo {
        /// The last hidden seq.
        seq: u64,
    },
    /// The row goes.
    Remove,
    /// The read position moves up to this, never back; only an existing row changes.
    AckTo {
        /// The read position.
        read_to: u64,
    },
}

/// One change of a slot's state.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Command {
    /// Stores a message.
    Message(NewMessage),
    /// Writes all flags of a channel, and makes it if there is none.
    SetInfo {
        /// The channel.
        channel: ChannelRef,
        /// Its flags. `None`: default flags, and only if the channel does not exist.
        info: Option<ChannelInfo>,
    },
    /// Sets the disband flag of an existing channel.
    Disband {
        /// The channel.
        channel: ChannelRef,
    },
    /// Changes a list of a channel, and through the outbox the conversations that follow.
    ChangeList {
        /// The channel.
        channel: ChannelRef,
        /// Which list.
        list: List,
        /// How.
        change: ListChange,
        /// Whom. Never blank.
        #[rkyv(with = AsTexts)]
        uids: Vec<Name>,
    },
    /// Registers the token of a user's device.
    SetToken {
        /// The user.
        #[rkyv(with = AsText)]
        uid: Name,
        /// The device flag.
        device_flag: u8,
        /// 0 slave, 1 master.
        device_level: u8,
        /// The token; empty: nobody can log in with it.
        token: String,
        /// Only if there is a row for the device already (device_quit).
        only_existing: bool,
    },
    /// Changes a conversation of a user of this slot.
    Conversation(ConversationChange),
    /// Commands that another slot's outbox sends. Takes effect once per (source, index).
    FromOutbox {
        /// The slot that sent.
        source: u16,
        /// The index of the entry there that made the row. One row per entry and target.
        index: u64,
        /// What to do here.
        changes: Vec<ConversationChange>,
    },
    /// The targets have committed: the outbox rows up to `index` for `target` go.
    OutboxDone {
        /// The slot that has committed.
        target: u16,
        /// The index up to which.
        index: u64,
    },
    /// A key of the cluster's own state (group 0 only): the first value written stands.
    SetClusterKey {
        /// The key, e.g. `jwt_secret`.
        key: String,
        /// The value.
        value: Vec<u8>,
    },
    /// A key of the cluster's own state becomes this value; an empty one: it goes.
    WriteClusterKey {
        /// The key.
        key: String,
        /// The value.
        value: Vec<u8>,
    },
    /// Stores a message whose recipients came with the send.
    MessageTo {
        /// The message. Boxed: no command may take more room in an entry than the largest of the
        /// first release, or its entries could not be read any more.
        message: Box<NewMessage>,
        /// The recipients. Not stored; whoever leads later delivers to them.
        #[rkyv(with = AsTexts)]
        recipients: Vec<Name>,
    },
    /// What entries up to this index have stored has reached those who were online. Not state:
    /// followers forget what they keep to deliver when they come to lead.
    Delivered {
        /// The index.
        index: u64,
    },
    /// Adds or removes system accounts (group 0 only).
    ChangeSystems {
        /// They are added; else they go.
        add: bool,
        /// Whom. Never blank.
        #[rkyv(with = AsTexts)]
        uids: Vec<Name>,
    },
    /// Appends an event to a stream.
    StreamEvent(Box<StreamEvent>),
    /// A channel wants a client number for a stream.
    ClaimStream(Box<StreamClaim>),
    /// Makes the rows in which the positions of recipients in the commands of a channel stand.
    OpenCommands {
        /// The base channel.
        base: ChannelRef,
        /// Who has none, as far as the leader knows.
        #[rkyv(with = AsTexts)]
        uids: Vec<Name>,
    },
    /// Commands up to these positions were handed out to a user; earlier positions are void.
    HandOut {
        /// The user.
        #[rkyv(with = AsText)]
        uid: Name,
        /// By command channel.
        positions: Vec<(ChannelRef, u64)>,
    },
    /// A user has got what was handed out to it.
    TakeHanded {
        /// The user.
        #[rkyv(with = AsText)]
        uid: Name,
    },
    /// A session began or ended, and the receiver of webhooks is to be told.
    TellStatus {
        /// [`crate::notice::Notice::Status`].
        #[rkyv(with = AsText)]
        item: Name,
    },
    /// Notices have been taken, or are given up: they go.
    NoticesDone {
        /// The number up to which.
        up_to: u64,
        /// [`crate::notice::NoticeRow::total`] of that one.
        total: u64,
    },
    /// Writes a piece of an import from another server.
    Import(Box<Import>),
}

/// Which channel wants a client number.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct StreamClaim {
    /// The client number.
    #[rkyv(with = AsText)]
    pub client_msg_no: Name,
    /// The channel.
    pub channel: ChannelId,
    /// Whose the stream is; empty: not known.
    #[rkyv(with = AsText)]
    pub from: Name,
    /// Whoever has it loses it: a message is sent under that number.
    pub replaces: bool,
}

/// An entry whose bytes do not hold an entry.
#[derive(Debug, thiserror::Error)]
#[error("the entry does not decode: {0}")]
pub struct EntryError(String);

impl From<&ChannelId> for ChannelRef {
    fn from(channel: &ChannelId) -> Self {
        Self { id: channel.id.clone(), kind: channel.kind }
    }
}

impl From<&ChannelRef> for ChannelId {
    fn from(channel: &ChannelRef) -> Self {
        Self { id: channel.id.clone(), kind: channel.kind }
    }
}

/// The archived form of the changes that one outbox row holds.
pub fn encode_changes(changes: &Vec<ConversationChange>) -> Result<Bytes, EntryError> {
    let bytes = rkyv::to_bytes::<rancor::Error>(changes).map_err(|e| EntryError(e.to_string()))?;
    Ok(Bytes::copy_from_slice(&bytes))
}

/// Reads an outbox row. The bytes come from a disk: they are validated.
pub fn decode_changes(bytes: &[u8]) -> Result<Vec<ConversationChange>, EntryError> {
    rkyv::from_bytes::<Vec<ConversationChange>, rancor::Error>(bytes)
        .map_err(|e| EntryError(e.to_string()))
}

impl EntryHead {
    const SIZE: usize = 40;

    /// Reads the head, `None` if there are not enough bytes.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (proposer, rest) = bytes.split_first_chunk::<8>()?;
        let (proposal, rest) = rest.split_first_chunk::<8>()?;
        let (time_ms, rest) = rest.split_first_chunk::<8>()?;
        let (count_max, rest) = rest.split_first_chunk::<8>()?;
        let (ms, _) = rest.split_first_chunk::<8>()?;
        Some(Self {
            proposer: u64::from_le_bytes(*proposer),
            proposal: u64::from_le_bytes(*proposal),
            time_ms: i64::from_le_bytes(*time_ms),
            window: DedupeWindow {
                count_max: u64::from_le_bytes(*count_max),
                ms: u64::from_le_bytes(*ms),
            },
        })
    }
}

/// The bytes of an entry for log, wire and apply.
pub fn encode_entry(head: EntryHead, commands: &Vec<Command>) -> Result<Bytes, EntryError> {
    let mut bytes = rkyv::util::AlignedVec::<16>::with_capacity(256 * commands.len() + 64);
    bytes.extend_from_slice(&head.proposer.to_le_bytes());
    bytes.extend_from_slice(&head.proposal.to_le_bytes());
    bytes.extend_from_slice(&head.time_ms.to_le_bytes());
    bytes.extend_from_slice(&head.window.count_max.to_le_bytes());
    bytes.extend_from_slice(&head.window.ms.to_le_bytes());
    let bytes = rkyv::api::high::to_bytes_in::<_, rancor::Error>(commands, bytes)
        .map_err(|e| EntryError(e.to_string()))?;
    Ok(Bytes::copy_from_slice(&bytes))
}

impl Entry {
    /// The bytes for log, wire and apply.
    pub fn encode(&self) -> Result<Bytes, EntryError> {
        encode_entry(self.head, &self.commands)
    }

    /// Reads an entry. The bytes come from a disk or a peer: they are validated.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        let head =
            EntryHead::decode(bytes).ok_or_else(|| EntryError("shorter than its head".into()))?;
        let body = bytes.get(EntryHead::SIZE..).unwrap_or_default();
        let commands = rkyv::from_bytes::<Vec<Command>, rancor::Error>(body)
            .map_err(|e| EntryError(e.to_string()))?;
        Ok(Self { head, commands })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
    use super::*;

    #[test]
    fn an_entry_comes_back_from_its_bytes_at_any_alignment() {
        let entry = Entry {
            head: EntryHead {
                proposer: 2,
                proposal: 3,
                time_ms: -1,
                window: DedupeWindow { count_max: 4, ms: 5 },
            },
            commands: vec![Command::Disband { channel: ChannelRef { id: "g".into(), kind: 2 } }],
        };
        let bytes = entry.encode().unwrap();
        let mut shifted = vec![0u8];
        shifted.extend_from_slice(&bytes);
        assert_eq!(Entry::decode(shifted.split_at(1).1).unwrap(), entry);
        assert!(Entry::decode(b"no entry").is_err());
    }

    /// An entry with each command of the first release, as that release has written it.
    #[test]
    fn entries_of_the_first_release_are_read_and_written_alike() {
        let hex = include_str!("../tests/fixtures/entry_1.hex").trim();
        let bytes: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(hex.get(at..at + 2).unwrap(), 16).unwrap())
            .collect();
        let entry = Entry::decode(&bytes).unwrap();
        assert_eq!(entry.commands.len(), 9);
        let Some(Command::Message(message)) = entry.commands.first() else {
            panic!("no message");
        };
        assert_eq!((message.id, &*message.payload), (7, b"hello world payload".as_slice()));
        let value = vec![1, 2, 3];
        let key = "jwt_secret".to_owned();
        assert_eq!(entry.commands.last(), Some(&Command::SetClusterKey { key, value }));
        assert_eq!(entry.encode().unwrap(), bytes, "no command takes more room than before");
    }
}
