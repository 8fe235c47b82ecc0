//! What a node keeps on disk, and the threads that own it.
//!
//! This crate owns the data directory: the Raft log and votes of all groups ([`LogStorage`]), the
//! applied state of all slots ([`StateStorage`]), their formats (a file per keyspace in `keyspace/`)
//! and their recovery. It knows fjall, files and threads; it will never know a
//! socket, an async runtime or Raft: votes, entries and memberships are bytes here.
//!
//! ```text
//!   shard ──append, vote, truncate, purge──► log lane ───► log/    one fsync per drain, for all
//!     ▲                                         │                  groups that waited
//!     │◄──────── completion queue, one wake ────┤
//!     │                                         │
//!   shard ──persist, read, snapshot, install─► state lane ► state/ no fsync but every few seconds:
//!                                                                  the log is the truth until then
//! ```
//!
//! Requests never block and never fail at the call (but for [`LogFull`]); the answer comes as a
//! [`Completion`] through the shard's own queue:
//!
//! ```
//! use std::sync::Arc;
//! use jindou_core::id::ShardId;
//! use jindou_storage::{Completion, LogStorage, MemoryLog, completions};
//!
//! let log: Arc<dyn LogStorage> = Arc::new(MemoryLog::new());
//! let (sender, receiver) = completions(ShardId(0), Arc::new(|| { /* write to an eventfd */ }));
//! log.save_vote(7, vec![1].into(), sender.done(42));
//! assert!(matches!(receiver.try_recv(), Ok(Completion::Answer { token: 42, result: Ok(_) })));
//! ```
//!
//! What a shard asks of them:
//!
//! | of | request | answer, and when |
//! |---|---|---|
//! | log | `append`, `save_vote`, `truncate_after`, `purge_to` | `Done`, when it is fsynced |
//! | log | `save_committed` | none; durable with the next fsync |
//! | log | `read`, `load` | `Entries`, `Log`, behind the group's earlier requests |
//! | state | `persist` | `Completion::Persisted`, when it is taken over |
//! | state | `read`, `open_slot`, `hash`, `snapshot` | `Rows`, `Slot`, `Hash`, `Snapshot`, of a moment behind every earlier `persist` |
//! | state | `install_begin`, `install_chunk`, `install_end` | `Done`, `Done`, `Slot`, when the new rows are durable |
//! | state | `sync` | `Synced`, when everything before it is durable; [`OnSynced`] tells without being asked |
//!
//! Every queue is bounded in bytes. The log refuses an append when its queue is full and gives it
//! back; the state takes everything, since what was applied can't be refused, and whoever applies
//! watches what is under way. A failed write or fsync ends a lane for good: [`OnFatal`] is called,
//! and everything from then on is answered [`StorageError::Poisoned`].
//!
//! For real, [`Storage::open`] gives both handles; [`MemoryLog`] and [`MemoryState`] are their
//! twins for tests and the simulator, held to the same contract by the same tests.

mod codec;
mod completion;
pub mod dir;
mod error;
mod idle;
mod janitor;
mod journal;
mod keyspace;
pub mod log;
pub mod memory;
mod scan;
pub mod state;
mod storage;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use completion::{
    Answers, Completion, CompletionSender, Done, Outcome, Wake, completions, wait,
};
pub use error::{OpenError, StorageError};
pub use idle::OnIdle;
pub use log::{LogFull, LogLane, LogOptions, LogState, LogStorage, OnFatal};
pub use memory::{MemoryLog, MemoryState};
pub use state::{OnSynced, OpenedSlot, SnapshotReader, StateLane, StateOptions, StateStorage};
pub use storage::{Storage, StorageOptions};

/// The most that one [`Read::Messages`](jindou_core::row::Read::Messages) brings, in bytes of
/// payload (and 64 per message); the first message may be larger.
pub const MESSAGES_SIZE_MAX: usize = 16 << 20;

/// The same for all messages of one [`Read::Digests`](jindou_core::row::Read::Digests): what does
/// not fit is left out of the later digests.
pub const DIGESTS_SIZE_MAX: usize = 64 << 20;
/// The most bytes of streams in one answer: it must fit a link between nodes.
pub const STREAMS_SIZE_MAX: usize = 8 << 20;

/// The same for the notices and messages of one [`Read::Notices`](jindou_core::row::Read::Notices).
pub const NOTICES_SIZE_MAX: usize = 1 << 20;
