//! The decoder: a fixed header, then fields in order. Nothing is copied.

use super::{
    Connack, Connect, Disconnect, Event, FRAME_SIZE_MAX, Flags, Frame, Kind, Recv, Recvack,
    STRING_SIZE_MAX, Send, Sendack, Stream, Sub, Suback, setting,
};

/// Why bytes are not a frame. The connection cannot go on: frame borders are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Types 0 and 13 to 15 are reserved.
    #[error("reserved frame type {0}")]
    TypeReserved(u8),
    /// All four length bytes ask for more.
    #[error("frame length does not end within four bytes")]
    LengthEndless,
    /// Told as soon as the length is known, before the body has come.
    #[error("frame of {size} bytes is above the limit of {FRAME_SIZE_MAX}")]
    Oversized {
        /// Remaining length, in bytes.
        size: usize,
    },
    /// A field runs past the end of its frame.
    #[error("frame body is too short")]
    BodyShort,
    /// A string length has its top bit set.
    #[error("string length is negative")]
    StringLength,
    /// A string is not UTF-8.
    #[error("string is not UTF-8")]
    StringEncoding,
}

/// The fixed header of a frame whose length is known.
struct Header {
    kind: Kind,
    flags: u8,
    /// Bytes of the header.
    start: usize,
    /// Remaining length.
    body: usize,
}

fn header(buf: &[u8]) -> Result<Option<Header>, FrameError> {
    let Some((&first, rest)) = buf.split_first() else {
        return Ok(None);
    };
    let kind = match first >> 4 {
        1 => Kind::Connect,
        2 => Kind::Connack,
        3 => Kind::Send,
        4 => Kind::Sendack,
        5 => Kind::Recv,
        6 => Kind::Recvack,
        7 => Kind::Ping,
        8 => Kind::Pong,
        9 => Kind::Disconnect,
        10 => Kind::Sub,
        11 => Kind::Suback,
        12 => Kind::Event,
        reserved => return Err(FrameError::TypeReserved(reserved)),
    };
    let flags = first & 0x0f;
    if matches!(kind, Kind::Ping | Kind::Pong) {
        return Ok(Some(Header { kind, flags, start: 1, body: 0 }));
    }
    let mut body = 0;
    for (place, &byte) in rest.iter().take(4).enumerate() {
        body |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            if body > FRAME_SIZE_MAX {
                return Err(FrameError::Oversized { size: body });
            }
            return Ok(Some(Header { kind, flags, start: place + 2, body }));
        }
    }
    if rest.len() >= 4 { Err(FrameError::LengthEndless) } else { Ok(None) }
}

/// Size in bytes of the first frame of `buf`, header included; `None` while its length has not
/// come. The body need not be there yet.
///
/// # Errors
/// What the header alone shows: reserved types, endless and oversized lengths.
pub fn size(buf: &[u8]) -> Result<Option<usize>, FrameError> {
    Ok(header(buf)?.map(|header| header.start + header.body))
}

/// Decodes the first frame of `buf` as the negotiated `version` lays it out, and tells how many
/// bytes it took; `None` while it is incomplete. Bytes behind the last field are ignored.
///
/// # Errors
/// See [`FrameError`]; the frame before the bad one was already given by an earlier call.
pub fn decode(buf: &[u8], version: u8) -> Result<Option<(Frame<'_>, usize)>, FrameError> {
    let Some(header) = header(buf)? else {
        return Ok(None);
    };
    let end = header.start + header.body;
    let Some(body) = buf.get(header.start..end) else {
        return Ok(None);
    };
    let frame = decode_body(header.kind, header.flags, body, version)?;
    Ok(Some((frame, end)))
}

fn decode_body(kind: Kind, bits: u8, body: &[u8], version: u8) -> Result<Frame<'_>, FrameError> {
    let mut r = Reader(body);
    let flags = Flags::from_bits(bits);
    Ok(match kind {
        Kind::Connect => Frame::Connect(Connect {
            version: r.u8()?,
            device_flag: r.u8()?,
            device_id: r.str()?,
            uid: r.str()?,
            token: r.str()?,
            client_timestamp: r.i64()?,
            client_key: r.str()?,
        }),
        Kind::Connack => Frame::Connack(Connack {
            server_version: if flags.no_persist { Some(r.u8()?) } else { None },
            time_diff: r.i64()?,
            reason: r.u8()?,
            server_key: r.str()?,
            salt: r.str()?,
            node_id: if version >= 4 { r.u64()? } else { 0 },
        }),
        Kind::Send => {
            let setting = r.u8()?;
            Frame::Send(Send {
                flags,
                setting,
                client_seq: r.u32()?,
                client_msg_no: r.str()?,
                stream_no: if has_stream(version, setting) { Some(r.str()?) } else { None },
                channel_id: r.str()?,
                channel_type: r.u8()?,
                expire: if version >= 3 { r.u32()? } else { 0 },
                msg_key: r.str()?,
                topic: if setting & setting::TOPIC != 0 { r.str()? } else { "" },
                payload: r.rest(),
            })
        }
        Kind::Sendack => Frame::Sendack(Sendack {
            flags,
            message_id: r.i64()?,
            client_seq: r.u32()?,
            message_seq: r.u32()?,
            reason: r.u8()?,
        }),
        Kind::Recv => {
            let setting = r.u8()?;
            Frame::Recv(Recv {
                flags,
                setting,
                msg_key: r.str()?,
                from_uid: r.str()?,
                channel_id: r.str()?,
                channel_type: r.u8()?,
                expire: if version >= 3 { r.u32()? } else { 0 },
                client_msg_no: r.str()?,
                stream: if has_stream(version, setting) {
                    Some(Stream { flag: r.u8()?, no: r.str()?, id: r.u64()? })
                } else {
                    None
                },
                message_id: r.i64()?,
                message_seq: r.u32()?,
                timestamp: r.i32()?,
                topic: if setting & setting::TOPIC != 0 { r.str()? } else { "" },
                payload: r.rest(),
            })
        }
        Kind::Recvack => {
            Frame::Recvack(Recvack { flags, message_id: r.i64()?, message_seq: r.u32()? })
        }
        Kind::Ping => Frame::Ping,
        Kind::Pong => Frame::Pong,
        Kind::Disconnect => Frame::Disconnect(Disconnect { reason: r.u8()?, text: r.str()? }),
        Kind::Sub => Frame::Sub(Sub {
            setting: r.u8()?,
            sub_no: r.str()?,
            channel_id: r.str()?,
            channel_type: r.u8()?,
            action: r.u8()?,
            param: r.str()?,
        }),
        Kind::Suback => Frame::Suback(Suback {
            sub_no: r.str()?,
            channel_id: r.str()?,
            channel_type: r.u8()?,
            action: r.u8()?,
            reason: r.u8()?,
        }),
        Kind::Event => Frame::Event(Event {
            id: r.str()?,
            kind: r.str()?,
            timestamp: r.i64()?,
            data: r.rest(),
        }),
    })
}

/// Whether a SEND or RECV carries stream fields (§1.3).
pub(super) const fn has_stream(version: u8, setting: u8) -> bool {
    version >= 2 && version < 5 && setting & setting::STREAM != 0
}

/// Takes fields from the front of a body.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], FrameError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(FrameError::BodyShort)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, FrameError> {
        self.take().map(u8::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, FrameError> {
        self.take().map(u32::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, FrameError> {
        self.take().map(i32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, FrameError> {
        self.take().map(u64::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64, FrameError> {
        self.take().map(i64::from_be_bytes)
    }

    fn str(&mut self) -> Result<&'a str, FrameError> {
        let size = usize::from(self.take().map(u16::from_be_bytes)?);
        if size > STRING_SIZE_MAX {
            return Err(FrameError::StringLength);
        }
        let (text, rest) = self.0.split_at_checked(size).ok_or(FrameError::BodyShort)?;
        self.0 = rest;
        core::str::from_utf8(text).map_err(|_| FrameError::StringEncoding)
    }

    fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.0)
    }
}
