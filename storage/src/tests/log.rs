//! The log: stories, and the lane against its twin.

use std::{
    ops::Range,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use proptest::prelude::*;

use super::{Client, log_state, no_failure};
use crate::{LogLane, LogOptions, LogState, LogStorage, MemoryLog, Outcome};

/// So small that every story meets full, cleared, flushed and carried generations.
fn small_lane(path: &Path) -> LogLane {
    let options = LogOptions {
        generation_size_max: 2_000,
        memory_size_max: 5_000,
        ..LogOptions::new(path.to_owned())
    };
    LogLane::open(&options, no_failure()).unwrap()
}

/// Runs a story on the lane and on its twin.
fn on_both(story: impl Fn(&dyn LogStorage, &Client)) {
    story(&MemoryLog::new(), &Client::new());
    let dir = tempfile::tempdir().unwrap();
    story(&small_lane(dir.path()), &Client::new());
}

fn entries(range: Range<u64>, size: usize) -> Vec<(u64, Bytes)> {
    range.map(|index| (index, entry(index, size))).collect()
}

fn entry(index: u64, size: usize) -> Bytes {
    let mut bytes = index.to_be_bytes().to_vec();
    bytes.resize(size.max(8), 7);
    bytes.into()
}

fn append(log: &dyn LogStorage, client: &Client, group: u16, range: Range<u64>, size: usize) {
    log.append(group, entries(range, size), client.done()).unwrap();
}

fn load(log: &dyn LogStorage, client: &Client, group: u16) -> LogState {
    log.load(group, usize::MAX, client.done());
    log_state(client.last().unwrap())
}

#[test]
fn a_new_group_has_nothing() {
    on_both(|log, client| assert_eq!(load(log, client, 3), LogState::default()));
}

#[test]
fn requests_of_a_group_take_effect_in_order_without_waiting() {
    on_both(|log, client| {
        append(log, client, 1, 0..5, 100);
        log.truncate_after(1, Some(2), client.done());
        append(log, client, 1, 3..4, 50);
        log.save_vote(1, Bytes::from_static(b"vote"), client.done());
        log.save_committed(1, Bytes::from_static(b"committed"));
        log.purge_to(1, 0, Bytes::from_static(b"mark"), client.done());
        let state = load(log, client, 1);
        let mut tail = entries(1..3, 100);
        tail.extend(entries(3..4, 50));
        let expected = LogState {
            vote: Some(Bytes::from_static(b"vote")),
            committed: Some(Bytes::from_static(b"committed")),
            purged: Some((0, Bytes::from_static(b"mark"))),
            first: Some(1),
            last: Some(3),
            tail,
        };
        assert_eq!(state, expected);
    });
}

#[test]
fn groups_know_nothing_of_each_other() {
    on_both(|log, client| {
        for group in [0, 1, 255, 256, u16::MAX] {
            append(log, client, group, 1..4, 10);
        }
        log.truncate_after(256, None, client.done());
        log.purge_to(255, 3, Bytes::new(), client.done());
        client.settle();
        for (group, count) in [(0, 3), (1, 3), (255, 0), (256, 0), (u16::MAX, 3)] {
            assert_eq!(load(log, client, group).tail.len(), count, "group {group}");
        }
    });
}

#[test]
fn a_read_is_cut_by_size_and_brings_at_least_one() {
    on_both(|log, client| {
        append(log, client, 1, 0..50, 100);
        for (range, size_max, expected) in [
            (0..50, 350, 0..3),
            (10..50, 1, 10..11),
            (45..90, usize::MAX, 45..50),
            (60..90, 1, 0..0),
            (7..7, 1000, 0..0),
        ] {
            log.read(1, range, size_max, client.done());
            match client.last().unwrap() {
                Outcome::Entries(found) => assert_eq!(found, entries(expected, 100)),
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn a_log_goes_on_behind_a_snapshot() {
    on_both(|log, client| {
        append(log, client, 1, 0..3, 10);
        log.purge_to(1, 100, Bytes::from_static(b"snapshot"), client.done());
        append(log, client, 1, 101..103, 10);
        let state = load(log, client, 1);
        assert_eq!((state.first, state.last), (Some(101), Some(102)));
        assert_eq!(state.purged, Some((100, Bytes::from_static(b"snapshot"))));
        assert_eq!(state.tail, entries(101..103, 10));
    });
}

#[test]
fn an_older_purge_mark_changes_nothing() {
    on_both(|log, client| {
        append(log, client, 1, 0..10, 10);
        log.purge_to(1, 5, Bytes::from_static(b"five"), client.done());
        client.settle();
        log.purge_to(1, 3, Bytes::from_static(b"three"), client.done());
        assert_eq!(load(log, client, 1).purged, Some((5, Bytes::from_static(b"five"))));
    });
}

#[test]
fn everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let client = Client::new();
    let before = {
        let log = small_lane(dir.path());
        for round in 0..20u64 {
            append(&log, &client, 1, round * 5..round * 5 + 5, 200);
            append(&log, &client, 2, round..round + 1, 30);
            if round > 3 {
                log.purge_to(1, round * 5 - 10, Bytes::from_static(b"m"), client.done());
            }
            client.settle();
        }
        log.save_vote(2, Bytes::from_static(b"vote"), client.done());
        log.save_committed(2, Bytes::from_static(b"hint"));
        [load(&log, &client, 1), load(&log, &client, 2)]
    };
    let log = small_lane(dir.path());
    assert_eq!([load(&log, &client, 1), load(&log, &client, 2)], before);
    assert_eq!(before[1].committed, Some(Bytes::from_static(b"hint")));
    assert_eq!(before[1].tail.len(), 20);
}

/// Without clearing and carrying over, an idle group would keep every journal there ever was.
#[test]
fn the_disk_holds_what_is_needed_and_little_more() {
    let dir = tempfile::tempdir().unwrap();
    let client = Client::new();
    let options = LogOptions {
        generation_size_max: 1 << 20,
        memory_size_max: 4 << 20,
        ..LogOptions::new(dir.path().to_owned())
    };
    let log = LogLane::open(&options, no_failure()).unwrap();
    append(&log, &client, 9, 0..3, 100);
    // 300 MB through a log of which 20 entries are kept.
    for round in 0..600u64 {
        append(&log, &client, 1, round * 10..round * 10 + 10, 50_000);
        if round > 2 {
            log.purge_to(1, (round - 2) * 10, Bytes::new(), client.done());
        }
        client.settle();
    }
    assert_eq!(load(&log, &client, 9).tail, entries(0..3, 100));
    drop(log);
    let size = disk_size(dir.path());
    assert!(size < 160 << 20, "{size} bytes");
    let log = LogLane::open(&options, no_failure()).unwrap();
    assert_eq!(load(&log, &client, 9).tail, entries(0..3, 100));
    assert_eq!(load(&log, &client, 1).last, Some(5999));
}

/// A group with little traffic and a long tail has a few entries in every generation that a busy
/// one fills.
#[test]
fn a_slow_group_does_not_keep_what_a_busy_one_has_left() {
    let dir = tempfile::tempdir().unwrap();
    let client = Client::new();
    let options = LogOptions {
        generation_size_max: 500_000,
        memory_size_max: 2_000_000,
        ..LogOptions::new(dir.path().to_owned())
    };
    let log = LogLane::open(&options, no_failure()).unwrap();
    for round in 0..1_500u64 {
        append(&log, &client, 1, round * 5..round * 5 + 5, 20_000);
        append(&log, &client, 2, round..round + 1, 50);
        log.purge_to(1, round * 5, Bytes::new(), client.done());
        client.settle();
    }
    assert_eq!(load(&log, &client, 2).tail, entries(0..1_500, 50));
    drop(log);
    let keyspaces = std::fs::read_dir(dir.path().join("keyspaces")).unwrap().count();
    assert!(keyspaces < 16, "{keyspaces} keyspaces");
    let log = LogLane::open(&options, no_failure()).unwrap();
    assert_eq!(load(&log, &client, 2).tail, entries(0..1_500, 50));
    assert_eq!(load(&log, &client, 1).tail, entries(7_496..7_500, 20_000));
}

/// What a log at rest holds is on disk: nothing of it has to be replayed at a start.
#[test]
fn a_log_at_rest_lets_go_of_its_memory() {
    let dir = tempfile::tempdir().unwrap();
    let client = Client::new();
    let options =
        LogOptions { rest: Duration::from_millis(50), ..LogOptions::new(dir.path().to_owned()) };
    let log = LogLane::open(&options, no_failure()).unwrap();
    append(&log, &client, 1, 0..100, 50_000);
    log.save_vote(1, Bytes::from_static(b"vote"), client.done());
    client.settle();
    let flushed = || {
        let tables = std::fs::read_dir(dir.path().join("keyspaces")).unwrap();
        tables.map(|keyspace| disk_size(&keyspace.unwrap().path())).sum::<u64>() > 4 << 20
    };
    let end = Instant::now() + Duration::from_secs(20);
    while !flushed() {
        assert!(Instant::now() < end, "nothing was flushed");
        std::thread::sleep(Duration::from_millis(20));
    }
    append(&log, &client, 1, 100..103, 100);
    log.truncate_after(1, Some(100), client.done());
    let before = load(&log, &client, 1);
    assert_eq!((before.first, before.last), (Some(0), Some(100)));
    drop(log);
    let log = LogLane::open(&options, no_failure()).unwrap();
    assert_eq!(load(&log, &client, 1), before);
}

fn disk_size(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::read_dir(path)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let meta = entry.metadata().unwrap();
            if meta.is_dir() { disk_size(&entry.path()) } else { meta.blocks() * 512 }
        })
        .sum()
}

#[test]
fn a_full_queue_gives_the_entries_back() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions { queue_size_max: 10_000, ..LogOptions::new(dir.path().to_owned()) };
    let log = LogLane::open(&options, no_failure()).unwrap();
    let client = Client::new();
    let mut index = 0;
    let full = loop {
        assert!(index < 100_000, "never full");
        match log.append(1, entries(index..index + 1, 5_000), client.done()) {
            Ok(()) => index += 1,
            Err(full) => break full,
        }
    };
    assert_eq!(full.entries, entries(index..index + 1, 5_000));
    client.under_way.set(client.under_way.get() - 1);
    client.settle();
    assert_eq!(log.queue_size(), 0);
    log.append(1, full.entries, client.done()).unwrap();
    assert_eq!(load(&log, &client, 1).last, Some(index));
}

#[test]
fn a_stopped_lane_answers_closed() {
    let dir = tempfile::tempdir().unwrap();
    let log = small_lane(dir.path());
    let client = Client::new();
    append(&log, &client, 1, 0..1, 10);
    log.stop();
    client.last().unwrap();
    log.save_vote(1, Bytes::new(), client.done());
    assert!(client.last().is_err());
    log.stop();
}

#[test]
fn a_held_twin_loses_what_was_not_fsynced() {
    let log = MemoryLog::held();
    let client = Client::new();
    append(&log, &client, 1, 0..2, 10);
    log.fsync();
    assert_eq!(client.settle().len(), 1);
    append(&log, &client, 1, 2..4, 10);
    assert_eq!(client.receiver.len(), 0, "answered before the fsync");
    log.load(1, usize::MAX, client.done());
    client.under_way.set(1);
    assert_eq!(log_state(client.last().unwrap()).last, Some(3));
    log.crash();
    log.load(1, usize::MAX, client.done());
    assert_eq!(log_state(client.last().unwrap()).last, Some(1));
}

#[derive(Clone, Debug)]
enum Op {
    Append { group: u16, count: u64, size: usize },
    Truncate { group: u16, back: u64 },
    Clear { group: u16 },
    Purge { group: u16, keep: u64 },
    Jump { group: u16, ahead: u64 },
    Vote { group: u16, vote: u8 },
    Committed { group: u16, committed: u8 },
    Read { group: u16, back: u64, count: u64, size_max: usize },
    Load { group: u16, tail: usize },
    Settle,
    Reopen,
}

fn any_op() -> impl Strategy<Value = Op> {
    let group = || 0u16..3;
    prop_oneof![
        12 => (group(), 1u64..6, 0usize..500)
            .prop_map(|(group, count, size)| Op::Append { group, count, size }),
        2 => (group(), 0u64..8).prop_map(|(group, back)| Op::Truncate { group, back }),
        1 => group().prop_map(|group| Op::Clear { group }),
        5 => (group(), 0u64..10).prop_map(|(group, keep)| Op::Purge { group, keep }),
        1 => (group(), 0u64..10).prop_map(|(group, ahead)| Op::Jump { group, ahead }),
        1 => (group(), any::<u8>()).prop_map(|(group, vote)| Op::Vote { group, vote }),
        2 => (group(), any::<u8>())
            .prop_map(|(group, committed)| Op::Committed { group, committed }),
        3 => (group(), 0u64..30, 0u64..30, 0usize..3000).prop_map(
            |(group, back, count, size_max)| Op::Read { group, back, count, size_max }
        ),
        3 => (group(), 0usize..3000).prop_map(|(group, tail)| Op::Load { group, tail }),
        2 => Just(Op::Settle),
        1 => Just(Op::Reopen),
    ]
}

/// Sends the same requests to both and compares every answer.
fn check(ops: Vec<Op>) {
    let dir = tempfile::tempdir().unwrap();
    let mut lane = Some(small_lane(dir.path()));
    let twin = MemoryLog::new();
    let clients = [Client::new(), Client::new()];
    let mut next = [1u64; 3];
    let mut purged = [0u64; 3];
    let settle = || {
        let [a, b] = clients.each_ref().map(Client::settle);
        assert_eq!(format!("{a:?}"), format!("{b:?}"));
    };
    for op in ops {
        let logs: [&dyn LogStorage; 2] = [lane.as_ref().unwrap(), &twin];
        let each = |request: &dyn Fn(&dyn LogStorage, &Client)| {
            for (log, client) in logs.iter().zip(&clients) {
                request(*log, client);
            }
        };
        match op {
            Op::Append { group, count, size } => {
                let next = &mut next[usize::from(group)];
                each(&|log, client| append(log, client, group, *next..*next + count, size));
                *next += count;
            }
            Op::Truncate { group, back } => {
                let place = usize::from(group);
                let after = (next[place] - 1).saturating_sub(back).max(purged[place]);
                each(&|log, client| log.truncate_after(group, Some(after), client.done()));
                next[place] = next[place].min(after + 1);
            }
            Op::Clear { group } => {
                let place = usize::from(group);
                each(&|log, client| log.truncate_after(group, None, client.done()));
                next[place] = purged[place] + 1;
            }
            Op::Purge { group, keep } => {
                let place = usize::from(group);
                let index = (next[place] - 1).saturating_sub(keep).max(purged[place]);
                let mark = Bytes::from(vec![u8::try_from(keep).unwrap()]);
                each(&|log, client| log.purge_to(group, index, mark.clone(), client.done()));
                purged[place] = index;
            }
            Op::Jump { group, ahead } => {
                let place = usize::from(group);
                let index = next[place] + ahead;
                each(&|log, client| log.purge_to(group, index, Bytes::new(), client.done()));
                purged[place] = index;
                next[place] = index + 1;
            }
            Op::Vote { group, vote } => {
                each(&|log, client| log.save_vote(group, vec![vote].into(), client.done()));
            }
            Op::Committed { group, committed } => {
                each(&|log, _| log.save_committed(group, vec![committed].into()));
            }
            Op::Read { group, back, count, size_max } => {
                let start = next[usize::from(group)].saturating_sub(back);
                each(&|log, client| log.read(group, start..start + count, size_max, client.done()));
            }
            Op::Load { group, tail } => {
                // What is committed may be noted later than what was asked for earlier.
                settle();
                each(&|log, client| log.load(group, tail, client.done()));
                settle();
            }
            Op::Settle => settle(),
            Op::Reopen => {
                settle();
                lane = None;
                lane = lane.or_else(|| Some(small_lane(dir.path())));
            }
        }
    }
    settle();
    let lane: Arc<dyn LogStorage> = Arc::new(lane.unwrap());
    for group in 0..3 {
        assert_eq!(load(&*lane, &clients[0], group), load(&twin, &clients[1], group));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_lane_answers_as_its_twin(ops in prop::collection::vec(any_op(), 1..120)) {
        check(ops);
    }
}
