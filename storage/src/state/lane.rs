//! The thread that owns the state database: writes in order, without fsync, many in one batch.
//! Reads are handed to other threads with a view of what is committed at that moment, so that
//! neither waits for the other.

use std::{
    collections::BTreeMap,
    mem,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, Builder, JoinHandle, Thread},
    time::{Duration, Instant},
};

use bytes::Bytes;
use jindou_core::{
    effect::Outbox,
    id::{LogId, SlotId},
    row::{Persist, Read, Rows},
};

use super::{
    OnSynced, StateStorage, export,
    install::{InstallError, Installs},
    read::Reader,
    store::{Pending, StateStore},
};
use crate::{
    completion::{Answers, CompletionSender, Done, Outcome},
    error::{OpenError, StorageError},
    idle::OnIdle,
    log::OnFatal,
};

/// How the state database is kept. The defaults suit a node of 2 cores and 4 GiB.
#[derive(Clone, Debug)]
pub struct StateOptions {
    /// Where; made if it is missing.
    pub path: PathBuf,
    /// Where snapshots are received; made if it is missing.
    pub install_path: PathBuf,
    /// Block cache. Default 32 MiB.
    pub cache_size: u64,
    /// The size at which the memtable of messages is sealed and flushed; a quarter of it for the
    /// other keyspaces. Default 32 MiB.
    pub memtable_size_max: u64,
    /// How long what was persisted may wait for its fsync. Default 5 s.
    pub sync_interval: Duration,
    /// How many bytes may wait for their fsync. Default 16 MiB.
    pub sync_size_max: u64,
    /// When nothing was written for so long, memtables of 1 MiB and more are flushed, too. Default
    /// 10 s.
    pub rest: Duration,
    /// Called from the lane's thread when it has been idle for twice that long.
    pub on_idle: OnIdle,
}

impl StateOptions {
    /// The defaults.
    pub fn new(path: PathBuf, install_path: PathBuf) -> Self {
        Self {
            path,
            install_path,
            cache_size: 32 << 20,
            memtable_size_max: 32 << 20,
            sync_interval: Duration::from_secs(5),
            sync_size_max: 16 << 20,
            rest: Duration::from_secs(10),
            on_idle: OnIdle::default(),
        }
    }
}

/// How many bytes of rows go into one commit.
const BATCH_SIZE_MAX: u64 = 4 << 20;
/// How many reads are answered before their shards are woken.
const READ_COUNT_MAX: usize = 8;
/// How many threads read: a start opens all slots at once, and a long history must not hold up
/// the short ones.
const READER_COUNT: usize = 2;

/// How long rows may gather before they are committed, unless somebody asks: a commit for each
/// entry would cost a thread switch on the way of every message.
const GATHER_TIME: Duration = Duration::from_millis(5);
/// With so many bytes waiting they are committed at once.
const GATHER_SIZE_MAX: usize = 1 << 20;

enum Request {
    Persist { persist: Persist, size: usize, from: CompletionSender },
    Ask(Question, SlotId, Done),
    Install(Install, SlotId, Done),
    Sync(Done),
    Stop,
}

enum Question {
    Read(Read),
    Open,
    Snapshot,
    Hash,
}

enum Install {
    Begin,
    Chunk(Bytes),
    End,
}

impl Request {
    fn refuse(self, error: &StorageError) {
        match self {
            Self::Ask(Question::Read(_), _, done) => {
                done.answer(Ok(Outcome::Rows(Rows::Failed(error.to_string()))));
            }
            Self::Ask(_, _, done) | Self::Install(_, _, done) | Self::Sync(done) => {
                done.answer(Err(error.clone()));
            }
            Self::Persist { .. } | Self::Stop => {}
        }
    }
}

/// The state lane: see [`StateStorage`].
pub struct StateLane {
    queue: flume::Sender<Request>,
    queue_size: Arc<AtomicUsize>,
    hurry: Arc<AtomicBool>,
    waker: Thread,
    thread: std::sync::Mutex<Option<JoinHandle<()>>>,
}

impl StateLane {
    /// Opens the database, finishes an interrupted install and starts the threads. `on_fatal` is
    /// called once if a write fails, `on_synced` after every fsync; both from the lane's thread.
    pub fn open(
        options: &StateOptions,
        on_fatal: OnFatal,
        on_synced: OnSynced,
    ) -> Result<Self, OpenError> {
        let store = StateStore::open(options)?;
        let installs = Installs::open(&options.install_path, &store)?;
        let (queue, requests) = flume::unbounded();
        let (reads, read_requests) = flume::unbounded();
        let queue_size = Arc::new(AtomicUsize::new(0));
        let hurry = Arc::new(AtomicBool::new(false));
        let thread_error = |source| OpenError::Thread { source };
        let readers = (0..READER_COUNT).map(|_| {
            let orders = read_requests.clone();
            Builder::new().name("state-reader".into()).spawn(move || serve_reads(&orders))
        });
        let readers = readers.collect::<std::io::Result<_>>().map_err(thread_error)?;
        let lane = Lane {
            store,
            installs,
            requests,
            reads: Some(reads),
            readers,
            queue_size: queue_size.clone(),
            hurry: hurry.clone(),
            on_fatal,
            on_synced,
            sync_interval: options.sync_interval,
            sync_size_max: options.sync_size_max,
            pending: Pending::default(),
            reports: Vec::new(),
            unsynced: BTreeMap::new(),
            unsynced_size: 0,
            sync_at: None,
            failure: None,
            answers: Answers::default(),
            idle_after: 2 * options.rest,
            on_idle: options.on_idle.clone(),
            is_idle: true,
        };
        let thread = Builder::new()
            .name("state-lane".into())
            .spawn(move || lane.run())
            .map_err(thread_error)?;
        let waker = thread.thread().clone();
        let thread = std::sync::Mutex::new(Some(thread));
        Ok(Self { queue, queue_size, hurry, waker, thread })
    }

    /// Ends the thread after what was handed over so far, with a last fsync, and closes the
    /// database. Later requests are answered [`StorageError::Closed`].
    pub fn stop(&self) {
        let _ = self.queue.send(Request::Stop);
        self.hurry();
        let thread = match self.thread.lock() {
            Ok(mut thread) => thread.take(),
            Err(e) => e.into_inner().take(),
        };
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }

    fn send(&self, request: Request) {
        let rows = matches!(request, Request::Persist { .. });
        if let Err(flume::SendError(request)) = self.queue.send(request) {
            request.refuse(&StorageError::Closed);
        }
        if !rows {
            self.hurry();
        }
    }

    /// Ends the gathering of rows: somebody waits for what stands in the queue now.
    fn hurry(&self) {
        self.hurry.store(true, Ordering::Release);
        self.waker.unpark();
    }
}

impl Drop for StateLane {
    fn drop(&mut self) {
        self.stop();
    }
}

impl StateStorage for StateLane {
    fn persist(&self, persist: Persist, from: &CompletionSender) {
        let size = Outbox::persist_size(&persist);
        let before = self.queue_size.fetch_add(size, Ordering::Relaxed);
        self.send(Request::Persist { persist, size, from: from.clone() });
        if before < GATHER_SIZE_MAX && before + size >= GATHER_SIZE_MAX {
            self.hurry();
        }
    }

    fn read(&self, slot: SlotId, read: Read, done: Done) {
        self.send(Request::Ask(Question::Read(read), slot, done));
    }

    fn open_slot(&self, slot: SlotId, done: Done) {
        self.send(Request::Ask(Question::Open, slot, done));
    }

    fn snapshot(&self, slot: SlotId, done: Done) {
        self.send(Request::Ask(Question::Snapshot, slot, done));
    }

    fn install_begin(&self, slot: SlotId, done: Done) {
        self.send(Request::Install(Install::Begin, slot, done));
    }

    fn install_chunk(&self, slot: SlotId, chunk: Bytes, done: Done) {
        self.send(Request::Install(Install::Chunk(chunk), slot, done));
    }

    fn install_end(&self, slot: SlotId, done: Done) {
        self.send(Request::Install(Install::End, slot, done));
    }

    fn hash(&self, slot: SlotId, done: Done) {
        self.send(Request::Ask(Question::Hash, slot, done));
    }

    fn sync(&self, done: Done) {
        self.send(Request::Sync(done));
    }

    fn queue_size(&self) -> usize {
        self.queue_size.load(Ordering::Relaxed)
    }
}

/// The thread's side.
struct Lane {
    store: StateStore,
    installs: Installs,
    requests: flume::Receiver<Request>,
    reads: Option<flume::Sender<Order>>,
    readers: Vec<JoinHandle<()>>,
    queue_size: Arc<AtomicUsize>,
    /// Whether somebody waits for more than rows to be taken over.
    hurry: Arc<AtomicBool>,
    on_fatal: OnFatal,
    on_synced: OnSynced,
    sync_interval: Duration,
    sync_size_max: u64,
    /// Taken over and not committed yet; whom to tell when it is.
    pending: Pending,
    reports: Vec<(CompletionSender, usize)>,
    /// Committed and not fsynced yet: the positions, the bytes, and until when.
    unsynced: BTreeMap<SlotId, LogId>,
    unsynced_size: u64,
    sync_at: Option<Instant>,
    failure: Option<StorageError>,
    answers: Answers,
    idle_after: Duration,
    on_idle: OnIdle,
    /// It was told that the lane is idle.
    is_idle: bool,
}

impl Lane {
    fn run(mut self) {
        while let Some(first) = self.next() {
            if matches!(first, Some(Request::Persist { .. })) {
                self.gather();
            }
            let mut next = first;
            while let Some(request) = next {
                if matches!(request, Request::Stop) {
                    self.stop();
                    return;
                }
                self.perform(request);
                if self.pending.size() >= BATCH_SIZE_MAX {
                    break;
                }
                next = self.requests.try_recv().ok();
            }
            self.commit();
            self.sync_if_due();
            self.answers.publish();
        }
        self.stop();
    }

    /// Lets rows gather in the queue. Nobody wakes this thread meanwhile but who is in a hurry.
    fn gather(&self) {
        let until = Instant::now() + GATHER_TIME;
        while !self.hurry.swap(false, Ordering::Acquire) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            thread::park_timeout(left);
        }
    }

    /// Waits for a request, or until a sync is due (`Some(None)`). `None`: all handles are gone.
    fn next(&mut self) -> Option<Option<Request>> {
        let request = match self.sync_at {
            Some(at) => self.requests.recv_deadline(at),
            None if !self.is_idle => self.requests.recv_timeout(self.idle_after),
            None => self.requests.recv().map_err(|_| flume::RecvTimeoutError::Disconnected),
        };
        match request {
            Ok(request) => {
                self.is_idle = false;
                Some(Some(request))
            }
            Err(flume::RecvTimeoutError::Timeout) => {
                if self.sync_at.is_none() {
                    self.on_idle.call();
                    self.is_idle = true;
                }
                Some(None)
            }
            Err(flume::RecvTimeoutError::Disconnected) => None,
        }
    }

    fn perform(&mut self, request: Request) {
        if let Some(failure) = &self.failure {
            if let Request::Persist { size, .. } = &request {
                self.queue_size.fetch_sub(*size, Ordering::Relaxed);
            }
            request.refuse(failure);
            return;
        }
        match request {
            Request::Persist { persist, size, from } => {
                self.reports.push((from, size));
                if let Err(e) = self.pending.add(&persist) {
                    // A row that can't be stored was applied: a broken invariant of ours.
                    self.poison(e.to_string());
                }
            }
            Request::Ask(question, slot, done) => {
                // What was handed over before must be in the view.
                if self.pending.touches(slot) {
                    self.commit();
                }
                self.ask(question, slot, done);
            }
            Request::Install(step, slot, done) => {
                self.commit();
                self.install(step, slot, done);
            }
            Request::Sync(done) => {
                self.commit();
                match self.sync() {
                    Ok(synced) => self.answers.push(done, Ok(Outcome::Synced(synced))),
                    Err(e) => self.answers.push(done, Err(e)),
                }
            }
            Request::Stop => {}
        }
    }

    fn ask(&mut self, question: Question, slot: SlotId, done: Done) {
        if let Some(failure) = &self.failure {
            Request::Ask(question, slot, done).refuse(failure);
            return;
        }
        let view = Reader::new(self.store.snapshot(), self.store.tables().clone());
        match question {
            Question::Hash => export::hash(view, slot, done),
            Question::Snapshot => {
                let reader = export::snapshot(view, slot);
                self.answers.push(done, reader.map(Outcome::Snapshot));
            }
            Question::Read(read) => self.order(Order { view, slot, read: Some(read), done }),
            Question::Open => self.order(Order { view, slot, read: None, done }),
        }
    }

    fn order(&mut self, order: Order) {
        let rest = match &self.reads {
            Some(reads) => reads.send(order).err().map(|flume::SendError(order)| order),
            None => Some(order),
        };
        if let Some(order) = rest {
            self.answers.push(order.done, Err(StorageError::Closed));
        }
    }

    fn install(&mut self, step: Install, slot: SlotId, done: Done) {
        if let Some(failure) = &self.failure {
            self.answers.push(done, Err(failure.clone()));
            return;
        }
        let result = match step {
            Install::Begin => self.installs.begin(slot),
            Install::Chunk(chunk) => self.installs.chunk(slot, &chunk),
            Install::End => {
                self.install_end(slot, done);
                return;
            }
        };
        self.answers.push(done, result.map(|()| Outcome::Done));
    }

    fn install_end(&mut self, slot: SlotId, done: Done) {
        match self.installs.end(slot, &self.store) {
            Ok(applied) => {
                // The replacement was synced with everything before it.
                self.unsynced.remove(&slot);
                self.unsynced.extend(applied.map(|applied| (slot, applied)));
                self.sync_at = self.sync_at.or_else(|| Some(Instant::now()));
                self.ask(Question::Open, slot, done);
            }
            Err(InstallError::GivenUp(e)) => self.answers.push(done, Err(e)),
            Err(InstallError::Fatal(reason)) => {
                let failure = self.poison(reason);
                self.answers.push(done, Err(failure));
            }
        }
    }

    fn commit(&mut self) {
        let pending = mem::take(&mut self.pending);
        let reports = mem::take(&mut self.reports);
        let size: usize = reports.iter().map(|(_, size)| size).sum();
        self.queue_size.fetch_sub(size, Ordering::Relaxed);
        if pending.is_empty() || self.failure.is_some() {
            return;
        }
        self.unsynced.extend(pending.applied());
        self.unsynced_size += pending.size();
        if let Err(e) = self.store.commit(pending) {
            self.poison(e.to_string());
            return;
        }
        if self.sync_at.is_none() {
            self.sync_at = Instant::now().checked_add(self.sync_interval);
        }
        let mut by_shard: Vec<(CompletionSender, usize)> = Vec::new();
        for (from, size) in reports {
            match by_shard.iter_mut().find(|(known, _)| known.is_same(&from)) {
                Some((_, sum)) => *sum += size,
                None => by_shard.push((from, size)),
            }
        }
        for (from, size) in by_shard {
            self.answers.persisted(&from, size);
        }
    }

    fn sync_if_due(&mut self) {
        let due = self.sync_at.is_some_and(|at| at <= Instant::now());
        if self.failure.is_none() && (due || self.unsynced_size >= self.sync_size_max) {
            // An error is told to everyone who asks from now on.
            let _ = self.sync();
        }
    }

    fn sync(&mut self) -> Result<Vec<(SlotId, LogId)>, StorageError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        self.sync_at = None;
        if let Err(e) = self.store.sync() {
            return Err(self.poison(e.to_string()));
        }
        self.unsynced_size = 0;
        let synced: Vec<_> = mem::take(&mut self.unsynced).into_iter().collect();
        if !synced.is_empty() {
            (self.on_synced)(&synced);
        }
        Ok(synced)
    }

    fn poison(&mut self, reason: String) -> StorageError {
        let failure = StorageError::Poisoned { database: "state", reason: reason.into() };
        tracing::error!("{failure}");
        (self.on_fatal)(&failure);
        self.sync_at = None;
        self.failure = Some(failure.clone());
        failure
    }

    fn stop(&mut self) {
        self.commit();
        if self.failure.is_none() && !self.unsynced.is_empty() {
            let _ = self.sync();
        }
        self.answers.publish();
        self.reads = None;
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        for request in self.requests.drain() {
            request.refuse(&StorageError::Closed);
        }
    }
}

/// A question for the reading thread. Without `read`: what a slot needs at start.
struct Order {
    view: Reader,
    slot: SlotId,
    read: Option<Read>,
    done: Done,
}

fn serve_reads(orders: &flume::Receiver<Order>) {
    let mut answers = Answers::default();
    while let Ok(first) = orders.recv() {
        let rest = orders.try_iter().take(READ_COUNT_MAX);
        for order in std::iter::once(first).chain(rest) {
            let result = match &order.read {
                Some(read) => Ok(Outcome::Rows(order.view.answer(order.slot, read))),
                None => {
                    order.view.open_slot(order.slot).map(|opened| Outcome::Slot(Box::new(opened)))
                }
            };
            answers.push(order.done, result);
        }
        answers.publish();
    }
}
