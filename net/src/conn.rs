//! The tasks of a client connection: one that reads while it is open, one per burst of output.
//!
//! An idle connection is a task that waits for readability and holds no buffer.

use jindou_core::{effect::Event, id::ConnId};
use monoio::buf::IoBuf;

use crate::{
    conns::{Phase, Send, Sent},
    handle::Handle,
    rt::{self, ReadHalf, WriteHalf},
    sys,
};

/// How a reader ends.
enum End {
    /// The peer's FIN.
    Clean,
    /// An error, or we cut it off.
    Broken,
}

/// Reads until the end. Never dropped before: it ends when the socket is shut down.
pub(crate) async fn read(handle: Handle, conn: ConnId, half: ReadHalf) {
    let end = read_all(&handle, conn, &half).await;
    drop(half);
    let now_ms = handle.now().mono_ms;
    let is_clean = matches!(end, End::Clean);
    let must_tell = handle
        .0
        .conns
        .borrow_mut()
        .read_ended(conn, is_clean, now_ms);
    if must_tell {
        handle.push(Event::Closed { conn });
    } else {
        // The driver settles the connection.
        handle.0.notify.notify();
    }
}

async fn read_all(handle: &Handle, conn: ConnId, half: &ReadHalf) -> End {
    loop {
        if half.readable().await.is_err() {
            return End::Broken;
        }
        while handle.is_full() {
            let turn = handle.0.gate.turn();
            handle.0.gate.pass(turn).await;
        }
        if let Some(end) = handle.receive(conn, half) {
            return end;
        }
    }
}

impl Handle {
    /// Whether the next step has enough to do already.
    fn is_full(&self) -> bool {
        self.0.gate.is_shut() || self.0.inbox.borrow().bytes.len() > self.0.settings.inbox_size_max
    }

    /// Takes what a socket has, at most one buffer full.
    fn receive(&self, conn: ConnId, half: &ReadHalf) -> Option<End> {
        let mut buffer = self.0.read_buffer.borrow_mut();
        match sys::recv_now(half, &mut buffer) {
            Ok(0) => Some(End::Clean),
            Ok(size) => {
                self.take_bytes(conn, buffer.get(..size).unwrap_or_default());
                None
            }
            Err(error) if is_passing(&error) => None,
            Err(_) => Some(End::Broken),
        }
    }

    /// Hands bytes to the machine; those of a connection that is closing are thrown away.
    fn take_bytes(&self, conn: ConnId, bytes: &[u8]) {
        self.0.counters.reads.add(1);
        self.0.counters.bytes_in.add(bytes.len() as u64);
        if self.0.conns.borrow_mut().phase(conn) == Phase::Open {
            self.0.inbox.borrow_mut().push_bytes(conn, bytes);
            self.0.notify.notify();
        }
    }

    /// Starts every send that can start.
    pub(crate) fn flush(&self) {
        let mut conns = self.0.conns.borrow_mut();
        conns.flush(|send| rt::spawn(write(self.clone(), send)));
    }
}

/// Whether an operation may just be tried again.
fn is_passing(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{Interrupted, WouldBlock};
    matches!(error.kind(), WouldBlock | Interrupted)
}

/// Sends a buffer, then what has gathered meanwhile, until there is nothing.
async fn write(handle: Handle, send: Send) {
    let Send {
        conn,
        mut write,
        mut buffer,
    } = send;
    loop {
        let ok;
        (ok, buffer) = write_all(&handle, &mut write, buffer).await;
        let sent = handle.0.conns.borrow_mut().sent(conn, write, buffer, ok);
        match sent {
            Sent::Again(half, more) => (write, buffer) = (half, more),
            Sent::Done => return,
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
