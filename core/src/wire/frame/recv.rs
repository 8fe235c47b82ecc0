//! The hot path of delivery: one RECV for one receiver, encrypted straight into its buffer.

use super::encode::{Measure, Sink, recv_fields, write_header};
use super::{EncodeError, Flags, Kind, Recv};
use crate::wire::crypto::{Cipher, MESSAGE_KEY_SIZE, sealed_size};

/// What a RECV says besides key and payload. Strings are already those of the receiver's view:
/// `from_uid` and `channel_id` follow §4.2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecvHead<'a> {
    /// redDot, syncOnce and noPersist of the SEND; DUP is never set.
    pub flags: Flags,
    /// The setting byte of the SEND, whole.
    pub setting: u8,
    /// Sender; empty for the system user.
    pub from_uid: &'a str,
    /// Channel as this receiver names it.
    pub channel_id: &'a str,
    /// Channel type.
    pub channel_type: u8,
    /// Seconds.
    pub expire: u32,
    /// Key given by the sender.
    pub client_msg_no: &'a str,
    /// Id of the message.
    pub message_id: i64,
    /// Place in the channel, 0 when not stored.
    pub message_seq: u32,
    /// Push time in seconds.
    pub timestamp: i32,
    /// Topic.
    pub topic: &'a str,
}

/// Place-holder that the message key overwrites.
const KEY_BLANK: &str = "00000000000000000000000000000000";
const _: () = assert!(KEY_BLANK.len() == MESSAGE_KEY_SIZE);

/// Appends a RECV with `payload`, encrypted by `cipher` and signed (§3), or plain and without a
/// key when there is none. Needs no memory but `out`'s.
///
/// Below version 5 the stream bit is cleared (trap T4).
///
/// # Errors
/// See [`EncodeError`]; `out` is then unchanged.
pub fn encode_recv(
    out: &mut Vec<u8>,
    version: u8,
    head: &RecvHead<'_>,
    cipher: Option<&Cipher>,
    payload: &[u8],
) -> Result<(), EncodeError> {
    let recv = Recv {
        flags: head.flags,
        setting: head.setting,
        msg_key: if cipher.is_some() { KEY_BLANK } else { "" },
        from_uid: head.from_uid,
        channel_id: head.channel_id,
        channel_type: head.channel_type,
        expire: head.expire,
        client_msg_no: head.client_msg_no,
        stream: None,
        message_id: head.message_id,
        message_seq: head.message_seq,
        timestamp: head.timestamp,
        topic: head.topic,
        payload: &[],
    };
    let mut measure = Measure::default();
    recv_fields(&recv, version, &mut measure);
    measure.skip(match cipher {
        Some(_) => sealed_size(payload.len()),
        None => payload.len(),
    });
    let size = measure.finish()?;
    write_header((Kind::Recv as u8) << 4 | head.flags.to_bits(), size, out);
    // The key stands behind the setting byte and its own length.
    let key_start = out.len() + 3;
    recv_fields(&recv, version, out);
    let Some(cipher) = cipher else {
        out.bytes(payload);
        return Ok(());
    };
    let payload_start = out.len();
    let prepared = cipher.prepare();
    prepared.seal(payload, out);
    let key = prepared.recv_key(head, out.get(payload_start..).unwrap_or_default());
    if let Some(place) = out.get_mut(key_start..key_start + MESSAGE_KEY_SIZE) {
        place.copy_from_slice(&key);
    }
    Ok(())
}
