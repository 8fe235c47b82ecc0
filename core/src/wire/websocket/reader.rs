//! Frames that come in.

use std::io::Cursor;
use std::ops::Range;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::{MESSAGE_SIZE_MAX, Role, apply_mask};

/// Why the peer broke the protocol. A close frame with code 1002 or 1009 was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebSocketError {
    /// A client frame without a mask, or a server frame with one.
    #[error("frame is masked where it must not be, or the reverse")]
    Mask,
    /// Reserved bits or a reserved opcode.
    #[error("frame uses reserved bits or opcodes")]
    Reserved,
    /// A control frame in fragments or of more than 125 bytes.
    #[error("control frame is fragmented or too long")]
    Control,
    /// A continuation of nothing, or a new message inside another.
    #[error("fragments are out of order")]
    Fragment,
    /// Above [`MESSAGE_SIZE_MAX`].
    #[error("message is too long")]
    Oversized,
}

/// What [`Reader::step`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Payload bytes, now unmasked, at this range of the buffer.
    Data(Range<usize>),
    /// The bytes from `place` on are no whole header or control frame yet; give them again,
    /// with more behind them.
    Need,
    /// The peer closed; the answer was appended.
    Close,
}

/// The state between two reads: 24 bytes.
#[derive(Clone, Debug)]
pub struct Reader {
    role: Role,
    /// Inside a fragmented message.
    open: bool,
    /// Rotated to the next payload byte.
    mask: [u8; 4],
    /// Payload bytes of the current data frame that have not come.
    remaining: u64,
    /// Bytes of the current message, announced by its frames so far.
    message_size: u64,
}

impl Reader {
    /// A connection right after the upgrade.
    #[must_use]
    pub const fn new(role: Role) -> Self {
        Self { role, open: false, mask: [0; 4], remaining: 0, message_size: 0 }
    }

    /// Goes on at `place` of `buf` and moves it behind what was taken. Pongs and close frames
    /// are appended to `out`.
    ///
    /// # Errors
    /// See [`WebSocketError`]; the connection is to be closed when `out` has left.
    pub fn step(
        &mut self,
        buf: &mut [u8],
        place: &mut usize,
        out: &mut Vec<u8>,
    ) -> Result<Step, WebSocketError> {
        let step = self.step_checked(buf, place, out);
        if let Err(error) = step {
            let code: u16 = if error == WebSocketError::Oversized { 1009 } else { 1002 };
            self.control(0x88, &code.to_be_bytes(), out);
        }
        step
    }

    fn step_checked(
        &mut self,
        buf: &mut [u8],
        place: &mut usize,
        out: &mut Vec<u8>,
    ) -> Result<Step, WebSocketError> {
        loop {
            if self.remaining > 0 {
                return Ok(self.data(buf, place));
            }
            let rest = buf.get(*place..).unwrap_or_default();
            let mut cursor = Cursor::new(rest);
            // The only error it has besides missing bytes is a reserved opcode.
            let Some((header, size)) =
                FrameHeader::parse(&mut cursor).map_err(|_| WebSocketError::Reserved)?
            else {
                return Ok(Step::Need);
            };
            let header_size = usize::try_from(cursor.position()).unwrap_or(rest.len());
            if header.rsv1 || header.rsv2 || header.rsv3 {
                return Err(WebSocketError::Reserved);
            }
            if header.mask.is_some() != (self.role == Role::Server) {
                return Err(WebSocketError::Mask);
            }
            let control = match header.opcode {
                OpCode::Data(kind) => {
                    self.begin(kind, header.is_final, size)?;
                    self.mask = header.mask.unwrap_or_default();
                    *place += header_size;
                    if size == 0 {
                        continue;
                    }
                    return Ok(self.data(buf, place));
                }
                OpCode::Control(control) => control,
            };
            if !header.is_final || size > 125 {
                return Err(WebSocketError::Control);
            }
            let start = *place + header_size;
            let end = start + usize::try_from(size).unwrap_or(usize::MAX);
            let Some(payload) = buf.get_mut(start..end) else {
                return Ok(Step::Need);
            };
            apply_mask(payload, header.mask.unwrap_or_default());
            *place = end;
            match control {
                Control::Ping => self.control(0x8a, payload, out),
                Control::Pong => {}
                Control::Close => {
                    let code = payload.first_chunk::<2>();
                    self.control(0x88, code.map_or(&[], |code| code.as_slice()), out);
                    return Ok(Step::Close);
                }
                Control::Reserved(_) => return Err(WebSocketError::Reserved),
            }
        }
    }

    /// Checks the header of a data frame against the message it belongs to.
    fn begin(&mut self, kind: Data, last: bool, size: u64) -> Result<(), WebSocketError> {
        let continues = match kind {
            Data::Continue => true,
            Data::Text | Data::Binary => false,
            Data::Reserved(_) => return Err(WebSocketError::Reserved),
        };
        if continues != self.open {
            return Err(WebSocketError::Fragment);
        }
        if !continues {
            self.message_size = 0;
        }
        self.message_size = self.message_size.saturating_add(size);
        if self.message_size > MESSAGE_SIZE_MAX {
            return Err(WebSocketError::Oversized);
        }
        self.open = !last;
        self.remaining = size;
        Ok(())
    }

    /// Unmasks what has come of the current frame.
    fn data(&mut self, buf: &mut [u8], place: &mut usize) -> Step {
        let start = *place;
        let there = buf.len().saturating_sub(start);
        let size = usize::try_from(self.remaining).map_or(there, |remaining| remaining.min(there));
        if size == 0 {
            return Step::Need;
        }
        if let Some(bytes) = buf.get_mut(start..start + size)
            && self.role == Role::Server
        {
            apply_mask(bytes, self.mask);
            self.mask.rotate_left(size % 4);
        }
        self.remaining -= size as u64;
        *place = start + size;
        Step::Data(start..start + size)
    }

    /// Appends a control frame of at most 125 bytes; a client's is masked with zeros.
    #[expect(clippy::cast_possible_truncation, reason = "control payloads have at most 125 bytes")]
    fn control(&self, first: u8, payload: &[u8], out: &mut Vec<u8>) {
        debug_assert!(payload.len() <= 125);
        match self.role {
            Role::Server => out.extend_from_slice(&[first, payload.len() as u8]),
            Role::Client => {
                out.extend_from_slice(&[first, payload.len() as u8 | 0x80, 0, 0, 0, 0]);
            }
        }
        out.extend_from_slice(payload);
    }
}
