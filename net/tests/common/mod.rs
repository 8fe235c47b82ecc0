//! A node for tests: shards with a machine of the test's own, on real sockets.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use jindou_core::{
    effect::{Effect, Event, Executor, Inbox, Now, Outbox, Place, Port, ReadId, Stepped},
    envelope::Envelope,
    id::{ConnId, LogId, NodeId, ShardId, SlotId},
    notice::Telling,
    request::{Reply, RequestToken},
    row::{Persist, Read as Query},
};
use jindou_net::{
    Admission, ClientTls, Driver, DriverChoice, DriverKind, Handle, HttpRequest, HttpResponse,
    HttpService, HttpSettings, LocalBoxFuture, Machine, NetSettings, ShardContext, Shards,
    ShardsSettings, bind, probe, raise_open_files, start,
};

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Both drivers; only epoll where the kernel has no io_uring.
pub fn drivers() -> Vec<DriverKind> {
    let mut kinds = vec![DriverKind::Epoll];
    let found = probe(DriverChoice::Auto).unwrap().kind;
    if found == DriverKind::IoUring {
        kinds.push(found);
    }
    kinds
}

/// Nothing to do now, or ever.
pub const IDLE: Stepped = Stepped { more: false, wake_at_ms: None };

/// Adds a write to the outbox.
pub fn write(outbox: &mut Outbox, conn: ConnId, bytes: &[u8]) {
    let start = outbox.bytes.len();
    outbox.bytes.extend_from_slice(bytes);
    outbox.effects.push(Effect::Write { conn, range: start..outbox.bytes.len() });
}

/// Sends back what comes.
pub fn echo(_: Now, inbox: &mut Inbox, outbox: &mut Outbox) -> Stepped {
    for event in inbox.events.drain(..) {
        match event {
            Event::Bytes { conn, range } => write(outbox, conn, &inbox.bytes[range]),
            Event::Request { token, .. } => {
                outbox.effects.push(Effect::Reply { token, reply: Reply::Done });
            }
            _ => {}
        }
    }
    IDLE
}

/// Performs nothing.
pub struct Nobody;

impl Executor for Nobody {
    fn forward(&mut self, _: NodeId, _: Place, _: Envelope) {}
    fn leader_known(&mut self, _: SlotId, _: Option<NodeId>) {}
    fn cluster_key(&mut self, _: String, _: bytes::Bytes) {}
    fn propose(&mut self, _: SlotId, _: u64, _: bytes::Bytes) {}
    fn persist(&mut self, _: Persist) {}
    fn applied(&mut self, _: SlotId, _: LogId) {}
    fn read(&mut self, _: ReadId, _: SlotId, _: Query) {}
    fn reply(&mut self, _: RequestToken, _: Reply) {}
    fn tell(&mut self, _: Telling) {}

    fn ask_systems(&mut self) {}
    fn warn(&mut self, text: &str) {
        panic!("{text}");
    }
}

/// What a node of a test is made of.
pub struct Plan {
    pub driver: DriverKind,
    pub shard_count: u16,
    pub net: NetSettings,
    pub http: HttpSettings,
    pub admission: Admission,
    /// Clients speak TLS.
    pub tls: Option<ClientTls>,
}

impl Plan {
    pub fn new(driver: DriverKind, shard_count: u16) -> Self {
        Self {
            driver,
            shard_count,
            net: NetSettings::default(),
            http: HttpSettings::default(),
            admission: Admission::new(0, 0),
            tls: None,
        }
    }

    /// Starts the node. `machine` is called on each shard's thread.
    pub fn start<M: Machine + 'static>(
        self,
        machine: impl FnOnce(&Handle) -> M + Clone + Send + 'static,
    ) -> Node {
        raise_open_files().unwrap();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let tcp = bind(any, self.shard_count).unwrap();
        let web = bind(any, self.shard_count).unwrap();
        let (address, http) = (tcp[0].local_addr().unwrap(), web[0].local_addr().unwrap());
        let sockets: Arc<(Vec<TcpListener>, Vec<TcpListener>)> = Arc::new((tcp, web));
        let settings = ShardsSettings {
            shard_count: self.shard_count,
            cpus: Vec::new(),
            driver: self.driver,
            net: self.net,
        };
        let (admission, http_settings, tls) = (self.admission, self.http, self.tls);
        let shards = start(&settings, async move |context: ShardContext| {
            let handle = context.handle.clone();
            let place = usize::from(context.shard.0);
            assert_eq!(context.handle.shard(), context.shard);
            let machine = machine(&handle);
            let driver = Driver::new(context, machine, Nobody).unwrap();
            let socket = sockets.0[place].try_clone().unwrap();
            match tls {
                None => handle.listen(socket, Port::Tcp, admission),
                Some(tls) => handle.listen_tls(socket, Port::Tcp, admission, tls),
            }
            .unwrap();
            let socket = sockets.1[place].try_clone().unwrap();
            let service = Rc::new(Service(handle.clone()));
            handle.serve_http(socket, Admission::new(0, 0), http_settings, service).unwrap();
            drop(sockets);
            driver.run().await;
        })
        .unwrap();
        Node { shards: Some(shards), address, http }
    }
}

/// Answers every request with what it was; under `/ask` after asking the shard.
struct Service(Handle);

impl HttpService for Service {
    fn call(&self, request: HttpRequest) -> LocalBoxFuture<HttpResponse> {
        let handle = self.0.clone();
        Box::pin(async move {
            if request.path == "/ask" {
                use jindou_core::request::{Request, Target};
                let reply = handle.request(Target::Shard(handle.shard()), Request::Vars).await;
                assert!(matches!(reply, Reply::Done));
            }
            if request.path == "/slow" {
                monoio::time::sleep(Duration::from_millis(300)).await;
            }
            let text = format!(
                "{} {} {} {}",
                request.method,
                request.path,
                request.query,
                request.body.len()
            );
            HttpResponse { body: text.into(), ..HttpResponse::default() }
        })
    }
}

/// A running node; drained when it is dropped.
pub struct Node {
    pub shards: Option<Shards>,
    pub address: SocketAddr,
    pub http: SocketAddr,
}

impl Node {
    pub fn connect(&self) -> TcpStream {
        connect(self.address)
    }

    pub fn sum(&self, counter: impl Fn(&jindou_net::Counters) -> u64) -> u64 {
        let shards = self.shards.as_ref().unwrap();
        shards.counters().iter().map(|counters| counter(counters)).sum()
    }

    /// Waits until a sum of counters has a value.
    pub fn wait_for(&self, value: u64, counter: impl Fn(&jindou_net::Counters) -> u64) {
        wait_until(
            || self.sum(&counter) == value,
            || format!("{} instead of {value}", self.sum(&counter)),
        );
    }
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

/// Waits for something that has no event of its own.
pub fn wait_until(is_true: impl Fn() -> bool, text: impl Fn() -> String) {
    let begin = Instant::now();
    while !is_true() {
        assert!(begin.elapsed() < PATIENCE, "{}", text());
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Reads exactly `count` bytes.
pub fn read(stream: &mut TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).unwrap();
    bytes
}

/// Whether the peer has closed: FIN or reset, and nothing before it.
pub fn is_closed(stream: &mut TcpStream) -> bool {
    loop {
        match stream.read(&mut [0; 1]) {
            Ok(count) => return count == 0,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// Sends bytes and wants them back.
pub fn check_echo(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
    assert_eq!(read(stream, bytes.len()), bytes);
}

/// The shard after this one.
pub fn next(shard: ShardId, count: u16) -> ShardId {
    ShardId((shard.0 + 1) % count)
}
