//! Clients of a cluster, and what they did and saw: writers that send on a schedule and again what
//! was not acknowledged, readers that listen and catch up, a back end that reads, changes members
//! and asks who is online. All of them go to the next node when one fails them.

mod back_end;
mod plan;
mod reader;
mod writer;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use crate::cluster::{Door, Doors};
use crate::support::Dice;
use crate::support::api::{Api, Stored};
use crate::support::client::{Channel, Client, Login, PERSON, Received, Transport};
use crate::support::history::{Fault, History, Kind, Outcome, Push, Silence, Spread};

use back_end::{BackEnd, Work};
pub use plan::{Plan, Size};
use reader::Reader;
use writer::Writer;

/// A connection that said nothing for so long, though it was pinged, is given up.
const DEAD: Duration = Duration::from_secs(3);
/// How often a client pings.
const PING: Duration = Duration::from_secs(1);
/// When a request without an answer is given up: past the time in which every answer is due.
const GIVE_UP: Duration = Duration::from_secs(8);
/// A cluster that grants no session for so long is lost.
const LOST: Duration = Duration::from_secs(60);
/// Before something that failed is tried again.
const AGAIN: Duration = Duration::from_millis(100);

/// What the clients are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Everybody works.
    Running,
    /// Nothing new is sent; what was sent is sent again until it is acknowledged.
    Draining,
    /// Readers listen, nothing else goes on.
    Settling,
    Over,
}

/// The clients, and their history.
pub struct World {
    plan: Plan,
    doors: Doors,
    start: Instant,
    phase: AtomicU8,
    connections: AtomicU64,
    history: Mutex<History>,
    /// Last seq pushed to a user in a channel.
    pushed: Mutex<HashMap<(String, String), u32>>,
}

impl World {
    /// Makes the channels, in a cluster that serves.
    pub fn new(doors: Doors, plan: Plan) -> Arc<Self> {
        let world = Arc::new(Self {
            plan,
            doors,
            start: Instant::now(),
            phase: AtomicU8::new(0),
            connections: AtomicU64::new(1),
            history: Mutex::default(),
            pushed: Mutex::default(),
        });
        BackEnd::new(&world, 0).make_channels();
        world
    }

    /// Starts all clients.
    pub fn run(self: &Arc<Self>, dice: &mut Dice) -> Clients {
        let mut writers = Vec::new();
        for at in 0..self.plan.writers.len() {
            let (world, seed) = (Arc::clone(self), dice.between(0, u64::MAX));
            let work = move || Writer::new(&world, at, seed).run();
            writers.push(thread::spawn(work));
        }
        let mut others = Vec::new();
        for at in 0..self.plan.readers.len() {
            let (world, seed) = (Arc::clone(self), dice.between(0, u64::MAX));
            others.push(thread::spawn(move || Reader::new(&world, at, seed).run()));
        }
        for at in 0..self.plan.visitors.len() {
            let (world, seed) = (Arc::clone(self), dice.between(0, u64::MAX));
            others.push(thread::spawn(move || reader::visit(&world, at, seed)));
        }
        for work in Work::ALL {
            let (world, seed) = (Arc::clone(self), dice.between(0, u64::MAX));
            others.push(thread::spawn(move || BackEnd::new(&world, seed).work(work)));
        }
        Clients { writers, others }
    }

    /// Nanoseconds since the world began.
    pub fn now(&self) -> u64 {
        self.time(Instant::now())
    }

    fn time(&self, at: Instant) -> u64 {
        at.duration_since(self.start).as_nanos() as u64
    }

    fn phase(&self) -> Phase {
        let all = [Phase::Running, Phase::Draining, Phase::Settling, Phase::Over];
        all[usize::from(self.phase.load(Ordering::Relaxed))]
    }

    fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Sleeps, but not past the end of a phase.
    fn pause(&self, phase: Phase, time: Duration) {
        let end = Instant::now() + time;
        while self.phase() <= phase && Instant::now() < end {
            thread::sleep(time.min(Duration::from_millis(50)));
        }
    }

    fn connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    /// Adds to the history.
    fn record(&self, add: impl FnOnce(&mut History)) {
        add(&mut self.history.lock().unwrap());
    }

    /// A fault begins; its place.
    pub fn fault(&self, kind: Kind, nodes: Vec<u16>, quorum: bool) -> usize {
        let start = self.now();
        let mut history = self.history.lock().unwrap();
        println!("{:6.1} s: {kind:?} of {nodes:?}", start as f64 / 1e9);
        history.faults.push(Fault { kind, nodes, start, end: u64::MAX, quorum });
        history.faults.len() - 1
    }

    /// The fault at this place is over.
    pub fn healed(&self, place: usize) {
        let now = self.now();
        let mut history = self.history.lock().unwrap();
        let fault = &mut history.faults[place];
        fault.end = now;
        println!("{:6.1} s: {:?} of {:?} is over", now as f64 / 1e9, fault.kind, fault.nodes);
    }

    /// How many messages were acknowledged by now.
    pub fn acked(&self) -> usize {
        let history = self.history.lock().unwrap();
        let acked = |outcome: &Outcome| matches!(outcome, Outcome::Acked { .. });
        history.attempts.iter().filter(|attempt| acked(&attempt.outcome)).count()
    }

    /// All that was done and seen so far.
    pub fn history(&self) -> History {
        self.history.lock().unwrap().clone()
    }

    fn doors(&self) -> Vec<Door> {
        self.doors.read().unwrap().clone()
    }

    /// One name for a channel, whoever looks at it.
    fn name(uid: &str, channel: &Channel) -> String {
        if channel.kind != PERSON {
            return channel.id.clone();
        }
        let mut pair = [uid, channel.id.as_str()];
        pair.sort_unstable();
        pair.join("@")
    }

    fn pushed(&self, uid: &str, connection: u64, at: Instant, received: Received) {
        let channel = Self::name(uid, &received.channel);
        let message = Stored {
            seq: received.seq,
            id: received.id,
            from: received.from,
            client_msg_no: received.client_msg_no,
            payload: received.payload,
        };
        let mut pushed = self.pushed.lock().unwrap();
        let last = pushed.entry((uid.to_owned(), channel.clone())).or_default();
        *last = message.seq.max(*last);
        drop(pushed);
        let (uid, at) = (uid.to_owned(), self.time(at));
        self.record(|h| h.pushes.push(Push { uid, channel, connection, at, message }));
    }

    fn silent(&self, what: &str, node: u16, from: u64) {
        let (what, to) = (what.to_owned(), self.now());
        self.record(|h| h.silences.push(Silence { what, node, from, to }));
    }

    /// Ends everything at once, as it stands.
    pub fn abandon(&self) {
        self.set_phase(Phase::Over);
    }

    /// How the slots are spread now.
    pub fn spread(&self, nodes: BTreeMap<u16, (u32, u32)>) {
        let at = self.now();
        println!("{:6.1} s: replicas and leaders {nodes:?}", at as f64 / 1e9);
        self.record(|h| h.spreads.push(Spread { at, nodes }));
    }

    /// Lets everything finish and asks every node how it ended; the whole history.
    pub fn settle(self: &Arc<Self>, clients: Clients) -> History {
        self.set_phase(Phase::Draining);
        for writer in clients.writers {
            writer.join().unwrap();
        }
        self.set_phase(Phase::Settling);
        BackEnd::new(self, 0).look_at_the_end();
        self.set_phase(Phase::Over);
        for thread in clients.others {
            thread.join().unwrap();
        }
        self.history()
    }
}

/// Threads of the clients.
pub struct Clients {
    writers: Vec<JoinHandle<()>>,
    others: Vec<JoinHandle<()>>,
}

/// How one client finds its way: which node it is at, and which comes next.
struct Route<'a> {
    world: &'a World,
    dice: ChaCha8Rng,
    door: Option<usize>,
}

impl<'a> Route<'a> {
    fn new(world: &'a World, first: usize, seed: u64) -> Self {
        Self { world, dice: ChaCha8Rng::seed_from_u64(seed), door: Some(first) }
    }

    /// A number below `count`.
    fn below(&mut self, count: usize) -> usize {
        (self.dice.next_u64() % count as u64) as usize
    }

    /// The node to go to: the same again, or another one after [`Route::leave`].
    fn door(&mut self) -> Door {
        let doors = self.world.doors();
        let place = match self.door {
            Some(place) => place % doors.len(),
            None => self.below(doors.len()),
        };
        self.door = Some(place);
        doors[place].clone()
    }

    /// Goes elsewhere next time.
    fn leave(&mut self) {
        let count = self.world.doors().len();
        let step = 1 + self.below(count.max(2) - 1);
        self.door = self.door.map(|place| (place + step) % count);
    }

    /// A session at some node, as soon as one grants it; None when `phase` is over, or for so long
    /// none did that the cluster must be lost.
    fn session(&mut self, uid: &str, transport: Transport, phase: Phase) -> Option<(Client, Door)> {
        let mut login = Login::new(uid, transport);
        login.device_id = format!("{uid}-{transport:?}");
        login.patience = Duration::from_secs(3);
        let start = Instant::now();
        while self.world.phase() <= phase && start.elapsed() < LOST {
            let door = self.door();
            match Client::login_at(&door.tcp, &door.ws, &login) {
                Ok(client) => return Some((client, door)),
                Err(_) => {
                    self.leave();
                    thread::sleep(AGAIN);
                }
            }
        }
        None
    }

    /// The API of some node, and which.
    fn api(&mut self) -> (Api, u16) {
        let door = self.door();
        (Api::new(door.http).within(GIVE_UP), door.node)
    }
}

/// Whether a connection still lives.
struct Pulse {
    heard: Instant,
    pinged: Instant,
}

impl Pulse {
    fn new() -> Self {
        Self { heard: Instant::now(), pinged: Instant::now() }
    }

    /// Pings when it is time; false when the connection is dead.
    fn beats(&mut self, client: &Client) -> bool {
        if self.pinged.elapsed() >= PING {
            self.pinged = Instant::now();
            if client.ask_pong().is_err() {
                return false;
            }
        }
        self.heard.elapsed() < DEAD
    }
}
