//! The client's side: requests out, replies in. For the load generator and for tests.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::encode::{base64, header, number, put, setting, string};
use super::value::SETTING_NAMES;
use crate::wire::frame::{Connect, Recvack, Send};

/// Appends a connect request; the client key is not part of it.
pub fn encode_connect(out: &mut Vec<u8>, id: &str, connect: &Connect<'_>) {
    request(out, "connect", Some(id));
    put(out, "\"version\":");
    number(out, connect.version);
    put(out, ",\"uid\":");
    string(out, connect.uid);
    put(out, ",\"token\":");
    string(out, connect.token);
    put(out, ",\"deviceId\":");
    string(out, connect.device_id);
    put(out, ",\"deviceFlag\":");
    number(out, connect.device_flag);
    put(out, ",\"clientTimestamp\":");
    number(out, connect.client_timestamp);
    put(out, "}}");
}

/// Appends a send request; the payload is plain, client seq and message key are not part of it.
pub fn encode_send(out: &mut Vec<u8>, id: &str, send: &Send<'_>) {
    request(out, "send", Some(id));
    header(out, send.flags);
    put(out, ",");
    if send.setting != 0 {
        setting(out, send.setting);
        put(out, ",");
    }
    if send.expire != 0 {
        put(out, "\"expire\":");
        number(out, send.expire);
        put(out, ",");
    }
    if !send.topic.is_empty() {
        put(out, "\"topic\":");
        string(out, send.topic);
        put(out, ",");
    }
    put(out, "\"clientMsgNo\":");
    string(out, send.client_msg_no);
    put(out, ",\"channelId\":");
    string(out, send.channel_id);
    put(out, ",\"channelType\":");
    number(out, send.channel_type);
    put(out, ",\"payload\":\"");
    base64(out, send.payload);
    put(out, "\"}}");
}

/// Appends a recvack notification.
pub fn encode_recvack(out: &mut Vec<u8>, ack: &Recvack) {
    request(out, "recvack", None);
    header(out, ack.flags);
    put(out, ",\"messageId\":\"");
    number(out, ack.message_id);
    put(out, "\",\"messageSeq\":");
    number(out, ack.message_seq);
    put(out, "}}");
}

/// Appends a ping request.
pub fn encode_ping(out: &mut Vec<u8>, id: &str) {
    request(out, "ping", Some(id));
    put(out, "}}");
}

/// Everything up to the first member of the params.
fn request(out: &mut Vec<u8>, method: &str, id: Option<&str>) {
    put(out, "{\"jsonrpc\":\"2.0\",\"method\":\"");
    put(out, method);
    if let Some(id) = id {
        put(out, "\",\"id\":");
        string(out, id);
    } else {
        put(out, "\"");
    }
    put(out, ",\"params\":{");
}

/// One object of a server. A reply has an id and a result or an error; a notification has a
/// method and params.
#[derive(Debug, Default, Deserialize)]
#[serde(default, bound(deserialize = "'de: 'a"))]
pub struct RpcReply<'a> {
    /// Of the request.
    #[serde(borrow)]
    pub id: Option<Cow<'a, str>>,
    /// `recv`, `event` or `disconnect`.
    #[serde(borrow)]
    pub method: Option<Cow<'a, str>>,
    /// Unread params.
    #[serde(borrow)]
    pub params: Option<&'a RawValue>,
    /// Unread result.
    #[serde(borrow)]
    pub result: Option<&'a RawValue>,
    /// Unread error.
    #[serde(borrow)]
    pub error: Option<&'a RawValue>,
}

/// Params of `recv` as a client needs them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RpcRecv {
    /// Flags by name; absent ones are false.
    pub header: RpcHeader,
    /// Settings by name; absent ones are false.
    pub setting: RpcSetting,
    /// Seconds.
    pub expire: u32,
    /// Decimal.
    pub message_id: String,
    /// Place in the channel.
    pub message_seq: u32,
    /// Key given by the sender.
    pub client_msg_no: String,
    /// Push time in seconds.
    pub timestamp: i32,
    /// Channel as this receiver names it.
    pub channel_id: String,
    /// Channel type.
    pub channel_type: u8,
    /// Topic.
    pub topic: String,
    /// Sender.
    pub from_uid: String,
    /// Base64; `None` for `null`.
    pub payload: Option<String>,
}

/// The member `header`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[expect(missing_docs, reason = "named after the flags of a frame")]
pub struct RpcHeader {
    pub no_persist: bool,
    pub red_dot: bool,
    pub sync_once: bool,
    pub dup: bool,
}

/// The member `setting`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
#[expect(missing_docs, reason = "named after the bits of the setting byte")]
pub struct RpcSetting {
    pub receipt: bool,
    pub signal: bool,
    pub stream: bool,
    pub topic: bool,
}

impl RpcSetting {
    /// As bits of the setting byte.
    #[must_use]
    pub fn to_bits(self) -> u8 {
        let on = [self.receipt, self.signal, self.stream, self.topic];
        let bits = SETTING_NAMES.into_iter().zip(on);
        bits.filter(|(_, on)| *on).fold(0, |bits, ((_, bit), _)| bits | bit)
    }
}

/// Reads one whole object of a server.
///
/// # Errors
/// Text that is not such an object.
pub fn decode_reply(object: &[u8]) -> Result<RpcReply<'_>, serde_json::Error> {
    serde_json::from_slice(object)
}
