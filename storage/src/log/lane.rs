//! The thread that owns the log database: everything that waits shares one commit, one fsync.

use std::{
    collections::BTreeMap,
    mem,
    ops::Range,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{Builder, JoinHandle},
    time::Duration,
};

use bytes::Bytes;

use super::{LogFull, LogState, LogStorage, OnFatal, batch::Batch, store::LogStore};
use crate::{
    completion::{Answers, Done, Outcome},
    error::{OpenError, StorageError},
    idle::OnIdle,
};

/// How the log database is kept. The defaults suit a node of 2 cores and 4 GiB.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Where; made if it is missing.
    pub path: PathBuf,
    /// Bytes of entries that may wait in the lane's queue before [`LogFull`]. Default 64 MiB.
    pub queue_size_max: usize,
    /// The size of a generation of the log, after which the next keyspace is begun. Default
    /// 16 MiB.
    pub generation_size_max: u64,
    /// How many bytes of entries may be in memory before old generations are flushed. Default
    /// 96 MiB, reached only while purging lags that far behind; a restart replays as much.
    pub memory_size_max: u64,
    /// Block cache. The log is read from memory or not at all. Default 4 MiB.
    pub cache_size: u64,
    /// When nothing was asked for so long, what is in memory is flushed. Default 10 s.
    pub rest: Duration,
    /// Called from the lane's thread when it has been idle for that long after that.
    pub on_idle: OnIdle,
}

impl LogOptions {
    /// The defaults.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            queue_size_max: 64 << 20,
            generation_size_max: 16 << 20,
            memory_size_max: 96 << 20,
            cache_size: 4 << 20,
            rest: Duration::from_secs(10),
            on_idle: OnIdle::default(),
        }
    }
}

/// How many bytes of entries go into one commit: bounds what an fsync has to write.
const BATCH_SIZE_MAX: usize = 4 << 20;

enum Request {
    Append { group: u16, entries: Vec<(u64, Bytes)>, size: usize, done: Done },
    Vote { group: u16, vote: Bytes, done: Done },
    Truncate { group: u16, index: Option<u64>, done: Done },
    Purge { group: u16, index: u64, mark: Bytes, done: Done },
    Read { group: u16, range: Range<u64>, size_max: usize, done: Done },
    Load { group: u16, tail_size_max: usize, done: Done },
    Stop,
}

#[derive(Default)]
struct Shared {
    queue_size: AtomicUsize,
    /// Committed positions that no commit has taken along yet. The lock is held for a swap only.
    committed: Mutex<BTreeMap<u16, Bytes>>,
}

/// The log lane: see [`LogStorage`].
pub struct LogLane {
    queue: flume::Sender<Request>,
    queue_size_max: usize,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl LogLane {
    /// Opens the database and starts the thread. `on_fatal` is called once, from that thread, if
    /// a commit fails.
    pub fn open(options: &LogOptions, on_fatal: OnFatal) -> Result<Self, OpenError> {
        let store = LogStore::open(options)?;
        let (queue, requests) = flume::unbounded();
        let shared = Arc::new(Shared::default());
        let lane = Lane {
            store,
            requests,
            shared: shared.clone(),
            on_fatal,
            waiting: None,
            failure: None,
            stopped: false,
            answers: Answers::default(),
            rest: options.rest,
            on_idle: options.on_idle.clone(),
            is_idle: true,
        };
        let thread = Builder::new()
            .name("log-lane".into())
            .spawn(move || lane.run())
            .map_err(|source| OpenError::Thread { source })?;
        Ok(Self {
            queue,
            queue_size_max: options.queue_size_max,
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Ends the thread after what was handed over so far, and closes the database. Later requests
    /// are answered [`StorageError::Closed`].
    pub fn stop(&self) {
        let _ = self.queue.send(Request::Stop);
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }

    fn send(&self, request: Request) {
        if let Err(flume::SendError(request)) = self.queue.send(request) {
            request.refuse();
        }
    }
}

impl LogStorage for LogLane {
    fn append(&self, group: u16, entries: Vec<(u64, Bytes)>, done: Done) -> Result<(), LogFull> {
        let size = size_of(&entries);
        let before = self.shared.queue_size.fetch_add(size, Ordering::Relaxed);
        if before > 0 && before.saturating_add(size) > self.queue_size_max {
            self.shared.queue_size.fetch_sub(size, Ordering::Relaxed);
            return Err(LogFull { entries, done });
        }
        self.send(Request::Append { group, entries, size, done });
        Ok(())
    }

    fn save_vote(&self, group: u16, vote: Bytes, done: Done) {
        self.send(Request::Vote { group, vote, done });
    }

    fn truncate_after(&self, group: u16, index: Option<u64>, done: Done) {
        self.send(Request::Truncate { group, index, done });
    }

    fn purge_to(&self, group: u16, index: u64, mark: Bytes, done: Done) {
        self.send(Request::Purge { group, index, mark, done });
    }

    fn save_committed(&self, group: u16, committed: Bytes) {
        let mut hints = lock(&self.shared.committed);
        hints.insert(group, committed);
    }

    fn read(&self, group: u16, range: Range<u64>, size_max: usize, done: Done) {
        self.send(Request::Read { group, range, size_max, done });
    }

    fn load(&self, group: u16, tail_size_max: usize, done: Done) {
        self.send(Request::Load { group, tail_size_max, done });
    }

    fn queue_size(&self) -> usize {
        self.shared.queue_size.load(Ordering::Relaxed)
    }
}

impl Drop for LogLane {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Request {
    fn refuse(self) {
        if let Some(done) = self.into_done() {
            done.answer(Err(StorageError::Closed));
        }
    }

    fn into_done(self) -> Option<Done> {
        match self {
            Self::Append { done, .. }
            | Self::Vote { done, .. }
            | Self::Truncate { done, .. }
            | Self::Purge { done, .. }
            | Self::Read { done, .. }
            | Self::Load { done, .. } => Some(done),
            Self::Stop => None,
        }
    }
}

/// The thread's side.
struct Lane {
    store: LogStore,
    requests: flume::Receiver<Request>,
    shared: Arc<Shared>,
    on_fatal: OnFatal,
    /// A request that has to wait for the commit of those before it.
    waiting: Option<Request>,
    failure: Option<StorageError>,
    stopped: bool,
    answers: Answers,
    rest: Duration,
    on_idle: OnIdle,
    /// It was told that the lane is idle.
    is_idle: bool,
}

impl Lane {
    fn run(mut self) {
        while let Some(first) = self.next() {
            if self.failure.is_some() {
                self.fail(first);
            } else {
                self.drain(first);
            }
            self.answers.publish();
        }
        self.close();
    }

    /// The next request, waiting for it; `None` when there will be none.
    fn next(&mut self) -> Option<Request> {
        if self.stopped {
            return None;
        }
        if let Some(request) = self.waiting.take() {
            return Some(request);
        }
        while self.failure.is_none() && (!self.is_idle || self.store.is_restless()) {
            match self.requests.recv_timeout(self.rest) {
                Err(flume::RecvTimeoutError::Timeout) if self.store.is_restless() => {
                    self.release_memory();
                }
                Err(flume::RecvTimeoutError::Timeout) => {
                    self.on_idle.call();
                    self.is_idle = true;
                }
                Err(flume::RecvTimeoutError::Disconnected) => return None,
                Ok(request) => {
                    self.is_idle = false;
                    return Some(request);
                }
            }
        }
        let request = self.requests.recv().ok();
        self.is_idle = false;
        request
    }

    fn release_memory(&mut self) {
        match self.store.rest() {
            Ok(batch) => self.commit(batch, 0, Vec::new()),
            Err(e) => self.poison(&e, Vec::new()),
        }
    }

    /// Takes everything that waits, commits it at once and answers it all.
    fn drain(&mut self, first: Request) {
        let mut done = Vec::new();
        let mut size = 0;
        let mut batch = match self.store.batch() {
            Ok(batch) => batch,
            Err(e) => {
                self.poison(&e, done);
                self.fail(first);
                return;
            }
        };
        let mut next = Some(first);
        while let Some(request) = next {
            if !batch.admits(&request.touches()) {
                // It must see, or must not mix with, what is not committed yet.
                self.waiting = Some(request);
                break;
            }
            size += self.perform(request, &mut batch, &mut done);
            if size >= BATCH_SIZE_MAX || self.stopped {
                break;
            }
            next = self.requests.try_recv().ok();
        }
        if !done.is_empty() || !batch.is_empty() {
            self.commit(batch, size, done);
        }
    }

    /// Adds a write to the batch, or answers a read. Gives the size of the request's entries.
    fn perform(&mut self, request: Request, batch: &mut Batch, done: &mut Vec<Done>) -> usize {
        let mut size = 0;
        match request {
            Request::Stop => self.stopped = true,
            Request::Append { group, entries, size: bytes, done: to } => {
                size = bytes;
                for (index, entry) in entries {
                    batch.append(group, index, &entry);
                }
                done.push(to);
            }
            Request::Vote { group, vote, done: to } => {
                batch.vote(group, &vote);
                done.push(to);
            }
            Request::Truncate { group, index, done: to } => {
                self.store.truncate(group, index, batch);
                done.push(to);
            }
            Request::Purge { group, index, mark, done: to } => {
                self.store.purge(group, index, &mark, batch);
                done.push(to);
            }
            Request::Read { group, range, size_max, done: to } => {
                let entries = self.store.read(group, &range, size_max);
                self.answers.push(to, entries.map(Outcome::Entries));
            }
            Request::Load { group, tail_size_max, done: to } => {
                let state = self.load(group, tail_size_max);
                self.answers.push(to, state.map(|state| Outcome::Log(Box::new(state))));
            }
        }
        size
    }

    fn load(&self, group: u16, tail_size_max: usize) -> Result<LogState, StorageError> {
        let mut state = self.store.load(group, tail_size_max)?;
        if let Some(committed) = lock(&self.shared.committed).get(&group) {
            state.committed = Some(committed.clone());
        }
        Ok(state)
    }

    fn commit(&mut self, mut batch: Batch, size: usize, done: Vec<Done>) {
        for (group, committed) in mem::take(&mut *lock(&self.shared.committed)) {
            batch.committed(group, &committed);
        }
        let result = self.store.commit(batch);
        // Before the answers, so that they show that there is room.
        self.shared.queue_size.fetch_sub(size, Ordering::Relaxed);
        match result {
            Ok(()) => {
                for done in done {
                    self.answers.push(done, Ok(Outcome::Done));
                }
            }
            Err(e) => self.poison(&e, done),
        }
    }

    fn poison(&mut self, e: &fjall::Error, done: Vec<Done>) {
        let failure = StorageError::Poisoned { database: "log", reason: e.to_string().into() };
        tracing::error!("{failure}");
        // First the process learns that it must stop, then anyone that something failed.
        (self.on_fatal)(&failure);
        for done in done {
            self.answers.push(done, Err(failure.clone()));
        }
        self.failure = Some(failure);
    }

    fn fail(&mut self, request: Request) {
        if let Request::Append { size, .. } = &request {
            self.shared.queue_size.fetch_sub(*size, Ordering::Relaxed);
        }
        if matches!(request, Request::Stop) {
            self.stopped = true;
        }
        if let (Some(failure), Some(done)) = (self.failure.clone(), request.into_done()) {
            self.answers.push(done, Err(failure));
        }
    }

    fn close(&mut self) {
        if self.failure.is_none() {
            match self.store.batch() {
                Ok(batch) => self.commit(batch, 0, Vec::new()),
                Err(e) => self.poison(&e, Vec::new()),
            }
        }
        for request in self.requests.drain() {
            request.refuse();
        }
    }
}

/// What a request has to do with the uncommitted rest of a batch.
pub(super) enum Touch {
    /// Only adds; any order within a batch is the same.
    Nothing,
    /// Adds entries of a group: not in one batch with a truncation of the group.
    Append(u16),
    /// Removes or reads entries of a group: what was appended must be committed first.
    Look(u16),
}

impl Request {
    fn touches(&self) -> Touch {
        match self {
            Self::Append { group, .. } => Touch::Append(*group),
            Self::Vote { .. } | Self::Purge { .. } | Self::Stop => Touch::Nothing,
            Self::Truncate { group, .. } | Self::Read { group, .. } | Self::Load { group, .. } => {
                Touch::Look(*group)
            }
        }
    }
}

/// What entries count for in the queue.
fn size_of(entries: &[(u64, Bytes)]) -> usize {
    entries.iter().fold(0usize, |size, (_, entry)| size.saturating_add(entry.len() + 64))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
