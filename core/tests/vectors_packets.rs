//! `vectors/packets_go.json`, `malformed_go.json`, `js_client_packets.json` and the recorded
//! sessions, entry by entry. Where we differ from v2 on purpose the entry is named here.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod vectors_support;

use jindou_core::wire::crypto::{Cipher, ServerKey};
use jindou_core::wire::frame::{Frame, FrameError, RecvHead, decode, encode, encode_recv, setting};
use jindou_core::wire::inbound::{Inbound, Incoming, Transport, WireError};
use serde_json::Value;
use vectors_support::{frame as frame_of, hex, number, str};

fn load(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn cases(file: &Value) -> &[Value] {
    let cases = file["cases"].as_array().unwrap();
    assert!(!cases.is_empty());
    cases
}

/// Decodes one frame that must fill `bytes`.
fn whole<'a>(bytes: &'a [u8], version: u8, name: &str) -> Frame<'a> {
    let (frame, size) = decode(bytes, version).unwrap().unwrap_or_else(|| panic!("{name}: part"));
    assert_eq!(size, bytes.len(), "{name}");
    frame
}

fn encoded(frame: &Frame<'_>, version: u8) -> Vec<u8> {
    let mut out = Vec::new();
    encode(frame, version, &mut out).unwrap();
    out
}

#[test]
fn every_go_packet_is_read_and_written_as_the_go_library_does() {
    let file = load(include_str!("vectors/packets_go.json"));
    assert_eq!(cases(&file).len(), 65);
    for case in cases(&file) {
        let name = str(case, "name");
        let version = number(case, "version");
        let bytes = hex(str(case, "hex"));
        if name == "send_stream_bit_go_length_bug_v5" {
            // Two bytes and a stream number too long: the rest of the frame is waited for.
            assert_eq!(decode(&bytes, version), Ok(None));
            continue;
        }
        let expected = frame_of(str(case, "packet"), version, &case["fields"]);
        assert_eq!(whole(&bytes, version, name), expected, "{name}");
        if name == "recv_stream_v1" {
            // Written without stream fields the bit is cleared below version 5 (trap T4); the
            // library keeps it at version 1.
            let mut ours = bytes.clone();
            ours[2] &= !setting::STREAM;
            assert_eq!(encoded(&expected, version), ours);
            continue;
        }
        assert_eq!(encoded(&expected, version), bytes, "{name}");
    }
}

#[test]
fn recvs_of_the_hot_path_are_those_of_the_codec() {
    let file = load(include_str!("vectors/packets_go.json"));
    for case in cases(&file).iter().filter(|case| case["packet"] == "RECV") {
        let name = str(case, "name");
        let version = number(case, "version");
        let Frame::Recv(recv) = frame_of("RECV", version, &case["fields"]) else {
            panic!("{name}");
        };
        let head = RecvHead {
            flags: recv.flags,
            setting: recv.setting,
            from_uid: recv.from_uid,
            channel_id: recv.channel_id,
            channel_type: recv.channel_type,
            expire: recv.expire,
            client_msg_no: recv.client_msg_no,
            message_id: recv.message_id,
            message_seq: recv.message_seq,
            timestamp: recv.timestamp,
            topic: recv.topic,
        };
        let mut out = b"before".to_vec();
        encode_recv(&mut out, version, &head, None, recv.payload).unwrap();
        let Frame::Recv(plain) = whole(&out[6..], version, name) else {
            panic!("{name}");
        };
        let cleared = if version < 5 { setting::STREAM } else { 0 };
        assert_eq!(plain.setting, recv.setting & !cleared, "{name}");
        let expected = jindou_core::wire::frame::Recv {
            msg_key: "",
            stream: None,
            setting: plain.setting,
            ..recv
        };
        assert_eq!(plain, expected, "{name}");
        // Encrypted, a client can check and open it.
        let cipher = Cipher::from_parts(*b"c230f91349d08277", *b"0123456789abcdef");
        out.clear();
        encode_recv(&mut out, version, &head, Some(&cipher), recv.payload).unwrap();
        let Frame::Recv(sealed) = whole(&out, version, name) else {
            panic!("{name}");
        };
        assert!(cipher.verify_recv(&sealed), "{name}");
        let mut opened = Vec::new();
        cipher.open(sealed.payload, &mut opened).unwrap();
        assert_eq!(opened, recv.payload, "{name}");
        // And it is what the plain encoder makes of the same fields.
        assert_eq!(out, encoded(&Frame::Recv(sealed), version), "{name}");
    }
}

#[test]
fn malformed_input_gets_the_library_s_verdict_except_where_ours_is_stricter() {
    let file = load(include_str!("vectors/malformed_go.json"));
    assert_eq!(cases(&file).len(), 23);
    for case in cases(&file) {
        let name = str(case, "name");
        let bytes = hex(str(case, "hex"));
        let verdict = decode(&bytes, number(case, "version"));
        match (name, str(case, "decode_result")) {
            // The library waits for ever; §6.4 asks to close on type 0.
            ("type 0 complete" | "type 0 with body", "none (no frame, nothing consumed)") => {
                assert_eq!(verdict, Err(FrameError::TypeReserved(0)), "{name}");
            }
            // Refused by its first byte, the rest need not come.
            ("type 13 incomplete", "none (no frame, nothing consumed)") => {
                assert_eq!(verdict, Err(FrameError::TypeReserved(13)), "{name}");
            }
            (_, "none (no frame, nothing consumed)") => assert_eq!(verdict, Ok(None), "{name}"),
            (_, "error") => assert!(verdict.is_err(), "{name}"),
            (_, "ok") => {
                let (_, size) = verdict.unwrap().unwrap();
                assert_eq!(size, number::<usize>(case, "consumed"), "{name}");
            }
            (_, other) => panic!("{name}: {other}"),
        }
    }
}

#[test]
fn packets_of_the_js_sdks_are_read_verified_and_written_again() {
    let file = load(include_str!("vectors/js_client_packets.json"));
    let key = str(&file["key"], "key").as_bytes().try_into().unwrap();
    let cipher = Cipher::from_parts(key, str(&file["key"], "iv").as_bytes().try_into().unwrap());
    for case in cases(&file) {
        let name = str(case, "name");
        let version = number(case, "version");
        let bytes = hex(str(case, "hex"));
        let found = whole(&bytes, version, name);
        assert_eq!(encoded(&found, version), bytes, "{name}");
        let expected = frame_of(str(case, "packet"), version, &case["fields"]);
        let Frame::Send(send) = found else {
            assert_eq!(found, expected, "{name}");
            continue;
        };
        assert!(cipher.verify_send(&send), "{name}");
        let mut plain = Vec::new();
        cipher.open(send.payload, &mut plain).unwrap();
        assert_eq!(plain, str(&case["fields"], "plaintext_utf8").as_bytes(), "{name}");
        let Frame::Send(expected) = expected else {
            panic!("{name}");
        };
        let unsealed = jindou_core::wire::frame::Send { msg_key: "", payload: b"", ..send };
        assert_eq!(unsealed, expected, "{name}");
    }
}

#[test]
fn what_the_js_sdks_read_in_server_frames_is_what_we_read() {
    let packets = load(include_str!("vectors/packets_go.json"));
    let file = load(include_str!("vectors/js_client_packets.json"));
    for entry in file["decoded_by_sdk"].as_array().unwrap() {
        let name = str(entry, "frame");
        let case = cases(&packets).iter().find(|case| case["name"] == name).unwrap();
        let bytes = hex(str(case, "hex"));
        let result = &entry["result"];
        match whole(&bytes, number(case, "version"), name) {
            Frame::Sendack(ack) => {
                assert_eq!(ack.message_id, number::<i64>(result, "messageID"), "{name}");
                assert_eq!(ack.message_seq, number::<u32>(result, "messageSeq"), "{name}");
                assert_eq!(ack.client_seq, number::<u32>(result, "clientSeq"), "{name}");
                assert_eq!(ack.reason, number::<u8>(result, "reasonCode"), "{name}");
                assert_eq!(ack.flags.dup, result["dup"] == true, "{name}");
                assert_eq!(ack.flags.red_dot, result["reddot"] == true, "{name}");
            }
            Frame::Disconnect(disconnect) => {
                assert_eq!(disconnect.reason, number::<u8>(result, "reasonCode"), "{name}");
                assert_eq!(disconnect.text, str(result, "reason"), "{name}");
            }
            Frame::Recv(recv) => {
                assert_eq!(recv.setting, number::<u8>(result, "setting"), "{name}");
                assert_eq!(recv.from_uid, str(result, "fromUID"), "{name}");
                assert_eq!(recv.channel_id, str(result, "channelID"), "{name}");
                assert_eq!(recv.client_msg_no, str(result, "clientMsgNo"), "{name}");
                assert_eq!(recv.message_id, number::<i64>(result, "messageID"), "{name}");
                assert_eq!(recv.timestamp, number::<i32>(result, "timestamp"), "{name}");
            }
            Frame::Connack(connack) => {
                let unsigned: u64 = number(result, "timeDiff_as_unsigned");
                assert_eq!(connack.time_diff, unsigned.cast_signed(), "{name}");
                assert_eq!(connack.node_id, number::<u64>(result, "nodeId"), "{name}");
                assert_eq!(connack.salt, str(result, "salt"), "{name}");
            }
            Frame::Event(event) => {
                assert_eq!(event.data, str(result, "data_utf8").as_bytes(), "{name}");
                assert_eq!(event.kind, str(result, "type"), "{name}");
            }
            Frame::Suback(suback) => {
                assert_eq!(suback.channel_id, str(result, "channelID"), "{name}");
                assert_eq!(suback.action, number::<u8>(result, "action"), "{name}");
            }
            Frame::Pong => {}
            other @ (Frame::Connect(_)
            | Frame::Send(_)
            | Frame::Recvack(_)
            | Frame::Ping
            | Frame::Sub(_)) => panic!("{name}: {other:?}"),
        }
    }
}

/// Plays a recorded session: reads every frame of both directions through [`Inbound`], derives
/// the cipher, verifies and opens each message, and writes each server frame again.
fn play(text: &str, version: u8) {
    let session = load(text);
    let seed: [u8; 32] = hex(str(&session, "server_private_hex")).try_into().unwrap();
    let server = ServerKey::from_seed(seed);
    let salt: [u8; 16] = str(&session, "salt").as_bytes().try_into().unwrap();
    let mut from_client = Inbound::new(Transport::Tcp, true);
    let mut from_server = Inbound::client(Transport::Tcp, false, "");
    from_server.set_version(version);
    let mut cipher = None;
    for entry in session["transcript"].as_array().unwrap() {
        let name = str(entry, "packet");
        let bytes = hex(str(entry, "hex"));
        let inbound = if entry["dir"] == "c2s" { &mut from_client } else { &mut from_server };
        let fields: Vec<&Value> = match entry["fields"].as_array() {
            Some(list) => list.iter().collect(),
            None => vec![&entry["fields"]],
        };
        let mut again = Vec::new();
        let mut count = 0;
        let mut copy = bytes.clone();
        let mut feed = inbound.feed(&mut copy);
        while let Some(incoming) = feed.next(&mut Vec::new()).unwrap() {
            let Incoming::Frame(frame) = incoming else {
                panic!("{name}: {incoming:?}");
            };
            encode(&frame, version, &mut again).unwrap();
            let fields = fields[count];
            count += 1;
            match frame {
                Frame::Connect(connect) => {
                    assert_eq!(frame, frame_of("CONNECT", version, fields));
                    cipher = Some(server.agree(connect.client_key, salt).unwrap());
                    let version = connect.version;
                    feed.set_version(version);
                }
                Frame::Connack(connack) => {
                    assert_eq!(connack.server_key, server.public_base64());
                    let derived = &entry["derived"];
                    let key = str(derived, "aes_key_ascii").as_bytes().try_into().unwrap();
                    let iv = str(derived, "aes_iv_ascii").as_bytes().try_into().unwrap();
                    assert_eq!(cipher, Some(Cipher::from_parts(key, iv)));
                }
                Frame::Send(send) => {
                    let cipher = cipher.unwrap();
                    assert!(cipher.verify_send(&send));
                    let mut plain = Vec::new();
                    cipher.open(send.payload, &mut plain).unwrap();
                    assert_eq!(plain, str(fields, "plaintext").as_bytes());
                }
                Frame::Recv(recv) => {
                    let cipher = cipher.unwrap();
                    let right = !name.contains("wrong msgKey");
                    assert_eq!(cipher.verify_recv(&recv), right, "{name}");
                    let mut plain = Vec::new();
                    cipher.open(recv.payload, &mut plain).unwrap();
                    if let Some(text) = fields["plaintext"].as_str() {
                        assert_eq!(plain, text.as_bytes());
                    }
                    // The hot path makes the same bytes of it.
                    let head = RecvHead {
                        flags: recv.flags,
                        setting: recv.setting,
                        from_uid: recv.from_uid,
                        channel_id: recv.channel_id,
                        channel_type: recv.channel_type,
                        expire: recv.expire,
                        client_msg_no: recv.client_msg_no,
                        message_id: recv.message_id,
                        message_seq: recv.message_seq,
                        timestamp: recv.timestamp,
                        topic: recv.topic,
                    };
                    let mut ours = Vec::new();
                    encode_recv(&mut ours, version, &head, Some(&cipher), &plain).unwrap();
                    assert_eq!(ours == encoded(&frame, version), right, "{name}");
                }
                Frame::Recvack(ack) => {
                    assert_eq!(ack.message_id, number::<i64>(fields, "messageId"));
                    assert_eq!(ack.message_seq, number::<u32>(fields, "messageSeq"));
                    assert_eq!(ack.flags.to_bits(), number::<u8>(fields, "flags"));
                }
                Frame::Sendack(_)
                | Frame::Ping
                | Frame::Pong
                | Frame::Disconnect(_)
                | Frame::Sub(_)
                | Frame::Suback(_)
                | Frame::Event(_) => {}
            }
        }
        drop(feed);
        assert!(count > 0, "{name}");
        assert_eq!(again, bytes, "{name}");
        assert_eq!(inbound.held_size(), 0, "{name}");
    }
}

#[test]
fn a_session_of_js_1_3_5_plays() {
    play(include_str!("vectors/session_js_1.3.5.json"), 5);
}

#[test]
fn a_session_of_js_1_0_4_plays() {
    play(include_str!("vectors/session_js_1.0.4.json"), 2);
}

#[test]
fn a_session_of_the_go_sdk_plays() {
    play(include_str!("vectors/session_go_sdk_tcp.json"), 2);
}

#[test]
fn whole_frames_before_a_bad_one_are_given_first() {
    let mut inbound = Inbound::new(Transport::Tcp, true);
    let mut bytes = hex("7070d00100");
    let mut feed = inbound.feed(&mut bytes);
    let mut out = Vec::new();
    for _ in 0..2 {
        assert!(matches!(feed.next(&mut out), Ok(Some(Incoming::Frame(Frame::Ping)))));
    }
    let error = feed.next(&mut out).unwrap_err();
    assert_eq!(error, WireError::Frame(FrameError::TypeReserved(13)));
    assert!(matches!(feed.next(&mut out), Ok(None)));
    assert!(out.is_empty());
}
