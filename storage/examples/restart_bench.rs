//! How long a node's storage takes to open, empty and after a kill, and what it holds in memory.
//!
//! ```text
//! cargo run --release -p jindou-storage --example restart_bench -- [messages] [dir]
//! ```
//!
//! A process stores messages of 200 bytes in 64 slots, as a node does (log first, then state, the
//! log purged behind the synced state), and kills itself with SIGKILL; another one opens what is
//! left, loads the log of every group and opens every slot. Once with 16 messages in an entry and
//! once with one.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "a measurement"
)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use jindou_core::{
    id::{ChannelId, LogId, NodeId, ShardId, SlotId},
    message::Message,
    row::{DedupeRecord, Persist, Row},
};
use jindou_storage::{Completion, Outcome, Storage, StorageOptions, completions};

const SLOT_COUNT: u16 = 64;
const IN_FLIGHT: u64 = 256;
const QUEUE_SIZE_MAX: usize = 8 << 20;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("fill") => {
            fill(Path::new(&args[2]), args[3].parse().unwrap(), args[4].parse().unwrap())
        }
        Some("open") => open(Path::new(&args[2])),
        count => run(
            count.map_or(1_000_000, |text| text.parse().unwrap()),
            args.get(2).map_or_else(std::env::temp_dir, PathBuf::from),
        ),
    }
}

fn run(count: u64, dir: PathBuf) {
    let path = dir.join(format!("restart_bench-{}", std::process::id()));
    let child = |args: &[&str]| {
        Command::new(std::env::current_exe().unwrap())
            .args(args)
            .stdout(Stdio::inherit())
            .status()
            .unwrap()
    };
    let name = path.to_str().unwrap();
    println!("new:");
    child(&["open", name]);
    println!("empty:");
    child(&["open", name]);
    fs::remove_dir_all(&path).unwrap();
    for per_entry in ["16", "1"] {
        println!("{count} messages, {per_entry} in an entry:");
        child(&["fill", name, &count.to_string(), per_entry]);
        child(&["open", name]);
        println!("  and once more:");
        child(&["open", name]);
        fs::remove_dir_all(&path).unwrap();
    }
}

fn storage(path: &Path, synced: Arc<Mutex<BTreeMap<SlotId, u64>>>) -> Storage {
    Storage::open(&StorageOptions {
        path: path.to_owned(),
        node: NodeId(1),
        slot_count: SLOT_COUNT,
        state_cache_size: 32 << 20,
        state_sync_interval: Duration::from_secs(5),
        on_fatal: Arc::new(|e| panic!("{e}")),
        on_idle: jindou_storage::OnIdle::default(),
        on_synced: Arc::new(move |moved| {
            let moved = moved.iter().map(|(slot, applied)| (*slot, applied.index));
            synced.lock().unwrap().extend(moved);
        }),
    })
    .unwrap()
}

fn open(path: &Path) {
    let start = Instant::now();
    let storage = storage(path, Arc::default());
    let opened = start.elapsed();
    let (log, state) = (storage.log(), storage.state());
    let (sender, receiver) = completions(ShardId(0), Arc::new(|| {}));
    for slot in 0..SLOT_COUNT {
        log.load(slot, 1 << 20, sender.done(0));
        state.open_slot(SlotId(slot), sender.done(0));
    }
    let (mut entries, mut applied) = (0, 0);
    for _ in 0..2 * SLOT_COUNT {
        match receiver.recv().unwrap() {
            Completion::Answer { result: Ok(Outcome::Log(found)), .. } => {
                entries += found.tail.len();
            }
            Completion::Answer { result: Ok(Outcome::Slot(found)), .. } => {
                applied += found.rows.applied.map_or(0, |applied| applied.index);
            }
            other => panic!("{other:?}"),
        }
    }
    println!(
        "  databases open after {:.3} s, all slots loaded after {:.3} s; {entries} entries in the \
         logs, {applied} applied; {} MB resident",
        opened.as_secs_f64(),
        start.elapsed().as_secs_f64(),
        resident_mb()
    );
    std::thread::sleep(Duration::from_secs(2));
    println!("  {} MB resident 2 s later", resident_mb());
    println!("  {} MB on disk", disk_size(path) >> 20);
}

fn fill(path: &Path, count: u64, per_entry: u64) {
    let synced: Arc<Mutex<BTreeMap<SlotId, u64>>> = Arc::default();
    let storage = storage(path, synced.clone());
    let (log, state) = (storage.log(), storage.state());
    let (sender, receiver) = completions(ShardId(0), Arc::new(|| {}));
    let entry_count = count / per_entry;
    let mut handed = 0;
    let mut queued = 0;
    let (mut done_count, mut purges) = (0, 0);
    let start = Instant::now();
    while done_count < entry_count || queued > 0 {
        while handed < entry_count && handed < done_count + IN_FLIGHT && queued < QUEUE_SIZE_MAX {
            let (slot, index) = place(handed);
            let bytes = Bytes::from(vec![7; usize::try_from(per_entry * 280).unwrap()]);
            log.append(slot.0, vec![(index, bytes)], sender.done(handed)).unwrap();
            handed += 1;
        }
        match receiver.recv().unwrap() {
            Completion::Answer { token, result } => {
                result.unwrap();
                if token < u64::MAX {
                    let (slot, index) = place(token);
                    let persist = persist(slot, index, per_entry);
                    queued += jindou_core::effect::Outbox::persist_size(&persist);
                    state.persist(persist, &sender);
                    done_count += 1;
                }
            }
            Completion::Persisted { size } => queued -= size,
        }
        for (slot, index) in std::mem::take(&mut *synced.lock().unwrap()) {
            purges += 1;
            log.purge_to(slot.0, index, Bytes::new(), sender.done(u64::MAX));
        }
    }
    println!(
        "  stored in {:.2} s, {purges} purges, {} MB resident",
        start.elapsed().as_secs_f64(),
        resident_mb()
    );
    let _ = Command::new("kill").args(["-9", &std::process::id().to_string()]).status();
}

fn place(number: u64) -> (SlotId, u64) {
    let slot = number % u64::from(SLOT_COUNT);
    (SlotId(u16::try_from(slot).unwrap()), number / u64::from(SLOT_COUNT) + 1)
}

/// Rows of an entry: messages to ten channels of the slot, and the send window.
fn persist(slot: SlotId, index: u64, per_entry: u64) -> Persist {
    let mut rows = Vec::new();
    let mut records = Vec::new();
    for n in 0..per_entry {
        let number = (index - 1) * per_entry + n;
        let channel = ChannelId::new(format!("channel-{}-{}", slot.0, number % 10), 2);
        let seq = number / 10 + 1;
        let id = i64::try_from(number).unwrap();
        rows.push(Row::Message(Arc::new(Message {
            id,
            seq,
            channel: channel.clone(),
            from: "sender-of-it".into(),
            client_msg_no: "0191f2a4c6d84e0f9b1a2c3d4e5f6071".into(),
            flags: 2,
            setting: 0,
            expire: 0,
            timestamp: 1_700_000_000,
            topic: "".into(),
            stream_no: "".into(),
            shown: None,
            payload: Bytes::from(vec![u8::try_from(number % 251).unwrap(); 200]),
        })));
        rows.push(Row::Sent { channel, uid: "sender-of-it".into(), seq });
        records.push(DedupeRecord {
            digest: u128::from(number) << 64,
            id,
            seq,
            time_ms: 1_700_000_000_000,
        });
    }
    let window = 10_000 / per_entry;
    rows.push(Row::Dedupe { index, records: Some(records) });
    if index > window {
        rows.push(Row::Dedupe { index: index - window, records: None });
    }
    Persist { slot, applied: LogId { term: 1, node: 1, index }, rows }
}

fn resident_mb() -> u64 {
    let text = fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

fn disk_size(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let entries = fs::read_dir(path).unwrap();
    entries
        .map(|entry| {
            let entry = entry.unwrap();
            let meta = entry.metadata().unwrap();
            if meta.is_dir() { disk_size(&entry.path()) } else { meta.blocks() * 512 }
        })
        .sum()
}
