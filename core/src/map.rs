//! The maps of the core: insertion-ordered, with a fixed hasher.
//!
//! `std`'s `HashMap` is banned here because its iteration order differs from run to run; a replay
//! from a seed must not. These maps iterate in insertion order (removal swaps the last entry into
//! the hole), which is a function of the operations alone.

use foldhash::fast::FixedState;

/// A map whose iteration order depends on the operations done to it, never on the process.
pub type Map<K, V> = indexmap::IndexMap<K, V, FixedState>;

/// A set with the same property.
pub type Set<K> = indexmap::IndexSet<K, FixedState>;
