//! Writers that send over every door, lose their connection, and send again what stayed unknown;
//! readers that listen. What they did and saw becomes a [`History`].

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_core::RngCore;
use serde_json::Value;

use crate::support::api::{Api, Stored};
use crate::support::client::{Channel, Client, Event, Login, PERSON, Received, SUCCESS, Transport};
use crate::support::history::{Attempt, History, Outcome, Push, Read, assert_holds};
use crate::support::node::Node;
use crate::support::{Dice, PATIENCE, eventually};

/// SENDs of one connection on their way at a time.
const WINDOW: usize = 16;

/// Who chats: writers `w0`.. in one group, and each with the person `peer`.
pub struct World {
    api: Api,
    group: Channel,
    peer: String,
    writers: Vec<(String, Door)>,
    start: Instant,
    connections: AtomicU64,
    /// SENDs acknowledged so far.
    acked: AtomicU64,
    stop: AtomicBool,
    /// Whether somebody reads all channels: then few messages are added, or it would not end.
    reading: AtomicBool,
    history: Mutex<History>,
    /// The node's doors; written while it is dead.
    node: Arc<RwLock<Node>>,
}

/// How a writer sends.
#[derive(Clone, Copy, Debug)]
pub enum Door {
    Client(Transport),
    Http,
}

/// A message that a writer wants to be taken.
#[derive(Clone)]
struct Wish {
    channel: Channel,
    client_msg_no: String,
    payload: Vec<u8>,
}

impl World {
    /// Makes the group, in a node that serves.
    pub fn new(node: Arc<RwLock<Node>>, doors: &[Door]) -> Arc<Self> {
        let api = node.read().unwrap().api();
        let name = |(i, door): (usize, &Door)| (format!("w{i}"), *door);
        let writers: Vec<_> = doors.iter().enumerate().map(name).collect();
        let mut members: Vec<_> = writers.iter().map(|(uid, _)| uid.as_str()).collect();
        members.push("reader");
        let group = api.group("durable", &members);
        Arc::new(Self {
            api,
            group,
            peer: "peer".to_owned(),
            writers,
            start: Instant::now(),
            connections: AtomicU64::new(1),
            acked: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            reading: AtomicBool::new(false),
            history: Mutex::new(History::default()),
            node,
        })
    }

    fn now(&self) -> u64 {
        self.time(Instant::now())
    }

    fn time(&self, at: Instant) -> u64 {
        at.duration_since(self.start).as_nanos() as u64
    }

    fn connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// One name for a channel, whoever looks at it.
    fn name(&self, uid: &str, channel: &Channel) -> String {
        if channel.kind != PERSON {
            return channel.id.clone();
        }
        let mut pair = [uid, channel.id.as_str()];
        pair.sort_unstable();
        pair.join("@")
    }

    /// Starts all writers and the readers.
    pub fn run(self: &Arc<Self>, mut dice: impl FnMut() -> ChaCha8Rng) -> Vec<JoinHandle<()>> {
        let mut threads = Vec::new();
        for (uid, door) in &self.writers {
            let (world, uid, door, dice) = (Arc::clone(self), uid.clone(), *door, dice());
            threads.push(thread::spawn(move || Write::new(&world, &uid, dice).run(door)));
        }
        for (uid, transport) in [("reader", Transport::Ws), ("peer", Transport::Tcp)] {
            let world = Arc::clone(self);
            threads.push(thread::spawn(move || world.listen(uid, transport)));
        }
        threads
    }

    /// Waits until so many more SENDs have been acknowledged.
    pub fn wait_for_acks(&self, count: u64) {
        let goal = self.acked.load(Ordering::Relaxed) + count;
        eventually("enough SENDACKs", || {
            (self.acked.load(Ordering::Relaxed) >= goal).then_some(())
        });
    }

    /// Lets writers finish what they have begun, readers too; waits for all of them.
    pub fn settle(&self, threads: Vec<JoinHandle<()>>) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in threads {
            thread.join().unwrap();
        }
    }

    /// Reads every channel, as its reader.
    pub fn read(&self) {
        self.reading.store(true, Ordering::Relaxed);
        self.read_one("reader", &self.group);
        for (uid, _) in &self.writers {
            self.read_one(&self.peer, &Channel::person(uid));
        }
        self.reading.store(false, Ordering::Relaxed);
    }

    fn read_one(&self, reader: &str, channel: &Channel) {
        let start = self.now();
        let messages = self.api.history(reader, channel);
        let read = Read {
            channel: self.name(reader, channel),
            reader: reader.to_owned(),
            start,
            end: self.now(),
            from: 1,
            settled: true,
            messages,
        };
        self.history.lock().unwrap().reads.push(read);
    }

    /// What was done and seen so far.
    pub fn history(&self) -> History {
        self.history.lock().unwrap().clone()
    }

    /// A session, as soon as the node grants one; `None` when the run is over.
    fn session(&self, uid: &str, transport: Transport) -> Option<Client> {
        let mut login = Login::new(uid, transport);
        login.device_id = format!("{uid}-{transport:?}");
        while !self.stopping() {
            let session = Client::login(&self.node.read().unwrap(), &login);
            match session {
                Ok(session) => return Some(session),
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        }
        None
    }

    fn listen(&self, uid: &str, transport: Transport) {
        while let Some(mut client) = self.session(uid, transport) {
            let connection = self.connection();
            loop {
                match client.next(Duration::from_millis(100)) {
                    Some((_, Event::Recv(received))) => self.pushed(uid, connection, received),
                    Some((_, Event::Closed)) => break,
                    Some((_, Event::Pong)) => {}
                    Some((_, other)) => panic!("{uid}: {other:?}"),
                    None if self.stopping() => return,
                    None => {}
                }
            }
        }
    }

    fn pushed(&self, uid: &str, connection: u64, received: Received) {
        let push = Push {
            uid: uid.to_owned(),
            at: self.now(),
            channel: self.name(uid, &received.channel),
            connection,
            message: Stored {
                seq: received.seq,
                id: received.id,
                from: received.from,
                client_msg_no: received.client_msg_no,
                payload: received.payload,
            },
        };
        self.history.lock().unwrap().pushes.push(push);
    }
}

/// G1 to G7 over so many kills at random moments. `lose` takes from a dead node what the disk
/// would lose with it.
pub fn survive(mut dice: Dice, node: Node, rounds: u64, lose: impl Fn(&Node)) {
    // Two of the binary doors each, so that connections race.
    let doors = [
        Door::Client(Transport::Tcp),
        Door::Client(Transport::Tcp),
        Door::Client(Transport::Ws),
        Door::Client(Transport::Ws),
        Door::Client(Transport::Json),
        Door::Http,
    ];
    let node = Arc::new(RwLock::new(node));
    let world = World::new(Arc::clone(&node), &doors);
    let threads = world.run(|| dice.fork());
    for round in 1..=rounds {
        // So many more acknowledged messages, and some microseconds, later.
        world.wait_for_acks(dice.between(100, 2000));
        thread::sleep(Duration::from_micros(dice.between(0, 20_000)));
        {
            let mut node = node.write().unwrap();
            node.kill();
            lose(&node);
            node.restart();
        }
        world.read();
        println!("round {round}: {} acknowledged", world.acked.load(Ordering::Relaxed));
    }
    world.settle(threads);
    world.read();
    let history = world.history();
    let (attempts, pushes) = (history.attempts.len(), history.pushes.len());
    println!("{attempts} attempts, {pushes} pushes over {rounds} kills");
    assert_holds(&history);
}

/// One writer.
struct Write<'a> {
    world: &'a World,
    uid: &'a str,
    dice: ChaCha8Rng,
    count: u64,
    /// Sent, not known to be taken: sent again, in this order, before anything new (G4).
    unknown: VecDeque<Wish>,
}

impl<'a> Write<'a> {
    fn new(world: &'a World, uid: &'a str, dice: ChaCha8Rng) -> Self {
        Self { world, uid, dice, count: 0, unknown: VecDeque::new() }
    }

    fn run(&mut self, door: Door) {
        match door {
            Door::Http => self.run_http(),
            Door::Client(transport) => {
                while let Some(client) = self.world.session(self.uid, transport) {
                    self.run_session(client);
                    if self.world.stopping() && self.unknown.is_empty() {
                        return;
                    }
                }
            }
        }
    }

    fn wish(&mut self) -> Wish {
        if self.world.reading.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(5));
        }
        self.count += 1;
        let channel = match self.dice.next_u32() % 3 {
            0 => Channel::person(&self.world.peer),
            _ => self.world.group.clone(),
        };
        let mut payload = vec![0; (self.dice.next_u32() % 400 + 1) as usize];
        self.dice.fill_bytes(&mut payload);
        Wish { channel, client_msg_no: format!("{}-{}", self.uid, self.count), payload }
    }

    fn attempt(&self, wish: &Wish, connection: u64, place: u64, sent: u64) -> Attempt {
        Attempt {
            channel: self.world.name(self.uid, &wish.channel),
            sender: self.uid.to_owned(),
            client_msg_no: wish.client_msg_no.clone(),
            payload: wish.payload.clone(),
            connection,
            place,
            wanted: sent,
            sent,
            outcome: Outcome::Unknown,
        }
    }

    fn record(&self, attempt: Attempt) {
        if matches!(attempt.outcome, Outcome::Acked { .. }) {
            self.world.acked.fetch_add(1, Ordering::Relaxed);
        }
        self.world.history.lock().unwrap().attempts.push(attempt);
    }

    /// Sends until the connection is lost or the run is over, with a window of sends on their way.
    fn run_session(&mut self, mut client: Client) {
        let (connection, mut place) = (self.world.connection(), 0);
        let mut flying: VecDeque<(u32, Wish, Attempt)> = VecDeque::new();
        let mut again = std::mem::take(&mut self.unknown);
        loop {
            let open = !self.world.stopping() || !again.is_empty();
            if open && flying.len() < WINDOW {
                let wish = again.pop_front().unwrap_or_else(|| self.wish());
                let sent = self.world.now();
                place += 1;
                let attempt = self.attempt(&wish, connection, place, sent);
                let written = client.send(&wish.channel, &wish.client_msg_no, &wish.payload);
                let client_seq = *written.as_ref().unwrap_or(&0);
                flying.push_back((client_seq, wish, attempt));
                if written.is_err() {
                    break;
                }
                continue;
            }
            if flying.is_empty() {
                break;
            }
            match client.next(PATIENCE) {
                Some((at, Event::Ack(ack))) => {
                    let found = flying.iter().position(|(seq, _, _)| *seq == ack.client_seq);
                    let found = found
                        .unwrap_or_else(|| panic!("{}: SENDACK of nothing: {ack:?}", self.uid));
                    let Some((_, _, mut attempt)) = flying.remove(found) else {
                        return;
                    };
                    attempt.outcome = match ack.reason {
                        SUCCESS => Outcome::Acked {
                            at: self.world.time(at),
                            id: ack.id,
                            seq: Some(ack.seq),
                        },
                        reason => Outcome::Refused { reason },
                    };
                    self.record(attempt);
                }
                Some((_, Event::Recv(received))) => {
                    self.world.pushed(self.uid, connection, received)
                }
                Some((_, Event::Closed)) => break,
                Some((_, other)) => panic!("{}: {other:?}", self.uid),
                None => panic!("{}: a SEND was not answered in {PATIENCE:?}", self.uid),
            }
        }
        for (_, wish, attempt) in flying {
            self.record(attempt);
            self.unknown.push_back(wish);
        }
        self.unknown.append(&mut again);
    }

    /// Sends over HTTP, one after the other, and again until it is answered.
    fn run_http(&mut self) {
        while !self.world.stopping() {
            let wish = self.wish();
            loop {
                let body =
                    Api::message(self.uid, &wish.channel, &wish.client_msg_no, &wish.payload);
                let sent = self.world.now();
                let mut attempt = self.attempt(&wish, self.world.connection(), 0, sent);
                let reply = self.world.api.try_post("/message/send", &body);
                let outcome = reply.and_then(|reply| match reply.status {
                    200 => Ok(reply.json()["data"]["message_id"].clone()),
                    status => Err(io::Error::other(format!("status {status}"))),
                });
                let id = outcome.as_ref().ok().and_then(Value::as_i64);
                if let Some(id) = id {
                    let at = self.world.now();
                    attempt.outcome = Outcome::Acked { at, id, seq: None };
                }
                self.record(attempt);
                if id.is_some() {
                    break;
                }
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}
