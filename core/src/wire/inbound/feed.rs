//! One read: the walk from socket bytes to packets.

use std::mem;
use std::net::SocketAddr;
use std::ops::Range;

use super::{Inbound, Incoming, Link, Mode, WireError};
use crate::wire::frame::{self, FrameError};
use crate::wire::jsonrpc::{self, OBJECT_SIZE_MAX, RpcError, Scan, Scanner};
use crate::wire::proxy::{self, Proxy};
use crate::wire::websocket::{self, Reader, Role, Step, client_response};

/// Bytes being read. Dropping it keeps what was not taken.
#[derive(Debug)]
pub struct Feed<'b> {
    pub(super) inbound: &'b mut Inbound,
    /// Used instead of `fresh` when bytes had been kept.
    pub(super) held: Vec<u8>,
    pub(super) fresh: &'b mut [u8],
    /// Payload bytes that wait to be read; `ready.end` is `place` unless it is empty.
    pub(super) ready: Range<usize>,
    /// Socket bytes up to here were taken.
    pub(super) place: usize,
    /// The packet in `Inbound::part` was given out.
    pub(super) taken: bool,
}

/// A packet whose borders are known.
enum Found {
    Peer(SocketAddr),
    Garbage(RpcError),
    Close,
    /// In `Inbound::part`.
    Part,
    /// Here in the data.
    Here(Range<usize>),
}

/// What the transport gave.
enum Refill {
    Payload,
    Peer(SocketAddr),
    Nothing,
    Close,
}

impl Feed<'_> {
    /// The next packet, or `None` when the rest is not whole. What the transport itself answers
    /// (upgrade, pong, close) is appended to `out`, also before an error.
    ///
    /// # Errors
    /// See [`WireError`]. Packets before the bad one were given by earlier calls; later calls
    /// give `None`.
    pub fn next(&mut self, out: &mut Vec<u8>) -> Result<Option<Incoming<'_>>, WireError> {
        let found = match self.find(out) {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(None),
            Err(error) => {
                self.finish();
                return Err(error);
            }
        };
        let range = match found {
            Found::Peer(peer) => return Ok(Some(Incoming::Peer(peer))),
            Found::Garbage(error) => return Ok(Some(Incoming::Rpc(Err(error)))),
            Found::Part => None,
            Found::Close => {
                self.finish();
                return Ok(Some(Incoming::Close));
            }
            Found::Here(range) => Some(range),
        };
        let Inbound { mode, role, version, part, link, .. } = &mut *self.inbound;
        let packet = match range {
            None => part.as_slice(),
            Some(range) => {
                let data = if self.held.is_empty() { &*self.fresh } else { &self.held };
                data.get(range).unwrap_or_default()
            }
        };
        let decoded = match (&mode, *role) {
            (Mode::Json(_), Role::Server) => {
                return Ok(Some(Incoming::Rpc(jsonrpc::decode(packet))));
            }
            (Mode::Json(_), Role::Client) => {
                jsonrpc::decode_reply(packet).map(Incoming::Reply).map_err(|_| WireError::Reply)
            }
            (Mode::Start | Mode::Detect { .. } | Mode::Binary, _) => {
                match frame::decode(packet, *version) {
                    Ok(Some((frame, _))) => Ok(Incoming::Frame(frame)),
                    Ok(None) => Err(FrameError::BodyShort.into()),
                    Err(error) => Err(error.into()),
                }
            }
        };
        if decoded.is_err() {
            *link = Link::Done;
        }
        decoded.map(Some)
    }

    /// Sets the negotiated version, by which later frames are read.
    pub fn set_version(&mut self, version: u8) {
        self.inbound.version = version;
    }

    /// See [`Inbound::is_json`].
    #[must_use]
    pub const fn is_json(&self) -> Option<bool> {
        self.inbound.is_json()
    }

    /// Drops everything that is left, now and later.
    fn finish(&mut self) {
        self.inbound.link = Link::Done;
        self.inbound.part = Vec::new();
        self.held = Vec::new();
        self.fresh = &mut [];
        (self.ready, self.place) = (0..0, 0);
    }

    fn data(&self) -> &[u8] {
        if self.held.is_empty() { self.fresh } else { &self.held }
    }

    fn find(&mut self, out: &mut Vec<u8>) -> Result<Option<Found>, WireError> {
        if mem::take(&mut self.taken) {
            self.inbound.part = Vec::new();
        }
        if matches!(self.inbound.link, Link::Done) {
            return Ok(None);
        }
        loop {
            if !self.ready.is_empty() {
                if let Some(found) = self.packet()? {
                    return Ok(Some(found));
                }
                continue;
            }
            match self.refill(out)? {
                Refill::Payload => {}
                Refill::Peer(peer) => return Ok(Some(Found::Peer(peer))),
                Refill::Nothing => return Ok(None),
                Refill::Close => return Ok(Some(Found::Close)),
            }
        }
    }

    /// Gets payload bytes from the transport.
    fn refill(&mut self, out: &mut Vec<u8>) -> Result<Refill, WireError> {
        let data = if self.held.is_empty() { &mut *self.fresh } else { &mut self.held };
        let rest = data.get(self.place..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(Refill::Nothing);
        }
        match &mut self.inbound.link {
            Link::Tcp => {
                self.ready = self.place..data.len();
                self.place = data.len();
                Ok(Refill::Payload)
            }
            Link::Upgrade => {
                let Some(upgrade) = websocket::upgrade(rest, out)? else {
                    return Ok(Refill::Nothing);
                };
                self.place += upgrade.size;
                self.inbound.link = Link::Ws(Reader::new(self.inbound.role));
                Ok(upgrade.peer.map_or(Refill::Payload, Refill::Peer))
            }
            Link::Upgrading(accept) => {
                let Some(size) = client_response(rest, accept)? else {
                    return Ok(Refill::Nothing);
                };
                self.place += size;
                self.inbound.link = Link::Ws(Reader::new(self.inbound.role));
                Ok(Refill::Payload)
            }
            Link::Ws(reader) => match reader.step(data, &mut self.place, out)? {
                Step::Data(range) => {
                    self.ready = range;
                    Ok(Refill::Payload)
                }
                Step::Need => Ok(Refill::Nothing),
                Step::Close => Ok(Refill::Close),
            },
            Link::Done => {
                self.place = data.len();
                Ok(Refill::Nothing)
            }
        }
    }

    /// Looks for a packet in `ready`, which is not empty; moves what is not whole into
    /// `Inbound::part`. With `None` either `ready` is empty or the mode has changed.
    fn packet(&mut self) -> Result<Option<Found>, WireError> {
        match self.inbound.mode {
            Mode::Start => self.start(),
            Mode::Detect { blank } => self.detect(blank),
            Mode::Binary => self.binary(),
            Mode::Json(scanner) => self.json(scanner),
        }
    }

    /// A PROXY header, on TCP.
    fn start(&mut self) -> Result<Option<Found>, WireError> {
        self.unread();
        let ready = self.data().get(self.ready.clone()).unwrap_or_default();
        let found = match self.inbound.link {
            Link::Tcp => proxy::parse(ready)?,
            Link::Upgrade | Link::Upgrading(_) | Link::Ws(_) | Link::Done => Proxy::Absent,
        };
        match found {
            Proxy::Need => {
                self.keep(self.ready.len());
                Ok(None)
            }
            Proxy::Absent => {
                self.inbound.mode = Mode::Detect { blank: false };
                Ok(None)
            }
            Proxy::Header { size, peer } => {
                self.ready.start += size;
                self.inbound.mode = Mode::Detect { blank: false };
                Ok(peer.map(Found::Peer))
            }
        }
    }

    /// The first byte that is not white space tells JSON-RPC from binary (§5.1).
    fn detect(&mut self, mut blank: bool) -> Result<Option<Found>, WireError> {
        if !self.inbound.json_allowed {
            self.inbound.mode = Mode::Binary;
            return Ok(None);
        }
        while let Some(&byte) = self.data().get(self.ready.clone()).and_then(<[u8]>::first) {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => {
                    self.ready.start += 1;
                    blank = true;
                    self.inbound.mode = Mode::Detect { blank };
                }
                b'{' => {
                    self.inbound.mode = Mode::Json(Scanner::default());
                    break;
                }
                // As frames, tab and line ends are of type 0.
                _ if blank => return Err(FrameError::TypeReserved(0).into()),
                _ => {
                    self.inbound.mode = Mode::Binary;
                    break;
                }
            }
        }
        Ok(None)
    }

    fn binary(&mut self) -> Result<Option<Found>, WireError> {
        if self.inbound.part.is_empty() {
            let start = self.ready.start;
            let ready = self.data().get(self.ready.clone()).unwrap_or_default();
            return match frame::size(ready)? {
                Some(size) if size <= ready.len() => {
                    self.ready.start += size;
                    Ok(Some(Found::Here(start..start + size)))
                }
                Some(_) | None => {
                    self.keep(self.ready.len());
                    Ok(None)
                }
            };
        }
        loop {
            let Some(size) = frame::size(&self.inbound.part)? else {
                if self.ready.is_empty() {
                    return Ok(None);
                }
                self.keep(1);
                continue;
            };
            let missing = size.saturating_sub(self.inbound.part.len());
            self.keep(missing.min(self.ready.len()));
            if self.inbound.part.len() < size {
                return Ok(None);
            }
            self.taken = true;
            return Ok(Some(Found::Part));
        }
    }

    fn json(&mut self, mut scanner: Scanner) -> Result<Option<Found>, WireError> {
        let scan = scanner.scan(self.data().get(self.ready.clone()).unwrap_or_default());
        self.inbound.mode = Mode::Json(scanner);
        let found = match scan {
            Scan::Blank => {
                self.ready.start = self.ready.end;
                None
            }
            Scan::Garbage { skip, error } => {
                self.ready.start += skip;
                return Ok(Some(Found::Garbage(error)));
            }
            Scan::Part { skip } => {
                self.ready.start += skip;
                self.keep(self.ready.len());
                None
            }
            Scan::Whole { skip, end } if self.inbound.part.is_empty() => {
                let range = self.ready.start + skip..self.ready.start + end;
                self.ready.start = range.end;
                if range.len() > OBJECT_SIZE_MAX {
                    return Err(WireError::ObjectOversized);
                }
                Some(Found::Here(range))
            }
            Scan::Whole { end, .. } => {
                self.keep(end);
                self.taken = true;
                Some(Found::Part)
            }
        };
        if self.inbound.part.len() > OBJECT_SIZE_MAX {
            return Err(WireError::ObjectOversized);
        }
        Ok(found)
    }

    /// Moves payload bytes from the front of `ready` behind the part.
    fn keep(&mut self, size: usize) {
        let end = self.ready.start + size;
        let data = if self.held.is_empty() { &*self.fresh } else { &self.held };
        let bytes = data.get(self.ready.start..end).unwrap_or_default();
        self.inbound.part.extend_from_slice(bytes);
        self.ready.start = end;
    }

    /// Puts the part back in front of `ready`, so that both lie together. Rare: at most once
    /// per read while a PROXY header is incomplete.
    fn unread(&mut self) {
        if self.inbound.part.is_empty() {
            return;
        }
        let mut joined = mem::take(&mut self.inbound.part);
        let part_size = joined.len();
        joined.extend_from_slice(self.data().get(self.ready.start..).unwrap_or_default());
        self.place = self.place - self.ready.start + part_size;
        self.ready = 0..self.ready.len() + part_size;
        self.held = joined;
    }
}

impl Drop for Feed<'_> {
    fn drop(&mut self) {
        if self.taken {
            self.inbound.part = Vec::new();
        }
        if matches!(self.inbound.link, Link::Done) {
            self.inbound.part = Vec::new();
            return;
        }
        let start = if self.ready.is_empty() { self.place } else { self.ready.start };
        self.inbound.ready = self.ready.len();
        let rest = self.data().get(start..).unwrap_or_default();
        if !rest.is_empty() {
            self.inbound.raw = rest.to_vec();
        }
    }
}
