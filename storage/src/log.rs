//! The log of all groups of a node: what it promises, whoever keeps it.

mod batch;
mod index;
mod lane;
mod recycler;
mod store;

use std::{fmt, ops::Range, sync::Arc};

use bytes::Bytes;

pub use self::lane::{LogLane, LogOptions};
use crate::{completion::Done, error::StorageError};

/// Called once, from the lane's thread, when a database can't be trusted any more
/// ([`StorageError::Poisoned`]). The process must stop acknowledging and end.
pub type OnFatal = Arc<dyn Fn(&StorageError) + Send + Sync>;

/// What is stored of a group, read at its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    /// The vote saved last.
    pub vote: Option<Bytes>,
    /// What [`LogStorage::save_committed`] saved last; may be older than what was handed over.
    pub committed: Option<Bytes>,
    /// The last purged index and the caller's mark of it.
    pub purged: Option<(u64, Bytes)>,
    /// The lowest index that can be read.
    pub first: Option<u64>,
    /// The highest index.
    pub last: Option<u64>,
    /// The newest entries, ascending and without holes up to `last`: as many as fit the size that
    /// was asked for, and at least one if there is any.
    pub tail: Vec<(u64, Bytes)>,
}

/// The log's queue holds as many bytes as it may. Nothing happened; the request is given back.
/// Answers that come in show that there is room again.
pub struct LogFull {
    /// As handed in.
    pub entries: Vec<(u64, Bytes)>,
    /// As handed in.
    pub done: Done,
}

impl fmt::Debug for LogFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LogFull({} entries)", self.entries.len())
    }
}

/// The Raft log and votes of all groups of a node. A node view: every shard holds a handle.
///
/// Requests of one group take effect in the order in which they were handed over, reads included;
/// between groups nothing is promised but that one fsync covers everything that waited for it.
/// No method blocks. An fsync that fails is final: that request and every one after it is answered
/// [`StorageError::Poisoned`].
pub trait LogStorage: Send + Sync {
    /// Appends entries of ascending index. `Done` means that they are fsynced.
    ///
    /// The one request that is refused when the queue is full: entries are the bulk of it. One
    /// append of any size is taken when the queue is empty.
    fn append(&self, group: u16, entries: Vec<(u64, Bytes)>, done: Done) -> Result<(), LogFull>;

    /// Saves the group's vote. `Done` means that it is fsynced.
    fn save_vote(&self, group: u16, vote: Bytes, done: Done);

    /// Removes every entry after `index`; all of them when `None`. `Done` means that this is
    /// fsynced: a removed entry does not come back.
    fn truncate_after(&self, group: u16, index: Option<u64>, done: Done);

    /// Forgets the entries up to `index`, whose effects are durable elsewhere. `mark` is what the
    /// caller wants to know of the last purged entry at the next start. Rows go when it suits.
    fn purge_to(&self, group: u16, index: u64, mark: Bytes, done: Done);

    /// Notes how far the group has committed. A hint for the next start: not fsynced by itself,
    /// but with whatever is fsynced next.
    fn save_committed(&self, group: u16, committed: Bytes);

    /// Reads entries of `range` that exist, ascending: as many as fit `size_max` bytes, and at
    /// least one if there is any. Answers [`Outcome::Entries`](crate::Outcome::Entries).
    fn read(&self, group: u16, range: Range<u64>, size_max: usize, done: Done);

    /// What is stored of a group. `tail` holds about `tail_size_max` bytes. Answers
    /// [`Outcome::Log`](crate::Outcome::Log).
    fn load(&self, group: u16, tail_size_max: usize, done: Done);

    /// Bytes that wait in the queue.
    fn queue_size(&self) -> usize;
}
