//! Requests to the storage lanes: a token goes with each, and finds who waits when it comes back.

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::Future,
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::channel::oneshot;
use jindou_storage::{CompletionSender, Done, LogStorage, Outcome, StateStorage, StorageError};
use openraft::{AsyncRuntime, storage::IOFlushed};

use crate::types::{GroupId, TypeConfig};

/// Every token of this crate has this bit, so that others can share the completion queue.
pub(crate) const TOKEN_BIT: u64 = 1 << 63;

enum Waiting<R: AsyncRuntime> {
    /// openraft's callback of an append. It can't leave this thread.
    Flushed(IOFlushed<TypeConfig<R>>),
    /// A task.
    Task(oneshot::Sender<Result<Outcome, StorageError>>),
    /// Nobody: only a failure is of interest, and that comes with the next append.
    Nobody,
    /// Answered.
    Gone,
}

/// Who waits, by token. Answers come nearly in the order of the requests, so a queue that is
/// eaten from the front does.
struct Table<R: AsyncRuntime> {
    first: u64,
    waiting: VecDeque<Waiting<R>>,
}

impl<R: AsyncRuntime> Table<R> {
    fn add(&mut self, waiting: Waiting<R>) -> u64 {
        let token = self.first + self.waiting.len() as u64;
        self.waiting.push_back(waiting);
        token | TOKEN_BIT
    }

    fn take(&mut self, token: u64) -> Waiting<R> {
        let place = (token & !TOKEN_BIT).wrapping_sub(self.first);
        let found = usize::try_from(place)
            .ok()
            .and_then(|place| self.waiting.get_mut(place))
            .map_or(Waiting::Gone, |waiting| std::mem::replace(waiting, Waiting::Gone));
        while let Some(Waiting::Gone) = self.waiting.front() {
            self.waiting.pop_front();
            self.first += 1;
        }
        found
    }
}

/// A shard's end of the lanes.
pub(crate) struct Lanes<R: AsyncRuntime> {
    /// This node.
    pub(crate) node: u64,
    pub(crate) log: Arc<dyn LogStorage>,
    pub(crate) state: Arc<dyn StateStorage>,
    completions: CompletionSender,
    table: RefCell<Table<R>>,
    /// Appends that found the log's queue full.
    room: RefCell<Vec<oneshot::Sender<()>>>,
}

impl<R: AsyncRuntime> Lanes<R> {
    pub(crate) fn new(
        node: u64,
        log: Arc<dyn LogStorage>,
        state: Arc<dyn StateStorage>,
        completions: CompletionSender,
    ) -> Rc<Self> {
        Rc::new(Self {
            node,
            log,
            state,
            completions,
            table: RefCell::new(Table { first: 0, waiting: VecDeque::new() }),
            room: RefCell::default(),
        })
    }

    fn add(&self, waiting: Waiting<R>) -> u64 {
        self.table.borrow_mut().add(waiting)
    }

    /// Makes a request and waits for the answer. The request is made at the call, not when the
    /// future is polled first.
    pub(crate) fn ask(&self, request: impl FnOnce(&Self, Done)) -> Answered {
        let (sender, receiver) = oneshot::channel();
        let token = self.add(Waiting::Task(sender));
        request(self, self.completions.done(token));
        Answered(receiver)
    }

    /// Makes a request whose answer nobody waits for.
    pub(crate) fn tell(&self, request: impl FnOnce(&Self, Done)) {
        let token = self.add(Waiting::Nobody);
        request(self, self.completions.done(token));
    }

    /// Appends to a group's log; `callback` fires when the entries are durable. Returns when the
    /// lane has taken the entries, which is at once unless its queue is full.
    pub(crate) async fn append(
        &self,
        group: GroupId,
        mut entries: Vec<(u64, Bytes)>,
        callback: IOFlushed<TypeConfig<R>>,
    ) {
        let token = self.add(Waiting::Flushed(callback));
        loop {
            let done = self.completions.done(token);
            match self.log.append(group.0, entries, done) {
                Ok(()) => return,
                Err(full) => entries = full.entries,
            }
            // An answer of this shard shows that there may be room; other shards' answers are
            // not seen here, hence the pause as well.
            let (sender, receiver) = oneshot::channel();
            self.room.borrow_mut().push(sender);
            R::select2(receiver, R::sleep(Duration::from_millis(1))).await;
        }
    }

    /// An answer has come.
    pub(crate) fn on_completion(&self, token: u64, result: Result<Outcome, StorageError>) {
        let waiting = self.table.borrow_mut().take(token);
        match waiting {
            Waiting::Flushed(callback) => {
                callback.io_completed(result.map(|_| ()).map_err(io::Error::other));
            }
            Waiting::Task(sender) => {
                let _ = sender.send(result);
            }
            Waiting::Nobody | Waiting::Gone => {
                if let Err(error) = result {
                    tracing::warn!(%error, "a request to the storage failed");
                }
            }
        }
        for sender in self.room.take() {
            let _ = sender.send(());
        }
    }
}

/// Ends when a lane has answered.
pub(crate) struct Answered(oneshot::Receiver<Result<Outcome, StorageError>>);

impl Future for Answered {
    type Output = Result<Outcome, StorageError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = Pin::new(&mut self.0).poll(cx);
        answer.map(|answer| answer.unwrap_or(Err(StorageError::Closed)))
    }
}

/// What an answer of the wrong kind is: a fault of ours.
pub(crate) fn unexpected(outcome: &Outcome) -> io::Error {
    io::Error::other(format!("the storage gave another answer: {outcome:?}"))
}
