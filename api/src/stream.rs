//! Streams: /message/event (http-api.md §9.1), /message/eventsync (§9.3), and the streams of
//! message results (§9.4).

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::future::join_all;
use jindou_core::{
    channel_info::kind,
    entry::StreamClaim,
    id::{ChannelId, Name, SYSTEM_UID, SlotId, person_channel},
    message::{Message, SharedMessage},
    request::{Reply, Request, Target},
    stream::{
        CLIENT_NO_SIZE_MAX, EventAction, FINISH_LANE, Head, LaneStatus, LaneView, MAIN_LANE,
        STREAMS_PER_READ_MAX, StreamEvent, StreamKey, StreamRefusal, StreamView,
    },
};
use serde::Serialize;

pub(crate) use crate::stream_json::Detail;
use crate::{
    answer::{Answer, Refusal, ok_data},
    api::{Api, Call},
    ids::{check_size, is_blank, send_channel},
    json::{Raw, Value, body, read},
    message_json::MessageJson,
    node::Node,
    query::unsigned,
    stream_json::{StoredLaneJson, show},
};

const NO_CHANNEL: Refusal = Refusal::Rule("channel_id不能为空！");
const NO_CLIENT_NO: Refusal = Refusal::Rule("client_msg_no不能为空！");

/// Longest event id and key, type and visibility, in bytes.
const NAME_SIZE_MAX: usize = 1 << 10;
const WORD_SIZE_MAX: usize = 256;
/// The largest payload, in bytes: with its escapes it must fit a frame.
const PAYLOAD_SIZE_MAX: usize = 256 << 10;
/// Lanes that eventsync gives when nobody says how many, and at most.
const LIMIT_DEFAULT: usize = 200;
const LIMIT_MAX: usize = 2_000;
/// Bytes of streams in one message result. Beyond it messages have no snapshots and no text: clients
/// fetch them with eventsync, as `event_sync_hint` says.
const STREAMS_SIZE_MAX: usize = 16 << 20;

body! {
    /// POST /message/event. `headers` are taken and not kept.
    EventBody {
        channel_id: String,
        channel_type: u8,
        from_uid: String,
        message_id: i64,
        client_msg_no: String,
        event_id: String,
        event_type: String,
        event_key: String,
        visibility: String,
        occurred_at: i64,
        payload: Raw,
    }
}

#[derive(Serialize)]
struct PlaceJson<'a> {
    client_msg_no: &'a str,
    event_key: &'a str,
    event_id: &'a str,
    msg_event_seq: u64,
    stream_status: &'a str,
    channel_id: &'a str,
    channel_type: u8,
    from_uid: &'a str,
}

/// POST /message/event. Answers after the event is committed and applied.
pub(crate) async fn event<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let body: EventBody = read(&call.body)?;
    check_event(api, &body)?;
    let from = sender(api, &body).await?;
    let channel = send_channel(
        from.as_deref().unwrap_or(SYSTEM_UID),
        &body.channel_id,
        body.channel_type,
        false,
    );
    let event = event_of(&body, channel, from.unwrap_or_else(|| "".into()));
    let lane = event.lane.clone();
    let reply = append(api, event).await?;
    if let Reply::StreamRefused(refusal) = reply {
        return Err(Refusal::Told(refusal.to_string()));
    }
    let Reply::Event(place) = reply else {
        return Err(Refusal::by(&reply, ""));
    };
    Ok(ok_data(PlaceJson {
        client_msg_no: &body.client_msg_no,
        event_key: &lane,
        event_id: body.event_id.trim(),
        msg_event_seq: place.seq,
        stream_status: &place.status,
        channel_id: &body.channel_id,
        channel_type: body.channel_type,
        from_uid: &place.from,
    }))
}

/// The documented refusals in their order, then our bounds.
fn check_event<N: Node>(api: &Api<N>, body: &EventBody) -> Result<(), Refusal> {
    if is_blank(&body.channel_id) {
        return Err(NO_CHANNEL);
    }
    if is_blank(&body.client_msg_no) {
        return Err(NO_CLIENT_NO);
    }
    if is_blank(&body.event_id) {
        return Err(Refusal::Rule("event_id不能为空！"));
    }
    if is_blank(&body.event_type) {
        return Err(Refusal::Rule("event_type不能为空！"));
    }
    api.settings.check_channel(&body.channel_id, body.channel_type)?;
    api.settings.check_uid("from_uid", &body.from_uid)?;
    check_size("client_msg_no", &body.client_msg_no, CLIENT_NO_SIZE_MAX)?;
    check_size("event_id", &body.event_id, NAME_SIZE_MAX)?;
    check_size("event_key", &body.event_key, NAME_SIZE_MAX)?;
    check_size("event_type", &body.event_type, WORD_SIZE_MAX)?;
    check_size("visibility", &body.visibility, WORD_SIZE_MAX)?;
    if body.payload.0.len() > PAYLOAD_SIZE_MAX {
        return Err(Refusal::TooLong { what: "payload", max: PAYLOAD_SIZE_MAX });
    }
    Ok(())
}

/// Who appends; `None`: the body does not say, and the channel's id does not need it. In a channel
/// of two it does: whose the message with this client number is says its claim.
async fn sender<N: Node>(api: &Api<N>, body: &EventBody) -> Result<Option<Name>, Refusal> {
    if !is_blank(&body.from_uid) {
        return Ok(Some(body.from_uid.as_str().into()));
    }
    if !matches!(body.channel_type, kind::PERSON | kind::AGENT) {
        return Ok(None);
    }
    let client_msg_no: Name = body.client_msg_no.as_str().into();
    let request = Request::ReadClaim { client_msg_no: client_msg_no.clone() };
    let reply = api.node.ask(Target::Id(client_msg_no), request).await;
    let Reply::StreamClaim(head) = reply else {
        return Err(Refusal::by(&reply, ""));
    };
    Ok(Some(if head.from.is_empty() { SYSTEM_UID.into() } else { head.from }))
}

/// The event of a body, with what it does read from type and payload.
fn event_of(body: &EventBody, channel: ChannelId, from: Name) -> StreamEvent {
    let kind = body.event_type.trim().to_lowercase();
    let payload = &body.payload.0;
    let lane = match body.event_key.trim() {
        _ if kind == "stream.finish" => FINISH_LANE,
        "" => MAIN_LANE,
        key => key,
    };
    let action = match kind.as_str() {
        "stream.delta" => match Payload::read(payload) {
            Payload { kind, delta, .. } if kind == "text" && !delta.is_empty() => {
                EventAction::Append(delta.into())
            }
            _ if payload.is_empty() => EventAction::Append("".into()),
            _ => EventAction::Replace,
        },
        "stream.snapshot" if !payload.is_empty() => EventAction::Snapshot,
        "stream.close" => end(LaneStatus::Closed, payload),
        "stream.error" => end(LaneStatus::Error, payload),
        "stream.cancel" => end(LaneStatus::Cancelled, payload),
        "stream.finish" => EventAction::End {
            status: LaneStatus::Closed,
            snapshot: None,
            end_reason: 0,
            error: "".into(),
        },
        _ => EventAction::Note,
    };
    StreamEvent {
        stream: StreamKey::new(channel, body.client_msg_no.as_str()),
        shown: body.channel_id.as_str().into(),
        from,
        message_id: body.message_id,
        event_id: body.event_id.trim().into(),
        kind: body.event_type.as_str().into(),
        lane: lane.into(),
        visibility: body.visibility.trim().into(),
        occurred_ms: body.occurred_at,
        payload: payload.clone(),
        action,
        claimed: false,
    }
}

fn end(status: LaneStatus, payload: &[u8]) -> EventAction {
    let Payload { snapshot, end_reason, error, .. } = Payload::read(payload);
    let (end_reason, error) = match status {
        LaneStatus::Closed => (end_reason, String::new()),
        LaneStatus::Error => (0, error),
        LaneStatus::Open | LaneStatus::Cancelled => (0, String::new()),
    };
    EventAction::End { status, snapshot, end_reason, error: error.into() }
}

/// What the payload of a `stream.*` event may say; names are exact, unlike those of bodies.
#[derive(Debug, Default)]
struct Payload {
    kind: String,
    delta: String,
    snapshot: Option<Bytes>,
    end_reason: u8,
    error: String,
}

impl Payload {
    fn read(json: &[u8]) -> Self {
        let mut payload = Self::default();
        let Value::Object(members) = Value::of(json) else {
            return payload;
        };
        for (key, value) in members {
            match (key.decode().as_str(), value) {
                ("kind", Value::Text(text)) => payload.kind = text.decode(),
                ("delta", Value::Text(text)) => payload.delta = text.decode(),
                ("error", Value::Text(text)) => payload.error = text.decode(),
                ("end_reason", Value::Text(text)) => payload.end_reason = small(&text.decode()),
                ("end_reason", Value::Number(digits)) => payload.end_reason = small(digits),
                ("snapshot", Value::Null) => {}
                ("snapshot", value) => {
                    let mut json = Vec::new();
                    value.write(&mut json);
                    payload.snapshot = Some(json.into());
                }
                _ => {}
            }
        }
        payload
    }
}

/// A number of one byte; 0 for what is none.
fn small(digits: &str) -> u8 {
    u8::try_from(unsigned(digits.trim())).unwrap_or(0)
}

/// Asks the channel's slot. The first event of a stream claims its client number on the way.
async fn append<N: Node>(api: &Api<N>, event: StreamEvent) -> Result<Reply, Refusal> {
    let ask = |event: StreamEvent| {
        let target = Target::Id(event.stream.channel.id.clone());
        api.node.ask(target, Request::StreamEvent(Box::new(event)))
    };
    let reply = ask(event.clone()).await;
    if reply != Reply::StreamRefused(StreamRefusal::Unclaimed) {
        return Ok(reply);
    }
    let StreamKey { channel, client_msg_no } = &event.stream;
    let head = claim(api, client_msg_no, channel, &event.from, false).await?;
    if head.owner != *channel {
        return Ok(Reply::StreamRefused(StreamRefusal::Mismatch));
    }
    Ok(ask(StreamEvent { claimed: true, ..event }).await)
}

/// Claims a client number for a channel; gives who has it then.
pub(crate) async fn claim<N: Node>(
    api: &Api<N>,
    client_msg_no: &Name,
    channel: &ChannelId,
    from: &Name,
    replaces: bool,
) -> Result<Head, Refusal> {
    let request = Request::ClaimStream(Box::new(StreamClaim {
        client_msg_no: client_msg_no.clone(),
        channel: channel.clone(),
        from: from.clone(),
        replaces,
    }));
    let reply = api.node.ask(Target::Id(client_msg_no.clone()), request).await;
    if let Reply::StreamClaim(head) = reply { Ok(*head) } else { Err(Refusal::by(&reply, "")) }
}

body! {
    /// POST /message/eventsync.
    EventSyncBody {
        channel_id: String,
        channel_type: u8,
        from_uid: String,
        client_msg_no: String,
        event_key: String,
        from_msg_event_seq: u64,
        limit: i64,
        include_private: i64,
    }
}

#[derive(Serialize)]
struct LanesJson<'a> {
    client_msg_no: &'a str,
    events: Vec<StoredLaneJson<'a>>,
    filtered_by_event_key: &'a str,
    from_msg_event_seq: u64,
    more: u8,
    next_msg_event_seq: u64,
}

/// POST /message/eventsync: the last stored event of each lane, by seq. Hidden ones do not count
/// against the limit, as they do in v2.
pub(crate) async fn event_sync<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let body: EventSyncBody = read(&call.body)?;
    if is_blank(&body.channel_id) {
        return Err(NO_CHANNEL);
    }
    if is_blank(&body.client_msg_no) {
        return Err(NO_CLIENT_NO);
    }
    let limit = match usize::try_from(body.limit) {
        Ok(0) => LIMIT_DEFAULT,
        Ok(limit) => limit.min(LIMIT_MAX),
        Err(_) => return Err(Refusal::Rule("limit不能为负数！")),
    };
    api.settings.check_channel(&body.channel_id, body.channel_type)?;
    api.settings.check_uid("from_uid", &body.from_uid)?;
    check_size("client_msg_no", &body.client_msg_no, CLIENT_NO_SIZE_MAX)?;
    let id: Name = if body.channel_type == kind::PERSON && !is_blank(&body.from_uid) {
        person_channel(&body.from_uid, &body.channel_id).into()
    } else {
        body.channel_id.as_str().into()
    };
    let key =
        StreamKey::new(ChannelId::new(id.clone(), body.channel_type), body.client_msg_no.as_str());
    let request = Request::Streams { streams: vec![key] };
    let reply = api.node.ask(Target::Slot(api.node.slot_of(&id)), request).await;
    let Reply::Streams(views) = reply else {
        return Err(Refusal::by(&reply, ""));
    };
    let wanted = body.event_key.trim();
    let is_shown = |lane: &&LaneView| {
        lane.lane.seq > body.from_msg_event_seq
            && (wanted.is_empty() || lane.key == wanted)
            && (body.include_private == 1
                || !matches!(&*lane.lane.visibility, "private" | "restricted"))
    };
    let mut lanes: Vec<&LaneView> =
        views.iter().flat_map(|view| &view.lanes).filter(is_shown).collect();
    lanes.sort_by_key(|lane| lane.lane.seq);
    let more = u8::from(lanes.len() > limit);
    lanes.truncate(limit);
    let last = lanes.last().map_or(body.from_msg_event_seq, |lane| lane.lane.seq);
    Ok(ok_data(LanesJson {
        client_msg_no: &body.client_msg_no,
        events: lanes.into_iter().map(StoredLaneJson::new).collect(),
        filtered_by_event_key: &body.event_key,
        from_msg_event_seq: body.from_msg_event_seq,
        more,
        next_msg_event_seq: last,
    }))
}

/// The streams of the messages of a result.
#[derive(Debug, Default)]
pub(crate) struct Streams(BTreeMap<StreamKey, StreamView>);

impl Streams {
    /// Reads the streams of those messages that may have one.
    pub(crate) async fn of<'a, N: Node>(
        api: &Api<N>,
        messages: impl IntoIterator<Item = &'a SharedMessage>,
    ) -> Result<Self, Refusal> {
        let mut by_slot: BTreeMap<SlotId, Vec<StreamKey>> = BTreeMap::new();
        for message in messages.into_iter().filter(|message| message.is_stream()) {
            let key = key_of(message);
            let slot = api.node.slot_of(&key.channel.id);
            by_slot.entry(slot).or_default().push(key);
        }
        let mut streams = Self::default();
        let mut left = STREAMS_SIZE_MAX;
        let asked = by_slot.into_iter().map(|(slot, keys)| async move {
            // A slot's answers come one after the other, each no larger than a link takes.
            read_all(api, slot, keys).await
        });
        for found in join_all(asked).await {
            for (key, mut view) in found? {
                match left.checked_sub(view.size()) {
                    Some(rest) => left = rest,
                    None => view.lanes.iter_mut().for_each(forget_contents),
                }
                streams.0.insert(key, view);
            }
        }
        Ok(streams)
    }

    /// A message of the result.
    pub(crate) fn show<'a>(&'a self, message: &'a Message, detail: Detail) -> MessageJson<'a> {
        match self.0.get(&key_of(message)).filter(|_| message.is_stream()) {
            Some(view) => show(message, view, detail),
            None => MessageJson::new(message),
        }
    }
}

fn key_of(message: &Message) -> StreamKey {
    StreamKey::new(message.channel.clone(), message.client_msg_no.clone())
}

fn forget_contents(lane: &mut LaneView) {
    lane.lane.snapshot = jindou_core::stream::Source::None;
    lane.text.clear();
    (lane.live, lane.stored) = (Bytes::new(), Bytes::new());
}

/// Reads streams of one slot; contents no more than the result may have.
async fn read_all<N: Node>(
    api: &Api<N>,
    slot: SlotId,
    mut keys: Vec<StreamKey>,
) -> Result<Vec<(StreamKey, StreamView)>, Refusal> {
    keys.sort_unstable();
    keys.dedup();
    let (mut found, mut size) = (Vec::new(), 0_usize);
    while !keys.is_empty() {
        let count = keys.len().min(STREAMS_PER_READ_MAX);
        let part: Vec<StreamKey> = keys.iter().take(count).cloned().collect();
        let reply = api.node.ask(Target::Slot(slot), Request::Streams { streams: part }).await;
        let Reply::Streams(views) = reply else {
            return Err(Refusal::by(&reply, ""));
        };
        if views.is_empty() || views.len() > count {
            return Err(Refusal::Confused);
        }
        for (key, mut view) in keys.drain(..views.len()).zip(views) {
            size = size.saturating_add(view.size());
            if size > STREAMS_SIZE_MAX {
                view.lanes.iter_mut().for_each(forget_contents);
            }
            found.push((key, view));
        }
    }
    Ok(found)
}

/// The reader of payloads, for the fuzz target.
pub(crate) fn fuzz_payload(bytes: &[u8]) {
    let _ = Payload::read(bytes);
}

#[cfg(test)]
mod tests;
