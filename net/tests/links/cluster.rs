//! Nodes with links in one process, what they have seen, and things that stand between them.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use jindou_core::{
    effect::{Inbox, Now, Outbox, PeerState},
    id::{NodeId, ShardAddr, ShardId},
};
use jindou_net::{
    Answerer, Driver, DriverKind, Gatekeeper, HelloInfo, Identity, LinkInbound, LinkSettings,
    Links, NetSettings, Purpose, Refusal, RefusalCode, Secret, ShardContext, ShardWaker, Shards,
    ShardsSettings, bind,
    link::{
        frame::{Frame, FrameReader},
        hello::{Challenge, Hello, Side},
    },
    start,
};

use crate::common::{IDLE, Nobody, PATIENCE, connect};

/// What a shard was told.
#[derive(Clone, Debug)]
pub(crate) enum Seen {
    Envelopes { shard: u16, from: ShardAddr, body: Bytes },
    Peer { shard: u16, node: u64, state: PeerState },
    Answered { shard: u16, node: u64, sent_ms: u64 },
    Heard { shard: u16, node: u64 },
    Refused { refusal: Refusal },
}

/// Admits members, and anybody for a control message.
pub(crate) struct Members(pub(crate) Mutex<Vec<u64>>);

impl Gatekeeper for Members {
    fn admit(&self, hello: &HelloInfo) -> Result<(), Refusal> {
        let is_member = self.0.lock().unwrap().contains(&hello.node.0);
        if is_member || hello.purpose == Purpose::Control {
            return Ok(());
        }
        let text = format!("node {} is not a member: let it join first", hello.node.0);
        Err(Refusal::new(RefusalCode::NotMember, text))
    }
}

/// Answers a raft frame with where it came to, control messages with an echo.
struct Ears {
    shard: u16,
    seen: flume::Sender<Seen>,
}

impl LinkInbound for Ears {
    fn raft(&self, from: NodeId, group: u16, frame: Bytes, answer: Answerer) {
        // Silence is asked for.
        if frame != "nothing" {
            let head = format!("{} {} {group} ", from.0, self.shard);
            answer([head.as_bytes(), &frame].concat().into());
        }
    }

    fn envelopes(&self, from: ShardAddr, body: Bytes) {
        let _ = self.seen.send(Seen::Envelopes { shard: self.shard, from, body });
    }

    fn control(&self, from: HelloInfo, body: Bytes, answer: Answerer) {
        let text = [format!("{} ", from.node.0).as_bytes(), &body].concat();
        if body == "slow" {
            drop(monoio::spawn(async move {
                monoio::time::sleep(Duration::from_millis(3_000)).await;
                answer(text.into());
            }));
        } else {
            answer(text.into());
        }
    }

    fn peer(&self, node: NodeId, state: PeerState) {
        let _ = self.seen.send(Seen::Peer { shard: self.shard, node: node.0, state });
    }

    fn heard(&self, from: NodeId, _: u64) {
        let _ = self.seen.send(Seen::Heard { shard: self.shard, node: from.0 });
    }

    fn answered(&self, node: NodeId, sent_ms: u64) {
        let _ = self.seen.send(Seen::Answered { shard: self.shard, node: node.0, sent_ms });
    }

    fn refused(&self, _: NodeId, refusal: &Refusal) {
        let _ = self.seen.send(Seen::Refused { refusal: refusal.clone() });
    }
}

type Command = Box<dyn FnOnce(&Links) + Send>;

/// What a node of a test is made of.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) driver: DriverKind,
    pub(crate) settings: LinkSettings,
    pub(crate) cluster_id: u64,
    pub(crate) secret: Option<Secret>,
    pub(crate) members: Vec<u64>,
}

impl Plan {
    pub(crate) fn new(driver: DriverKind, node: u64, shard_count: u16) -> Self {
        // The first start of each node; a test that restarts one counts on.
        let settings = LinkSettings::new(NodeId(node), node * 100, shard_count, 64);
        Self { driver, settings, cluster_id: 7, secret: None, members: (1..=9).collect() }
    }

    pub(crate) fn start(self) -> Node {
        self.start_at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    pub(crate) fn start_at(self, address: SocketAddr) -> Node {
        let shard_count = self.settings.shard_count;
        let sockets = bind(address, shard_count).unwrap();
        let address = sockets[0].local_addr().unwrap();
        let seed = [u8::try_from(self.settings.incarnation % 251).unwrap(); 32];
        let gate = Arc::new(Members(Mutex::new(self.members)));
        let keeper = Arc::clone(&gate) as Arc<dyn Gatekeeper>;
        let identity = Identity::new(shard_count, self.cluster_id, self.secret, seed, keeper);
        let (seen, events) = flume::unbounded();
        let (ready, readies) = flume::unbounded::<(u16, flume::Sender<Command>, ShardWaker)>();
        let shards_settings = ShardsSettings {
            shard_count,
            cpus: Vec::new(),
            driver: self.driver,
            net: NetSettings::default(),
        };
        let (sockets, settings) = (Arc::new(sockets), self.settings);
        let named = Arc::clone(&identity);
        let shards = start(&shards_settings, async move |context: ShardContext| {
            let (handle, shard) = (context.handle.clone(), context.shard);
            let idle = |_: Now, _: &mut Inbox, _: &mut Outbox| IDLE;
            let driver = Driver::new(context, idle, Nobody).unwrap();
            let ears = Rc::new(Ears { shard: shard.0, seen });
            let links = Links::new(handle.clone(), settings, identity, ears);
            let socket = sockets[usize::from(shard.0)].try_clone().unwrap();
            drop(sockets);
            links.listen(socket).unwrap();
            let (sender, commands) = flume::unbounded::<Command>();
            let clone = links.clone();
            handle.add_source(move |_| {
                for command in commands.try_iter() {
                    command(&clone);
                }
                false
            });
            ready.send((shard.0, sender, handle.waker())).unwrap();
            drop(ready);
            let _ended = driver.run().await;
            links.stop();
        })
        .unwrap();
        let mut commands: Vec<_> =
            (0..shard_count).map(|_| readies.recv_timeout(PATIENCE).unwrap()).collect();
        commands.sort_by_key(|&(shard, ..)| shard);
        let commands = commands.into_iter().map(|(_, sender, waker)| (sender, waker)).collect();
        Node { shard_count, address, gate, identity: named, commands, events, shards: Some(shards) }
    }
}

/// A running node.
pub(crate) struct Node {
    pub(crate) shard_count: u16,
    pub(crate) address: SocketAddr,
    pub(crate) gate: Arc<Members>,
    pub(crate) identity: Arc<Identity>,
    commands: Vec<(flume::Sender<Command>, ShardWaker)>,
    pub(crate) events: flume::Receiver<Seen>,
    shards: Option<Shards>,
}

impl Node {
    /// Runs something on a shard's thread, and brings the result.
    pub(crate) fn on<T: Send + 'static>(
        &self,
        shard: u16,
        run: impl FnOnce(&Links) -> T + Send + 'static,
    ) -> T {
        let (sender, result) = flume::bounded(1);
        self.post(shard, move |links| sender.send(run(links)).unwrap());
        result.recv_timeout(PATIENCE).unwrap()
    }

    /// Runs something on a shard's thread some time.
    pub(crate) fn post(&self, shard: u16, run: impl FnOnce(&Links) + Send + 'static) {
        let (commands, waker) = &self.commands[usize::from(shard)];
        commands.send(Box::new(run)).unwrap();
        waker.wake();
    }

    /// Awaits something on a shard's thread, and brings the result.
    pub(crate) fn wait_on<T: Send + 'static>(
        &self,
        shard: u16,
        run: impl FnOnce(&Links) -> jindou_net::LocalBoxFuture<T> + Send + 'static,
    ) -> T {
        self.ask_on(shard, run).recv_timeout(PATIENCE).unwrap()
    }

    /// The same, without waiting.
    pub(crate) fn ask_on<T: Send + 'static>(
        &self,
        shard: u16,
        run: impl FnOnce(&Links) -> jindou_net::LocalBoxFuture<T> + Send + 'static,
    ) -> flume::Receiver<T> {
        let (sender, result) = flume::bounded(1);
        self.post(shard, move |links| {
            let future = run(links);
            drop(monoio::spawn(async move {
                let _ = sender.send(future.await);
            }));
        });
        result
    }

    /// Makes every shard dial a node.
    pub(crate) fn dial(&self, node: u64, address: SocketAddr) {
        for shard in 0..self.shard_count {
            let address = address.to_string();
            self.on(shard, move |links| links.set_peer(NodeId(node), Some(address)));
        }
    }

    /// The next thing that the test looks for; others are passed over.
    pub(crate) fn wait_for<T>(&self, mut find: impl FnMut(Seen) -> Option<T>) -> T {
        let begin = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(begin.elapsed());
            let seen = self.events.recv_timeout(left).expect("nothing of that kind came");
            if let Some(found) = find(seen) {
                return found;
            }
        }
    }

    /// Waits until one shard, or each, was told that a node has a state.
    pub(crate) fn wait_for_peer(&self, node: u64, is: impl Fn(PeerState) -> bool) {
        let mut left: Vec<u16> = (0..self.shard_count).collect();
        while !left.is_empty() {
            let at = self.wait_for(|seen| match seen {
                Seen::Peer { shard, node: of, state } if of == node && is(state) => Some(shard),
                _ => None,
            });
            left.retain(|&shard| shard != at);
        }
    }

    pub(crate) fn wait_for_up(&self, node: u64) {
        self.wait_for_peer(node, |state| matches!(state, PeerState::Up { .. }));
    }

    pub(crate) fn wait_for_refusal(&self) -> Refusal {
        self.wait_for(|seen| match seen {
            Seen::Refused { refusal, .. } => Some(refusal),
            _ => None,
        })
    }

    /// Sends numbers, each of 8 bytes, from one shard to one of another node.
    pub(crate) fn send(
        &self,
        shard: u16,
        to: u64,
        place: u16,
        numbers: std::ops::Range<u64>,
    ) -> bool {
        self.on(shard, move |links| send(links, to, place, numbers))
    }

    pub(crate) fn counters(&self) -> &[Arc<jindou_net::Counters>] {
        self.shards.as_ref().unwrap().counters()
    }
}

pub(crate) fn send(links: &Links, to: u64, place: u16, numbers: std::ops::Range<u64>) -> bool {
    let place = jindou_core::effect::Place::Shard(ShardId(place));
    let mut is_sent = true;
    for number in numbers {
        let encode = |out: &mut Vec<u8>| out.extend_from_slice(&number.to_le_bytes());
        is_sent &= links.send(NodeId(to), place, encode).is_ok();
    }
    is_sent
}

pub(crate) fn numbers(body: &[u8]) -> Vec<u64> {
    assert_eq!(body.len() % 8, 0);
    body.chunks(8).map(|number| u64::from_le_bytes(number.try_into().unwrap())).collect()
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(shards) = self.shards.take() {
            shards.stop().drain();
            let result = shards.wait();
            if !std::thread::panicking() {
                result.unwrap();
            }
        }
    }
}

/// Stands in front of a node and can cut what goes through it.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    streams: Arc<Mutex<Vec<TcpStream>>>,
    is_open: Arc<AtomicBool>,
}

impl Proxy {
    pub(crate) fn new(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let streams: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let is_open = Arc::new(AtomicBool::new(true));
        let (kept, open) = (Arc::clone(&streams), Arc::clone(&is_open));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let client = client.unwrap();
                if !open.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(server) = TcpStream::connect(target) else {
                    continue;
                };
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    std::thread::spawn(move || copy(from, to));
                }
                kept.lock().unwrap().push(client);
            }
        });
        Self { address, streams, is_open }
    }

    /// Cuts the newest connection only, or all.
    pub(crate) fn cut(&self, count: usize) {
        let mut streams = self.streams.lock().unwrap();
        for stream in streams.drain(..).rev().take(count) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Whether connections come through from now on.
    pub(crate) fn set_open(&self, is_open: bool) {
        self.is_open.store(is_open, Ordering::SeqCst);
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = from.shutdown(std::net::Shutdown::Both);
    let _ = to.shutdown(std::net::Shutdown::Both);
}

/// One end of a link that the test itself plays, with one shard and no secret.
pub(crate) struct Actor {
    pub(crate) stream: TcpStream,
    reader: FrameReader,
}

pub(crate) fn side(node: u64, incarnation: u64) -> Side {
    Side {
        node: NodeId(node),
        incarnation,
        shard: 0,
        shard_count: 1,
        slot_count: 64,
        cluster_id: 7,
        has_secret: false,
        nonce: [9; 32],
    }
}

pub(crate) fn hello(node: u64, incarnation: u64) -> Hello {
    let side = side(node, incarnation);
    Hello { version_min: 1, version_max: 1, purpose: Purpose::Bundle, wanted: 0, side }
}

impl Actor {
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { stream, reader: FrameReader::new(1 << 24) }
    }

    /// Dials, and says `hello`. What the answer is, the test sees.
    pub(crate) fn dial(address: SocketAddr, hello: &Hello) -> Self {
        let mut actor = Self::new(connect(address));
        actor.say(&Frame::Hello(hello.encode().into()));
        actor
    }

    /// Dials, up to the welcome.
    pub(crate) fn enter(address: SocketAddr, hello: &Hello) -> Self {
        let mut actor = Self::dial(address, hello);
        assert!(matches!(actor.hear(), Some(Frame::Challenge(_))));
        actor.say(&Frame::Proof(Bytes::new()));
        assert_eq!(actor.hear(), Some(Frame::Welcome));
        actor
    }

    /// Accepts a link as `side`, up to the welcome.
    pub(crate) fn accept(listener: &TcpListener, side: Side) -> Self {
        let mut actor = Self::new(listener.accept().unwrap().0);
        let Some(Frame::Hello(body)) = actor.hear() else {
            panic!("no hello");
        };
        assert!(Hello::decode(&body).is_some());
        let challenge = Challenge { version: 1, side, proof: None };
        actor.say(&Frame::Challenge(challenge.encode().into()));
        assert_eq!(actor.hear(), Some(Frame::Proof(Bytes::new())));
        actor.say(&Frame::Welcome);
        actor
    }

    pub(crate) fn say(&mut self, frame: &Frame) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.stream.write_all(&bytes).unwrap();
    }

    /// The next frame; `None`: the link was closed.
    pub(crate) fn hear(&mut self) -> Option<Frame> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(frame) = self.reader.next().unwrap() {
                return Some(frame);
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(size) => self.reader.push(&buffer[..size]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// A moment, where nothing is to be waited for.
pub(crate) fn pause(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}
