//! A chat client that blocks: binary over TCP or WebSocket, JSON-RPC over either. A thread reads
//! and acknowledges; what came waits in order until a test takes it.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jindou_core::wire::crypto::{Cipher, ClientKey};
use jindou_core::wire::frame::{self, Connect, Flags, Frame, Send};
use serde_json::{Value, json};

use super::PATIENCE;
use super::listener::Listener;
use super::node::Node;
use super::socket::{self, Reader, Writer};

/// Channel type of a chat of two.
pub const PERSON: u8 = 1;
/// Channel type of a group.
pub const GROUP: u8 = 2;
/// Reason code of what was accepted.
pub const SUCCESS: u8 = 1;

/// A channel as one user names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel {
    pub id: String,
    pub kind: u8,
}

impl Channel {
    pub fn group(id: &str) -> Self {
        let (id, kind) = (id.to_owned(), GROUP);
        Self { id, kind }
    }

    pub fn person(peer: &str) -> Self {
        let (id, kind) = (peer.to_owned(), PERSON);
        Self { id, kind }
    }
}

/// How a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Binary over TCP.
    Tcp,
    /// Binary over WebSocket.
    Ws,
    /// JSON-RPC over WebSocket.
    Json,
    /// JSON-RPC over TCP.
    JsonTcp,
}

impl Transport {
    /// Every way to speak.
    pub const ALL: [Self; 4] = [Self::Tcp, Self::Ws, Self::Json, Self::JsonTcp];

    fn is_json(self) -> bool {
        matches!(self, Self::Json | Self::JsonTcp)
    }
}

/// What a CONNECT says.
#[derive(Clone, Debug)]
pub struct Login {
    pub uid: String,
    pub token: String,
    pub device_id: String,
    pub device_flag: u8,
    pub version: u8,
    pub transport: Transport,
    /// In place of a fresh key.
    pub client_key: Option<String>,
    /// Answer every RECV with RECVACK.
    pub recvack: bool,
    /// How long the connection and CONNACK may take.
    pub patience: Duration,
}

impl Login {
    pub fn new(uid: &str, transport: Transport) -> Self {
        Self {
            uid: uid.to_owned(),
            token: "any".to_owned(),
            device_id: format!("device-{uid}"),
            device_flag: 0,
            version: frame::VERSION_LATEST,
            transport,
            client_key: None,
            recvack: true,
            patience: PATIENCE,
        }
    }

    pub fn token(mut self, token: &str) -> Self {
        token.clone_into(&mut self.token);
        self
    }

    pub fn device(mut self, device_id: &str, device_flag: u8) -> Self {
        device_id.clone_into(&mut self.device_id);
        self.device_flag = device_flag;
        self
    }

    /// The CONNECT, and the key whose public half it carries.
    pub fn frame(&self) -> (Vec<u8>, ClientKey) {
        let mut seed = [0; 32];
        let nanos = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos();
        seed[..16].copy_from_slice(&nanos.to_be_bytes());
        let key = ClientKey::from_seed(seed);
        let connect = Frame::Connect(Connect {
            version: self.version,
            device_flag: self.device_flag,
            device_id: &self.device_id,
            uid: &self.uid,
            token: &self.token,
            client_timestamp: i64::try_from(nanos / 1_000_000).unwrap(),
            client_key: self.client_key.as_deref().unwrap_or(key.public_base64()),
        });
        let mut out = Vec::new();
        frame::encode(&connect, self.version, &mut out).unwrap();
        (out, key)
    }
}

/// Why there is no session.
#[derive(Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A CONNACK (or a JSON-RPC error) with this reason, and then the close.
    Reason(u8),
    /// The connection was closed, or never opened, without an answer.
    Closed,
    /// Nothing came within the patience of the login.
    Silence,
}

/// SENDACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    pub client_seq: u32,
    pub id: i64,
    pub seq: u32,
    pub reason: u8,
}

/// RECV, decrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub id: i64,
    pub seq: u32,
    pub from: String,
    pub channel: Channel,
    pub client_msg_no: String,
    pub payload: Vec<u8>,
}

/// What came to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Connack {
        reason: u8,
        cipher: Option<Cipher>,
    },
    Ack(Ack),
    Recv(Received),
    Pong,
    /// EVENT.
    Stream {
        id: String,
        kind: String,
        data: Value,
    },
    Disconnect {
        reason: u8,
        text: String,
    },
    /// Something that no server may say, or that this client cannot read.
    Garbage(String),
    Closed,
}

/// A session.
pub struct Client {
    writer: Arc<Writer>,
    events: Receiver<(Instant, Event)>,
    /// Came, passed over, and still to be taken.
    passed: VecDeque<(Instant, Event)>,
    cipher: Option<Cipher>,
    login: Login,
    client_seq: AtomicU32,
}

impl Client {
    /// A session that must be granted.
    pub fn connect(node: &Node, uid: &str, transport: Transport) -> Self {
        Self::login(node, &Login::new(uid, transport))
            .unwrap_or_else(|refusal| panic!("CONNECT of {uid}: {refusal:?}"))
    }

    /// A session, or why there is none.
    pub fn login(node: &Node, login: &Login) -> Result<Self, Refusal> {
        Self::login_at(&node.tcp(), &node.ws(), login)
    }

    /// A session at one of these two addresses, or why there is none.
    pub fn login_at(tcp: &str, ws: &str, login: &Login) -> Result<Self, Refusal> {
        let opened = match login.transport {
            Transport::Tcp | Transport::JsonTcp => socket::tcp(tcp, login.patience),
            Transport::Ws | Transport::Json => socket::websocket(ws, login.patience),
        };
        let (writer, reader) = opened.map_err(|_| Refusal::Closed)?;
        let (binary, key) = login.frame();
        let connect = match login.transport.is_json() {
            false => binary,
            true => request(
                "connect",
                "connect",
                &json!({
                    "uid": login.uid, "token": login.token, "deviceId": login.device_id,
                    "deviceFlag": login.device_flag, "clientTimestamp": 1_700_000_000_000_i64,
                }),
            ),
        };
        let written = writer.messages(&[connect], login.transport.is_json());
        written.map_err(|_| Refusal::Closed)?;
        Self::greeted(writer, reader, login, key)
    }

    /// A session on a connection whose CONNECT has been written.
    pub fn greeted(
        writer: Writer,
        reader: Reader,
        login: &Login,
        key: ClientKey,
    ) -> Result<Self, Refusal> {
        let (writer, (sender, events)) = (Arc::new(writer), mpsc::channel());
        let mut listener = Listener {
            writer: login.recvack.then(|| Arc::clone(&writer)),
            sender,
            key,
            cipher: None,
            version: login.version.min(frame::VERSION_LATEST),
            buffer: Vec::new(),
        };
        let json = login.transport.is_json();
        thread::spawn(move || listener.listen(reader, json));
        let mut client = Self {
            writer,
            events,
            passed: VecDeque::new(),
            cipher: None,
            login: login.clone(),
            client_seq: AtomicU32::new(0),
        };
        match client.next(login.patience) {
            Some((_, Event::Connack { reason: SUCCESS, cipher })) => {
                client.cipher = cipher;
                Ok(client)
            }
            Some((_, Event::Connack { reason, .. })) => {
                client.closed();
                Err(Refusal::Reason(reason))
            }
            Some((_, Event::Closed)) => Err(Refusal::Closed),
            Some((_, other)) => panic!("{other:?} instead of CONNACK"),
            None => Err(Refusal::Silence),
        }
    }

    /// The uid of the session.
    pub fn uid(&self) -> &str {
        &self.login.uid
    }

    /// A SEND as this session writes it, with the client_seq that its SENDACK will carry.
    pub fn frame(&self, to: &Channel, client_msg_no: &str, payload: &[u8]) -> (u32, Vec<u8>) {
        let client_seq = self.client_seq.fetch_add(1, Ordering::Relaxed) + 1;
        if self.login.transport.is_json() {
            let params = json!({
                "channelId": to.id, "channelType": to.kind, "clientMsgNo": client_msg_no,
                "payload": BASE64_STANDARD.encode(payload), "header": {"redDot": true},
            });
            return (client_seq, request("send", &client_seq.to_string(), &params));
        }
        let wire = self.seal(payload);
        (client_seq, self.frame_of_wire(client_seq, to, client_msg_no, &wire))
    }

    /// The wire form of a payload in a binary SEND.
    pub fn seal(&self, payload: &[u8]) -> Vec<u8> {
        let mut wire = Vec::new();
        match &self.cipher {
            Some(cipher) => cipher.seal(payload, &mut wire),
            None => wire.extend_from_slice(payload),
        }
        wire
    }

    /// A binary SEND with this wire form of a payload, whatever it is, under a right key.
    pub fn frame_of_wire(
        &self,
        client_seq: u32,
        to: &Channel,
        client_msg_no: &str,
        payload: &[u8],
    ) -> Vec<u8> {
        let mut send = Send {
            flags: Flags { red_dot: true, ..Flags::default() },
            client_seq,
            client_msg_no,
            channel_id: &to.id,
            channel_type: to.kind,
            payload,
            ..Send::default()
        };
        let key = self.cipher.map(|cipher| cipher.send_key(&send));
        send.msg_key = key.as_ref().map_or("", |key| str::from_utf8(key).unwrap());
        let mut out = Vec::new();
        frame::encode(&Frame::Send(send), self.login.version, &mut out).unwrap();
        out
    }

    /// Writes a SEND; the client_seq that its SENDACK will carry.
    pub fn send(&self, to: &Channel, client_msg_no: &str, payload: &[u8]) -> io::Result<u32> {
        let (client_seq, frame) = self.frame(to, client_msg_no, payload);
        self.write(&[frame])?;
        Ok(client_seq)
    }

    /// Sends and waits for the SENDACK, which must say success.
    pub fn deliver(&mut self, to: &Channel, client_msg_no: &str, payload: &[u8]) -> Ack {
        let client_seq = self.send(to, client_msg_no, payload).unwrap();
        let ack = self.ack(client_seq);
        assert_eq!(ack.reason, SUCCESS, "SENDACK of {client_msg_no}");
        ack
    }

    /// Writes frames of the session at once, a message each.
    pub fn write(&self, frames: &[Vec<u8>]) -> io::Result<()> {
        self.writer.messages(frames, self.login.transport.is_json())
    }

    /// Writes bytes as they are.
    pub fn raw(&self, bytes: &[u8]) -> io::Result<()> {
        self.writer.raw(bytes)
    }

    /// Asks for a PONG.
    pub fn ask_pong(&self) -> io::Result<()> {
        let ping = match self.login.transport.is_json() {
            false => vec![0x70],
            true => request("ping", "ping", &json!({})),
        };
        self.write(&[ping])
    }

    /// Asks for a PONG and waits for it.
    pub fn ping(&mut self) {
        self.ask_pong().unwrap();
        self.find("PONG", |event| matches!(event, Event::Pong).then_some(()));
    }

    /// The next thing that came, with its time.
    pub fn next(&mut self, patience: Duration) -> Option<(Instant, Event)> {
        if let Some(passed) = self.passed.pop_front() {
            return Some(passed);
        }
        match self.events.recv_timeout(patience) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some((Instant::now(), Event::Closed)),
        }
    }

    /// Waits for what `wanted` takes; everything else stays for later.
    pub fn find<T>(&mut self, what: &str, wanted: impl Fn(&Event) -> Option<T>) -> T {
        let uid = self.login.uid.clone();
        if let Some((place, found)) =
            (self.passed.iter().enumerate()).find_map(|(i, (_, e))| Some((i, wanted(e)?)))
        {
            self.passed.remove(place);
            return found;
        }
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Ok((at, event)) = self.events.recv_timeout(left) else {
                panic!("{uid}: no {what} came; there were {:?}", self.passed);
            };
            if let Some(found) = wanted(&event) {
                return found;
            }
            let over = matches!(event, Event::Closed | Event::Garbage(_));
            assert!(!over, "{uid}: {event:?} instead of {what}");
            self.passed.push_back((at, event));
        }
    }

    /// The SENDACK of this client_seq.
    pub fn ack(&mut self, client_seq: u32) -> Ack {
        self.find(&format!("SENDACK {client_seq}"), |event| match event {
            Event::Ack(ack) if ack.client_seq == client_seq => Some(*ack),
            _ => None,
        })
    }

    /// The next RECV.
    pub fn receive(&mut self) -> Received {
        self.find("RECV", |event| match event {
            Event::Recv(received) => Some(received.clone()),
            _ => None,
        })
    }

    /// Waits for a DISCONNECT; its reason and text.
    pub fn disconnected(&mut self) -> (u8, String) {
        self.find("DISCONNECT", |event| match event {
            Event::Disconnect { reason, text } => Some((*reason, text.clone())),
            _ => None,
        })
    }

    /// Waits until the server has closed the connection.
    pub fn closed(&mut self) {
        self.find("end of the connection", |event| matches!(event, Event::Closed).then_some(()));
    }

    /// What has come by now and was not taken.
    pub fn rest(&mut self) -> Vec<Event> {
        let mut all: Vec<_> = self.passed.drain(..).map(|(_, event)| event).collect();
        all.extend(self.events.try_iter().map(|(_, event)| event));
        all
    }

    /// Ends the writing direction, as a proxy does whose client has gone.
    pub fn close_half(&self) {
        self.writer.close_half();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.writer.close();
    }
}

/// A JSON-RPC request.
pub fn request(method: &str, id: &str, params: &Value) -> Vec<u8> {
    let request = json!({"jsonrpc": "2.0", "method": method, "id": id, "params": params});
    request.to_string().into_bytes()
}
