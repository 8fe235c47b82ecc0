//! How a packet leaves: bare on TCP, as exactly one message on WebSocket (§6.1).

use super::inbound::Transport;
use super::websocket::{MessageStart, Opcode, message_end, message_start};

/// The wrapping of one connection's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Nothing around it: TCP.
    Bare,
    /// A binary WebSocket message: binary frames.
    Binary,
    /// A text WebSocket message: JSON-RPC.
    Text,
}

/// Where a packet that is being written begins.
#[derive(Debug)]
#[must_use = "a packet has no header before Framing::end"]
pub struct PacketStart(Option<MessageStart>);

impl Framing {
    /// The wrapping for a transport and protocol.
    #[must_use]
    pub const fn of(transport: Transport, json: bool) -> Self {
        match (transport, json) {
            (Transport::Tcp, _) => Self::Bare,
            (Transport::Ws, false) => Self::Binary,
            (Transport::Ws, true) => Self::Text,
        }
    }

    /// Begins a packet in `out`.
    pub fn start(self, out: &mut Vec<u8>) -> PacketStart {
        PacketStart(match self {
            Self::Bare => None,
            Self::Binary | Self::Text => Some(message_start(out)),
        })
    }

    /// Ends the packet: everything appended since `start`.
    pub fn end(self, out: &mut Vec<u8>, start: PacketStart) {
        let Some(start) = start.0 else { return };
        let opcode = if self == Self::Text { Opcode::Text } else { Opcode::Binary };
        message_end(out, start, opcode);
    }

    /// Appends one packet that `packet` writes.
    ///
    /// # Errors
    /// Those of `packet`; `out` is then as before.
    pub fn write<E>(
        self,
        out: &mut Vec<u8>,
        packet: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let place = out.len();
        let start = self.start(out);
        match packet(out) {
            Ok(()) => {
                self.end(out, start);
                Ok(())
            }
            Err(error) => {
                out.truncate(place);
                Err(error)
            }
        }
    }
}
