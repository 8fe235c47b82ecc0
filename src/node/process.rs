//! Figures of this process, from /proc, and its dice.

use std::{
    collections::hash_map::RandomState,
    fs,
    hash::{BuildHasher as _, Hasher as _},
    sync::{Mutex, PoisonError},
    time::Instant,
};

use jindou_api::Process;

use super::health::NodeHealth;

/// Clock ticks per second of /proc (USER_HZ, fixed at 100 on Linux).
const TICKS_PER_SECOND: f64 = 100.0;
const PAGE_SIZE: u64 = 4096;

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
pub(super) fn seed() -> std::io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    std::io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut seed)?;
    Ok(seed)
}

/// CPU time at the last look, for the percentage.
static LAST: Mutex<Option<(Instant, f64, f64)>> = Mutex::new(None);

/// What /varz and /metrics show. A figure that can't be read is 0.
pub(super) fn read(health: &NodeHealth) -> Process {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name in brackets may hold anything; fields are counted behind it.
    let fields: Vec<&str> =
        stat.rsplit_once(')').map_or_else(Vec::new, |(_, rest)| rest.split_whitespace().collect());
    let number = |place: usize| fields.get(place).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    let ticks = u32::try_from(number(11) + number(12)).map_or(0.0, f64::from);
    let cpu_seconds = ticks / TICKS_PER_SECOND;
    let resident_size = number(21) * PAGE_SIZE;
    Process {
        started_ms: health.started_ms,
        resident_size,
        virtual_size: number(20),
        allocated_size: resident_size,
        cpu_seconds,
        cpu_percent: cpu_percent(cpu_seconds),
        open_fds: fs::read_dir("/proc/self/fd").map_or(0, |dir| dir.count() as u64),
        fds_max: fds_max(),
        threads: number(17),
        io_uring: health.io_uring,
        ..Process::default()
    }
}

fn cpu_percent(cpu_seconds: f64) -> f64 {
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    let percent = match *last {
        Some((at, before, percent)) if now.duration_since(at).as_millis() < 500 => {
            let _ = before;
            return percent;
        }
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
    use super::*;

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
