//! What message results say of streams (http-api.md §9.4), and what eventsync says of lanes (§9.3).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jindou_core::{
    message::Message,
    stream::{FINISH_LANE, LaneStatus, LaneView, MAIN_LANE, Snapshot, StreamView},
};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::{json::Value, message_json::MessageJson};

/// How much a message result says of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    /// Everything.
    Full,
    /// Without `snapshot`.
    Basic,
}

/// `event_meta`.
#[derive(Serialize)]
pub(crate) struct EventMeta<'a> {
    has_events: bool,
    completed: bool,
    #[serde(skip_serializing_if = "is_zero")]
    event_version: u64,
    #[serde(skip_serializing_if = "is_zero")]
    last_msg_event_seq: u64,
    #[serde(skip_serializing_if = "is_zero")]
    event_count: u64,
    #[serde(skip_serializing_if = "is_zero")]
    open_event_count: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    events: Vec<LaneJson<'a>>,
}

/// `event_sync_hint`.
#[derive(Serialize)]
pub(crate) struct SyncHint<'a> {
    client_msg_no: &'a str,
    from_msg_event_seq: u64,
}

#[derive(Serialize)]
struct LaneJson<'a> {
    event_key: &'a str,
    status: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    last_msg_event_seq: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<SnapshotJson<'a>>,
    #[serde(skip_serializing_if = "is_zero")]
    end_reason: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    error: &'a str,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A snapshot as JSON.
pub(crate) struct SnapshotJson<'a>(pub(crate) Snapshot<'a>);

impl Serialize for SnapshotJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Text<'a> {
            kind: &'static str,
            text: &'a str,
        }

        match self.0 {
            Snapshot::Text(text) => Text { kind: "text", text }.serialize(serializer),
            Snapshot::Json(json) => match serde_json::from_slice::<&RawValue>(json) {
                Ok(json) => json.serialize(serializer),
                Err(_) => String::from_utf8_lossy(json).serialize(serializer),
            },
        }
    }
}

/// The message with what its stream adds; as it is when nothing was appended.
pub(crate) fn show<'a>(
    message: &'a Message,
    view: &'a StreamView,
    detail: Detail,
) -> MessageJson<'a> {
    let mut json = MessageJson::new(message);
    if view.lanes.is_empty() {
        return json;
    }
    let listed = || view.lanes.iter().filter(|lane| lane.key != FINISH_LANE);
    let count = |lanes: usize| u64::try_from(lanes).unwrap_or(u64::MAX);
    let last = listed().map(|lane| lane.lane.seq).max().unwrap_or(0);
    let is_open = |lane: &&LaneView| lane.lane.status == LaneStatus::Open;
    json.event_meta = Some(EventMeta {
        has_events: true,
        completed: view.lanes.iter().any(|lane| lane.key == FINISH_LANE),
        event_version: last,
        last_msg_event_seq: last,
        event_count: count(listed().count()),
        open_event_count: count(listed().filter(is_open).count()),
        events: listed().map(|lane| lane_json(lane, detail)).collect(),
    });
    json.event_sync_hint =
        Some(SyncHint { client_msg_no: &message.client_msg_no, from_msg_event_seq: 0 });
    if let Some(main) = view.lanes.iter().find(|lane| lane.key == MAIN_LANE) {
        json.end = main.lane.status.is_end().into();
        json.end_reason = main.lane.end_reason;
        json.error = &main.lane.error;
        json.stream_data = main.snapshot().map(stream_data).unwrap_or_default();
    }
    json
}

fn lane_json(lane: &LaneView, detail: Detail) -> LaneJson<'_> {
    LaneJson {
        event_key: &lane.key,
        status: lane.lane.status.name(),
        last_msg_event_seq: lane.lane.seq,
        snapshot: match detail {
            Detail::Full => lane.snapshot().map(SnapshotJson),
            Detail::Basic => None,
        },
        end_reason: lane.lane.end_reason.into(),
        error: &lane.lane.error,
    }
}

/// The text that clients of before events show, in base64.
fn stream_data(snapshot: Snapshot<'_>) -> String {
    let json = match snapshot {
        Snapshot::Text(text) => return STANDARD.encode(text),
        Snapshot::Json(json) => json,
    };
    let (mut kind, mut text, mut data) = (String::new(), String::new(), None);
    if let Value::Object(members) = Value::of(json) {
        for (key, value) in members {
            if let Value::Text(value) = value {
                match key.decode().as_str() {
                    "kind" => kind = value.decode(),
                    "text" => text = value.decode(),
                    "data" => data = Some(value.decode()),
                    _ => {}
                }
            }
        }
    }
    match (kind.as_str(), data) {
        ("text", _) => STANDARD.encode(text),
        ("binary", Some(data)) => STANDARD.encode(data),
        _ => STANDARD.encode(json),
    }
}

/// A lane in eventsync: its last stored event.
#[derive(Serialize)]
pub(crate) struct StoredLaneJson<'a> {
    event_id: &'a str,
    event_key: &'a str,
    event_type: &'a str,
    pub(crate) msg_event_seq: u64,
    occurred_at: i64,
    payload: StoredPayload<'a>,
    visibility: &'a str,
}

enum StoredPayload<'a> {
    Snapshot(SnapshotJson<'a>),
    Status(&'a LaneView),
}

impl Serialize for StoredPayload<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Status<'a> {
            end_reason: u8,
            #[serde(skip_serializing_if = "str::is_empty")]
            error: &'a str,
            status: &'static str,
        }

        match self {
            Self::Snapshot(snapshot) => snapshot.serialize(serializer),
            Self::Status(view) => {
                let end = Some(view.lane.status).filter(|status| status.is_end());
                let status = end.map_or("", LaneStatus::name);
                let (end_reason, error) = (view.lane.end_reason, &*view.lane.error);
                Status { end_reason, error, status }.serialize(serializer)
            }
        }
    }
}

impl<'a> StoredLaneJson<'a> {
    /// The stored state of a lane.
    pub(crate) fn new(view: &'a LaneView) -> Self {
        Self {
            event_id: &view.lane.event_id,
            event_key: &view.key,
            event_type: &view.lane.event_type,
            msg_event_seq: view.lane.seq,
            occurred_at: view.lane.occurred_ms,
            payload: match view.stored_snapshot() {
                Some(snapshot) => StoredPayload::Snapshot(SnapshotJson(snapshot)),
                None => StoredPayload::Status(view),
            },
            visibility: &view.lane.visibility,
        }
    }
}
