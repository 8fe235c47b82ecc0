//! Raft entries: what replicas agree on, and nothing else.
//!
//! An entry carries many commands (design.md §2.3). One rkyv encoding serves the log, the wire
//! and apply. Everything that depends on a clock, on dice or on another slot was decided before
//! the entry was proposed and stands in it, so that apply is a function of state and entry.

use bytes::Bytes;
use rkyv::{Archive, Deserialize, Serialize, rancor};

use crate::channel_info::{ChannelInfo, List, ListChange};

/// The largest entry that is proposed, in bytes. One message of 1 MiB and its head fit.
pub const ENTRY_SIZE_MAX: usize = 4 << 20;

/// One Raft entry of a slot.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Entry {
    /// Unix time in milliseconds at the leader when it proposed. Apply knows no other time.
    pub time_ms: i64,
    /// Who proposed: a number that a shard draws at its start, so that a leader finds the callers
    /// that wait for its own entries and nobody answers for another's.
    pub proposer: u64,
    /// The proposer's count of proposals in this slot.
    pub proposal: u64,
    /// The commands, in the order in which they take effect.
    pub commands: Vec<Command>,
}

/// A channel in an entry: stored id and type.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ChannelRef {
    /// The stored id.
    pub id: String,
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
    pub from: String,
    /// The sender's idempotency key; empty: not deduplicated.
    pub client_msg_no: String,
    /// Bits of [`crate::message::flag`].
    pub flags: u8,
    /// Bits of [`crate::message::setting`].
    pub setting: u8,
    /// Seconds; stored only.
    pub expire: u32,
    /// With the setting bit.
    pub topic: String,
    /// Stream number of old clients.
    pub stream_no: String,
    /// How receivers see the channel, when it can't be derived.
    pub shown: Option<String>,
    /// The first message of a person channel opens a conversation for both
    /// (semantics.md §8.2; depends on a setting, so it stands in the entry).
    pub opens_conversations: bool,
    /// Plaintext content.
    pub payload: Vec<u8>,
}

/// A user's conversation row, as one slot asks another to change it.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ConversationChange {
    /// Whose.
    pub uid: String,
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
        uids: Vec<String>,
    },
    /// Registers the token of a user's device.
    SetToken {
        /// The user.
        uid: String,
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
}

/// An entry whose bytes do not hold an entry.
#[derive(Debug, thiserror::Error)]
#[error("the entry does not decode: {0}")]
pub struct EntryError(String);

impl Entry {
    /// The bytes for log, wire and apply.
    pub fn encode(&self) -> Result<Bytes, EntryError> {
        let bytes = rkyv::to_bytes::<rancor::Error>(self).map_err(|e| EntryError(e.to_string()))?;
        Ok(Bytes::copy_from_slice(&bytes))
    }

    /// Reads an entry. The bytes come from a disk or a peer: they are validated.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        rkyv::from_bytes::<Self, rancor::Error>(bytes).map_err(|e| EntryError(e.to_string()))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn an_entry_comes_back_from_its_bytes_at_any_alignment() {
        let entry = Entry {
            time_ms: 1,
            proposer: 2,
            proposal: 3,
            commands: vec![Command::Disband {
                channel: ChannelRef {
                    id: "g".into(),
                    kind: 2,
                },
            }],
        };
        let bytes = entry.encode().unwrap();
        let mut shifted = vec![0u8];
        shifted.extend_from_slice(&bytes);
        assert_eq!(Entry::decode(shifted.split_at(1).1).unwrap(), entry);
        assert!(Entry::decode(b"no entry").is_err());
    }
}
