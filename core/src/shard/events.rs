//! Streams at the leader: what back ends ask (http-api.md §9), and EVENT frames on their way out.

use std::sync::Arc;

use super::{
    Shard,
    cache::Found,
    connection::Live,
    slot::{Caller, Waiter},
    stream::Stream,
    waiting::Purpose,
};
use crate::{
    effect::{Effect, Outbox},
    entry::{Command, StreamClaim},
    envelope::Ask,
    id::{ConnId, Name},
    message::SharedMessage,
    request::{Failure, Reply},
    row::Read,
    stream::{STREAMS_PER_READ_MAX, StreamEvent, StreamKey, StreamRefusal},
    wire::{
        frame::{Event, Frame, encode},
        jsonrpc,
        outbound::Framing,
    },
};

/// The first protocol version that knows EVENT (trap T2).
const EVENT_VERSION_MIN: u8 = 5;

impl Shard {
    /// An event for a stream. The first one of a stream is sent back, to claim its client number.
    pub(super) fn on_stream_event(
        &mut self,
        caller: Caller,
        ask: &Arc<Ask>,
        event: Box<StreamEvent>,
    ) {
        let slot = event.stream.slot(self.settings.slot_count);
        if !self.leads_or_fails(caller, slot) {
            return;
        }
        let claimed = match self.streams.get_or_wait(&event.stream, || caller.again(ask)) {
            Found::Ready(stream) => stream.head.claimed_ms != 0,
            Found::Loading => return,
            Found::Missing => return self.load_stream(event.stream),
        };
        if !(claimed || event.claimed) {
            return self.reply(caller, Reply::StreamRefused(StreamRefusal::Unclaimed));
        }
        let command = Command::StreamEvent(event);
        if self.offer(slot, vec![(command, Waiter::Api(caller))]).is_err() {
            self.reply(caller, Reply::Failed(Failure::Busy));
        }
    }

    /// A channel wants a client number.
    pub(super) fn on_claim(&mut self, caller: Caller, claim: Box<StreamClaim>) {
        let slot = self.slot_of(&claim.client_msg_no);
        if !self.leads_or_fails(caller, slot) {
            return;
        }
        let command = Command::ClaimStream(claim);
        if self.offer(slot, vec![(command, Waiter::Api(caller))]).is_err() {
            self.reply(caller, Reply::Failed(Failure::Busy));
        }
    }

    /// Who has a client number?
    pub(super) fn read_claim(&mut self, caller: Caller, ask: &Arc<Ask>, client_msg_no: Name) {
        let key = StreamKey::claim(client_msg_no);
        if !self.reads_or_fails(caller, key.slot(self.settings.slot_count)) {
            return;
        }
        let reply = |stream: &Stream| Reply::StreamClaim(Box::new(stream.head.clone()));
        let reply = match self.streams.get_or_wait(&key, || caller.again(ask)) {
            Found::Ready(stream) => reply(stream),
            Found::Loading => return,
            Found::Missing => return self.load_stream(key),
        };
        self.reply(caller, reply);
    }

    /// Whole streams, from the store: their texts are nowhere else.
    pub(super) fn read_streams(&mut self, caller: Caller, mut streams: Vec<StreamKey>) {
        streams.truncate(STREAMS_PER_READ_MAX);
        let Some(first) = streams.first() else {
            return self.reply(caller, Reply::Streams(Vec::new()));
        };
        let slot = first.slot(self.settings.slot_count);
        if self.reads_or_fails(caller, slot) {
            self.read(slot, Read::Streams(streams), Purpose::Api(caller));
        }
    }
}

/// The last EVENT, for the next receiver that gets the same bytes.
#[derive(Default)]
pub(super) struct SharedEvent {
    last: Option<(bool, Framing, std::ops::Range<usize>)>,
}

/// Writes an EVENT; nothing to clients that do not know it. Returns its bytes.
pub(super) fn write_event(
    out: &mut Outbox,
    conn: ConnId,
    live: &Live,
    message: &SharedMessage,
    shared: &mut SharedEvent,
) -> Option<usize> {
    if !live.json && live.version < EVENT_VERSION_MIN {
        return None;
    }
    if let Some((json, framing, range)) = &shared.last
        && (*json, *framing) == (live.json, live.framing)
    {
        out.effects.push(Effect::Write { conn, range: range.clone() });
        return Some(range.len());
    }
    let event = Event {
        id: &message.stream_no,
        kind: &message.topic,
        timestamp: message.timestamp,
        data: &message.payload,
    };
    let start = out.bytes.len();
    let packet = live.framing.start(&mut out.bytes);
    if live.json {
        jsonrpc::encode_event(&mut out.bytes, &event);
    } else if encode(&Frame::Event(event), live.version, &mut out.bytes).is_err() {
        out.bytes.truncate(start);
        return None;
    }
    live.framing.end(&mut out.bytes, packet);
    let range = start..out.bytes.len();
    shared.last = Some((live.json, live.framing, range.clone()));
    let size = range.len();
    out.push_write(conn, range);
    Some(size)
}
