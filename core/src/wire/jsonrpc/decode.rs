//! Objects that clients send (§5.2).

use std::borrow::Cow;

use super::value::{Members, Object, text};
use super::{RpcCall, RpcConnect, RpcError, RpcRequest, RpcSend, syntax};
use crate::wire::frame::{Recvack, VERSION_LATEST};

/// Reads one whole object as [`Scanner`](super::Scanner) bounds it.
///
/// # Errors
/// See [`RpcError`]: answer it and go on with the next object.
pub fn decode(object: &[u8]) -> Result<RpcRequest<'_>, RpcError> {
    let anonymous = |message: String| RpcError { id: None, message };
    let Members(members) = match serde_json::from_slice(object) {
        Ok(members) => members,
        Err(error) => {
            let message = syntax::fault(object).unwrap_or_else(|| match object.first() {
                Some(b'[') => {
                    "json: cannot unmarshal array into Go value of type jsonrpc.Probe".to_owned()
                }
                _ => error.to_string(),
            });
            return Err(anonymous(message));
        }
    };
    let probe = Probe::read(&members).map_err(anonymous)?;
    probe.call()
}

/// The members of the envelope, values unread.
#[derive(Default)]
struct Probe<'a> {
    jsonrpc: Option<Cow<'a, str>>,
    method: Cow<'a, str>,
    id: Option<&'a str>,
    params: Option<&'a str>,
    result: Option<&'a str>,
    error: Option<&'a str>,
}

impl<'a> Probe<'a> {
    fn read(members: &[(Cow<'a, str>, &'a serde_json::value::RawValue)]) -> Result<Self, String> {
        let mut probe = Self::default();
        let string = |name: &str, value: &'a str| {
            text(value).ok_or_else(|| {
                let kind = super::value::kind(value);
                format!(
                    "json: cannot unmarshal {kind} into Go struct field Probe.{name} of type string"
                )
            })
        };
        for (name, value) in members {
            let value = value.get();
            let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
            if is("jsonrpc") && value != "null" {
                probe.jsonrpc = Some(string("jsonrpc", value)?);
            } else if is("method") && value != "null" {
                probe.method = string("method", value)?;
            } else if is("id") {
                probe.id = Some(value);
            } else if is("params") {
                probe.params = Some(value);
            } else if is("result") {
                probe.result = Some(value);
            } else if is("error") {
                probe.error = Some(value);
            }
        }
        Ok(probe)
    }

    /// The id as a reply repeats it, where it can.
    fn id_text(&self) -> Option<Cow<'a, str>> {
        self.id.and_then(text)
    }

    fn fail<T>(&self, message: impl Into<String>) -> Result<T, RpcError> {
        let id = self.id_text().map(Cow::into_owned).filter(|id| !id.is_empty());
        Err(RpcError { id, message: message.into() })
    }

    fn call(&self) -> Result<RpcRequest<'a>, RpcError> {
        if let Some(version) = self.jsonrpc.as_deref().filter(|version| *version != "2.0") {
            return self.fail(format!("jsonrpc: invalid version: expected '2.0', got '{version}'"));
        }
        match (self.method.is_empty(), self.id) {
            (false, None) => self.notification(),
            (false, Some("null")) => {
                self.fail("jsonrpc: invalid request format (missing id or method)")
            }
            (false, Some(id)) => self.request(id),
            (true, Some(_)) if self.result.is_some() || self.error.is_some() => {
                self.fail("unknown packet type: jsonrpc.GenericResponse")
            }
            (true, id) => self.fail(format!(
                "jsonrpc decode: unable to determine message type (invalid field combination) \
                 method: , id: {}, result: {}, error: {}",
                id.unwrap_or_default(),
                self.result.unwrap_or_default(),
                self.error.unwrap_or_default(),
            )),
        }
    }

    fn request(&self, id: &'a str) -> Result<RpcRequest<'a>, RpcError> {
        let Some(id) = text(id) else {
            let kind = super::value::kind(id);
            return self.fail(format!(
                "jsonrpc: failed to unmarshal field: request ID: json: cannot unmarshal {kind} \
                 into Go value of type string"
            ));
        };
        let call = match &*self.method {
            "connect" => self.params("connect", "ConnectParams", connect)?,
            "send" => self.params("send", "SendParams", send)?,
            "ping" => RpcCall::Ping,
            "disconnect" => self.params("disconnect", "DisconnectParams", disconnect)?,
            "subscribe" => return self.fail("unknown packet type: jsonrpc.SubscribeRequest"),
            "unsubscribe" => return self.fail("unknown packet type: jsonrpc.UnsubscribeRequest"),
            other => return self.fail(format!("jsonrpc: unknown method: {other}")),
        };
        Ok(RpcRequest { id: Some(id), call })
    }

    fn notification(&self) -> Result<RpcRequest<'a>, RpcError> {
        let kind = match &*self.method {
            "recvack" => {
                let call = self.params("recvack", "RecvAckParams", recvack)?;
                return Ok(RpcRequest { id: None, call });
            }
            "recv" => "RecvNotification",
            "event" => "EventNotification",
            "disconnect" => "DisconnectNotification",
            other => {
                return self.fail(format!("jsonrpc decode: unknown notification method '{other}'"));
            }
        };
        self.fail(format!("unknown packet type: jsonrpc.{kind}"))
    }

    /// Reads the params of a method that needs them.
    fn params(
        &self,
        method: &str,
        go: &'static str,
        read: fn(&Object<'a>) -> Result<RpcCall<'a>, String>,
    ) -> Result<RpcCall<'a>, RpcError> {
        let Some(params) = self.params else {
            return self.fail(format!("jsonrpc: missing params field: method {method}"));
        };
        match Object::read(params, go).and_then(|object| read(&object)) {
            Ok(call) => Ok(call),
            Err(error) => {
                self.fail(format!("jsonrpc: failed to unmarshal field: {method} params: {error}"))
            }
        }
    }
}

fn connect<'a>(params: &Object<'a>) -> Result<RpcCall<'a>, String> {
    params.header()?;
    let version = params.number("version", "version", "int")?;
    Ok(RpcCall::Connect(RpcConnect {
        version: if version == 0 { VERSION_LATEST } else { low(version) },
        device_flag: low(params.number("deviceFlag", "device_flag", "jsonrpc.DeviceFlagEnum")?),
        device_id: params.str("deviceId", "device_id")?,
        uid: params.str("uid", "uid")?,
        token: params.str("token", "token")?,
        client_timestamp: params.number("clientTimestamp", "client_timestamp", "int64")?,
    }))
}

fn send<'a>(params: &Object<'a>) -> Result<RpcCall<'a>, String> {
    Ok(RpcCall::Send(RpcSend {
        flags: params.header()?,
        setting: params.setting()?,
        expire: params.number("expire", "expire", "uint32")?,
        client_msg_no: params.str("clientMsgNo", "client_msg_no")?,
        channel_id: params.str("channelId", "channel_id")?,
        channel_type: low(params.number("channelType", "channel_type", "int")?),
        topic: params.str("topic", "topic")?,
        payload: params.payload()?,
    }))
}

fn recvack<'a>(params: &Object<'a>) -> Result<RpcCall<'a>, String> {
    Ok(RpcCall::Recvack(Recvack {
        flags: params.header()?,
        // An id that is no number names no message (§5.2).
        message_id: params.str("messageId", "message_id")?.parse().unwrap_or(0),
        message_seq: params.number("messageSeq", "message_seq", "uint32")?,
    }))
}

fn disconnect<'a>(params: &Object<'a>) -> Result<RpcCall<'a>, String> {
    Ok(RpcCall::Disconnect {
        reason: low(params.number("reasonCode", "reasonCode", "jsonrpc.ReasonCodeEnum")?),
        text: params.str("reason", "reason")?,
    })
}

/// The low eight bits: v2 cuts numbers that do not fit.
fn low(value: i64) -> u8 {
    let [.., low] = value.to_be_bytes();
    low
}
