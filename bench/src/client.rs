//! One client of the public protocol, without a socket: bytes in, bytes out. Speaks binary frames or
//! JSON-RPC, bare or over WebSocket, acknowledges what it receives and checks a sample of it.

use std::str;

use jindou_core::wire::crypto::{Cipher, ClientKey};
use jindou_core::wire::frame::{self, Connect, Flags, Frame, Recv, Recvack, Send};
use jindou_core::wire::inbound::{Inbound, Incoming, Transport};
use jindou_core::wire::jsonrpc::{self, RpcRecv, RpcReply};
use jindou_core::wire::websocket::{Opcode, client_request, message_end_masked, message_start};
use serde_json::value::RawValue;

/// Reason code of success.
pub(crate) const SUCCESS: u8 = 1;

/// What all clients of a run have in common.
pub(crate) struct Profile {
    pub(crate) ws: bool,
    pub(crate) rpc: bool,
    pub(crate) protocol: u8,
    /// `Host` and path of a WebSocket request.
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) token: String,
    /// Key pairs, shared in turn: making one costs as much as an agreement.
    pub(crate) keys: Vec<ClientKey>,
    /// What every message says.
    pub(crate) payload: Vec<u8>,
    /// One RECV in so many is checked; 0: none.
    pub(crate) verify: u64,
    /// Whether this client will send or check, and so needs the cipher.
    pub(crate) agrees: bool,
}

/// What a client tells about what came in. `at` is the client's number.
pub(crate) trait Sink {
    /// What follows came in at this moment, ns.
    fn now(&mut self, _now: u64) {}
    /// CONNACK with success.
    fn live(&mut self, at: usize);
    /// SENDACK.
    fn answer(&mut self, at: usize, client_seq: u32, reason: u8);
    /// RECV.
    fn recv(&mut self, at: usize, client_msg_no: &str, message_seq: u32);
}

/// Why a client is at its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Closed {
    /// The server closed the connection.
    #[error("the server closed the connection")]
    End,
    /// The system ended it.
    #[error("{0}")]
    Io(String),
    /// CONNACK without success.
    #[error("CONNECT was refused with reason {0}")]
    Refused(u8),
    /// DISCONNECT.
    #[error("DISCONNECT with reason {0}")]
    Kicked(u8),
    /// The server does not speak the protocol.
    #[error("protocol error: {0}")]
    Protocol(String),
    /// The dial took too long.
    #[error("no CONNACK in time")]
    Slow,
}

/// What a client has counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// RECVs whose key and content were checked.
    pub(crate) verified: u64,
    /// Those found wrong.
    pub(crate) wrong: u64,
    /// PONGs.
    pub(crate) pongs: u64,
}

/// One client.
pub(crate) struct Client {
    inbound: Inbound,
    /// The user, until CONNECT is written.
    uid: Option<Box<str>>,
    talk: Talk,
}

/// A client without its reader.
struct Talk {
    at: usize,
    live: bool,
    cipher: Option<Cipher>,
    /// The run's payload in this connection's wire form.
    sealed: Vec<u8>,
    /// State of the mask and of nothing else: it need not be unguessable here.
    mask: u32,
    received: u64,
    tally: Tally,
    out: Vec<u8>,
}

impl Client {
    /// A client whose socket has just been opened; its output holds its first bytes.
    pub(crate) fn new(at: usize, uid: &str, profile: &Profile) -> Client {
        let transport = if profile.ws { Transport::Ws } else { Transport::Tcp };
        // Sixteen bytes in base64; the server only hashes them.
        let key = format!("{at:022}==");
        let mut inbound = Inbound::client(transport, profile.rpc, &key);
        inbound.set_version(profile.protocol);
        let mut client = Client {
            inbound,
            uid: Some(uid.into()),
            talk: Talk {
                at,
                live: false,
                cipher: None,
                sealed: Vec::new(),
                mask: 0x9e37_79b9 ^ u32::try_from(at & 0xffff_ffff).unwrap_or(0),
                received: 0,
                tally: Tally::default(),
                out: Vec::new(),
            },
        };
        if profile.ws {
            client_request(&mut client.talk.out, &profile.host, &profile.path, &key);
        }
        client.connect(profile);
        client
    }

    /// Writes CONNECT once the transport is up: v2.2.5 loses what comes along with an upgrade.
    fn connect(&mut self, profile: &Profile) {
        if self.inbound.is_open()
            && let Some(uid) = self.uid.take()
        {
            self.talk.connect(&uid, profile);
        }
    }

    /// Whether CONNACK has come.
    pub(crate) fn is_live(&self) -> bool {
        self.talk.live
    }

    /// What was counted.
    pub(crate) fn tally(&self) -> Tally {
        self.talk.tally
    }

    /// Bytes to be written.
    pub(crate) fn out(&mut self) -> &mut Vec<u8> {
        &mut self.talk.out
    }

    /// How many there are.
    pub(crate) fn out_size(&self) -> usize {
        self.talk.out.len()
    }

    /// Writes a SEND with the run's payload.
    pub(crate) fn send(
        &mut self,
        profile: &Profile,
        channel_id: &str,
        channel_type: u8,
        client_seq: u32,
        client_msg_no: &str,
    ) {
        let talk = &mut self.talk;
        let sealed = std::mem::take(&mut talk.sealed);
        let mut send = Send {
            flags: Flags { red_dot: true, ..Flags::default() },
            client_seq,
            client_msg_no,
            channel_id,
            channel_type,
            payload: if talk.cipher.is_some() { &sealed } else { &profile.payload },
            ..Send::default()
        };
        let key = talk.cipher.map(|cipher| cipher.send_key(&send));
        send.msg_key = key.as_ref().and_then(|key| str::from_utf8(key).ok()).unwrap_or("");
        talk.packet(profile, |out| match profile.rpc {
            true => jsonrpc::encode_send(out, decimal(client_seq, &mut [0; 10]), &send),
            false => put(out, &Frame::Send(send), profile),
        });
        talk.sealed = sealed;
    }

    /// Writes a PING.
    pub(crate) fn ping(&mut self, profile: &Profile) {
        self.talk.packet(profile, |out| match profile.rpc {
            true => jsonrpc::encode_ping(out, "p"),
            false => put(out, &Frame::Ping, profile),
        });
    }

    /// Takes bytes of the socket.
    pub(crate) fn feed(
        &mut self,
        input: &mut [u8],
        profile: &Profile,
        sink: &mut impl Sink,
    ) -> Result<(), Closed> {
        let mut feed = self.inbound.feed(input);
        loop {
            let next = feed.next(&mut self.talk.out);
            match next.map_err(|error| Closed::Protocol(error.to_string()))? {
                None => break,
                Some(Incoming::Frame(frame)) => self.talk.frame(&frame, profile, sink)?,
                Some(Incoming::Reply(reply)) => self.talk.reply(&reply, profile, sink)?,
                Some(Incoming::Close) => return Err(Closed::End),
                Some(Incoming::Rpc(Err(error))) => {
                    return Err(Closed::Protocol(error.to_string()));
                }
                Some(Incoming::Rpc(Ok(_)) | Incoming::Peer(_)) => {}
            }
        }
        drop(feed);
        self.connect(profile);
        Ok(())
    }
}

impl Talk {
    fn connect(&mut self, uid: &str, profile: &Profile) {
        let key = profile.keys.get(self.at % profile.keys.len().max(1));
        let device = format!("d{}", self.at);
        let connect = Connect {
            version: profile.protocol,
            device_flag: 0,
            device_id: &device,
            uid,
            token: &profile.token,
            client_timestamp: crate::unix_ms(),
            client_key: key.map_or("", ClientKey::public_base64),
        };
        self.packet(profile, |out| match profile.rpc {
            true => jsonrpc::encode_connect(out, "c", &connect),
            false => put(out, &Frame::Connect(connect), profile),
        });
    }

    /// One packet, as one message on WebSocket.
    fn packet(&mut self, profile: &Profile, write: impl FnOnce(&mut Vec<u8>)) {
        if !profile.ws {
            return write(&mut self.out);
        }
        let start = message_start(&mut self.out);
        write(&mut self.out);
        self.mask = self.mask.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
        let opcode = if profile.rpc { Opcode::Text } else { Opcode::Binary };
        message_end_masked(&mut self.out, start, opcode, self.mask.to_ne_bytes());
    }

    fn frame(
        &mut self,
        frame: &Frame<'_>,
        profile: &Profile,
        sink: &mut impl Sink,
    ) -> Result<(), Closed> {
        match frame {
            Frame::Sendack(ack) => sink.answer(self.at, ack.client_seq, ack.reason),
            Frame::Recv(recv) => {
                let ack = Recvack {
                    flags: recv.flags,
                    message_id: recv.message_id,
                    message_seq: recv.message_seq,
                };
                self.packet(profile, |out| put(out, &Frame::Recvack(ack), profile));
                if self.is_sample(profile) {
                    self.check(recv, profile);
                }
                sink.recv(self.at, recv.client_msg_no, recv.message_seq);
            }
            Frame::Connack(connack) => {
                if connack.reason != SUCCESS {
                    return Err(Closed::Refused(connack.reason));
                }
                if !connack.server_key.is_empty() && profile.agrees {
                    self.agree(connack.server_key, connack.salt, profile)?;
                }
                self.live = true;
                sink.live(self.at);
            }
            Frame::Pong => self.tally.pongs += 1,
            Frame::Disconnect(disconnect) => return Err(Closed::Kicked(disconnect.reason)),
            Frame::Event(_) | Frame::Suback(_) => {}
            Frame::Connect(_)
            | Frame::Send(_)
            | Frame::Recvack(_)
            | Frame::Ping
            | Frame::Sub(_) => {
                return Err(Closed::Protocol("the server sent a client's frame".to_owned()));
            }
        }
        Ok(())
    }

    fn agree(&mut self, server_key: &str, salt: &str, profile: &Profile) -> Result<(), Closed> {
        let key = profile.keys.get(self.at % profile.keys.len().max(1));
        let Some(key) = key else { return Ok(()) };
        let cipher =
            key.agree(server_key, salt).map_err(|error| Closed::Protocol(error.to_string()))?;
        self.sealed.clear();
        cipher.seal(&profile.payload, &mut self.sealed);
        self.cipher = Some(cipher);
        Ok(())
    }

    fn is_sample(&mut self, profile: &Profile) -> bool {
        self.received += 1;
        profile.verify != 0 && (self.received - 1).is_multiple_of(profile.verify)
    }

    fn check(&mut self, recv: &Recv<'_>, profile: &Profile) {
        let right = match self.cipher {
            None => recv.payload == profile.payload,
            Some(cipher) => {
                let mut plain = Vec::with_capacity(recv.payload.len());
                cipher.verify_recv(recv)
                    && cipher.open(recv.payload, &mut plain).is_ok()
                    && plain == profile.payload
            }
        };
        self.tally.verified += 1;
        self.tally.wrong += u64::from(!right);
    }

    fn reply(
        &mut self,
        reply: &RpcReply<'_>,
        profile: &Profile,
        sink: &mut impl Sink,
    ) -> Result<(), Closed> {
        match (reply.method.as_deref(), reply.id.as_deref().unwrap_or("")) {
            (Some("recv"), _) => {
                let recv: RpcRecv = read(reply.params)?;
                self.recv(&recv, profile, sink);
            }
            (Some("disconnect"), _) => return Err(Closed::Kicked(reason(reply.params))),
            (Some(_), _) => {}
            (None, _) if reply.error.is_some() && !self.live => {
                return Err(Closed::Refused(reason(reply.error)));
            }
            (None, "p") => self.tally.pongs += 1,
            (None, "c") => match reason(reply.result) {
                SUCCESS => {
                    self.live = true;
                    sink.live(self.at);
                }
                other => return Err(Closed::Refused(other)),
            },
            (None, id) => {
                if let Ok(seq) = id.parse() {
                    sink.answer(self.at, seq, reason(reply.result));
                }
            }
        }
        Ok(())
    }

    fn recv(&mut self, recv: &RpcRecv, profile: &Profile, sink: &mut impl Sink) {
        let ack = Recvack {
            flags: Flags {
                no_persist: recv.header.no_persist,
                red_dot: recv.header.red_dot,
                sync_once: recv.header.sync_once,
                dup: recv.header.dup,
            },
            message_id: recv.message_id.parse().unwrap_or(0),
            message_seq: recv.message_seq,
        };
        self.packet(profile, |out| jsonrpc::encode_recvack(out, &ack));
        if self.is_sample(profile) {
            self.tally.verified += 1;
            // The payload's base64 ends a send request, and so is at hand without a codec of our own.
            let mut want = Vec::new();
            let send = Send { payload: &profile.payload, ..Send::default() };
            jsonrpc::encode_send(&mut want, "", &send);
            let got = format!(":\"{}\"}}}}", recv.payload.as_deref().unwrap_or(""));
            self.tally.wrong += u64::from(!want.ends_with(got.as_bytes()));
        }
        sink.recv(self.at, &recv.client_msg_no, recv.message_seq);
    }
}

/// Appends a frame. Ours always fit: their sizes were checked with the arguments.
fn put(out: &mut Vec<u8>, frame: &Frame<'_>, profile: &Profile) {
    let _ = frame::encode(frame, profile.protocol, out);
}

fn read<'a, T: serde::Deserialize<'a>>(raw: Option<&'a RawValue>) -> Result<T, Closed> {
    serde_json::from_str(raw.map_or("null", RawValue::get))
        .map_err(|error| Closed::Protocol(error.to_string()))
}

/// `reasonCode` of a result, `code` of an error; 0 when there is none.
fn reason(raw: Option<&RawValue>) -> u8 {
    let value: serde_json::Value = read(raw).unwrap_or_default();
    let code = value.get("reasonCode").or_else(|| value.get("code"));
    code.and_then(serde_json::Value::as_u64).and_then(|n| u8::try_from(n).ok()).unwrap_or(0)
}

/// `n` in decimal, in `buffer`.
fn decimal(mut n: u32, buffer: &mut [u8; 10]) -> &str {
    let mut start = buffer.len();
    for place in buffer.iter_mut().rev() {
        *place = b'0' + u8::try_from(n % 10).unwrap_or(0);
        n /= 10;
        start -= 1;
        if n == 0 {
            break;
        }
    }
    str::from_utf8(buffer.get(start..).unwrap_or_default()).unwrap_or("0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals() {
        for n in [0, 7, 10, 4_294_967_295] {
            assert_eq!(decimal(n, &mut [0; 10]), n.to_string());
        }
    }
}
