//! A write that fails is final: nobody is told that something is durable afterwards.

#![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]

use std::{
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use jindou_core::{
    id::{LogId, ShardId, SlotId},
    row::{Persist, Row},
};
use jindou_storage::{
    LogLane, LogOptions, LogStorage, OnFatal, Outcome, StateLane, StateOptions, StateStorage,
    StorageError, completions, wait,
};

const CHILD: &str = "JINDOU_POISON_CHILD";
const ENTRY_SIZE: usize = 1 << 20;

/// Runs a test of this file in a process whose files can't grow beyond about 100 MB.
fn run_limited(test: &str, dir: &Path) -> String {
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 200000; exec \"$0\" --exact \"$1\" --nocapture"])
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env(CHILD, dir)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    text
}

fn number_after(text: &str, word: &str) -> u64 {
    let (_, rest) = text.split_once(word).unwrap();
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

fn counter() -> (OnFatal, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let on_fatal: OnFatal = Arc::new(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    (on_fatal, count)
}

fn log_options(dir: &Path) -> LogOptions {
    LogOptions {
        // Nothing is flushed, so the journal grows until it may not.
        generation_size_max: 1 << 40,
        memory_size_max: 1 << 41,
        ..LogOptions::new(dir.to_owned())
    }
}

fn entry(index: u64) -> Bytes {
    vec![u8::try_from(index % 251).unwrap(); ENTRY_SIZE].into()
}

#[test]
fn child_log() {
    let Ok(dir) = std::env::var(CHILD) else {
        return;
    };
    let (on_fatal, count) = counter();
    let log = LogLane::open(&log_options(Path::new(&dir)), on_fatal).unwrap();
    let mut acked = 0;
    for index in 1..1000 {
        let entries = vec![(index, entry(index))];
        match wait(|done| log.append(1, entries, done).unwrap()) {
            Ok(_) => acked = index,
            Err(e) => {
                assert!(matches!(e, StorageError::Poisoned { database: "log", .. }), "{e}");
                break;
            }
        }
        assert!(index < 999, "the limit was never met");
    }
    assert_eq!(count.load(Ordering::SeqCst), 1);
    // Small things would fit; they are refused all the same, reads too.
    let vote = wait(|done| log.save_vote(1, Bytes::new(), done));
    let read = wait(|done| log.read(1, 0..10, 100, done));
    for result in [vote, read] {
        assert!(matches!(result, Err(StorageError::Poisoned { .. })));
    }
    assert_eq!(count.load(Ordering::SeqCst), 1, "told twice");
    assert_eq!(log.queue_size(), 0);
    println!("acked {acked}");
}

#[test]
fn a_failed_write_ends_the_log_and_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let acked = number_after(&run_limited("child_log", dir.path()), "acked ");
    assert!(acked > 60, "{acked}");
    let log = LogLane::open(&log_options(dir.path()), Arc::new(|e| panic!("{e}"))).unwrap();
    match wait(|done| log.load(1, usize::MAX, done)).unwrap() {
        Outcome::Log(state) => {
            assert!(state.last >= Some(acked));
            assert!(state.tail.iter().all(|(index, bytes)| *bytes == entry(*index)));
        }
        other => panic!("{other:?}"),
    }
}

fn state_options(dir: &Path) -> StateOptions {
    StateOptions {
        memtable_size_max: 1 << 40,
        ..StateOptions::new(dir.join("state"), dir.join("install"))
    }
}

#[test]
fn child_state() {
    let Ok(dir) = std::env::var(CHILD) else {
        return;
    };
    let (on_fatal, count) = counter();
    let options = state_options(Path::new(&dir));
    let state = StateLane::open(&options, on_fatal, Arc::new(|_| {})).unwrap();
    let (sender, _receiver) = completions(ShardId(0), Arc::new(|| {}));
    let mut synced = 0;
    for index in 1..1000 {
        let persist = Persist {
            slot: SlotId(0),
            applied: LogId { term: 1, node: 1, index },
            rows: vec![Row::ClusterKey { key: index.to_string(), value: entry(index) }],
        };
        state.persist(persist, &sender);
        match wait(|done| state.sync(done)) {
            Ok(_) => synced = index,
            Err(e) => {
                assert!(matches!(e, StorageError::Poisoned { database: "state", .. }), "{e}");
                break;
            }
        }
        assert!(index < 999, "the limit was never met");
    }
    assert_eq!(count.load(Ordering::SeqCst), 1);
    let open = wait(|done| state.open_slot(SlotId(0), done));
    assert!(matches!(open, Err(StorageError::Poisoned { .. })));
    println!("synced {synced}");
}

#[test]
fn a_failed_write_ends_the_state_and_loses_nothing_synced() {
    let dir = tempfile::tempdir().unwrap();
    let synced = number_after(&run_limited("child_state", dir.path()), "synced ");
    let options = state_options(dir.path());
    let state = StateLane::open(&options, Arc::new(|e| panic!("{e}")), Arc::new(|_| {})).unwrap();
    match wait(|done| state.open_slot(SlotId(0), done)).unwrap() {
        Outcome::Slot(opened) => {
            let applied = opened.rows.applied.unwrap().index;
            assert!(applied >= synced);
            assert_eq!(opened.rows.cluster.len(), usize::try_from(applied).unwrap());
        }
        other => panic!("{other:?}"),
    }
}
