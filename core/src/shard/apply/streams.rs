//! What commands do to streams, and how their events leave for clients (semantics.md §13).

use std::sync::Arc;

use super::{Delivery, Gathered};
use crate::{
    entry::StreamClaim,
    envelope::Except,
    id::SlotId,
    message::{Message, SharedMessage, flag},
    request::Reply,
    row::Row,
    shard::{
        Shard,
        slot::Outcome,
        stream::{Applied, Push, Stream},
    },
    stream::{StreamEvent, StreamKey},
    wire::event::{EventData, encode_event_data},
};

impl Shard {
    /// Appends an event to its stream, and has it pushed.
    pub(super) fn apply_event(
        &mut self,
        (slot, index): (SlotId, u64),
        event: &StreamEvent,
        time_ms: i64,
        gathered: &mut Gathered,
    ) -> Outcome {
        let Some(stream) = self.streams.get(&event.stream) else {
            return Outcome::Done;
        };
        let applied = match stream.apply(event, time_ms) {
            Ok(applied) => applied,
            Err(refusal) => return replied(Reply::StreamRefused(refusal)),
        };
        self.changed_stream(&event.stream, gathered);
        self.vars.stream_events += 1;
        let leads = self.leads(slot);
        if applied.push != Push::None && (leads || self.has_peers()) {
            let message = self.event_message(event, &applied);
            if leads {
                let except = Except::None;
                gathered.deliveries.push(Delivery { message, recipients: None, except });
            } else if let Some(state) = self.slots.get_mut(&slot) {
                state.recent.push((index, self.now.unix_ms), message, None);
            }
        }
        replied(Reply::Event(Box::new(applied.place)))
    }

    /// A channel wants a client number.
    pub(super) fn apply_claim(
        &mut self,
        claim: &StreamClaim,
        time_ms: i64,
        gathered: &mut Gathered,
    ) -> Outcome {
        let key = StreamKey::claim(claim.client_msg_no.clone());
        let Some(stream) = self.streams.get(&key) else {
            return Outcome::Done;
        };
        stream.claim(&claim.channel, &claim.from, claim.replaces, time_ms);
        let head = Box::new(stream.head.clone());
        self.changed_stream(&key, gathered);
        replied(Reply::StreamClaim(head))
    }

    /// A message to which events may be appended is stored.
    pub(super) fn anchor_stream(&mut self, message: &Message, gathered: &mut Gathered) {
        let key = StreamKey::new(message.channel.clone(), message.client_msg_no.clone());
        if let Some(stream) = self.streams.get(&key) {
            stream.anchor(&message.from, message.id);
            self.changed_stream(&key, gathered);
        }
    }

    fn changed_stream(&mut self, key: &StreamKey, gathered: &mut Gathered) {
        // Most entries have many events of few streams.
        if !gathered.streams.contains(key) {
            gathered.streams.push(key.clone());
        }
    }

    /// Ends an entry: what its events have changed becomes rows, once for all events of a stream.
    pub(super) fn gather_streams(&mut self, gathered: &mut Gathered) {
        for key in std::mem::take(&mut gathered.streams) {
            if let Some(stream) = self.streams.get(&key) {
                let rows = stream.take_rows().into_iter();
                gathered.rows.extend(rows.map(|part| Row::Stream { stream: key.clone(), part }));
            }
            self.streams.resize(&key, Stream::size);
        }
    }

    /// An event in the form in which it goes through deliveries.
    fn event_message(&mut self, event: &StreamEvent, applied: &Applied) -> SharedMessage {
        let StreamKey { channel, client_msg_no } = &event.stream;
        let data = encode_event_data(&EventData {
            client_msg_no,
            channel_id: &event.shown,
            channel_type: channel.kind,
            from_uid: &applied.place.from,
            message_id: applied.message_id,
            event_key: &event.lane,
            msg_event_seq: applied.place.seq,
            stream_status: &applied.place.status,
            visibility: &event.visibility,
            payload: &event.payload,
        });
        Arc::new(Message {
            id: self.ids.next(self.now.unix_ms),
            seq: match applied.push {
                Push::Next(version) => version,
                Push::None | Push::Again => 0,
            },
            channel: channel.clone(),
            from: applied.place.from.clone(),
            client_msg_no: client_msg_no.clone(),
            flags: flag::NO_PERSIST | flag::EVENT,
            setting: 0,
            expire: 0,
            timestamp: event.occurred_ms,
            topic: event.kind.clone(),
            stream_no: event.event_id.clone(),
            shown: None,
            payload: data.into(),
        })
    }
}

fn replied(reply: Reply) -> Outcome {
    Outcome::Replied(Box::new(reply))
}
