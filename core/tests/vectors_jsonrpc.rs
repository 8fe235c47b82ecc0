//! `vectors/jsonrpc_go.json` and `jsonrpc_sdk_frames.json`, entry by entry. Where we differ from
//! v2 on purpose (§5.4) the entry is named here.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod vectors_support;

use jindou_core::wire::frame::{Event, Flags, RecvHead, Sendack};
use jindou_core::wire::inbound::{Inbound, Incoming, Transport};
use jindou_core::wire::jsonrpc::{
    ConnectResult, RpcCall, RpcError, RpcRecv, RpcRequest, decode, decode_reply,
    encode_connect_result, encode_disconnect, encode_error, encode_event, encode_ping_result,
    encode_recv, encode_send_result,
};
use serde_json::{Value, json};
use vectors_support::{number, str};

fn load(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// What v2's decoder made of a frame, as the vectors write it.
fn go_view(request: &RpcRequest<'_>) -> (&'static str, Value) {
    let flags = |flags: Flags, mut view: Value| {
        view["NoPersist"] = flags.no_persist.into();
        view["RedDot"] = flags.red_dot.into();
        view["SyncOnce"] = flags.sync_once.into();
        view["DUP"] = flags.dup.into();
        view["End"] = false.into();
        view
    };
    match &request.call {
        RpcCall::Connect(connect) => (
            "CONNECT",
            flags(
                Flags::default(),
                json!({
                    "Version": connect.version, "ClientKey": "", "DeviceID": connect.device_id,
                    "DeviceFlag": connect.device_flag, "UID": connect.uid, "Token": connect.token,
                    "ClientTimestamp": connect.client_timestamp,
                }),
            ),
        ),
        RpcCall::Send(send) => {
            use base64::Engine;
            let payload = match send.payload.as_slice() {
                [] => Value::Null,
                bytes => base64::engine::general_purpose::STANDARD.encode(bytes).into(),
            };
            let no = match &*send.client_msg_no {
                "" => "(32 random hex characters)",
                given => given,
            };
            let view = json!({
                "Setting": send.setting, "Expire": send.expire, "ClientMsgNo": no,
                "ChannelID": send.channel_id, "ChannelType": send.channel_type,
                "Topic": send.topic, "Payload": payload,
            });
            ("SEND", flags(send.flags, view))
        }
        RpcCall::Recvack(ack) => {
            let view = json!({"MessageID": ack.message_id, "MessageSeq": ack.message_seq});
            ("RECVACK", flags(ack.flags, view))
        }
        RpcCall::Ping => ("PING", flags(Flags::default(), json!({}))),
        RpcCall::Disconnect { reason, text } => {
            let view = json!({"ReasonCode": reason, "Reason": text});
            ("DISCONNECT", flags(Flags::default(), view))
        }
    }
}

#[test]
fn client_frames_are_read_as_v2_reads_them() {
    let file = load(include_str!("vectors/jsonrpc_go.json"));
    let cases = file["client_to_server"].as_array().unwrap();
    assert!(cases.len() > 30);
    for case in cases {
        let name = str(case, "name");
        let text = str(case, "frame_text");
        let decoded = decode(text.as_bytes());
        match name {
            // Item 5: snake_case names are read.
            "connect, snake_case params" => {
                let Ok(RpcRequest { call: RpcCall::Connect(connect), .. }) = decoded else {
                    panic!("{decoded:?}");
                };
                assert_eq!((&*connect.device_id, connect.device_flag), ("d1", 2));
                continue;
            }
            // Item 5: an object is stored as its compact text.
            "send, payload is an object" => {
                let Ok(RpcRequest { call: RpcCall::Send(send), .. }) = decoded else {
                    panic!("{decoded:?}");
                };
                assert_eq!(send.payload, b"{\"type\":1}");
                continue;
            }
            // A truncated object is waited for, see below.
            "syntax error" => {
                let mut inbound = Inbound::new(Transport::Tcp, true);
                let mut bytes = text.as_bytes().to_vec();
                let mut feed = inbound.feed(&mut bytes);
                assert!(matches!(feed.next(&mut Vec::new()), Ok(None)));
                continue;
            }
            _ => {}
        }
        match decoded {
            Ok(request) => {
                let (kind, view) = go_view(&request);
                assert_eq!(kind, str(case, "result"), "{name}");
                assert_eq!(view, case["decoded_to"], "{name}");
                assert_eq!(request.id.as_deref().unwrap_or_default(), str(case, "request_id"));
            }
            Err(error) => {
                assert_eq!(format!("error: {error}"), str(case, "result"), "{name}");
                let mut reply = Vec::new();
                encode_error(&mut reply, error.id.as_deref(), 0, &error.message);
                let reply = String::from_utf8(reply).unwrap();
                assert_eq!(reply, str(case, "server_reply_when_error"), "{name}");
            }
        }
    }
}

/// What a text of the vectors says, run through our encoder of that kind.
fn encode_again(text: &str) -> String {
    let object = load(text);
    let id = str(&object, "id");
    let mut out = Vec::new();
    let flags = |value: &Value| Flags {
        no_persist: value["noPersist"] == true,
        red_dot: value["redDot"] == true,
        sync_once: value["syncOnce"] == true,
        dup: value["dup"] == true,
    };
    let (result, params) = (&object["result"], &object["params"]);
    match (str(&object, "method"), &object["error"]) {
        (_, Value::Object(error)) => {
            let code = number(&object["error"], "code");
            let id = (!id.is_empty()).then_some(id);
            encode_error(&mut out, id, code, error["message"].as_str().unwrap());
        }
        ("recv", _) => {
            let recv: RpcRecv =
                serde_json::from_str(decode_reply(text.as_bytes()).unwrap().params.unwrap().get())
                    .unwrap();
            let head = RecvHead {
                flags: flags(&params["header"]),
                setting: recv.setting.to_bits(),
                from_uid: &recv.from_uid,
                channel_id: &recv.channel_id,
                channel_type: recv.channel_type,
                expire: recv.expire,
                client_msg_no: &recv.client_msg_no,
                message_id: recv.message_id.parse().unwrap(),
                message_seq: recv.message_seq,
                timestamp: recv.timestamp,
                topic: &recv.topic,
            };
            use base64::Engine;
            let payload = recv.payload.unwrap_or_default();
            let payload = base64::engine::general_purpose::STANDARD.decode(payload).unwrap();
            encode_recv(&mut out, &head, &payload);
        }
        ("event", _) => {
            let event = Event {
                id: str(params, "id"),
                kind: str(params, "type"),
                timestamp: number(params, "timestamp"),
                data: str(params, "data").as_bytes(),
            };
            encode_event(&mut out, &event);
        }
        ("disconnect", _) => {
            encode_disconnect(&mut out, number(params, "reasonCode"), str(params, "reason"));
        }
        _ if result["messageId"].is_string() => {
            let ack = Sendack {
                flags: flags(&result["header"]),
                message_id: number(result, "messageId"),
                client_seq: 0,
                message_seq: number(result, "messageSeq"),
                reason: number(result, "reasonCode"),
            };
            encode_send_result(&mut out, id, &ack);
        }
        _ if result["nodeId"].is_number() => {
            let result = ConnectResult {
                server_version: number(result, "serverVersion"),
                time_diff: number(result, "timeDiff"),
                reason: number(result, "reasonCode"),
                node_id: number(result, "nodeId"),
            };
            encode_connect_result(&mut out, id, &result);
        }
        _ => encode_ping_result(&mut out, id),
    }
    String::from_utf8(out).unwrap()
}

#[test]
fn server_frames_are_written_as_v2_writes_them_but_for_the_members_sdks_need() {
    let file = load(include_str!("vectors/jsonrpc_go.json"));
    for case in file["server_to_client"].as_array().unwrap() {
        let name = str(case, "name");
        let text = str(case, "frame_text");
        let expected = match name {
            // SUBACK has no JSON form; there is nothing to encode.
            "suback" => continue,
            // Item 3: timeDiff, serverKey and salt are always there.
            "connect result (success)" | "connect result (auth fail)" => {
                text.replace("5,\"timeDiff\"", "5,\"serverKey\":\"\",\"salt\":\"\",\"timeDiff\"")
            }
            "connect result, timeDiff 0" => text.replace(
                "\"serverVersion\":5,",
                "\"serverVersion\":5,\"serverKey\":\"\",\"salt\":\"\",\"timeDiff\":0,",
            ),
            // Item 2: header is always there. An empty payload is an empty string.
            "recv" | "event" | "disconnect" | "disconnect, empty reason" => text.to_owned(),
            _ if name.starts_with("recv") => text
                .replace("\"params\":{", "\"params\":{\"header\":{},")
                .replace("\"payload\":null", "\"payload\":\"\""),
            // Item 1: ping has a result.
            "pong" => text.replace("\"req-4\"", "\"req-4\",\"result\":{}"),
            _ => text.to_owned(),
        };
        assert_eq!(encode_again(text), expected, "{name}");
        assert!(serde_json::from_str::<Value>(&expected).is_ok(), "{name}");
    }
}

#[test]
fn frames_of_the_easy_sdks_are_read() {
    let file = load(include_str!("vectors/jsonrpc_sdk_frames.json"));
    for (sdk, frames) in file["client_frames"].as_object().unwrap() {
        for case in frames.as_array().unwrap() {
            let text = str(case, "frame_text");
            let object = load(text);
            let request = decode(text.as_bytes()).unwrap();
            assert_eq!(request.id.as_deref(), object["id"].as_str(), "{sdk}");
            let params = &object["params"];
            match (str(case, "method"), request.call) {
                ("connect", RpcCall::Connect(connect)) => {
                    assert_eq!(connect.uid, str(params, "uid"));
                    assert_eq!(connect.token, str(params, "token"));
                    assert_eq!(connect.device_id, str(params, "deviceId"));
                    assert_eq!(connect.device_flag, number::<u8>(params, "deviceFlag"));
                    assert_eq!(connect.client_timestamp, number::<i64>(params, "clientTimestamp"));
                    assert_eq!(connect.version, 5);
                }
                ("send", RpcCall::Send(send)) => {
                    assert!(send.flags.red_dot);
                    assert_eq!(send.channel_id, str(params, "channelId"));
                    assert_eq!(send.client_msg_no, str(params, "clientMsgNo"));
                    let payload: Value = serde_json::from_slice(&send.payload).unwrap();
                    assert_eq!(payload, json!({"type": 1, "content": "hi"}));
                }
                ("recvack", RpcCall::Recvack(ack)) => {
                    assert_eq!(ack.message_id, number::<i64>(params, "messageId"));
                    assert_eq!((ack.message_seq, ack.flags), (1, Flags::default()));
                }
                ("ping", RpcCall::Ping) => {}
                other => panic!("{sdk}: {other:?}"),
            }
        }
    }
}

#[test]
fn params_of_other_shapes_are_told_as_go_tells_them() {
    let check = |params: &str, expected: &str| {
        let text = format!("{{\"method\":\"send\",\"id\":\"1\",\"params\":{params}}}");
        let RpcError { id, message } = decode(text.as_bytes()).unwrap_err();
        assert_eq!(id.as_deref(), Some("1"));
        let start = "jsonrpc: failed to unmarshal field: send params: json: cannot unmarshal ";
        assert_eq!(message.strip_prefix(start), Some(expected), "{message}");
    };
    check("5", "number into Go value of type jsonrpc.SendParams");
    check("[]", "array into Go value of type jsonrpc.SendParams");
    check("{\"channelId\":5}", "number into Go struct field SendParams.channelId of type string");
    check(
        "{\"channelType\":1.5}",
        "number 1.5 into Go struct field SendParams.channelType of type int",
    );
    check(
        "{\"expire\":4294967296}",
        "number 4294967296 into Go struct field SendParams.expire of type uint32",
    );
    check(
        "{\"header\":{\"redDot\":1}}",
        "number into Go struct field Header.header.redDot of type bool",
    );
    check(
        "{\"header\":true}",
        "bool into Go struct field SendParams.header of type jsonrpc.Header",
    );
    check("{\"payload\":1}", "number into Go struct field SendParams.payload of type []uint8");
}

#[test]
fn odd_but_valid_texts_are_read() {
    let text =
        br#" { "method" : "send", "id":"\u4f60\ud83d\ude00", "params" : { "channel_id":"old",
        "channelId":"new", "CHANNELTYPE": 2, "header": null, "setting": {"SIGNAL":true},
        "client_msg_no":"a\ud800b", "payload": [ {"x y": 1 } ] } } "#;
    let request = decode(text).unwrap();
    assert_eq!(request.id.as_deref(), Some("你😀"));
    let RpcCall::Send(send) = request.call else {
        panic!("{:?}", request.call);
    };
    assert_eq!((&*send.channel_id, send.channel_type, send.setting), ("new", 2, 0x20));
    assert_eq!(send.payload, b"[{\"x y\":1}]");
    // A lone surrogate does not fail the object.
    assert!(send.client_msg_no.starts_with('a') && send.client_msg_no.ends_with('b'));
}

/// Feeds texts one after the other and writes down what comes out.
fn transcript(texts: &[&str]) -> Vec<String> {
    let mut inbound = Inbound::new(Transport::Tcp, true);
    let mut seen = Vec::new();
    for text in texts {
        let mut bytes = text.as_bytes().to_vec();
        let mut feed = inbound.feed(&mut bytes);
        loop {
            match feed.next(&mut Vec::new()) {
                Ok(Some(Incoming::Rpc(Ok(request)))) => {
                    seen.push(request.id.map_or("-".to_owned(), |id| id.into_owned()));
                }
                Ok(Some(Incoming::Rpc(Err(_)))) => seen.push("error".to_owned()),
                Ok(Some(other)) => panic!("{other:?}"),
                Ok(None) => break,
                Err(error) => seen.push(error.to_string()),
            }
        }
    }
    seen
}

#[test]
fn a_bad_object_is_answered_once_and_the_next_one_works() {
    let ping = r#"{"method":"ping","id":"p"}"#;
    assert_eq!(transcript(&[ping, r#"{"method":}"#, ping]), ["p", "error", "p"]);
    assert_eq!(transcript(&[ping, "\x10\x11 hello ", "more", ping]), ["p", "error", "p"]);
    assert_eq!(transcript(&[ping, &format!("[{ping},{ping}]"), ping]), ["p", "error", "p"]);
    let three = format!(" {ping}\r\n{{\"method\":\"x\",\"id\":\"1\"}}\t{ping}");
    assert_eq!(transcript(&[&three]), ["p", "error", "p"]);
    let (front, back) = ping.split_at(9);
    assert_eq!(transcript(&[front, back, ping]), ["p", "p"]);
}

#[test]
fn an_object_above_one_mebibyte_ends_the_connection() {
    let ping = r#"{"method":"ping","id":"p"}"#;
    let fits = format!("{{\"x\":\"{}\",{}", "y".repeat(1_048_576 - 33), &ping[1..]);
    assert_eq!(fits.len(), 1_048_576);
    assert_eq!(transcript(&[ping, &fits, ping]), ["p", "p", "p"]);
    let above = format!(" {{{}", &fits[..]).replacen("{{", "{ ", 1);
    let error = "JSON-RPC object is above the limit of 1048576 bytes";
    assert_eq!(transcript(&[ping, &above, ping]), ["p", error]);
    let (front, back) = above.split_at(500_000);
    assert_eq!(transcript(&[ping, front, back, ping]), ["p", error]);
}
