//! Twins of the lanes that keep everything in memory: for tests, and for a simulator that decides
//! itself when an fsync ends and when the power goes.

mod log;
mod state;

pub use log::MemoryLog;
pub use state::MemoryState;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A panic elsewhere can't leave these maps half changed, so its mark is ignored.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
