//! Streams: what back ends append to a message after it was sent (http-api.md §9, semantics.md §13).
//!
//! ```text
//! stream  (channel, client_msg_no)       whose, how many events
//!   lane  event_key, `main` by default   open ─► closed | error | cancelled
//!     text parts, contents               what deltas and snapshots have made
//! ```
//! A stream lives in the slot of its channel. The stream of the empty channel is a **claim**: it lives
//! in the slot of the client number, and says in which channel that number is at home and whose it is.

use bytes::Bytes;
use rkyv::{Archive, Deserialize, Serialize};

use crate::{
    entry::AsText,
    id::{ChannelId, Name, SlotId},
};

/// The lane of events that name none.
pub const MAIN_LANE: &str = "main";
/// The lane that says that a message is complete.
pub const FINISH_LANE: &str = "__finish__";
/// Bytes of text in one lane, at most; a delta beyond it is refused.
pub const TEXT_SIZE_MAX: u64 = 1 << 20;
/// Bytes of text and contents in all lanes of one stream, at most.
pub const STREAM_SIZE_MAX: u64 = 4 << 20;
/// Lanes of one stream, at most.
pub const LANE_COUNT_MAX: usize = 256;
/// The longest client number of a stream, in bytes: it stands in keys of the store.
pub const CLIENT_NO_SIZE_MAX: usize = 4 << 10;
/// A claim that is older than this, in milliseconds, may be taken over by another channel.
pub const CLAIM_MS: i64 = 24 * 60 * 60 * 1_000;
/// Events after which the ids of older ones may be forgotten: those of the last so many parts.
pub const PARTS_REMEMBERED: usize = 4;
/// Streams that one [`crate::request::Request::Streams`] may name.
pub const STREAMS_PER_READ_MAX: usize = 1_000;

/// Which stream.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Archive, Serialize, Deserialize)]
pub struct StreamKey {
    /// The channel of the message, by its stored id; the empty one for a claim.
    pub channel: ChannelId,
    /// The client number of the message.
    #[rkyv(with = AsText)]
    pub client_msg_no: Name,
}

impl StreamKey {
    /// The stream of a message.
    pub fn new(channel: ChannelId, client_msg_no: impl Into<Name>) -> Self {
        Self { channel, client_msg_no: client_msg_no.into() }
    }

    /// The claim of a client number.
    pub fn claim(client_msg_no: impl Into<Name>) -> Self {
        Self { channel: ChannelId::new("", 0), client_msg_no: client_msg_no.into() }
    }

    /// The slot that holds it.
    pub fn slot(&self, slot_count: u16) -> SlotId {
        let id = if self.channel.id.is_empty() { &self.client_msg_no } else { &self.channel.id };
        SlotId::of(id, slot_count)
    }
}

/// How far a lane is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum LaneStatus {
    /// More may come.
    #[default]
    Open,
    /// Ended as planned.
    Closed,
    /// Ended by an error.
    Error,
    /// Given up.
    Cancelled,
}

impl LaneStatus {
    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
            Self::Error => "error",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing can change the lane any more.
    pub fn is_end(self) -> bool {
        self != Self::Open
    }
}

/// What an event does to its lane.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum EventAction {
    /// A delta: the text goes on. Empty: the lane is opened, no more.
    Append(#[rkyv(with = AsText)] Name),
    /// A delta of another kind: the event's payload is the live content.
    Replace,
    /// The event's payload is the stored snapshot.
    Snapshot,
    /// The lane ends.
    End {
        /// How.
        status: LaneStatus,
        /// The snapshot, if the lane itself has made none.
        snapshot: Option<Bytes>,
        /// The caller's number.
        end_reason: u8,
        /// The caller's text.
        #[rkyv(with = AsText)]
        error: Name,
    },
    /// Only what is known of the last event changes.
    Note,
}

impl EventAction {
    /// Whether it is a delta: those have no seq, and are pushed once.
    pub fn is_delta(&self) -> bool {
        matches!(self, Self::Append(_) | Self::Replace)
    }
}

/// An event as a back end sends it, read and checked by the API.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct StreamEvent {
    /// Which stream.
    pub stream: StreamKey,
    /// The channel id as the caller gave it, which clients are shown.
    #[rkyv(with = AsText)]
    pub shown: Name,
    /// The sender; empty: that of the stream.
    #[rkyv(with = AsText)]
    pub from: Name,
    /// The message's id; 0: that of the stream.
    pub message_id: i64,
    /// Unique in its lane. One that was there already changes nothing.
    #[rkyv(with = AsText)]
    pub event_id: Name,
    /// The type as sent.
    #[rkyv(with = AsText)]
    pub kind: Name,
    /// The lane.
    #[rkyv(with = AsText)]
    pub lane: Name,
    /// As sent; `private` and `restricted` are hidden from eventsync.
    #[rkyv(with = AsText)]
    pub visibility: Name,
    /// Unix ms as sent; 0: none was.
    pub occurred_ms: i64,
    /// JSON; empty: none.
    pub payload: Bytes,
    /// What it does.
    pub action: EventAction,
    /// The caller holds the claim of the client number for this channel.
    pub claimed: bool,
}

impl StreamEvent {
    /// About how many bytes it takes in an entry.
    pub fn size(&self) -> usize {
        let texts = [
            &self.stream.channel.id,
            &self.stream.client_msg_no,
            &self.shown,
            &self.from,
            &self.event_id,
            &self.kind,
            &self.lane,
            &self.visibility,
        ];
        let action = match &self.action {
            EventAction::Append(text) => text.len(),
            EventAction::End { snapshot, error, .. } => {
                snapshot.as_ref().map_or(0, Bytes::len) + error.len()
            }
            EventAction::Replace | EventAction::Snapshot | EventAction::Note => 0,
        };
        160 + texts.iter().map(|text| text.len()).sum::<usize>() + self.payload.len() + action
    }
}

/// Where an event has its place.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct EventPlace {
    /// The lane's last stored seq.
    pub seq: u64,
    /// The lane's status as the API names it; empty for what is stored and no end.
    #[rkyv(with = AsText)]
    pub status: Name,
    /// The sender.
    #[rkyv(with = AsText)]
    pub from: Name,
}

/// Why an event is refused. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, Archive, Serialize, Deserialize)]
pub enum StreamRefusal {
    /// The lane has ended.
    #[error("stream closed")]
    Closed,
    /// The client number is another channel's.
    #[error("message event channel mismatch")]
    Mismatch,
    /// Its text or content would be over the bound.
    #[error("stream is too large")]
    TooLarge,
    /// One lane more than a stream may have.
    #[error("stream has too many event keys")]
    TooManyLanes,
    /// Nobody has asked yet whose the client number is: claim it, and come again.
    #[error("stream is not claimed")]
    Unclaimed,
}

/// What is known of a stream as a whole.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Head {
    /// The sender of its message; empty: not known.
    #[rkyv(with = AsText)]
    pub from: Name,
    /// The id of its message; 0: not known.
    pub message_id: i64,
    /// How many events were stored.
    pub seq: u64,
    /// How many events have changed it, deltas too: the order of pushes.
    pub version: u64,
    /// Bytes of text and contents in all lanes.
    pub size: u64,
    /// Unix ms when the client number was claimed; 0: it was not.
    pub claimed_ms: i64,
    /// Where the client number is at home. Claims only.
    pub owner: ChannelId,
}

impl Default for Head {
    fn default() -> Self {
        Self {
            from: "".into(),
            message_id: 0,
            seq: 0,
            version: 0,
            size: 0,
            claimed_ms: 0,
            owner: ChannelId::new("", 0),
        }
    }
}

/// Where the stored snapshot of a lane is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub enum Source {
    /// There is none.
    #[default]
    None,
    /// It is the lane's text.
    Text,
    /// It is the live content.
    Live,
    /// It is the stored content.
    Stored,
}

/// A lane without its text and contents. All but the text's size is about its last stored event.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Lane {
    /// How far it is.
    pub status: LaneStatus,
    /// The seq of its last stored event; 0: none was.
    pub seq: u64,
    /// That event's id.
    #[rkyv(with = AsText)]
    pub event_id: Name,
    /// Its type, in lower case.
    #[rkyv(with = AsText)]
    pub event_type: Name,
    /// Its visibility.
    #[rkyv(with = AsText)]
    pub visibility: Name,
    /// Unix ms.
    pub occurred_ms: i64,
    /// What the stored snapshot is.
    pub snapshot: Source,
    /// Bytes of text.
    pub text_size: u64,
    /// Parts of text begun.
    pub part_count: u32,
    /// Bytes of the live content; 0: none.
    pub live_size: u64,
    /// Bytes of the stored content; 0: none.
    pub stored_size: u64,
    /// The caller's number of the end.
    pub end_reason: u8,
    /// The caller's text of the end.
    #[rkyv(with = AsText)]
    pub error: Name,
}

impl Default for Lane {
    fn default() -> Self {
        let empty: Name = "".into();
        Self {
            status: LaneStatus::Open,
            seq: 0,
            event_id: empty.clone(),
            event_type: empty.clone(),
            visibility: empty.clone(),
            occurred_ms: 0,
            snapshot: Source::None,
            text_size: 0,
            part_count: 0,
            live_size: 0,
            stored_size: 0,
            end_reason: 0,
            error: empty,
        }
    }
}

/// A piece of a stream, as the store keeps it: a row each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamPart {
    /// The stream as a whole.
    Head(Head),
    /// A lane.
    Lane {
        /// Its key.
        key: Name,
        /// What is known of it.
        lane: Lane,
    },
    /// A part of a lane's text.
    Text {
        /// The lane's key.
        key: Name,
        /// Its place, from 0.
        number: u32,
        /// Digests of the ids of the events that it is made of.
        ids: Vec<u64>,
        /// The text.
        text: String,
    },
    /// A content of a lane.
    Content {
        /// The lane's key.
        key: Name,
        /// Whether deltas have made it; else it was stored as a snapshot.
        is_live: bool,
        /// JSON.
        json: Bytes,
    },
}

impl StreamPart {
    /// About how many bytes it takes.
    pub fn size(&self) -> usize {
        match self {
            Self::Head(head) => 64 + head.from.len() + head.owner.id.len(),
            Self::Lane { key, lane } => {
                96 + key.len()
                    + lane.event_id.len()
                    + lane.event_type.len()
                    + lane.visibility.len()
                    + lane.error.len()
            }
            Self::Text { key, ids, text, .. } => 16 + key.len() + 8 * ids.len() + text.len(),
            Self::Content { key, json, .. } => 16 + key.len() + json.len(),
        }
    }
}

/// A stream as readers get it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct StreamView {
    /// The stream as a whole.
    pub head: Head,
    /// Its lanes, by key.
    pub lanes: Vec<LaneView>,
}

/// A lane as readers get it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct LaneView {
    /// Its key.
    pub key: String,
    /// What is known of it.
    pub lane: Lane,
    /// Its text.
    pub text: String,
    /// Its live content; empty: none.
    pub live: Bytes,
    /// Its stored content; empty: none.
    pub stored: Bytes,
}

/// What a lane has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snapshot<'a> {
    /// Text.
    Text(&'a str),
    /// JSON.
    Json(&'a [u8]),
}

impl LaneView {
    /// The snapshot as it is stored; that of an open lane is behind its deltas.
    pub fn stored_snapshot(&self) -> Option<Snapshot<'_>> {
        match self.lane.snapshot {
            Source::None => None,
            Source::Text => Some(Snapshot::Text(&self.text)),
            Source::Live => Some(Snapshot::Json(&self.live)),
            Source::Stored => Some(Snapshot::Json(&self.stored)),
        }
    }

    /// The newest there is: deltas count while the lane is open.
    pub fn snapshot(&self) -> Option<Snapshot<'_>> {
        if self.lane.status.is_end() {
            return self.stored_snapshot();
        }
        let json = [&self.live, &self.stored].into_iter().find(|json| !json.is_empty());
        if self.text.is_empty() {
            json.map(|json| Snapshot::Json(json))
        } else {
            Some(Snapshot::Text(&self.text))
        }
    }
}

impl StreamView {
    /// Puts a stream together of its rows; those of a text in order.
    pub fn of(parts: impl IntoIterator<Item = StreamPart>) -> Self {
        let mut view = Self::default();
        for part in parts {
            view.add(part);
        }
        view
    }

    fn add(&mut self, part: StreamPart) {
        match part {
            StreamPart::Head(head) => self.head = head,
            StreamPart::Lane { key, lane } => self.lane(&key).lane = lane,
            StreamPart::Text { key, text, .. } => self.lane(&key).text.push_str(&text),
            StreamPart::Content { key, is_live: true, json } => self.lane(&key).live = json,
            StreamPart::Content { key, is_live: false, json } => self.lane(&key).stored = json,
        }
    }

    fn lane(&mut self, key: &str) -> &mut LaneView {
        let place = match self.lanes.binary_search_by(|lane| (*lane.key).cmp(key)) {
            Ok(place) => place,
            Err(place) => {
                self.lanes.insert(place, LaneView { key: key.to_owned(), ..LaneView::default() });
                place
            }
        };
        #[expect(clippy::indexing_slicing, reason = "the place was found or made above")]
        &mut self.lanes[place]
    }

    /// About how many bytes it takes.
    pub fn size(&self) -> usize {
        let of_lane = |lane: &LaneView| 256 + lane.text.len() + lane.live.len() + lane.stored.len();
        128 + self.lanes.iter().map(of_lane).sum::<usize>()
    }
}
