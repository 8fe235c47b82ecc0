//! What the HTTP API asks a shard, and what it answers. A request concerns one slot; the API
//! composes what needs several.

use bytes::Bytes;
use rkyv::{Archive, Deserialize, Serialize, with};

use crate::{
    channel_info::{ChannelInfo, List, ListChange},
    code::Code,
    entry::{AsCount, AsText, AsTexts, NamedTimes, Shared, StreamClaim},
    id::{ChannelId, ConnId, Name, NodeId, ShardId, SlotId},
    import::Import,
    message::SharedMessage,
    row::{Conversation, Digest, DigestQuery, Sought},
    scan::{Scan, ScanPage},
    stream::{EventPlace, Head, StreamEvent, StreamKey, StreamRefusal, StreamView},
};

/// Names a waiting caller of this shard's API.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Archive, Serialize, Deserialize,
)]
pub struct RequestToken(pub u64);

/// A message as a back end sends it. The API has checked ids and made the stored channel id.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ApiSend {
    /// The stored channel, `____cmd` included.
    pub channel: ChannelId,
    /// How receivers see the channel, when it can't be derived from the stored id.
    #[rkyv(with = with::Map<AsText>)]
    pub shown: Option<Name>,
    /// The sender; `____system` when the back end gave none.
    #[rkyv(with = AsText)]
    pub from: Name,
    /// The client number; the API makes one up when there is none.
    #[rkyv(with = AsText)]
    pub client_msg_no: Name,
    /// Bits of [`crate::message::flag`].
    pub flags: u8,
    /// Bits of [`crate::message::setting`].
    pub setting: u8,
    /// Seconds.
    pub expire: u32,
    /// Recipients that come with the send (type 8); `None`: those of the channel.
    #[rkyv(with = with::Map<AsTexts>)]
    pub recipients: Option<Vec<Name>>,
    /// Plaintext content.
    pub payload: Bytes,
}

/// A question or change. Goes to the shard of the slot of the id that the variant names.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Request {
    /// By channel id → [`Reply::Done`]. Flags and members in one entry (http-api.md §7.1):
    /// `info` `None` makes the channel with default flags if there is none.
    WriteChannel {
        /// The channel, id as given.
        channel: ChannelId,
        /// All flags.
        info: Option<ChannelInfo>,
        /// Every member goes first.
        reset: bool,
        /// New members; blank uids were dropped.
        #[rkyv(with = AsTexts)]
        members: Vec<Name>,
    },
    /// By channel id → [`Reply::Done`]. Sets the disband flag if the channel exists.
    Disband {
        /// The channel.
        channel: ChannelId,
    },
    /// By channel id → [`Reply::Done`].
    ChangeList {
        /// The channel.
        channel: ChannelId,
        /// Which list.
        list: List,
        /// How.
        change: ListChange,
        /// Whom; blank uids were dropped.
        #[rkyv(with = AsTexts)]
        uids: Vec<Name>,
    },
    /// By channel id → [`Reply::List`].
    ReadList {
        /// The channel.
        channel: ChannelId,
        /// Which list.
        list: List,
    },
    /// By channel id → [`Reply::Info`].
    ReadInfo {
        /// The channel.
        channel: ChannelId,
    },
    /// By stored channel id → [`Reply::Sent`].
    Send(Box<ApiSend>),
    /// By stored channel id → [`Reply::LastSeq`].
    LastSeq {
        /// The channel.
        channel: ChannelId,
    },
    /// By stored channel id → [`Reply::Messages`], ascending (see [`crate::row::Read::Messages`]).
    Messages {
        /// The channel.
        channel: ChannelId,
        /// The lowest seq.
        first: u64,
        /// The highest seq.
        last: u64,
        /// How many at most.
        #[rkyv(with = AsCount)]
        count_max: usize,
        /// Which end of the range is cut.
        from_start: bool,
    },
    /// All channels of one slot (`Target::Slot`) → [`Reply::Digests`], in order.
    Digests {
        /// The reader.
        #[rkyv(with = AsText)]
        uid: Name,
        /// Channels of this slot.
        items: Vec<DigestQuery>,
    },
    /// By uid → [`Reply::Done`], or [`Reply::Refused`] with 19 or 24 for the user's own flags.
    SetToken {
        /// The user.
        #[rkyv(with = AsText)]
        uid: Name,
        /// The device flag.
        device_flag: u8,
        /// 0 slave, 1 master.
        device_level: u8,
        /// The token.
        token: String,
    },
    /// By uid → [`Reply::Done`]. Forgets the tokens of these flags and ends their connections;
    /// flags without a registered device are skipped (http-api.md §5.2).
    QuitDevices {
        /// The user.
        #[rkyv(with = AsText)]
        uid: Name,
        /// The device flags.
        device_flags: Vec<u8>,
    },
    /// By uid (`Target::Slot` with uids of that slot) → [`Reply::Online`].
    Online {
        /// The users.
        #[rkyv(with = AsTexts)]
        uids: Vec<Name>,
    },
    /// By uid → [`Reply::Done`].
    ReadTo {
        /// The user.
        #[rkyv(with = AsText)]
        uid: Name,
        /// The stored channel.
        channel: ChannelId,
        /// The new read position; never moves it back; 0 changes nothing.
        seq: u64,
    },
    /// By uid → [`Reply::Done`]. Hides everything up to `seq` on an existing row.
    DeleteConversation {
        /// The user.
        #[rkyv(with = AsText)]
        uid: Name,
        /// The stored channel.
        channel: ChannelId,
        /// The last hidden seq.
        seq: u64,
    },
    /// By uid → [`Reply::Conversations`], newest `updated_ms` first.
    Conversations {
        /// The user.
        #[rkyv(with = AsText)]
        uid: Name,
    },
    /// Each shard (`Target::Shard`) → [`Reply::Connections`]: authenticated ones and others.
    Connections,
    /// `Target::Shard(conn.shard())` → [`Reply::Done`]. Ends a connection of `uid`: with a
    /// DISCONNECT (12, `server kick`) or without a frame. Unknown ids are not an error.
    EndConnection {
        /// Whose.
        #[rkyv(with = AsText)]
        uid: Name,
        /// Which.
        conn: ConnId,
        /// With a DISCONNECT first.
        kick: bool,
    },
    /// Each shard → [`Reply::Vars`].
    Vars,
    /// To [`crate::shard::CLUSTER_SLOT`] → [`Reply::Done`]. Writes keys of the cluster's own
    /// state in one entry, in order.
    WriteClusterKeys {
        /// The keys.
        entries: Vec<ClusterWrite>,
    },
    /// To [`crate::shard::CLUSTER_SLOT`] → [`Reply::ClusterKeys`].
    ReadClusterKeys {
        /// What the wanted keys begin with.
        prefix: String,
    },
    /// To [`crate::shard::CLUSTER_SLOT`] → [`Reply::Done`] when every shard of every node goes by
    /// it. Adds or removes system accounts (http-api.md §5.4); they are keys of the cluster's own
    /// state with [`crate::shard::SYSTEM_UID_PREFIX`].
    ChangeSystems {
        /// They are added; else they go.
        add: bool,
        /// Whom; blank uids were dropped.
        #[rkyv(with = AsTexts)]
        uids: Vec<Name>,
    },
    /// By stored channel id → [`Reply::Found`], in the order of the question; shorter than it when
    /// the rest does not fit an answer.
    Find {
        /// The channel.
        channel: ChannelId,
        /// Which messages.
        sought: Vec<Sought>,
    },
    /// By stored channel id → [`Reply::Event`] or [`Reply::StreamRefused`].
    StreamEvent(Box<StreamEvent>),
    /// By client number → [`Reply::StreamClaim`]: who has it now.
    ClaimStream(Box<StreamClaim>),
    /// By client number → [`Reply::StreamClaim`].
    ReadClaim {
        /// The client number.
        #[rkyv(with = AsText)]
        client_msg_no: Name,
    },
    /// Streams of one slot (`Target::Slot`) → [`Reply::Streams`].
    Streams {
        /// Which; at most [`crate::stream::STREAMS_PER_READ_MAX`].
        streams: Vec<StreamKey>,
    },
    /// By uid → [`Reply::Conversations`]: those of command channels only, by channel.
    CommandConversations {
        /// The user.
        #[rkyv(with = AsText)]
        uid: Name,
    },
    /// By uid → [`Reply::Done`]. Commands were handed out; what was before is void.
    HandOut {
        /// The user.
        #[rkyv(with = AsText)]
        uid: Name,
        /// By command channel the last seq that was handed out.
        positions: Vec<(ChannelId, u64)>,
    },
    /// By uid → [`Reply::Done`]. What was handed out last is read.
    TakeHanded {
        /// The user.
        #[rkyv(with = AsText)]
        uid: Name,
    },
    /// By uid → [`Reply::Done`]. The read position of an existing row moves up to `seq`.
    AckCommand {
        /// The user.
        #[rkyv(with = AsText)]
        uid: Name,
        /// The stored channel.
        channel: ChannelId,
        /// The seq.
        seq: u64,
    },
    /// By id of the base channel → [`Reply::List`]: who gets its messages now, without times.
    ReadRecipients {
        /// The channel.
        channel: ChannelId,
    },
    /// To the slot that it names (`Target::Slot`) → [`Reply::Scanned`].
    Scan(Box<Scan>),
    /// By [`Import::id`] → [`Reply::Done`]; for messages [`Reply::LastSeq`]: the channel's last seq
    /// after it.
    Import(Box<Import>),
}

/// A key of the cluster's own state and what it becomes.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ClusterWrite {
    /// The key, e.g. `jwt_secret`.
    pub key: String,
    /// The value; empty: the key goes.
    pub value: Vec<u8>,
    /// A value that is there stays.
    pub if_absent: bool,
}

/// One connection of a user (http-api.md §5.3).
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct OnlineItem {
    /// The user.
    #[rkyv(with = AsText)]
    pub uid: Name,
    /// The device flag.
    pub device_flag: u8,
}

/// What /connz shows of a connection (http-api.md §3.4).
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct ConnectionInfo {
    /// Its id.
    pub conn: ConnId,
    /// Empty before CONNECT succeeded.
    #[rkyv(with = AsText)]
    pub uid: Name,
    /// Empty before CONNECT succeeded.
    #[rkyv(with = AsText)]
    pub device_id: Name,
    /// The device flag.
    pub device_flag: u8,
    /// 0 slave, 1 master.
    pub device_level: u8,
    /// Negotiated protocol version.
    pub version: u8,
    /// Whether CONNECT succeeded.
    pub live: bool,
    /// The client's address.
    pub peer: std::net::SocketAddr,
    /// Unix ms of the last bytes.
    pub last_activity_ms: i64,
    /// Unix ms of the accept.
    pub opened_ms: i64,
    /// Counters since the accept.
    pub traffic: Traffic,
}

/// Messages, frames and bytes of a connection or a shard. "Messages" are SEND in, RECV out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Traffic {
    /// SENDs.
    pub messages_in: u64,
    /// RECVs.
    pub messages_out: u64,
    /// Bytes of SENDs.
    pub message_bytes_in: u64,
    /// Bytes of RECVs.
    pub message_bytes_out: u64,
    /// Frames of any kind.
    pub frames_in: u64,
    /// Frames of any kind.
    pub frames_out: u64,
    /// Bytes.
    pub bytes_in: u64,
    /// Bytes.
    pub bytes_out: u64,
}

/// Counters and gauges of one shard. Each has a metric of its own name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Vars {
    /// Sockets open now.
    pub connections: u64,
    /// Of them, past CONNECT.
    pub sessions: u64,
    /// Users with a session, at their home.
    pub online_users: u64,
    /// Traffic since the start.
    pub traffic: Traffic,
    /// RECVs that wait for their RECVACK.
    pub unacked: u64,
    /// RECVs given up after the last try, or because too many waited.
    pub retries_dropped: u64,
    /// Sessions ended because a RECV for them came after a newer one of its channel (G6), or may
    /// have gone by (G8).
    pub sessions_out_of_step: u64,
    /// Messages stored since the start.
    pub stored: u64,
    /// Sends answered with the first message's id and seq (G4).
    pub deduplicated: u64,
    /// Remembered sends dropped by count before their time was over (G4's window was cut).
    pub dedupe_cut: u64,
    /// Entries proposed.
    pub proposals: u64,
    /// Entries that were applied within 500 ms of their proposal.
    pub proposals_prompt: u64,
    /// Entries that this leader could not commit, or does not know of.
    pub proposals_failed: u64,
    /// CONNECTs, of any outcome.
    pub connect_frames: u64,
    /// SENDACKs and their JSON-RPC form.
    pub sendacks: u64,
    /// RECVACKs.
    pub recvacks: u64,
    /// PINGs, each answered.
    pub pings: u64,
    /// Commands refused because a bound was reached.
    pub shed: u64,
    /// Slots led by this shard.
    pub slots_leading: u64,
    /// CONNECTs answered with success, since the start.
    pub connects: u64,
    /// CONNECTs refused.
    pub connects_refused: u64,
    /// Connections closed for a malformed frame.
    pub protocol_errors: u64,
    /// Notices that wait for the receiver of webhooks, in slots led by this shard.
    pub notices: u64,
    /// Their bytes.
    pub notices_size: u64,
    /// Notices given up because they were too old or too many.
    pub notices_dropped: u64,
    /// Channels held in memory.
    pub channels_cached: u64,
    /// Users held in memory.
    pub users_cached: u64,
    /// Streams held in memory.
    pub streams_cached: u64,
    /// Events appended to streams.
    pub stream_events: u64,
    /// EVENT frames.
    pub events_pushed: u64,
}

/// Why a request was not carried out. The state is unchanged unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, Archive, Serialize, Deserialize)]
pub enum Failure {
    /// No leader answered in time. *Unknown*: it may still take effect, never twice.
    #[error("context deadline exceeded")]
    Timeout,
    /// The slot has no leader that this node can reach.
    #[error("slot leader not found")]
    NoLeader,
    /// A queue is full; try again.
    #[error("server is busy")]
    Busy,
    /// The store failed.
    #[error("storage error")]
    Storage,
    /// The request has more bytes than one command may have; nothing changed.
    #[error("the request is too large")]
    TooLarge,
}

impl Request {
    /// About how many bytes a command made of it has; 0 for what is small by its nature.
    pub fn size(&self) -> usize {
        let names = |names: &[Name]| -> usize { names.iter().map(|name| 12 + name.len()).sum() };
        match self {
            Self::WriteChannel { members, .. } => names(members),
            Self::ChangeList { uids, .. }
            | Self::Online { uids }
            | Self::ChangeSystems { uids, .. } => names(uids),
            Self::Send(send) => send.payload.len() + send.recipients.as_deref().map_or(0, names),
            Self::Digests { items, .. } => {
                items.iter().map(|item| 64 + item.channel.id.len()).sum()
            }
            Self::SetToken { token, .. } => token.len(),
            Self::Scan(scan) => scan.size(),
            Self::Import(import) => import.size(),
            Self::QuitDevices { device_flags, .. } => device_flags.len(),
            Self::WriteClusterKeys { entries } => {
                entries.iter().map(|entry| entry.key.len() + entry.value.len()).sum()
            }
            Self::StreamEvent(event) => event.size(),
            Self::Streams { streams } => {
                let of = |s: &StreamKey| 32 + s.channel.id.len() + s.client_msg_no.len();
                streams.iter().map(of).sum()
            }
            Self::Disband { .. }
            | Self::ClaimStream(_)
            | Self::ReadClaim { .. }
            | Self::ReadList { .. }
            | Self::ReadInfo { .. }
            | Self::LastSeq { .. }
            | Self::Messages { .. }
            | Self::ReadTo { .. }
            | Self::DeleteConversation { .. }
            | Self::Conversations { .. }
            | Self::Connections
            | Self::EndConnection { .. }
            | Self::Vars
            | Self::CommandConversations { .. }
            | Self::TakeHanded { .. }
            | Self::AckCommand { .. }
            | Self::ReadRecipients { .. }
            | Self::ReadClusterKeys { .. } => 0,
            Self::HandOut { positions, .. } => {
                positions.iter().map(|(channel, _)| 32 + channel.id.len()).sum()
            }
            Self::Find { sought, .. } => {
                let size = |sought: &Sought| match sought {
                    Sought::Seq(_) | Sought::Id(_) => 16,
                    Sought::Newest(number) | Sought::Oldest(number) => 16 + number.len(),
                };
                sought.iter().map(size).sum()
            }
        }
    }
}

/// The answer to a [`Request`]. A change is committed and applied, in every slot that it touches,
/// when its reply is not [`Reply::Failed`] (G1, G7).
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Reply {
    /// Carried out.
    Done,
    /// Refused by a rule; nothing changed.
    Refused(Code),
    /// The message's place. `code` other than success: it was refused and not stored.
    Sent {
        /// The id; the first message's for a repeated client number (G4).
        message_id: i64,
        /// The seq; 0 when not stored.
        seq: u64,
        /// Success, or why not.
        code: Code,
    },
    /// The last seq of a channel; 0 when it has none.
    LastSeq(u64),
    /// Messages, ascending.
    Messages(#[rkyv(with = with::Map<Shared>)] Vec<SharedMessage>),
    /// In the order of the question.
    Digests(Vec<Digest>),
    /// A list with the Unix ms when each uid was added.
    List(#[rkyv(with = NamedTimes)] Vec<(Name, i64)>),
    /// Flags, `None` when the channel does not exist.
    Info(Option<ChannelInfo>),
    /// One item per connection.
    Online(Vec<OnlineItem>),
    /// Newest `updated_ms` first.
    Conversations(Vec<(ChannelId, Conversation)>),
    /// Every connection of the shard.
    Connections(Vec<ConnectionInfo>),
    /// The shard's counters.
    Vars(Box<Vars>),
    /// Keys of the cluster's own state and their values, by key.
    ClusterKeys(Vec<(String, Bytes)>),
    /// Not carried out.
    Failed(Failure),
    /// Single messages, in the order of the question; `None`: there is no such message.
    Found(#[rkyv(with = with::Map<with::Map<Shared>>)] Vec<Option<SharedMessage>>),
    /// An event has its place.
    Event(Box<EventPlace>),
    /// An event is refused.
    StreamRefused(StreamRefusal),
    /// Who has a client number; [`Head::claimed_ms`] 0: nobody.
    StreamClaim(Box<Head>),
    /// Streams, in the order of the question. What is missing at the end had no room: ask again.
    Streams(Vec<StreamView>),
    /// A page of a search.
    Scanned(Box<ScanPage>),
}

/// Which shard a request goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The leader of the slot of this id. Repeated until it answers or time is up.
    Id(Name),
    /// The leader of this slot. Repeated likewise.
    Slot(SlotId),
    /// A shard of this node.
    Shard(ShardId),
    /// A shard of any node; [`Failure::NoLeader`] when the node can't be reached.
    Node(NodeId, ShardId),
}
