//! The frames of a link, without I/O.
//!
//! ```text
//!   length u32 | kind u8 | body          little-endian; `length` counts kind and body
//! ```
//!
//! | kind | from | body |
//! |---|---|---|
//! | Hello, Proof | dialer | see [`super::hello`] |
//! | Challenge, Welcome | acceptor | see [`super::hello`] |
//! | Refusal | either | code u8, text |
//! | Ping | dialer | the dialer's clock u64 |
//! | Pong | acceptor | what the ping held |
//! | RaftAsk, ControlAsk | dialer | id u64, (group u16,) bytes |
//! | RaftAnswer, ControlAnswer | acceptor | the ask's id u64, bytes |
//! | Envelopes | dialer | what the sender encoded, one after the other |

use bytes::Bytes;

use super::hello::Refusal;

/// The bytes before a frame's body.
pub(crate) const HEAD_SIZE: usize = 5;
/// The largest frame of a handshake.
pub(crate) const HANDSHAKE_SIZE_MAX: usize = 4096;
/// From this size on a frame is given away with the buffer that it was read into.
const LARGE_SIZE: usize = 64 << 10;
/// Memory that an idle reader keeps.
const KEEP_SIZE_MAX: usize = 64 << 10;

/// What a frame is; the numbers are the wire's and never get another meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// See the table of the module, here and below.
    Hello = 1,
    /// …
    Challenge = 2,
    /// …
    Proof = 3,
    /// …
    Welcome = 4,
    /// …
    Refusal = 5,
    /// …
    Ping = 6,
    /// …
    Pong = 7,
    /// …
    RaftAsk = 8,
    /// …
    RaftAnswer = 9,
    /// …
    Envelopes = 10,
    /// …
    ControlAsk = 11,
    /// …
    ControlAnswer = 12,
}

/// A frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Who dials, as [`super::hello::Hello`] reads it.
    Hello(Bytes),
    /// Who accepts, as [`super::hello::Challenge`] reads it.
    Challenge(Bytes),
    /// The dialer's proof; empty when none is needed.
    Proof(Bytes),
    /// The link is open.
    Welcome,
    /// The link is not wanted; it is closed.
    Refusal(Refusal),
    /// Are you there?
    Ping(u64),
    /// Yes.
    Pong(u64),
    /// A raft frame for a group.
    RaftAsk {
        /// Names the ask on this link.
        id: u64,
        /// The group.
        group: u16,
        /// The frame.
        body: Bytes,
    },
    /// Its answer.
    RaftAnswer {
        /// Names the ask.
        id: u64,
        /// The answer.
        body: Bytes,
    },
    /// Envelopes, encoded by the sender.
    Envelopes(Bytes),
    /// A control message.
    ControlAsk {
        /// Names the ask on this link.
        id: u64,
        /// The message.
        body: Bytes,
    },
    /// Its answer.
    ControlAnswer {
        /// Names the ask.
        id: u64,
        /// The answer.
        body: Bytes,
    },
}

/// Why the bytes of a peer are no frames. The link is closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A length over the bound, found before memory was taken for it.
    #[error("a frame of {size} bytes, more than {max}")]
    TooLarge {
        /// The length.
        size: usize,
        /// The bound.
        max: usize,
    },
    /// A frame without a kind.
    #[error("an empty frame")]
    Empty,
    /// A kind that this version does not know.
    #[error("a frame of unknown kind {0}")]
    Kind(u8),
    /// A body that is shorter than its kind needs.
    #[error("a frame of kind {0:?} that is too short")]
    Short(Kind),
    /// Something that this side of a link does not take at this time.
    #[error("a frame of kind {0:?} out of place")]
    OutOfPlace(Kind),
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Hello,
            2 => Self::Challenge,
            3 => Self::Proof,
            4 => Self::Welcome,
            5 => Self::Refusal,
            6 => Self::Ping,
            7 => Self::Pong,
            8 => Self::RaftAsk,
            9 => Self::RaftAnswer,
            10 => Self::Envelopes,
            11 => Self::ControlAsk,
            12 => Self::ControlAnswer,
            _ => return None,
        })
    }
}

impl Frame {
    /// Reads a frame; `bytes` are kind and body.
    pub fn decode(mut bytes: Bytes) -> Result<Self, FrameError> {
        let &byte = bytes.first().ok_or(FrameError::Empty)?;
        let kind = Kind::of(byte).ok_or(FrameError::Kind(byte))?;
        let mut body = bytes.split_off(1);
        let short = FrameError::Short(kind);
        Ok(match kind {
            Kind::Hello => Self::Hello(body),
            Kind::Challenge => Self::Challenge(body),
            Kind::Proof => Self::Proof(body),
            Kind::Welcome => Self::Welcome,
            Kind::Refusal => Self::Refusal(Refusal::decode(&body).ok_or(short)?),
            Kind::Ping => Self::Ping(take_u64(&mut body).ok_or(short)?),
            Kind::Pong => Self::Pong(take_u64(&mut body).ok_or(short)?),
            Kind::RaftAsk => {
                let id = take_u64(&mut body).ok_or_else(|| short.clone())?;
                let group = take_u16(&mut body).ok_or(short)?;
                Self::RaftAsk { id, group, body }
            }
            Kind::RaftAnswer => Self::RaftAnswer { id: take_u64(&mut body).ok_or(short)?, body },
            Kind::Envelopes => Self::Envelopes(body),
            Kind::ControlAsk => Self::ControlAsk { id: take_u64(&mut body).ok_or(short)?, body },
            Kind::ControlAnswer => {
                Self::ControlAnswer { id: take_u64(&mut body).ok_or(short)?, body }
            }
        })
    }

    /// Writes the frame, with its length.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put(out, self.kind(), |out| match self {
            Self::Hello(body)
            | Self::Challenge(body)
            | Self::Proof(body)
            | Self::Envelopes(body) => out.extend_from_slice(body),
            Self::Welcome => {}
            Self::Refusal(refusal) => refusal.encode(out),
            Self::Ping(time) | Self::Pong(time) => out.extend_from_slice(&time.to_le_bytes()),
            Self::RaftAsk { id, group, body } => {
                out.extend_from_slice(&id.to_le_bytes());
                out.extend_from_slice(&group.to_le_bytes());
                out.extend_from_slice(body);
            }
            Self::RaftAnswer { id, body }
            | Self::ControlAsk { id, body }
            | Self::ControlAnswer { id, body } => {
                out.extend_from_slice(&id.to_le_bytes());
                out.extend_from_slice(body);
            }
        });
    }

    /// The bytes of its body that are not its own.
    pub(crate) fn body_size(&self) -> usize {
        match self {
            Self::Hello(body)
            | Self::Challenge(body)
            | Self::Proof(body)
            | Self::Envelopes(body)
            | Self::RaftAsk { body, .. }
            | Self::RaftAnswer { body, .. }
            | Self::ControlAsk { body, .. }
            | Self::ControlAnswer { body, .. } => body.len(),
            Self::Welcome | Self::Refusal(_) | Self::Ping(_) | Self::Pong(_) => 0,
        }
    }

    /// Whether it is one of Raft's.
    pub(crate) fn is_raft(&self) -> bool {
        matches!(self, Self::RaftAsk { .. } | Self::RaftAnswer { .. })
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Hello(_) => Kind::Hello,
            Self::Challenge(_) => Kind::Challenge,
            Self::Proof(_) => Kind::Proof,
            Self::Welcome => Kind::Welcome,
            Self::Refusal(_) => Kind::Refusal,
            Self::Ping(_) => Kind::Ping,
            Self::Pong(_) => Kind::Pong,
            Self::RaftAsk { .. } => Kind::RaftAsk,
            Self::RaftAnswer { .. } => Kind::RaftAnswer,
            Self::Envelopes(_) => Kind::Envelopes,
            Self::ControlAsk { .. } => Kind::ControlAsk,
            Self::ControlAnswer { .. } => Kind::ControlAnswer,
        }
    }
}

fn take_u64(body: &mut Bytes) -> Option<u64> {
    let bytes = *body.first_chunk()?;
    drop(body.split_to(size_of::<u64>()));
    Some(u64::from_le_bytes(bytes))
}

fn take_u16(body: &mut Bytes) -> Option<u16> {
    let bytes = *body.first_chunk()?;
    drop(body.split_to(size_of::<u16>()));
    Some(u16::from_le_bytes(bytes))
}

/// Begins a frame; [`finish`] sets its length.
pub(crate) fn begin(out: &mut Vec<u8>, kind: Kind) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0, 0, 0, 0, kind as u8]);
    start
}

/// Ends the frame that begins at `start`.
pub(crate) fn finish(out: &mut [u8], start: usize) {
    let size = out.len().saturating_sub(start + HEAD_SIZE - 1);
    let size = u32::try_from(size).unwrap_or(u32::MAX);
    if let Some(head) = out.get_mut(start..start + 4) {
        head.copy_from_slice(&size.to_le_bytes());
    }
}

fn put(out: &mut Vec<u8>, kind: Kind, body: impl FnOnce(&mut Vec<u8>)) {
    let start = begin(out, kind);
    body(out);
    finish(out, start);
}

/// Cuts a stream of bytes into frames.
#[derive(Debug)]
pub struct FrameReader {
    buffer: Vec<u8>,
    /// Where the next frame begins.
    start: usize,
    size_max: usize,
}

impl FrameReader {
    /// A reader that takes frames of up to `size_max` bytes, kind and body.
    pub fn new(size_max: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, size_max }
    }

    /// Changes the bound.
    pub fn set_size_max(&mut self, size_max: usize) {
        self.size_max = size_max;
    }

    /// Bytes that are held.
    pub fn held_size(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// What is held and was not asked for; the reader is empty then.
    pub fn take_rest(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.buffer);
        rest.drain(..std::mem::take(&mut self.start));
        rest
    }

    /// Adds bytes that came. Call [`FrameReader::next`] until it has nothing, so that a length over
    /// the bound is found before more is read.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame. After an error the stream is of no use.
    #[expect(clippy::should_implement_trait, reason = "a Result of an Option, as parsers have it")]
    pub fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        let held = self.buffer.get(self.start..).unwrap_or_default();
        let Some(&head) = held.first_chunk::<4>() else {
            self.rest();
            return Ok(None);
        };
        let size = usize::try_from(u32::from_le_bytes(head)).unwrap_or(usize::MAX);
        if size > self.size_max {
            return Err(FrameError::TooLarge { size, max: self.size_max });
        }
        let Some(bytes) = held.get(4..4 + size) else {
            return Ok(None);
        };
        if size >= LARGE_SIZE && self.start == 0 {
            let rest = self.buffer.split_off(4 + size);
            let bytes = Bytes::from(std::mem::replace(&mut self.buffer, rest));
            return Frame::decode(bytes.slice(4..)).map(Some);
        }
        // A copy, so that a small frame that is kept does not keep a whole read alive.
        let frame = Frame::decode(Bytes::copy_from_slice(bytes))?;
        self.start += 4 + size;
        Ok(Some(frame))
    }

    /// Forgets what was read, and gives memory back after a burst.
    fn rest(&mut self) {
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.buffer.shrink_to(KEEP_SIZE_MAX);
            self.start = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::{super::hello::RefusalCode, *};

    fn all() -> Vec<Frame> {
        let body = Bytes::from_static(b"a body");
        vec![
            Frame::Hello(body.clone()),
            Frame::Challenge(body.clone()),
            Frame::Proof(Bytes::new()),
            Frame::Welcome,
            Frame::Refusal(Refusal::new(RefusalCode::NotMember, "let it join first")),
            Frame::Ping(u64::MAX),
            Frame::Pong(3),
            Frame::RaftAsk { id: 9, group: 513, body: body.clone() },
            Frame::RaftAnswer { id: 9, body: body.clone() },
            Frame::Envelopes(Bytes::from(vec![5; LARGE_SIZE * 2])),
            Frame::ControlAsk { id: 1, body },
            Frame::ControlAnswer { id: 1, body: Bytes::new() },
        ]
    }

    /// Golden bytes: another version reads them.
    #[test]
    fn a_frame_is_its_length_its_kind_and_its_body() {
        let mut out = Vec::new();
        Frame::RaftAsk { id: 2, group: 258, body: Bytes::from_static(b"ab") }.encode(&mut out);
        assert_eq!(out, [13, 0, 0, 0, 8, 2, 0, 0, 0, 0, 0, 0, 0, 2, 1, b'a', b'b']);
    }

    #[test]
    fn frames_come_out_as_they_went_in_whatever_the_pieces() {
        let mut bytes = Vec::new();
        all().iter().for_each(|frame| frame.encode(&mut bytes));
        for size in [1, 2, 3, 7, 1000, LARGE_SIZE + 7, bytes.len()] {
            let mut reader = FrameReader::new(1 << 20);
            let mut got = Vec::new();
            for piece in bytes.chunks(size) {
                reader.push(piece);
                while let Some(frame) = reader.next().unwrap() {
                    got.push(frame);
                }
            }
            assert_eq!(got, all(), "pieces of {size}");
            assert_eq!(reader.held_size(), 0);
            assert!(reader.buffer.capacity() <= KEEP_SIZE_MAX);
        }
    }

    #[test]
    fn a_length_over_the_bound_is_found_at_once() {
        let mut reader = FrameReader::new(100);
        reader.push(&101_u32.to_le_bytes());
        assert_eq!(reader.next(), Err(FrameError::TooLarge { size: 101, max: 100 }));
        let mut reader = FrameReader::new(100);
        reader.push(&100_u32.to_le_bytes());
        assert_eq!(reader.next(), Ok(None));
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        let mut reader = FrameReader::new(100);
        reader.push(&[0, 0, 0, 0]);
        assert_eq!(reader.next(), Err(FrameError::Empty));
        for (bytes, error) in [
            (&[99_u8][..], FrameError::Kind(99)),
            (&[6, 1, 2], FrameError::Short(Kind::Ping)),
            (&[8, 1, 2, 3, 4, 5, 6, 7, 8, 9], FrameError::Short(Kind::RaftAsk)),
            (&[5], FrameError::Short(Kind::Refusal)),
        ] {
            assert_eq!(Frame::decode(Bytes::copy_from_slice(bytes)), Err(error));
        }
    }
}
