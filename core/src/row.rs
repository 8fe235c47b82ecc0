//! What a shard asks the state store to keep, and what it reads back: typed rows. Their bytes are
//! the business of the storage crate, a file per keyspace.

use bytes::Bytes;
use rkyv::{Archive, Deserialize, Serialize};

use crate::{
    channel_info::{ChannelInfo, List},
    entry::{AsCount, AsText, Shared},
    id::{ChannelId, LogId, Name, SlotId},
    message::SharedMessage,
    notice::{NoticeHead, NoticeRow, StoredNotice},
    scan::{Scan, ScanPage},
    stream::{StreamKey, StreamPart, StreamView},
};

/// When a row was made, and when it was changed last. Rows of the first release have neither.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Times {
    /// Unix nanoseconds. The digits below a millisecond are a hash of the row's key, so that rows
    /// of one entry have different times: data pages are turned by them (http-api.md §17.4). 0: not
    /// known.
    pub created_ns: i64,
    /// Unix ms; 0: not known.
    pub updated_ms: i64,
}

impl Times {
    /// Those of a row that is written now.
    pub fn write(self, key: &[&[u8]], time_ms: i64) -> Self {
        let created_ns = match self.created_ns {
            0 => {
                let mut hash = crc32fast::Hasher::new();
                key.iter().for_each(|part| hash.update(part));
                time_ms
                    .saturating_mul(1_000_000)
                    .saturating_add(i64::from(hash.finalize() % 1_000_000))
            }
            known => known,
        };
        Self { created_ns, updated_ms: time_ms }
    }
}

/// A device of a user: what `POST /user/token` registered.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Device {
    /// 0 slave, 1 master.
    pub level: u8,
    /// Empty: nobody can log in.
    pub token: String,
    /// When it was registered.
    pub times: Times,
}

/// A row that searches find by the time when it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dated {
    /// A channel with flags.
    Channel(ChannelId),
    /// A user with a device.
    User(Name),
    /// A device of a user.
    Device(Name, u8),
}

/// One user's view of one channel (semantics.md §8.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Conversation {
    /// Everything up to this seq is read. Never moves back but by [`crate::entry::ConversationAction::Reopen`].
    pub read_to: u64,
    /// Everything up to this seq is hidden from sync.
    pub deleted_to: u64,
    /// Unix ms of the entry that made the row.
    pub created_ms: i64,
    /// Unix ms of the entry that changed it last: the order of sync.
    pub updated_ms: i64,
    /// Of a command channel: the seq up to which commands were handed out last and not acknowledged;
    /// 0: none.
    pub handed_to: u64,
}

/// One remembered send, for G4: 48 bytes in a dedupe row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DedupeRecord {
    /// Digest of (channel, sender, client_msg_no).
    pub digest: u128,
    /// The first message's id.
    pub id: i64,
    /// The first message's seq.
    pub seq: u64,
    /// The time of its entry, Unix ms.
    pub time_ms: i64,
}

/// A change of the state store. All rows of one [`Persist`] become visible and durable together
/// with its applied position.
#[derive(Clone, Debug)]
pub enum Row {
    /// A message at (channel, seq). Never rewritten.
    Message(SharedMessage),
    /// The last seq that `uid` sent to the channel.
    Sent {
        /// The channel.
        channel: ChannelId,
        /// The sender.
        uid: Name,
        /// The seq.
        seq: u64,
    },
    /// The flags of a channel. A channel exists when it has this row.
    Info {
        /// The channel.
        channel: ChannelId,
        /// Its flags.
        info: ChannelInfo,
        /// When they were set.
        times: Times,
    },
    /// An element of a list of a channel.
    ListItem {
        /// The channel.
        channel: ChannelId,
        /// Which list.
        list: List,
        /// Whom.
        uid: Name,
        /// Unix ms when added; `None`: it goes.
        added_ms: Option<i64>,
    },
    /// A device of a user.
    Device {
        /// The user.
        uid: Name,
        /// The device flag.
        device_flag: u8,
        /// Level and token.
        device: Device,
    },
    /// A conversation of a user.
    Conversation {
        /// The user.
        uid: Name,
        /// The channel.
        channel: ChannelId,
        /// The row; `None`: it goes.
        conversation: Option<Conversation>,
    },
    /// What one entry added to the window of remembered sends; `None`: the row goes.
    Dedupe {
        /// The entry's index.
        index: u64,
        /// The sends.
        records: Option<Vec<DedupeRecord>>,
    },
    /// A message to another slot, until that has committed it; `None`: it goes.
    Outbox {
        /// The target slot.
        target: SlotId,
        /// The index of the entry that made it.
        index: u64,
        /// An archived `Vec<ConversationChange>`.
        changes: Option<Bytes>,
    },
    /// How far `source`'s outbox has been taken over.
    Received {
        /// The source slot.
        source: SlotId,
        /// The index of the last taken row.
        index: u64,
    },
    /// A key of the cluster's own state (group 0).
    ClusterKey {
        /// The key.
        key: String,
        /// The value.
        value: Bytes,
    },
    /// The last Raft membership, opaque to the core.
    Membership(Bytes),
    /// A piece of a stream. It stays.
    Stream {
        /// The stream.
        stream: StreamKey,
        /// The piece.
        part: StreamPart,
    },
    /// When something was made, for searches by time. Written once, with the row that it names.
    Dated {
        /// What.
        what: Dated,
        /// [`Times::created_ns`] of it.
        created_ns: i64,
    },
    /// Something to tell the receiver of webhooks; `None`: it goes.
    Notice {
        /// Its number.
        number: u64,
        /// The row.
        row: Option<NoticeRow>,
    },
    /// Which notices there are.
    NoticeHead(NoticeHead),
}

/// Rows and applied position that belong together.
#[derive(Clone, Debug)]
pub struct Persist {
    /// The slot.
    pub slot: SlotId,
    /// The entry whose effects these are.
    pub applied: LogId,
    /// The changes, in order.
    pub rows: Vec<Row>,
}

/// A question to the state store. Sees every [`Persist`] handed over before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    /// Everything about a channel but its history.
    Channel(ChannelId),
    /// Everything about a user: devices and conversations.
    User(Name),
    /// Messages of a channel with `first <= seq <= last`, ascending. At most `count_max`, the
    /// lowest if `from_start`, else the highest; at most 16 MiB of payload in all.
    Messages {
        /// The channel.
        channel: ChannelId,
        /// The lowest seq.
        first: u64,
        /// The highest seq.
        last: u64,
        /// How many at most.
        count_max: usize,
        /// Which end of the range is cut.
        from_start: bool,
    },
    /// For each channel what a conversation shows of it. All channels are of one slot.
    Digests {
        /// The reader.
        uid: Name,
        /// The channels and bounds.
        items: Vec<DigestQuery>,
    },
    /// Single messages of a channel, in the order of the question. The first always comes; when
    /// those before it have 16 MiB of payload the answer ends, shorter than the question.
    Find {
        /// The channel.
        channel: ChannelId,
        /// Which.
        sought: Vec<Sought>,
    },
    /// What a stream needs in memory: head, lanes, and the last
    /// [`crate::stream::PARTS_REMEMBERED`] parts of each text, in order.
    Stream(StreamKey),
    /// Whole streams; as many of the first ones as 8 MiB hold, at least one.
    Streams(Vec<StreamKey>),
    /// A page of a search.
    Scan(Box<Scan>),
    /// Notices of a slot with `first <= number`, ascending, at most 1 MiB of payload in all.
    Notices {
        /// The lowest number.
        first: u64,
        /// How many at most.
        count_max: usize,
        /// Whether the messages are wanted, too.
        contents: bool,
    },
}

/// One message of [`Read::Find`].
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Sought {
    /// The one with this seq.
    Seq(u64),
    /// The one with this message id.
    Id(i64),
    /// The newest one with this client number, which is not empty.
    Newest(#[rkyv(with = AsText)] Name),
    /// The oldest one with this client number, which is not empty.
    Oldest(#[rkyv(with = AsText)] Name),
}

/// One channel of [`Read::Digests`].
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct DigestQuery {
    /// The channel.
    pub channel: ChannelId,
    /// Only messages with a higher seq are wanted.
    pub after: u64,
    /// How many of the newest at most.
    #[rkyv(with = AsCount)]
    pub count_max: usize,
}

/// One answer of [`Read::Digests`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Digest {
    /// The channel's last seq; 0 when it has none.
    pub last_seq: u64,
    /// The last seq that the reader sent itself; 0 when none.
    pub own_seq: u64,
    /// The newest messages above the bound, newest first.
    #[rkyv(with = rkyv::with::Map<Shared>)]
    pub recents: Vec<SharedMessage>,
}

/// The rows of a channel.
#[derive(Clone, Debug, Default)]
pub struct ChannelRows {
    /// Its flags; `None`: it was never made.
    pub info: Option<ChannelInfo>,
    /// When they were set.
    pub times: Times,
    /// Members, in key order.
    pub members: Vec<(Name, i64)>,
    /// Deny list.
    pub deny: Vec<(Name, i64)>,
    /// Allow list.
    pub allow: Vec<(Name, i64)>,
    /// Recipients of a temporary channel.
    pub recipients: Vec<(Name, i64)>,
    /// The seq of its last message; 0 when it has none.
    pub last_seq: u64,
}

/// The rows of a user.
#[derive(Clone, Debug, Default)]
pub struct UserRows {
    /// By device flag.
    pub devices: Vec<(u8, Device)>,
    /// Every conversation.
    pub conversations: Vec<(ChannelId, Conversation)>,
}

/// What a shard needs of a slot before its first step with it.
#[derive(Clone, Debug, Default)]
pub struct SlotRows {
    /// The last applied entry, if any.
    pub applied: Option<LogId>,
    /// Remembered sends by entry index, ascending.
    pub dedupe: Vec<(u64, Vec<DedupeRecord>)>,
    /// Outbox rows: target, index, changes; ascending by (target, index).
    pub outbox: Vec<(SlotId, u64, Bytes)>,
    /// By source slot: the index up to which its outbox is taken over.
    pub received: Vec<(SlotId, u64)>,
    /// The cluster's own keys (group 0 only).
    pub cluster: Vec<(String, Bytes)>,
    /// Which notices there are.
    pub notices: NoticeHead,
}

/// The answer to a [`Read`].
#[derive(Clone, Debug)]
pub enum Rows {
    /// To [`Read::Channel`].
    Channel(ChannelRows),
    /// To [`Read::User`].
    User(UserRows),
    /// To [`Read::Messages`].
    Messages(Vec<SharedMessage>),
    /// To [`Read::Digests`], in the order of the question.
    Digests(Vec<Digest>),
    /// To [`Read::Find`]; `None`: there is no such message.
    Found(Vec<Option<SharedMessage>>),
    /// To [`Read::Stream`]; empty: there is none.
    Stream(Vec<StreamPart>),
    /// To [`Read::Streams`], in the order of the question; one without lanes: there is none.
    Streams(Vec<StreamView>),
    /// To [`Read::Scan`].
    Scanned(ScanPage),
    /// The store could not answer; the text is for the log.
    Failed(String),
    /// To [`Read::Notices`].
    Notices(Vec<StoredNotice>),
}

impl Row {
    /// About how many bytes the row takes in queues and on disk.
    pub fn size(&self) -> usize {
        match self {
            Self::Message(m) => {
                96 + m.channel.id.len() + m.from.len() + m.client_msg_no.len() + m.payload.len()
            }
            Self::Sent { channel, uid, .. } => 32 + channel.id.len() + uid.len(),
            Self::Info { channel, .. } => 32 + channel.id.len(),
            Self::ListItem { channel, uid, .. } => 32 + channel.id.len() + uid.len(),
            Self::Device { uid, device, .. } => 32 + uid.len() + device.token.len(),
            Self::Conversation { uid, channel, .. } => 64 + uid.len() + channel.id.len(),
            Self::Dedupe { records, .. } => 32 + records.as_ref().map_or(0, |r| r.len() * 40),
            Self::Outbox { changes, .. } => 32 + changes.as_ref().map_or(0, Bytes::len),
            Self::Received { .. } => 32,
            Self::ClusterKey { key, value } => 32 + key.len() + value.len(),
            Self::Membership(bytes) => 32 + bytes.len(),
            Self::Stream { stream, part } => {
                32 + stream.channel.id.len() + stream.client_msg_no.len() + part.size()
            }
            Self::Dated { what, .. } => {
                32 + match what {
                    Dated::Channel(channel) => channel.id.len(),
                    Dated::User(uid) | Dated::Device(uid, _) => uid.len(),
                }
            }
            Self::Notice { row, .. } => 48 + row.as_ref().map_or(0, |row| row.notice.len()),
            Self::NoticeHead(_) => 48,
        }
    }
}
