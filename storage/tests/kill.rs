//! A process that writes is killed again and again; what it was told is durable must be there.
//!
//! `JINDOU_KILL_ROUNDS=25 cargo test -p jindou-storage --test kill` for more than the everyday 5.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use jindou_core::{
    id::{ChannelId, LogId, ShardId, SlotId},
    message::Message,
    row::{Persist, Read, Row, Rows},
};
use jindou_storage::{
    Completion, CompletionSender, LogLane, LogOptions, LogState, LogStorage, Outcome, StateLane,
    StateOptions, StateStorage, completions, wait,
};

const CHILD: &str = "JINDOU_KILL_CHILD";
const GROUP_COUNT: u16 = 8;
const IN_FLIGHT: usize = 4;
/// Messages of one entry.
const BATCH: u64 = 5;

fn rounds() -> u64 {
    std::env::var("JINDOU_KILL_ROUNDS").map_or(5, |text| text.parse().unwrap())
}

/// Runs one of the tests below as a child until it is killed; gives the lines it wrote.
fn killed_child(test: &str, dir: &Path, after: Duration) -> Vec<String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let killer = std::thread::spawn(move || {
        std::thread::sleep(after);
        child.kill().unwrap();
        child.wait().unwrap();
    });
    let lines = output.lines().map_while(Result::ok).collect();
    killer.join().unwrap();
    lines
}

fn tell(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).unwrap();
    out.write_all(b"\n").unwrap();
    out.flush().unwrap();
}

/// `<word> <group> <number>`, the highest number of each word and group.
fn highest(lines: &[String]) -> BTreeMap<(String, u16), u64> {
    let mut told: BTreeMap<_, u64> = BTreeMap::new();
    for line in lines {
        let parts: Vec<&str> = line.split(' ').collect();
        if let [word, group, number] = parts[..]
            && let (Ok(group), Ok(number)) = (group.parse(), number.parse())
        {
            let known = told.entry((word.to_owned(), group)).or_insert(number);
            *known = number.max(*known);
        }
    }
    told
}

fn fatal() -> Arc<dyn Fn(&jindou_storage::StorageError) + Send + Sync> {
    Arc::new(|e| panic!("{e}"))
}

fn open_log(dir: &Path) -> LogLane {
    let options = LogOptions {
        // Small, so that kills meet new, cleared and flushed generations.
        generation_size_max: 200_000,
        memory_size_max: 600_000,
        ..LogOptions::new(dir.join("log"))
    };
    LogLane::open(&options, fatal()).unwrap()
}

fn load(log: &dyn LogStorage, group: u16) -> LogState {
    match wait(|done| log.load(group, usize::MAX, done)).unwrap() {
        Outcome::Log(state) => *state,
        other => panic!("{other:?}"),
    }
}

/// What an entry must hold.
fn entry(group: u16, index: u64) -> Bytes {
    let size = 20 + usize::try_from(index % 700).unwrap();
    let byte = u8::try_from((index + u64::from(group)) % 251).unwrap();
    let mut bytes = vec![byte; size];
    bytes[..8].copy_from_slice(&index.to_be_bytes());
    bytes.into()
}

fn token(kind: u64, group: u16, number: u64) -> u64 {
    kind << 60 | u64::from(group) << 44 | number
}

/// The child: appends, votes and purges, and tells what has been answered.
#[test]
fn child_writes_the_log() {
    let Ok(dir) = std::env::var(CHILD) else {
        return;
    };
    let log = open_log(Path::new(&dir));
    let (sender, receiver) = completions(ShardId(0), Arc::new(|| {}));
    let mut next: Vec<u64> =
        (0..GROUP_COUNT).map(|group| load(&log, group).last.map_or(1, |last| last + 1)).collect();
    let append = |next: &mut Vec<u64>, group: u16| {
        let index = next[usize::from(group)];
        next[usize::from(group)] += 1;
        let done = sender.done(token(1, group, index));
        log.append(group, vec![(index, entry(group, index))], done).unwrap();
        if index.is_multiple_of(64) {
            let vote = Bytes::from(index.to_be_bytes().to_vec());
            log.save_vote(group, vote, sender.done(token(2, group, index)));
        }
        // One group keeps everything for long: it must be carried over or flushed.
        let keep = if group == 3 { 5_000 } else { 100 };
        if index.is_multiple_of(50) && index > keep {
            let mark = Bytes::from((index - keep).to_be_bytes().to_vec());
            let done = sender.done(token(3, group, index - keep));
            log.purge_to(group, index - keep, mark, done);
        }
    };
    for _ in 0..IN_FLIGHT {
        for group in 0..GROUP_COUNT {
            append(&mut next, group);
        }
    }
    while let Ok(Completion::Answer { token, result }) = receiver.recv() {
        assert!(matches!(result.unwrap(), Outcome::Done));
        let group = u16::try_from(token >> 44 & 0xffff).unwrap();
        let number = token & ((1 << 44) - 1);
        let word = ["", "entry", "vote", "purge"][usize::try_from(token >> 60).unwrap()];
        tell(&format!("{word} {group} {number}"));
        // Group 7 falls asleep, and its entries must outlive everyone else's.
        if word == "entry" && !(group == 7 && number > 20) {
            append(&mut next, group);
        }
    }
}

#[test]
fn acknowledged_entries_survive_the_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut acked = 0;
    let mut told = BTreeMap::new();
    for round in 0..rounds() {
        let after = Duration::from_millis(300 + round * 137 % 700);
        let lines = killed_child("child_writes_the_log", dir.path(), after);
        acked += lines.len();
        for (key, number) in highest(&lines) {
            let known = told.entry(key).or_insert(number);
            *known = number.max(*known);
        }
        let log = open_log(dir.path());
        for group in 0..GROUP_COUNT {
            let state = load(&log, group);
            let told = |word: &str| told.get(&(word.to_owned(), group)).copied();
            assert!(
                state.last >= told("entry"),
                "{state:?} against {told:?}",
                told = told("entry")
            );
            let purged = state.purged.as_ref().map(|(index, _)| *index);
            assert!(purged >= told("purge"));
            if let Some((index, mark)) = &state.purged {
                assert_eq!(**mark, index.to_be_bytes());
            }
            let vote = state.vote.map(|vote| u64::from_be_bytes((*vote).try_into().unwrap()));
            assert!(vote >= told("vote"));
            let first = purged.map_or(1, |purged| purged + 1);
            assert_eq!(state.first.unwrap_or(first), first);
            let expected: Vec<_> = (first..=state.last.unwrap_or(0))
                .map(|index| (index, entry(group, index)))
                .collect();
            assert!(state.tail == expected, "group {group} has lost or changed entries");
        }
    }
    assert!(acked > 0, "the child never got an answer");
    println!("{acked} answers, none lost");
}

fn open_state(dir: &Path, tells: bool) -> StateLane {
    let options = StateOptions {
        memtable_size_max: 200_000,
        sync_interval: Duration::from_millis(20),
        ..StateOptions::new(dir.join("state"), dir.join("install"))
    };
    let on_synced: jindou_storage::OnSynced = Arc::new(move |moved| {
        for (slot, applied) in moved.iter().filter(|_| tells) {
            tell(&format!("synced {} {}", slot.0, applied.index));
        }
    });
    StateLane::open(&options, fatal(), on_synced).unwrap()
}

fn channel() -> ChannelId {
    ChannelId::new("g", 2)
}

/// What the entry at `index` does: messages, and rows in other keyspaces that say the same.
fn persist(slot: SlotId, index: u64) -> Persist {
    let mut rows: Vec<Row> = (1..=BATCH)
        .map(|n| {
            let seq = (index - 1) * BATCH + n;
            Row::Message(Arc::new(Message {
                id: i64::try_from(seq).unwrap(),
                seq,
                channel: channel(),
                from: "ann".into(),
                client_msg_no: "no".into(),
                flags: 0,
                setting: 0,
                expire: 0,
                timestamp: 1,
                topic: "".into(),
                stream_no: "".into(),
                shown: None,
                payload: Bytes::from(vec![7; usize::try_from(seq % 900).unwrap()]),
            }))
        })
        .collect();
    rows.push(Row::Sent { channel: channel(), uid: "ann".into(), seq: index * BATCH });
    rows.push(Row::Received { source: SlotId(1), index });
    Persist { slot, applied: LogId { term: 1, node: 1, index }, rows }
}

/// Position, last seq, the seq that the sender sent last, and the index in another keyspace.
fn seen(state: &dyn StateStorage, slot: SlotId) -> [u64; 4] {
    let opened = match wait(|done| state.open_slot(slot, done)).unwrap() {
        Outcome::Slot(opened) => *opened,
        other => panic!("{other:?}"),
    };
    let read = Read::Digests {
        uid: "ann".into(),
        items: vec![jindou_core::row::DigestQuery { channel: channel(), after: 0, count_max: 1 }],
    };
    let digest = match wait(|done| state.read(slot, read, done)).unwrap() {
        Outcome::Rows(Rows::Digests(mut digests)) => digests.pop().unwrap(),
        other => panic!("{other:?}"),
    };
    let received = opened.rows.received.first().map_or(0, |(_, index)| *index);
    [
        opened.rows.applied.map_or(0, |applied| applied.index),
        digest.last_seq,
        digest.own_seq,
        received,
    ]
}

/// The child: applies entries from where each slot stands, and tells what is durable.
#[test]
fn child_writes_the_state() {
    let Ok(dir) = std::env::var(CHILD) else {
        return;
    };
    let state = open_state(Path::new(&dir), true);
    let (sender, receiver) = completions(ShardId(0), Arc::new(|| {}));
    let mut next: Vec<u64> =
        (0..GROUP_COUNT).map(|slot| seen(&state, SlotId(slot))[0] + 1).collect();
    let mut under_way = 0;
    let mut hand_over = |slot: u16, sender: &CompletionSender| {
        let next = &mut next[usize::from(slot)];
        let persist = persist(SlotId(slot), *next);
        *next += 1;
        let size = jindou_core::effect::Outbox::persist_size(&persist);
        state.persist(persist, sender);
        size
    };
    loop {
        for slot in 0..GROUP_COUNT {
            under_way += hand_over(slot, &sender);
        }
        while under_way > 100_000 {
            if let Ok(Completion::Persisted { size }) = receiver.recv() {
                under_way -= size;
            }
        }
    }
}

#[test]
fn rows_and_position_survive_the_kill_together() {
    let dir = tempfile::tempdir().unwrap();
    let mut told = BTreeMap::new();
    for round in 0..rounds() {
        let after = Duration::from_millis(300 + round * 211 % 700);
        let lines = killed_child("child_writes_the_state", dir.path(), after);
        told.extend(highest(&lines));
        let state = open_state(dir.path(), false);
        for slot in 0..GROUP_COUNT {
            let [applied, last_seq, own_seq, received] = seen(&state, SlotId(slot));
            let synced = told.get(&("synced".to_owned(), slot)).copied().unwrap_or(0);
            assert!(applied >= synced, "{applied} applied, {synced} told durable");
            let expected = [applied * BATCH, applied * BATCH, applied];
            assert_eq!([last_seq, own_seq, received], expected, "slot {slot}");
        }
    }
    assert!(!told.is_empty(), "the child never synced");
}

/// Writes two snapshots of a slot, a short and a long one, into files.
fn make_snapshots(dir: &Path) {
    let source = open_state(&dir.join("source"), false);
    let (sender, _receiver) = completions(ShardId(0), Arc::new(|| {}));
    let mut index = 0;
    for (name, count) in [("0", 300), ("1", 1_000)] {
        while index < count {
            index += 1;
            source.persist(persist(SlotId(0), index), &sender);
        }
        let Outcome::Snapshot(mut reader) = wait(|done| source.snapshot(SlotId(0), done)).unwrap()
        else {
            panic!("no snapshot");
        };
        let chunks = dir.join("snapshot").join(name);
        std::fs::create_dir_all(&chunks).unwrap();
        for number in 0.. {
            match wait(|done| reader.next(done)).unwrap() {
                Outcome::Chunk(Some(chunk)) => {
                    std::fs::write(chunks.join(format!("{number:03}")), chunk).unwrap();
                }
                _ => break,
            }
        }
    }
}

fn snapshot_chunks(dir: &Path, name: &str) -> Vec<Bytes> {
    let files = std::fs::read_dir(dir.join("snapshot").join(name)).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap().into()).collect()
}

/// The child: replaces a slot by one snapshot and the other, over and over.
#[test]
fn child_installs() {
    let Ok(dir) = std::env::var(CHILD) else {
        return;
    };
    let dir = Path::new(&dir);
    let state = open_state(dir, false);
    let chunk_lists = ["0", "1"].map(|name| snapshot_chunks(dir, name));
    for count in 1u64.. {
        wait(|done| state.install_begin(SlotId(0), done)).unwrap();
        for chunk in &chunk_lists[usize::try_from(count % 2).unwrap()] {
            wait(|done| state.install_chunk(SlotId(0), chunk.clone(), done)).unwrap();
        }
        wait(|done| state.install_end(SlotId(0), done)).unwrap();
        tell(&format!("installed 0 {count}"));
    }
}

#[test]
fn an_install_is_done_wholly_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    make_snapshots(dir.path());
    let mut installs = 0;
    let mut seen_applied = std::collections::BTreeSet::new();
    for round in 0..rounds() {
        let after = Duration::from_millis(200 + round * 331 % 800);
        let lines = killed_child("child_installs", dir.path(), after);
        installs += lines.iter().filter(|l| l.starts_with("installed")).count();
        let state = open_state(dir.path(), false);
        let [applied, last_seq, own_seq, received] = seen(&state, SlotId(0));
        assert!([0, 300, 1_000].contains(&applied), "{applied}");
        assert!(installs == 0 || applied > 0);
        seen_applied.insert(applied);
        let expected = [applied * BATCH, applied * BATCH, applied];
        assert_eq!([last_seq, own_seq, received], expected);
        let read = Read::Messages {
            channel: channel(),
            first: 1,
            last: u64::MAX,
            count_max: usize::MAX,
            from_start: true,
        };
        match wait(|done| state.read(SlotId(0), read, done)).unwrap() {
            Outcome::Rows(Rows::Messages(messages)) => {
                let seqs = messages.iter().map(|message| message.seq);
                assert!(seqs.eq(1..=applied * BATCH), "messages are missing");
            }
            other => panic!("{other:?}"),
        }
        let left = std::fs::read_dir(dir.path().join("install")).unwrap().count();
        assert_eq!(left, 0);
    }
    assert!(installs > 0, "no install ever ended");
    println!("{installs} installs, found at {seen_applied:?}");
}
