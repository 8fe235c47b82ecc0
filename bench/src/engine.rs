//! Many clients on one thread: one epoll instance, one read per readable socket, everything that piled
//! up for a socket in one write per turn. The generator must cost less than the server it measures.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Context;
use mio::net::TcpStream;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use socket2::{Domain, Protocol, Socket, Type};
use std::os::fd::{AsFd, AsRawFd};

use crate::client::{Client, Closed, Profile, Sink, Tally};
use crate::latency::Latency;

const TIMER: Token = Token(usize::MAX);
/// Reads of one socket in a turn, so that a busy one does not starve the others.
const READS: usize = 4;
/// A dial that takes longer is given up and made again.
const DIAL_TIME_MAX: Duration = Duration::from_secs(10);

/// The clients of one thread.
pub(crate) struct Engine<'a> {
    profile: &'a Profile,
    /// Each connection's in turn; at least one.
    peers: Vec<SocketAddr>,
    sources: Vec<IpAddr>,
    poll: Poll,
    events: Option<Events>,
    timer: TimerFd,
    conns: Vec<Option<Conn>>,
    clock: Instant,
    scratch: Vec<u8>,
    dirty: Vec<usize>,
    again: Vec<usize>,
    gone: Vec<(usize, Closed)>,
    /// What clients that are no more have counted.
    tally: Tally,
    ping: Pinger,
}

struct Conn {
    socket: TcpStream,
    client: Client,
    /// Bytes of the client's output already written.
    written: usize,
    connected: bool,
    dirty: bool,
}

struct Pinger {
    every: Duration,
    next: usize,
    last: Instant,
}

/// How dialling went.
#[derive(Clone, Debug)]
pub(crate) struct Dialled {
    /// From the first dial to the last CONNACK.
    pub(crate) took: Duration,
    /// From a dial to its CONNACK.
    pub(crate) latency: Latency,
    /// Dials made again.
    pub(crate) again: u64,
}

impl<'a> Engine<'a> {
    pub(crate) fn new(
        profile: &'a Profile,
        peers: Vec<SocketAddr>,
        sources: Vec<IpAddr>,
        clock: Instant,
        ping: Duration,
    ) -> anyhow::Result<Engine<'a>> {
        anyhow::ensure!(!peers.is_empty(), "no server");
        let poll = Poll::new().context("epoll")?;
        let timer =
            TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK).context("timerfd")?;
        let fd = timer.as_fd().as_raw_fd();
        poll.registry().register(&mut SourceFd(&fd), TIMER, Interest::READABLE)?;
        Ok(Engine {
            profile,
            peers,
            sources,
            poll,
            events: Some(Events::with_capacity(1024)),
            timer,
            conns: Vec::new(),
            clock,
            scratch: vec![0; 256 * 1024],
            dirty: Vec::new(),
            again: Vec::new(),
            gone: Vec::new(),
            tally: Tally::default(),
            ping: Pinger { every: ping, next: 0, last: Instant::now() },
        })
    }

    /// ns since the run began.
    pub(crate) fn now(&self) -> u64 {
        nanos(self.clock.elapsed())
    }

    /// The client with that number, if it is connected.
    pub(crate) fn client(&mut self, at: usize) -> Option<&mut Client> {
        self.conns.get_mut(at)?.as_mut().map(|conn| &mut conn.client)
    }

    /// Unwritten bytes of a client.
    pub(crate) fn backlog(&self, at: usize) -> usize {
        match self.conns.get(at) {
            Some(Some(conn)) => conn.client.out_size() - conn.written,
            Some(None) | None => 0,
        }
    }

    /// Has the client's output written at the end of the turn.
    pub(crate) fn touch(&mut self, at: usize) {
        if let Some(Some(conn)) = self.conns.get_mut(at)
            && !conn.dirty
        {
            conn.dirty = true;
            self.dirty.push(at);
        }
    }

    /// What has ended since the last call.
    pub(crate) fn take_gone(&mut self) -> Vec<(usize, Closed)> {
        std::mem::take(&mut self.gone)
    }

    /// What all clients have counted so far.
    pub(crate) fn tally(&self) -> Tally {
        self.conns.iter().flatten().fold(self.tally, |sum, conn| add(sum, conn.client.tally()))
    }

    /// Clients whose connection stands.
    pub(crate) fn live(&self) -> usize {
        self.conns.iter().flatten().filter(|conn| conn.client.is_live()).count()
    }

    /// Opens a connection for each uid, so many at a time, until each has its CONNACK.
    pub(crate) fn dial(
        &mut self,
        uids: &[String],
        at_a_time: usize,
        tries_max: u32,
    ) -> anyhow::Result<Dialled> {
        let began = Instant::now();
        let mut dialled = Dialled { took: Duration::ZERO, latency: Latency::new()?, again: 0 };
        // (number, when, which try)
        let mut under_way: Vec<(usize, Instant, u32)> = Vec::with_capacity(at_a_time);
        let mut again: Vec<(usize, u32)> = Vec::new();
        let mut waiting = 0..uids.len();
        let mut up = Up(Vec::new());
        let mut done = 0;
        let mut swept = began;
        while done < uids.len() {
            while under_way.len() < at_a_time {
                let retry = again.pop();
                let Some((at, tries)) = retry.or_else(|| waiting.next().map(|at| (at, 1))) else {
                    break;
                };
                let uid = uids.get(at).map_or("", String::as_str);
                self.open(at, uid)?;
                under_way.push((at, Instant::now(), tries));
            }
            self.turn(Some(Duration::from_millis(100)), &mut up)?;
            self.flush();
            for at in up.0.drain(..) {
                if let Some(place) = under_way.iter().position(|dial| dial.0 == at) {
                    let (_, start, _) = under_way.swap_remove(place);
                    dialled.latency.record(nanos(start.elapsed()));
                    done += 1;
                }
            }
            if swept.elapsed() > Duration::from_millis(200) {
                swept = Instant::now();
                for dial in under_way.iter().filter(|dial| dial.1.elapsed() > DIAL_TIME_MAX) {
                    self.gone.push((dial.0, Closed::Slow));
                }
            }
            for (at, why) in self.take_gone() {
                let Some(place) = under_way.iter().position(|dial| dial.0 == at) else {
                    anyhow::bail!("connection {at} was lost while others were dialled: {why}");
                };
                let (_, _, tries) = under_way.swap_remove(place);
                self.close(at);
                if tries >= tries_max || matches!(why, Closed::Refused(_) | Closed::Protocol(_)) {
                    let peer = self.peer(at)?;
                    anyhow::bail!("cannot connect to {peer} (try {tries}): {why}");
                }
                dialled.again += 1;
                again.push((at, tries + 1));
            }
        }
        dialled.took = began.elapsed();
        Ok(dialled)
    }

    /// Where the connection with that number goes.
    fn peer(&self, at: usize) -> anyhow::Result<SocketAddr> {
        let peer = self.peers.get(at % self.peers.len().max(1));
        peer.copied().context("no server")
    }

    fn open(&mut self, at: usize, uid: &str) -> anyhow::Result<()> {
        let peer = self.peer(at)?;
        let mut socket = match self.sources.get(at % self.sources.len().max(1)) {
            None => TcpStream::connect(peer).context("connect")?,
            Some(source) => connect_from(peer, *source).context("connect")?,
        };
        socket.set_nodelay(true)?;
        self.poll.registry().register(
            &mut socket,
            Token(at),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        if self.conns.len() <= at {
            self.conns.resize_with(at + 1, || None);
        }
        if let Some(place) = self.conns.get_mut(at) {
            *place = Some(Conn {
                socket,
                client: Client::new(at, uid, self.profile),
                written: 0,
                connected: false,
                dirty: false,
            });
        }
        Ok(())
    }

    fn close(&mut self, at: usize) {
        if let Some(mut conn) = self.conns.get_mut(at).and_then(Option::take) {
            self.tally = add(self.tally, conn.client.tally());
            // The socket leaves epoll when it is closed; an error here changes nothing.
            let _ = self.poll.registry().deregister(&mut conn.socket);
        }
    }

    /// Waits for the network at most so long and hands what came in to `sink`. Writes nothing:
    /// [`Engine::flush`] does, after the caller has added its own.
    pub(crate) fn turn(
        &mut self,
        wait: Option<Duration>,
        sink: &mut impl Sink,
    ) -> anyhow::Result<()> {
        let wait = if self.again.is_empty() { self.arm(wait)? } else { Some(Duration::ZERO) };
        let Some(mut events) = self.events.take() else {
            return Ok(());
        };
        match self.poll.poll(&mut events, wait) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
        for at in std::mem::take(&mut self.again) {
            self.read(at, sink);
        }
        for event in &events {
            if event.token() == TIMER {
                // Reading it only makes it quiet again.
                let _ = self.timer.wait();
                continue;
            }
            let at = event.token().0;
            if event.is_writable() {
                self.writable(at);
            }
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                self.read(at, sink);
            }
        }
        self.events = Some(events);
        self.pings();
        Ok(())
    }

    /// epoll counts in ms; shorter waits go through a timer, the shortest are not waited for.
    fn arm(&self, wait: Option<Duration>) -> anyhow::Result<Option<Duration>> {
        match wait {
            Some(wait) if wait < Duration::from_micros(20) => Ok(Some(Duration::ZERO)),
            Some(wait) if wait < Duration::from_millis(5) => {
                let expiration = Expiration::OneShot(TimeSpec::from_duration(wait));
                self.timer.set(expiration, TimerSetTimeFlags::empty())?;
                Ok(None)
            }
            other => Ok(other),
        }
    }

    fn writable(&mut self, at: usize) {
        let Some(Some(conn)) = self.conns.get_mut(at) else {
            return;
        };
        if !conn.connected {
            match conn.socket.take_error() {
                Ok(None) if conn.socket.peer_addr().is_ok() => conn.connected = true,
                Ok(None) => return,
                Ok(Some(error)) | Err(error) => {
                    return self.gone.push((at, Closed::Io(error.to_string())));
                }
            }
        }
        if conn.client.out_size() > conn.written {
            self.touch(at);
        }
    }

    fn read(&mut self, at: usize, sink: &mut impl Sink) {
        let clock = self.clock;
        let Some(Some(conn)) = self.conns.get_mut(at) else {
            return;
        };
        for turn in 0.. {
            if turn == READS {
                self.again.push(at);
                break;
            }
            let size = match conn.socket.read(&mut self.scratch) {
                Ok(0) => {
                    self.gone.push((at, Closed::End));
                    return;
                }
                Ok(size) => size,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.gone.push((at, Closed::Io(error.to_string())));
                    return;
                }
            };
            sink.now(nanos(clock.elapsed()));
            let input = self.scratch.get_mut(..size).unwrap_or_default();
            if let Err(why) = conn.client.feed(input, self.profile, sink) {
                self.gone.push((at, why));
                return;
            }
            if size < self.scratch.len() {
                break; // drained: epoll reports what comes next
            }
        }
        if conn.client.out_size() > conn.written && !conn.dirty {
            conn.dirty = true;
            self.dirty.push(at);
        }
    }

    /// Writes what has piled up, one write per client.
    pub(crate) fn flush(&mut self) {
        for at in std::mem::take(&mut self.dirty) {
            let Some(Some(conn)) = self.conns.get_mut(at) else {
                continue;
            };
            conn.dirty = false;
            if !conn.connected {
                continue; // epoll says when
            }
            loop {
                let out = conn.client.out();
                let rest = out.get(conn.written..).unwrap_or_default();
                if rest.is_empty() {
                    out.clear();
                    conn.written = 0;
                    break;
                }
                match conn.socket.write(rest) {
                    Ok(size) => conn.written += size,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => {
                        self.gone.push((at, Closed::Io(error.to_string())));
                        break;
                    }
                }
            }
        }
    }

    /// Gives up the clients that are gone.
    pub(crate) fn drop_gone(&mut self, gone: &[(usize, Closed)]) {
        for (at, _) in gone {
            self.close(*at);
        }
    }

    /// PINGs a share of the clients each tenth of a second, so that each is pinged in time.
    fn pings(&mut self) {
        let since = self.ping.last.elapsed();
        if since < Duration::from_millis(100) || self.conns.is_empty() {
            return;
        }
        self.ping.last = Instant::now();
        let share = since.as_secs_f64() / self.ping.every.as_secs_f64().max(0.001);
        let share =
            Duration::try_from_secs_f64(share * self.conns.len() as f64).unwrap_or_default();
        let count = usize::try_from(share.as_secs()).unwrap_or(0) + 1;
        for _ in 0..count.min(self.conns.len()) {
            self.ping.next = (self.ping.next + 1) % self.conns.len();
            self.ping_one(self.ping.next);
        }
    }

    fn ping_one(&mut self, at: usize) {
        let profile = self.profile;
        if let Some(client) = self.client(at).filter(|client| client.is_live()) {
            client.ping(profile);
            self.touch(at);
        }
    }

    /// PINGs every client.
    pub(crate) fn ping_all(&mut self) {
        for at in 0..self.conns.len() {
            self.ping_one(at);
        }
    }
}

fn connect_from(peer: SocketAddr, source: IpAddr) -> io::Result<TcpStream> {
    let domain = Domain::for_address(peer);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((source, 0)).into())?;
    match socket.connect(&peer.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EINPROGRESS as i32) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}

/// Collects the clients that have come up.
struct Up(Vec<usize>);

impl Sink for Up {
    fn live(&mut self, at: usize) {
        self.0.push(at);
    }

    fn answer(&mut self, _: usize, _: u32, _: u8) {}

    fn recv(&mut self, _: usize, _: &str, _: u32) {}
}

fn add(a: Tally, b: Tally) -> Tally {
    Tally { verified: a.verified + b.verified, wrong: a.wrong + b.wrong, pongs: a.pongs + b.pongs }
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
