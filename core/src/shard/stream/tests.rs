#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::stream::{LaneView, Snapshot, StreamKey, StreamView};

const NOW: i64 = 1_700_000_000_000;

fn event(lane: &str, id: &str, action: EventAction) -> StreamEvent {
    let kind = match &action {
        EventAction::Append(_) | EventAction::Replace => "stream.delta",
        EventAction::Snapshot => "Stream.Snapshot ",
        EventAction::End { .. } => "stream.close",
        EventAction::Note => "my.own",
    };
    StreamEvent {
        stream: StreamKey::new(ChannelId::new("g", 2), "c"),
        shown: "g".into(),
        from: "".into(),
        message_id: 0,
        event_id: id.into(),
        kind: kind.into(),
        lane: lane.into(),
        visibility: "".into(),
        occurred_ms: 0,
        payload: format!("{{\"id\":\"{id}\"}}").into(),
        action,
        claimed: true,
    }
}

fn append(id: &str, text: &str) -> StreamEvent {
    event("main", id, EventAction::Append(text.into()))
}

fn close(id: &str, snapshot: Option<&'static str>) -> StreamEvent {
    let action = EventAction::End {
        status: LaneStatus::Closed,
        snapshot: snapshot.map(Into::into),
        end_reason: 3,
        error: "".into(),
    };
    event("main", id, action)
}

/// The rows of a stream, as a store keeps them.
#[derive(Default)]
struct Rows(BTreeMap<(u8, Name, u32), StreamPart>);

impl Rows {
    fn write(&mut self, stream: &mut Stream) {
        for part in stream.take_rows() {
            let key = match &part {
                StreamPart::Head(_) => (0, "".into(), 0),
                StreamPart::Lane { key, .. } => (1, key.clone(), 0),
                StreamPart::Text { key, number, .. } => (2, key.clone(), *number),
                StreamPart::Content { key, is_live, .. } => (3, key.clone(), u32::from(*is_live)),
            };
            self.0.insert(key, part);
        }
    }

    /// What a start, or another replica, reads: the last parts only.
    fn read(&self) -> Stream {
        let mut parts: Vec<StreamPart> = Vec::new();
        for part in self.0.values().rev() {
            let of_lane = |other: &StreamPart| {
                matches!((part, other), (
                    StreamPart::Text { key, .. },
                    StreamPart::Text { key: other, .. },
                ) if key == other)
            };
            let is_old = parts.iter().filter(|other| of_lane(other)).count() >= PARTS_REMEMBERED;
            if !is_old && !matches!(part, StreamPart::Content { .. }) {
                parts.push(part.clone());
            }
        }
        parts.reverse();
        Stream::new(parts)
    }

    fn view(&self) -> StreamView {
        StreamView::of(self.0.values().cloned())
    }
}

#[test]
fn a_stream_goes_from_deltas_to_history() {
    let mut stream = Stream::default();
    stream.anchor(&"bot".into(), 7);
    let first = stream.apply(&append("e1", "Hel"), NOW).unwrap();
    assert_eq!((&*first.place.status, first.place.seq), ("open", 0));
    assert_eq!((&*first.place.from, first.message_id, first.push), ("bot", 7, Push::Next(1)));
    assert_eq!(stream.apply(&append("e2", "lo"), NOW).unwrap().push, Push::Next(2));
    let again = stream.apply(&append("e1", "Hel"), NOW).unwrap();
    assert_eq!((&*again.place.status, again.push), ("open", Push::None), "a repeated delta");
    let end = stream.apply(&close("e3", Some("\"theirs\"")), NOW).unwrap();
    assert_eq!((&*end.place.status, end.place.seq, end.push), ("closed", 1, Push::Next(3)));
    let repeated = stream.apply(&append("e2", "lo"), NOW).unwrap();
    assert_eq!((&*repeated.place.status, repeated.push), ("closed", Push::None));
    assert_eq!(stream.apply(&append("e4", "!"), NOW), Err(StreamRefusal::Closed));
    let late = stream.apply(&close("e5", None), NOW).unwrap();
    assert_eq!((late.place.seq, late.push), (1, Push::Again));
    let mut rows = Rows::default();
    rows.write(&mut stream);
    let view = rows.view();
    let main = view.lanes.first().unwrap();
    assert_eq!(main.snapshot(), Some(Snapshot::Text("Hello")));
    assert_eq!((main.lane.end_reason, main.lane.occurred_ms), (3, NOW));
    assert_eq!((view.head.seq, view.head.version), (1, 3));
    assert!(stream.take_rows().is_empty(), "what has not changed is not written");
}

#[test]
fn bounds_refuse_and_change_nothing() {
    let mut stream = Stream::default();
    let large = "x".repeat(usize::try_from(TEXT_SIZE_MAX).unwrap());
    stream.apply(&append("1", &large), NOW).unwrap();
    assert_eq!(stream.apply(&append("2", "y"), NOW), Err(StreamRefusal::TooLarge));
    for n in 1..4 {
        let action = EventAction::Append(large.as_str().into());
        stream.apply(&event(&format!("l{n}"), "1", action), NOW).unwrap();
    }
    let refused = event("l9", "1", EventAction::Append("y".into()));
    assert_eq!(stream.apply(&refused, NOW), Err(StreamRefusal::TooLarge));
    assert_eq!((stream.head.version, stream.head.size), (4, STREAM_SIZE_MAX));
    stream.apply(&close("3", None), NOW).unwrap();

    let mut stream = Stream::default();
    for n in 0..LANE_COUNT_MAX {
        stream.apply(&event(&format!("{n}"), "1", EventAction::Note), NOW).unwrap();
    }
    let refused = event("more", "1", EventAction::Note);
    assert_eq!(stream.apply(&refused, NOW), Err(StreamRefusal::TooManyLanes));
    assert!(stream.size() < 1 << 20);
}

#[test]
fn contents_that_are_replaced_do_not_add_up() {
    let mut stream = Stream::default();
    let payload: Bytes = vec![b'1'; 1 << 20].into();
    for n in 0..100 {
        let action = if n % 2 == 0 { EventAction::Replace } else { EventAction::Snapshot };
        let mut event = event("main", &n.to_string(), action);
        event.payload = payload.clone();
        stream.apply(&event, NOW).unwrap();
    }
    assert_eq!(stream.head.size, 2 << 20);
}

#[test]
fn a_long_text_is_in_the_store_and_not_in_memory() {
    let (mut stream, mut rows) = (Stream::default(), Rows::default());
    let mut want = String::new();
    for n in 0..5_000 {
        let word = format!("word {n} ");
        want.push_str(&word);
        stream.apply(&append(&n.to_string(), &word), NOW).unwrap();
        if n % 100 == 0 {
            rows.write(&mut stream);
        }
        assert!(stream.size() < 8 << 10);
    }
    rows.write(&mut stream);
    assert_eq!(rows.view().lanes.first().unwrap().text, want);
    for n in 4_850..5_000 {
        let id = n.to_string();
        assert_eq!(stream.apply(&append(&id, "again"), NOW).unwrap().push, Push::None, "{id}");
    }
}

#[test]
fn a_client_number_has_one_owner() {
    let (g, h): (ChannelId, ChannelId) = (ChannelId::new("g", 2), ChannelId::new("h", 2));
    let mut claim = Stream::default();
    claim.claim(&g, &"".into(), false, NOW);
    claim.claim(&g, &"ann".into(), false, NOW);
    claim.claim(&h, &"bob".into(), false, NOW + 1);
    assert_eq!((&claim.head.owner, &*claim.head.from), (&g, "ann"));
    claim.claim(&g, &"eve".into(), false, NOW + 2);
    assert_eq!(&*claim.head.from, "ann", "the first one's");
    claim.claim(&h, &"bob".into(), true, NOW + 3);
    assert_eq!((&claim.head.owner, &*claim.head.from), (&h, "bob"), "a message was sent");
    claim.claim(&g, &"ann".into(), false, NOW + 4 + CLAIM_MS);
    assert_eq!(&claim.head.owner, &g, "an old one");
}

/// The same rules, without parts, digests or bounds.
#[derive(Default)]
struct Model {
    lanes: BTreeMap<String, ModelLane>,
    seq: u64,
    version: u64,
}

#[derive(Default)]
struct ModelLane {
    seen: BTreeSet<String>,
    text: String,
    live: Option<String>,
    stored: Option<Option<String>>,
    status: LaneStatus,
    seq: u64,
}

impl Model {
    fn apply(&mut self, event: &StreamEvent) -> Result<(u64, Push), StreamRefusal> {
        let lane = self.lanes.entry(event.lane.to_string()).or_default();
        let is_delta = event.action.is_delta();
        if lane.seen.contains(&*event.event_id) {
            return Ok((lane.seq, if is_delta { Push::None } else { Push::Again }));
        }
        if lane.status.is_end() {
            return if is_delta { Err(StreamRefusal::Closed) } else { Ok((lane.seq, Push::Again)) };
        }
        lane.seen.insert(event.event_id.to_string());
        self.version += 1;
        let payload = || String::from_utf8(event.payload.to_vec()).unwrap();
        match &event.action {
            EventAction::Append(text) => lane.text.push_str(text),
            EventAction::Replace => lane.live = Some(payload()),
            EventAction::Snapshot => lane.stored = Some(Some(payload())),
            EventAction::Note => {}
            EventAction::End { status, snapshot, .. } => {
                lane.status = *status;
                if !lane.text.is_empty() {
                    lane.stored = Some(None);
                } else if let Some(live) = &lane.live {
                    lane.stored = Some(Some(live.clone()));
                } else if let Some(json) = snapshot {
                    lane.stored = Some(Some(String::from_utf8(json.to_vec()).unwrap()));
                }
            }
        }
        if !is_delta {
            self.seq += 1;
            lane.seq = self.seq;
        }
        Ok((lane.seq, Push::Next(self.version)))
    }

    fn check(&self, view: &StreamView) {
        assert_eq!((view.head.seq, view.head.version), (self.seq, self.version));
        assert_eq!(view.lanes.len(), self.lanes.len());
        for LaneView { key, lane, text, .. } in &view.lanes {
            let want = self.lanes.get(key).unwrap();
            assert_eq!((text, lane.status, lane.seq), (&want.text, want.status, want.seq));
        }
        for view in &view.lanes {
            let want = self.lanes.get(&view.key).unwrap();
            let stored = match &want.stored {
                None => None,
                Some(None) => Some(want.text.clone()),
                Some(Some(json)) => Some(json.clone()),
            };
            assert_eq!(view.stored_snapshot().map(words), stored);
            if !want.status.is_end() {
                let open = if want.text.is_empty() {
                    want.live.clone().or(stored)
                } else {
                    Some(want.text.clone())
                };
                assert_eq!(view.snapshot().map(words), open);
            }
        }
    }
}

fn words(snapshot: Snapshot<'_>) -> String {
    match snapshot {
        Snapshot::Text(text) => text.to_owned(),
        Snapshot::Json(json) => String::from_utf8(json.to_vec()).unwrap(),
    }
}

#[derive(Debug, Clone)]
enum Step {
    Event(Box<StreamEvent>),
    /// An entry ends.
    Write,
    /// Only what was written is left; the entries since are applied again.
    Restart,
}

fn any_step() -> impl Strategy<Value = Step> {
    let ending =
        prop::sample::select(vec![LaneStatus::Closed, LaneStatus::Error, LaneStatus::Cancelled]);
    let snapshot = prop::option::of(prop::sample::select(vec!["\"a\"", "[1]"]));
    let action = prop_oneof![
        12 => "[a-z你]{0,6}".prop_map(|text| EventAction::Append(text.into())),
        2 => Just(EventAction::Replace),
        2 => Just(EventAction::Snapshot),
        2 => Just(EventAction::Note),
        1 => (ending, snapshot).prop_map(|(status, snapshot)| EventAction::End {
            status,
            snapshot: snapshot.map(Into::into),
            end_reason: 1,
            error: "e".into(),
        }),
    ];
    let lane = prop::sample::select(vec!["main", "tool", "__finish__"]);
    prop_oneof![
        10 => (lane, 0..90_u32, action)
            .prop_map(|(lane, id, action)| Step::Event(event(lane, &id.to_string(), action).into())),
        2 => Just(Step::Write),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    /// Whatever comes, and however often it comes again, the stream is what the plain rules say, in
    /// memory and after any restart.
    #[test]
    fn a_stream_is_what_its_events_say(steps in prop::collection::vec(any_step(), 0..160)) {
        let (mut stream, mut model, mut rows) = (Stream::default(), Model::default(), Rows::default());
        let mut unwritten: Vec<Box<StreamEvent>> = Vec::new();
        for step in steps {
            match step {
                Step::Event(event) => {
                    let got = stream.apply(&event, NOW);
                    let want = model.apply(&event);
                    match (got, want) {
                        (Ok(got), Ok((seq, push))) => {
                            prop_assert_eq!((got.place.seq, got.push), (seq, push));
                        }
                        (Err(got), Err(want)) => prop_assert_eq!(got, want),
                        (got, want) => panic!("{got:?}, not {want:?}"),
                    }
                    unwritten.push(event);
                }
                Step::Write => {
                    rows.write(&mut stream);
                    unwritten.clear();
                    model.check(&rows.view());
                }
                Step::Restart => {
                    stream = rows.read();
                    for event in &unwritten {
                        let _ = stream.apply(event, NOW);
                    }
                }
            }
        }
        rows.write(&mut stream);
        model.check(&rows.view());
        // Both replicas, the one that ran and the one that starts, write the same rows.
        let mut other = rows.read();
        let late = event("main", "late", EventAction::Note);
        prop_assert_eq!(stream.apply(&late, NOW), other.apply(&late, NOW));
        prop_assert_eq!(stream.take_rows(), other.take_rows());
    }
}
