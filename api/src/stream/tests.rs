#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

use jindou_core::stream::{EventPlace, Lane, Source};

use super::*;
use crate::testing::{Fixture, err, message};

/// A node at which client numbers belong to `bot` in a group `g`, and events find their place once
/// their number is claimed.
fn node() -> Fixture {
    Fixture::answers(|_, request| match request {
        Request::StreamEvent(event) if !event.claimed => {
            Reply::StreamRefused(StreamRefusal::Unclaimed)
        }
        Request::StreamEvent(event) => Reply::Event(Box::new(EventPlace {
            seq: 4,
            status: "open".into(),
            from: if event.from.is_empty() { "bot".into() } else { event.from.clone() },
        })),
        Request::ClaimStream(claim) => {
            let owner = match &*claim.client_msg_no {
                "c" => ChannelId::new("g", 2),
                _ => claim.channel.clone(),
            };
            Reply::StreamClaim(Box::new(Head { owner, claimed_ms: 1, ..Head::default() }))
        }
        Request::ReadClaim { .. } => {
            Reply::StreamClaim(Box::new(Head { from: "bot".into(), ..Head::default() }))
        }
        other => unreachable!("{other:?}"),
    })
}

#[test]
fn events_are_refused_with_the_recorded_texts() {
    let fixture = Fixture::silent();
    let check = |body: &str, text: &str| {
        assert_eq!(fixture.post("/message/event", body), err(text), "{body}");
    };
    check("", "EOF");
    check("{}", "channel_id不能为空！");
    check(r#"{"channel_id":"g"}"#, "client_msg_no不能为空！");
    check(r#"{"channel_id":"g","client_msg_no":"c"}"#, "event_id不能为空！");
    check(r#"{"channel_id":"g","client_msg_no":"c","event_id":" "}"#, "event_id不能为空！");
    let event = r#"{"channel_id":"g","client_msg_no":"c","event_id":"e","event_type":"#;
    check(&format!("{event}\" \"}}"), "event_type不能为空！");
    let long = "x".repeat(PAYLOAD_SIZE_MAX);
    check(&format!("{event}\"x\",\"payload\":\"{long}\"}}"), "payload is longer than 262144 bytes");
    let long = "x".repeat(CLIENT_NO_SIZE_MAX + 1);
    check(
        &format!(
            r#"{{"channel_id":"g","event_id":"e","event_type":"t","client_msg_no":"{long}"}}"#
        ),
        "client_msg_no is longer than 4096 bytes",
    );
    let sync = |body: &str, text: &str| {
        assert_eq!(fixture.post("/message/eventsync", body), err(text), "{body}");
    };
    sync("{}", "channel_id不能为空！");
    sync(r#"{"channel_id":"g"}"#, "client_msg_no不能为空！");
    sync(r#"{"channel_id":"g","client_msg_no":"c","limit":-1}"#, "limit不能为负数！");
}

#[test]
fn the_first_event_claims_its_client_number() {
    let fixture = node();
    let body = r#"{"channel_id":"g","channel_type":2,"client_msg_no":"c","event_id":" e ",
        "event_type":"Stream.Delta","payload":{ "kind" : "text", "delta" : "a \" b" }}"#;
    let answer = r#"{"data":{"client_msg_no":"c","event_key":"main","event_id":"e","msg_event_seq":4,"stream_status":"open","channel_id":"g","channel_type":2,"from_uid":"bot"},"status":200}"#;
    assert_eq!(fixture.post("/message/event", body), (200, answer.to_owned()));
    let asked = fixture.asked();
    assert_eq!(asked.len(), 3);
    let (target, last) = asked.last().unwrap();
    assert_eq!(*target, Target::Id("g".into()));
    assert!(last.contains(r#"Append("a \" b")"#), "{last}");
    assert!(last.contains(r#"kind: "Stream.Delta""#), "as sent: {last}");
    assert!(last.contains(r#"b"{\"kind\":\"text\",\"delta\":\"a \\\" b\"}""#), "{last}");
}

#[test]
fn a_client_number_of_another_channel_is_refused() {
    let body = r#"{"channel_id":"h","channel_type":2,"client_msg_no":"c","event_id":"e",
        "event_type":"x"}"#;
    assert_eq!(node().post("/message/event", body), err("message event channel mismatch"));
}

#[test]
fn whose_a_stream_between_two_is_says_its_claim() {
    let fixture = node();
    let body = r#"{"channel_id":"u2","channel_type":1,"client_msg_no":"p","event_id":"e",
        "event_type":"stream.finish","event_key":"mine"}"#;
    let (status, answer) = fixture.post("/message/event", body);
    assert_eq!(status, 200, "{answer}");
    assert!(answer.contains(r#""event_key":"__finish__""#), "{answer}");
    assert!(answer.contains(r#""channel_id":"u2","channel_type":1,"from_uid":"bot""#), "{answer}");
    let (target, _) = fixture.last_asked();
    assert_eq!(target, Target::Id(person_channel("bot", "u2").into()));
}

#[test]
fn payloads_say_what_an_event_does() {
    let action = |kind: &str, payload: &str| {
        let body = EventBody {
            event_type: kind.to_owned(),
            payload: Raw(payload.to_owned().into()),
            ..EventBody::default()
        };
        event_of(&body, ChannelId::new("g", 2), "".into()).action
    };
    let end = |status, snapshot: Option<&'static str>, end_reason, error: &str| EventAction::End {
        status,
        snapshot: snapshot.map(Into::into),
        end_reason,
        error: error.into(),
    };
    let (closed, failed, cancelled) =
        (LaneStatus::Closed, LaneStatus::Error, LaneStatus::Cancelled);
    assert_eq!(action("stream.delta", ""), EventAction::Append("".into()));
    assert_eq!(action("stream.delta", r#"{"kind":"text","delta":""}"#), EventAction::Replace);
    assert_eq!(action("stream.delta", r#"{"kind":"json","delta":"x"}"#), EventAction::Replace);
    assert_eq!(action("stream.delta", "[1]"), EventAction::Replace);
    assert_eq!(action(" STREAM.snapshot", "[1]"), EventAction::Snapshot);
    assert_eq!(action("stream.snapshot", ""), EventAction::Note);
    assert_eq!(action("stream.open", "{}"), EventAction::Note);
    assert_eq!(
        action("stream.close", r#"{"end_reason":"7","snapshot":{"a":1},"error":"x"}"#),
        end(closed, Some(r#"{"a":1}"#), 7, "")
    );
    assert_eq!(action("stream.close", r#"{"end_reason":300}"#), end(closed, None, 0, ""));
    assert_eq!(action("stream.close", "7"), end(closed, None, 0, ""));
    assert_eq!(
        action("stream.error", r#"{"end_reason":7,"error":"no"}"#),
        end(failed, None, 0, "no")
    );
    assert_eq!(action("stream.cancel", r#"{"error":"no"}"#), end(cancelled, None, 0, ""));
    assert_eq!(action("stream.finish", r#"{"snapshot":1}"#), end(closed, None, 0, ""));
}

fn lane(key: &str, seq: u64, visibility: &str) -> LaneView {
    LaneView {
        key: key.to_owned(),
        lane: Lane {
            seq,
            event_id: format!("e{seq}").into(),
            event_type: "my.own".into(),
            visibility: visibility.into(),
            occurred_ms: 9,
            ..Lane::default()
        },
        ..LaneView::default()
    }
}

#[test]
fn hidden_lanes_do_not_count_against_the_limit() {
    let fixture = Fixture::answers(|target, _| {
        assert!(matches!(target, Target::Slot(_)));
        let lanes = vec![
            lane("a", 3, ""),
            lane("b", 1, "private"),
            lane("c", 2, "restricted"),
            lane("d", 4, "public"),
            lane("delta", 0, ""),
        ];
        Reply::Streams(vec![StreamView { lanes, ..StreamView::default() }])
    });
    let ask = |more: &str| {
        let body = format!(r#"{{"channel_id":"g","channel_type":2,"client_msg_no":"c"{more}}}"#);
        let (status, answer) = fixture.post("/message/eventsync", &body);
        assert_eq!(status, 200, "{answer}");
        answer
    };
    let first = ask(r#","limit":1"#);
    assert_eq!(
        first,
        r#"{"data":{"client_msg_no":"c","events":[{"event_id":"e3","event_key":"a","event_type":"my.own","msg_event_seq":3,"occurred_at":9,"payload":{"end_reason":0,"status":""},"visibility":""}],"filtered_by_event_key":"","from_msg_event_seq":0,"more":1,"next_msg_event_seq":3},"status":200}"#
    );
    let second = ask(r#","limit":1,"from_msg_event_seq":3"#);
    assert!(second.contains(r#""event_id":"e4""#), "{second}");
    assert!(second.contains(r#""more":0,"next_msg_event_seq":4"#), "{second}");
    let all = ask(r#","include_private":1"#);
    assert_eq!(all.matches("event_id").count(), 4, "deltas alone are not stored: {all}");
    let one = ask(r#","include_private":1,"event_key":" b ""#);
    assert_eq!(one.matches("event_id").count(), 1, "{one}");
}

fn shown(view: &StreamView, detail: Detail) -> String {
    let mut message = message(1, "g", 2);
    message.setting = jindou_core::message::setting::STREAM;
    String::from_utf8(crate::json::to_json(&show(&message, view, detail)).to_vec()).unwrap()
}

#[test]
fn results_show_streams_as_documented() {
    let mut main = lane("main", 1, "");
    main.lane.status = LaneStatus::Closed;
    main.lane.end_reason = 3;
    main.lane.snapshot = Source::Text;
    main.text = "Hello <b>".to_owned();
    let mut tool = lane("tool", 0, "");
    tool.live = Bytes::from_static(b"{\"kind\":\"binary\",\"data\":\"AA==\"}");
    let mut view =
        StreamView { lanes: vec![lane("__finish__", 2, ""), main, tool], ..StreamView::default() };
    let full = shown(&view, Detail::Full);
    let want = r#""end":1,"end_reason":3,"stream_data":"SGVsbG8gPGI+","event_meta":{"has_events":true,"completed":true,"event_version":1,"last_msg_event_seq":1,"event_count":2,"open_event_count":1,"events":[{"event_key":"main","status":"closed","last_msg_event_seq":1,"snapshot":{"kind":"text","text":"Hello \u003cb\u003e"},"end_reason":3},{"event_key":"tool","status":"open","snapshot":{"kind":"binary","data":"AA=="}}]},"event_sync_hint":{"client_msg_no":"n1","from_msg_event_seq":0},"message_seq":1"#;
    assert!(full.contains(want), "{full}");
    let basic = shown(&view, Detail::Basic);
    assert!(!basic.contains("snapshot") && basic.contains("SGVsbG8gPGI+"), "{basic}");
    view.lanes.iter_mut().for_each(forget_contents);
    let bare = shown(&view, Detail::Full);
    assert!(bare.contains("event_sync_hint") && !bare.contains("stream_data"), "{bare}");
    assert!(!shown(&StreamView::default(), Detail::Full).contains("event_"));
}

#[test]
fn stream_data_is_the_text_of_any_kind() {
    let data = |json: &'static str| {
        let mut main = lane("main", 0, "");
        main.live = Bytes::from_static(json.as_bytes());
        shown(&StreamView { lanes: vec![main], ..StreamView::default() }, Detail::Basic)
    };
    assert!(data(r#"{"kind":"text","text":"hi"}"#).contains(r#""stream_data":"aGk=""#));
    assert!(data(r#"{"kind":"binary","data":"hi"}"#).contains(r#""stream_data":"aGk=""#));
    assert!(data(r#"[1]"#).contains(r#""stream_data":"WzFd""#));
}

#[test]
fn a_large_result_is_read_in_pieces_and_keeps_its_bound() {
    let fixture = Fixture::answers(|_, request| {
        let Request::Streams { streams } = request else { unreachable!() };
        let view = |key: &StreamKey| {
            let mut main = lane("main", 1, "");
            main.lane.snapshot = Source::Text;
            main.text = format!("{}{}", key.client_msg_no, "x".repeat(1 << 20));
            StreamView { lanes: vec![main], ..StreamView::default() }
        };
        Reply::Streams(streams.iter().take(7).map(view).collect())
    });
    let messages: Vec<SharedMessage> = (1..=40)
        .map(|seq| {
            let mut message = message(seq, "g", 2);
            message.setting = jindou_core::message::setting::STREAM;
            message.into()
        })
        .collect();
    let streams = futures::executor::block_on(Streams::of(&fixture.api, &messages)).unwrap();
    let sizes: Vec<usize> =
        streams.0.values().map(|view| view.lanes.first().unwrap().text.len()).collect();
    assert_eq!(sizes.len(), 40);
    assert_eq!(sizes.iter().filter(|size| **size > 0).count(), 15);
}
