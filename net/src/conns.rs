//! The table of a shard's client connections: places, output, states. No I/O in here; the tasks
//! in [`crate::conn`] do it.
//!
//! ```text
//!            Effect::Close, or the peer's FIN       output sent → FIN
//!   Open ───────────────────────────────► Closing ─────────────────► (peer's FIN) ──► gone
//!     │ output over its bound, send failed    │ time is up
//!     └──────────────► Dead ◄─────────────────┘   shut down both ways; its tasks end ──► gone
//! ```
//!
//! A place is given to a new connection, with the next generation, when neither task of the old
//! one is left.

mod tls;

use std::{collections::VecDeque, os::fd::RawFd, sync::Arc};

use jindou_core::id::{ConnId, ShardId};

pub(crate) use self::tls::{Taken, Tls};
use crate::{
    admission::Permit,
    counters::Counters,
    rt::WriteHalf,
    settings::NetSettings,
    sys::{self, Direction},
};

/// Places that a [`ConnId`] can name.
const PLACE_COUNT_MAX: usize = 1 << 22;
/// Generations that a [`ConnId`] can name.
const GENERATION_COUNT: u32 = 1 << 20;
/// Buffers kept for reuse, and the largest one that is kept.
const POOL_COUNT_MAX: usize = 1024;
const POOL_SIZE_MAX: usize = 8 << 10;

/// See the module's picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Bytes go both ways.
    Open,
    /// No more bytes for the machine; what was written leaves, then FIN.
    Closing,
    /// Shut down both ways.
    Dead,
}

struct Conn {
    /// `None` while a send is under way, and after FIN.
    write: Option<WriteHalf>,
    /// Valid while one of the halves lives, which is as long as this entry.
    fd: RawFd,
    phase: Phase,
    /// Whether the machine may still write: until it closes, and once more when the peer does, for
    /// the answers to what came before.
    is_writable: bool,
    /// In the list of those with something to flush or to settle.
    dirty: bool,
    /// Its reader lives.
    reading: bool,
    /// A send is under way.
    sending: bool,
    /// What waits for the send under way to end.
    output: Vec<u8>,
    /// Bytes of the send under way.
    sending_size: usize,
    /// `None`: plain bytes.
    tls: Option<Box<Tls>>,
    /// Held for its drop.
    _permit: Permit,
}

impl Conn {
    /// Whether the machine knows it.
    fn is_known(&self) -> bool {
        !self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }
}

struct Place {
    generation: u32,
    conn: Option<Box<Conn>>,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// It leaves with the next flush.
    Queued,
    /// No such connection any more.
    Gone,
    /// The output was over its bound: the connection has been cut off.
    TooSlow,
}

/// A send to start.
pub(crate) struct Send {
    pub(crate) conn: ConnId,
    pub(crate) write: WriteHalf,
    pub(crate) buffer: Vec<u8>,
}

/// What a finished send leaves to do.
pub(crate) enum Sent {
    /// More came meanwhile.
    Again(WriteHalf, Vec<u8>),
    /// Nothing.
    Done,
    /// The driver must settle the connection.
    Closing,
    /// The connection is broken and the machine does not know yet.
    Broken,
}

pub(crate) struct Conns {
    shard: ShardId,
    places: Vec<Place>,
    free: Vec<u32>,
    dirty: Vec<ConnId>,
    /// Deadlines of closing connections, ascending because all have the same time.
    closing: VecDeque<(u64, ConnId)>,
    /// Deadlines of handshakes, ascending; some are over already.
    handshakes: VecDeque<(u64, ConnId)>,
    /// Handshakes under way.
    handshake_count: usize,
    pool: Vec<Vec<u8>>,
    output_size: usize,
    open_count: usize,
    settings: NetSettings,
    counters: Arc<Counters>,
}

impl Conns {
    pub(crate) fn new(shard: ShardId, settings: NetSettings, counters: Arc<Counters>) -> Self {
        Self {
            shard,
            places: Vec::new(),
            free: Vec::new(),
            dirty: Vec::new(),
            closing: VecDeque::new(),
            handshakes: VecDeque::new(),
            handshake_count: 0,
            pool: Vec::new(),
            output_size: 0,
            open_count: 0,
            settings,
            counters,
        }
    }

    /// Connections in the table.
    pub(crate) fn count(&self) -> usize {
        self.open_count
    }

    /// Bytes that wait for all connections.
    pub(crate) fn output_size(&self) -> usize {
        self.output_size
    }

    /// Takes a connection in. `None` when the table is full.
    pub(crate) fn insert(
        &mut self,
        write: WriteHalf,
        fd: RawFd,
        permit: Permit,
        tls: Option<Tls>,
        now_ms: u64,
    ) -> Option<ConnId> {
        let number = match self.free.pop() {
            Some(number) => number,
            None if self.places.len() < PLACE_COUNT_MAX => {
                self.places.push(Place { generation: 0, conn: None });
                u32::try_from(self.places.len() - 1).ok()?
            }
            None => return None,
        };
        let place = self.places.get_mut(usize::try_from(number).ok()?)?;
        // Generation 0 is left out, so that no id is 0.
        place.generation = (place.generation + 1) % GENERATION_COUNT;
        place.generation = place.generation.max(1);
        place.conn = Some(Box::new(Conn {
            write: Some(write),
            fd,
            phase: Phase::Open,
            is_writable: true,
            dirty: false,
            reading: true,
            sending: false,
            output: Vec::new(),
            sending_size: 0,
            tls: tls.map(Box::new),
            _permit: permit,
        }));
        let id = ConnId::new(self.shard, number, place.generation);
        self.count_open(self.open_count + 1);
        if self.is_handshaking(id) {
            self.begin_handshake(id, now_ms);
        }
        Some(id)
    }

    fn count_open(&mut self, count: usize) {
        self.open_count = count;
        self.counters.open.set(count as u64);
    }

    fn count_output(&mut self, size: usize) {
        self.output_size = size;
        self.counters.output_size.set(size as u64);
    }

    fn get(&mut self, id: ConnId) -> Option<&mut Conn> {
        find(&mut self.places, self.shard, id)
    }

    /// The phase; `Dead` when there is no such connection.
    pub(crate) fn phase(&mut self, id: ConnId) -> Phase {
        self.get(id).map_or(Phase::Dead, |conn| conn.phase)
    }

    fn mark(&mut self, id: ConnId) {
        if let Some(conn) = self.get(id)
            && !conn.dirty
        {
            conn.dirty = true;
            self.dirty.push(id);
        }
    }

    /// Adds to the output of a connection.
    pub(crate) fn write(&mut self, id: ConnId, bytes: &[u8]) -> Written {
        let settings = &self.settings;
        let is_total_over = self.output_size + bytes.len() > settings.output_total_size_max;
        let written = match find(&mut self.places, self.shard, id) {
            None => Written::Gone,
            Some(conn) if !conn.is_writable => Written::Gone,
            Some(conn) => {
                let size = conn.sending_size + conn.output.len() + bytes.len();
                if size > settings.output_size_max
                    || (is_total_over && size > settings.output_fair_size)
                {
                    Written::TooSlow
                } else {
                    if conn.output.capacity() == 0
                        && let Some(buffer) = self.pool.pop()
                    {
                        conn.output = buffer;
                    }
                    conn.output.extend_from_slice(bytes);
                    self.output_size += bytes.len();
                    self.counters.output_size.set(self.output_size as u64);
                    if !conn.dirty {
                        conn.dirty = true;
                        self.dirty.push(id);
                    }
                    Written::Queued
                }
            }
        };
        if written == Written::TooSlow {
            self.kill(id);
        }
        written
    }

    /// Ends a connection from our side: output, FIN, gone.
    pub(crate) fn close(&mut self, id: ConnId, now_ms: u64) {
        self.begin_close(id, now_ms);
        if let Some(conn) = self.get(id) {
            conn.is_writable = false;
        }
    }

    fn begin_close(&mut self, id: ConnId, now_ms: u64) {
        let deadline_ms = now_ms + self.settings.close_ms;
        if let Some(conn) = self.get(id)
            && conn.phase == Phase::Open
        {
            conn.phase = Phase::Closing;
            self.closing.push_back((deadline_ms, id));
            self.mark(id);
            self.uncount(id);
        }
    }

    /// Cuts a connection off. Its tasks notice and end.
    pub(crate) fn kill(&mut self, id: ConnId) {
        let Some(conn) = self.get(id) else {
            return;
        };
        conn.phase = Phase::Dead;
        conn.is_writable = false;
        let output = std::mem::take(&mut conn.output);
        let fd = conn.fd;
        self.count_output(self.output_size - output.len());
        self.recycle(output);
        sys::shutdown(fd, Direction::Both);
        self.mark(id);
        self.uncount(id);
    }

    /// The reader has ended: at the peer's FIN (`clean`) or with an error. Whether the machine
    /// must be told.
    pub(crate) fn read_ended(&mut self, id: ConnId, clean: bool, now_ms: u64) -> bool {
        let Some(conn) = self.get(id) else {
            return false;
        };
        conn.reading = false;
        let was_open = conn.phase == Phase::Open && conn.is_known();
        if clean {
            self.begin_close(id, now_ms);
            self.mark(id);
        } else {
            self.kill(id);
        }
        was_open
    }

    /// A send has ended.
    pub(crate) fn sent(
        &mut self,
        id: ConnId,
        write: WriteHalf,
        mut buffer: Vec<u8>,
        ok: bool,
    ) -> Sent {
        buffer.clear();
        if ok {
            self.seal(id);
        }
        let Some(conn) = self.get(id) else {
            self.recycle(buffer);
            return Sent::Done;
        };
        let done = std::mem::take(&mut conn.sending_size);
        if ok && conn.phase != Phase::Dead && !conn.output.is_empty() {
            std::mem::swap(&mut conn.output, &mut buffer);
            conn.sending_size = buffer.len();
            self.count_output(self.output_size - done);
            return Sent::Again(write, buffer);
        }
        conn.sending = false;
        conn.write = Some(write);
        let is_known = conn.is_known();
        let was_open = conn.phase == Phase::Open;
        self.count_output(self.output_size - done);
        self.recycle(buffer);
        if ok {
            // Not settled here: the machine may have bytes of this connection still to answer.
            if was_open {
                return Sent::Done;
            }
            self.mark(id);
            return Sent::Closing;
        }
        self.kill(id);
        if was_open && is_known { Sent::Broken } else { Sent::Closing }
    }

    /// Hands out every send that can start, and settles what is closing.
    pub(crate) fn flush(&mut self, mut start: impl FnMut(Send)) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for id in dirty.drain(..) {
            if self.get(id).is_some_and(|conn| conn.tls.is_some() && conn.write.is_some()) {
                self.seal(id);
            }
            let Some(conn) = self.get(id) else {
                continue;
            };
            conn.dirty = false;
            if !conn.output.is_empty()
                && let Some(write) = conn.write.take()
            {
                let buffer = std::mem::take(&mut conn.output);
                conn.sending = true;
                conn.sending_size = buffer.len();
                start(Send { conn: id, write, buffer });
            } else {
                self.settle(id);
            }
        }
        // Keep the list's memory. Nothing was added meanwhile.
        self.dirty = dirty;
    }

    /// Sends FIN when the output of a closing connection has left, and forgets a connection that
    /// has no task left.
    fn settle(&mut self, id: ConnId) {
        let Some(conn) = self.get(id) else {
            return;
        };
        if conn.phase == Phase::Open || conn.sending || !conn.output.is_empty() {
            return;
        }
        let is_over = !conn.reading;
        conn.is_writable = false;
        drop(conn.write.take());
        if is_over && let Some(place) = self.places.get_mut(id.place()) {
            place.conn = None;
            self.count_open(self.open_count - 1);
            if let Ok(number) = u32::try_from(id.place()) {
                self.free.push(number);
            }
        }
    }

    /// When [`Conns::sweep`] must be called next.
    pub(crate) fn deadline(&self) -> Option<u64> {
        let fronts = [self.closing.front(), self.handshakes.front()];
        fronts.into_iter().flatten().map(|&(deadline, _)| deadline).min()
    }

    /// Cuts off what has been closing, or shaking hands, for too long. Returns how many were closing.
    pub(crate) fn sweep(&mut self, now_ms: u64) -> u64 {
        let mut count = 0;
        while let Some(&(_, id)) = self.handshakes.front().filter(|(at, _)| *at <= now_ms) {
            self.handshakes.pop_front();
            self.end_handshake(id);
        }
        while let Some(&(deadline, id)) = self.closing.front() {
            if deadline > now_ms {
                break;
            }
            self.closing.pop_front();
            if self.phase(id) == Phase::Closing {
                self.kill(id);
                count += 1;
            }
        }
        count
    }

    /// Every connection.
    pub(crate) fn ids(&self) -> Vec<ConnId> {
        self.places
            .iter()
            .zip(0_u32..)
            .filter(|(place, _)| place.conn.is_some())
            .map(|(place, number)| ConnId::new(self.shard, number, place.generation))
            .collect()
    }

    /// Keeps the memory of a buffer, within bounds.
    fn recycle(&mut self, mut buffer: Vec<u8>) {
        if (1..=POOL_SIZE_MAX).contains(&buffer.capacity()) && self.pool.len() < POOL_COUNT_MAX {
            buffer.clear();
            self.pool.push(buffer);
        }
    }
}

fn find(places: &mut [Place], shard: ShardId, id: ConnId) -> Option<&mut Conn> {
    let number = id.place();
    let place = places.get_mut(number)?;
    let number = u32::try_from(number).ok()?;
    if ConnId::new(shard, number, place.generation) != id {
        return None;
    }
    place.conn.as_deref_mut()
}
