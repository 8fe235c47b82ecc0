//! The data pages over a scripted node.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

use std::sync::Arc;

use bytes::Bytes;
use jindou_core::{
    channel_info::{ChannelInfo, List},
    id::{ChannelId, Name, SlotId},
    request::{Failure, OnlineItem, Reply, Request, Target},
    row::{Conversation, Digest, Times},
    scan::{ChannelSummary, DeviceSummary, Scan, ScanOf, ScanPage, ScanRows},
};
use serde_json::json;

use crate::testing::{Fixture, err, message};

fn scanned(rows: ScanRows, next: Option<&'static [u8]>) -> Reply {
    Reply::Scanned(Box::new(ScanPage { rows, next: next.map(Bytes::from_static) }))
}

fn names(names: &[&str]) -> ScanRows {
    ScanRows::List(names.iter().map(|name| (Name::from(*name), 1)).collect())
}

#[test]
fn a_list_is_read_page_by_page() {
    let fixture = Fixture::answers(|to, request| {
        let Request::Scan(scan) = request else { return Reply::Done };
        assert_eq!(*to, Target::Slot(scan.slot));
        assert_eq!(scan.slot, SlotId::of("g", 64));
        let channel = ChannelId::new("g", 2);
        assert_eq!(scan.what, ScanOf::List { channel, list: List::Deny });
        match scan.after.as_deref() {
            None => scanned(names(&["a", "<b>"]), Some(b"b")),
            Some(b"b") => scanned(names(&[]), Some(b"c")),
            _ => scanned(names(&["d\"e"]), None),
        }
    });
    let list = fixture.get("/cluster/channels/g/2/denylist");
    assert_eq!(list, (200, r#"["a","\u003cb\u003e","d\"e"]"#.to_owned()));
}

#[test]
fn each_list_has_its_route() {
    for (route, list) in
        [("subscribers", List::Members), ("denylist", List::Deny), ("allowlist", List::Allow)]
    {
        let fixture = Fixture::answers(|_, _| scanned(names(&[]), None));
        let url = format!("/cluster/channels/a%2Fb/300/{route}");
        assert_eq!(fixture.get(&url).0, 404, "a path has no slash in an id");
        let url = format!("/cluster/channels/%E7%BE%A4/300/{route}");
        assert_eq!(fixture.get(&url), (200, "[]".to_owned()));
        let (_, asked) = fixture.last_asked();
        let channel = ChannelId::new("群", 255);
        let slot = SlotId::of("群", 64);
        let what = ScanOf::List { channel, list };
        let scan = Scan { slot, what, after: None, count_max: 10_000 };
        assert_eq!(asked, format!("{:?}", Request::Scan(Box::new(scan))));
    }
}

#[test]
fn bad_ids_and_failures_are_refused() {
    let fixture = Fixture::silent();
    let long = "x".repeat(5000);
    let refused = fixture.get(&format!("/cluster/channels/{long}/1/subscribers"));
    assert_eq!(refused, err("channel_id is longer than 4096 bytes"));
    let fixture = Fixture::answers(|_, _| Reply::Failed(Failure::NoLeader));
    let refused = fixture.get("/cluster/channels/g/2/subscribers");
    assert_eq!(refused, err("获取频道所在节点失败！"));
    let fixture = Fixture::answers(|_, _| Reply::Done);
    assert_eq!(fixture.get("/cluster/channels/g/x/subscribers"), err("internal error"));
}

/// A store of channels, messages and devices that pages as the real one does, two rows at a time.
mod store {
    use super::*;

    /// When a channel of this number was made: some at the same time.
    pub(super) fn created_ns(n: u32) -> i64 {
        1_735_689_600_000_000_000 + i64::from(n / 3) * 1_000_000
    }

    pub(super) fn channel(n: u32) -> ChannelSummary {
        ChannelSummary {
            channel: ChannelId::new(format!("c{n}"), 2),
            info: ChannelInfo { ban: n.is_multiple_of(2), ..ChannelInfo::default() },
            times: Times { created_ns: created_ns(n), updated_ms: 1_735_689_600_000 },
            members: 3,
            deny: 0,
            allow: 1,
            last_seq: 7,
            last_timestamp: 1_735_689_600,
        }
    }

    /// A page of the channels of a slot, of which there are so many in all.
    pub(super) fn page(scan: &Scan, count: u32) -> Reply {
        let ScanOf::Channels { made, filter } = &scan.what else { panic!("{scan:?}") };
        let after = scan.after.as_ref().map(|bytes| {
            let bytes: [u8; 4] = bytes.as_ref().try_into().unwrap();
            u32::from_be_bytes(bytes)
        });
        let mut numbers: Vec<u32> = (0..count).collect();
        numbers.sort_by_key(|n| (created_ns(*n), *n));
        if made.newest_first {
            numbers.reverse();
        }
        let mut found: Vec<u32> = numbers
            .into_iter()
            .filter(|n| {
                let found = channel(*n);
                let ns = found.times.created_ns;
                SlotId::of(&found.channel.id, 64) == scan.slot
                    && made.after_ns < ns
                    && ns < made.before_ns
                    && filter.ban.is_none_or(|ban| ban == found.info.ban)
            })
            .collect();
        if let Some(place) = found.iter().position(|n| Some(*n) == after) {
            found.drain(..=place);
        }
        let shown = found.len().min(scan.count_max).min(2);
        let next = (found.len() > shown && shown > 0).then(|| found[shown - 1]);
        found.truncate(shown);
        let rows = ScanRows::Channels(found.into_iter().map(channel).collect());
        let next = next.map(|n| Bytes::copy_from_slice(&n.to_be_bytes()));
        Reply::Scanned(Box::new(ScanPage { rows, next }))
    }
}

fn channels(count: u32) -> Fixture {
    Fixture::answers(move |to, request| {
        let Request::Scan(scan) = request else { panic!("{request:?}") };
        assert_eq!(*to, Target::Slot(scan.slot));
        store::page(scan, count)
    })
}

/// Ids, the time of the last one, and whether there is more.
fn listed(fixture: &Fixture, url: &str) -> (Vec<String>, i64, bool) {
    let (status, body) = fixture.get(url);
    assert_eq!(status, 200, "{body}");
    let page: serde_json::Value = serde_json::from_str(&body).unwrap();
    let data = page["data"].as_array().unwrap();
    let ids = data.iter().map(|item| item["channel_id"].as_str().unwrap().to_owned()).collect();
    let last = data.last().map_or(0, |item| item["created_at"].as_i64().unwrap());
    (ids, last, page["more"] == 1)
}

#[test]
fn pages_over_all_slots_leave_no_channel_out() {
    let fixture = channels(200);
    for limit in [1, 7, 20, 500] {
        let (mut seen, mut offset, mut pages) = (Vec::new(), 0, 0);
        loop {
            let url = format!("/cluster/channels?limit={limit}&offset_created_at={offset}");
            let (ids, last, more) = listed(&fixture, &url);
            seen.extend(ids);
            (offset, pages) = (last, pages + 1);
            if !more {
                break;
            }
        }
        assert!(seen[0] == "c199" || seen[0] == "c198", "{}", seen[0]);
        let mut all = seen.clone();
        all.sort();
        all.dedup();
        assert_eq!((seen.len(), all.len()), (200, 200), "in {pages} pages of {limit}");
    }
}

#[test]
fn a_page_backwards_is_shown_newest_first() {
    let fixture = channels(60);
    let middle = store::created_ns(30);
    let url = format!("/cluster/channels?limit=6&pre=1&offset_created_at={middle}");
    let (mut ids, last, more) = listed(&fixture, &url);
    assert_eq!((last, more), (store::created_ns(33), true));
    ids.sort();
    assert_eq!(ids, ["c33", "c34", "c35", "c36", "c37", "c38"]);
}

#[test]
fn a_channel_is_written_as_v2_writes_it() {
    let fixture = Fixture::answers(|_, request| {
        let Request::Scan(scan) = request else { panic!("{request:?}") };
        let ScanOf::ChannelsOf { id, filter } = &scan.what else { panic!("{scan:?}") };
        assert_eq!((&**id, filter.kind), ("c1", Some(2)));
        scanned(ScanRows::Channels(vec![store::channel(1)]), None)
    });
    let (status, body) = fixture.get("/cluster/channels?channel_id=c1&channel_type=2");
    let id = "\"id\":";
    let rest = body.split_once(id).unwrap().1.split_once(',').unwrap().1;
    assert_eq!(status, 200);
    assert_eq!(
        rest,
        "\"slot\":33,\"channel_id\":\"c1\",\"channel_type\":2,\"ban\":0,\"disband\":0,\
         \"subscriber_count\":3,\"allowlist_count\":1,\"denylist_count\":0,\"last_msg_seq\":7,\
         \"last_msg_time\":1735689600,\"last_msg_time_format\":\"2025-01-01 00:00\",\
         \"status_format\":\"正常\",\"created_at\":1735689600000000000,\
         \"updated_at\":1735689600000000000,\"created_at_format\":\"2025-01-01 00:00\",\
         \"updated_at_format\":\"2025-01-01 00:00\"}]}"
    );
}

#[test]
fn filters_that_crash_v2_get_an_answer() {
    let fixture = channels(20);
    let (ids, ..) = listed(&fixture, "/cluster/channels?ban=1&limit=100");
    assert_eq!(ids.len(), 10);
    for query in [
        "ban=x&disband=-1",
        "subscriber_count_gte=99999999999999999999999&subscriber_count_lte=-1",
        "denylist_count_gte=1.5&allowlist_count_lte=",
        "limit=99999999999999999999999&offset_created_at=99999999999999999999999&pre=x",
        "limit=-5&offset_created_at=-99999999999999999999999&pre=1",
        "channel_type=70000",
        "channel_id=%20%20&channel_type=abc",
    ] {
        assert_eq!(fixture.get(&format!("/cluster/channels?{query}")).0, 200, "{query}");
    }
    let long = "x".repeat(9000);
    let refused = Fixture::silent().get(&format!("/cluster/channels?channel_id={long}"));
    assert_eq!(refused, err("channel_id is longer than 8192 bytes"));
}

#[test]
fn a_slot_without_a_leader_is_told_and_does_not_hide_the_others() {
    let fixture = Fixture::answers(|_, request| {
        let Request::Scan(scan) = request else { panic!("{request:?}") };
        if scan.slot == SlotId(3) {
            return Reply::Failed(Failure::NoLeader);
        }
        store::page(scan, 50)
    });
    let (status, body) = fixture.get("/cluster/channels?limit=1000");
    let page: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &page["errors"]), (200, &json!(["slot 3: 获取频道所在节点失败！"])));
    assert!(page["data"].as_array().unwrap().len() > 40);
    let fixture = Fixture::answers(|_, _| Reply::Failed(Failure::NoLeader));
    assert_eq!(fixture.get("/cluster/channels"), err("获取频道所在节点失败！"));
}

#[test]
fn devices_never_show_their_token() {
    let fixture = Fixture::answers(|_, request| match request {
        Request::Scan(_) => {
            let device = |has_token| DeviceSummary {
                uid: "u".into(),
                device_flag: 1,
                level: 1,
                has_token,
                times: Times::default(),
            };
            scanned(ScanRows::Devices(vec![device(true), device(false)]), None)
        }
        Request::Online { uids } => {
            assert_eq!(*uids, [Name::from("u")]);
            Reply::Online(vec![OnlineItem { uid: "u".into(), device_flag: 1 }])
        }
        other => panic!("{other:?}"),
    });
    let (_, body) = fixture.get("/cluster/devices?uid=u");
    let page: serde_json::Value = serde_json::from_str(&body).unwrap();
    let tokens: Vec<_> = page["data"].as_array().unwrap().iter().map(|d| &d["token"]).collect();
    assert_eq!(tokens, [&json!("******"), &json!("")]);
    assert_eq!(page["data"][0]["conn_count"], 1);
    assert_eq!(page["data"][0]["created_at_format"], "");
}

#[test]
fn messages_of_all_channels_come_by_id_and_the_bound_moves() {
    let fixture = Fixture::answers(|_, request| {
        let Request::Scan(scan) = request else { panic!("{request:?}") };
        let ScanOf::Messages { above, below, newest_first: true, .. } = scan.what else {
            panic!("{scan:?}");
        };
        let found = (1..=9_u64)
            .map(|n| message(n * 64 + u64::from(scan.slot.0), "g", 2))
            .filter(|message| above < message.id && message.id < below)
            .rev()
            .take(scan.count_max)
            .map(Arc::new);
        scanned(ScanRows::Messages(found.collect()), None)
    });
    let ids = |url: &str| -> Vec<String> {
        let (status, body) = fixture.get(url);
        assert_eq!(status, 200, "{body}");
        let page: serde_json::Value = serde_json::from_str(&body).unwrap();
        let data = page["data"].as_array().unwrap();
        data.iter().map(|item| item["message_id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids("/cluster/messages?limit=3"), ["1000639", "1000638", "1000637"]);
    let older = ids("/cluster/messages?limit=2&offset_message_id=1000637");
    assert_eq!(older, ["1000636", "1000635"]);
    let (_, last) = fixture.last_asked();
    assert!(last.contains("above: 1000630"), "{last}");
}

#[test]
fn hostile_searches_for_messages_are_refused_or_answered() {
    let fixture = Fixture::answers(|_, _| scanned(ScanRows::Messages(Vec::new()), None));
    for query in [
        "limit=-1&offset_message_id=x&offset_message_seq=99999999999999999999",
        "channel_id=g&channel_type=2&offset_message_seq=99999999999999999999&pre=1",
        "channel_id=g&channel_type=2&offset_message_seq=1",
        "channel_id=g&channel_type=999&offset_message_id=-5",
        "message_id=99999999999999999999999",
        "message_id=0&payload=",
    ] {
        let (status, body) = fixture.get(&format!("/cluster/messages?{query}"));
        assert_eq!((status, &*body), (200, r#"{"total":0,"data":[]}"#), "{query}");
    }
    let silent = Fixture::silent();
    let refused = silent.get("/cluster/messages?payload=%21");
    assert_eq!(refused, err("illegal base64 data at input byte 0"));
    let long = "YWFh".repeat(30_000);
    let refused = silent.get(&format!("/cluster/messages?payload={long}"));
    assert_eq!(refused, err("payload is longer than 65536 bytes"));
    let long = "x".repeat(70_000);
    let refused = silent.get(&format!("/cluster/messages?client_msg_no={long}"));
    assert_eq!(refused, err("client_msg_no is longer than 65535 bytes"));
}

#[test]
fn conversations_are_paged_by_count_and_show_what_is_unread() {
    let fixture = Fixture::answers(|_, request| match request {
        Request::Conversations { .. } => {
            let row = |n: u64| {
                let row = Conversation { read_to: n, updated_ms: 5000, ..Conversation::default() };
                (ChannelId::new(format!("g{n}"), 2), row)
            };
            Reply::Conversations((1..=5).map(row).collect())
        }
        Request::Digests { items, .. } => {
            let digest = |_| Digest { last_seq: 9, own_seq: 4, recents: Vec::new() };
            Reply::Digests(items.iter().map(digest).collect())
        }
        other => panic!("{other:?}"),
    });
    let unread = |url: &str| -> Vec<u64> {
        let (_, body) = fixture.get(url);
        let page: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(page["total"], 5);
        let data = page["data"].as_array().unwrap();
        data.iter().map(|item| item["unread_count"].as_u64().unwrap()).collect()
    };
    assert_eq!(unread("/cluster/conversations?uid=u"), [5, 5, 5, 5, 4]);
    assert_eq!(unread("/cluster/conversations?uid=u&limit=2&current_page=3"), [4]);
    assert!(unread("/cluster/conversations?uid=u&current_page=99999999999999999999").is_empty());
}

#[test]
fn the_state_of_channels_comes_in_the_order_of_the_question() {
    let fixture = Fixture::answers(|to, request| {
        let Request::Digests { items, .. } = request else { panic!("{request:?}") };
        if *to == Target::Slot(SlotId::of("b", 64)) {
            return Reply::Failed(Failure::NoLeader);
        }
        let digest = |_| Digest { last_seq: 9, own_seq: 0, recents: Vec::new() };
        Reply::Digests(items.iter().map(digest).collect())
    });
    let body = r#"{"channels":[{"channel_id":"b","channel_type":2},{"channel_id":"a"}]}"#;
    let (status, answer) = fixture.post("/cluster/channel/status", body);
    assert_eq!(status, 200);
    assert_eq!(
        answer,
        "[{\"channel_id\":\"b\",\"channel_type\":2,\"running\":0,\"last_msg_seq\":0,\
         \"last_msg_time\":0},{\"channel_id\":\"a\",\"channel_type\":0,\"running\":1,\
         \"last_msg_seq\":9,\"last_msg_time\":0}]"
    );
    for bad in ["", "{", "[]", r#"{"channels":5}"#, r#"{"channels":[{"channel_type":256}]}"#] {
        assert_eq!(fixture.post("/cluster/channel/status", bad).0, 400, "{bad}");
    }
    assert_eq!(fixture.post("/cluster/channel/status", "{}"), (200, "[]".to_owned()));
}
