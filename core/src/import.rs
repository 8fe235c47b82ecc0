//! What an import from another server writes: rows as they were there, with nothing that follows
//! from them here. No push, no notice, no conversation comes of an import.

use bytes::Bytes;
use rkyv::{Archive, Deserialize, Serialize};

use crate::{
    channel_info::List,
    entry::{AsText, AsTexts, ChannelRef},
    id::Name,
};

/// One piece of an import: rows of one channel or of one user. Doing it again changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Import {
    /// Messages of a channel, ascending. Taken are those that come right after the channel's last;
    /// others are passed over: what is there stays, and after a gap nothing fits.
    Messages {
        /// The channel.
        channel: ChannelRef,
        /// The messages.
        messages: Vec<ImportedMessage>,
    },
    /// Conversations of a user, each as it is to stand.
    Conversations {
        /// The user.
        #[rkyv(with = AsText)]
        uid: Name,
        /// The rows.
        rows: Vec<ImportedConversation>,
    },
    /// Uids join a list; conversations do not follow.
    List {
        /// The channel.
        channel: ChannelRef,
        /// Which list.
        list: List,
        /// Whom. Never blank.
        #[rkyv(with = AsTexts)]
        uids: Vec<Name>,
    },
    /// A device of a user, as it is to stand.
    Device {
        /// The user.
        #[rkyv(with = AsText)]
        uid: Name,
        /// The device flag.
        device_flag: u8,
        /// 0 slave, 1 master.
        device_level: u8,
        /// The token; empty: nobody can log in with it.
        token: String,
    },
}

/// A message that has its place already.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ImportedMessage {
    /// Its place in the channel, from 1.
    pub seq: u64,
    /// 63-bit snowflake.
    pub id: i64,
    /// Unix seconds.
    pub timestamp: i64,
    /// The sender.
    #[rkyv(with = AsText)]
    pub from: Name,
    /// The sender's idempotency key; may be empty.
    #[rkyv(with = AsText)]
    pub client_msg_no: Name,
    /// Bits of [`crate::message::flag`].
    pub flags: u8,
    /// Bits of [`crate::message::setting`].
    pub setting: u8,
    /// Seconds; stored only.
    pub expire: u32,
    /// The topic; may be empty.
    #[rkyv(with = AsText)]
    pub topic: Name,
    /// Plaintext content.
    pub payload: Bytes,
}

/// A user's view of one channel.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ImportedConversation {
    /// The channel.
    pub channel: ChannelRef,
    /// Everything up to this seq is read.
    pub read_to: u64,
    /// Everything up to this seq is hidden from sync.
    pub deleted_to: u64,
    /// Unix ms when the row was made.
    pub created_ms: i64,
    /// Unix ms when it was changed last: the order of sync.
    pub updated_ms: i64,
}

impl Import {
    /// The id whose slot it belongs to: a channel's or a user's.
    pub fn id(&self) -> &Name {
        match self {
            Self::Messages { channel, .. } | Self::List { channel, .. } => &channel.id,
            Self::Conversations { uid, .. } | Self::Device { uid, .. } => uid,
        }
    }

    /// About how many bytes it takes in an entry.
    pub fn size(&self) -> usize {
        let message = |m: &ImportedMessage| {
            128 + m.payload.len() + m.from.len() + m.client_msg_no.len() + m.topic.len()
        };
        96 + match self {
            Self::Messages { messages, .. } => messages.iter().map(message).sum(),
            Self::Conversations { rows, .. } => {
                rows.iter().map(|row| 64 + row.channel.id.len()).sum::<usize>()
            }
            Self::List { uids, .. } => uids.iter().map(|uid| 12 + uid.len()).sum(),
            Self::Device { token, .. } => token.len(),
        }
    }
}
