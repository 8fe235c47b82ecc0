//! What a connection does below the packets: upgrades, fragments, control frames, PROXY headers,
//! detection of the protocol, what is held between two reads.
#![expect(clippy::unwrap_used, reason = "tests")]

use jindou_core::wire::frame::{Connect, Frame, FrameError, Send, encode, setting};
use jindou_core::wire::inbound::{Inbound, Incoming, Transport, WireError};
use jindou_core::wire::outbound::Framing;
use jindou_core::wire::websocket::{
    Opcode, UpgradeError, WebSocketError, client_request, message_end_masked, message_start,
    write_message,
};

const UPGRADE: &str = "GET /x?y=1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
const ACCEPT: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Feeds `bytes` and writes down what comes out: packets, then the error if there is one.
fn feed(
    inbound: &mut Inbound,
    bytes: &[u8],
    out: &mut Vec<u8>,
) -> (Vec<String>, Option<WireError>) {
    let mut copy = bytes.to_vec();
    let mut feed = inbound.feed(&mut copy);
    let mut seen = Vec::new();
    loop {
        match feed.next(out) {
            Ok(Some(incoming)) => seen.push(name(&incoming)),
            Ok(None) => return (seen, None),
            Err(error) => return (seen, Some(error)),
        }
    }
}

fn name(incoming: &Incoming<'_>) -> String {
    match incoming {
        Incoming::Peer(peer) => format!("peer {peer}"),
        Incoming::Frame(Frame::Connect(connect)) => format!("connect {}", connect.uid),
        Incoming::Frame(Frame::Send(send)) => {
            format!("send {} {:?}", send.channel_id, send.stream_no)
        }
        Incoming::Frame(frame) => format!("{:?}", frame.kind()),
        Incoming::Rpc(Ok(request)) => format!("rpc {}", request.id.as_deref().unwrap_or("-")),
        Incoming::Rpc(Err(_)) => "rpc error".to_owned(),
        Incoming::Reply(reply) => format!("reply {}", reply.id.as_deref().unwrap_or("-")),
        Incoming::Close => "close".to_owned(),
    }
}

fn packet(frame: &Frame<'_>, version: u8) -> Vec<u8> {
    let mut out = Vec::new();
    encode(frame, version, &mut out).unwrap();
    out
}

fn connect(uid: &str) -> Vec<u8> {
    packet(&Frame::Connect(Connect { version: 5, uid, ..Connect::default() }), 5)
}

/// One masked frame of a client.
fn ws(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let start = message_start(&mut out);
    out.extend_from_slice(payload);
    message_end_masked(&mut out, start, Opcode::Binary, [1, 2, 3, 250]);
    out.splice(..1, [first]);
    out
}

/// A WebSocket connection behind its upgrade.
fn upgraded() -> Inbound {
    let mut inbound = Inbound::new(Transport::Ws, true);
    let mut out = Vec::new();
    assert_eq!(feed(&mut inbound, UPGRADE.as_bytes(), &mut out), (vec![], None));
    assert_eq!(std::str::from_utf8(&out).unwrap(), ACCEPT);
    assert!(inbound.is_open());
    assert_eq!(inbound.held_size(), 0);
    inbound
}

#[test]
fn an_upgrade_is_accepted_in_any_pieces_and_letter_case() {
    upgraded();
    let other = UPGRADE
        .replace("Host", "HOST")
        .replace("Upgrade: websocket", "upgrade: WebSocket")
        .replace("Connection: Upgrade", "CONNECTION: keep-alive, Upgrade");
    let mut inbound = Inbound::new(Transport::Ws, true);
    let mut out = Vec::new();
    for byte in other.bytes() {
        assert!(out.is_empty() && !inbound.is_open());
        assert_eq!(feed(&mut inbound, &[byte], &mut out), (vec![], None));
    }
    assert_eq!(std::str::from_utf8(&out).unwrap(), ACCEPT);
}

#[test]
fn a_bad_upgrade_gets_an_http_answer() {
    let check = |request: &str, status: &str, error: UpgradeError| {
        let mut inbound = Inbound::new(Transport::Ws, true);
        let mut out = Vec::new();
        let (seen, failed) = feed(&mut inbound, request.as_bytes(), &mut out);
        assert_eq!((seen, failed), (vec![], Some(WireError::Upgrade(error))), "{request}");
        let text = String::from_utf8(out.clone()).unwrap();
        assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
        assert!(text.ends_with("\r\n\r\n"));
        assert_eq!(feed(&mut inbound, UPGRADE.as_bytes(), &mut out), (vec![], None));
        assert_eq!(out.len(), text.len());
    };
    let without = |name: &str| {
        let lines = UPGRADE.split_inclusive("\r\n");
        lines.filter(|line| !line.starts_with(name)).collect::<String>()
    };
    check("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "400", UpgradeError::Header("Upgrade"));
    check(&without("Host"), "400", UpgradeError::Header("Host"));
    check(&without("Connection"), "400", UpgradeError::Header("Connection"));
    check(&without("Sec-WebSocket-Key"), "400", UpgradeError::Header("Sec-WebSocket-Key"));
    check(&UPGRADE.replace("ZQ==", "ZQ="), "400", UpgradeError::Header("Sec-WebSocket-Key"));
    check(&without("Sec-WebSocket-Version"), "426", UpgradeError::Version);
    check(&UPGRADE.replace("Version: 13", "Version: 12"), "426", UpgradeError::Version);
    check(&UPGRADE.replace("GET", "POST"), "400", UpgradeError::Method);
    check(&UPGRADE.replace("HTTP/1.1", "HTTP/1.0"), "400", UpgradeError::Method);
    check("\x10\x4d\x05\x01", "400", UpgradeError::Syntax);
    let long = UPGRADE.replace("Host: x", &format!("Host: {}", "x".repeat(9_000)));
    check(&long, "431", UpgradeError::Oversized);
}

#[test]
fn a_proxy_in_front_tells_the_address_in_headers() {
    let check = |headers: &str, expected: &[&str]| {
        let request = UPGRADE.replace("Host: x", &format!("Host: x\r\n{headers}"));
        let mut inbound = Inbound::new(Transport::Ws, true);
        let (seen, error) = feed(&mut inbound, request.as_bytes(), &mut Vec::new());
        assert_eq!(error, None);
        assert_eq!(seen, expected);
    };
    check("X-Forwarded-For: 10.1.2.3", &["peer 10.1.2.3:0"]);
    check("x-real-ip: ::1\r\nX-Real-Port: 4711", &["peer [::1]:4711"]);
    check("X-Forwarded-For: 10.1.2.3, 10.0.0.1\r\nX-Real-IP: 10.9.9.9", &["peer 10.9.9.9:0"]);
    check("X-Forwarded-For: me", &[]);
    check("X-Real-Port: 1", &[]);
}

#[test]
fn packets_and_messages_need_not_agree() {
    let mut inbound = upgraded();
    let mut out = Vec::new();
    // Bytes sent along with the upgrade count.
    let mut eager = Inbound::new(Transport::Ws, true);
    let bytes = [UPGRADE.as_bytes(), &ws(0x82, &connect("a"))].concat();
    assert_eq!(feed(&mut eager, &bytes, &mut out).0, ["connect a"]);
    // Several packets in a message, a packet over several messages, text messages.
    let bytes = [ws(0x82, &[connect("b"), vec![0x70]].concat()), ws(0x81, &[0x70])].concat();
    assert_eq!(feed(&mut inbound, &bytes, &mut out).0, ["connect b", "Ping", "Ping"]);
    let packet = connect("c");
    let (front, back) = packet.split_at(7);
    assert_eq!(feed(&mut inbound, &ws(0x82, front), &mut out).0, [""; 0]);
    assert!(inbound.held_size() > 0);
    assert_eq!(feed(&mut inbound, &ws(0x82, back), &mut out).0, ["connect c"]);
    assert_eq!(inbound.held_size(), 0);
}

#[test]
fn fragments_are_joined_around_control_frames() {
    let mut inbound = upgraded();
    let mut out = Vec::new();
    let frames = [
        ws(0x01, b"{\"method\":\"pi"),
        ws(0x89, b"p"),
        ws(0x00, b"ng\",\"id\":"),
        ws(0x8a, b"x"),
        ws(0x80, b"\"f\"}"),
        ws(0x89, b""),
    ];
    assert_eq!(feed(&mut inbound, &frames.concat(), &mut out), (vec!["rpc f".into()], None));
    assert_eq!(out, b"\x8a\x01p\x8a\x00");
    assert_eq!(inbound.is_json(), Some(true));
}

#[test]
fn close_is_answered_and_ends_the_stream() {
    for (body, answer) in [
        (b"\x03\xe8bye".as_slice(), b"\x88\x02\x03\xe8".as_slice()),
        (b"", b"\x88\x00"),
        (b"\x03", b"\x88\x00"),
    ] {
        let mut inbound = upgraded();
        let mut out = Vec::new();
        let bytes = [ws(0x88, body), ws(0x82, &[0x70])].concat();
        assert_eq!(feed(&mut inbound, &bytes, &mut out), (vec!["close".into()], None));
        assert_eq!(out, answer);
        assert_eq!(feed(&mut inbound, &ws(0x82, &[0x70]), &mut out), (vec![], None));
        assert_eq!(inbound.held_size(), 0);
    }
}

#[test]
fn a_peer_that_breaks_the_protocol_is_closed_with_a_reason() {
    let check = |bytes: &[u8], error: WebSocketError, answer: &[u8]| {
        let mut inbound = upgraded();
        let mut out = Vec::new();
        let bytes = [&ws(0x82, &[0x70]), bytes].concat();
        let (seen, failed) = feed(&mut inbound, &bytes, &mut out);
        assert_eq!((seen, failed), (vec!["Ping".to_owned()], Some(WireError::WebSocket(error))));
        assert_eq!(out, answer);
    };
    let broken = b"\x88\x02\x03\xea";
    check(b"\x82\x01\x70", WebSocketError::Mask, broken);
    check(&ws(0xc2, b""), WebSocketError::Reserved, broken);
    check(&ws(0x83, b""), WebSocketError::Reserved, broken);
    check(&ws(0x8b, b""), WebSocketError::Reserved, broken);
    check(&ws(0x09, b""), WebSocketError::Control, broken);
    check(&ws(0x89, &[0; 126]), WebSocketError::Control, broken);
    check(&ws(0x80, b""), WebSocketError::Fragment, broken);
    check(&[ws(0x02, b""), ws(0x82, b"")].concat(), WebSocketError::Fragment, broken);
    let huge = b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0";
    check(huge, WebSocketError::Oversized, b"\x88\x02\x03\xf1");
}

#[test]
fn what_follows_connect_can_wait_for_the_negotiated_version() {
    let send = Frame::Send(Send {
        setting: setting::STREAM,
        stream_no: Some("s"),
        channel_id: "g",
        ..Send::default()
    });
    let packets = [connect("a"), packet(&send, 2), packet(&send, 2), vec![0x70]].concat();
    let (front, back) = packets.split_at(packets.len() - 3);
    for framed in [false, true] {
        let (mut inbound, wrap) = if framed {
            (upgraded(), (|bytes| ws(0x82, bytes)) as fn(&[u8]) -> Vec<u8>)
        } else {
            (Inbound::new(Transport::Tcp, true), (|bytes| bytes.to_vec()) as fn(&[u8]) -> Vec<u8>)
        };
        let mut out = Vec::new();
        let mut bytes = [wrap(front), wrap(back)].concat();
        let mut first = inbound.feed(&mut bytes);
        assert_eq!(name(&first.next(&mut out).unwrap().unwrap()), "connect a");
        drop(first);
        assert!(inbound.held_size() > 0);
        inbound.set_version(2);
        // More comes while the rest still waits.
        let (seen, error) = feed(&mut inbound, &wrap(&[0x70]), &mut out);
        assert_eq!(error, None);
        assert_eq!(seen, ["send g Some(\"s\")", "send g Some(\"s\")", "Ping", "Ping"]);
        assert_eq!(inbound.held_size(), 0);
    }
}

#[test]
fn a_proxy_header_may_stand_in_front_of_either_protocol() {
    let line = b"PROXY TCP4 10.1.2.3 10.0.0.1 4711 5100\r\n".as_slice();
    let v2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\x01\x02\x03\x0a\0\0\x01\x12\x67\x13\xec"
        .as_slice();
    let json = br#"{"method":"ping","id":"p"}"#.to_vec();
    for (head, body, expected) in
        [(line, connect("a"), "connect a"), (v2, connect("a"), "connect a"), (line, json, "rpc p")]
    {
        let bytes = [head, &body].concat();
        let mut whole = Inbound::new(Transport::Tcp, true);
        let seen = feed(&mut whole, &bytes, &mut Vec::new()).0;
        assert_eq!(seen, ["peer 10.1.2.3:4711", expected]);
        let mut pieces = Inbound::new(Transport::Tcp, true);
        let mut seen = Vec::new();
        for byte in bytes {
            seen.extend(feed(&mut pieces, &[byte], &mut Vec::new()).0);
        }
        assert_eq!(seen, ["peer 10.1.2.3:4711", expected]);
        assert_eq!(pieces.held_size(), 0);
    }
    // Only once, and only in front.
    let twice = [line, line].concat();
    let (_, error) = feed(&mut Inbound::new(Transport::Tcp, true), &twice, &mut Vec::new());
    assert_eq!(error, None);
}

#[test]
fn the_first_byte_that_is_not_blank_tells_the_protocol() {
    let ping = r#"{"method":"ping","id":"p"}"#;
    let run = |json: bool, bytes: &[u8]| {
        feed(&mut Inbound::new(Transport::Tcp, json), bytes, &mut Vec::new())
    };
    assert_eq!(run(true, format!(" \r\n\t{ping}").as_bytes()).0, ["rpc p"]);
    assert_eq!(run(true, format!("\r\n\r\n{ping}").as_bytes()).0, ["rpc p"]);
    let reserved = Some(WireError::Frame(FrameError::TypeReserved(0)));
    assert_eq!(run(true, b" \x70"), (vec![], reserved));
    assert_eq!(run(true, b"\n\n"), (vec![], None));
    // A brace is a PING with flag bits where JSON is switched off, and after a binary start.
    assert_eq!(run(false, b"{").0, ["Ping"]);
    assert_eq!(run(true, b"\x70{{").0, ["Ping"; 3]);
    // Binary bytes on a JSON-RPC connection are an error, once.
    let bytes = [ping.as_bytes(), &connect("a"), ping.as_bytes()].concat();
    assert_eq!(run(true, &bytes).0, ["rpc p", "rpc error", "rpc p"]);
}

#[test]
fn a_frame_above_the_limit_is_refused_by_its_length() {
    for (bytes, error) in [
        (b"\x30\x81\x80\x40".as_slice(), FrameError::Oversized { size: 1_048_577 }),
        (b"\x30\xff\xff\xff\xff", FrameError::LengthEndless),
        (b"\0", FrameError::TypeReserved(0)),
    ] {
        let mut inbound = Inbound::new(Transport::Tcp, true);
        let (_, failed) = feed(&mut inbound, bytes, &mut Vec::new());
        assert_eq!(failed, Some(WireError::Frame(error)));
        let mut inbound = Inbound::new(Transport::Tcp, true);
        let mut failed = None;
        for &byte in bytes {
            failed = failed.or(feed(&mut inbound, &[byte], &mut Vec::new()).1);
        }
        assert_eq!(failed, Some(WireError::Frame(error)));
    }
}

#[test]
fn a_packet_leaves_bare_or_as_one_message() {
    for size in [0, 1, 125, 126, 127, 65_535, 65_536, 100_000] {
        let payload = vec![7; size];
        for (framing, opcode) in [
            (Framing::Bare, None),
            (Framing::Binary, Some(Opcode::Binary)),
            (Framing::Text, Some(Opcode::Text)),
        ] {
            let mut expected = b"x".to_vec();
            match opcode {
                None => expected.extend_from_slice(&payload),
                Some(opcode) => write_message(&mut expected, opcode, &payload),
            }
            let mut out = b"x".to_vec();
            let written: Result<(), ()> = framing.write(&mut out, |out| {
                out.extend_from_slice(&payload);
                Ok(())
            });
            assert_eq!((written, &out), (Ok(()), &expected));
            let failed = framing.write(&mut out, |out| {
                out.push(1);
                Err("full")
            });
            assert_eq!((failed, &out), (Err("full"), &expected));
        }
    }
    assert_eq!(Framing::of(Transport::Tcp, true), Framing::Bare);
    assert_eq!(Framing::of(Transport::Ws, true), Framing::Text);
    assert_eq!(Framing::of(Transport::Ws, false), Framing::Binary);
}

#[test]
fn a_client_and_a_server_understand_each_other() {
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    let mut request = Vec::new();
    client_request(&mut request, "example.org:5200", "/", key);
    let mut server = Inbound::new(Transport::Ws, true);
    let mut answer = Vec::new();
    assert_eq!(feed(&mut server, &request, &mut answer), (vec![], None));
    Framing::Binary.write(&mut answer, |out| encode(&Frame::Pong, 5, out)).unwrap();
    let mut client = Inbound::client(Transport::Ws, false, key);
    let mut out = Vec::new();
    for byte in &answer {
        assert!(!client.is_open() || client.held_size() <= 16);
        let (seen, error) = feed(&mut client, &[*byte], &mut out);
        assert_eq!(error, None);
        assert_eq!(seen.is_empty(), std::ptr::from_ref(byte) != answer.last().unwrap());
    }
    // The wrong key, and a refusal.
    let mut other = Inbound::client(Transport::Ws, false, "AAAAAAAAAAAAAAAAAAAAAA==");
    let (_, error) = feed(&mut other, &answer, &mut out);
    let header = UpgradeError::Header("Sec-WebSocket-Accept");
    assert_eq!(error, Some(WireError::Upgrade(header)));
    let mut other = Inbound::client(Transport::Ws, false, key);
    let (_, error) = feed(&mut other, b"HTTP/1.1 400 Bad Request\r\n\r\n", &mut out);
    assert_eq!(error, Some(WireError::Upgrade(UpgradeError::Refused(400))));
    assert!(out.is_empty());
}

#[test]
fn an_idle_connection_is_small() {
    assert!(size_of::<Inbound>() <= 160, "{}", size_of::<Inbound>());
    assert_eq!(size_of::<jindou_core::wire::crypto::Cipher>(), 32);
}
