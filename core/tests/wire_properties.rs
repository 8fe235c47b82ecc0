//! Properties of every codec: what is written is read again, pieces do not matter, and no bytes
//! make it panic.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::{self, Cursor, Read, Write};

use jindou_core::wire::crypto::{Cipher, sealed_size};
use jindou_core::wire::frame::{
    Connack, Connect, Disconnect, Event, Flags, Frame, Recv, RecvHead, Recvack, Send, Sendack,
    Stream, Sub, Suback, decode, encode, encode_recv, setting, size,
};
use jindou_core::wire::inbound::{Inbound, Incoming, Transport};
use jindou_core::wire::jsonrpc::{self, RpcCall};
use jindou_core::wire::proxy;
use jindou_core::wire::websocket::{
    Opcode, Reader, Role, Step, client_response, message_end, message_end_masked, message_start,
    upgrade,
};
use proptest::collection::vec;
use proptest::prelude::*;
use tungstenite::protocol::{Role as OtherRole, WebSocketConfig};
use tungstenite::{Message, WebSocket};

/// The contents that a frame borrows.
#[derive(Clone, Debug)]
struct Material {
    kind: u8,
    bits: u8,
    bytes: [u8; 4],
    words: [u32; 2],
    longs: [i64; 2],
    texts: [String; 7],
    payload: Vec<u8>,
    stream: bool,
}

fn material() -> impl Strategy<Value = Material> {
    let texts = proptest::array::uniform7(prop_oneof!["[a-z0-9@_-]{0,12}", ".{0,40}"]);
    (
        1_u8..=12,
        any::<u8>(),
        any::<[u8; 4]>(),
        any::<[u32; 2]>(),
        any::<[i64; 2]>(),
        texts,
        vec(any::<u8>(), 0..400),
        any::<bool>(),
    )
        .prop_map(|(kind, bits, bytes, words, longs, texts, payload, stream)| Material {
            kind,
            bits,
            bytes,
            words,
            longs,
            texts,
            payload,
            stream,
        })
}

impl Material {
    /// A frame whose every field is on the wire at `version`.
    fn frame(&self, version: u8) -> Frame<'_> {
        self.frame_of(self.kind, version)
    }

    fn frame_of(&self, kind: u8, version: u8) -> Frame<'_> {
        let [a, b, c, d, e, f, g] = self.texts.each_ref().map(String::as_str);
        let [w, x, y, z] = self.bytes;
        let ([seq, expire], [id, time]) = (self.words, self.longs);
        let expire = if version >= 3 { expire } else { 0 };
        let flags = Flags::from_bits(self.bits);
        let has_stream = (2..5).contains(&version) && w & setting::STREAM != 0;
        let topic = if w & setting::TOPIC != 0 { g } else { "" };
        match kind {
            1 => Frame::Connect(Connect {
                version: w,
                device_flag: x,
                device_id: a,
                uid: b,
                token: c,
                client_timestamp: time,
                client_key: d,
            }),
            2 => Frame::Connack(Connack {
                server_version: self.stream.then_some(w),
                time_diff: time,
                reason: x,
                server_key: a,
                salt: b,
                node_id: if version >= 4 { id.cast_unsigned() } else { 0 },
            }),
            3 => Frame::Send(Send {
                flags,
                setting: w,
                client_seq: seq,
                client_msg_no: a,
                stream_no: has_stream.then_some(b),
                channel_id: c,
                channel_type: x,
                expire,
                msg_key: d,
                topic,
                payload: &self.payload,
            }),
            4 => Frame::Sendack(Sendack {
                flags,
                message_id: id,
                client_seq: seq,
                message_seq: expire,
                reason: w,
            }),
            5 => Frame::Recv(Recv {
                flags,
                setting: if version < 5 && !has_stream { w & !setting::STREAM } else { w },
                msg_key: a,
                from_uid: b,
                channel_id: c,
                channel_type: x,
                expire,
                client_msg_no: d,
                stream: has_stream.then_some(Stream { flag: y, no: e, id: id.cast_unsigned() }),
                message_id: id,
                message_seq: seq,
                timestamp: i32::from_be_bytes([w, x, y, z]),
                topic,
                payload: &self.payload,
            }),
            6 => Frame::Recvack(Recvack { flags, message_id: id, message_seq: seq }),
            7 => Frame::Ping,
            8 => Frame::Pong,
            9 => Frame::Disconnect(Disconnect { reason: w, text: a }),
            10 => Frame::Sub(Sub {
                setting: w,
                sub_no: a,
                channel_id: b,
                channel_type: x,
                action: y,
                param: c,
            }),
            11 => Frame::Suback(Suback {
                sub_no: a,
                channel_id: b,
                channel_type: x,
                action: y,
                reason: z,
            }),
            _ => Frame::Event(Event { id: a, kind: f, timestamp: time, data: &self.payload }),
        }
    }

    fn head(&self) -> RecvHead<'_> {
        let Frame::Recv(recv) = self.frame_of(5, 5) else { unreachable!("kind 5 is RECV") };
        let [_, b, c, d, _, _, g] = self.texts.each_ref().map(String::as_str);
        RecvHead {
            flags: recv.flags,
            setting: recv.setting,
            from_uid: b,
            channel_id: c,
            channel_type: recv.channel_type,
            expire: recv.expire,
            client_msg_no: d,
            message_id: recv.message_id,
            message_seq: recv.message_seq,
            timestamp: recv.timestamp,
            topic: if recv.setting & setting::TOPIC != 0 { g } else { "" },
        }
    }
}

/// Everything a connection makes of `bytes` given in pieces: packets in words, errors, and what
/// the transport answered. Reading stops at the first error, as a caller does.
fn transcript(mut inbound: Inbound, bytes: &[u8], pieces: &[usize]) -> (Vec<String>, Vec<u8>) {
    let (mut seen, mut out) = (Vec::new(), Vec::new());
    let mut rest = bytes;
    let mut pieces = pieces.iter().cycle();
    while !rest.is_empty() {
        let size = pieces.next().copied().unwrap_or(rest.len()).clamp(1, rest.len());
        let (piece, behind) = rest.split_at(size);
        rest = behind;
        let mut piece = piece.to_vec();
        let mut feed = inbound.feed(&mut piece);
        loop {
            match feed.next(&mut out) {
                Ok(Some(incoming)) => seen.push(format!("{incoming:?}")),
                Ok(None) => break,
                Err(error) => {
                    seen.push(format!("{error:?}"));
                    return (seen, out);
                }
            }
        }
    }
    (seen, out)
}

const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// One frame of a client.
fn client_frame(first: u8, payload: &[u8], mask: [u8; 4], out: &mut Vec<u8>) {
    let mut frame = Vec::new();
    let start = message_start(&mut frame);
    frame.extend_from_slice(payload);
    message_end_masked(&mut frame, start, Opcode::Binary, mask);
    frame.splice(..1, [first]);
    out.extend_from_slice(&frame);
}

/// `payload` in messages, fragments and control frames as a client may send it.
fn client_stream(payload: &[u8], cuts: &[(usize, u8)], mask: [u8; 4]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = payload;
    let mut open = false;
    for &(size, choice) in cuts {
        let (piece, behind) = rest.split_at(size.min(rest.len()));
        rest = behind;
        let last = choice & 1 == 0;
        let opcode = if open { 0 } else { 2 };
        client_frame(opcode | if last { 0x80 } else { 0 }, piece, mask, &mut out);
        open = !last;
        if choice & 6 == 6 {
            let first = if choice & 8 == 0 { 0x89 } else { 0x8a };
            client_frame(first, b"beat", mask, &mut out);
        }
    }
    client_frame(if open { 0x80 } else { 0x82 }, rest, mask, &mut out);
    out
}

/// Reads a byte string, keeps what is written.
struct Wire {
    input: Cursor<Vec<u8>>,
    output: Vec<u8>,
}

impl Read for Wire {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.input.read(buf)
    }
}

impl Write for Wire {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The data that tungstenite reads from `bytes`, whole messages only, until it ends or fails.
fn other_reads(bytes: &[u8], role: OtherRole) -> (Vec<Vec<u8>>, Option<tungstenite::Error>) {
    let wire = Wire { input: Cursor::new(bytes.to_vec()), output: Vec::new() };
    let mut socket = WebSocket::from_raw_socket(wire, role, Some(WebSocketConfig::default()));
    let mut messages = Vec::new();
    loop {
        match socket.read() {
            Ok(Message::Binary(data)) => messages.push(data.to_vec()),
            Ok(Message::Text(text)) => messages.push(text.as_bytes().to_vec()),
            Ok(_) => {}
            Err(error) => return (messages, Some(error)),
        }
    }
}

/// The data that we read from `bytes`, and whether it ended in an error.
fn we_read(bytes: &[u8], role: Role) -> (Vec<u8>, bool) {
    let mut reader = Reader::new(role);
    let mut copy = bytes.to_vec();
    let (mut place, mut data, mut out) = (0, Vec::new(), Vec::new());
    loop {
        match reader.step(&mut copy, &mut place, &mut out) {
            Ok(Step::Data(range)) => data.extend_from_slice(copy.get(range).unwrap()),
            Ok(Step::Need | Step::Close) => return (data, false),
            Err(_) => return (data, true),
        }
    }
}

proptest! {
    #[test]
    fn a_frame_is_read_as_it_was_written(material in material(), version in 0_u8..7) {
        let frame = material.frame(version);
        let mut out = b"before".to_vec();
        encode(&frame, version, &mut out).unwrap();
        let bytes = out.get(6..).unwrap();
        prop_assert_eq!(decode(bytes, version), Ok(Some((frame, bytes.len()))));
        prop_assert_eq!(size(bytes), Ok(Some(bytes.len())));
        for end in 0..bytes.len() {
            prop_assert_eq!(decode(bytes.get(..end).unwrap(), version), Ok(None));
        }
    }

    #[test]
    fn what_is_sealed_opens_and_its_size_is_known(
        key in any::<[u8; 16]>(), iv in any::<[u8; 16]>(), plain in vec(any::<u8>(), 0..300),
    ) {
        let cipher = Cipher::from_parts(key, iv);
        let mut sealed = Vec::new();
        cipher.seal(&plain, &mut sealed);
        prop_assert_eq!(sealed.len(), sealed_size(plain.len()));
        let mut opened = Vec::new();
        cipher.open(&sealed, &mut opened).unwrap();
        prop_assert_eq!(&opened, &plain);
        // Line breaks inside the text do not matter.
        let broken: Vec<u8> = sealed.chunks(7).flat_map(|line| [line, b"\r\n"].concat()).collect();
        let mut again = Vec::new();
        cipher.open(&broken, &mut again).unwrap();
        prop_assert_eq!(again, plain);
    }

    #[test]
    fn a_signed_text_may_come_in_parts(
        plain in vec(any::<u8>(), 0..300), cuts in vec(0_usize..60, 0..8),
    ) {
        let cipher = Cipher::from_parts(*b"c230f91349d08277", *b"0123456789abcdef");
        let mut rest = plain.as_slice();
        let mut parts = Vec::new();
        for cut in cuts {
            let (part, behind) = rest.split_at(cut.min(rest.len()));
            parts.push(part);
            rest = behind;
        }
        parts.push(rest);
        prop_assert_eq!(cipher.message_key(parts), cipher.message_key([plain.as_slice()]));
    }

    #[test]
    fn foreign_ciphertext_gives_an_error_and_leaves_no_trace(wire in vec(any::<u8>(), 0..100)) {
        let cipher = Cipher::from_parts([1; 16], [2; 16]);
        let mut out = b"kept".to_vec();
        if cipher.open(&wire, &mut out).is_err() {
            prop_assert_eq!(out, b"kept");
        }
    }

    #[test]
    fn a_delivery_can_be_checked_and_opened(material in material(), version in 0_u8..7) {
        let head = material.head();
        let cipher = Cipher::from_parts([3; 16], [4; 16]);
        let mut out = Vec::new();
        encode_recv(&mut out, version, &head, Some(&cipher), &material.payload).unwrap();
        let (frame, size) = decode(&out, version).unwrap().unwrap();
        prop_assert_eq!(size, out.len());
        let Frame::Recv(recv) = frame else { unreachable!("a RECV was written") };
        prop_assert!(cipher.verify_recv(&recv));
        prop_assert_eq!(recv.stream, None);
        let mut plain = Vec::new();
        cipher.open(recv.payload, &mut plain).unwrap();
        prop_assert_eq!(&plain, &material.payload);
        let mut again = Vec::new();
        encode(&frame, version, &mut again).unwrap();
        prop_assert_eq!(again, out);
    }

    #[test]
    fn json_calls_are_read_as_they_were_written(material in material(), id in ".{0,20}") {
        let Frame::Send(send) = material.frame_of(3, 5) else {
            unreachable!("kind 3 is SEND")
        };
        let mut out = Vec::new();
        jsonrpc::encode_send(&mut out, &id, &send);
        let request = jsonrpc::decode(&out).unwrap();
        prop_assert_eq!(request.id.as_deref(), Some(id.as_str()));
        let RpcCall::Send(found) = request.call else { unreachable!("send was written") };
        let named = setting::RECEIPT | setting::SIGNAL | setting::STREAM | setting::TOPIC;
        prop_assert_eq!(found.setting, send.setting & named);
        prop_assert_eq!((found.flags, found.expire), (send.flags, send.expire));
        prop_assert_eq!((&*found.channel_id, found.channel_type), (send.channel_id, send.channel_type));
        prop_assert_eq!((&*found.topic, &*found.client_msg_no), (send.topic, send.client_msg_no));
        prop_assert_eq!(found.payload, send.payload);

        let Frame::Connect(connect) = material.frame_of(1, 5) else {
            unreachable!("kind 1 is CONNECT")
        };
        out.clear();
        jsonrpc::encode_connect(&mut out, &id, &connect);
        let RpcCall::Connect(found) = jsonrpc::decode(&out).unwrap().call else {
            unreachable!("connect was written")
        };
        prop_assert_eq!(found.version, if connect.version == 0 { 5 } else { connect.version });
        prop_assert_eq!((&*found.uid, &*found.token), (connect.uid, connect.token));
        prop_assert_eq!(found.client_timestamp, connect.client_timestamp);

        let ack = Recvack { message_seq: 1, ..Recvack::default() };
        out.clear();
        jsonrpc::encode_recvack(&mut out, &ack);
        prop_assert_eq!(jsonrpc::decode(&out).unwrap().call, RpcCall::Recvack(ack));
    }

    #[test]
    fn json_deliveries_are_read_as_they_were_written(material in material()) {
        use base64::Engine;
        let head = material.head();
        let mut out = Vec::new();
        jsonrpc::encode_recv(&mut out, &head, &material.payload);
        let reply = jsonrpc::decode_reply(&out).unwrap();
        prop_assert_eq!(reply.method.as_deref(), Some("recv"));
        let recv: jsonrpc::RpcRecv = serde_json::from_str(reply.params.unwrap().get()).unwrap();
        prop_assert_eq!(recv.message_id.parse(), Ok(head.message_id));
        prop_assert_eq!((recv.from_uid.as_str(), recv.topic.as_str()), (head.from_uid, head.topic));
        prop_assert_eq!(recv.channel_id.as_str(), head.channel_id);
        let text = recv.payload.unwrap();
        let payload = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
        prop_assert_eq!(&payload, &material.payload);
    }

    #[test]
    fn pieces_do_not_matter_on_tcp(
        materials in vec(material(), 1..6), pieces in vec(1_usize..40, 0..6),
        tail in vec(any::<u8>(), 0..12), json in any::<bool>(),
    ) {
        let mut bytes = Vec::new();
        for material in &materials {
            encode(&material.frame(5), 5, &mut bytes).unwrap();
        }
        bytes.extend(tail);
        let inbound = Inbound::new(Transport::Tcp, json);
        let whole = transcript(inbound.clone(), &bytes, &[]);
        prop_assert_eq!(&transcript(inbound.clone(), &bytes, &[1]), &whole);
        prop_assert_eq!(&transcript(inbound, &bytes, &pieces), &whole);
    }

    #[test]
    fn pieces_do_not_matter_for_json(
        parts in vec(prop_oneof![
            Just(r#"{"method":"ping","id":"1"}"#.to_owned()),
            Just(r#"{"method":"send","id":"2","params":{"payload":{"a":"}"}}}"#.to_owned()),
            Just(r#"{"method":}"#.to_owned()), Just("[{}]".to_owned()),
            "[ \t\r\n]{0,3}", r#"[{}\[\]a":\\,]{0,10}"#,
        ], 0..8),
        pieces in vec(1_usize..40, 0..6), framed in any::<bool>(),
    ) {
        let text = format!("{{}}{}", parts.concat());
        let (inbound, bytes) = if framed {
            let mut bytes = UPGRADE.to_vec();
            bytes.extend(client_stream(text.as_bytes(), &[(9, 7), (20, 0)], [9, 8, 7, 6]));
            (Inbound::new(Transport::Ws, true), bytes)
        } else {
            (Inbound::new(Transport::Tcp, true), text.into_bytes())
        };
        let whole = transcript(inbound.clone(), &bytes, &[]);
        prop_assert_eq!(&transcript(inbound.clone(), &bytes, &[1]), &whole);
        prop_assert_eq!(&transcript(inbound, &bytes, &pieces), &whole);
    }

    #[test]
    fn pieces_messages_and_fragments_do_not_matter_on_websocket(
        materials in vec(material(), 1..6), cuts in vec((0_usize..200, any::<u8>()), 0..8),
        mask in any::<[u8; 4]>(), pieces in vec(1_usize..40, 0..6), damage in any::<(bool, usize, u8)>(),
    ) {
        let mut packets = Vec::new();
        for material in &materials {
            encode(&material.frame(5), 5, &mut packets).unwrap();
        }
        let bare = transcript(Inbound::new(Transport::Tcp, true), &packets, &[]);
        let mut bytes = UPGRADE.to_vec();
        bytes.extend(client_stream(&packets, &cuts, mask));
        let inbound = Inbound::new(Transport::Ws, true);
        prop_assert_eq!(transcript(inbound.clone(), &bytes, &[]).0, bare.0);
        let (harm, place, value) = damage;
        if harm {
            let place = place % bytes.len();
            *bytes.get_mut(place).unwrap() = value;
        }
        let whole = transcript(inbound.clone(), &bytes, &[]);
        prop_assert_eq!(&transcript(inbound.clone(), &bytes, &[1]), &whole);
        prop_assert_eq!(&transcript(inbound, &bytes, &pieces), &whole);
    }

    #[test]
    fn random_bytes_never_panic_and_pieces_do_not_matter(
        bytes in vec(any::<u8>(), 0..200), json in any::<bool>(), pieces in vec(1_usize..9, 0..6),
    ) {
        let mut upgraded = UPGRADE.to_vec();
        upgraded.extend_from_slice(&bytes);
        let _ = proxy::parse(&bytes);
        let _ = upgrade(&bytes, &mut Vec::new());
        let _ = client_response(&bytes, "");
        let _ = jsonrpc::decode(&bytes);
        for (transport, bytes) in
            [(Transport::Tcp, &bytes), (Transport::Ws, &bytes), (Transport::Ws, &upgraded)]
        {
            let inbound = Inbound::new(transport, json);
            let whole = transcript(inbound.clone(), bytes, &[]);
            prop_assert_eq!(&transcript(inbound.clone(), bytes, &[1]), &whole);
            prop_assert_eq!(&transcript(inbound, bytes, &pieces), &whole);
        }
    }

    #[test]
    fn we_read_the_data_that_tungstenite_reads(
        payload in vec(any::<u8>(), 0..2_000), cuts in vec((0_usize..500, any::<u8>()), 0..8),
        mask in any::<[u8; 4]>(), damage in any::<(bool, usize, u8)>(),
    ) {
        let mut bytes = client_stream(&payload, &cuts, mask);
        let (ours, failed) = we_read(&bytes, Role::Server);
        let (theirs, _) = other_reads(&bytes, OtherRole::Server);
        prop_assert!(!failed);
        prop_assert_eq!(&ours, &payload);
        prop_assert_eq!(theirs.concat(), payload);
        // After damage: whole messages that they give are the front of what we give, and what
        // we refuse they do not take either.
        let (harm, place, value) = damage;
        if harm {
            let place = place % bytes.len();
            *bytes.get_mut(place).unwrap() = value;
            let (ours, failed) = we_read(&bytes, Role::Server);
            let (theirs, error) = other_reads(&bytes, OtherRole::Server);
            let theirs = theirs.concat();
            prop_assert!(ours.starts_with(&theirs));
            if failed {
                prop_assert!(error.is_some());
            }
        }
    }

    #[test]
    fn tungstenite_reads_the_messages_that_we_write(
        payloads in vec(prop_oneof![vec(any::<u8>(), 0..200), vec(any::<u8>(), 65_530..65_540)], 1..5),
        mask in any::<[u8; 4]>(),
    ) {
        let (mut server, mut client) = (Vec::new(), Vec::new());
        for payload in &payloads {
            let start = message_start(&mut server);
            server.extend_from_slice(payload);
            message_end(&mut server, start, Opcode::Binary);
            let start = message_start(&mut client);
            client.extend_from_slice(payload);
            message_end_masked(&mut client, start, Opcode::Binary, mask);
        }
        prop_assert_eq!(&other_reads(&server, OtherRole::Client).0, &payloads);
        prop_assert_eq!(&other_reads(&client, OtherRole::Server).0, &payloads);
        prop_assert_eq!(we_read(&server, Role::Client), (payloads.concat(), false));
    }
}

#[test]
fn a_client_reads_replies_of_a_server() {
    let mut inbound = Inbound::client(Transport::Tcp, true, "");
    let mut bytes = Vec::new();
    jsonrpc::encode_ping_result(&mut bytes, "7");
    jsonrpc::encode_error(&mut bytes, Some("8"), 2, "AuthFail");
    let mut feed = inbound.feed(&mut bytes);
    let mut seen = Vec::new();
    while let Some(Incoming::Reply(reply)) = feed.next(&mut Vec::new()).unwrap() {
        seen.push((reply.id.unwrap().into_owned(), reply.error.is_some()));
    }
    assert_eq!(seen, [("7".to_owned(), false), ("8".to_owned(), true)]);
}
