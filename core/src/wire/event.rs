//! The data of an EVENT: JSON, the same for binary clients and JSON-RPC (protocol.md §7.3).

use super::jsonrpc::encode::{number, put, string};

/// What clients are told of an event of a stream.
#[derive(Clone, Copy, Debug)]
pub struct EventData<'a> {
    /// The client number of the message.
    pub client_msg_no: &'a str,
    /// The channel as the author named it.
    pub channel_id: &'a str,
    /// Its type.
    pub channel_type: u8,
    /// The author.
    pub from_uid: &'a str,
    /// The message's id; a JSON number, though above 2^53 (trap T17). 0: not known.
    pub message_id: i64,
    /// The lane.
    pub event_key: &'a str,
    /// The lane's last stored seq.
    pub msg_event_seq: u64,
    /// The lane's status.
    pub stream_status: &'a str,
    /// Left out when empty.
    pub visibility: &'a str,
    /// The event's own JSON; left out when empty.
    pub payload: &'a [u8],
}

/// The bytes of an event's data.
pub fn encode_event_data(data: &EventData<'_>) -> Vec<u8> {
    let size = 224
        + data.client_msg_no.len()
        + data.channel_id.len()
        + data.from_uid.len()
        + data.event_key.len()
        + data.visibility.len()
        + data.payload.len();
    let mut out = Vec::with_capacity(size);
    put(&mut out, "{\"client_msg_no\":");
    string(&mut out, data.client_msg_no);
    put(&mut out, ",\"channel_id\":");
    string(&mut out, data.channel_id);
    put(&mut out, ",\"channel_type\":");
    number(&mut out, data.channel_type);
    put(&mut out, ",\"from_uid\":");
    string(&mut out, data.from_uid);
    put(&mut out, ",\"message_id\":");
    number(&mut out, data.message_id);
    put(&mut out, ",\"event_key\":");
    string(&mut out, data.event_key);
    put(&mut out, ",\"msg_event_seq\":");
    number(&mut out, data.msg_event_seq);
    put(&mut out, ",\"stream_status\":");
    string(&mut out, data.stream_status);
    if !data.visibility.is_empty() {
        put(&mut out, ",\"visibility\":");
        string(&mut out, data.visibility);
    }
    if !data.payload.is_empty() {
        put(&mut out, ",\"payload\":");
        out.extend_from_slice(data.payload);
    }
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The data of `event_delta` in the vectors of packets.
    #[test]
    fn data_is_written_as_recorded() {
        let mut data = EventData {
            client_msg_no: "c1",
            channel_id: "u1",
            channel_type: 1,
            from_uid: "bot",
            message_id: 1_834_567_890_123_456_789,
            event_key: "main",
            msg_event_seq: 0,
            stream_status: "open",
            visibility: "",
            payload: br#"{"kind":"text","delta":"Hi"}"#,
        };
        let want = r#"{"client_msg_no":"c1","channel_id":"u1","channel_type":1,"from_uid":"bot","message_id":1834567890123456789,"event_key":"main","msg_event_seq":0,"stream_status":"open","payload":{"kind":"text","delta":"Hi"}}"#;
        assert_eq!(encode_event_data(&data), want.as_bytes());
        (data.visibility, data.payload) = ("private", b"");
        let text = String::from_utf8(encode_event_data(&data)).unwrap_or_default();
        assert!(text.ends_with(r#""stream_status":"open","visibility":"private"}"#), "{text}");
    }
}
