//! Messages that go out: one packet each, never fragmented, header written in place.

use super::{Opcode, apply_mask};

/// Room left for the header. Four bytes are right for 126 to 65 535 bytes of payload, that is
/// for most RECVs; other payloads are moved, short ones by two bytes.
const ROOM: usize = 4;

/// Where a message that is being written begins.
#[derive(Debug)]
#[must_use = "the message has no header before message_end"]
pub struct MessageStart(usize);

impl MessageStart {
    /// Place of the message's first byte.
    #[must_use]
    pub const fn place(&self) -> usize {
        self.0
    }
}

/// Leaves room for a header; append the payload next, then call [`message_end`].
pub fn message_start(out: &mut Vec<u8>) -> MessageStart {
    let start = out.len();
    out.extend_from_slice(&[0; ROOM]);
    MessageStart(start)
}

/// Turns everything appended since `start` into one message of a server.
pub fn message_end(out: &mut Vec<u8>, start: MessageStart, opcode: Opcode) {
    end(out, start.0, opcode, None);
}

/// Turns everything appended since `start` into one message of a client, masked with `mask`.
pub fn message_end_masked(out: &mut Vec<u8>, start: MessageStart, opcode: Opcode, mask: [u8; 4]) {
    end(out, start.0, opcode, Some(mask));
}

/// Appends one message of a server with a payload that exists already.
pub fn write_message(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    let (header, size) = header(opcode, payload.len(), false);
    out.extend_from_slice(header.get(..size).unwrap_or_default());
    out.extend_from_slice(payload);
}

fn end(out: &mut Vec<u8>, start: usize, opcode: Opcode, mask: Option<[u8; 4]>) {
    let payload_start = start + ROOM;
    let payload_size = out.len().saturating_sub(payload_start);
    let (header, header_size) = header(opcode, payload_size, mask.is_some());
    let mask_size = if mask.is_some() { 4 } else { 0 };
    let moved = start + header_size + mask_size;
    if moved > payload_start {
        out.resize(moved + payload_size, 0);
    }
    out.copy_within(payload_start..payload_start + payload_size, moved);
    out.truncate(moved + payload_size);
    if let Some(place) = out.get_mut(start..start + header_size) {
        place.copy_from_slice(header.get(..header_size).unwrap_or_default());
    }
    if let Some(mask) = mask {
        if let Some(place) = out.get_mut(start + header_size..moved) {
            place.copy_from_slice(&mask);
        }
        apply_mask(out.get_mut(moved..).unwrap_or_default(), mask);
    }
}

/// The header without the mask, and its size.
#[expect(clippy::cast_possible_truncation, reason = "each arm has checked the size")]
fn header(opcode: Opcode, size: usize, masked: bool) -> ([u8; 10], usize) {
    let bit = if masked { 0x80 } else { 0 };
    let mut header = [0; 10];
    let (first, length) = header.split_at_mut(1);
    first.fill(opcode.first_byte());
    let (second, length) = length.split_at_mut(1);
    match size {
        0..=125 => {
            second.fill(size as u8 | bit);
            (header, 2)
        }
        126..=65_535 => {
            second.fill(126 | bit);
            length.get_mut(..2).unwrap_or_default().copy_from_slice(&(size as u16).to_be_bytes());
            (header, 4)
        }
        _ => {
            second.fill(127 | bit);
            length.copy_from_slice(&(size as u64).to_be_bytes());
            (header, 10)
        }
    }
}
