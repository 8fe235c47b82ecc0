//! Ports for nodes. Listeners of a node share their ports (SO_REUSEPORT), so two nodes that take
//! the same one would not notice: each block of ports is locked by a file, which
//! `tests/conformance/run.py` does in the same way.

use std::fs::{self, File};
use std::net::TcpListener;

use super::Dice;

/// How many ports a node takes.
const COUNT: u16 = 7;
/// First port of the first block; the last block ends below the range of outgoing connections.
const FIRST: u16 = 12_000;
const BLOCKS: u16 = 2000;

/// A block of ports, kept for as long as this value lives.
pub struct Ports {
    first: u16,
    _lock: File,
}

impl Ports {
    /// Takes a free block.
    pub fn reserve() -> Self {
        let folder = std::env::temp_dir().join("jindou-test-ports");
        fs::create_dir_all(&folder).unwrap();
        let mut dice = Dice::new("ports");
        for _ in 0..BLOCKS {
            let block = u16::try_from(dice.between(0, BLOCKS.into())).unwrap();
            let lock = File::create(folder.join(format!("{block}.lock"))).unwrap();
            let first = FIRST + 8 * block;
            let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
            if lock.try_lock().is_ok() && (first..first + COUNT).all(free) {
                return Self { first, _lock: lock };
            }
        }
        panic!("no free block of ports");
    }

    /// The address of the `place`th listener.
    pub fn address(&self, place: u16) -> String {
        assert!(place < COUNT);
        format!("127.0.0.1:{}", self.first + place)
    }
}
