//! The applied state of all slots of a node: what it promises, whoever keeps it.

pub(crate) mod chunk;
mod export;
pub(crate) mod hash;
mod install;
mod lane;
pub(crate) mod read;
mod store;

use std::{fmt, sync::Arc};

use bytes::Bytes;
use jindou_core::{
    id::{LogId, SlotId},
    row::{Persist, Read, SlotRows},
};

pub use self::lane::{StateLane, StateOptions};
use crate::completion::{CompletionSender, Done};

/// Called from the lane's thread after the state was fsynced, with the last durable applied entry
/// of every slot that moved since the last call: the log may be purged up to there.
pub type OnSynced = Arc<dyn Fn(&[(SlotId, LogId)]) + Send + Sync>;

/// A slot as it is found.
#[derive(Clone, Debug, Default)]
pub struct OpenedSlot {
    /// What the shard needs before its first step with the slot; holds the applied position.
    pub rows: SlotRows,
    /// The last Raft membership that was applied, as the caller wrote it.
    pub membership: Option<Bytes>,
}

/// A slot's rows at one moment, handed out in chunks of about 1 MiB. Holds that moment's state
/// alive until it is dropped.
pub struct SnapshotReader {
    /// The slot.
    pub slot: SlotId,
    /// The last applied entry in it.
    pub applied: Option<LogId>,
    /// The last membership in it.
    pub membership: Option<Bytes>,
    next: Box<dyn FnMut(Done) + Send>,
}

impl SnapshotReader {
    pub(crate) fn new(
        slot: SlotId,
        applied: Option<LogId>,
        membership: Option<Bytes>,
        next: Box<dyn FnMut(Done) + Send>,
    ) -> Self {
        Self { slot, applied, membership, next }
    }

    /// Asks for the next chunk. Answers [`Outcome::Chunk`](crate::Outcome::Chunk), `None` after
    /// the last one. Chunks are opaque, carry their own checksum and must be installed in order.
    pub fn next(&mut self, done: Done) {
        (self.next)(done);
    }
}

impl fmt::Debug for SnapshotReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotReader")
            .field("slot", &self.slot)
            .field("applied", &self.applied)
            .finish_non_exhaustive()
    }
}

/// The applied state of all slots of a node. A node view: every shard holds a handle.
///
/// Requests take effect in the order in which they were handed over; a read sees every
/// [`Persist`] before it. No method blocks. What was persisted is durable only after a sync (the
/// log is the truth until then); after a crash each slot is found at some applied position, at
/// least the one that was synced last, with exactly the rows that belong to it.
pub trait StateStorage: Send + Sync {
    /// Rows and applied position, together or not at all. Always taken: what was applied can't be
    /// refused. The bound is the shard's ([`Completion::Persisted`](crate::Completion::Persisted)
    /// goes to `from` with the size of what was taken over; a shard stops proposing while too much
    /// is under way) and the replay's, which looks at [`StateStorage::queue_size`].
    fn persist(&self, persist: Persist, from: &CompletionSender);

    /// A question. Answers [`Outcome::Rows`](crate::Outcome::Rows); a failure comes as
    /// [`Rows::Failed`](jindou_core::row::Rows::Failed), so that it can go to the shard as it is.
    fn read(&self, slot: SlotId, read: Read, done: Done);

    /// What a shard and its Raft group need of a slot at start. Answers
    /// [`Outcome::Slot`](crate::Outcome::Slot).
    fn open_slot(&self, slot: SlotId, done: Done);

    /// The slot as it is now. Answers [`Outcome::Snapshot`](crate::Outcome::Snapshot). What is in
    /// it is not necessarily durable here.
    fn snapshot(&self, slot: SlotId, done: Done);

    /// Begins to take over a snapshot from another node. The slot's rows stay as they are until
    /// the end; an install of the same slot that was begun before is given up.
    fn install_begin(&self, slot: SlotId, done: Done);

    /// The next chunk, in the order of the reader that made it. `Done` when it is taken over.
    fn install_chunk(&self, slot: SlotId, chunk: Bytes, done: Done);

    /// All chunks are handed over: replaces the slot's rows by them, durably. A crash leaves the
    /// old rows or the new ones. Answers [`Outcome::Slot`](crate::Outcome::Slot) with the new
    /// state; an error leaves the old.
    fn install_end(&self, slot: SlotId, done: Done);

    /// A hash over all rows of the slot and its applied position: equal on all replicas that
    /// applied the same entries. Answers [`Outcome::Hash`](crate::Outcome::Hash).
    fn hash(&self, slot: SlotId, done: Done);

    /// Fsyncs everything handed over before. Answers [`Outcome::Synced`](crate::Outcome::Synced).
    /// The storage also does this by itself every few seconds and megabytes.
    fn sync(&self, done: Done);

    /// Bytes that wait in the queue.
    fn queue_size(&self) -> usize;
}
