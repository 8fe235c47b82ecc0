//! A message as it is stored, and as it is offered.

use std::sync::Arc;

use bytes::Bytes;
use rkyv::{Archive, Deserialize, Serialize};

use crate::{
    entry::AsText,
    id::{ChannelId, Name},
};

/// Bits of `flags`, as on the wire (protocol.md §1.2).
pub mod flag {
    /// Not stored: no seq, no retry.
    pub const NO_PERSIST: u8 = 1;
    /// Counts as unread in clients.
    pub const RED_DOT: u8 = 2;
    /// A command message.
    pub const SYNC_ONCE: u8 = 4;
    /// The client says that it sends again.
    pub const DUP: u8 = 8;
    /// Not a message but an event of a stream on its way to clients: the topic is its type, the
    /// stream number its id, the timestamp in ms, the seq its place in the stream, the payload its
    /// data. Never on the wire, never stored.
    pub const EVENT: u8 = 0x80;
}

/// Bits of `setting`, as on the wire (protocol.md §1.5).
pub mod setting {
    /// A topic follows.
    pub const TOPIC: u8 = 0x08;
    /// The anchor of a stream.
    pub const STREAM: u8 = 0x02;
}

/// A message of a channel. Immutable once applied; shared between history, pushes and retries.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Message {
    /// 63-bit snowflake (protocol.md §1.8).
    pub id: i64,
    /// Dense place in the channel, from 1; 0 when not stored.
    pub seq: u64,
    /// The channel by its stored id.
    pub channel: ChannelId,
    /// The sender; `____system` for messages of the system.
    #[rkyv(with = AsText)]
    pub from: Name,
    /// The sender's idempotency key; may be empty, then nothing is deduplicated.
    #[rkyv(with = AsText)]
    pub client_msg_no: Name,
    /// Bits of [`flag`].
    pub flags: u8,
    /// Bits of [`setting`], stored and echoed whole.
    pub setting: u8,
    /// Seconds as the sender gave them; never enforced.
    pub expire: u32,
    /// Unix time in seconds: the time of the entry that stored it.
    pub timestamp: i64,
    /// Present when the setting bit says so.
    #[rkyv(with = AsText)]
    pub topic: Name,
    /// The stream number of SENDs of protocol 2..=4 with the stream bit.
    #[rkyv(with = AsText)]
    pub stream_no: Name,
    /// The channel id as receivers see it when it can't be derived from the stored one (API
    /// command messages show the base channel, http-api.md §8.1). Not stored.
    #[rkyv(with = rkyv::with::Map<AsText>)]
    pub shown: Option<Name>,
    /// Plaintext content.
    pub payload: Bytes,
}

impl Message {
    /// Whether the message is kept in the channel's history.
    pub fn is_stored(&self) -> bool {
        self.flags & flag::NO_PERSIST == 0
    }

    /// Whether it is an event of a stream.
    pub fn is_event(&self) -> bool {
        self.flags & flag::EVENT != 0
    }

    /// Whether events may be appended to it.
    pub fn is_stream(&self) -> bool {
        is_stream(self.setting, &self.client_msg_no)
    }
}

/// Whether a message with these may have events.
pub(crate) fn is_stream(setting: u8, client_msg_no: &str) -> bool {
    let sizes = 1..=crate::stream::CLIENT_NO_SIZE_MAX;
    setting & setting::STREAM != 0 && sizes.contains(&client_msg_no.len())
}

/// A message shared by those who store, push and repeat it.
pub type SharedMessage = Arc<Message>;
