//! One client connection: from bytes to frames to what they mean (protocol.md §2, §5.4).
//!
//! ```text
//!            CONNECT                 LoggedIn(ok)
//!  Greeting ─────────► Authenticating ──────────► Live ───► (gone)
//!     │ deadline, anything else │ refused: CONNACK   │ idle, bad frame, kick
//!     └────────► (gone) ◄───────┘                    └────► (gone)
//! ```
//! A connection that ends leaves the table at once; what was written before still leaves the
//! socket ([`crate::effect::Effect::Close`]). CONNECT is in `connect`, SEND in `submit`.

mod connect;
mod memory;
mod read;
mod recvack;
mod submit;

use std::{collections::VecDeque, net::SocketAddr, ops::Range};

pub(crate) use memory::{Order, order_of};

use self::{memory::Memory, read::Flow};
use super::{Shard, unacked::UnackedQueue};
use crate::{
    code::Code,
    effect::{Effect, Outbox, Port},
    envelope::{Announced, Envelope},
    id::{ChannelId, ConnId, Name},
    message::Message,
    request::{ConnectionInfo, Traffic},
    wire::{
        crypto::{Cipher, SALT_SIZE},
        frame::{self, Disconnect, Frame, encode},
        inbound::{Inbound, Transport},
        jsonrpc,
        outbound::Framing,
    },
};

/// A connection of this shard.
#[derive(Debug)]
pub(crate) struct Conn {
    inbound: Inbound,
    pub(crate) link: Link,
}

/// Everything but the reader.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) conn: ConnId,
    transport: Transport,
    peer: SocketAddr,
    /// The peer may still tell, once, for whom it speaks.
    may_name_client: bool,
    opened_ms: i64,
    /// `Now::mono_ms` of the accept and of the last bytes.
    opened_mono_ms: u64,
    active_mono_ms: u64,
    pub(crate) traffic: Traffic,
    pub(crate) session: Session,
}

/// Where a connection stands. Each state holds only what it may use.
#[derive(Debug)]
pub(crate) enum Session {
    /// Socket open; nothing but CONNECT is legal.
    Greeting,
    /// The home is asked; later frames wait in the reader.
    Authenticating(Box<Pending>),
    /// Bound to a user and device.
    Live(Box<Live>),
}

/// What a CONNECT brought.
#[derive(Debug)]
pub(crate) struct Pending {
    uid: Name,
    device_id: Name,
    device_flag: u8,
    /// The client's own version, not negotiated.
    version: u8,
    client_timestamp: i64,
    keys: Option<Keys>,
    /// The request to answer; `None` on binary connections.
    rpc_id: Option<String>,
    /// The number of the ask that goes to the home.
    login: u64,
    /// Unix ms of the CONNECT.
    since_ms: i64,
}

#[derive(Debug)]
struct Keys {
    cipher: Cipher,
    server_key: String,
    salt: [u8; SALT_SIZE],
}

/// A proven session.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) uid: Name,
    device_id: Name,
    device_flag: u8,
    device_level: u8,
    pub(crate) version: u8,
    pub(crate) json: bool,
    pub(crate) framing: Framing,
    pub(crate) cipher: Option<Cipher>,
    send_ban: bool,
    since_ms: i64,
    /// In a cluster, what went through it.
    memory: Option<Box<Memory>>,
    pub(crate) unacked: UnackedQueue,
    /// Ids of JSON-RPC sends that wait for their result.
    rpc_ids: VecDeque<(u64, String)>,
    next_rpc: u64,
    /// The second in which sends are counted, and how many there were.
    send_second: u64,
    sends: u32,
}

impl Session {
    pub(crate) fn live(&self) -> Option<&Live> {
        match self {
            Self::Live(live) => Some(live),
            Self::Greeting | Self::Authenticating(_) => None,
        }
    }

    pub(crate) fn live_mut(&mut self) -> Option<&mut Live> {
        match self {
            Self::Live(live) => Some(live),
            Self::Greeting | Self::Authenticating(_) => None,
        }
    }
}

impl Live {
    /// What it remembers, to be added to.
    pub(crate) fn memory(&mut self) -> &mut Memory {
        self.memory.get_or_insert_default()
    }

    /// Where a push of this message stands among the others.
    pub(crate) fn order(&mut self, message: &Message, order: &ChannelId, now_ms: u64) -> Order {
        self.memory.get_or_insert_default().push(&self.uid, message, order, now_ms)
    }

    /// Gives back the memory of a session at which nothing has come for long.
    pub(crate) fn forget_old(&mut self, now_ms: u64) {
        self.memory.take_if(|memory| memory.is_over(now_ms));
    }
}

impl Traffic {
    pub(crate) fn count_message_out(&mut self, size: usize) {
        let size = u64::try_from(size).unwrap_or(u64::MAX);
        self.messages_out += 1;
        self.message_bytes_out += size;
        self.count_frame_out(size);
    }

    pub(crate) fn count_event_out(&mut self, size: usize) {
        self.count_frame_out(u64::try_from(size).unwrap_or(u64::MAX));
    }

    fn count_frame_out(&mut self, size: u64) {
        self.frames_out += 1;
        self.bytes_out += size;
    }
}

impl Shard {
    pub(in crate::shard) fn on_opened(&mut self, conn: ConnId, port: Port, peer: SocketAddr) {
        let transport = match port {
            Port::Tcp => Transport::Tcp,
            Port::Ws => Transport::Ws,
        };
        let place = conn.place();
        while self.conns.len() <= place {
            self.conns.push(None);
        }
        let entry = Box::new(Conn {
            inbound: Inbound::new(transport, !self.settings.json_off),
            link: Link {
                conn,
                transport,
                peer,
                may_name_client: self.settings.trusted_proxies.contains(peer.ip()),
                opened_ms: self.now.unix_ms,
                opened_mono_ms: self.now.mono_ms,
                active_mono_ms: self.now.mono_ms,
                traffic: Traffic::default(),
                session: Session::Greeting,
            },
        });
        if let Some(slot) = self.conns.get_mut(place) {
            *slot = Some(entry);
        }
        self.connection_count += 1;
        self.watch(conn, self.now.mono_ms + self.settings.connect_ms);
    }

    /// The session must end.
    pub(in crate::shard) fn on_kick(&mut self, conn: ConnId, text: Option<&str>) {
        let Some(mut entry) = self.take_conn(conn) else {
            return;
        };
        if let (Some(text), Some(live)) = (text, entry.link.session.live()) {
            let reason = Code::ConnectKick.into();
            if live.json {
                self.write(&mut entry.link, true, |out| {
                    jsonrpc::encode_disconnect(out, reason, text);
                });
            } else {
                let frame = Frame::Disconnect(Disconnect { reason, text });
                self.write_frame(&mut entry.link, &frame);
            }
        }
        self.end(entry);
    }

    pub(in crate::shard) fn on_send_ban(&mut self, conn: ConnId, banned: bool) {
        if let Some(Some(entry)) = self.conns.get_mut(conn.place())
            && entry.link.conn == conn
            && let Some(live) = entry.link.session.live_mut()
        {
            live.send_ban = banned;
        }
    }

    /// `/conn/kick` and `/conn/remove`: only a connection of that user.
    pub(in crate::shard) fn end_connection(&mut self, uid: &str, conn: ConnId, kick: bool) {
        let entry = self.conns.get(conn.place()).and_then(Option::as_ref);
        let matches = entry.is_some_and(|entry| {
            entry.link.conn == conn
                && entry.link.session.live().is_some_and(|live| &*live.uid == uid)
        });
        if matches {
            self.on_kick(conn, kick.then_some("server kick"));
        }
    }

    /// The socket is gone.
    pub(in crate::shard) fn on_closed(&mut self, conn: ConnId) {
        if let Some(entry) = self.take_conn(conn) {
            self.forget(&entry);
        }
    }

    /// The connection ends: what was written leaves first.
    /// Ends every connection, without a frame: clients look for another node.
    pub(in crate::shard) fn end_all_connections(&mut self) {
        let conns: Vec<ConnId> = self.conns.iter().flatten().map(|entry| entry.link.conn).collect();
        for conn in conns {
            self.on_kick(conn, None);
        }
    }

    fn end(&mut self, entry: Box<Conn>) {
        self.out.effects.push(Effect::Close { conn: entry.link.conn });
        self.forget(&entry);
    }

    fn forget(&mut self, entry: &Conn) {
        self.connection_count -= 1;
        let conn = entry.link.conn;
        let uid = match &entry.link.session {
            Session::Greeting => return,
            Session::Authenticating(pending) => {
                self.forget_login(pending.login);
                pending.uid.clone()
            }
            Session::Live(live) => {
                self.session_count -= 1;
                live.uid.clone()
            }
        };
        let (slot, session) = (self.slot_of(&uid), self.session(conn));
        self.send_to_slot(slot, Envelope::Left { session, uid });
    }

    /// Silence: closes the connection, or says when to look again.
    pub(in crate::shard) fn check_silence(&mut self, conn: ConnId) {
        let now = self.now.mono_ms;
        let Some(entry) = self.take_conn(conn) else {
            return;
        };
        let link = &entry.link;
        let due = match &link.session {
            // Bytes that never make a CONNECT hold a connection for a while only.
            Session::Greeting => (link.active_mono_ms + self.settings.connect_ms)
                .min(link.opened_mono_ms + 5 * self.settings.connect_ms),
            Session::Authenticating(_) => link.active_mono_ms + self.settings.auth_ms,
            Session::Live(_) => link.active_mono_ms + self.settings.idle_ms,
        };
        if due <= now {
            self.end(entry);
        } else {
            self.watch(conn, due);
            self.put_conn(entry);
        }
    }

    pub(in crate::shard) fn connection_infos(&self) -> Vec<ConnectionInfo> {
        let entries = self.conns.iter().flatten();
        entries.map(|entry| entry.link.info(self.now.unix_ms, self.now.mono_ms)).collect()
    }

    /// Whether the connection is past CONNECT.
    pub(in crate::shard) fn has_session(&self, conn: ConnId) -> bool {
        let entry = self.conns.get(conn.place()).and_then(Option::as_ref);
        entry.is_some_and(|entry| entry.link.conn == conn && entry.link.session.live().is_some())
    }

    fn take_conn(&mut self, conn: ConnId) -> Option<Box<Conn>> {
        let slot = self.conns.get_mut(conn.place())?;
        if slot.as_ref()?.link.conn != conn {
            return None;
        }
        slot.take()
    }

    fn put_conn(&mut self, entry: Box<Conn>) {
        if let Some(slot) = self.conns.get_mut(entry.link.conn.place()) {
            *slot = Some(entry);
        }
    }

    fn write_frame(&mut self, link: &mut Link, frame: &Frame<'_>) {
        let version = link.session.live().map_or(frame::VERSION_LATEST, |live| live.version);
        self.write(link, false, |out| {
            // A text that is too long for its field leaves nothing behind.
            let _ = encode(frame, version, out);
        });
    }

    /// Writes one packet.
    fn write(&mut self, link: &mut Link, json: bool, put: impl FnOnce(&mut Vec<u8>)) {
        let framing = Framing::of(link.transport, json);
        let start = self.out.bytes.len();
        let packet = framing.start(&mut self.out.bytes);
        put(&mut self.out.bytes);
        framing.end(&mut self.out.bytes, packet);
        let range: Range<usize> = start..self.out.bytes.len();
        let size = u64::try_from(range.len()).unwrap_or(u64::MAX);
        link.traffic.count_frame_out(size);
        self.vars.traffic.count_frame_out(size);
        self.out.push_write(link.conn, range);
    }
}

impl Link {
    /// The session as its user's home should know it.
    pub(crate) fn announced(&self) -> Option<Announced> {
        let live = self.session.live()?;
        Some(Announced {
            uid: live.uid.clone(),
            conn: self.conn,
            device_flag: live.device_flag,
            level: live.device_level,
            device_id: live.device_id.clone(),
            since_ms: live.since_ms,
        })
    }

    fn info(&self, unix_ms: i64, mono_ms: u64) -> ConnectionInfo {
        let idle_ms = i64::try_from(mono_ms - self.active_mono_ms).unwrap_or(0);
        let live = self.session.live();
        let empty: Name = "".into();
        ConnectionInfo {
            conn: self.conn,
            uid: live.map_or(empty.clone(), |live| live.uid.clone()),
            device_id: live.map_or(empty, |live| live.device_id.clone()),
            device_flag: live.map_or(0, |live| live.device_flag),
            device_level: live.map_or(0, |live| live.device_level),
            version: live.map_or(0, |live| live.version),
            live: live.is_some(),
            peer: self.peer,
            last_activity_ms: unix_ms - idle_ms,
            opened_ms: self.opened_ms,
            traffic: self.traffic,
        }
    }
}

impl Outbox {
    /// Adds bytes for a connection; bytes that follow its last write directly extend it.
    pub(crate) fn push_write(&mut self, conn: ConnId, range: Range<usize>) {
        if let Some(Effect::Write { conn: last, range: written }) = self.effects.last_mut()
            && *last == conn
            && written.end == range.start
        {
            written.end = range.end;
            return;
        }
        self.effects.push(Effect::Write { conn, range });
    }
}
