//! JSON-RPC (§5): the same protocol as text, unencrypted.
//!
//! Where objects begin and end is found by [`Scanner`]; [`decode`] reads one whole object. The
//! texts of errors are those of v2.2.5, so that logs and clients that match on them stay right.

mod client;
mod decode;
pub(super) mod encode;
mod scan;
mod syntax;
mod value;

use std::borrow::Cow;

pub use client::{
    RpcHeader, RpcRecv, RpcReply, RpcSetting, decode_reply, encode_connect, encode_ping,
    encode_recvack, encode_send,
};
pub use decode::decode;
pub use encode::{
    ConnectResult, encode_connect_result, encode_disconnect, encode_error, encode_event,
    encode_ping_result, encode_recv, encode_send_result,
};
pub use scan::{Scan, Scanner};

use super::frame::{Flags, Recvack};

/// Largest object, in bytes.
pub const OBJECT_SIZE_MAX: usize = 1_048_576;

/// A call from a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcRequest<'a> {
    /// To be repeated in the reply; absent for notifications, may be empty (the reply then has
    /// no id).
    pub id: Option<Cow<'a, str>>,
    /// What is asked.
    pub call: RpcCall<'a>,
}

/// The methods a server handles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RpcCall<'a> {
    /// Request: connect.
    Connect(RpcConnect<'a>),
    /// Request: send.
    Send(RpcSend<'a>),
    /// Notification: recvack, never answered.
    Recvack(Recvack),
    /// Request: ping.
    Ping,
    /// Request: disconnect, never answered and without effect in v2.2.5.
    Disconnect {
        /// As given, low eight bits.
        reason: u8,
        /// For people.
        text: Cow<'a, str>,
    },
}

/// Params of connect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RpcConnect<'a> {
    /// 0 or absent in the text is given here as 5.
    pub version: u8,
    /// Device flag, low eight bits.
    pub device_flag: u8,
    /// Device.
    pub device_id: Cow<'a, str>,
    /// The user.
    pub uid: Cow<'a, str>,
    /// Proof for the uid.
    pub token: Cow<'a, str>,
    /// Client's clock in ms; 0 when absent.
    pub client_timestamp: i64,
}

/// Params of send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RpcSend<'a> {
    /// Members of `header`.
    pub flags: Flags,
    /// Members of `setting` as bits.
    pub setting: u8,
    /// Empty when absent: the caller then draws 32 hexadecimal characters.
    pub client_msg_no: Cow<'a, str>,
    /// Channel.
    pub channel_id: Cow<'a, str>,
    /// Channel type, low eight bits.
    pub channel_type: u8,
    /// Seconds.
    pub expire: u32,
    /// Topic, whatever the setting says.
    pub topic: Cow<'a, str>,
    /// Decoded from base64, or the compact text of an object or array (§5.4 item 5).
    pub payload: Vec<u8>,
}

/// An object that cannot be handled. Answer it once with [`encode_error`] and go on; before
/// authentication close without an answer (§5.4).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RpcError {
    /// The request's id, where it could be read.
    pub id: Option<String>,
    /// The text of the error object; its code is 0.
    pub message: String,
}
