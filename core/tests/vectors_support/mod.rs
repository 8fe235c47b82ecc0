//! Golden vectors as frames, shared by the tests that play them.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "each test file uses a part of it"
)]

use jindou_core::wire::frame::{
    Connack, Connect, Disconnect, Event, Flags, Frame, Recv, Recvack, Send, Sendack, Stream, Sub,
    Suback, setting,
};
use serde_json::Value;

/// The bytes of a hexadecimal text.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    assert_eq!(text.len() % 2, 0, "{text}");
    (0..text.len())
        .step_by(2)
        .map(|place| u8::from_str_radix(&text[place..place + 2], 16).unwrap())
        .collect()
}

/// A string member, empty when absent.
pub(crate) fn str<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// A whole number, given as number or as text; 0 when absent.
pub(crate) fn number<T: TryFrom<i128>>(value: &Value, name: &str) -> T {
    let member = &value[name];
    let number = match (member.as_str(), member.is_null()) {
        (Some(text), _) => text.parse().unwrap(),
        (None, true) => 0,
        (None, false) => member.to_string().parse().unwrap(),
    };
    T::try_from(number).unwrap_or_else(|_| panic!("{name} does not fit"))
}

fn flags(fields: &Value) -> Flags {
    if let Some(bits) = fields["flags"].as_u64() {
        return Flags::from_bits(bits.try_into().unwrap());
    }
    let on = |name: &str| fields[name] == true;
    Flags {
        no_persist: on("noPersist"),
        red_dot: on("redDot"),
        sync_once: on("syncOnce"),
        dup: on("dup"),
    }
}

/// The frame that a vector's fields describe, without what `version` does not carry.
pub(crate) fn frame<'a>(packet: &str, version: u8, fields: &'a Value) -> Frame<'a> {
    let from = |first: u8, value: u64| if version >= first { value } else { 0 };
    let bits: u8 = number(fields, "setting");
    let stream = (2..5).contains(&version) && bits & setting::STREAM != 0;
    match packet {
        "CONNECT" => Frame::Connect(Connect {
            version: number(fields, "version"),
            device_flag: number(fields, "deviceFlag"),
            device_id: str(fields, "deviceId"),
            uid: str(fields, "uid"),
            token: str(fields, "token"),
            client_timestamp: number(fields, "clientTimestamp"),
            client_key: str(fields, "clientKey"),
        }),
        "CONNACK" => Frame::Connack(Connack {
            server_version: (fields["hasServerVersion"] == true)
                .then(|| number(fields, "serverVersion")),
            time_diff: number(fields, "timeDiff"),
            reason: number(fields, "reasonCode"),
            server_key: str(fields, "serverKey"),
            salt: str(fields, "salt"),
            node_id: from(4, number(fields, "nodeId")),
        }),
        "SEND" => Frame::Send(Send {
            flags: flags(fields),
            setting: bits,
            client_seq: number(fields, "clientSeq"),
            client_msg_no: str(fields, "clientMsgNo"),
            stream_no: stream.then(|| str(fields, "streamNo")),
            channel_id: str(fields, "channelId"),
            channel_type: number(fields, "channelType"),
            expire: u32::try_from(from(3, number(fields, "expire"))).unwrap(),
            msg_key: str(fields, "msgKey"),
            topic: if bits & setting::TOPIC != 0 { str(fields, "topic") } else { "" },
            payload: str(fields, "payload_utf8").as_bytes(),
        }),
        "SENDACK" => Frame::Sendack(Sendack {
            flags: flags(fields),
            message_id: number(fields, "messageId"),
            client_seq: number(fields, "clientSeq"),
            message_seq: number(fields, "messageSeq"),
            reason: number(fields, "reasonCode"),
        }),
        "RECV" => Frame::Recv(Recv {
            flags: flags(fields),
            setting: bits,
            msg_key: str(fields, "msgKey"),
            from_uid: str(fields, "fromUid"),
            channel_id: str(fields, "channelId"),
            channel_type: number(fields, "channelType"),
            expire: u32::try_from(from(3, number(fields, "expire"))).unwrap(),
            client_msg_no: str(fields, "clientMsgNo"),
            stream: stream.then(|| Stream {
                flag: number(fields, "streamFlag"),
                no: str(fields, "streamNo"),
                id: number(fields, "streamId"),
            }),
            message_id: number(fields, "messageId"),
            message_seq: number(fields, "messageSeq"),
            timestamp: number(fields, "timestamp"),
            topic: if bits & setting::TOPIC != 0 { str(fields, "topic") } else { "" },
            payload: str(fields, "payload_utf8").as_bytes(),
        }),
        "RECVACK" => Frame::Recvack(Recvack {
            flags: flags(fields),
            message_id: number(fields, "messageId"),
            message_seq: number(fields, "messageSeq"),
        }),
        "PING" => Frame::Ping,
        "PONG" => Frame::Pong,
        "DISCONNECT" => Frame::Disconnect(Disconnect {
            reason: number(fields, "reasonCode"),
            text: str(fields, "reason"),
        }),
        "SUB" => Frame::Sub(Sub {
            setting: bits,
            sub_no: str(fields, "subNo"),
            channel_id: str(fields, "channelId"),
            channel_type: number(fields, "channelType"),
            action: number(fields, "action"),
            param: str(fields, "param"),
        }),
        "SUBACK" => Frame::Suback(Suback {
            sub_no: str(fields, "subNo"),
            channel_id: str(fields, "channelId"),
            channel_type: number(fields, "channelType"),
            action: number(fields, "action"),
            reason: number(fields, "reasonCode"),
        }),
        "EVENT" => Frame::Event(Event {
            id: str(fields, "id"),
            kind: str(fields, "type"),
            timestamp: number(fields, "timestamp"),
            data: str(fields, "data_utf8").as_bytes(),
        }),
        other => panic!("unknown packet {other}"),
    }
}
