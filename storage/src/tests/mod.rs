//! The contracts of [`LogStorage`](crate::LogStorage) and [`StateStorage`](crate::StateStorage):
//! one suite for the lanes and for their twins in memory. The twins are the model; every answer
//! of the lanes must be the same.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

mod log;
mod scan;
mod state;

use std::{cell::Cell, collections::BTreeMap, sync::Arc};

use jindou_core::id::ShardId;

use crate::{
    Completion, CompletionSender, Done, LogState, OnFatal, OpenedSlot, Outcome, SnapshotReader,
    StorageError, completions,
};

/// A shard, as far as a lane can see: it has requests under way and takes their answers.
struct Client {
    sender: CompletionSender,
    receiver: flume::Receiver<Completion>,
    next_token: Cell<u64>,
    under_way: Cell<usize>,
    persisted: Cell<usize>,
}

type Answers = BTreeMap<u64, Result<Outcome, StorageError>>;

impl Client {
    fn new() -> Self {
        let (sender, receiver) = completions(ShardId(0), Arc::new(|| {}));
        Self {
            sender,
            receiver,
            next_token: Cell::new(0),
            under_way: Cell::new(0),
            persisted: Cell::new(0),
        }
    }

    /// Where the answer of the next request goes.
    fn done(&self) -> Done {
        let token = self.next_token.replace(self.next_token.get() + 1);
        self.under_way.set(self.under_way.get() + 1);
        self.sender.done(token)
    }

    /// Waits for everything that is under way.
    fn settle(&self) -> Answers {
        let mut answers = Answers::new();
        while self.under_way.get() > 0 {
            match self.receiver.recv().unwrap() {
                Completion::Answer { token, result } => {
                    self.under_way.set(self.under_way.get() - 1);
                    assert!(answers.insert(token, result).is_none(), "answered twice");
                }
                Completion::Persisted { size } => self.persisted.set(self.persisted.get() + size),
            }
        }
        answers
    }

    /// Waits for everything and gives the last request's answer. All others must have succeeded.
    fn last(&self) -> Result<Outcome, StorageError> {
        let mut answers = self.settle();
        let (_, last) = answers.pop_last().unwrap();
        for (token, answer) in answers {
            assert!(answer.is_ok(), "request {token}: {answer:?}");
        }
        last
    }
}

fn no_failure() -> OnFatal {
    Arc::new(|e| panic!("{e}"))
}

fn log_state(outcome: Outcome) -> LogState {
    match outcome {
        Outcome::Log(state) => *state,
        other => panic!("{other:?}"),
    }
}

fn opened(outcome: Outcome) -> OpenedSlot {
    match outcome {
        Outcome::Slot(opened) => *opened,
        other => panic!("{other:?}"),
    }
}

fn snapshot(outcome: Outcome) -> SnapshotReader {
    match outcome {
        Outcome::Snapshot(reader) => reader,
        other => panic!("{other:?}"),
    }
}
