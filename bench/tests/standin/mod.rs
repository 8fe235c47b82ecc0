//! A server of some two hundred lines that speaks the public protocol: what the generator is tried on.
//! It stores nothing, and can be told to misbehave.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use jindou_core::wire::crypto::{Cipher, ServerKey};
use jindou_core::wire::frame::{Connack, Flags, Frame, RecvHead, Sendack, encode, encode_recv};
use jindou_core::wire::inbound::{Inbound, Incoming, Transport};
use jindou_core::wire::jsonrpc::{self, ConnectResult, RpcCall};
use jindou_core::wire::outbound::Framing;

/// What the stand-in does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Acknowledges every message and delivers all but each 50th.
    LoseSome,
    /// Delivers each 50th twice.
    Double,
    /// Signs every RECV with another connection's key.
    WrongKey,
    /// Refuses each 10th send with reason 15.
    RefuseSome,
    /// Closes every second connection before CONNACK.
    HangUp,
}

/// Where the stand-in listens.
pub struct StandIn {
    pub tcp: u16,
    pub ws: u16,
    pub http: u16,
}

#[derive(Clone)]
struct Session {
    socket: Arc<Mutex<TcpStream>>,
    framing: Framing,
    json: bool,
    version: u8,
    cipher: Option<Cipher>,
}

#[derive(Default)]
struct State {
    sessions: HashMap<String, Session>,
    groups: HashMap<String, Vec<String>>,
    seqs: HashMap<String, u32>,
    messages: i64,
    connects: u32,
}

type Shared = Arc<Mutex<State>>;

impl StandIn {
    pub fn start(fault: Fault) -> StandIn {
        let shared = Shared::default();
        let listen = |transport: Option<Transport>| {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let port = listener.local_addr().unwrap().port();
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                for socket in listener.incoming().flatten() {
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || match transport {
                        Some(transport) => client(socket, transport, &shared, fault),
                        None => http(socket, &shared),
                    });
                }
            });
            port
        };
        StandIn {
            tcp: listen(Some(Transport::Tcp)),
            ws: listen(Some(Transport::Ws)),
            http: listen(None),
        }
    }
}

fn client(mut socket: TcpStream, transport: Transport, shared: &Shared, fault: Fault) {
    socket.set_nodelay(true).unwrap();
    let writer = Arc::new(Mutex::new(socket.try_clone().unwrap()));
    let mut inbound = Inbound::new(transport, true);
    let mut session: Option<(String, Session)> = None;
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok(size @ 1..) = socket.read(&mut buffer) else {
            return;
        };
        let mut out = Vec::new();
        let mut feed = inbound.feed(&mut buffer[..size]);
        loop {
            let json = feed.is_json() == Some(true);
            let framing = Framing::of(transport, json);
            // Written before the next packet is read: `out` is the transport's until then.
            let Ok(next) = feed.next(&mut out) else {
                return;
            };
            let Some(incoming) = next else { break };
            let framing = if session.is_some() {
                framing
            } else {
                Framing::of(transport, matches!(incoming, Incoming::Rpc(_)))
            };
            match incoming {
                Incoming::Frame(Frame::Connect(connect)) => {
                    if hangs_up(shared, fault) {
                        return;
                    }
                    let key = ServerKey::from_seed([7; 32]);
                    let cipher = key.agree(connect.client_key, *b"0123456789abcdef").unwrap();
                    let connack = Connack {
                        server_version: (connect.version > 3).then_some(connect.version),
                        reason: 1,
                        server_key: key.public_base64(),
                        salt: "0123456789abcdef",
                        node_id: 1,
                        ..Connack::default()
                    };
                    framing
                        .write(&mut out, |out| {
                            encode(&Frame::Connack(connack), connect.version, out)
                        })
                        .unwrap();
                    let entry = Session {
                        socket: Arc::clone(&writer),
                        framing,
                        json: false,
                        version: connect.version,
                        cipher: Some(cipher),
                    };
                    session = Some((connect.uid.to_owned(), entry));
                }
                Incoming::Rpc(Ok(request)) => {
                    let id = request.id.as_deref().unwrap_or("").to_owned();
                    match request.call {
                        RpcCall::Connect(connect) => {
                            let result = ConnectResult {
                                server_version: 5,
                                time_diff: 0,
                                reason: 1,
                                node_id: 1,
                            };
                            put(framing, &mut out, |out| {
                                jsonrpc::encode_connect_result(out, &id, &result);
                            });
                            let entry = Session {
                                socket: Arc::clone(&writer),
                                framing,
                                json: true,
                                version: 5,
                                cipher: None,
                            };
                            session = Some((connect.uid.into_owned(), entry));
                        }
                        RpcCall::Send(send) => {
                            let (uid, _) = session.as_ref().unwrap();
                            let post = Post {
                                from: uid,
                                channel: &send.channel_id,
                                kind: send.channel_type,
                                message_no: &send.client_msg_no,
                                payload: &send.payload,
                            };
                            let ack = deliver(shared, &post, fault);
                            put(framing, &mut out, |out| {
                                jsonrpc::encode_send_result(out, &id, &ack)
                            });
                        }
                        RpcCall::Ping => {
                            put(framing, &mut out, |out| jsonrpc::encode_ping_result(out, &id))
                        }
                        RpcCall::Recvack(_) | RpcCall::Disconnect { .. } => {}
                    }
                }
                Incoming::Frame(Frame::Send(send)) => {
                    let (uid, entry) = session.as_ref().unwrap();
                    let cipher = entry.cipher.unwrap();
                    assert!(cipher.verify_send(&send), "the generator signs its sends");
                    let mut plain = Vec::new();
                    cipher.open(send.payload, &mut plain).unwrap();
                    let post = Post {
                        from: uid,
                        channel: send.channel_id,
                        kind: send.channel_type,
                        message_no: send.client_msg_no,
                        payload: &plain,
                    };
                    let ack =
                        Sendack { client_seq: send.client_seq, ..deliver(shared, &post, fault) };
                    framing.write(&mut out, |out| encode(&Frame::Sendack(ack), 5, out)).unwrap();
                }
                Incoming::Frame(Frame::Ping) => {
                    framing.write(&mut out, |out| encode(&Frame::Pong, 5, out)).unwrap();
                }
                _ => {}
            }
        }
        drop(feed);
        if let Some((uid, entry)) = &session {
            inbound.set_version(entry.version);
            shared.lock().unwrap().sessions.insert(uid.clone(), entry.clone());
        }
        if writer.lock().unwrap().write_all(&out).is_err() {
            return;
        }
    }
}

fn put(framing: Framing, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = framing.start(out);
    write(out);
    framing.end(out, start);
}

fn hangs_up(shared: &Shared, fault: Fault) -> bool {
    let mut state = shared.lock().unwrap();
    state.connects += 1;
    fault == Fault::HangUp && state.connects.is_multiple_of(2)
}

struct Post<'a> {
    from: &'a str,
    channel: &'a str,
    kind: u8,
    message_no: &'a str,
    payload: &'a [u8],
}

fn deliver(shared: &Shared, post: &Post<'_>, fault: Fault) -> Sendack {
    let mut state = shared.lock().unwrap();
    state.messages += 1;
    let id = state.messages;
    if fault == Fault::RefuseSome && id % 10 == 0 {
        return Sendack { message_id: id, reason: 15, ..Sendack::default() };
    }
    let (key, receivers) = match post.kind {
        1 => {
            let mut pair = [post.from, post.channel];
            pair.sort_unstable();
            (pair.join("@"), vec![post.channel.to_owned()])
        }
        _ => (post.channel.to_owned(), state.groups.get(post.channel).cloned().unwrap_or_default()),
    };
    let seq = state.seqs.entry(key).or_default();
    *seq += 1;
    let seq = *seq;
    let times = match fault {
        Fault::LoseSome if id % 50 == 0 => 0,
        Fault::Double if id % 50 == 0 => 2,
        _ => 1,
    };
    for uid in receivers.iter().filter(|uid| *uid != post.from) {
        let Some(session) = state.sessions.get(uid) else {
            continue;
        };
        for _ in 0..times {
            recv(session, post, id, seq, fault);
        }
    }
    Sendack { message_id: id, message_seq: seq, reason: 1, ..Sendack::default() }
}

fn recv(session: &Session, post: &Post<'_>, id: i64, seq: u32, fault: Fault) {
    let head = RecvHead {
        flags: Flags { red_dot: true, ..Flags::default() },
        from_uid: post.from,
        channel_id: if post.kind == 1 { post.from } else { post.channel },
        channel_type: post.kind,
        client_msg_no: post.message_no,
        message_id: id,
        message_seq: seq,
        timestamp: 1,
        ..RecvHead::default()
    };
    let cipher = match fault {
        Fault::WrongKey => Some(Cipher::from_parts([1; 16], [2; 16])),
        _ => session.cipher,
    };
    let mut out = Vec::new();
    if session.json {
        put(session.framing, &mut out, |out| jsonrpc::encode_recv(out, &head, post.payload));
    } else {
        session
            .framing
            .write(&mut out, |out| {
                encode_recv(out, session.version, &head, cipher.as_ref(), post.payload)
            })
            .unwrap();
    }
    // The receiver may have left; that is its own affair.
    let _ = session.socket.lock().unwrap().write_all(&out);
}

fn http(mut socket: TcpStream, shared: &Shared) {
    let mut request = Vec::new();
    let mut buffer = [0; 65_536];
    loop {
        let Ok(size @ 1..) = socket.read(&mut buffer) else {
            return;
        };
        request.extend_from_slice(&buffer[..size]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("Content-Length: "))
            .map_or(0, |length| length.parse().unwrap());
        if body.len() < length {
            continue;
        }
        if head.starts_with("POST /channel") {
            let json: serde_json::Value = serde_json::from_str(body).unwrap();
            let members = json["subscribers"].as_array().unwrap();
            let members = members.iter().map(|uid| uid.as_str().unwrap().to_owned());
            let mut state = shared.lock().unwrap();
            let channel = json["channel_id"].as_str().unwrap().to_owned();
            state.groups.entry(channel).or_default().extend(members);
        }
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
        return;
    }
}
