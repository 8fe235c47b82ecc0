//! Connections with TLS. The machine hears of one when its handshake is over; from then on it reads
//! and writes plain bytes. What it writes gathers in plain form and is sealed when a send starts, so
//! that a burst makes few records.
//!
//! A handshake is nobody's yet: it has a time, and there is a bound on how many are under way. Over
//! it the oldest ends, so that a flood of silent ones keeps no place from a quick one.

use std::net::SocketAddr;

use jindou_core::{
    effect::{Event, Inbox, Port},
    id::ConnId,
};

use super::{Conns, Phase, find};
use crate::link::tls::{Session, TlsFault};

/// The TLS side of a connection.
pub(crate) struct Tls {
    session: Session,
    /// What the machine is told when the handshake is over; `None`: it knows.
    opens: Option<(Port, SocketAddr)>,
    /// Counted among the handshakes under way.
    is_counted: bool,
    /// Nothing follows: the peer was told so.
    is_finished: bool,
}

/// What came of bytes that were read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// They are with the machine, or with the session.
    Well,
    /// The peer has said that nothing follows.
    Ended,
    /// They are not what TLS says: the connection closes. Whether the machine must be told.
    Wrong { must_tell: bool },
}

impl Tls {
    /// A connection whose handshake begins.
    pub(crate) fn new(session: Session, port: Port, peer: SocketAddr) -> Self {
        Self { session, opens: Some((port, peer)), is_counted: false, is_finished: false }
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.opens.is_some()
    }
}

impl Conns {
    /// Takes what was read from an open connection.
    pub(crate) fn take(
        &mut self,
        id: ConnId,
        bytes: &[u8],
        inbox: &mut Inbox,
        now_ms: u64,
    ) -> Taken {
        let Some(tls) = find(&mut self.places, self.shard, id).and_then(|conn| conn.tls.as_mut())
        else {
            inbox.push_bytes(id, bytes);
            return Taken::Well;
        };
        let opens = &mut tls.opens;
        let opened = tls.session.open(bytes, |plain| {
            // The handshake's last message may come with the first bytes behind it.
            if let Some((port, peer)) = opens.take() {
                inbox.events.push(Event::Opened { conn: id, port, peer });
            }
            inbox.push_bytes(id, plain);
        });
        if !tls.session.is_handshaking()
            && opened.is_ok()
            && let Some((port, peer)) = tls.opens.take()
        {
            inbox.events.push(Event::Opened { conn: id, port, peer });
        }
        let is_known = tls.opens.is_none();
        if is_known {
            self.uncount(id);
        }
        // An answer, or an alert that says what was wrong.
        self.mark(id);
        match opened {
            Ok(()) => Taken::Well,
            Err(TlsFault::Closed) => Taken::Ended,
            Err(fault) => {
                let why =
                    if let TlsFault::Plain = fault { "no TLS".into() } else { fault.to_string() };
                tracing::debug!(%why, "a TLS connection ends");
                self.close(id, now_ms);
                Taken::Wrong { must_tell: is_known }
            }
        }
    }

    /// Whether the handshake of a connection is under way.
    pub(crate) fn is_handshaking(&self, id: ConnId) -> bool {
        let conn = self.places.get(id.place()).and_then(|place| place.conn.as_deref());
        conn.and_then(|conn| conn.tls.as_deref()).is_some_and(Tls::is_handshaking)
    }

    /// A handshake begins: it gets its time, and the oldest ends when there are too many.
    pub(super) fn begin_handshake(&mut self, id: ConnId, now_ms: u64) {
        let deadline_ms = now_ms + self.settings.handshake_ms;
        self.handshakes.push_back((deadline_ms, id));
        self.handshake_count += 1;
        if let Some(tls) = self.get(id).and_then(|conn| conn.tls.as_mut()) {
            tls.is_counted = true;
        }
        while self.handshake_count > self.settings.handshake_count_max
            && let Some((_, oldest)) = self.handshakes.pop_front()
        {
            self.end_handshake(oldest);
        }
    }

    /// Cuts a connection off whose handshake is under way. Whether it was.
    pub(super) fn end_handshake(&mut self, id: ConnId) -> bool {
        let is_open = self.phase(id) == Phase::Open && self.is_handshaking(id);
        if is_open {
            self.counters.handshakes_cut.add(1);
            self.kill(id);
        }
        is_open
    }

    /// A handshake is over, in one way or another.
    pub(super) fn uncount(&mut self, id: ConnId) {
        if let Some(tls) = find(&mut self.places, self.shard, id).and_then(|conn| conn.tls.as_mut())
            && std::mem::take(&mut tls.is_counted)
        {
            self.handshake_count -= 1;
        }
    }

    /// Makes what waits for a connection what leaves: seals it, behind what the session itself has to
    /// say. Called when no send is under way, and the send starts at once. When the connection
    /// closes and nothing waits any more, the peer is told that nothing follows.
    pub(super) fn seal(&mut self, id: ConnId) {
        let Some(conn) = find(&mut self.places, self.shard, id) else {
            return;
        };
        let Some(tls) = conn.tls.as_mut().filter(|_| conn.phase != Phase::Dead) else {
            return;
        };
        if conn.phase == Phase::Closing && conn.output.is_empty() && !tls.is_finished {
            tls.is_finished = true;
            conn.is_writable = false;
            tls.session.finish();
        }
        let plain_size = conn.output.len();
        if plain_size == 0 && !tls.session.has_output() {
            return;
        }
        let sealed = tls.session.seal(&conn.output);
        conn.output.clear();
        let pulled = sealed.and_then(|()| tls.session.pull(&mut conn.output));
        let size = conn.output.len();
        self.count_output(self.output_size - plain_size + size);
        if pulled.is_err() {
            // Only a session that has failed before takes nothing more.
            self.kill(id);
        }
    }
}
