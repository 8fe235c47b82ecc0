//! One client connection: from bytes to frames to what they mean (protocol.md §2, §5.4).
//!
//! ```text
//!            CONNECT                 LoggedIn(ok)
//!  Greeting ─────────► Authenticating ──────────► Live ───► (gone)
//!     │ deadline, anything else │ refused: CONNACK   │ idle, bad frame, kick
//!     └────────► (gone) ◄───────┘                    └────► (gone)
//! ```
//! A connection that ends leaves the table at once; what was written before still leaves the
//! socket ([`crate::effect::Effect::Close`]).

use std::{collections::VecDeque, net::SocketAddr, ops::Range};

use rand_core::RngCore as _;

use super::{Shard, deliver::Unacked};
use crate::{
    channel_info::kind,
    code::Code,
    effect::{Effect, Outbox, Port},
    envelope::{Envelope, Login, Origin, SendTask},
    id::{ChannelId, ConnId, Name, SYSTEM_DEVICE, SYSTEM_UID, has_special_char, person_channel},
    message::Message,
    request::{ConnectionInfo, Traffic},
    wire::{
        crypto::{Cipher, SALT_SIZE},
        frame::{self, Connack, Connect, Disconnect, Flags, Frame, Send, Sendack, encode},
        inbound::{Inbound, Incoming, Transport},
        jsonrpc::{self, ConnectResult, RpcCall, RpcConnect, RpcRequest, RpcSend},
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
    pub(crate) unacked: VecDeque<Unacked>,
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

/// What reading goes on with.
enum Flow {
    Next,
    /// Later frames wait.
    Pause,
    /// What was written leaves, then the socket closes.
    Close,
}

impl Traffic {
    pub(crate) fn count_message_out(&mut self, size: usize) {
        let size = u64::try_from(size).unwrap_or(u64::MAX);
        self.messages_out += 1;
        self.message_bytes_out += size;
        self.count_frame_out(size);
    }

    fn count_frame_out(&mut self, size: u64) {
        self.frames_out += 1;
        self.bytes_out += size;
    }
}

impl Shard {
    pub(super) fn on_opened(&mut self, conn: ConnId, port: Port, peer: SocketAddr) {
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

    pub(super) fn on_bytes(&mut self, conn: ConnId, bytes: &mut [u8]) {
        let Some(mut entry) = self.take_conn(conn) else {
            return;
        };
        let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        entry.link.active_mono_ms = self.now.mono_ms;
        entry.link.traffic.bytes_in += size;
        self.vars.traffic.bytes_in += size;
        self.read_frames(entry, bytes);
    }

    /// Reads frames until none is whole, the connection must wait, or it ends.
    fn read_frames(&mut self, mut entry: Box<Conn>, bytes: &mut [u8]) {
        let Conn { inbound, link } = &mut *entry;
        let mut feed = inbound.feed(bytes);
        let flow = loop {
            let written = self.out.bytes.len();
            let incoming = feed.next(&mut self.out.bytes);
            if self.out.bytes.len() > written {
                let range = written..self.out.bytes.len();
                self.out.push_write(link.conn, range);
            }
            let flow = match incoming {
                Ok(None) => break Flow::Next,
                Ok(Some(Incoming::Peer(peer))) => {
                    link.peer = peer;
                    Flow::Next
                }
                Ok(Some(Incoming::Frame(frame))) => self.on_frame(link, frame),
                Ok(Some(Incoming::Rpc(Ok(request)))) => self.on_rpc(link, request),
                Ok(Some(Incoming::Rpc(Err(error)))) => {
                    if link.session.live().is_some() {
                        self.write(link, true, |out| {
                            jsonrpc::encode_error(out, error.id.as_deref(), 0, &error.message);
                        });
                        Flow::Next
                    } else {
                        Flow::Close
                    }
                }
                Ok(Some(Incoming::Reply(_) | Incoming::Close)) => Flow::Close,
                Err(_) => {
                    self.vars.protocol_errors += 1;
                    Flow::Close
                }
            };
            if !matches!(flow, Flow::Next) {
                break flow;
            }
        };
        drop(feed);
        if matches!(flow, Flow::Close) {
            self.end(entry);
        } else {
            self.put_conn(entry);
        }
    }

    fn on_frame(&mut self, link: &mut Link, frame: Frame<'_>) -> Flow {
        link.traffic.frames_in += 1;
        self.vars.traffic.frames_in += 1;
        match (&mut link.session, frame) {
            (Session::Greeting, Frame::Connect(connect)) => self.on_connect(link, &connect, None),
            (Session::Greeting, _) => Flow::Close,
            (Session::Authenticating(_), _) => Flow::Pause,
            (Session::Live(_), Frame::Send(send)) => {
                self.on_send_frame(link, &send);
                Flow::Next
            }
            (Session::Live(live), Frame::Recvack(ack)) => {
                if !ack.flags.no_persist {
                    live.acknowledge(ack.message_id);
                }
                Flow::Next
            }
            (Session::Live(_), Frame::Ping) => {
                self.write_frame(link, &Frame::Pong);
                Flow::Next
            }
            // A server's frames and what v2 ignores (protocol.md §1.2).
            (
                Session::Live(_),
                Frame::Connect(_)
                | Frame::Connack(_)
                | Frame::Sendack(_)
                | Frame::Recv(_)
                | Frame::Pong
                | Frame::Disconnect(_)
                | Frame::Sub(_)
                | Frame::Suback(_)
                | Frame::Event(_),
            ) => Flow::Next,
        }
    }

    fn on_rpc(&mut self, link: &mut Link, request: RpcRequest<'_>) -> Flow {
        link.traffic.frames_in += 1;
        self.vars.traffic.frames_in += 1;
        let id = request.id.unwrap_or_default();
        match (&mut link.session, request.call) {
            (Session::Greeting, RpcCall::Connect(connect)) => {
                self.on_rpc_connect(link, &connect, id.into_owned())
            }
            (Session::Greeting, _) => Flow::Close,
            (Session::Authenticating(_), _) => Flow::Pause,
            (Session::Live(_), RpcCall::Send(send)) => {
                self.on_rpc_send(link, send, id.into_owned());
                Flow::Next
            }
            (Session::Live(live), RpcCall::Recvack(ack)) => {
                if !ack.flags.no_persist {
                    live.acknowledge(ack.message_id);
                }
                Flow::Next
            }
            (Session::Live(_), RpcCall::Ping) => {
                self.write(link, true, |out| jsonrpc::encode_ping_result(out, &id));
                Flow::Next
            }
            (Session::Live(_), RpcCall::Connect(_) | RpcCall::Disconnect { .. }) => Flow::Next,
        }
    }

    fn on_rpc_connect(&mut self, link: &mut Link, rpc: &RpcConnect<'_>, id: String) -> Flow {
        let connect = Connect {
            version: rpc.version,
            device_flag: rpc.device_flag,
            device_id: &rpc.device_id,
            uid: &rpc.uid,
            token: &rpc.token,
            client_timestamp: rpc.client_timestamp,
            client_key: "",
        };
        self.on_connect(link, &connect, Some(id))
    }

    fn on_connect(
        &mut self,
        link: &mut Link,
        connect: &Connect<'_>,
        rpc_id: Option<String>,
    ) -> Flow {
        let uid = connect.uid;
        let size_max = self.settings.id_size_max;
        let unusable = uid.trim().is_empty()
            || has_special_char(uid)
            || uid.len() > size_max
            || connect.device_id.len() > size_max;
        if unusable {
            return Flow::Close;
        }
        let mut pending = Pending {
            uid: uid.into(),
            device_id: connect.device_id.into(),
            device_flag: connect.device_flag,
            version: connect.version,
            client_timestamp: connect.client_timestamp,
            keys: None,
            rpc_id,
        };
        if uid == SYSTEM_UID || connect.device_id == SYSTEM_DEVICE {
            self.refuse_connect(link, &pending, Code::AuthFail);
            return Flow::Close;
        }
        if pending.rpc_id.is_none() && !self.settings.encryption_off {
            let salt = self.salt();
            let server_key = self.server_key();
            match server_key.agree(connect.client_key, salt) {
                Ok(cipher) => {
                    let server_key = server_key.public_base64().to_owned();
                    pending.keys = Some(Keys { cipher, server_key, salt });
                }
                Err(_) => {
                    self.refuse_connect(link, &pending, Code::ClientKeyIsEmpty);
                    return Flow::Close;
                }
            }
        }
        let login = Login {
            conn: link.conn,
            uid: pending.uid.clone(),
            device_flag: pending.device_flag,
            device_id: pending.device_id.clone(),
            token: connect.token.into(),
        };
        link.session = Session::Authenticating(Box::new(pending));
        let home = self.shard_of(uid);
        self.send(home, Envelope::Login(Box::new(login)));
        self.watch(link.conn, self.now.mono_ms + self.settings.auth_ms);
        Flow::Pause
    }

    /// The home has answered.
    pub(super) fn on_logged_in(&mut self, conn: ConnId, outcome: Result<u8, Code>, send_ban: bool) {
        let Some(mut entry) = self.take_conn(conn) else {
            return;
        };
        let session = std::mem::replace(&mut entry.link.session, Session::Greeting);
        let Session::Authenticating(pending) = session else {
            entry.link.session = session;
            return self.put_conn(entry);
        };
        let device_level = match outcome {
            Ok(level) => level,
            Err(code) => {
                self.refuse_connect(&mut entry.link, &pending, code);
                return self.end(entry);
            }
        };
        self.vars.connects += 1;
        self.write_connack(&mut entry.link, &pending, Code::Success);
        let json = pending.rpc_id.is_some();
        let version = pending.version.min(frame::VERSION_LATEST);
        let Pending { uid, device_id, device_flag, keys, .. } = *pending;
        entry.inbound.set_version(version);
        let framing = Framing::of(entry.link.transport, json);
        entry.link.session = Session::Live(Box::new(Live {
            uid,
            device_id,
            device_flag,
            device_level,
            version,
            json,
            framing,
            cipher: keys.map(|keys| keys.cipher),
            send_ban,
            unacked: VecDeque::new(),
            rpc_ids: VecDeque::new(),
            next_rpc: 0,
            send_second: 0,
            sends: 0,
        }));
        self.session_count += 1;
        entry.link.active_mono_ms = self.now.mono_ms;
        self.watch(conn, self.now.mono_ms + self.settings.idle_ms);
        self.read_frames(entry, &mut []);
    }

    fn refuse_connect(&mut self, link: &mut Link, pending: &Pending, code: Code) {
        self.vars.connects_refused += 1;
        match &pending.rpc_id {
            Some(id) => {
                self.write(link, true, |out| {
                    jsonrpc::encode_error(out, Some(id), code.into(), code.name());
                });
            }
            None => self.write_connack(link, pending, code),
        }
    }

    fn write_connack(&mut self, link: &mut Link, pending: &Pending, code: Code) {
        let version = pending.version.min(frame::VERSION_LATEST);
        let time_diff = self.now.unix_ms.saturating_sub(pending.client_timestamp);
        let node_id = self.settings.node.0;
        if let Some(id) = &pending.rpc_id {
            let result =
                ConnectResult { server_version: version, time_diff, reason: code.into(), node_id };
            self.write(link, true, |out| jsonrpc::encode_connect_result(out, id, &result));
            return;
        }
        let keys = pending.keys.as_ref().filter(|_| code == Code::Success);
        let salt = keys.map_or("", |keys| std::str::from_utf8(&keys.salt).unwrap_or_default());
        let connack = Frame::Connack(Connack {
            server_version: (pending.version > 3).then_some(version),
            time_diff,
            reason: code.into(),
            server_key: keys.map_or("", |keys| &keys.server_key),
            salt,
            node_id,
        });
        self.write(link, false, |out| {
            // All strings are short: this cannot fail.
            let _ = encode(&connack, version, out);
        });
    }

    fn on_send_frame(&mut self, link: &mut Link, send: &Send<'_>) {
        let id = self.ids.next(self.now.unix_ms);
        let size = u64::try_from(send.payload.len()).unwrap_or(u64::MAX);
        self.count_message_in(link, size);
        let conn = link.conn;
        let Some(live) = link.session.live_mut() else {
            return;
        };
        let flags = send.flags.to_bits();
        let origin = Origin::Session { conn, client_seq: send.client_seq, flags, rpc: 0 };
        let mut code = live.may_send(self.now.mono_ms, self.settings.sends_per_second_max);
        let mut payload = Vec::new();
        match &live.cipher {
            Some(cipher) if code == Code::Success => {
                if !cipher.verify_send(send) || cipher.open(send.payload, &mut payload).is_err() {
                    code = Code::PayloadDecodeError;
                }
            }
            Some(_) => {}
            None => payload.extend_from_slice(send.payload),
        }
        let uid = live.uid.clone();
        let draft = Draft {
            id,
            channel_id: send.channel_id,
            channel_type: send.channel_type,
            client_msg_no: send.client_msg_no,
            flags,
            setting: send.setting,
            expire: send.expire,
            topic: send.topic,
            stream_no: send.stream_no.unwrap_or_default(),
        };
        self.submit(uid, draft, payload, origin, code);
    }

    fn on_rpc_send(&mut self, link: &mut Link, send: RpcSend<'_>, id: String) {
        let message_id = self.ids.next(self.now.unix_ms);
        self.count_message_in(link, u64::try_from(send.payload.len()).unwrap_or(u64::MAX));
        let conn = link.conn;
        let made_up;
        let client_msg_no = if send.client_msg_no.is_empty() {
            let mut bytes = [0; 16];
            self.rng.fill_bytes(&mut bytes);
            made_up = format!("{:032x}", u128::from_be_bytes(bytes));
            &*made_up
        } else {
            &*send.client_msg_no
        };
        let Some(live) = link.session.live_mut() else {
            return;
        };
        live.next_rpc += 1;
        let rpc = live.next_rpc;
        live.rpc_ids.push_back((rpc, id));
        let flags = send.flags.to_bits();
        let origin = Origin::Session { conn, client_seq: 0, flags, rpc };
        let code = live.may_send(self.now.mono_ms, self.settings.sends_per_second_max);
        let uid = live.uid.clone();
        let draft = Draft {
            id: message_id,
            channel_id: &send.channel_id,
            channel_type: send.channel_type,
            client_msg_no,
            flags,
            setting: send.setting,
            expire: send.expire,
            topic: &send.topic,
            stream_no: "",
        };
        self.submit(uid, draft, send.payload, origin, code);
    }

    fn count_message_in(&mut self, link: &mut Link, size: u64) {
        for traffic in [&mut link.traffic, &mut self.vars.traffic] {
            traffic.messages_in += 1;
            traffic.message_bytes_in += size;
        }
    }

    /// Sends a message to the slot of its channel, or answers why not.
    fn submit(
        &mut self,
        uid: Name,
        draft: Draft<'_>,
        payload: Vec<u8>,
        origin: Origin,
        mut code: Code,
    ) {
        let stored: Name = match draft.channel_type {
            kind::PERSON => person_channel(&uid, draft.channel_id).into(),
            kind::AGENT => format!("{uid}@{}", draft.channel_id).into(),
            _ => draft.channel_id.into(),
        };
        if draft.channel_id.len() > self.settings.id_size_max {
            code = Code::ChannelIDError;
        }
        if code != Code::Success {
            return self.answer_send(origin, draft.id, 0, code);
        }
        let to = self.shard_of(&stored);
        let message = Message {
            id: draft.id,
            seq: 0,
            channel: ChannelId { id: stored, kind: draft.channel_type },
            from: uid,
            client_msg_no: draft.client_msg_no.into(),
            flags: draft.flags,
            setting: draft.setting,
            expire: draft.expire,
            timestamp: 0,
            topic: self.short_name(draft.topic),
            stream_no: self.short_name(draft.stream_no),
            shown: None,
            payload: payload.into(),
        };
        let task = SendTask { message, recipients: None, trusted: false, origin };
        self.send(to, Envelope::Send(Box::new(task)));
    }

    /// The outcome of a SEND.
    pub(super) fn on_sent(&mut self, origin: Origin, message_id: i64, seq: u64, code: Code) {
        let Origin::Session { conn, client_seq, flags, rpc } = origin else {
            return;
        };
        let Some(mut entry) = self.take_conn(conn) else {
            return;
        };
        let ack = Sendack {
            flags: Flags::from_bits(flags),
            message_id,
            client_seq,
            message_seq: u32::try_from(seq).unwrap_or(u32::MAX),
            reason: code.into(),
        };
        let mut rpc_id = None;
        if let Some(live) = entry.link.session.live_mut()
            && let Some(place) = live.rpc_ids.iter().position(|(number, _)| *number == rpc)
        {
            rpc_id = live.rpc_ids.remove(place).map(|(_, id)| id);
        }
        match rpc_id {
            Some(id) => self.write(&mut entry.link, true, |out| {
                jsonrpc::encode_send_result(out, &id, &ack);
            }),
            None => self.write_frame(&mut entry.link, &Frame::Sendack(ack)),
        }
        self.put_conn(entry);
    }

    /// The session must end.
    pub(super) fn on_kick(&mut self, conn: ConnId, text: Option<&str>) {
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

    pub(super) fn on_send_ban(&mut self, conn: ConnId, banned: bool) {
        if let Some(Some(entry)) = self.conns.get_mut(conn.place())
            && entry.link.conn == conn
            && let Some(live) = entry.link.session.live_mut()
        {
            live.send_ban = banned;
        }
    }

    /// `/conn/kick` and `/conn/remove`: only a connection of that user.
    pub(super) fn end_connection(&mut self, uid: &str, conn: ConnId, kick: bool) {
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
    pub(super) fn on_closed(&mut self, conn: ConnId) {
        if let Some(entry) = self.take_conn(conn) {
            self.forget(&entry);
        }
    }

    /// The connection ends: what was written leaves first.
    fn end(&mut self, entry: Box<Conn>) {
        self.out.effects.push(Effect::Close { conn: entry.link.conn });
        self.forget(&entry);
    }

    fn forget(&mut self, entry: &Conn) {
        self.connection_count -= 1;
        let uid = match &entry.link.session {
            Session::Greeting => return,
            Session::Authenticating(pending) => pending.uid.clone(),
            Session::Live(live) => {
                self.session_count -= 1;
                live.uid.clone()
            }
        };
        let home = self.shard_of(&uid);
        self.send(home, Envelope::Left { conn: entry.link.conn, uid });
    }

    /// Silence: closes the connection, or says when to look again.
    pub(super) fn check_silence(&mut self, conn: ConnId) {
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

    pub(super) fn connection_infos(&self) -> Vec<ConnectionInfo> {
        let entries = self.conns.iter().flatten();
        entries.map(|entry| entry.link.info(self.now.unix_ms, self.now.mono_ms)).collect()
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

    fn salt(&mut self) -> [u8; SALT_SIZE] {
        const ALPHABET: &[u8; 62] =
            b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
        let mut salt = [0u8; SALT_SIZE];
        self.rng.fill_bytes(&mut salt);
        salt.map(|byte| ALPHABET.get(usize::from(byte) % 62).copied().unwrap_or(b'0'))
    }
}

struct Draft<'a> {
    id: i64,
    channel_id: &'a str,
    channel_type: u8,
    client_msg_no: &'a str,
    flags: u8,
    setting: u8,
    expire: u32,
    topic: &'a str,
    stream_no: &'a str,
}

impl Live {
    /// Whether this session may send now, apart from any channel.
    fn may_send(&mut self, now_ms: u64, per_second_max: u32) -> Code {
        if self.send_ban {
            return Code::SendBan;
        }
        if per_second_max > 0 {
            let second = now_ms / 1000;
            if second != self.send_second {
                (self.send_second, self.sends) = (second, 0);
            }
            self.sends = self.sends.saturating_add(1);
            if self.sends > per_second_max {
                return Code::RateLimit;
            }
        }
        Code::Success
    }
}

impl Link {
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
