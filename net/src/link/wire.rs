//! One socket of a link: what waits to leave, and the task that sends it.
//!
//! One send is in flight; everything queued meanwhile goes out in the next. Pings and their
//! answers overtake what waits, at the bounds of frames, so that a burst does not pass for
//! silence. This is also the seam for TLS: bytes are sealed in [`send`] and opened in
//! [`Wire::read_frame`], nowhere else. What waits is plaintext, and counted as such.

use std::{
    cell::{Cell, RefCell},
    io,
    net::Shutdown,
    rc::Rc,
};

use monoio::{buf::IoBuf, net::TcpStream};
use socket2::Socket;

use super::{
    frame::{self, Frame, FrameError, FrameReader, HANDSHAKE_SIZE_MAX},
    fuse::Fuse,
    output::Output,
    tls::{Session, TlsFault},
};
use crate::{
    conn::is_passing,
    handle::Handle,
    pool::BufferPool,
    rt::{self, ReadHalf, SharedBuffer, WriteHalf},
    sys,
};

/// What one read takes at most, and the buffers for it that a shard keeps.
const READ_SIZE: usize = 64 << 10;
const READ_BUFFER_COUNT_MAX: usize = 16;
/// A chunk over this size leaves in pieces.
const PIECE_SIZE: usize = 256 << 10;
/// Reads after which others have a turn.
const READ_COUNT_MAX: u32 = 4;
/// What the kernel holds of our output beyond what is on its way, so that pings need not wait
/// behind megabytes.
const UNSENT_SIZE: u32 = 128 << 10;

/// What ends a link.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error("the peer closed it")]
    Closed,
    #[error("{0}")]
    Io(String),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Tls(#[from] TlsFault),
    #[error("the peer takes nothing: {0} bytes wait")]
    TooSlow(usize),
}

/// Starts the sends of a shard's links, at the end of each turn of its driver.
#[derive(Clone)]
pub(crate) struct Flusher(Rc<FlusherInner>);

struct FlusherInner {
    handle: Handle,
    dirty: RefCell<Vec<Rc<Wire>>>,
    /// As for clients: a link that waits holds no buffer. One on epoll, a pool on io_uring.
    shared_buffer: Option<SharedBuffer>,
    pool: RefCell<BufferPool>,
}

impl Flusher {
    /// One per shard.
    pub(crate) fn new(handle: &Handle) -> Self {
        Self(Rc::new(FlusherInner {
            handle: handle.clone(),
            dirty: RefCell::default(),
            shared_buffer: SharedBuffer::new(handle.0.driver, READ_SIZE),
            pool: RefCell::new(BufferPool::new(READ_SIZE, READ_BUFFER_COUNT_MAX)),
        }))
    }

    /// Starts every send that can start.
    pub(crate) fn flush(&self) {
        let dirty = std::mem::take(&mut *self.0.dirty.borrow_mut());
        for wire in dirty {
            wire.is_dirty.set(false);
            wire.start();
        }
    }
}

/// What a socket has carried.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) bytes_in: Cell<u64>,
    pub(crate) bytes_out: Cell<u64>,
    pub(crate) frames_in: Cell<u64>,
    pub(crate) frames_out: Cell<u64>,
}

impl Traffic {
    fn take(&self, other: &Self) {
        add(&self.bytes_in, other.bytes_in.get());
        add(&self.bytes_out, other.bytes_out.get());
        add(&self.frames_in, other.frames_in.get());
        add(&self.frames_out, other.frames_out.get());
    }
}

fn add(cell: &Cell<u64>, count: u64) {
    cell.set(cell.get().wrapping_add(count));
}

/// See the module.
pub(crate) struct Wire {
    flusher: Flusher,
    fuse: Rc<Fuse>,
    /// `None` while a send is under way.
    write: RefCell<Option<WriteHalf>>,
    output: RefCell<Output>,
    session: Option<RefCell<Session>>,
    /// Bytes that wait or are under way.
    size: Cell<usize>,
    size_max: usize,
    is_dirty: Cell<bool>,
    is_cut: Cell<bool>,
    /// FIN when all has left.
    is_finishing: Cell<bool>,
    /// When bytes came last.
    heard_ms: Cell<u64>,
    /// When a piece of a large chunk left last.
    moved_ms: Cell<u64>,
    traffic: RefCell<Rc<Traffic>>,
}

/// The reading end: the half, and what was read too far.
pub(crate) struct Reading {
    half: ReadHalf,
    reader: FrameReader,
    turn: u64,
    count: u32,
}

impl Reading {
    /// Ends the bound of the handshake.
    pub(crate) fn set_size_max(&mut self, size_max: usize) {
        self.reader.set_size_max(size_max);
    }
}

/// Sets what every socket of a link has.
pub(crate) fn prepare(socket: &Socket) {
    // A socket without them works too.
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_notsent_lowat(UNSENT_SIZE);
}

/// A second descriptor, of the kind that can be shut down at any time.
pub(crate) fn duplicate(stream: &TcpStream) -> io::Result<Socket> {
    sys::duplicate(stream).map(Socket::from)
}

impl Wire {
    /// Takes a connected socket; `fuse` is of the same one, and `session` its TLS.
    pub(crate) fn new(
        stream: TcpStream,
        fuse: Rc<Fuse>,
        flusher: &Flusher,
        size_max: usize,
        traffic: Rc<Traffic>,
        session: Option<Session>,
    ) -> (Rc<Self>, Reading) {
        let (half, write) = rt::split(stream);
        let wire = Rc::new(Self {
            flusher: flusher.clone(),
            fuse,
            write: RefCell::new(Some(write)),
            output: RefCell::default(),
            session: session.map(RefCell::new),
            size: Cell::new(0),
            size_max,
            is_dirty: Cell::new(false),
            is_cut: Cell::new(false),
            is_finishing: Cell::new(false),
            heard_ms: Cell::new(flusher.0.handle.now().mono_ms),
            moved_ms: Cell::new(0),
            traffic: RefCell::new(traffic),
        });
        let reading =
            Reading { half, reader: FrameReader::new(HANDSHAKE_SIZE_MAX), turn: 0, count: 0 };
        (wire, reading)
    }

    /// Counts there from now on, and what was counted so far.
    pub(crate) fn count_at(&self, traffic: &Rc<Traffic>) {
        let before = self.traffic.replace(Rc::clone(traffic));
        if !Rc::ptr_eq(&before, traffic) {
            traffic.take(&before);
        }
    }

    /// Bytes that wait or are under way.
    pub(crate) fn size(&self) -> usize {
        self.size.get()
    }

    /// When bytes came last.
    pub(crate) fn heard_ms(&self) -> u64 {
        self.heard_ms.get()
    }

    /// When the other end has shown a sign of life: it sent something, or took a piece of a large
    /// chunk, behind which pings wait.
    pub(crate) fn alive_ms(&self) -> u64 {
        self.heard_ms.get().max(self.moved_ms.get())
    }

    pub(crate) fn fuse(&self) -> &Fuse {
        &self.fuse
    }

    /// Cuts the socket off. What waits is dropped, the reader ends.
    pub(crate) fn cut(&self) {
        if !self.is_cut.replace(true) {
            self.fuse.blow();
            *self.output.borrow_mut() = Output::default();
        }
    }

    /// FIN when all that was queued has left; nothing more is queued.
    pub(crate) fn finish(self: &Rc<Self>) {
        self.is_finishing.set(true);
        self.mark();
    }

    fn mark(self: &Rc<Self>) {
        if !self.is_dirty.replace(true) {
            let flusher = &self.flusher.0;
            flusher.dirty.borrow_mut().push(Rc::clone(self));
            flusher.handle.0.notify.notify();
        }
    }

    /// Puts something into the output; it leaves after this turn of the driver.
    fn put<T>(
        self: &Rc<Self>,
        size: usize,
        put: impl FnOnce(&mut Output) -> (usize, T),
    ) -> Result<Option<T>, WireError> {
        if self.is_cut.get() || self.is_finishing.get() {
            return Ok(None);
        }
        if self.size.get() + size > self.size_max {
            return Err(WireError::TooSlow(self.size.get()));
        }
        let (size, result) = put(&mut self.output.borrow_mut());
        self.size.set(self.size.get() + size);
        self.mark();
        Ok(Some(result))
    }

    /// Queues a frame. Does nothing on a socket that was cut off.
    pub(crate) fn queue(self: &Rc<Self>, frame: &Frame) -> Result<(), WireError> {
        let is_urgent = matches!(frame, Frame::Ping(_) | Frame::Pong(_));
        self.put(frame.body_size(), |output| {
            let out = if is_urgent { &mut output.urgent } else { output.tail() };
            let before = out.len();
            frame.encode(out);
            (out.len() - before, ())
        })?;
        self.count_out(Some(frame));
        Ok(())
    }

    /// Adds an envelope to the frame of envelopes that leaves after this turn. Returns its size;
    /// over `max` it is taken back.
    pub(crate) fn queue_envelope(
        self: &Rc<Self>,
        max: usize,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> Result<Option<usize>, WireError> {
        let size = self.put(0, |output| {
            let (out, start) = output.batch();
            let at = out.len();
            let is_first = at == start + frame::HEAD_SIZE;
            encode(out);
            let size = out.len() - at;
            if size > max {
                out.truncate(if is_first { start } else { at });
                if is_first {
                    output.open = None;
                }
                return (0, (size, false));
            }
            let head = if is_first { frame::HEAD_SIZE } else { 0 };
            (size + head, (size, is_first))
        })?;
        if let Some((_, true)) = size {
            self.count_out(None);
        }
        Ok(size.map(|(size, _)| size))
    }

    /// Starts a send, if there is something and none is under way.
    fn start(self: &Rc<Self>) {
        let half = self.write.borrow_mut().take();
        if let Some(half) = half {
            match self.pop() {
                Some(chunk) => rt::spawn(send(Rc::clone(self), half, chunk)),
                None => self.rest(half),
            }
        }
    }

    /// What leaves next: an empty chunk when only TLS has something to say.
    fn pop(&self) -> Option<Vec<u8>> {
        if self.is_cut.get() {
            return None;
        }
        let chunk = self.output.borrow_mut().pop();
        chunk.or_else(|| self.has_tls_output().then(Vec::new))
    }

    fn has_tls_output(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.borrow().has_output())
    }

    /// Takes what came.
    fn open(&self, reader: &mut FrameReader, bytes: &[u8]) -> Result<(), TlsFault> {
        match &self.session {
            Some(session) => session.borrow_mut().open(bytes, |plain| reader.push(plain)),
            None => {
                reader.push(bytes);
                Ok(())
            }
        }
    }

    /// Seals plaintext into `out`, and puts before it what TLS has to say.
    fn seal(session: &RefCell<Session>, plain: &[u8], out: &mut Vec<u8>) -> Result<(), TlsFault> {
        let mut session = session.borrow_mut();
        session.seal(plain)?;
        session.pull(out)
    }

    /// Nothing is left to send.
    fn rest(&self, half: WriteHalf) {
        *self.write.borrow_mut() = Some(half);
        if self.is_finishing.get() {
            // It may have gone by itself.
            let _ = self.fuse.socket.shutdown(Shutdown::Write);
        }
    }

    /// The next frame. Never dropped before it returns: it ends when the socket is cut off.
    pub(crate) async fn read_frame(
        self: &Rc<Self>,
        reading: &mut Reading,
    ) -> Result<Frame, WireError> {
        loop {
            if let Some(frame) = reading.reader.next()? {
                self.count_in(&frame);
                return Ok(frame);
            }
            self.yield_to_others(reading).await;
            match self.read(reading).await {
                Ok((0, _)) => return Err(WireError::Closed),
                Ok((size, opened)) => {
                    self.count_read(size);
                    // An answer of TLS, or its last word.
                    if self.has_tls_output() {
                        self.mark();
                    }
                    opened?;
                }
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(WireError::Io(error.to_string())),
            }
        }
    }

    /// How much came, and whether it could be opened.
    async fn read(&self, reading: &mut Reading) -> io::Result<(usize, Result<(), TlsFault>)> {
        let shared = &self.flusher.0;
        if let Some(buffer) = &shared.shared_buffer {
            let size = reading.half.read_shared(buffer).await?;
            return Ok((size, buffer.with(size, |bytes| self.open(&mut reading.reader, bytes))));
        }
        reading.half.readable().await?;
        let buffer = shared.pool.borrow_mut().lend();
        let (result, buffer) = reading.half.read(buffer).await;
        let result = result.map(|size| (size, self.open(&mut reading.reader, &buffer)));
        shared.pool.borrow_mut().give_back(buffer);
        result
    }

    fn count_in(&self, frame: &Frame) {
        add(&self.traffic.borrow().frames_in, 1);
        let counters = self.flusher.0.handle.counters();
        counters.link_frames_in.add(1);
        if frame.is_raft() {
            counters.link_raft_frames_in.add(1);
            counters.link_raft_bytes_in.add(frame.body_size() as u64);
        }
    }

    /// A frame was queued; `None`: one of envelopes.
    fn count_out(&self, frame: Option<&Frame>) {
        add(&self.traffic.borrow().frames_out, 1);
        let counters = self.flusher.0.handle.counters();
        counters.link_frames_out.add(1);
        if let Some(frame) = frame.filter(|frame| frame.is_raft()) {
            counters.link_raft_frames_out.add(1);
            counters.link_raft_bytes_out.add(frame.body_size() as u64);
        }
    }

    fn count_read(&self, size: usize) {
        let handle = &self.flusher.0.handle;
        add(&self.traffic.borrow().bytes_in, size as u64);
        handle.counters().link_bytes_in.add(size as u64);
        self.heard_ms.set(handle.now().mono_ms);
    }

    /// A peer that sends without a pause must not keep the others waiting.
    async fn yield_to_others(&self, reading: &mut Reading) {
        let handle = &self.flusher.0.handle;
        let turn = handle.0.gate.turn();
        reading.count = if reading.turn == turn { reading.count + 1 } else { 1 };
        reading.turn = turn;
        if reading.count > READ_COUNT_MAX {
            handle.0.notify.notify();
            handle.0.gate.begin(turn).await;
        }
    }

    /// Reads to the end, for at most as long as the fuse allows.
    pub(crate) async fn read_out(self: &Rc<Self>, reading: &mut Reading) {
        while let Ok(_refused) = self.read_frame(reading).await {}
    }
}

/// Sends a chunk, then what has gathered meanwhile, until there is nothing.
async fn send(wire: Rc<Wire>, mut half: WriteHalf, mut chunk: Vec<u8>) {
    let mut sealed = Vec::new();
    loop {
        let size = chunk.len();
        let is_sent;
        (is_sent, chunk) = match &wire.session {
            Some(session) => send_sealed(&wire, &mut half, session, chunk, &mut sealed).await,
            None => send_plain(&wire, &mut half, chunk, size > PIECE_SIZE).await,
        };
        wire.size.set(wire.size.get().saturating_sub(size));
        if !is_sent {
            wire.cut();
        }
        wire.output.borrow_mut().recycle(chunk);
        match wire.pop() {
            Some(next) => chunk = next,
            None => break,
        }
    }
    wire.rest(half);
}

/// Seals a chunk piece by piece and sends each.
async fn send_sealed(
    wire: &Wire,
    half: &mut WriteHalf,
    session: &RefCell<Session>,
    chunk: Vec<u8>,
    sealed: &mut Vec<u8>,
) -> (bool, Vec<u8>) {
    let is_large = chunk.len() > PIECE_SIZE;
    let mut pieces = chunk.chunks(PIECE_SIZE);
    // Also without plaintext TLS may have something to say.
    let mut next = Some(pieces.next().unwrap_or_default());
    while let Some(plain) = next {
        let mut out = std::mem::take(sealed);
        out.clear();
        let result = Wire::seal(session, plain, &mut out);
        let is_sent;
        (is_sent, *sealed) = send_plain(wire, half, out, is_large).await;
        if result.is_err() || !is_sent {
            return (false, chunk);
        }
        next = pieces.next();
    }
    (true, chunk)
}

/// Sends bytes as they are. What is large leaves in pieces, and each is a sign of life.
async fn send_plain(
    wire: &Wire,
    half: &mut WriteHalf,
    mut chunk: Vec<u8>,
    is_large: bool,
) -> (bool, Vec<u8>) {
    let mut start = 0;
    while start < chunk.len() {
        let end = chunk.len().min(start + PIECE_SIZE);
        let (result, slice) = half.write(chunk.slice(start..end)).await;
        chunk = slice.into_inner();
        match result {
            Ok(size) if size > 0 => {
                start += size;
                add(&wire.traffic.borrow().bytes_out, size as u64);
                let handle = &wire.flusher.0.handle;
                handle.counters().link_bytes_out.add(size as u64);
                if is_large {
                    wire.moved_ms.set(handle.now().mono_ms);
                }
            }
            Err(error) if is_passing(&error) => {}
            Ok(_) | Err(_) => return (false, chunk),
        }
    }
    (true, chunk)
}
