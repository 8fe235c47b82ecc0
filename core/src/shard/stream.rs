//! The rules of one stream (http-api.md §9.1): a function of its state and the event.
//!
//! A lane keeps in memory what it needs for the next event, not its text: the text lies in the store
//! in parts, and only the last one is here, to be written again with what comes. Each part holds the
//! digests of the ids of its events; those of the last parts tell an event that comes again, because
//! a call is repeated inside the cluster when a leader was lost.

use std::{
    collections::{BTreeMap, VecDeque},
    hash::Hasher as _,
};

use bytes::Bytes;
use siphasher::sip::SipHasher13;

use crate::{
    id::{ChannelId, Name, SYSTEM_UID},
    stream::{
        CLAIM_MS, EventAction, EventPlace, Head, LANE_COUNT_MAX, Lane, LaneStatus,
        PARTS_REMEMBERED, STREAM_SIZE_MAX, Source, StreamEvent, StreamPart, StreamRefusal,
        TEXT_SIZE_MAX,
    },
};

/// A part of text ends with so many bytes, or so many events.
const PART_SIZE: usize = 1 << 10;
const PART_EVENTS: usize = 64;

/// A stream in memory.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    pub(crate) head: Head,
    head_changed: bool,
    lanes: BTreeMap<Name, LaneState>,
    /// Rows that are final and not yet written.
    pending: Vec<StreamPart>,
}

#[derive(Debug, Default)]
struct LaneState {
    lane: Lane,
    changed: bool,
    /// The last parts; only the last one has its text.
    parts: VecDeque<Part>,
}

#[derive(Debug, Default)]
struct Part {
    number: u32,
    ids: Vec<u64>,
    text: String,
}

/// How clients hear of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Push {
    /// They don't: they have.
    None,
    /// In the order of this number.
    Next(u64),
    /// Though nothing has changed, as in v2.
    Again,
}

/// What became of an event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Applied {
    pub(crate) place: EventPlace,
    pub(crate) message_id: i64,
    pub(crate) push: Push,
}

fn digest(event_id: &str) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(event_id.as_bytes());
    hasher.finish()
}

fn size_of(text: &[u8]) -> u64 {
    u64::try_from(text.len()).unwrap_or(u64::MAX)
}

impl LaneState {
    fn knows(&self, id: u64) -> bool {
        self.parts.iter().rev().any(|part| part.ids.contains(&id))
    }

    /// Remembers an event, and what it adds to the text. A part that is full becomes final.
    fn add(&mut self, key: &Name, id: u64, text: &str, pending: &mut Vec<StreamPart>) {
        let is_full = |part: &Part| part.text.len() >= PART_SIZE || part.ids.len() >= PART_EVENTS;
        if self.parts.back().is_none_or(is_full) {
            if let Some(last) = self.parts.back_mut() {
                if self.changed {
                    pending.push(row_of(key, last));
                }
                last.text = String::new();
            }
            if self.parts.len() >= PARTS_REMEMBERED {
                self.parts.pop_front();
            }
            let part = Part { number: self.lane.part_count, ..Part::default() };
            self.lane.part_count += 1;
            self.parts.push_back(part);
        }
        if let Some(part) = self.parts.back_mut() {
            part.ids.push(id);
            part.text.push_str(text);
        }
        self.lane.text_size += size_of(text.as_bytes());
        self.changed = true;
    }
}

fn row_of(key: &Name, part: &Part) -> StreamPart {
    StreamPart::Text {
        key: key.clone(),
        number: part.number,
        ids: part.ids.clone(),
        text: part.text.clone(),
    }
}

impl Stream {
    /// The stream of these rows: head, lanes, and at least the last parts of each text.
    pub(crate) fn new(rows: Vec<StreamPart>) -> Self {
        let mut this = Self::default();
        for row in rows {
            match row {
                StreamPart::Head(head) => this.head = head,
                StreamPart::Lane { key, lane } => {
                    this.lanes.entry(key).or_default().lane = lane;
                }
                StreamPart::Text { key, number, ids, text } => {
                    let parts = &mut this.lanes.entry(key).or_default().parts;
                    if let Some(last) = parts.back_mut() {
                        last.text = String::new();
                    }
                    parts.push_back(Part { number, ids, text });
                    if parts.len() > PARTS_REMEMBERED {
                        parts.pop_front();
                    }
                }
                StreamPart::Content { .. } => {}
            }
        }
        this
    }

    /// About how many bytes it takes.
    pub(crate) fn size(&self) -> usize {
        let of_lane = |(key, state): (&Name, &LaneState)| {
            let parts = state.parts.iter().map(|part| 64 + 8 * part.ids.len() + part.text.len());
            256 + key.len() + state.lane.error.len() + parts.sum::<usize>()
        };
        256 + self.head.from.len() + self.lanes.iter().map(of_lane).sum::<usize>()
    }

    /// Its message was stored. The last one that has the number counts.
    pub(crate) fn anchor(&mut self, from: &Name, message_id: i64) {
        self.head.from = from.clone();
        self.head.message_id = message_id;
        self.head_changed = true;
    }

    /// For the claim of a client number: `channel` wants it. Who has it stands in the head then.
    pub(crate) fn claim(&mut self, channel: &ChannelId, from: &Name, replaces: bool, ms: i64) {
        let head = &mut self.head;
        let is_free = head.claimed_ms == 0
            || head.owner == *channel
            || head.claimed_ms.saturating_add(CLAIM_MS) < ms;
        if !(is_free || replaces) {
            return;
        }
        if head.owner != *channel || replaces || head.from.is_empty() {
            head.from = from.clone();
        }
        head.owner = channel.clone();
        head.claimed_ms = ms.max(1);
        self.head_changed = true;
    }

    /// An event. `time_ms` is that of its entry.
    pub(crate) fn apply(
        &mut self,
        event: &StreamEvent,
        time_ms: i64,
    ) -> Result<Applied, StreamRefusal> {
        let id = digest(&event.event_id);
        let is_delta = event.action.is_delta();
        if let Some(state) = self.lanes.get(&event.lane) {
            if state.knows(id) {
                let push = if is_delta { Push::None } else { Push::Again };
                let status = if is_delta { state.lane.status.name() } else { stored_status(state) };
                return Ok(self.applied(event, state.lane.seq, status, push));
            }
            if state.lane.status.is_end() {
                if is_delta {
                    return Err(StreamRefusal::Closed);
                }
                let Lane { seq, status, .. } = &state.lane;
                return Ok(self.applied(event, *seq, status.name(), Push::Again));
            }
        } else if self.lanes.len() >= LANE_COUNT_MAX {
            return Err(StreamRefusal::TooManyLanes);
        }
        let state = self.lanes.get(&event.lane);
        let old = state.map_or_else(Lane::default, |state| state.lane.clone());
        let size = size_after(self.head.size, &old, event)?;
        let head = &mut self.head;
        let state = self.lanes.entry(event.lane.clone()).or_default();
        (head.size, self.head_changed) = (size, true);
        head.version += 1;
        if head.from.is_empty() {
            head.from = event.from.clone();
        }
        if head.message_id == 0 {
            head.message_id = event.message_id;
        }
        if event.claimed {
            head.claimed_ms = time_ms.max(1);
        }
        let text = match &event.action {
            EventAction::Append(text) => &**text,
            EventAction::Replace
            | EventAction::Snapshot
            | EventAction::End { .. }
            | EventAction::Note => "",
        };
        state.add(&event.lane, id, text, &mut self.pending);
        let lane = &mut state.lane;
        let mut write = |is_live, json: &Bytes| {
            let (key, size) = (event.lane.clone(), size_of(json));
            self.pending.push(StreamPart::Content { key, is_live, json: json.clone() });
            size
        };
        match &event.action {
            EventAction::Append(_) | EventAction::Note => {}
            EventAction::Replace => lane.live_size = write(true, &event.payload),
            EventAction::Snapshot => {
                lane.stored_size = write(false, &event.payload);
                lane.snapshot = Source::Stored;
            }
            EventAction::End { status, snapshot, end_reason, error } => {
                if lane.text_size > 0 {
                    lane.snapshot = Source::Text;
                } else if lane.live_size > 0 {
                    lane.snapshot = Source::Live;
                } else if let Some(json) = snapshot {
                    lane.stored_size = write(false, json);
                    lane.snapshot = Source::Stored;
                }
                (lane.status, lane.end_reason) = (*status, *end_reason);
                lane.error = error.clone();
            }
        }
        if !is_delta {
            head.seq += 1;
            lane.seq = head.seq;
            lane.event_id = event.event_id.clone();
            lane.event_type = event.kind.trim().to_lowercase().into();
            lane.visibility = event.visibility.clone();
            lane.occurred_ms = if event.occurred_ms == 0 { time_ms } else { event.occurred_ms };
        }
        let (seq, push) = (lane.seq, Push::Next(head.version));
        let status = if is_delta { LaneStatus::Open.name() } else { stored_status(state) };
        Ok(self.applied(event, seq, status, push))
    }

    fn applied(&self, event: &StreamEvent, seq: u64, status: &str, push: Push) -> Applied {
        let from = [&event.from, &self.head.from].into_iter().find(|from| !from.is_empty());
        let from = from.cloned().unwrap_or_else(|| SYSTEM_UID.into());
        let message_id =
            if event.message_id == 0 { self.head.message_id } else { event.message_id };
        let place = EventPlace { seq, status: status.into(), from };
        Applied { place, message_id, push }
    }

    /// The rows that have changed since they were taken last.
    pub(crate) fn take_rows(&mut self) -> Vec<StreamPart> {
        let mut rows = std::mem::take(&mut self.pending);
        if std::mem::take(&mut self.head_changed) {
            rows.push(StreamPart::Head(self.head.clone()));
        }
        for (key, state) in &mut self.lanes {
            if std::mem::take(&mut state.changed) {
                rows.extend(state.parts.back().map(|part| row_of(key, part)));
                rows.push(StreamPart::Lane { key: key.clone(), lane: state.lane.clone() });
            }
        }
        rows
    }
}

/// The status of what is stored: empty for a lane that has not ended.
fn stored_status(state: &LaneState) -> &'static str {
    if state.lane.status.is_end() { state.lane.status.name() } else { "" }
}

/// The size of the stream after an event, unless a bound says no.
fn size_after(size: u64, lane: &Lane, event: &StreamEvent) -> Result<u64, StreamRefusal> {
    let payload = size_of(&event.payload);
    let (added, removed) = match &event.action {
        EventAction::Append(text) => {
            let added = size_of(text.as_bytes());
            if lane.text_size + added > TEXT_SIZE_MAX {
                return Err(StreamRefusal::TooLarge);
            }
            (added, 0)
        }
        EventAction::Replace => (payload, lane.live_size),
        EventAction::Snapshot => (payload, lane.stored_size),
        EventAction::End { snapshot: Some(json), .. }
            if lane.text_size == 0 && lane.live_size == 0 =>
        {
            (size_of(json), lane.stored_size)
        }
        EventAction::End { .. } | EventAction::Note => (0, 0),
    };
    let size = size.saturating_sub(removed).saturating_add(added);
    if added > 0 && size > STREAM_SIZE_MAX { Err(StreamRefusal::TooLarge) } else { Ok(size) }
}

#[cfg(test)]
mod tests;
