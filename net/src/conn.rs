//! The tasks of a client connection: one that reads while it is open, one per burst of output.
//!
//! An idle connection is a task that waits for readability and holds no buffer.

use jindou_core::{effect::Event, id::ConnId};
use monoio::buf::IoBuf;

use crate::{
    conns::{Phase, Send, Sent, Taken},
    handle::Handle,
    rt::{self, ReadHalf, SharedBuffer, WriteHalf},
};

/// Reads of one connection per turn.
const READ_COUNT_MAX: u32 = 4;
/// Parts of handshakes in one turn, of all connections. A signature of RSA takes most of a
/// millisecond.
const HANDSHAKE_COUNT_MAX: u32 = 8;

/// How a reader ends.
enum End {
    /// The peer's FIN.
    Clean,
    /// An error, or we cut it off.
    Broken,
}

/// Reads until the end. Never dropped before: it ends when the socket is shut down.
pub(crate) async fn read(handle: Handle, conn: ConnId, mut half: ReadHalf) {
    let end = match &handle.0.shared_buffer {
        Some(buffer) => read_shared(&handle, conn, &mut half, buffer).await,
        None => read_pooled(&handle, conn, &mut half).await,
    };
    drop(half);
    let now_ms = handle.now().mono_ms;
    let is_clean = matches!(end, End::Clean);
    let must_tell = handle.0.conns.borrow_mut().read_ended(conn, is_clean, now_ms);
    if must_tell {
        handle.push(Event::Closed { conn });
    } else {
        // The driver settles the connection.
        handle.0.notify.notify();
    }
}

/// On io_uring: waits for readability without a buffer, then reads through the ring into one from
/// the pool. Costs as much as a read that waits with a buffer of its own, and 12 % less than
/// readability and a `recv` call (echo of 128 B: 6.2 and 7.1 µs).
async fn read_pooled(handle: &Handle, conn: ConnId, half: &mut ReadHalf) -> End {
    loop {
        if half.readable().await.is_err() {
            return End::Broken;
        }
        handle.wait_for_room(conn).await;
        // There are bytes, so this comes back with the next submission.
        let buffer = handle.0.pool.borrow_mut().lend();
        let (result, buffer) = half.read(buffer).await;
        let end = handle.take_read(conn, &result, &buffer);
        handle.0.pool.borrow_mut().give_back(buffer);
        if let Some(end) = end {
            return end;
        }
    }
}

/// On epoll: a read that finds nothing waits, and needs the buffer only once there is something.
async fn read_shared(
    handle: &Handle,
    conn: ConnId,
    half: &mut ReadHalf,
    buffer: &SharedBuffer,
) -> End {
    let (mut turn, mut count) = (0, 0);
    loop {
        handle.wait_for_room(conn).await;
        let result = half.read_shared(buffer).await;
        let size = *result.as_ref().unwrap_or(&0);
        let end = buffer.with(size, |bytes| handle.take_read(conn, &result, bytes));
        if let Some(end) = end {
            return end;
        }
        // A peer that sends without a pause must not keep the others waiting.
        let turn_now = handle.0.gate.turn();
        count = if turn == turn_now { count + 1 } else { 1 };
        turn = turn_now;
        if count >= READ_COUNT_MAX {
            handle.next_turn().await;
        }
    }
}

impl Handle {
    /// Waits while the next step has enough to do already; and, before a part of a handshake, while
    /// this turn has seen enough of them: each may cost a signature.
    async fn wait_for_room(&self, conn: ConnId) {
        while self.0.gate.is_shut()
            || self.0.inbox.borrow().bytes.len() > self.0.settings.inbox_size_max
        {
            self.0.gate.pass(self.0.gate.turn()).await;
        }
        if self.0.has_tls.get() {
            while self.0.conns.borrow().is_handshaking(conn) && !self.may_shake_hands() {
                self.next_turn().await;
            }
        }
    }

    /// Takes one of the places for parts of handshakes in this turn.
    fn may_shake_hands(&self) -> bool {
        let turn = self.0.gate.turn();
        let (of, count) = self.0.handshakes.get();
        let count = if of == turn { count } else { 0 };
        let may = count < HANDSHAKE_COUNT_MAX;
        self.0.handshakes.set((turn, count + u32::from(may)));
        may
    }

    /// Takes the outcome of a read; `bytes` holds what came.
    fn take_read(
        &self,
        conn: ConnId,
        result: &std::io::Result<usize>,
        bytes: &[u8],
    ) -> Option<End> {
        match result {
            Ok(0) => Some(End::Clean),
            Ok(_) => self.take_bytes(conn, bytes),
            Err(error) if is_passing(error) => None,
            Err(_) => Some(End::Broken),
        }
    }

    /// Hands bytes to the machine; those of a connection that is closing are thrown away.
    fn take_bytes(&self, conn: ConnId, bytes: &[u8]) -> Option<End> {
        self.0.counters.reads.add(1);
        self.0.counters.bytes_in.add(bytes.len() as u64);
        let mut conns = self.0.conns.borrow_mut();
        if conns.phase(conn) != Phase::Open {
            return None;
        }
        let now_ms = self.now().mono_ms;
        let taken = conns.take(conn, bytes, &mut self.0.inbox.borrow_mut(), now_ms);
        self.0.notify.notify();
        match taken {
            Taken::Well => {}
            Taken::Ended => return Some(End::Clean),
            Taken::Wrong { must_tell: true } => self.push(Event::Closed { conn }),
            Taken::Wrong { must_tell: false } => {}
        }
        None
    }

    /// Starts every send that can start.
    pub(crate) fn flush(&self) {
        let mut conns = self.0.conns.borrow_mut();
        conns.flush(|send| rt::spawn(write(self.clone(), send)));
        drop(conns);
        for flush in self.0.flushers.borrow().iter() {
            flush();
        }
    }
}

/// Whether an operation may just be tried again.
pub(crate) fn is_passing(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{Interrupted, WouldBlock};
    matches!(error.kind(), WouldBlock | Interrupted)
}

/// Sends a buffer, then what has gathered meanwhile, until there is nothing.
async fn write(handle: Handle, send: Send) {
    let Send { conn, mut write, mut buffer } = send;
    loop {
        let ok;
        (ok, buffer) = write_all(&handle, &mut write, buffer).await;
        let sent = handle.0.conns.borrow_mut().sent(conn, write, buffer, ok);
        match sent {
            Sent::Again(half, more) => (write, buffer) = (half, more),
            Sent::Done => return,
            Sent::Closing => return handle.0.notify.notify(),
            Sent::Broken => return handle.push(Event::Closed { conn }),
        }
    }
}

async fn write_all(handle: &Handle, write: &mut WriteHalf, mut buffer: Vec<u8>) -> (bool, Vec<u8>) {
    let counters = &handle.0.counters;
    let mut start = 0;
    while start < buffer.len() {
        let (result, slice) = write.write(buffer.slice(start..)).await;
        buffer = slice.into_inner();
        counters.sends.add(1);
        match result {
            Ok(size) if size > 0 => {
                start += size;
                counters.bytes_out.add(size as u64);
            }
            Err(error) if is_passing(&error) => {}
            Ok(_) | Err(_) => return (false, buffer),
        }
    }
    (true, buffer)
}
