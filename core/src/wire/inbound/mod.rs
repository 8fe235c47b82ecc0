//! The reader of one connection: socket bytes in, whole packets out.
//!
//! ```text
//! fed bytes ─► (upgrade) ─► payload bytes ─► (PROXY) ─► mode by first byte ─► packets
//! ```
//!
//! Packets are read where they lie in the fed slice. Memory is held only for a packet that is
//! not whole yet, and for what the caller has left unread; between two whole packets an idle
//! connection holds nothing on the heap.

mod feed;

use std::mem;
use std::net::SocketAddr;

pub use feed::Feed;

use super::frame::{Frame, FrameError, VERSION_LATEST};
use super::jsonrpc::{OBJECT_SIZE_MAX, RpcError, RpcReply, RpcRequest, Scanner};
use super::proxy::ProxyError;
use super::websocket::{Reader, Role, UpgradeError, WebSocketError, accept_key};

/// What carries the bytes. TLS is below this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Packets back to back, perhaps behind a PROXY header.
    Tcp,
    /// An HTTP upgrade, then packets in WebSocket frames.
    Ws,
}

/// What a connection brought.
#[derive(Debug)]
pub enum Incoming<'a> {
    /// The client's address as a proxy in front told it; port 0 when it told none. From the
    /// PROXY header, or from the upgrade's headers (ignore those on a TLS listener, §6.1).
    Peer(SocketAddr),
    /// A binary frame.
    Frame(Frame<'a>),
    /// A JSON-RPC object, or what to answer to one that cannot be handled.
    Rpc(Result<RpcRequest<'a>, RpcError>),
    /// A server's JSON-RPC object (clients only).
    Reply(RpcReply<'a>),
    /// The peer closed the WebSocket; the answer was appended. Nothing follows.
    Close,
}

/// Why a connection cannot go on. Close it once what was appended to `out` has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// See [`FrameError`].
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// See [`ProxyError`].
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// See [`WebSocketError`].
    #[error(transparent)]
    WebSocket(#[from] WebSocketError),
    /// See [`UpgradeError`].
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
    /// A JSON-RPC object above [`OBJECT_SIZE_MAX`].
    #[error("JSON-RPC object is above the limit of {OBJECT_SIZE_MAX} bytes")]
    ObjectOversized,
    /// A server's JSON-RPC object does not parse (clients only).
    #[error("JSON-RPC reply does not parse")]
    Reply,
}

/// What lies below the packets.
#[derive(Clone, Debug)]
enum Link {
    Tcp,
    /// Waiting for the request head.
    Upgrade,
    /// Waiting for the answer, which must accept with this key.
    Upgrading(Box<str>),
    Ws(Reader),
    /// Closed or failed: all further bytes are dropped.
    Done,
}

/// What the payload bytes are. Fixed by the first one and kept (§5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Nothing but a PROXY header may have come.
    Start,
    /// Behind the PROXY header.
    Detect {
        /// White space was skipped; only `{` may follow.
        blank: bool,
    },
    Binary,
    Json(Scanner),
}

/// The state of one connection's reader between two reads.
#[derive(Clone, Debug)]
pub struct Inbound {
    link: Link,
    mode: Mode,
    role: Role,
    json_allowed: bool,
    version: u8,
    /// Bytes at the front of `raw` that are payload already.
    ready: usize,
    /// Socket bytes that wait: half a header, or what the caller left.
    raw: Vec<u8>,
    /// The front of a packet that is not whole.
    part: Vec<u8>,
}

impl Inbound {
    /// A server's connection that was just accepted. With `json_allowed` false (`disableJSONRPC`)
    /// everything is binary. Until [`Inbound::set_version`], frames are read at the latest
    /// version (CONNECT is the same at all).
    #[must_use]
    pub const fn new(transport: Transport, json_allowed: bool) -> Self {
        let link = match transport {
            Transport::Tcp => Link::Tcp,
            Transport::Ws => Link::Upgrade,
        };
        Self {
            link,
            mode: Mode::Start,
            role: Role::Server,
            json_allowed,
            version: VERSION_LATEST,
            ready: 0,
            raw: Vec::new(),
            part: Vec::new(),
        }
    }

    /// A client's connection. On [`Transport::Ws`] the caller has sent
    /// [`client_request`](super::websocket::client_request) with this key; on TCP the key is not used.
    #[must_use]
    pub fn client(transport: Transport, json: bool, key: &str) -> Self {
        let link = match transport {
            Transport::Tcp => Link::Tcp,
            Transport::Ws => Link::Upgrading(accept_key(key).into()),
        };
        let mode = if json { Mode::Json(Scanner::default()) } else { Mode::Binary };
        Self { link, mode, role: Role::Client, ..Self::new(transport, json) }
    }

    /// Sets the negotiated version, by which later frames are read.
    pub fn set_version(&mut self, version: u8) {
        self.version = version;
    }

    /// Whether the connection speaks JSON-RPC; `None` until its first byte.
    #[must_use]
    pub const fn is_json(&self) -> Option<bool> {
        match self.mode {
            Mode::Start | Mode::Detect { .. } => None,
            Mode::Binary => Some(false),
            Mode::Json(_) => Some(true),
        }
    }

    /// Whether the transport is up: always on TCP, after the upgrade on WebSocket.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(self.link, Link::Tcp | Link::Ws(_))
    }

    /// Bytes held on the heap for what is not whole or was left unread.
    #[must_use]
    pub fn held_size(&self) -> usize {
        self.raw.capacity() + self.part.capacity()
    }

    /// Offers bytes that follow those of the last call; WebSocket payloads are unmasked in
    /// place. Take packets with [`Feed::next`] until it gives `None`. What is not taken when the
    /// feed is dropped is kept for the next one, which may be fed nothing.
    pub fn feed<'b>(&'b mut self, bytes: &'b mut [u8]) -> Feed<'b> {
        let ready = 0..mem::take(&mut self.ready);
        let mut held = mem::take(&mut self.raw);
        if !held.is_empty() {
            held.extend_from_slice(bytes);
            return Feed {
                place: ready.end,
                ready,
                held,
                fresh: &mut [],
                taken: false,
                inbound: self,
            };
        }
        Feed { place: 0, ready: 0..0, held, fresh: bytes, taken: false, inbound: self }
    }
}
