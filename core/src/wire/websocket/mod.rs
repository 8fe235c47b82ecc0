//! WebSocket without a socket (§6.1): the upgrade, the frames that come in, the messages that
//! go out.
//!
//! The payloads of all data frames form one byte stream, whatever their opcode and borders, so
//! no message is ever put together here: payload bytes are unmasked where they lie and handed
//! on as they come. Only control frames (≤ 125 bytes) and headers wait to be complete.

mod handshake;
mod message;
mod reader;

pub use handshake::{
    HEAD_SIZE_MAX, Upgrade, UpgradeError, accept_key, client_request, client_response, upgrade,
};
pub use message::{MessageStart, message_end, message_end_masked, message_start, write_message};
pub use reader::{Reader, Step, WebSocketError};

/// Largest message, in bytes over all its fragments. JS 1.3.5 packs up to five SENDs into one
/// message, each of up to 1 MiB; no memory is taken on the strength of this number.
pub const MESSAGE_SIZE_MAX: u64 = 6 * 1_048_576;

/// Which side of the connection we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Frames that come in must be masked.
    Server,
    /// Frames that come in must not be masked.
    Client,
}

/// Opcode of a data message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// JSON-RPC goes out as text.
    Text,
    /// Binary frames go out as binary.
    Binary,
}

impl Opcode {
    /// The first byte of an unfragmented message.
    const fn first_byte(self) -> u8 {
        match self {
            Self::Text => 0x81,
            Self::Binary => 0x82,
        }
    }
}

/// Exclusive-ors `bytes` with `mask`, repeated.
fn apply_mask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = bytes.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask) {
        *byte ^= key;
    }
    // `rest` may be longer than the mask.
    for (byte, key) in rest.iter_mut().skip(4).zip(mask) {
        *byte ^= key;
    }
}
