//! What a session hears: pieces of a socket become events, in the order in which they came.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jindou_core::wire::crypto::{Cipher, ClientKey};
use jindou_core::wire::frame::{self, Flags, Frame, Recvack};
use serde_json::{Value, json};

use super::client::{Ack, Channel, Event, Received, SUCCESS};
use super::socket::{Piece, Reader, Writer};

/// The reading thread of a session.
pub struct Listener {
    /// Where RECVACKs go, if they are wanted.
    pub writer: Option<Arc<Writer>>,
    pub sender: Sender<(Instant, Event)>,
    pub key: ClientKey,
    pub cipher: Option<Cipher>,
    pub version: u8,
    pub buffer: Vec<u8>,
}

impl Listener {
    pub fn listen(&mut self, mut reader: Reader, json: bool) {
        loop {
            let taken = match reader.next() {
                Ok(Some(Piece::Bytes(bytes))) => {
                    self.buffer.extend_from_slice(&bytes);
                    if json { self.objects() } else { self.frames() }
                }
                // One packet per WebSocket message, whole: old SDKs lose what follows the first.
                Ok(Some(Piece::Binary(bytes))) if !json => {
                    self.buffer = bytes;
                    match self.frames() {
                        Ok(1) if self.buffer.is_empty() => Ok(1),
                        Ok(count) => Err(format!("{count} packets in a WebSocket message")),
                        Err(e) => Err(e),
                    }
                }
                Ok(Some(Piece::Text(bytes))) if json => {
                    self.buffer = bytes;
                    match self.objects() {
                        Ok(1) if self.buffer.is_empty() => Ok(1),
                        Ok(count) => Err(format!("{count} objects in a WebSocket message")),
                        Err(e) => Err(e),
                    }
                }
                Ok(Some(piece)) => Err(format!("{piece:?}")),
                Ok(None) => break,
                Err(e) => Err(e.to_string()),
            };
            if let Err(text) = taken {
                self.tell(Event::Garbage(text));
                break;
            }
        }
        self.tell(Event::Closed);
    }

    fn tell(&self, event: Event) {
        let _ = self.sender.send((Instant::now(), event));
    }

    /// Takes whole frames out of the buffer; how many.
    fn frames(&mut self) -> Result<usize, String> {
        let (buffer, mut start, mut count) = (std::mem::take(&mut self.buffer), 0, 0);
        while let Some((frame, size)) =
            frame::decode(&buffer[start..], self.version).map_err(|e| e.to_string())?
        {
            start += size;
            count += 1;
            let event = self.event(&frame)?;
            if let (Event::Recv(received), Some(writer)) = (&event, &self.writer) {
                let _ = writer.messages(&[recvack(received)], false);
            }
            self.tell(event);
        }
        self.buffer = buffer[start..].to_vec();
        Ok(count)
    }

    fn event(&mut self, frame: &Frame<'_>) -> Result<Event, String> {
        Ok(match frame {
            Frame::Connack(f) => {
                if f.reason == SUCCESS && !f.server_key.is_empty() {
                    let cipher = self.key.agree(f.server_key, f.salt);
                    self.cipher = Some(cipher.map_err(|e| e.to_string())?);
                }
                Event::Connack { reason: f.reason, cipher: self.cipher }
            }
            Frame::Sendack(f) => Event::Ack(Ack {
                client_seq: f.client_seq,
                id: f.message_id,
                seq: f.message_seq,
                reason: f.reason,
            }),
            Frame::Recv(f) => {
                let mut payload = Vec::new();
                match &self.cipher {
                    Some(cipher) if !cipher.verify_recv(f) => return Err("wrong msgKey".into()),
                    Some(cipher) => {
                        cipher.open(f.payload, &mut payload).map_err(|e| e.to_string())?
                    }
                    None => payload.extend_from_slice(f.payload),
                }
                Event::Recv(Received {
                    id: f.message_id,
                    seq: f.message_seq,
                    from: f.from_uid.to_owned(),
                    channel: Channel { id: f.channel_id.to_owned(), kind: f.channel_type },
                    client_msg_no: f.client_msg_no.to_owned(),
                    payload,
                })
            }
            Frame::Pong => Event::Pong,
            Frame::Event(f) => Event::Stream {
                id: f.id.to_owned(),
                kind: f.kind.to_owned(),
                data: serde_json::from_slice(f.data).map_err(|e| e.to_string())?,
            },
            Frame::Disconnect(f) => Event::Disconnect { reason: f.reason, text: f.text.to_owned() },
            other => return Err(format!("{other:?} of a server")),
        })
    }

    /// Takes whole JSON objects out of the buffer; how many.
    fn objects(&mut self) -> Result<usize, String> {
        let buffer = std::mem::take(&mut self.buffer);
        let mut values = serde_json::Deserializer::from_slice(&buffer).into_iter::<Value>();
        let mut count = 0;
        loop {
            let before = values.byte_offset();
            match values.next() {
                Some(Ok(value)) => {
                    count += 1;
                    self.object(&value)?;
                }
                Some(Err(e)) if e.is_eof() => {
                    self.buffer = buffer[before..].to_vec();
                    return Ok(count);
                }
                Some(Err(e)) => return Err(e.to_string()),
                None => return Ok(count),
            }
        }
    }

    fn object(&mut self, value: &Value) -> Result<(), String> {
        let strange = || format!("strange object {value}");
        let number = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok()).ok_or_else(strange);
        let id = |v: &Value| v.as_str().and_then(|id| id.parse().ok()).ok_or_else(strange);
        let reason = |v: &Value| v.as_u64().and_then(|n| u8::try_from(n).ok()).ok_or_else(strange);
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let (result, error, params) = (&value["result"], &value["error"], &value["params"]);
        let event = match (value["id"].as_str(), value["method"].as_str()) {
            (Some("connect"), _) if error.is_object() => {
                Event::Connack { reason: reason(&error["code"])?, cipher: None }
            }
            (Some("connect"), _) => {
                Event::Connack { reason: reason(&result["reasonCode"])?, cipher: None }
            }
            (Some("ping"), _) if result.is_object() => Event::Pong,
            (Some(client_seq), _) if result.is_object() => Event::Ack(Ack {
                client_seq: client_seq.parse().map_err(|_| strange())?,
                id: id(&result["messageId"])?,
                seq: number(&result["messageSeq"])?,
                reason: reason(&result["reasonCode"])?,
            }),
            (None, Some("recv")) => Event::Recv(Received {
                id: id(&params["messageId"])?,
                seq: number(&params["messageSeq"])?,
                from: text(&params["fromUid"]),
                channel: Channel {
                    id: text(&params["channelId"]),
                    kind: reason(&params["channelType"])?,
                },
                client_msg_no: text(&params["clientMsgNo"]),
                payload: BASE64_STANDARD.decode(text(&params["payload"])).map_err(|_| strange())?,
            }),
            (None, Some("event")) => Event::Stream {
                id: text(&params["id"]),
                kind: text(&params["type"]),
                data: serde_json::from_str(&text(&params["data"])).map_err(|e| e.to_string())?,
            },
            (None, Some("disconnect")) => Event::Disconnect {
                reason: reason(&params["reasonCode"])?,
                text: text(&params["reason"]),
            },
            _ => return Err(strange()),
        };
        if let (Event::Recv(received), Some(writer)) = (&event, &self.writer) {
            let ack = json!({"jsonrpc": "2.0", "method": "recvack", "params": {
                "messageId": received.id.to_string(), "messageSeq": received.seq}});
            let _ = writer.messages(&[ack.to_string().into_bytes()], true);
        }
        self.tell(event);
        Ok(())
    }
}

fn recvack(of: &Received) -> Vec<u8> {
    let ack = Recvack {
        flags: Flags { red_dot: true, ..Flags::default() },
        message_id: of.id,
        message_seq: of.seq,
    };
    let mut out = Vec::new();
    frame::encode(&Frame::Recvack(ack), frame::VERSION_LATEST, &mut out).unwrap();
    out
}
