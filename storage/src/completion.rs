//! How a lane answers a shard: one queue per shard, one wake-up per shard and drain.
//!
//! A request carries a [`Done`]: the shard's queue and a token that the shard chose. The lane puts
//! the answer into the queue and, when it has put in everything that one drain finished, calls
//! each shard's wake function once. The shard turns that into an eventfd write, so that the answer
//! is noticed as a completion of its own driver (design.md §3).

use std::{fmt, sync::Arc};

use bytes::Bytes;
use jindou_core::{
    id::{LogId, ShardId, SlotId},
    row::Rows,
};

use crate::{
    error::StorageError,
    log::LogState,
    state::{OpenedSlot, SnapshotReader},
};

/// Wakes a shard. Called from a lane's thread, so it must neither block nor panic.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// What a request brought.
#[derive(Debug)]
pub enum Outcome {
    /// It is done: durable for writes of the log, taken over for writes of the state.
    Done,
    /// To [`crate::LogStorage::read`]: index and bytes, ascending, without holes.
    Entries(Vec<(u64, Bytes)>),
    /// To [`crate::LogStorage::load`].
    Log(Box<LogState>),
    /// To [`crate::StateStorage::read`].
    Rows(Rows),
    /// To [`crate::StateStorage::open_slot`] and [`crate::StateStorage::install_end`].
    Slot(Box<OpenedSlot>),
    /// To [`crate::StateStorage::snapshot`].
    Snapshot(SnapshotReader),
    /// To [`SnapshotReader::next`]; `None` after the last chunk.
    Chunk(Option<Bytes>),
    /// To [`crate::StateStorage::hash`].
    Hash(u128),
    /// To [`crate::StateStorage::sync`]: see [`crate::state::OnSynced`].
    Synced(Vec<(SlotId, LogId)>),
}

/// An entry of a shard's completion queue.
#[derive(Debug)]
pub enum Completion {
    /// The answer to the request that was made with this token.
    Answer {
        /// The token of [`CompletionSender::done`].
        token: u64,
        /// What came of it.
        result: Result<Outcome, StorageError>,
    },
    /// The state lane has taken over this many bytes of the shard's
    /// [`Persist`](jindou_core::row::Persist) (`Outbox::persist_size`).
    Persisted {
        /// Bytes.
        size: usize,
    },
}

struct Shard {
    id: ShardId,
    queue: flume::Sender<Completion>,
    wake: Wake,
}

/// The lanes' end of a shard's completion queue. Unbounded: what stands in it is bounded by the
/// requests that are under way, and those are bounded by the lanes' queues.
#[derive(Clone)]
pub struct CompletionSender(Arc<Shard>);

/// Makes the completion queue of a shard. `wake` is called after every drain that answered it.
pub fn completions(shard: ShardId, wake: Wake) -> (CompletionSender, flume::Receiver<Completion>) {
    let (queue, receiver) = flume::unbounded();
    let shard = Shard { id: shard, queue, wake };
    (CompletionSender(Arc::new(shard)), receiver)
}

impl CompletionSender {
    /// Where the answer to a request goes. The token comes back in [`Completion::Answer`].
    pub fn done(&self, token: u64) -> Done {
        Done { sender: self.clone(), token }
    }

    /// The shard.
    pub fn shard(&self) -> ShardId {
        self.0.id
    }

    /// Whether both lead to the same queue.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn push(&self, completion: Completion) {
        // A shard that is gone wants no answer.
        let _ = self.0.queue.send(completion);
    }
}

impl fmt::Debug for CompletionSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CompletionSender({:?})", self.0.id)
    }
}

/// Where the answer to one request goes.
#[derive(Debug)]
pub struct Done {
    sender: CompletionSender,
    token: u64,
}

impl Done {
    /// Answers at once, with a wake-up of its own.
    pub fn answer(self, result: Result<Outcome, StorageError>) {
        let mut answers = Answers::default();
        answers.push(self, result);
        answers.publish();
    }
}

/// A shard is woken for the report of this many bytes.
const REPORT_SIZE_MIN: usize = 64 << 10;

/// The answers of one drain, for whoever implements a lane: published together, each shard woken
/// once.
#[derive(Default)]
pub struct Answers {
    touched: Vec<CompletionSender>,
}

impl Answers {
    /// Queues an answer; the shard may see it from now on.
    pub fn push(&mut self, done: Done, result: Result<Outcome, StorageError>) {
        let Done { sender, token } = done;
        sender.push(Completion::Answer { token, result });
        self.touch(sender);
    }

    /// Queues the report that rows were taken over. Only a shard that fills the lane could wait for
    /// it: others see it when they wake for something else.
    pub fn persisted(&mut self, sender: &CompletionSender, size: usize) {
        sender.push(Completion::Persisted { size });
        if size >= REPORT_SIZE_MIN {
            self.touch(sender.clone());
        }
    }

    fn touch(&mut self, sender: CompletionSender) {
        if !self.touched.iter().any(|known| known.is_same(&sender)) {
            self.touched.push(sender);
        }
    }

    /// Wakes every shard that got something.
    pub fn publish(&mut self) {
        for sender in self.touched.drain(..) {
            (sender.0.wake)();
        }
    }
}

/// Performs one request and waits for its answer: for starts and tests, never on a shard.
pub fn wait<T>(request: impl FnOnce(Done) -> T) -> Result<Outcome, StorageError> {
    let (sender, receiver) = completions(ShardId(0), Arc::new(|| {}));
    let _ = request(sender.done(0));
    drop(sender);
    match receiver.recv() {
        Ok(Completion::Answer { result, .. }) => result,
        Ok(Completion::Persisted { .. }) | Err(_) => Err(StorageError::Closed),
    }
}
