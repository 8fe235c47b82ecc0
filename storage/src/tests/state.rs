//! The state: stories, and the lane against its twin.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use jindou_core::{
    effect::Outbox,
    id::{ChannelId, LogId, ShardId, SlotId},
    message::{Message, SharedMessage},
    row::{DigestQuery, Persist, Read, Row, Rows, Sought},
};
use proptest::prelude::*;

use super::{Client, no_failure, opened, snapshot};
use crate::{
    Completion, MemoryState, Outcome, StateLane, StateOptions, StateStorage, StorageError,
    completions,
    testing::{any_channel, any_name, any_number, any_row},
};

fn options(path: &Path) -> StateOptions {
    StateOptions {
        // So small that stories meet flushes and compactions.
        memtable_size_max: 20_000,
        sync_interval: Duration::from_millis(50),
        ..StateOptions::new(path.join("state"), path.join("install"))
    }
}

fn small_lane(path: &Path) -> StateLane {
    StateLane::open(&options(path), no_failure(), Arc::new(|_| {})).unwrap()
}

/// Runs a story on the lane and on its twin.
pub(super) fn on_both(story: impl Fn(&dyn StateStorage, &Client)) {
    story(&MemoryState::new(), &Client::new());
    let dir = tempfile::tempdir().unwrap();
    story(&small_lane(dir.path()), &Client::new());
}

const SLOT: SlotId = SlotId(7);

fn at(index: u64) -> LogId {
    LogId { term: 1, node: 1, index }
}

fn persist(slot: SlotId, index: u64, rows: Vec<Row>) -> Persist {
    Persist { slot, applied: at(index), rows }
}

fn group() -> ChannelId {
    ChannelId::new("g", 2)
}

fn message(seq: u64, size: usize) -> SharedMessage {
    Arc::new(Message {
        id: i64::try_from(seq).unwrap() * 1000,
        seq,
        channel: group(),
        from: "ann".into(),
        client_msg_no: format!("no-{seq}").into(),
        flags: 2,
        setting: 0,
        expire: 0,
        timestamp: 1_700_000_000,
        topic: "".into(),
        stream_no: "".into(),
        shown: None,
        payload: Bytes::from(vec![u8::try_from(seq % 251).unwrap(); size]),
    })
}

fn rows(client: &Client) -> Rows {
    match client.last().unwrap() {
        Outcome::Rows(rows) => rows,
        other => panic!("{other:?}"),
    }
}

fn messages(
    state: &dyn StateStorage,
    client: &Client,
    range: (u64, u64),
    count_max: usize,
    from_start: bool,
) -> Vec<u64> {
    let read =
        Read::Messages { channel: group(), first: range.0, last: range.1, count_max, from_start };
    state.read(SLOT, read, client.done());
    match rows(client) {
        Rows::Messages(found) => found.iter().map(|message| message.seq).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_read_sees_every_persist_before_it() {
    on_both(|state, client| {
        for seq in 1..=200 {
            let stored = vec![Row::Message(message(seq, 10))];
            state.persist(persist(SLOT, seq, stored), &client.sender);
            state.read(SLOT, Read::Channel(group()), client.done());
            match rows(client) {
                Rows::Channel(rows) => assert_eq!(rows.last_seq, seq),
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn history_is_cut_at_either_end() {
    on_both(|state, client| {
        let rows = (1..=30).map(|seq| Row::Message(message(seq, 400))).collect();
        state.persist(persist(SLOT, 1, rows), &client.sender);
        let messages = |range, count, start| messages(state, client, range, count, start);
        assert_eq!(messages((0, u64::MAX), 3, true), [1, 2, 3]);
        assert_eq!(messages((0, u64::MAX), 3, false), [28, 29, 30]);
        assert_eq!(messages((10, 12), 10, false), [10, 11, 12]);
        assert_eq!(messages((12, 10), 10, true), [0; 0]);
        assert_eq!(messages((31, 90), 10, true), [0; 0]);
        assert_eq!(messages((5, 9), 0, true), [0; 0]);
    });
}

#[test]
fn history_is_cut_at_16_mib() {
    on_both(|state, client| {
        for seq in 1..=20 {
            let rows = vec![Row::Message(message(seq, 1_000_000))];
            state.persist(persist(SLOT, seq, rows), &client.sender);
        }
        assert_eq!(messages(state, client, (1, 20), 100, true).len(), 16);
        assert_eq!(messages(state, client, (1, 20), 100, false).first(), Some(&5));
        let rows = vec![Row::Message(message(21, 17 << 20))];
        state.persist(persist(SLOT, 21, rows), &client.sender);
        assert_eq!(messages(state, client, (1, 21), 100, false), [21]);
    });
}

#[test]
fn digests_tell_what_a_conversation_shows() {
    on_both(|state, client| {
        let mut stored: Vec<Row> = (1..=9).map(|seq| Row::Message(message(seq, 5))).collect();
        stored.push(Row::Sent { channel: group(), uid: "ann".into(), seq: 9 });
        state.persist(persist(SLOT, 1, stored), &client.sender);
        let query = |channel, after| DigestQuery { channel, after, count_max: 2 };
        let read = Read::Digests {
            uid: "ann".into(),
            items: vec![
                query(group(), 3),
                query(group(), 8),
                query(group(), u64::MAX),
                query(ChannelId::new("h", 2), 0),
            ],
        };
        state.read(SLOT, read, client.done());
        let Rows::Digests(digests) = rows(client) else {
            panic!("no digests");
        };
        let seen: Vec<_> = digests
            .iter()
            .map(|d| {
                let recents: Vec<u64> = d.recents.iter().map(|m| m.seq).collect();
                (d.last_seq, d.own_seq, recents)
            })
            .collect();
        let expected = [(9, 9, vec![9, 8]), (9, 9, vec![9]), (9, 9, vec![]), (0, 0, vec![])];
        assert_eq!(seen, expected);
    });
}

fn find(
    state: &dyn StateStorage,
    client: &Client,
    channel: ChannelId,
    sought: Vec<Sought>,
) -> Vec<Option<u64>> {
    state.read(SLOT, Read::Find { channel, sought }, client.done());
    let Rows::Found(found) = rows(client) else { panic!("nothing found") };
    found.into_iter().map(|message| message.map(|m| m.seq)).collect()
}

#[test]
fn single_messages_are_found_in_their_channel_only() {
    on_both(|state, client| {
        let mut stored: Vec<Row> = (1..=9).map(|seq| Row::Message(message(seq, 5))).collect();
        let again = Message { client_msg_no: "no-3".into(), ..(*message(10, 5)).clone() };
        stored.push(Row::Message(again.into()));
        let silent = Message { client_msg_no: "".into(), ..(*message(11, 5)).clone() };
        stored.push(Row::Message(silent.into()));
        let other = ChannelId::new("h", 2);
        let elsewhere = Message { channel: other.clone(), id: 1, ..(*message(2, 5)).clone() };
        stored.push(Row::Message(elsewhere.into()));
        state.persist(persist(SLOT, 1, stored), &client.sender);
        let sought = || {
            vec![
                Sought::Seq(4),
                Sought::Seq(12),
                Sought::Id(2_000),
                Sought::Id(1),
                Sought::Id(-5),
                Sought::Newest("no-3".into()),
                Sought::Oldest("no-3".into()),
                Sought::Newest("no-99".into()),
            ]
        };
        let found = find(state, client, group(), sought());
        let expected = [Some(4), None, Some(2), None, None, Some(10), Some(3), None];
        assert_eq!(found, expected);
        let found = find(state, client, other.clone(), sought());
        assert_eq!(found, [None, None, None, Some(2), None, None, None, None]);
        // They come along with a snapshot, and go with the rows of before.
        let chunks = chunks(state, client, SLOT);
        state.persist(persist(SLOT, 2, vec![Row::Message(message(12, 5))]), &client.sender);
        assert_eq!(find(state, client, group(), vec![Sought::Id(12_000)]), [Some(12)]);
        install(state, client, SLOT, &chunks).unwrap();
        assert_eq!(find(state, client, group(), vec![Sought::Id(12_000)]), [None]);
        assert_eq!(find(state, client, group(), sought()), expected);
    });
}

#[test]
fn an_answer_with_single_messages_ends_at_16_mib() {
    on_both(|state, client| {
        for seq in 1..=20 {
            let rows = vec![Row::Message(message(seq, 1_000_000))];
            state.persist(persist(SLOT, seq, rows), &client.sender);
        }
        let sought = (0..=20).map(Sought::Seq).collect();
        assert_eq!(find(state, client, group(), sought).len(), 17);
    });
}

#[test]
fn what_was_taken_over_is_reported_in_full() {
    on_both(|state, client| {
        let mut size = 0;
        for index in 0..100 {
            let persist = persist(SLOT, index, vec![Row::Message(message(index + 1, 50))]);
            size += Outbox::persist_size(&persist);
            state.persist(persist, &client.sender);
        }
        state.sync(client.done());
        let synced = client.last().unwrap();
        assert!(matches!(&synced, Outcome::Synced(moved) if *moved == [(SLOT, at(99))]));
        assert_eq!(client.persisted.get(), size);
        assert_eq!(state.queue_size(), 0);
        state.sync(client.done());
        assert!(matches!(client.last().unwrap(), Outcome::Synced(moved) if moved.is_empty()));
    });
}

#[test]
fn rows_are_taken_over_though_nobody_asks() {
    let dir = tempfile::tempdir().unwrap();
    let lane = small_lane(dir.path());
    let (sender, receiver) = completions(ShardId(0), Arc::new(|| {}));
    let told = || match receiver.recv_timeout(Duration::from_secs(20)).unwrap() {
        Completion::Persisted { size } => size,
        other => panic!("{other:?}"),
    };
    for index in 0..3 {
        let persist = persist(SLOT, index, vec![Row::Message(message(index + 1, 50))]);
        let size = Outbox::persist_size(&persist);
        lane.persist(persist, &sender);
        assert_eq!(told(), size);
    }
    // So many that they are committed before their time.
    let mut left = 0;
    for index in 3..30 {
        let persist = persist(SLOT, index, vec![Row::Message(message(index + 1, 100_000))]);
        left += Outbox::persist_size(&persist);
        lane.persist(persist, &sender);
    }
    while left > 0 {
        left -= told();
    }
    assert_eq!(lane.queue_size(), 0);
}

#[test]
fn positions_are_reported_durable_without_being_asked() {
    let dir = tempfile::tempdir().unwrap();
    let (sender, receiver) = flume::unbounded();
    let on_synced: crate::OnSynced = Arc::new(move |moved| {
        let _ = sender.send(moved.to_vec());
    });
    let lane = StateLane::open(&options(dir.path()), no_failure(), on_synced).unwrap();
    let client = Client::new();
    lane.persist(persist(SLOT, 5, vec![]), &client.sender);
    let wait = Duration::from_secs(20);
    assert_eq!(receiver.recv_timeout(wait).unwrap(), [(SLOT, at(5))]);
    lane.persist(persist(SlotId(1), 6, vec![]), &client.sender);
    lane.stop();
    assert_eq!(receiver.recv_timeout(wait).unwrap(), [(SlotId(1), at(6))]);
}

#[test]
fn a_stopped_lane_answers_closed() {
    let dir = tempfile::tempdir().unwrap();
    let lane = small_lane(dir.path());
    let client = Client::new();
    lane.stop();
    lane.open_slot(SLOT, client.done());
    assert!(matches!(client.last(), Err(StorageError::Closed)));
    lane.read(SLOT, Read::Channel(group()), client.done());
    assert!(matches!(client.last(), Ok(Outcome::Rows(Rows::Failed(_)))));
}

fn chunks(state: &dyn StateStorage, client: &Client, slot: SlotId) -> Vec<Bytes> {
    state.snapshot(slot, client.done());
    let mut reader = snapshot(client.last().unwrap());
    let mut chunks = Vec::new();
    loop {
        reader.next(client.done());
        match client.last().unwrap() {
            Outcome::Chunk(Some(chunk)) => chunks.push(chunk),
            Outcome::Chunk(None) => return chunks,
            other => panic!("{other:?}"),
        }
    }
}

fn install(
    state: &dyn StateStorage,
    client: &Client,
    slot: SlotId,
    chunks: &[Bytes],
) -> Result<Outcome, StorageError> {
    state.install_begin(slot, client.done());
    for chunk in chunks {
        state.install_chunk(slot, chunk.clone(), client.done());
    }
    state.install_end(slot, client.done());
    client.last()
}

fn hash(state: &dyn StateStorage, client: &Client, slot: SlotId) -> u128 {
    state.hash(slot, client.done());
    match client.last().unwrap() {
        Outcome::Hash(hash) => hash,
        other => panic!("{other:?}"),
    }
}

/// Many chunks, and a neighbour slot on either side that must stay as it is.
fn filled(state: &dyn StateStorage, client: &Client, seqs: std::ops::RangeInclusive<u64>) {
    for slot in [SlotId(6), SLOT, SlotId(8)] {
        for seq in seqs.clone() {
            let rows = vec![
                Row::Message(message(seq, 60_000)),
                Row::Sent { channel: group(), uid: "ann".into(), seq },
            ];
            state.persist(persist(slot, seq, rows), &client.sender);
        }
    }
}

#[test]
fn a_snapshot_is_one_moment_and_becomes_the_same_state_elsewhere() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let source = small_lane(dirs[0].path());
    let target = small_lane(dirs[1].path());
    let client = Client::new();
    filled(&source, &client, 1..=60);
    source.snapshot(SLOT, client.done());
    let mut reader = snapshot(client.last().unwrap());
    assert_eq!(reader.applied, Some(at(60)));
    let expected = hash(&source, &client, SLOT);
    // What comes later is not in it.
    filled(&source, &client, 61..=70);
    filled(&target, &client, 1..=3);
    let neighbour = hash(&target, &client, SlotId(8));
    target.install_begin(SLOT, client.done());
    let mut count = 0;
    loop {
        reader.next(client.done());
        let Outcome::Chunk(Some(chunk)) = client.last().unwrap() else {
            break;
        };
        count += 1;
        target.install_chunk(SLOT, chunk, client.done());
    }
    assert!(count > 2, "{count} chunks");
    target.install_end(SLOT, client.done());
    let slot = opened(client.last().unwrap());
    assert_eq!(slot.rows.applied, Some(at(60)));
    assert_eq!(hash(&target, &client, SLOT), expected);
    assert_eq!(hash(&target, &client, SlotId(8)), neighbour);
    drop(target);
    let target = small_lane(dirs[1].path());
    assert_eq!(hash(&target, &client, SLOT), expected);
}

#[test]
fn a_damaged_snapshot_leaves_the_old_rows() {
    on_both(|state, client| {
        filled(state, client, 1..=60);
        let good = chunks(state, client, SLOT);
        let before = hash(state, client, SLOT);
        let mut flipped = good.clone();
        let mut bytes = flipped[1].to_vec();
        bytes[5000] ^= 1;
        flipped[1] = bytes.into();
        let mut swapped = good.clone();
        swapped.swap(0, 1);
        let missing = &good[..good.len() - 1];
        for bad in [&flipped[..], &swapped[..], missing] {
            state.install_begin(SLOT, client.done());
            for chunk in bad {
                state.install_chunk(SLOT, chunk.clone(), client.done());
            }
            state.install_end(SLOT, client.done());
            let mut answers = client.settle();
            assert!(answers.pop_last().unwrap().1.is_err());
            assert_eq!(hash(state, client, SLOT), before);
        }
        state.install_chunk(SLOT, good[0].clone(), client.done());
        assert!(client.last().is_err(), "without a beginning");
        assert!(install(state, client, SLOT, &good).is_ok());
        assert_eq!(hash(state, client, SLOT), before);
    });
}

#[test]
fn chunks_never_asked_for_cost_nothing_when_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let lane = small_lane(dir.path());
    let client = Client::new();
    filled(&lane, &client, 1..=20);
    for _ in 0..20 {
        lane.snapshot(SLOT, client.done());
        drop(snapshot(client.last().unwrap()));
    }
    lane.install_begin(SLOT, client.done());
    client.last().unwrap();
    drop(lane);
    // What was begun and never ended is gone at the next start.
    drop(small_lane(dir.path()));
    let left = std::fs::read_dir(dir.path().join("install")).unwrap().count();
    assert_eq!(left, 0);
}

#[derive(Clone, Debug)]
enum Op {
    Persist(u16, Vec<Row>),
    Read(u16, Read),
    Open(u16),
    Hash(u16),
    /// Keeps the chunks of a slot.
    Save(u16),
    /// Installs the chunks that were kept last.
    Install,
    Sync,
    Settle,
    Reopen,
}

fn any_sought() -> impl Strategy<Value = Sought> {
    let number = || any_number().prop_filter("empty", |number| !number.is_empty());
    prop_oneof![
        (0u64..25).prop_map(Sought::Seq),
        any::<i64>().prop_map(Sought::Id),
        number().prop_map(Sought::Newest),
        number().prop_map(Sought::Oldest),
    ]
}

fn any_read() -> impl Strategy<Value = Read> {
    let count = || prop_oneof![Just(usize::MAX), 0usize..5];
    let query = (any_channel(), 0u64..20, count())
        .prop_map(|(channel, after, count_max)| DigestQuery { channel, after, count_max });
    prop_oneof![
        any_channel().prop_map(Read::Channel),
        any_name().prop_map(Read::User),
        (any_channel(), 0u64..20, 0u64..25, count(), any::<bool>()).prop_map(
            |(channel, first, last, count_max, from_start)| Read::Messages {
                channel,
                first,
                last,
                count_max,
                from_start,
            }
        ),
        (any_name(), prop::collection::vec(query, 0..4))
            .prop_map(|(uid, items)| Read::Digests { uid, items }),
        (any_channel(), prop::collection::vec(any_sought(), 0..4))
            .prop_map(|(channel, sought)| Read::Find { channel, sought }),
    ]
}

fn any_op() -> impl Strategy<Value = Op> {
    let slot = || 0u16..3;
    prop_oneof![
        20 => (slot(), prop::collection::vec(any_row(), 0..8))
            .prop_map(|(slot, rows)| Op::Persist(slot, rows)),
        12 => (slot(), any_read()).prop_map(|(slot, read)| Op::Read(slot, read)),
        2 => slot().prop_map(Op::Open),
        2 => slot().prop_map(Op::Hash),
        1 => slot().prop_map(Op::Save),
        1 => Just(Op::Install),
        1 => Just(Op::Sync),
        3 => Just(Op::Settle),
        1 => Just(Op::Reopen),
    ]
}

/// Sends the same requests to both and compares every answer.
fn check(ops: Vec<Op>) {
    let dir = tempfile::tempdir().unwrap();
    let mut lane = Some(small_lane(dir.path()));
    let twin = MemoryState::new();
    let clients = [Client::new(), Client::new()];
    let mut index = 0;
    let mut stored = BTreeSet::new();
    let mut saved: Option<(SlotId, Vec<Bytes>)> = None;
    for op in ops {
        let states: [&dyn StateStorage; 2] = [lane.as_ref().unwrap(), &twin];
        let settle = || {
            let [a, b] = clients.each_ref().map(Client::settle);
            assert_eq!(format!("{a:?}"), format!("{b:?}"));
        };
        let each = |request: &dyn Fn(&dyn StateStorage, &Client)| {
            for (state, client) in states.iter().zip(&clients) {
                request(*state, client);
            }
        };
        match op {
            Op::Persist(slot, mut rows) => {
                let slot = SlotId(slot);
                // Messages are never rewritten.
                rows.retain(|row| match row {
                    Row::Message(m) => stored.insert((slot, m.channel.clone(), m.seq)),
                    _ => true,
                });
                index += 1;
                let persist = persist(slot, index, rows);
                each(&|state, client| state.persist(persist.clone(), &client.sender));
            }
            Op::Read(slot, read) => {
                each(&|state, client| state.read(SlotId(slot), read.clone(), client.done()));
            }
            Op::Open(slot) => each(&|state, client| state.open_slot(SlotId(slot), client.done())),
            Op::Hash(slot) => each(&|state, client| state.hash(SlotId(slot), client.done())),
            Op::Save(slot) => {
                settle();
                let slot = SlotId(slot);
                let chunk_lists = [0, 1].map(|i| chunks(states[i], &clients[i], slot));
                assert_eq!(chunk_lists[0], chunk_lists[1]);
                saved = chunk_lists.into_iter().next().map(|chunks| (slot, chunks));
            }
            Op::Install => {
                settle();
                if let Some((slot, chunks)) = &saved {
                    each(&|state, client| {
                        install(state, client, *slot, chunks).unwrap();
                    });
                    let hashes = [0, 1].map(|i| hash(states[i], &clients[i], *slot));
                    assert_eq!(hashes[0], hashes[1]);
                }
            }
            Op::Sync => {
                settle();
                // What it reports depends on the syncs that the lane made by itself.
                each(&|state, client| state.sync(client.done()));
                let _ = clients.each_ref().map(Client::settle);
            }
            Op::Settle => settle(),
            Op::Reopen => {
                settle();
                lane = None;
                lane = lane.or_else(|| Some(small_lane(dir.path())));
            }
        }
    }
    let lane = lane.unwrap();
    for slot in (0..3).map(SlotId) {
        let _ = clients.each_ref().map(Client::settle);
        assert_eq!(hash(&lane, &clients[0], slot), hash(&twin, &clients[1], slot));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn the_lane_answers_as_its_twin(ops in prop::collection::vec(any_op(), 1..100)) {
        check(ops);
    }
}
