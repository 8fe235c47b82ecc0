//! An echo server on the driver of this crate, and a small generator, to measure what one read
//! and one send cost.
//!
//! ```text
//! cargo run --release -p jindou-net --example echo -- serve 127.0.0.1:7007 auto 1 0 &
//! cargo run --release -p jindou-net --example echo -- load 127.0.0.1:7007 <pid> 200 1 128 2 1
//!     connections, in flight each, bytes, seconds, CPU to run on
//! cargo run --release -p jindou-net --example echo -- fanout 127.0.0.1:7007 <pid> 1000 1 200 2 1
//!     receivers, in flight, bytes, seconds, CPU; the server must run with FANOUT=1 set
//! cargo run --release -p jindou-net --example echo -- idle 127.0.0.1:7007 <pid> 10000
//! cargo run --release -p jindou-net --example echo -- http 127.0.0.1:7008 <pid> 100 1 2 1
//! ```
//!
//! `serve` takes address, driver, shards and the first CPU; HTTP is on the next port. The figure to
//! read is CPU µs per operation: the server's run time from `/proc/PID/task/*/schedstat` over the
//! operations, which does not depend on how fast the generator is.

#![expect(
    unsafe_code,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::wildcard_enum_match_arm,
    reason = "an example"
)]

use std::{
    error::Error,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use jindou_core::{
    effect::{Effect, Event, Executor, Inbox, Now, Outbox, Place, Port, ReadId, Stepped},
    envelope::Envelope,
    id::{LogId, NodeId, SlotId},
    notice::Telling,
    request::{Reply, RequestToken},
    row::{Persist, Read as Query},
};
use jindou_net::{
    Admission, Driver, HttpRequest, HttpResponse, HttpService, HttpSettings, LocalBoxFuture,
    NetSettings, ShardContext, ShardsSettings, allowed_cpus, bind, probe, raise_open_files, start,
};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Outcome {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    raise_open_files()?;
    match words.as_slice() {
        ["serve", address, driver, shards, cpu] => {
            serve(address.parse()?, driver, shards.parse()?, cpu.parse()?)
        }
        ["load", address, pid, rest @ ..] => load(address.parse()?, pid, &numbers(rest)?),
        ["fanout", address, pid, rest @ ..] => fanout(address.parse()?, pid, &numbers(rest)?),
        ["http", address, pid, rest @ ..] => http(address.parse()?, pid, &numbers(rest)?),
        ["idle", address, pid, count] => idle(address.parse()?, pid, count.parse()?),
        _ => Err("see the head of net/examples/echo.rs".into()),
    }
}

fn numbers(words: &[&str]) -> Outcome<Vec<usize>> {
    Ok(words.iter().map(|word| word.parse()).collect::<Result<_, _>>()?)
}

/// Sends back what comes.
fn echo(_: Now, inbox: &mut Inbox, outbox: &mut Outbox) -> Stepped {
    for event in inbox.events.drain(..) {
        if let Event::Bytes { conn, range } = event {
            let start = outbox.bytes.len();
            outbox.bytes.extend_from_slice(inbox.bytes.get(range).unwrap_or_default());
            let range = start..outbox.bytes.len();
            outbox.effects.push(Effect::Write { conn, range });
        }
    }
    Stepped { more: false, wake_at_ms: None }
}

type Step = dyn FnMut(Now, &mut Inbox, &mut Outbox) -> Stepped;

/// Sends what comes to every connection.
fn everyone() -> impl FnMut(Now, &mut Inbox, &mut Outbox) -> Stepped {
    let mut conns = std::collections::BTreeSet::new();
    move |_, inbox, outbox| {
        for event in inbox.events.drain(..) {
            match event {
                Event::Opened { conn, .. } => {
                    conns.insert(conn);
                }
                Event::Closed { conn } => {
                    conns.remove(&conn);
                }
                Event::Bytes { range, .. } => {
                    for &conn in &conns {
                        let start = outbox.bytes.len();
                        let bytes = inbox.bytes.get(range.clone()).unwrap_or_default();
                        outbox.bytes.extend_from_slice(bytes);
                        let range = start..outbox.bytes.len();
                        outbox.effects.push(Effect::Write { conn, range });
                    }
                }
                _ => {}
            }
        }
        Stepped { more: false, wake_at_ms: None }
    }
}

struct Nobody;

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
        eprintln!("{text}");
    }
}

struct Hello;

impl HttpService for Hello {
    fn call(&self, request: HttpRequest) -> LocalBoxFuture<HttpResponse> {
        Box::pin(async move {
            HttpResponse {
                body: format!("{{\"path\":\"{}\"}}", request.path).into(),
                ..HttpResponse::default()
            }
        })
    }
}

fn serve(address: SocketAddr, driver: &str, shard_count: u16, cpu: usize) -> Outcome {
    let found = probe(driver.parse()?)?;
    println!("driver {} {:?}", found.kind, found.reason);
    let settings = ShardsSettings {
        shard_count,
        cpus: allowed_cpus()?.into_iter().skip(cpu).collect(),
        driver: found.kind,
        net: NetSettings::default(),
    };
    let mut sockets = Vec::new();
    for port in [address.port(), address.port() + 1] {
        sockets.push(bind(SocketAddr::new(address.ip(), port), shard_count)?);
    }
    let sockets = Arc::new(sockets);
    let clients = Admission::new(0, 0);
    let shards = start(&settings, async move |context: ShardContext| {
        let handle = context.handle.clone();
        let shard = usize::from(context.shard.0);
        let mut own = sockets.iter().filter_map(|of_port| of_port.get(shard)?.try_clone().ok());
        let machine: Box<Step> = match std::env::var_os("FANOUT") {
            Some(_) => Box::new(everyone()),
            None => Box::new(echo),
        };
        let driver = Driver::new(context, machine, Nobody);
        if let (Some(tcp), Some(http), Ok(driver)) = (own.next(), own.next(), driver) {
            let listening = handle.listen(tcp, Port::Tcp, clients.clone());
            let serving =
                handle.serve_http(http, clients.clone(), HttpSettings::default(), Rc::new(Hello));
            println!("{listening:?} {serving:?}");
            let _ = driver.run().await;
        }
    })?;
    Ok(shards.wait()?)
}

/// CPU time of a process, in seconds.
fn cpu_time(pid: &str) -> Outcome<f64> {
    let mut total = 0_u64;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
        total += text.split(' ').next().unwrap_or_default().parse::<u64>()?;
    }
    Ok(total as f64 / 1e9)
}

fn resident(pid: &str) -> Outcome<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find(|line| line.starts_with("Rss:"));
    let word = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(word.unwrap_or_default().parse::<u64>()? * 1024)
}

/// Keeps `depth` messages in flight on each of `count` connections, with epoll.
fn load(address: SocketAddr, pid: &str, numbers: &[usize]) -> Outcome {
    let &[count, depth, size, seconds, cpu] = numbers else {
        return Err("connections, in flight, bytes, seconds, CPU".into());
    };
    let message = vec![b'x'; size * depth];
    measure(address, pid, count, seconds, cpu, &message, size, depth)
}

fn http(address: SocketAddr, pid: &str, numbers: &[usize]) -> Outcome {
    let &[count, depth, seconds, cpu] = numbers else {
        return Err("connections, in flight, seconds, CPU".into());
    };
    let request = "GET /health/x HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut probe = TcpStream::connect(address)?;
    probe.write_all(request.as_bytes())?;
    std::thread::sleep(Duration::from_millis(100));
    let mut buffer = [0; 4096];
    let answer_size = probe.read(&mut buffer)?;
    println!("{}", String::from_utf8_lossy(&buffer[..answer_size]));
    let message = request.repeat(depth).into_bytes();
    measure(address, pid, count, seconds, cpu, &message, answer_size, depth)
}

#[expect(clippy::too_many_arguments, reason = "an example")]
fn measure(
    address: SocketAddr,
    pid: &str,
    count: usize,
    seconds: usize,
    cpu: usize,
    message: &[u8],
    answer_size: usize,
    depth: usize,
) -> Outcome {
    pin(cpu)?;
    let mut poller = Poller::new(count)?;
    let mut streams = Vec::new();
    for place in 0..count {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        poller.add(&stream, place)?;
        streams.push((stream, 0_usize));
    }
    for (stream, _) in &mut streams {
        stream.write_all(message)?;
    }
    let mut buffer = vec![0; 64 << 10];
    let begin = Instant::now();
    let warm = begin + Duration::from_millis(300);
    let end = warm + Duration::from_secs(seconds as u64);
    let mut measured: Option<(Instant, f64, u64)> = None;
    let mut operations = 0_u64;
    loop {
        let now = Instant::now();
        if measured.is_none() && now >= warm {
            measured = Some((now, cpu_time(pid)?, operations));
        }
        if now >= end {
            break;
        }
        for place in poller.wait()? {
            let (stream, got) = &mut streams[place];
            match stream.read(&mut buffer) {
                Ok(0) => return Err("closed".into()),
                Ok(size) => *got += size,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            if *got >= answer_size * depth {
                *got -= answer_size * depth;
                operations += depth as u64;
                stream.write_all(message)?;
            }
        }
    }
    let (since, cpu_before, before) = measured.ok_or("too short")?;
    let wall = since.elapsed().as_secs_f64();
    let cpu = cpu_time(pid)? - cpu_before;
    let done = (operations - before) as f64;
    println!(
        "{count} x {depth}: {:.0}/s, {:.3} us CPU per operation, server busy {:.2}",
        done / wall,
        cpu / done * 1e6,
        cpu / wall
    );
    Ok(())
}

/// One sender, many receivers, the sender among them: it sends the next message when it has got
/// its own copy of one.
fn fanout(address: SocketAddr, pid: &str, numbers: &[usize]) -> Outcome {
    let &[count, depth, size, seconds, cpu] = numbers else {
        return Err("receivers, in flight, bytes, seconds, CPU".into());
    };
    pin(cpu)?;
    let mut poller = Poller::new(count)?;
    let mut streams = Vec::new();
    for place in 0..count {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        poller.add(&stream, place)?;
        streams.push(stream);
    }
    std::thread::sleep(Duration::from_millis(200));
    let message = vec![b'm'; size];
    for _ in 0..depth {
        streams[0].write_all(&message)?;
    }
    let mut buffer = vec![0; 256 << 10];
    let warm = Instant::now() + Duration::from_millis(300);
    let end = warm + Duration::from_secs(seconds as u64);
    let mut measured: Option<(Instant, f64, u64, u64)> = None;
    let (mut bytes, mut reads, mut own) = (0_u64, 0_u64, 0);
    loop {
        let now = Instant::now();
        if measured.is_none() && now >= warm {
            measured = Some((now, cpu_time(pid)?, bytes, reads));
        }
        if now >= end {
            break;
        }
        for place in poller.wait()? {
            match streams[place].read(&mut buffer) {
                Ok(0) => return Err("closed".into()),
                Ok(got) => {
                    bytes += got as u64;
                    reads += 1;
                    if place == 0 {
                        own += got;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            while own >= size {
                own -= size;
                streams[0].write_all(&message)?;
            }
        }
    }
    let (since, cpu_before, bytes_before, reads_before) = measured.ok_or("too short")?;
    let wall = since.elapsed().as_secs_f64();
    let cpu = cpu_time(pid)? - cpu_before;
    let deliveries = (bytes - bytes_before) as f64 / size as f64;
    println!(
        "{count} receivers, {depth} in flight: {:.0} deliveries/s, {:.3} us CPU per delivery, \
         {:.1} per read, server busy {:.2}",
        deliveries / wall,
        cpu / deliveries * 1e6,
        deliveries / (reads - reads_before) as f64,
        cpu / wall
    );
    Ok(())
}

/// What a connection costs that has sent once and is silent since.
fn idle(address: SocketAddr, pid: &str, count: usize) -> Outcome {
    let mut warm = TcpStream::connect(address)?;
    warm.write_all(b"warm")?;
    warm.read_exact(&mut [0; 4])?;
    let before = resident(pid)?;
    let begin = Instant::now();
    let mut streams = Vec::new();
    for n in 0..count {
        // Further local addresses, so that ports last.
        let stream = TcpStream::connect(address).map_err(|e| format!("{n}: {e}"))?;
        streams.push(stream);
    }
    let connected = begin.elapsed();
    for stream in &mut streams {
        stream.write_all(b"once")?;
        stream.read_exact(&mut [0; 4])?;
    }
    std::thread::sleep(Duration::from_secs(1));
    let after = resident(pid)?;
    println!(
        "{} bytes per connection, {:.0} connects/s",
        (after - before) / count as u64,
        count as f64 / connected.as_secs_f64()
    );
    Ok(())
}

fn pin(cpu: usize) -> io::Result<()> {
    // SAFETY: a cpu_set_t of zeros is the empty set; the call reads it.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        if libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// The least of epoll.
struct Poller {
    fd: i32,
    events: Vec<libc::epoll_event>,
}

impl Poller {
    fn new(count: usize) -> io::Result<Self> {
        // SAFETY: takes no pointer.
        let fd = unsafe { libc::epoll_create1(0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let event = libc::epoll_event { events: 0, u64: 0 };
        Ok(Self { fd, events: vec![event; count.max(1)] })
    }

    fn add(&self, stream: &TcpStream, place: usize) -> io::Result<()> {
        use std::os::fd::AsRawFd;
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: place as u64 };
        // SAFETY: the event is a local that outlives the call.
        let result = unsafe {
            libc::epoll_ctl(self.fd, libc::EPOLL_CTL_ADD, stream.as_raw_fd(), &raw mut event)
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    fn wait(&mut self) -> io::Result<Vec<usize>> {
        // SAFETY: the buffer is valid for its length.
        let count = unsafe {
            libc::epoll_wait(self.fd, self.events.as_mut_ptr(), self.events.len() as i32, 100)
        };
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(self.events[..count as usize].iter().map(|event| event.u64 as usize).collect())
    }
}
