//! Figures of this process, from /proc, and its dice.

use std::{
    collections::hash_map::RandomState,
    fs,
    hash::{BuildHasher as _, Hasher as _},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use jindou_api::Process;

use super::health::NodeHealth;

/// Clock ticks per second of /proc (USER_HZ, fixed at 100 on Linux).
const TICKS_PER_SECOND: u64 = 100;
/// How often the data directory is counted.
const DISK_INTERVAL: Duration = Duration::from_secs(15);

/// Numbers that nobody guesses and that do not come twice: for client numbers, not for keys.
pub(super) struct Random {
    state: RandomState,
    count: u64,
}

impl Random {
    pub(super) fn new() -> Self {
        Self { state: RandomState::new(), count: 0 }
    }

    pub(super) fn next(&mut self) -> u128 {
        let mut half = || {
            self.count += 1;
            let mut hasher = self.state.build_hasher();
            hasher.write_u64(self.count);
            u128::from(hasher.finish())
        };
        half() << 64 | half()
    }
}

/// 32 bytes from the system, for what must not be guessed.
pub(super) fn seed() -> io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut seed)?;
    Ok(seed)
}

/// CPU time at the last look, for the percentage.
static LAST: Mutex<Option<(Instant, f64, f64)>> = Mutex::new(None);

/// What /varz and /metrics show. A figure that can't be read is 0.
pub(super) fn read(health: &NodeHealth) -> Process {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident_size = status_number(&status, "VmRSS:").saturating_mul(1024);
    let cpu_seconds = cpu_seconds(&fs::read_to_string("/proc/self/stat").unwrap_or_default());
    Process {
        started_ms: health.started_ms,
        resident_size,
        virtual_size: status_number(&status, "VmSize:").saturating_mul(1024),
        allocated_size: resident_size,
        cpu_seconds,
        cpu_percent: cpu_percent(cpu_seconds),
        open_fds: fs::read_dir("/proc/self/fd").map_or(0, |dir| dir.count() as u64),
        fds_max: fds_max(),
        threads: status_number(&status, "Threads:"),
        disk_size: health.disk_size.load(Ordering::Relaxed),
        webhooks: health.webhooks.read(),
        datasource_failures: health.datasource_failures.load(Ordering::Relaxed),
        io_uring: health.io_uring,
        log_dropped: crate::log::dropped(),
    }
}

/// The number behind a name of /proc/self/status.
fn status_number(status: &str, name: &str) -> u64 {
    let rest = status.lines().find_map(|line| line.strip_prefix(name));
    rest.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// User and system time of /proc/self/stat.
fn cpu_seconds(stat: &str) -> f64 {
    // The name in brackets may hold anything; fields are counted behind it.
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks.saturating_mul(1000 / TICKS_PER_SECOND)).as_secs_f64()
}

/// Counts the bytes of the data directory from time to time, on a thread of its own: a disk that
/// hangs must not hold up a shard.
pub(super) fn count_disk(path: PathBuf, health: Arc<NodeHealth>) -> io::Result<()> {
    thread::Builder::new().name("disk-size".into()).spawn(move || {
        loop {
            health.disk_size.store(disk_size(&path), Ordering::Relaxed);
            thread::sleep(DISK_INTERVAL);
        }
    })?;
    Ok(())
}

/// Bytes that the files below a directory take on disk. What goes away meanwhile counts 0.
fn disk_size(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    entries
        .flatten()
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => disk_size(&entry.path()),
            Ok(meta) => meta.blocks().saturating_mul(512),
            Err(_) => 0,
        })
        .sum()
}

fn cpu_percent(cpu_seconds: f64) -> f64 {
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    let percent = match *last {
        Some((at, _, percent)) if now.duration_since(at).as_millis() < 500 => return percent,
        Some((at, before, _)) => {
            100.0 * (cpu_seconds - before) / now.duration_since(at).as_secs_f64()
        }
        None => 0.0,
    };
    *last = Some((now, cpu_seconds, percent));
    percent
}

fn fds_max() -> u64 {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    line.and_then(|line| line.split_whitespace().nth(3)?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn figures_are_found_in_what_the_kernel_writes() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 9 0 1";
        assert!((cpu_seconds(stat) - 3.0).abs() < 1e-9);
        assert!(cpu_seconds("").abs() < 1e-9);
        let status = "Name:\tx\nVmRSS:\t    2048 kB\nThreads:\t9\n";
        assert_eq!(status_number(status, "VmRSS:"), 2048);
        assert_eq!(status_number(status, "Threads:"), 9);
        assert_eq!(status_number(status, "VmSize:"), 0);
    }

    #[test]
    fn the_size_of_a_directory_is_that_of_all_files_below() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(disk_size(dir.path()), 0);
        fs::create_dir(dir.path().join("sub")).unwrap();
        fs::write(dir.path().join("sub/file"), vec![1; 10_000]).unwrap();
        fs::File::open(dir.path().join("sub/file")).unwrap().sync_all().unwrap();
        assert!(disk_size(dir.path()) >= 10_000);
        assert_eq!(disk_size(&dir.path().join("none")), 0);
    }

    #[test]
    fn this_process_has_memory_and_threads() {
        let process = read(&NodeHealth::new(1, false, 0));
        assert!(process.resident_size > 0 && process.threads > 0 && process.open_fds > 0);
    }

    #[test]
    fn numbers_do_not_come_twice() {
        let mut random = Random::new();
        assert_ne!(random.next(), random.next());
    }
}
