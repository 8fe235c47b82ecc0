#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

use jindou_core::{message::SharedMessage, request::Failure};
use proptest::prelude::*;

use super::*;
use crate::testing::{Fixture, err, fine, message, read_log};

/// A channel of the fake: its last seq, and the last one that the reader wrote.
type Logs = Vec<(ChannelId, u64, u64)>;

/// Rows of one user, and logs; recents are written by `a` but for the reader's own last one.
fn world(rows: Vec<(ChannelId, Conversation)>, logs: Logs) -> Fixture {
    Fixture::answers(move |target, request| match request {
        Request::Conversations { .. } => Reply::Conversations(rows.clone()),
        Request::LastSeq { channel } => {
            Reply::LastSeq(logs.iter().find(|log| log.0 == *channel).map_or(0, |log| log.1))
        }
        Request::Digests { uid, items } => {
            assert!(matches!(target, Target::Slot(_)));
            Reply::Digests(items.iter().map(|query| digest(&logs, uid, query)).collect())
        }
        Request::ReadTo { .. } | Request::DeleteConversation { .. } => Reply::Done,
        other => unreachable!("{other:?}"),
    })
}

fn digest(logs: &Logs, uid: &Name, query: &DigestQuery) -> Digest {
    let Some((channel, last, own)) = logs.iter().find(|log| log.0 == query.channel) else {
        return Digest::default();
    };
    let mut recents = read_log(channel, *last, (query.after + 1, u64::MAX), query.count_max, false);
    recents.reverse();
    for message in &mut recents {
        if message.seq == *own {
            SharedMessage::make_mut(message).from = uid.clone();
        }
    }
    Digest { last_seq: *last, own_seq: *own, recents }
}

fn row(read_to: u64, deleted_to: u64) -> Conversation {
    Conversation { read_to, deleted_to, created_ms: 1, updated_ms: 1, handed_to: 0 }
}

fn group(id: &str) -> ChannelId {
    ChannelId::new(id, 2)
}

fn person(a: &str, b: &str) -> ChannelId {
    read_channel(a, b, 1)
}

/// What a sync shows: id, unread, last seq, read seq, seqs of recents.
fn shown(fixture: &Fixture, body: &str) -> Vec<(String, u64, u64, u64, Vec<u64>)> {
    let (status, text) = fixture.post("/conversation/sync", body);
    assert_eq!(status, 200, "{text}");
    let json: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let number = |item: &serde_json::Value, key: &str| item[key].as_u64().unwrap();
    json.iter()
        .map(|item| {
            let recents = item["recents"].as_array().unwrap();
            (
                item["channel_id"].as_str().unwrap().to_owned(),
                number(item, "unread"),
                number(item, "last_msg_seq"),
                number(item, "readed_to_msg_seq"),
                recents.iter().map(|message| number(message, "message_seq")).collect(),
            )
        })
        .collect()
}

fn item_of(
    id: &str,
    unread: u64,
    last: u64,
    read: u64,
    recents: &[u64],
) -> (String, u64, u64, u64, Vec<u64>) {
    (id.to_owned(), unread, last, read, recents.to_vec())
}

#[test]
fn bodies_are_refused_with_the_recorded_texts() {
    let fixture = Fixture::silent();
    let nothing = "channel_id or channel_type cannot be empty";
    for (route, no_uid) in [
        ("/conversations/clearUnread", "uid cannot be empty"),
        ("/conversations/setUnread", "UID cannot be empty"),
        ("/conversations/delete", "Uid cannot be empty"),
    ] {
        for (body, text) in [
            ("{}", no_uid),
            (r#"{"uid":"a"}"#, nothing),
            (r#"{"uid":"a","channel_id":"b"}"#, nothing),
            (r#"{"uid":"a","channel_type":1}"#, nothing),
            ("", "EOF"),
        ] {
            assert_eq!(fixture.post(route, body), err(text), "{route} {body}");
        }
        let negative = r#"{"uid":"a","channel_id":"x","channel_type":2,"message_seq":-1}"#;
        assert_eq!(fixture.post(route, negative).0, 400);
    }
    for route in ["/conversation/sync", "/conversation/channels", "/conversation/syncByChannels"] {
        assert_eq!(fixture.post(route, r#"{"uid":" "}"#), err("uid cannot be empty"));
        assert_eq!(fixture.post(route, ""), err("EOF"));
    }
    let none = err("channels cannot be empty");
    assert_eq!(fixture.post("/conversation/syncByChannels", r#"{"uid":"a","channels":[]}"#), none);
    let bad = r#"{"uid":"u","msg_count":1,"exclude_channel_types":[256]}"#;
    assert_eq!(fixture.post("/conversation/sync", bad).0, 400);
}

#[test]
fn an_item_has_every_field_in_order() {
    let fixture = world(vec![(person("u1", "a"), row(0, 0))], vec![(person("u1", "a"), 1, 0)]);
    let (_, text) = fixture.post("/conversation/sync", r#"{"uid":"u1","msg_count":3}"#);
    assert_eq!(
        text,
        r#"[{"channel_id":"a","channel_type":1,"unread":1,"timestamp":1735689600,"last_msg_seq":1,"last_client_msg_no":"n1","offset_msg_seq":0,"readed_to_msg_seq":0,"version":1735689600000000000,"recents":[{"header":{"no_persist":0,"red_dot":0,"sync_once":0},"setting":0,"message_id":1000001,"message_idstr":"1000001","client_msg_no":"n1","message_seq":1,"from_uid":"a","channel_id":"u1","channel_type":1,"expire":0,"timestamp":1735689600,"payload":"bTE="}]}]"#
    );
}

#[test]
fn the_bound_follows_client_seqs_unread_mode_and_deletion() {
    let rows =
        vec![(group("g"), row(1, 0)), (person("b", "a"), row(3, 0)), (group("d"), row(1, 3))];
    let logs = vec![(group("g"), 3, 0), (person("b", "a"), 3, 0), (group("d"), 4, 0)];
    let fixture = world(rows, logs);
    let sync = |rest: &str| shown(&fixture, &format!(r#"{{"uid":"b","msg_count":20{rest}}}"#));
    let (g, a, d) = (
        item_of("g", 2, 3, 1, &[3, 2, 1]),
        item_of("a", 0, 3, 3, &[3, 2, 1]),
        item_of("d", 3, 4, 1, &[4]),
    );
    let unread = [item_of("g", 2, 3, 1, &[3, 2]), d.clone()];
    assert_eq!(sync(""), [g.clone(), a.clone(), d.clone()]);
    assert_eq!(sync(r#","version":-3,"only_unread":2"#), [g.clone(), a.clone(), d.clone()]);
    assert_eq!(sync(r#","version":9223372036854775807"#), unread);
    assert_eq!(sync(r#","only_unread":1"#), unread);
    assert_eq!(
        sync(r#","last_msg_seqs":"g:2:2|a:1:3|d:2:1""#),
        [item_of("g", 2, 3, 1, &[3]), d.clone()]
    );
    assert_eq!(
        sync(r#","last_msg_seqs":"|x|g:2|a:1:2|g:2:x|a:b:c:d|g:1:3""#),
        [g.clone(), item_of("a", 0, 3, 3, &[3]), d.clone()]
    );
    assert_eq!(sync(r#","last_msg_seqs":"g:2:99|d:2:99|a:1:99""#), []);
    assert_eq!(
        sync(r#","last_msg_seqs":"g:2:2","version":1"#),
        [item_of("g", 2, 3, 1, &[3]), d.clone()]
    );
    assert_eq!(sync(r#","exclude_channel_types":[2,7]"#), std::slice::from_ref(&a));
    assert_eq!(sync(r#","exclude_channel_types":"Ag==""#), std::slice::from_ref(&a));
    assert_eq!(
        sync(r#","exclude_channel_types":[1,2],"last_msg_seqs":"g:2:0""#),
        std::slice::from_ref(&g)
    );
    assert_eq!(sync(r#","exclude_channel_types":null"#), [g, a, d]);
    for count in ["0", "-1"] {
        let body = format!(r#"{{"uid":"b","msg_count":{count}}}"#);
        assert_eq!(shown(&fixture, &body), []);
    }
    let huge = r#"{"uid":"b","msg_count":1000000000000}"#;
    assert_eq!(shown(&fixture, huge).len(), 3);
}

#[test]
fn a_bound_of_one_below_the_deletion_hides_it_all_the_same() {
    let fixture = world(vec![(group("g"), row(0, 3))], vec![(group("g"), 3, 0)]);
    let body = r#"{"uid":"b","msg_count":20,"last_msg_seqs":"g:2:2"}"#;
    assert_eq!(shown(&fixture, body), []);
}

#[test]
fn what_the_user_wrote_it_has_read() {
    let own = |read, last, own| {
        let fixture = world(vec![(group("g"), row(read, 0))], vec![(group("g"), last, own)]);
        shown(&fixture, r#"{"uid":"b","msg_count":1}"#)
    };
    assert_eq!(own(0, 3, 2), [item_of("g", 1, 3, 2, &[3])]);
    assert_eq!(own(0, 3, 3), [item_of("g", 0, 3, 3, &[3])]);
    assert_eq!(own(2, 3, 1), [item_of("g", 1, 3, 2, &[3])]);
    assert_eq!(own(0, 3, 0), [item_of("g", 3, 3, 0, &[3])]);
}

#[test]
fn commands_and_the_system_are_not_listed() {
    let rows = vec![
        (person("b", SYSTEM_UID), row(0, 0)),
        (group("g____cmd"), row(0, 0)),
        (group("g"), row(0, 0)),
    ];
    let logs = rows.iter().map(|(channel, _)| (channel.clone(), 1, 0)).collect();
    let fixture = world(rows, logs);
    assert_eq!(shown(&fixture, r#"{"uid":"b","msg_count":1}"#), [item_of("g", 1, 1, 0, &[1])]);
    let system = person("b", SYSTEM_UID).id;
    assert_eq!(
        fixture.post("/conversation/channels", r#"{"uid":"b"}"#).1,
        format!(
            r#"[{{"channel_id":"{system}","channel_type":1}},{{"channel_id":"g","channel_type":2}}]"#
        )
    );
}

#[test]
fn pages_cut_the_list() {
    let cut = |page_number, size| {
        let mut rows: Vec<u32> = (0..600).collect();
        page(&mut rows, page_number, size);
        (rows.first().copied(), rows.len())
    };
    assert_eq!(cut(0, 1), (Some(0), 600));
    assert_eq!(cut(-1, 1), (Some(0), 600));
    assert_eq!(cut(1, 1), (Some(0), 1));
    assert_eq!(cut(3, 2), (Some(4), 2));
    assert_eq!(cut(2, -1), (Some(100), 100));
    assert_eq!(cut(2, 100_000), (Some(500), 100));
    assert_eq!(cut(601, 1), (None, 0));
    assert_eq!(cut(i64::MAX, i64::MAX), (None, 0));
}

#[test]
fn at_most_the_configured_count_is_looked_at() {
    let rows: Vec<_> = (0..5).map(|n| (group(&format!("g{n}")), row(0, 0))).collect();
    let fixture = Fixture::configured(
        move |_, _| Reply::Conversations(rows.clone()),
        |_, settings| settings.conversation_count_max = 2,
    );
    let (_, text) = fixture.post("/conversation/channels", r#"{"uid":"b"}"#);
    assert_eq!(text.matches("channel_id").count(), 2);
}

#[test]
fn named_channels_have_an_item_each() {
    let rows =
        vec![(person("b", "a"), row(3, 0)), (group("g"), row(0, 20)), (group("new"), row(0, 0))];
    let logs = vec![(person("b", "a"), 3, 0), (group("g"), 20, 0)];
    let fixture = world(rows, logs);
    let new = r#"{"uid":"b","channels":[{"channel_id":"new","channel_type":2}]}"#;
    let (_, text) = fixture.post("/conversation/syncByChannels", new);
    assert!(text.contains(r#""version":1000000,"#), "the time of the row: {text}");
    let body = r#"{"uid":"b","channels":[{"channel_id":"a","channel_type":1},{"channel_id":"none","channel_type":2},{"channel_id":"g","channel_type":2},{"channel_id":"a","channel_type":1}]}"#;
    let (status, text) = fixture.post("/conversation/syncByChannels", body);
    assert_eq!(status, 200);
    let items: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
    let ids: Vec<&str> = items.iter().filter_map(|item| item["channel_id"].as_str()).collect();
    assert_eq!(ids, ["a", "none", "g", "a"]);
    assert!(text.contains(r#"{"channel_id":"none","channel_type":2,"unread":0,"timestamp":0,"last_msg_seq":0,"last_client_msg_no":"","offset_msg_seq":0,"readed_to_msg_seq":0,"version":0,"recents":[]}"#));
    assert_eq!(items[2]["unread"], 20);
    assert_eq!(items[2]["recents"].as_array().unwrap().len(), 15);
    assert_eq!(items[0], items[3]);
}

#[test]
fn read_positions_move_on() {
    let fixture = world(Vec::new(), vec![(group("g"), 5, 0), (person("u1", "u2"), 4, 0)]);
    let body = |rest: &str| format!(r#"{{"uid":"u1","channel_id":"g","channel_type":2{rest}}}"#);
    assert_eq!(fixture.post("/conversations/clearUnread", &body("")), fine());
    let read_to = |seq| {
        format!(r#"ReadTo {{ uid: "u1", channel: ChannelId {{ id: "g", kind: 2 }}, seq: {seq} }}"#)
    };
    assert_eq!(fixture.last_asked(), (Target::Id("u1".into()), read_to(5)));
    assert_eq!(fixture.post("/conversations/setUnread", &body(r#","unread":2"#)), fine());
    assert_eq!(fixture.last_asked().1, read_to(3));
    let peer = r#"{"uid":"u1","channel_id":"u2","channel_type":1}"#;
    assert_eq!(fixture.post("/conversations/delete", peer), fine());
    assert_eq!(
        fixture.last_asked().1,
        r#"DeleteConversation { uid: "u1", channel: ChannelId { id: "u2@u1", kind: 1 }, seq: 4 }"#
    );

    let count = fixture.asked().len();
    for route in ["clearUnread", "setUnread", "delete"] {
        let empty = r#"{"uid":"u1","channel_id":"none","channel_type":2,"unread":3}"#;
        assert_eq!(fixture.post(&format!("/conversations/{route}"), empty), fine());
    }
    assert_eq!(fixture.asked().len(), count + 3, "a channel without messages changes nothing");
}

#[test]
fn unread_counts_become_positions() {
    for (last, unread, position) in [
        (5, 0, 5),
        (5, 2, 3),
        (5, 5, 0),
        (5, 9, 4),
        (5, -1, 4),
        (0, 0, 0),
        (0, 3, 0),
        (1, i64::MIN, 0),
        (u64::MAX, i64::MAX, u64::MAX - 0x7fff_ffff_ffff_ffff),
    ] {
        assert_eq!(read_position(last, unread), position, "{unread} of {last}");
    }
}

#[test]
fn failures_have_their_texts() {
    let failing = |kind: fn(&Request) -> bool, failure| {
        Fixture::answers(move |_, request| match request {
            request if kind(request) => Reply::Failed(failure),
            Request::Conversations { .. } => Reply::Conversations(vec![(group("g"), row(0, 0))]),
            _ => Reply::Done,
        })
    };
    let body = r#"{"uid":"b","msg_count":1}"#;
    let is_rows: fn(&Request) -> bool = |request| matches!(request, Request::Conversations { .. });
    let is_digests: fn(&Request) -> bool = |request| matches!(request, Request::Digests { .. });
    for (kind, failure, text) in [
        (is_rows, Failure::Storage, NO_ROWS),
        (is_rows, Failure::NoLeader, "获取频道所在节点失败！"),
        (is_digests, Failure::Storage, NO_RECENTS),
        (is_digests, Failure::Timeout, "context deadline exceeded"),
    ] {
        assert_eq!(failing(kind, failure).post("/conversation/sync", body), err(text));
    }
}

#[test]
fn conversations_beyond_the_bound_in_bytes_are_asked_again() {
    let rows: Vec<_> = (0..5).map(|n| (group(&format!("g{n}")), row(0, 0))).collect();
    let logs: Logs = rows.iter().map(|(channel, _)| (channel.clone(), 3, 0)).collect();
    // A shard shows two messages per answer, whatever is asked.
    let bounded = move |bound: usize| {
        let (rows, logs) = (rows.clone(), logs.clone());
        Fixture::answers(move |_, request| match request {
            Request::Conversations { .. } => Reply::Conversations(rows.clone()),
            Request::Digests { uid, items } => {
                let mut left = bound;
                let one = |query| {
                    let mut digest = digest(&logs, uid, query);
                    digest.recents.truncate(left);
                    left -= digest.recents.len();
                    digest
                };
                Reply::Digests(items.iter().map(one).collect())
            }
            other => unreachable!("{other:?}"),
        })
    };
    let body = r#"{"uid":"b","msg_count":3}"#;
    let found = shown(&bounded(2), body);
    let ids: Vec<&str> = found.iter().map(|item| item.0.as_str()).collect();
    assert_eq!(ids, ["g0", "g1", "g2", "g3", "g4"]);
    assert!(found.iter().all(|item| item.1 == 3 && item.2 == 3 && item.4.first() == Some(&3)));
    assert_eq!(bounded(0).post("/conversation/sync", body), err(NO_RECENTS));
}

#[test]
fn a_shard_that_answers_too_little_is_noticed() {
    let fixture = Fixture::replies([
        Reply::Conversations(vec![(group("g"), row(0, 0))]),
        Reply::Digests(Vec::new()),
    ]);
    let body = r#"{"uid":"b","msg_count":1}"#;
    assert_eq!(fixture.post("/conversation/sync", body), err("internal error"));
}

proptest! {
    /// Whatever the rows and logs are: the order is that of the rows, one question goes to each
    /// shard at most, and unread is exactly what lies above the read position (G10).
    #[test]
    fn unread_is_exact(states in prop::collection::vec((0_u64..9, 0_u64..9, 0_u64..9, 0_u64..9), 0..20)) {
        let uid = "b";
        let rows: Vec<_> = states
            .iter()
            .enumerate()
            .map(|(n, (read, deleted, ..))| (group(&format!("g{n}")), row(*read, *deleted)))
            .collect();
        let logs: Logs = states
            .iter()
            .enumerate()
            .map(|(n, (_, _, last, own))| (group(&format!("g{n}")), *last, (*own).min(*last)))
            .collect();
        let fixture = world(rows, logs.clone());
        let found = shown(&fixture, &format!(r#"{{"uid":"{uid}","msg_count":100}}"#));
        let expected: Vec<_> = states
            .iter()
            .zip(&logs)
            .filter(|((_, deleted, ..), (_, last, _))| last > deleted)
            .map(|((read, deleted, ..), (channel, last, own))| {
                let read = *read.max(own);
                let recents: Vec<u64> = (deleted + 1..=*last).rev().collect();
                item_of(&channel.id, last.saturating_sub(read), *last, read, &recents)
            })
            .collect();
        prop_assert_eq!(found, expected);
        let questions = fixture.asked().len();
        prop_assert!(questions <= 65, "one for the rows, one per slot: {}", questions);
    }

    #[test]
    fn no_list_of_client_seqs_is_too_odd(text in "[|:a0-9x]{0,40}|.*") {
        fuzz_last_seqs(&text);
    }
}

#[test]
fn the_fake_reads_as_the_store_does() {
    let found = digest(
        &vec![(group("g"), 5, 4)],
        &"b".into(),
        &DigestQuery { channel: group("g"), after: 2, count_max: 2 },
    );
    let seqs: Vec<u64> = found.recents.iter().map(|message| message.seq).collect();
    assert_eq!((seqs, found.own_seq), (vec![5, 4], 4));
    assert_eq!(&*found.recents[1].from, "b");
    assert_eq!(&*message(1, "g", 2).from, "a");
}
