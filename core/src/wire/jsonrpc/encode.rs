//! Objects that the server sends (§5.2 to §5.4): compact, members in v2's order, Go's escapes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::value::SETTING_NAMES;
use crate::wire::frame::{Event, Flags, RecvHead, Sendack};

/// What a successful connect is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectResult {
    /// Negotiated version.
    pub server_version: u8,
    /// Server's clock minus the client's, in ms.
    pub time_diff: i64,
    /// A [`crate::code::Code`], Success.
    pub reason: u8,
    /// Node that holds the socket.
    pub node_id: u64,
}

/// Appends the result of connect. A refused one is an error object instead, with the reason as
/// code and its name as message (§5.4 item 4). All members are always there (item 3).
pub fn encode_connect_result(out: &mut Vec<u8>, id: &str, result: &ConnectResult) {
    reply(out, id);
    put(out, ",\"result\":{\"serverVersion\":");
    number(out, result.server_version);
    put(out, ",\"serverKey\":\"\",\"salt\":\"\",\"timeDiff\":");
    number(out, result.time_diff);
    put(out, ",\"reasonCode\":");
    number(out, result.reason);
    put(out, ",\"nodeId\":");
    number(out, result.node_id);
    put(out, "}}");
}

/// Appends the result of send; a refused one is a result too.
pub fn encode_send_result(out: &mut Vec<u8>, id: &str, ack: &Sendack) {
    reply(out, id);
    put(out, ",\"result\":{");
    if ack.flags != Flags::default() {
        header(out, ack.flags);
        put(out, ",");
    }
    put(out, "\"messageId\":\"");
    number(out, ack.message_id);
    put(out, "\",\"messageSeq\":");
    number(out, ack.message_seq);
    put(out, ",\"reasonCode\":");
    number(out, ack.reason);
    put(out, "}}");
}

/// Appends the answer to ping. The empty result is there for SDKs that need one (item 1).
pub fn encode_ping_result(out: &mut Vec<u8>, id: &str) {
    reply(out, id);
    put(out, ",\"result\":{}}");
}

/// Appends an error object; `id` is left out where it is not known.
pub fn encode_error(out: &mut Vec<u8>, id: Option<&str>, code: u8, message: &str) {
    reply(out, id.unwrap_or_default());
    put(out, ",\"error\":{\"code\":");
    number(out, code);
    put(out, ",\"message\":");
    string(out, message);
    put(out, "}}");
}

/// Appends a message to a client. The header is always there (item 2); `payload` is plain.
pub fn encode_recv(out: &mut Vec<u8>, head: &RecvHead<'_>, payload: &[u8]) {
    put(out, "{\"jsonrpc\":\"2.0\",\"method\":\"recv\",\"params\":{");
    header(out, head.flags);
    put(out, ",");
    if head.setting != 0 {
        setting(out, head.setting);
        put(out, ",");
    }
    if head.expire != 0 {
        put(out, "\"expire\":");
        number(out, head.expire);
        put(out, ",");
    }
    put(out, "\"messageId\":\"");
    number(out, head.message_id);
    put(out, "\",\"messageSeq\":");
    number(out, head.message_seq);
    if !head.client_msg_no.is_empty() {
        put(out, ",\"clientMsgNo\":");
        string(out, head.client_msg_no);
    }
    put(out, ",\"timestamp\":");
    number(out, head.timestamp);
    put(out, ",\"channelId\":");
    string(out, head.channel_id);
    put(out, ",\"channelType\":");
    number(out, head.channel_type);
    if !head.topic.is_empty() {
        put(out, ",\"topic\":");
        string(out, head.topic);
    }
    put(out, ",\"fromUid\":");
    string(out, head.from_uid);
    put(out, ",\"payload\":\"");
    base64(out, payload);
    put(out, "\"}}");
}

/// Appends an event; its data is JSON text inside a string.
pub fn encode_event(out: &mut Vec<u8>, event: &Event<'_>) {
    put(out, "{\"jsonrpc\":\"2.0\",\"method\":\"event\",\"params\":{\"id\":");
    string(out, event.id);
    put(out, ",\"type\":");
    string(out, event.kind);
    put(out, ",\"timestamp\":");
    number(out, event.timestamp);
    put(out, ",\"data\":");
    string(out, &String::from_utf8_lossy(event.data));
    put(out, "}}");
}

/// Appends the notification that ends a session.
pub fn encode_disconnect(out: &mut Vec<u8>, reason: u8, text: &str) {
    put(out, "{\"jsonrpc\":\"2.0\",\"method\":\"disconnect\",\"params\":{\"reasonCode\":");
    number(out, reason);
    if !text.is_empty() {
        put(out, ",\"reason\":");
        string(out, text);
    }
    put(out, "}}");
}

/// The beginning of a reply; an empty id is left out.
fn reply(out: &mut Vec<u8>, id: &str) {
    put(out, "{\"jsonrpc\":\"2.0\"");
    if !id.is_empty() {
        put(out, ",\"id\":");
        string(out, id);
    }
}

/// The member `header`, empty where no flag is set.
pub(super) fn header(out: &mut Vec<u8>, flags: Flags) {
    put(out, "\"header\":{");
    switches(
        out,
        [
            ("noPersist", flags.no_persist),
            ("redDot", flags.red_dot),
            ("syncOnce", flags.sync_once),
            ("dup", flags.dup),
        ],
    );
    put(out, "}");
}

/// The member `setting`.
pub(super) fn setting(out: &mut Vec<u8>, bits: u8) {
    put(out, "\"setting\":{");
    switches(out, SETTING_NAMES.map(|(name, bit)| (name, bits & bit != 0)));
    put(out, "}");
}

/// The names that are on.
fn switches(out: &mut Vec<u8>, names: [(&str, bool); 4]) {
    let mut first = true;
    for (name, _) in names.into_iter().filter(|(_, on)| *on) {
        put(out, if first { "\"" } else { ",\"" });
        put(out, name);
        put(out, "\":true");
        first = false;
    }
}

pub(in crate::wire) fn put(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

pub(in crate::wire) fn number(out: &mut Vec<u8>, value: impl itoa::Integer) {
    put(out, itoa::Buffer::new().format(value));
}

/// Appends padded base64.
pub(super) fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let written = STANDARD.encode_slice(bytes, out.get_mut(start..).unwrap_or_default());
    debug_assert_eq!(written, Ok(out.len() - start));
}

/// Appends a JSON string with Go's escapes: besides the usual ones `<`, `>`, `&` and the line
/// separators U+2028 and U+2029.
pub(in crate::wire) fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut done = 0;
    let mut bytes = text.bytes().enumerate().peekable();
    while let Some((place, byte)) = bytes.next() {
        let mut unit = [b'\\', b'u', b'0', b'0', 0, 0];
        let (escape, size): (&[u8], usize) = match byte {
            b'"' => (b"\\\"", 1),
            b'\\' => (b"\\\\", 1),
            b'\n' => (b"\\n", 1),
            b'\r' => (b"\\r", 1),
            b'\t' => (b"\\t", 1),
            0x08 => (b"\\b", 1),
            0x0c => (b"\\f", 1),
            0x00..0x20 | b'<' | b'>' | b'&' => {
                let digit = |nibble: u8| {
                    if nibble < 10 { b'0' + nibble } else { b'a' - 10 + nibble }
                };
                let [.., high, low] = &mut unit;
                (*high, *low) = (digit(byte >> 4), digit(byte & 0x0f));
                (&unit, 1)
            }
            0xe2 => match text.as_bytes().get(place..place + 3) {
                Some([_, 0x80, 0xa8]) => (b"\\u2028", 3),
                Some([_, 0x80, 0xa9]) => (b"\\u2029", 3),
                _ => continue,
            },
            _ => continue,
        };
        put_bytes(out, text, done, place);
        out.extend_from_slice(escape);
        done = place + size;
        for _ in 1..size {
            bytes.next();
        }
    }
    put_bytes(out, text, done, text.len());
    out.push(b'"');
}

fn put_bytes(out: &mut Vec<u8>, text: &str, start: usize, end: usize) {
    out.extend_from_slice(text.as_bytes().get(start..end).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn strings_are_escaped_as_go_escapes_them() {
        let mut out = Vec::new();
        string(&mut out, "a<b>&\"\\\n\r\t\u{8}\u{c}\u{1}\u{1f}\u{7f}\u{2028}\u{2029}\u{2027}é你");
        assert_eq!(
            std::str::from_utf8(&out).unwrap(),
            "\"a\\u003cb\\u003e\\u0026\\\"\\\\\\n\\r\\t\\b\\f\\u0001\\u001f\u{7f}\\u2028\\u2029\u{2027}é你\""
        );
    }
}
