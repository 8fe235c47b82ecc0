//! The Raft log in fjall against a log of recycled segments, behind the same trait.
//!
//! ```text
//! cargo run --release -p jindou-storage --example log_bench -- <fjall|segments> [seconds] [dir]
//! ```
//!
//! 64 groups in a closed loop: a fixed number of entries is in flight, each acknowledged entry is
//! followed by the next one of its group. As a node does behind its synced state, after every 16 MiB
//! or 5 s each group is purged up to where it stood one such interval before, but for 64 entries.
//! Every line is a run of its own on an empty directory, its first second not counted. Latency is
//! from the call to the answer in the shard's queue.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a measurement, not a server"
)]

mod segments;

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hdrhistogram::Histogram;
use jindou_core::id::ShardId;
use jindou_storage::{Completion, LogLane, LogOptions, LogStorage, Outcome, completions};
use segments::SegmentLog;

const GROUP_COUNT: usize = 64;
const MESSAGE_SIZE: usize = 200;
/// When the state is synced and the log purged behind it.
const PURGE_INTERVAL: Duration = Duration::from_secs(5);
const PURGE_SIZE: usize = 16 << 20;
/// Tokens of purges, which nobody waits for.
const PURGE_TOKEN: u64 = u64::MAX;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let kind = args.get(1).map_or("fjall", String::as_str).to_owned();
    let seconds = args.get(2).map_or(10, |text| text.parse().unwrap());
    let dir = args.get(3).map_or_else(std::env::temp_dir, PathBuf::from);
    println!(
        "{:<9} {:>8} {:>8} | {:>9} {:>10} | {:>7} {:>8} {:>8} {:>8} | {:>8} {:>8} | {:>7} {:>6}",
        "log",
        "in fl.",
        "msg/ent",
        "ent/s",
        "msg/s",
        "p50 ms",
        "p99",
        "p99.9",
        "max",
        "µs/ent",
        "worst s",
        "written",
        "RSS MB"
    );
    let all = [(1, 1), (1, 16), (64, 1), (64, 16), (1024, 1), (1024, 16)];
    for (in_flight, per_entry) in all {
        if std::env::var("ONLY").is_ok_and(|only| only != format!("{in_flight}x{per_entry}")) {
            continue;
        }
        let path = dir.join(format!("log_bench-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        run(&kind, &path, in_flight, per_entry, seconds);
        fs::remove_dir_all(&path).unwrap();
    }
}

fn open(kind: &str, path: &Path) -> Arc<dyn LogStorage> {
    match kind {
        "fjall" => {
            let mut options = LogOptions::new(path.to_owned());
            if let Ok(mib) = std::env::var("GENERATION_MIB") {
                options.generation_size_max = mib.parse::<u64>().unwrap() << 20;
            }
            if let Ok(mib) = std::env::var("MEMORY_MIB") {
                options.memory_size_max = mib.parse::<u64>().unwrap() << 20;
            }
            Arc::new(LogLane::open(&options, Arc::new(|e| panic!("{e}"))).unwrap())
        }
        "segments" => Arc::new(SegmentLog::open(path).unwrap()),
        other => panic!("{other}: fjall or segments"),
    }
}

fn run(kind: &str, path: &Path, in_flight: usize, per_entry: usize, seconds: u64) {
    let log = open(kind, path);
    let (sender, receiver) = completions(ShardId(0), Arc::new(|| {}));
    let entry = payload(per_entry * MESSAGE_SIZE);
    let mut next_index = [1u64; GROUP_COUNT];
    let mut begun = vec![Instant::now(); in_flight];
    let append = |place: usize, next_index: &mut [u64; GROUP_COUNT]| {
        let group = place % GROUP_COUNT;
        let index = next_index[group];
        next_index[group] += 1;
        // The bytes of every entry are its own, as they are for real.
        let entries = vec![(index, Bytes::copy_from_slice(&entry))];
        let done = sender.done(place as u64);
        log.append(group as u16, entries, done).unwrap();
    };
    for (place, begun) in begun.iter_mut().enumerate() {
        *begun = Instant::now();
        append(place, &mut next_index);
    }
    let mut latency = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3).unwrap();
    let warm = Duration::from_secs(1);
    let start = Instant::now();
    let end = warm + Duration::from_secs(seconds);
    let mut history: VecDeque<[u64; GROUP_COUNT]> = VecDeque::new();
    let (mut second_at, mut second_count, mut worst) = (Duration::ZERO, 0u64, u64::MAX);
    let (mut purged_at, mut unpurged) = (Duration::ZERO, 0);
    let mut before = None;
    loop {
        let completion = receiver.recv().unwrap();
        let Completion::Answer { token, result } = completion else {
            continue;
        };
        assert!(matches!(result.unwrap(), Outcome::Done));
        if token == PURGE_TOKEN {
            continue;
        }
        let now = Instant::now();
        let at = now - start;
        if at >= end {
            break;
        }
        if at >= warm {
            before.get_or_insert_with(|| (cpu(), written()));
            latency.record((now - begun[token as usize]).as_nanos() as u64 / 1000).unwrap();
        }
        second_count += 1;
        if at >= second_at + Duration::from_secs(1) {
            second_at = at;
            if at >= warm + Duration::from_secs(1) {
                worst = worst.min(second_count);
            }
            second_count = 0;
        }
        unpurged += entry.len();
        if at >= purged_at + PURGE_INTERVAL || unpurged >= PURGE_SIZE {
            purged_at = at;
            unpurged = 0;
            history.push_back(next_index);
            if history.len() > 1 {
                for (group, index) in history.pop_front().unwrap().into_iter().enumerate() {
                    let keep = index.saturating_sub(64);
                    let mark = Bytes::from_static(b"mark");
                    log.purge_to(group as u16, keep, mark, sender.done(PURGE_TOKEN));
                }
            }
        }
        begun[token as usize] = now;
        append(token as usize, &mut next_index);
    }
    let (before_cpu, before_written) = before.unwrap();
    let count = latency.len();
    let ms = |value: u64| value as f64 / 1000.0;
    println!(
        "{kind:<9} {in_flight:>8} {per_entry:>8} | {:>9.0} {:>10.0} | {:>7.2} {:>8.2} {:>8.2} {:>8.2} | {:>8.1} {:>8} | {:>7.2} {:>6}",
        count as f64 / seconds as f64,
        (count as usize * per_entry) as f64 / seconds as f64,
        ms(latency.value_at_quantile(0.5)),
        ms(latency.value_at_quantile(0.99)),
        ms(latency.value_at_quantile(0.999)),
        ms(latency.max()),
        (cpu() - before_cpu) * 1e6 / count as f64,
        worst,
        (written() - before_written) as f64 / (count as usize * per_entry * MESSAGE_SIZE) as f64,
        resident_mb(),
    );
}

/// Half random, half compressible, as chat is.
fn payload(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    (0..size)
        .map(|place| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if place % 2 == 0 { state as u8 } else { b'a' }
        })
        .collect()
}

/// Seconds of CPU of this process, all threads.
fn cpu() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    ticks as f64 / 100.0
}

fn written() -> u64 {
    field("/proc/self/io", "write_bytes:")
}

fn resident_mb() -> u64 {
    field("/proc/self/status", "VmRSS:") / 1024
}

fn field(path: &str, name: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
