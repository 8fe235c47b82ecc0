//! What a proposal costs: 64 groups of one replica over the real lanes, fsync before every
//! confirmation, a shard that only counts.
//!
//! ```text
//! cargo run --release -p jindou-cluster --example propose -- [seconds] [memory] [dir] [64x16 ...]
//! ```
//!
//! A closed loop: a number of entries is in flight, spread over the groups; each committed one is
//! followed by the next of its group. Latency is from the proposal to `Event::Committed`. The lanes
//! wake the shard through an eventfd, as a node's do. With `memory` they are the memory twins:
//! what remains is openraft and ours.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    clippy::cast_possible_truncation,
    reason = "a measurement, not a server"
)]

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    fs::File,
    io::Write,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::PathBuf,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::channel::mpsc;
use hdrhistogram::Histogram;
use jindou_cluster::{
    AsyncRuntime, CLUSTER_SLOT, Groups, NoPeers, Node, Options, Router, Runtime, Setup,
};
use jindou_core::{
    effect::{Committed, Event},
    id::{NodeId, ShardId, SlotId},
    row::{Persist, Row},
};
use jindou_storage::{
    Completion, LogStorage, MemoryLog, MemoryState, StateStorage, Storage, StorageOptions,
    completions,
};

const SLOT_COUNT: u16 = 64;
const MESSAGE_SIZE: usize = 200;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let seconds = args.iter().find_map(|arg| arg.parse().ok()).unwrap_or(5);
    let in_memory = args.iter().any(|arg| arg == "memory");
    let dir =
        args.iter().find(|arg| arg.contains('/')).map_or_else(std::env::temp_dir, PathBuf::from);
    println!(
        "{:>8} {:>8} | {:>9} {:>10} | {:>7} {:>7} {:>8} {:>8} | {:>8} {:>8} {:>8}",
        "entries",
        "msg/ent",
        "ent/s",
        "msg/s",
        "p50 ms",
        "p99",
        "p99.9",
        "max",
        "µs/ent",
        "shard",
        "µs/msg"
    );
    for (in_flight, per_entry) in cases(&args) {
        let path = dir.join(format!("propose-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        let storage = (!in_memory).then(|| open(path.join("data")));
        let lanes: Lanes = match &storage {
            Some(storage) => (storage.log(), storage.state()),
            None => (Arc::new(MemoryLog::new()), Arc::new(MemoryState::new())),
        };
        let run = move || {
            let seconds = Duration::from_secs(seconds);
            Runtime::new(1).block_on(Bench::run(lanes, in_flight, per_entry, seconds));
        };
        std::thread::spawn(run).join().unwrap();
        if let Some(storage) = storage {
            storage.close();
            drop(storage);
            let start = Instant::now();
            let storage = open(path.join("data"));
            let lanes = (storage.log(), storage.state());
            print!(
                "{:>20} a restart: {:.0} ms for the storage",
                "",
                start.elapsed().as_secs_f64() * 1e3
            );
            let run = move || Runtime::new(1).block_on(Bench::run(lanes, 0, 0, Duration::ZERO));
            std::thread::spawn(run).join().unwrap();
            storage.close();
        }
        let _ = std::fs::remove_dir_all(&path);
    }
}

type Lanes = (Arc<dyn LogStorage>, Arc<dyn StateStorage>);

fn open(path: PathBuf) -> Storage {
    Storage::open(&StorageOptions {
        path,
        node: NodeId(1),
        slot_count: SLOT_COUNT,
        state_cache_size: 32 << 20,
        state_sync_interval: Duration::from_secs(5),
        on_fatal: Arc::new(|error| panic!("{error}")),
        on_idle: jindou_storage::OnIdle::default(),
        on_synced: Arc::new(|_| {}),
    })
    .unwrap()
}

/// What the process holds in memory, in MB.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: f64 = status.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096.0 / 1e6
}

/// Entries in flight and messages per entry: as asked for (`64x16`), or a ladder.
fn cases(args: &[String]) -> Vec<(usize, usize)> {
    let asked: Vec<_> = args
        .iter()
        .filter_map(|arg| arg.split_once('x'))
        .filter_map(|(entries, messages)| Some((entries.parse().ok()?, messages.parse().ok()?)))
        .collect();
    if asked.is_empty() { vec![(1, 1), (1, 16), (4, 16), (64, 16), (1024, 16)] } else { asked }
}

struct Bench {
    groups: Groups<Runtime, NoPeers>,
    entry: Bytes,
    next: Cell<u64>,
    started: RefCell<BTreeMap<SlotId, VecDeque<Instant>>>,
    latency: RefCell<Histogram<u64>>,
    /// When measuring begins and when it ends. Looked at by whatever commits: while the memory
    /// twin keeps the run queue full, no timer fires.
    from: Cell<Instant>,
    to: Cell<Instant>,
    before: Cell<Option<Used>>,
    after: Cell<Option<Used>>,
}

#[derive(Clone, Copy)]
struct Used {
    at: Instant,
    process: f64,
    shard: f64,
}

impl Used {
    fn now() -> Self {
        Self {
            at: Instant::now(),
            process: cpu(libc::CLOCK_PROCESS_CPUTIME_ID),
            shard: cpu(libc::CLOCK_THREAD_CPUTIME_ID),
        }
    }
}

impl Bench {
    async fn run(lanes: Lanes, in_flight: usize, per_entry: usize, length: Duration) {
        let (log, state) = lanes;
        let (wake, woken) = eventfd();
        let (sender, receiver) = completions(ShardId(0), wake);
        let (inbox, mut events) = mpsc::unbounded::<Event>();
        let groups = Groups::new(Setup {
            node: NodeId(1),
            log,
            state: state.clone(),
            completions: sender.clone(),
            sink: Rc::new(move |event| drop(inbox.unbounded_send(event))),
            transport: NoPeers,
            router: Router::new(NodeId(1), 1, SLOT_COUNT),
            options: Options::default(),
        })
        .unwrap();
        let pumped = groups.clone();
        let pump = async move {
            let woken = woken;
            loop {
                woken.readable(false).await.unwrap();
                drain(&woken);
                while let Ok(completion) = receiver.try_recv() {
                    if let Completion::Answer { token, result } = completion {
                        pumped.on_completion(token, result);
                    }
                }
            }
        };
        drop(Runtime::spawn(pump));
        let bench = Rc::new(Self {
            groups: groups.clone(),
            entry: vec![7; per_entry * MESSAGE_SIZE].into(),
            next: Cell::new(0),
            started: RefCell::default(),
            latency: RefCell::new(Histogram::new(3).unwrap()),
            from: Cell::new(Instant::now()),
            to: Cell::new(Instant::now()),
            before: Cell::new(None),
            after: Cell::new(None),
        });
        let leading = Rc::new(Cell::new(0usize));
        let (shard, led) = (bench.clone(), leading.clone());
        drop(Runtime::spawn(async move {
            use futures::StreamExt;
            while let Some(event) = events.next().await {
                match event {
                    Event::Committed { slot, log_id, body } => {
                        let rows = match body {
                            Committed::Membership(bytes) => vec![Row::Membership(bytes)],
                            Committed::Blank => Vec::new(),
                            Committed::Entry(_) => {
                                shard.committed(slot);
                                Vec::new()
                            }
                        };
                        state.persist(Persist { slot, applied: log_id, rows }, &sender);
                        shard.groups.applied(slot, log_id);
                    }
                    Event::Leading { leading: true, .. } => led.set(led.get() + 1),
                    Event::ProposeFailed { .. } => panic!("a proposal failed"),
                    _ => {}
                }
            }
        }));
        let slots: Vec<_> = (0..SLOT_COUNT).map(SlotId).chain([CLUSTER_SLOT]).collect();
        let before = resident();
        let start = Instant::now();
        groups.open(&slots).await.unwrap();
        let members = BTreeMap::from([(NodeId(1), Node::default())]);
        groups.bootstrap(&members).await.unwrap();
        while leading.get() < slots.len() {
            Runtime::sleep(Duration::from_millis(1)).await;
        }
        let opening = start.elapsed();
        let size = resident() - before;
        let idle = cpu(libc::CLOCK_PROCESS_CPUTIME_ID);
        Runtime::sleep(Duration::from_millis(500)).await;
        let idle = cpu(libc::CLOCK_PROCESS_CPUTIME_ID) - idle;
        if in_flight == 0 {
            println!(", {:.0} ms until 65 groups lead", opening.as_secs_f64() * 1e3);
            groups.shutdown().await;
            return;
        }
        let from = Instant::now() + Duration::from_millis(500);
        bench.from.set(from);
        bench.to.set(from + length);
        for n in 0..in_flight {
            bench.propose(SlotId(n as u16 % SLOT_COUNT));
        }
        let in_flight_now = || bench.started.borrow().values().map(VecDeque::len).sum::<usize>();
        while bench.after.get().is_none() || in_flight_now() > 0 {
            Runtime::sleep(Duration::from_millis(10)).await;
        }
        let (before, after) = (bench.before.get().unwrap(), bench.after.get().unwrap());
        let length = (after.at - before.at).as_secs_f64();
        let process = after.process - before.process;
        let shard = after.shard - before.shard;
        groups.shutdown().await;
        let latency = bench.latency.borrow();
        let (count, ms) = (latency.len() as f64, |q| latency.value_at_quantile(q) as f64 / 1e6);
        println!(
            "{:>8} {:>8} | {:>9.0} {:>10.0} | {:>7.3} {:>7.3} {:>8.3} {:>8.3} | {:>8.2} {:>8.2} \
             {:>8.3}   65 groups led after {:.0} ms, took {:.1} MB, idle {:.2} % of a core",
            in_flight,
            per_entry,
            count / length,
            count * per_entry as f64 / length,
            ms(0.5),
            ms(0.99),
            ms(0.999),
            latency.max() as f64 / 1e6,
            process * 1e6 / count,
            shard * 1e6 / count,
            process * 1e6 / count / per_entry as f64,
            opening.as_secs_f64() * 1e3,
            size,
            idle * 200.0,
        );
    }

    fn propose(&self, slot: SlotId) {
        let proposal = self.next.replace(self.next.get() + 1);
        let mut started = self.started.borrow_mut();
        started.entry(slot).or_default().push_back(Instant::now());
        self.groups.propose(slot, proposal, self.entry.clone());
    }

    fn committed(&self, slot: SlotId) {
        let start = self.started.borrow_mut().get_mut(&slot).and_then(VecDeque::pop_front).unwrap();
        let now = Instant::now();
        if self.before.get().is_none() && now >= self.from.get() {
            self.before.set(Some(Used::now()));
        }
        if now >= self.to.get() {
            if self.after.get().is_none() {
                self.after.set(Some(Used::now()));
            }
            return;
        }
        if now >= self.from.get() {
            let nanos = (now - start).as_nanos() as u64;
            self.latency.borrow_mut().record(nanos).unwrap();
        }
        self.propose(slot);
    }
}

/// Seconds of CPU.
#[expect(unsafe_code, reason = "clock_gettime")]
fn cpu(clock: libc::clockid_t) -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for the call.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// The lanes' way to wake the shard, and the shard's end of it.
#[expect(unsafe_code, reason = "eventfd")]
fn eventfd() -> (jindou_storage::Wake, monoio::net::TcpStream) {
    // SAFETY: a plain system call; the descriptor is checked and owned from here on.
    let fd = unsafe {
        let fd = libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC);
        assert!(fd >= 0);
        OwnedFd::from_raw_fd(fd)
    };
    let writer = File::from(fd.try_clone().unwrap());
    let wake = Arc::new(move || {
        let _ = (&writer).write(&1u64.to_ne_bytes());
    });
    // monoio can wait for any descriptor that claims to be a socket.
    let stream = std::net::TcpStream::from(fd);
    (wake, monoio::net::TcpStream::from_std(stream).unwrap())
}

#[expect(unsafe_code, reason = "reading the eventfd")]
fn drain(fd: &monoio::net::TcpStream) {
    let mut count = [0u8; 8];
    // SAFETY: the buffer is valid for its length.
    unsafe { libc::read(fd.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
}
