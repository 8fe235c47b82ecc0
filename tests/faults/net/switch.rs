//! The wire between namespaces: it takes packets from each tunnel and puts them into another, or
//! late, or not at all. In this process, so that any kernel with tunnels can lose packets one way
//! only, delay them and forget some; netem and packet filters are often missing.

use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

/// A host: the last part of its address.
pub type Host = u8;

/// What happens to packets of one direction between two hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wire {
    /// None arrives.
    pub cut: bool,
    /// Each arrives so late.
    pub delay: Duration,
    /// And up to so much later; packets stay in order.
    pub jitter: Duration,
    /// So many of a thousand are lost.
    pub loss: u32,
}

/// Packets on their way for longer than no time, by when they arrive.
#[derive(Default)]
struct Late {
    heap: BinaryHeap<Packet>,
    /// When the last of each direction arrives: none overtakes it.
    last: HashMap<(Host, Host), Instant>,
    count: u64,
}

struct Packet {
    due: Instant,
    /// Packets of one moment keep their order.
    place: u64,
    to: Host,
    bytes: Vec<u8>,
}

impl Ord for Packet {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.due, other.place).cmp(&(self.due, self.place))
    }
}

impl PartialOrd for Packet {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Packet {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place
    }
}

impl Eq for Packet {}

struct Shared {
    wires: RwLock<HashMap<(Host, Host), Wire>>,
    tunnels: RwLock<BTreeMap<Host, Arc<File>>>,
    late: Mutex<Late>,
    queued: Condvar,
    stop: AtomicBool,
}

/// The wire. Dropping it ends its threads.
pub struct Switch {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Switch {
    pub fn new() -> Self {
        let shared = Arc::new(Shared {
            wires: RwLock::default(),
            tunnels: RwLock::default(),
            late: Mutex::default(),
            queued: Condvar::new(),
            stop: AtomicBool::new(false),
        });
        let of_late = Arc::clone(&shared);
        let late = thread::spawn(move || of_late.deliver_late());
        Self { shared, threads: Mutex::new(vec![late]) }
    }

    /// Connects a host.
    pub fn plug(&self, host: Host, tunnel: File) {
        let tunnel = Arc::new(tunnel);
        self.shared.tunnels.write().unwrap().insert(host, Arc::clone(&tunnel));
        let shared = Arc::clone(&self.shared);
        let thread = thread::spawn(move || shared.carry(host, &tunnel));
        self.threads.lock().unwrap().push(thread);
    }

    /// Changes one direction.
    pub fn set(&self, from: Host, to: Host, wire: Wire) {
        self.shared.wires.write().unwrap().insert((from, to), wire);
    }

    /// Everything arrives at once again.
    pub fn heal(&self) {
        self.shared.wires.write().unwrap().clear();
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.queued.notify_all();
        for thread in self.threads.get_mut().unwrap().drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Takes what `from` sends, until the switch is dropped.
    fn carry(&self, from: Host, mut tunnel: &File) {
        let mut dice = ChaCha8Rng::seed_from_u64(from.into());
        let mut packet = vec![0; 65_536];
        while !self.stopping() {
            let mut wait = [PollFd::new(tunnel.as_fd(), PollFlags::POLLIN)];
            match poll(&mut wait, PollTimeout::from(200_u8)) {
                Ok(0) | Err(_) => continue,
                Ok(_) => {}
            }
            let Ok(size) = tunnel.read(&mut packet) else {
                return;
            };
            // IPv4 only: the last byte of the destination names the host.
            if size < 20 || packet[0] >> 4 != 4 {
                continue;
            }
            let to = packet[19];
            let wire = self.wires.read().unwrap().get(&(from, to)).copied().unwrap_or_default();
            if wire.cut || dice.next_u32() % 1000 < wire.loss {
                continue;
            }
            self.send(from, to, wire, &packet[..size], &mut dice);
        }
    }

    fn send(&self, from: Host, to: Host, wire: Wire, packet: &[u8], dice: &mut ChaCha8Rng) {
        let jitter = u64::try_from(wire.jitter.as_micros()).unwrap();
        let jitter = Duration::from_micros(dice.next_u64() % (jitter + 1));
        let now = Instant::now();
        let mut late = self.late.lock().unwrap();
        let before = late.last.get(&(from, to)).copied();
        let due = (now + wire.delay + jitter).max(before.unwrap_or(now));
        if due <= now {
            late.last.remove(&(from, to));
            drop(late);
            self.put(to, packet);
            return;
        }
        late.last.insert((from, to), due);
        late.count += 1;
        let place = late.count;
        late.heap.push(Packet { due, place, to, bytes: packet.to_vec() });
        self.queued.notify_one();
    }

    fn put(&self, to: Host, packet: &[u8]) {
        let tunnel = self.tunnels.read().unwrap().get(&to).cloned();
        if let Some(tunnel) = tunnel {
            // A host that cannot take it loses it, as on any wire.
            let _ = (&*tunnel).write(packet);
        }
    }

    fn deliver_late(&self) {
        let mut late = self.late.lock().unwrap();
        while !self.stopping() {
            let now = Instant::now();
            let wait = match late.heap.peek() {
                None => Duration::from_millis(200),
                Some(first) => first.due.saturating_duration_since(now),
            };
            if wait.is_zero() {
                let packet = late.heap.pop().unwrap();
                drop(late);
                self.put(packet.to, &packet.bytes);
                late = self.late.lock().unwrap();
            } else {
                late = self.queued.wait_timeout(late, wait).unwrap().0;
            }
        }
    }
}
