//! What the black-box tests share (`node/` and `faults/` both name this folder as a module): a node in a process of its own, and blocking clients that speak
//! only the public protocol to it.

pub mod api;
pub mod client;
pub mod history;
pub mod http;
mod listener;
pub mod node;
pub mod ports;
pub mod socket;

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

/// How long a test waits for something that must come. A node on a loaded two-core machine is
/// slow, never silent: what has not come by then counts as lost.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Dice of a test. When the test fails, it says how to throw the same numbers again.
pub struct Dice {
    seed: u64,
    /// Tells how to throw them again.
    test: Option<&'static str>,
    rng: ChaCha8Rng,
}

impl Dice {
    /// Dice for the test with this path, seeded by `JINDOU_SEED` or the clock.
    pub fn new(test: &'static str) -> Self {
        let seed = variable("JINDOU_SEED").unwrap_or_else(clock);
        let test = Some(test);
        Self { seed, test, rng: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// Other dice each time.
    pub fn of_clock() -> Self {
        Self::seeded(clock())
    }

    /// Dice with this seed, which somebody else tells when it matters.
    pub fn seeded(seed: u64) -> Self {
        Self { seed, test: None, rng: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// What the dice were seeded with.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A number from `low` to below `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.rng.next_u64() % (high - low)
    }

    /// `size` bytes.
    pub fn bytes(&mut self, size: usize) -> Vec<u8> {
        let mut out = vec![0; size];
        self.rng.fill_bytes(&mut out);
        out
    }

    /// More dice, for a thread.
    pub fn fork(&mut self) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(self.rng.next_u64())
    }
}

fn clock() -> u64 {
    SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros() as u64 % 1_000_000_007
}

impl Drop for Dice {
    fn drop(&mut self) {
        if let Some(test) = self.test.filter(|_| std::thread::panicking()) {
            let seed = self.seed;
            let target = env!("CARGO_CRATE_NAME");
            eprintln!("replay: JINDOU_SEED={seed} cargo test --test {target} {test} -- --exact");
        }
    }
}

/// A number from the environment.
pub fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The server under test: the one that cargo built, or `JINDOU_TEST_BINARY`.
pub fn program() -> PathBuf {
    std::env::var_os("JINDOU_TEST_BINARY")
        .map_or_else(|| env!("CARGO_BIN_EXE_jindou").into(), PathBuf::from)
}

/// Held by tests that need the machine for themselves: many connections, much disk.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Asks again until `probe` gives a value, for at most [`PATIENCE`].
pub fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < end, "{what} did not happen in {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Room for `count` open files in this process, and in the nodes that it starts.
pub fn open_files(count: u64) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    if soft < count {
        setrlimit(Resource::RLIMIT_NOFILE, count, hard.max(count))
            .unwrap_or_else(|e| panic!("this test needs {count} open files (ulimit -n): {e}"));
    }
}
