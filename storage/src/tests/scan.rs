//! Searches: pages against a model of everything, and their bounds.

use std::sync::Arc;

use bytes::Bytes;
use jindou_core::{
    channel_info::{ChannelInfo, List},
    id::{ChannelId, LogId, Name, SlotId},
    message::{Message, SharedMessage},
    row::{Dated, Device, Persist, Read, Row, Rows, Times},
    scan::{
        Bounds, ChannelFilter, ChannelSummary, Made, MessageFilter, Scan, ScanOf, ScanPage,
        ScanRows,
    },
};
use proptest::prelude::*;

use super::{Client, state::on_both};
use crate::{Outcome, StateStorage};

const SLOT: SlotId = SlotId(7);
const ALL_TIMES: Made = Made { after_ns: -1, before_ns: i64::MAX, newest_first: true };

fn write(state: &dyn StateStorage, client: &Client, index: u64, rows: Vec<Row>) {
    let applied = LogId { term: 1, node: 1, index };
    state.persist(Persist { slot: SLOT, applied, rows }, &client.sender);
}

fn answer(
    state: &dyn StateStorage,
    client: &Client,
    what: &ScanOf,
    after: Option<Bytes>,
    count_max: usize,
) -> Rows {
    let scan = Scan { slot: SLOT, what: what.clone(), after, count_max };
    state.read(SLOT, Read::Scan(Box::new(scan)), client.done());
    match client.last().unwrap() {
        Outcome::Rows(rows) => rows,
        other => panic!("{other:?}"),
    }
}

fn page(
    state: &dyn StateStorage,
    client: &Client,
    what: &ScanOf,
    after: Option<Bytes>,
    count_max: usize,
) -> ScanPage {
    match answer(state, client, what, after, count_max) {
        Rows::Scanned(page) => page,
        other => panic!("{other:?}"),
    }
}

/// All pages of a search.
fn pages(
    state: &dyn StateStorage,
    client: &Client,
    what: &ScanOf,
    count_max: usize,
) -> Vec<ScanRows> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let ScanPage { rows, next } = page(state, client, what, after, count_max);
        all.push(rows);
        match next {
            Some(next) => after = Some(next),
            None => return all,
        }
        assert!(all.len() < 10_000, "a search without an end");
    }
}

fn channels(rows: ScanRows) -> Vec<ChannelSummary> {
    match rows {
        ScanRows::Channels(channels) => channels,
        other => panic!("{other:?}"),
    }
}

fn ids(rows: Vec<ScanRows>) -> Vec<Name> {
    rows.into_iter().flat_map(channels).map(|found| found.channel.id).collect()
}

fn channel(id: &str, created_ns: i64, info: ChannelInfo) -> Vec<Row> {
    let channel = ChannelId::new(id, 2);
    let times = Times { created_ns, updated_ms: 5 };
    let what = Dated::Channel(channel.clone());
    vec![Row::Info { channel, info, times }, Row::Dated { what, created_ns }]
}

fn member(id: &str, list: List, uid: &str) -> Row {
    let channel = ChannelId::new(id, 2);
    Row::ListItem { channel, list, uid: uid.into(), added_ms: Some(9) }
}

fn message(id: &str, seq: u64, message_id: i64, from: &str, payload: &[u8]) -> SharedMessage {
    Arc::new(Message {
        id: message_id,
        seq,
        channel: ChannelId::new(id, 2),
        from: from.into(),
        client_msg_no: format!("{id}-{seq}").into(),
        flags: 0,
        setting: 0,
        expire: 0,
        timestamp: 1_700_000_000,
        topic: "".into(),
        stream_no: "".into(),
        shown: None,
        payload: Bytes::copy_from_slice(payload),
    })
}

fn sent(message: &SharedMessage) -> Row {
    let (channel, uid) = (message.channel.clone(), message.from.clone());
    Row::Sent { channel, uid, seq: message.seq }
}

#[test]
fn channels_come_by_time_in_either_direction() {
    on_both(|state, client| {
        let banned = ChannelInfo { ban: true, ..ChannelInfo::default() };
        let mut rows = channel("a", 30, ChannelInfo::default());
        rows.extend(channel("b", 10, banned));
        rows.extend(channel("c", 20, ChannelInfo::default()));
        rows.extend(["x", "y"].map(|uid| member("c", List::Members, uid)));
        rows.push(member("c", List::Deny, "z"));
        rows.push(Row::Message(message("c", 1, 5, "x", b"hello")));
        write(state, client, 1, rows);
        let list = |made, filter, count_max| {
            ids(pages(state, client, &ScanOf::Channels { made, filter }, count_max))
        };
        let any = ChannelFilter::default();
        let names = |names: &[&str]| names.iter().map(|name| Name::from(*name)).collect::<Vec<_>>();
        for count_max in [1, 2, 100] {
            assert_eq!(list(ALL_TIMES, any, count_max), names(&["a", "c", "b"]));
            let oldest_first = Made { newest_first: false, ..ALL_TIMES };
            assert_eq!(list(oldest_first, any, count_max), names(&["b", "c", "a"]));
        }
        let before = Made { before_ns: 30, ..ALL_TIMES };
        assert_eq!(list(before, any, 9), names(&["c", "b"]));
        let after = Made { after_ns: 10, newest_first: false, ..ALL_TIMES };
        assert_eq!(list(after, any, 9), names(&["c", "a"]));
        let nothing = Made { after_ns: 30, before_ns: 10, newest_first: true };
        assert_eq!(list(nothing, any, 9), names(&[]));
        let huge = Made { after_ns: i64::MAX, before_ns: i64::MAX, newest_first: false };
        assert_eq!(list(huge, any, 9), names(&[]));
        assert_eq!(list(ALL_TIMES, ChannelFilter { ban: Some(true), ..any }, 9), names(&["b"]));
        let two = ChannelFilter { members: Bounds { min: 2, max: 2 }, ..any };
        assert_eq!(list(ALL_TIMES, two, 9), names(&["c"]));
        let what = ScanOf::ChannelsOf { id: "c".into(), filter: any };
        let found = channels(pages(state, client, &what, 9).remove(0)).remove(0);
        assert_eq!((found.members, found.deny, found.allow), (2, 1, 0));
        assert_eq!((found.last_seq, found.last_timestamp), (1, 1_700_000_000));
        assert_eq!(found.times, Times { created_ns: 20, updated_ms: 5 });
        let what = ScanOf::ChannelsOf { id: "none".into(), filter: any };
        assert_eq!(ids(pages(state, client, &what, 9)), names(&[]));
    });
}

#[test]
fn users_and_devices_come_by_time_and_without_tokens() {
    on_both(|state, client| {
        let device = |uid: &str, device_flag, created_ns| {
            let times = Times { created_ns, updated_ms: created_ns };
            let device = Device { level: 1, token: "secret".into(), times };
            let what = Dated::Device(uid.into(), device_flag);
            vec![
                Row::Device { uid: uid.into(), device_flag, device },
                Row::Dated { what, created_ns },
            ]
        };
        let user = |uid: &str, created_ns| Row::Dated { what: Dated::User(uid.into()), created_ns };
        let mut rows = vec![user("ann", 1), user("bob", 3)];
        rows.extend(device("ann", 0, 1));
        rows.extend(device("ann", 1, 4));
        rows.extend(device("bob", 1, 3));
        write(state, client, 1, rows);
        let users = |what: ScanOf| -> Vec<(Name, u64)> {
            let all = pages(state, client, &what, 1).into_iter().flat_map(|rows| match rows {
                ScanRows::Users(users) => users,
                other => panic!("{other:?}"),
            });
            all.map(|user| (user.uid, user.device_count)).collect()
        };
        let all = users(ScanOf::Users { made: ALL_TIMES });
        assert_eq!(all, [("bob".into(), 1), ("ann".into(), 2)]);
        assert_eq!(users(ScanOf::User { uid: "ann".into() }), [("ann".into(), 2)]);
        assert_eq!(users(ScanOf::User { uid: "eve".into() }), []);
        let devices = |what: ScanOf| -> Vec<(Name, u8)> {
            let all = pages(state, client, &what, 1).into_iter().flat_map(|rows| match rows {
                ScanRows::Devices(devices) => devices,
                other => panic!("{other:?}"),
            });
            all.inspect(|device| assert!(device.has_token))
                .map(|device| (device.uid, device.device_flag))
                .collect()
        };
        let all = |device_flag| ScanOf::Devices { made: ALL_TIMES, device_flag };
        assert_eq!(devices(all(None)), [("ann".into(), 1), ("bob".into(), 1), ("ann".into(), 0)]);
        assert_eq!(devices(all(Some(0))), [("ann".into(), 0)]);
        let of = |device_flag| ScanOf::DevicesOf { uid: "ann".into(), device_flag };
        assert_eq!(devices(of(None)), [("ann".into(), 0), ("ann".into(), 1)]);
        assert_eq!(devices(of(Some(1))), [("ann".into(), 1)]);
    });
}

#[test]
fn a_page_ends_early_however_many_rows_there_are() {
    on_both(|state, client| {
        let uid = |n: u32| format!("user-{n:06}");
        for part in 0..5 {
            let rows =
                (part * 5000..(part + 1) * 5000).map(|n| member("g", List::Members, &uid(n)));
            write(state, client, u64::from(part) + 1, rows.collect());
        }
        let what = ScanOf::List { channel: ChannelId::new("g", 2), list: List::Members };
        let first = page(state, client, &what, None, usize::MAX);
        let ScanRows::List(uids) = first.rows else { panic!("no list") };
        assert_eq!(uids.len(), crate::scan::LOOK_COUNT_MAX);
        let rest = page(state, client, &what, first.next, usize::MAX);
        let ScanRows::List(rest) = rest.rows else { panic!("no list") };
        assert_eq!(uids.len() + rest.len(), 25_000);
        assert_eq!(rest.first().map(|(uid, _)| uid.to_string()), Some(uid(20_000)));
        let other = ScanOf::List { channel: ChannelId::new("g", 2), list: List::Deny };
        assert_eq!(page(state, client, &other, None, 9).rows, ScanRows::List(Vec::new()));
    });
}

#[test]
fn a_page_of_messages_is_bounded_in_bytes() {
    on_both(|state, client| {
        let large = vec![1; 900_000];
        let stored =
            (1..=6).map(|seq| message("g", seq, 10 + i64::try_from(seq).unwrap(), "a", &large));
        write(state, client, 1, stored.map(Row::Message).collect());
        for what in [
            ScanOf::ChannelMessages {
                channel: ChannelId::new("g", 2),
                first: 1,
                last: u64::MAX,
                newest_first: true,
                filter: MessageFilter::default(),
            },
            ScanOf::Messages {
                above: 0,
                below: i64::MAX,
                newest_first: true,
                filter: MessageFilter::default(),
            },
        ] {
            let counts = pages(state, client, &what, 100).into_iter().map(|rows| match rows {
                ScanRows::Messages(messages) => messages.len(),
                other => panic!("{other:?}"),
            });
            assert_eq!(counts.collect::<Vec<_>>(), [2, 2, 2]);
        }
    });
}

#[test]
fn a_foreign_cursor_is_refused() {
    on_both(|state, client| {
        write(state, client, 1, vec![member("g", List::Members, "a")]);
        let channel = ChannelId::new("g", 2);
        let filter = MessageFilter::default();
        for what in [
            ScanOf::List { channel, list: List::Members },
            ScanOf::Channels { made: ALL_TIMES, filter: ChannelFilter::default() },
            ScanOf::Conversations { skip: 0 },
            ScanOf::Messages { above: 0, below: 9, newest_first: true, filter },
        ] {
            for cursor in [&b""[..], b"x", b"\0\x07", b"\0\x07\x02\0\x01g\0\xff", b"\0\x08\0"] {
                let after = Some(Bytes::copy_from_slice(cursor));
                // Either nothing or a failure; never rows of another kind, never a panic.
                match answer(state, client, &what, after, 5) {
                    Rows::Failed(_) => {}
                    Rows::Scanned(page) => assert!(page.next.is_none(), "{what:?} {cursor:?}"),
                    other => panic!("{other:?}"),
                }
            }
        }
    });
}

/// What a search over all channels must find, from all messages.
fn expected(
    all: &[SharedMessage],
    (above, below): (i64, i64),
    newest_first: bool,
    filter: &MessageFilter,
    count_max: usize,
) -> Vec<i64> {
    let mut ids: Vec<i64> = all
        .iter()
        .filter(|message| above < message.id && message.id < below && filter.takes(message))
        .map(|message| message.id)
        .collect();
    ids.sort_unstable();
    if newest_first {
        ids.reverse();
    }
    ids.truncate(count_max);
    ids
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Ids grow with the seq, but for neighbours that change places; channels of different length
    /// begin and end at different times.
    #[test]
    fn the_best_messages_of_all_channels_are_found(
        lengths in prop::collection::vec((0u64..120, 0i64..400, any::<bool>()), 1..6),
        (above, below) in (0i64..600, 0i64..600),
        newest_first: bool,
        count_max in 1usize..30,
        from in prop::option::of(prop::sample::select(vec!["ann", "bob", "eve"])),
        wanted in prop::option::of(1i64..500),
        payload in prop::sample::select(vec!["", "3", "17"]),
    ) {
        let mut all = Vec::new();
        for (n, (length, start, swaps)) in (0_i64..).zip(&lengths) {
            for seq in 1..=*length {
                let place = if *swaps { ((seq - 1) ^ 1) + 1 } else { seq };
                let id = start * 10 + i64::try_from(place).unwrap() * 10 + n;
                let from = ["ann", "bob"][usize::try_from(seq % 2).unwrap()];
                let payload = format!("m{seq}");
                all.push(message(&format!("g{n}"), seq, id, from, payload.as_bytes()));
            }
        }
        let filter = MessageFilter {
            from: from.map(Name::from),
            client_msg_no: None,
            id: wanted.map(|id| id * 10),
            payload: Bytes::from_static(payload.as_bytes()),
        };
        let (above, below) = (above * 10, below * 10);
        let expected = expected(&all, (above, below), newest_first, &filter, count_max);
        on_both(|state, client| {
            let rows = all.iter().flat_map(|m| [Row::Message(m.clone()), sent(m)]).collect();
            write(state, client, 1, rows);
            let filter = filter.clone();
            let what = ScanOf::Messages { above, below, newest_first, filter };
            let mut found: Vec<i64> = pages(state, client, &what, count_max)
                .into_iter()
                .flat_map(|rows| match rows {
                    ScanRows::Messages(messages) => messages,
                    other => panic!("{other:?}"),
                })
                .map(|message| message.id)
                .collect();
            found.sort_unstable();
            if newest_first {
                found.reverse();
            }
            found.truncate(count_max);
            assert_eq!(found, expected);
        });
    }
}
