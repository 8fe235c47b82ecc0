//! The encoder. A body is described once and run twice: first to measure it, then to write it,
//! so the length in front can never differ from what follows.

use super::decode::has_stream;
use super::{FRAME_SIZE_MAX, Flags, Frame, Recv, STRING_SIZE_MAX, setting};

/// Why a frame cannot be written. Nothing was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// A string is longer than [`STRING_SIZE_MAX`].
    #[error("string of {size} bytes does not fit a frame")]
    StringLong {
        /// Its size in bytes.
        size: usize,
    },
    /// The body is longer than [`FRAME_SIZE_MAX`].
    #[error("frame of {size} bytes is above the limit of {FRAME_SIZE_MAX}")]
    Oversized {
        /// Remaining length, in bytes.
        size: usize,
    },
}

/// Appends `frame` to `out` as `version` lays it out.
///
/// # Errors
/// See [`EncodeError`]; `out` is then unchanged.
pub fn encode(frame: &Frame<'_>, version: u8, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let flags = match frame {
        Frame::Ping | Frame::Pong => {
            out.push((frame.kind() as u8) << 4);
            return Ok(());
        }
        Frame::Connack(connack) => u8::from(connack.server_version.is_some()),
        Frame::Send(send) => send.flags.to_bits(),
        Frame::Sendack(ack) => ack.flags.to_bits(),
        Frame::Recv(recv) => recv.flags.to_bits(),
        Frame::Recvack(ack) => ack.flags.to_bits(),
        Frame::Connect(_)
        | Frame::Disconnect(_)
        | Frame::Sub(_)
        | Frame::Suback(_)
        | Frame::Event(_) => Flags::default().to_bits(),
    };
    let mut measure = Measure::default();
    body(frame, version, &mut measure);
    let size = measure.finish()?;
    write_header((frame.kind() as u8) << 4 | flags, size, out);
    body(frame, version, out);
    Ok(())
}

/// Appends the fixed header and makes room for the body.
#[expect(clippy::cast_possible_truncation, reason = "seven bits of a checked size at a time")]
pub(super) fn write_header(first: u8, mut size: usize, out: &mut Vec<u8>) {
    out.reserve(size + super::HEADER_SIZE_MAX);
    out.push(first);
    loop {
        let low = (size & 0x7f) as u8;
        size >>= 7;
        if size == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

fn body<S: Sink>(frame: &Frame<'_>, version: u8, s: &mut S) {
    match frame {
        Frame::Connect(f) => {
            s.u8(f.version);
            s.u8(f.device_flag);
            s.str(f.device_id);
            s.str(f.uid);
            s.str(f.token);
            s.bytes(&f.client_timestamp.to_be_bytes());
            s.str(f.client_key);
        }
        Frame::Connack(f) => {
            if let Some(version) = f.server_version {
                s.u8(version);
            }
            s.bytes(&f.time_diff.to_be_bytes());
            s.u8(f.reason);
            s.str(f.server_key);
            s.str(f.salt);
            if version >= 4 {
                s.bytes(&f.node_id.to_be_bytes());
            }
        }
        Frame::Send(f) => {
            s.u8(f.setting);
            s.bytes(&f.client_seq.to_be_bytes());
            s.str(f.client_msg_no);
            if has_stream(version, f.setting) {
                s.str(f.stream_no.unwrap_or_default());
            }
            s.str(f.channel_id);
            s.u8(f.channel_type);
            if version >= 3 {
                s.bytes(&f.expire.to_be_bytes());
            }
            s.str(f.msg_key);
            if f.setting & setting::TOPIC != 0 {
                s.str(f.topic);
            }
            s.bytes(f.payload);
        }
        Frame::Sendack(f) => {
            s.bytes(&f.message_id.to_be_bytes());
            s.bytes(&f.client_seq.to_be_bytes());
            s.bytes(&f.message_seq.to_be_bytes());
            s.u8(f.reason);
        }
        Frame::Recv(f) => {
            recv_fields(f, version, s);
            s.bytes(f.payload);
        }
        Frame::Recvack(f) => {
            s.bytes(&f.message_id.to_be_bytes());
            s.bytes(&f.message_seq.to_be_bytes());
        }
        Frame::Ping | Frame::Pong => {}
        Frame::Disconnect(f) => {
            s.u8(f.reason);
            s.str(f.text);
        }
        Frame::Sub(f) => {
            s.u8(f.setting);
            s.str(f.sub_no);
            s.str(f.channel_id);
            s.u8(f.channel_type);
            s.u8(f.action);
            s.str(f.param);
        }
        Frame::Suback(f) => {
            s.str(f.sub_no);
            s.str(f.channel_id);
            s.u8(f.channel_type);
            s.u8(f.action);
            s.u8(f.reason);
        }
        Frame::Event(f) => {
            s.str(f.id);
            s.str(f.kind);
            s.bytes(&f.timestamp.to_be_bytes());
            s.bytes(f.data);
        }
    }
}

/// Everything of a RECV but the payload.
pub(super) fn recv_fields<S: Sink>(f: &Recv<'_>, version: u8, s: &mut S) {
    // Old SDKs look at another bit and another order of stream fields (trap T4).
    let setting = match f.stream {
        None if version < 5 => f.setting & !setting::STREAM,
        None | Some(_) => f.setting,
    };
    s.u8(setting);
    s.str(f.msg_key);
    s.str(f.from_uid);
    s.str(f.channel_id);
    s.u8(f.channel_type);
    if version >= 3 {
        s.bytes(&f.expire.to_be_bytes());
    }
    s.str(f.client_msg_no);
    if has_stream(version, setting) {
        let stream = f.stream.unwrap_or_default();
        s.u8(stream.flag);
        s.str(stream.no);
        s.bytes(&stream.id.to_be_bytes());
    }
    s.bytes(&f.message_id.to_be_bytes());
    s.bytes(&f.message_seq.to_be_bytes());
    s.bytes(&f.timestamp.to_be_bytes());
    if setting & setting::TOPIC != 0 {
        s.str(f.topic);
    }
}

/// Where the fields of a body go.
pub(super) trait Sink {
    fn bytes(&mut self, bytes: &[u8]);
    fn str(&mut self, text: &str);

    fn u8(&mut self, byte: u8) {
        self.bytes(&[byte]);
    }
}

/// Counts and checks.
#[derive(Default)]
pub(super) struct Measure {
    size: usize,
    /// The longest string seen.
    string: usize,
}

impl Measure {
    /// Counts bytes that are written elsewhere.
    pub(super) fn skip(&mut self, size: usize) {
        self.size += size;
    }

    /// The body's size, when everything fits.
    pub(super) fn finish(self) -> Result<usize, EncodeError> {
        if self.string > STRING_SIZE_MAX {
            return Err(EncodeError::StringLong { size: self.string });
        }
        if self.size > FRAME_SIZE_MAX {
            return Err(EncodeError::Oversized { size: self.size });
        }
        Ok(self.size)
    }
}

impl Sink for Measure {
    fn bytes(&mut self, bytes: &[u8]) {
        self.size += bytes.len();
    }

    fn str(&mut self, text: &str) {
        self.string = self.string.max(text.len());
        self.size += 2 + text.len();
    }
}

/// Writes; lengths were checked by [`Measure`].
impl Sink for Vec<u8> {
    fn bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    #[expect(clippy::cast_possible_truncation, reason = "at most STRING_SIZE_MAX, as measured")]
    fn str(&mut self, text: &str) {
        self.extend_from_slice(&(text.len() as u16).to_be_bytes());
        self.extend_from_slice(text.as_bytes());
    }
}
