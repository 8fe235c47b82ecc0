#![expect(clippy::indexing_slicing, clippy::wildcard_enum_match_arm, reason = "tests")]

use proptest::prelude::*;

use super::*;
use crate::testing::{Fixture, err, read_log};

/// A channel with this many messages, whatever its id.
fn with_log(log_last: u64) -> Fixture {
    Fixture::answers(move |_, request| match request {
        Request::Messages { channel, first, last, count_max, from_start } => {
            Reply::Messages(read_log(channel, log_last, (*first, *last), *count_max, *from_start))
        }
        Request::LastSeq { .. } => Reply::LastSeq(log_last),
        other => unreachable!("{other:?}"),
    })
}

/// The seqs of a page, and `more`.
fn seqs(fixture: &Fixture, body: &str) -> (Vec<u64>, u64) {
    let whole = format!(r#"{{"login_uid":"b","channel_id":"g","channel_type":2,{body}"#);
    let (status, text) = fixture.post("/channel/messagesync", &whole);
    assert_eq!(status, 200, "{text}");
    let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let messages = json["messages"].as_array().cloned().unwrap_or_default();
    let seqs = messages.iter().filter_map(|message| message["message_seq"].as_u64());
    (seqs.collect(), json["more"].as_u64().unwrap_or(9))
}

#[test]
fn pages_are_those_of_the_recorded_scenarios() {
    let seven = with_log(7);
    let check = |body: &str, expected: &[u64], more| {
        assert_eq!(seqs(&seven, body), (expected.to_vec(), more), "{body}");
    };
    // messagesync-newest
    check(r#""limit":3}"#, &[5, 6, 7], 1);
    check(r#""limit":3,"pull_mode":1}"#, &[5, 6, 7], 1);
    check(r#""limit":7}"#, &[1, 2, 3, 4, 5, 6, 7], 1);
    check(r#""limit":8}"#, &[1, 2, 3, 4, 5, 6, 7], 0);
    check(r#""limit":1000000,"pull_mode":1}"#, &[1, 2, 3, 4, 5, 6, 7], 0);
    check(r#""limit":1}"#, &[7], 1);
    // messagesync-down
    check(r#""limit":2,"start_message_seq":3}"#, &[2, 3], 1);
    check(r#""limit":2,"start_message_seq":1}"#, &[1], 0);
    check(r#""limit":10,"start_message_seq":5,"end_message_seq":2}"#, &[3, 4, 5], 0);
    check(r#""limit":3,"start_message_seq":5,"end_message_seq":2}"#, &[3, 4, 5], 1);
    check(r#""limit":2,"start_message_seq":5,"end_message_seq":2}"#, &[4, 5], 1);
    check(r#""limit":10,"start_message_seq":4,"end_message_seq":4}"#, &[], 0);
    check(r#""limit":10,"start_message_seq":2,"end_message_seq":5}"#, &[], 0);
    check(r#""limit":10,"end_message_seq":4}"#, &[], 0);
    check(r#""limit":100,"start_message_seq":5}"#, &[1, 2, 3, 4, 5], 0);
    check(r#""limit":10,"start_message_seq":5,"end_message_seq":1}"#, &[2, 3, 4, 5], 0);
    check(r#""limit":3,"start_message_seq":9}"#, &[7], 0);
    check(r#""limit":3,"start_message_seq":10}"#, &[], 0);
    // messagesync-up
    check(r#""limit":2,"start_message_seq":3,"pull_mode":1}"#, &[3, 4], 1);
    check(r#""limit":2,"start_message_seq":7,"pull_mode":1}"#, &[7], 0);
    check(r#""limit":2,"start_message_seq":8,"pull_mode":1}"#, &[], 0);
    check(r#""limit":3,"start_message_seq":2,"end_message_seq":5,"pull_mode":1}"#, &[2, 3, 4], 1);
    check(r#""limit":10,"end_message_seq":4,"pull_mode":1}"#, &[1, 2, 3], 0);
    check(r#""limit":5,"end_message_seq":1,"pull_mode":1}"#, &[], 0);
    check(r#""limit":10,"start_message_seq":5,"end_message_seq":2,"pull_mode":1}"#, &[], 0);
    check(
        r#""limit":10,"start_message_seq":4,"end_message_seq":100,"pull_mode":1}"#,
        &[4, 5, 6, 7],
        0,
    );
    // messagesync-limit-zero
    check(r#""limit":0}"#, &[], 1);
    check(r#""pull_mode":1}"#, &[], 1);
    check(r#""limit":0,"start_message_seq":3}"#, &[], 1);
    check(r#""limit":0,"start_message_seq":3,"pull_mode":1}"#, &[3, 4, 5, 6, 7], 1);
    check(r#""start_message_seq":3,"end_message_seq":5,"pull_mode":1}"#, &[3, 4], 1);
    // Any mode but 1 means down.
    check(r#""limit":2,"start_message_seq":3,"pull_mode":-1}"#, &[2, 3], 1);
}

#[test]
fn an_unused_channel_gives_an_empty_page() {
    let empty = with_log(0);
    let body =
        r#"{"login_uid":"a","channel_id":"b","channel_type":1,"limit":3,"start_message_seq":5}"#;
    assert_eq!(
        empty.post("/channel/messagesync", body),
        (200, r#"{"start_message_seq":5,"end_message_seq":0,"more":0,"messages":[]}"#.to_owned())
    );
    let (target, asked) = empty.last_asked();
    assert_eq!(target, Target::Id(jindou_core::id::person_channel("a", "b").into()));
    assert!(asked.contains("kind: 1"), "{asked}");
}

#[test]
fn bodies_are_refused_with_the_recorded_texts() {
    let fixture = Fixture::silent();
    let check = |body: &str, text: &str| {
        assert_eq!(fixture.post("/channel/messagesync", body), err(text), "{body}");
    };
    check("", "EOF");
    check("{", "unexpected EOF");
    check("{}", "channel_id不能为空！");
    check(r#"{"login_uid":" ","channel_id":"g","channel_type":2}"#, "login_uid不能为空！");
    check(r#"{"login_uid":"a","channel_id":"  ","channel_type":2}"#, "channel_id不能为空！");
    check(r#"{"login_uid":"a","channel_id":"g","limit":-1}"#, "limit不能为负数！");
    for bad in [
        r#""start_message_seq":-1"#,
        r#""start_message_seq":"1""#,
        r#""end_message_seq":1.5"#,
        r#""start_message_seq":18446744073709551616"#,
        r#""limit":"3""#,
        r#""limit":99999999999999999999"#,
        r#""channel_type":256"#,
        r#""pull_mode":"1""#,
        r#""event_summary_mode":1"#,
    ] {
        let (status, text) = fixture.post("/channel/messagesync", &format!("{{{bad}}}"));
        assert!(status == 400 && text.contains("json: cannot unmarshal"), "{bad}: {text}");
    }
    let long = "x".repeat(8193);
    check(
        &format!(r#"{{"login_uid":"a","channel_id":"{long}","channel_type":2}}"#),
        "channel_id is longer than 8192 bytes",
    );
}

#[test]
fn a_page_cut_by_the_store_says_that_there_is_more() {
    // The store gives the end of the range only.
    let down = Fixture::answers(|_, request| match request {
        Request::Messages { channel, first, last, .. } => {
            Reply::Messages(read_log(channel, 9, (*first, *last), 2, false))
        }
        other => unreachable!("{other:?}"),
    });
    assert_eq!(seqs(&down, r#""limit":5}"#), (vec![8, 9], 1));
    assert_eq!(seqs(&down, r#""limit":5,"start_message_seq":7}"#), (vec![6, 7], 1));

    // Upwards a large reply makes the API look whether something follows.
    let up = Fixture::answers(|_, request| match request {
        Request::Messages { channel, first, last, count_max, .. } => {
            let mut found = read_log(channel, 9, (*first, *last), 2.min(*count_max), true);
            for message in &mut found {
                let large = vec![0; CUT_SUSPECT_SIZE / 2];
                SharedMessage::make_mut(message).payload = large.into();
            }
            Reply::Messages(found)
        }
        other => unreachable!("{other:?}"),
    });
    assert_eq!(seqs(&up, r#""limit":5,"start_message_seq":3,"pull_mode":1}"#), (vec![3, 4], 1));
    assert_eq!(seqs(&up, r#""limit":5,"start_message_seq":8,"pull_mode":1}"#), (vec![8, 9], 0));
    assert_eq!(
        seqs(&up, r#""limit":5,"start_message_seq":3,"end_message_seq":5,"pull_mode":1}"#),
        (vec![3, 4], 0)
    );
}

#[test]
fn the_last_seq_and_the_last_message_are_told() {
    let three = with_log(3);
    let get = |target: &str| three.get(target);
    let (no_id, no_uid) = (err("channel_id不能为空"), err("login_uid不能为空"));
    assert_eq!(get("/channel/max_message_seq"), no_id);
    assert_eq!(get("/channel/last_message"), no_id);
    assert_eq!(get("/channel/max_message_seq?channel_id=b&channel_type=1"), no_uid);
    assert_eq!(get("/channel/last_message?channel_id=b&channel_type=1"), no_uid);
    assert_eq!(get("/channel/last_message?channel_id=b@a&channel_type=1"), no_uid);
    let seq = (200, r#"{"message_seq":3}"#.to_owned());
    assert_eq!(get("/channel/max_message_seq?channel_id=g&channel_type=x"), seq);
    assert_eq!(get("/channel/max_message_seq?channel_id=u2&channel_type=1&login_uid=u1"), seq);
    assert_eq!(three.last_asked().0, Target::Id("u2@u1".into()));
    assert_eq!(get("/channel/max_message_seq?channel_id=u2%40u1&channel_type=1"), seq);
    assert_eq!(three.last_asked().0, Target::Id("u2@u1".into()));
    let (status, text) = get("/channel/last_message?channel_id=g&channel_type=2");
    assert!(status == 200 && text.contains(r#""message_seq":3,"from_uid":"a""#), "{text}");
    let none = with_log(0).get("/channel/last_message?channel_id=g&channel_type=2");
    assert_eq!(none, (200, r#"{"status":404}"#.to_owned()));
}

/// The table of http-api.md §8.8, by looking at every seq.
fn model(log_last: u64, start: u64, end: u64, limit: usize, is_up: bool) -> Vec<u64> {
    let log: Vec<u64> = (1..=log_last).collect();
    let newest_first = |seqs: Vec<u64>| {
        let skipped = seqs.len().saturating_sub(limit);
        seqs.into_iter().skip(skipped).collect::<Vec<u64>>()
    };
    if start == 0 && end == 0 {
        return newest_first(log);
    }
    if is_up {
        let count = if limit == 0 { usize::MAX } else { limit };
        let inside = |seq: &u64| *seq >= start && (end == 0 || *seq < end);
        return log.into_iter().filter(inside).take(count).collect();
    }
    // A full page downwards from start, whether its seqs exist or not, cut by the end.
    let page: Vec<u64> = (1..=start).rev().take(limit).filter(|seq| *seq > end).collect();
    log.into_iter().filter(|seq| page.contains(seq)).collect()
}

proptest! {
    #[test]
    fn windows_are_those_of_the_table(
        log_last in 0_u64..12, start in 0_u64..15, end in 0_u64..15, limit in 0_usize..15, is_up: bool,
    ) {
        let found = Window::new(start, end, limit, is_up).map_or_else(Vec::new, |window| {
            let channel = ChannelId::new("g", 2);
            let range = (window.first, window.last);
            read_log(&channel, log_last, range, window.count_max, window.from_start)
                .iter()
                .map(|message| message.seq)
                .collect()
        });
        prop_assert_eq!(found, model(log_last, start, end, limit, is_up));
    }

    #[test]
    fn no_window_overflows(start: u64, end: u64, limit: usize, is_up: bool) {
        if let Some(window) = Window::new(start, end, limit, is_up) {
            prop_assert!(1 <= window.first && window.first <= window.last);
            prop_assert!(is_up || window.count_max <= limit);
        }
    }
}
