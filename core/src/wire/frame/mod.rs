//! Binary frames (§1): types, one decoder, one encoder, for both directions.
//!
//! A frame borrows its strings and its payload from the buffer that it was decoded from.

mod decode;
mod encode;
mod recv;

pub use decode::{FrameError, decode, size};
pub use encode::{EncodeError, encode};
pub use recv::{RecvHead, encode_recv};

/// Newest protocol version this server speaks (§1.4). Negotiated = min(client's, this).
pub const VERSION_LATEST: u8 = 5;
/// Largest remaining length, in bytes (§0).
pub const FRAME_SIZE_MAX: usize = 1_048_576;
/// Largest string, in bytes: its length is read as a signed 16-bit number (§1.1).
pub const STRING_SIZE_MAX: usize = 32_767;
/// Most bytes before the body: the type and four bytes of length (§1.2).
pub const HEADER_SIZE_MAX: usize = 5;

/// Bits of the setting byte of SEND and RECV (§1.5).
pub mod setting {
    /// A receipt is wanted; stored and echoed only.
    pub const RECEIPT: u8 = 0x80;
    /// Signal message; echoed only.
    pub const SIGNAL: u8 = 0x20;
    /// Declared "not encrypted"; without effect.
    pub const NO_ENCRYPT: u8 = 0x10;
    /// A topic string is present.
    pub const TOPIC: u8 = 0x08;
    /// Anchor of a stream; stream fields are present at versions 2 to 4.
    pub const STREAM: u8 = 0x02;
}

/// The type nibble of the fixed header (§1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// First packet of a client.
    Connect = 1,
    /// Answer to CONNECT.
    Connack = 2,
    /// A message from a client.
    Send = 3,
    /// Answer to SEND.
    Sendack = 4,
    /// A message to a client.
    Recv = 5,
    /// Receipt of a RECV.
    Recvack = 6,
    /// Keep-alive question.
    Ping = 7,
    /// Keep-alive answer.
    Pong = 8,
    /// The server ends the session (ignored from clients).
    Disconnect = 9,
    /// Subscribe or unsubscribe (ignored).
    Sub = 10,
    /// Answer to SUB (never sent).
    Suback = 11,
    /// A stream event to a client.
    Event = 12,
}

/// The low nibble of the fixed header (§1.2). CONNACK uses bit 0 for its own purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags {
    /// Bit 0: not stored, no seq, no retry.
    pub no_persist: bool,
    /// Bit 1: counts as unread.
    pub red_dot: bool,
    /// Bit 2: command message.
    pub sync_once: bool,
    /// Bit 3: the client sends this again.
    pub dup: bool,
}

impl Flags {
    /// Reads the low nibble; the high one is ignored.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self {
            no_persist: bits & 0x01 != 0,
            red_dot: bits & 0x02 != 0,
            sync_once: bits & 0x04 != 0,
            dup: bits & 0x08 != 0,
        }
    }

    /// The low nibble.
    #[must_use]
    pub const fn to_bits(self) -> u8 {
        self.no_persist as u8
            | (self.red_dot as u8) << 1
            | (self.sync_once as u8) << 2
            | (self.dup as u8) << 3
    }
}

/// One unit of the binary protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is named after the packet it holds")]
pub enum Frame<'a> {
    Connect(Connect<'a>),
    Connack(Connack<'a>),
    Send(Send<'a>),
    Sendack(Sendack),
    Recv(Recv<'a>),
    Recvack(Recvack),
    Ping,
    Pong,
    Disconnect(Disconnect<'a>),
    Sub(Sub<'a>),
    Suback(Suback<'a>),
    Event(Event<'a>),
}

impl Frame<'_> {
    /// The type nibble.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Connect(_) => Kind::Connect,
            Self::Connack(_) => Kind::Connack,
            Self::Send(_) => Kind::Send,
            Self::Sendack(_) => Kind::Sendack,
            Self::Recv(_) => Kind::Recv,
            Self::Recvack(_) => Kind::Recvack,
            Self::Ping => Kind::Ping,
            Self::Pong => Kind::Pong,
            Self::Disconnect(_) => Kind::Disconnect,
            Self::Sub(_) => Kind::Sub,
            Self::Suback(_) => Kind::Suback,
            Self::Event(_) => Kind::Event,
        }
    }
}

/// CONNECT, the same at every version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connect<'a> {
    /// Version the client speaks; any number is accepted, 0 behaves like 1.
    pub version: u8,
    /// 0 app, 1 web, 2 pc, 99 system; any number is accepted (§1.7).
    pub device_flag: u8,
    /// Names the device; may be empty.
    pub device_id: &'a str,
    /// The user.
    pub uid: &'a str,
    /// Proof for the uid.
    pub token: &'a str,
    /// Client's clock in ms by contract (the Go SDK sends seconds).
    pub client_timestamp: i64,
    /// Base64 of the client's X25519 public key.
    pub client_key: &'a str,
}

/// CONNACK.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connack<'a> {
    /// Negotiated version; written when `Some`, which must be so for client versions above 3
    /// and never below (§1.4, trap T6).
    pub server_version: Option<u8>,
    /// Server's clock minus the client's, in ms.
    pub time_diff: i64,
    /// A [`crate::code::Code`].
    pub reason: u8,
    /// Base64 of the server's X25519 public key; empty when refused or not encrypted.
    pub server_key: &'a str,
    /// Initialisation vector, 16 characters; empty when refused or not encrypted.
    pub salt: &'a str,
    /// Node that holds the socket; on the wire from version 4 on.
    pub node_id: u64,
}

/// SEND.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Send<'a> {
    /// Echoed by SENDACK, all four.
    pub flags: Flags,
    /// Bits of [`setting`].
    pub setting: u8,
    /// Client's number of the send, echoed.
    pub client_seq: u32,
    /// Client's key of the message.
    pub client_msg_no: &'a str,
    /// Present at versions 2 to 4 with [`setting::STREAM`]; `None` is then written as empty.
    pub stream_no: Option<&'a str>,
    /// Channel as the client names it (§4.2).
    pub channel_id: &'a str,
    /// Channel type (§4.1).
    pub channel_type: u8,
    /// Seconds; on the wire from version 3 on.
    pub expire: u32,
    /// Message key (§3).
    pub msg_key: &'a str,
    /// On the wire with [`setting::TOPIC`].
    pub topic: &'a str,
    /// Ciphertext in base64, or plain where encryption is off.
    pub payload: &'a [u8],
}

/// SENDACK.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sendack {
    /// The flags of the SEND.
    pub flags: Flags,
    /// Given to refused sends too.
    pub message_id: i64,
    /// Of the SEND.
    pub client_seq: u32,
    /// Place in the channel from 1; 0 when not stored or refused.
    pub message_seq: u32,
    /// A [`crate::code::Code`].
    pub reason: u8,
}

/// Stream fields of a RECV as v2.2.5 writes them at versions 2 to 4 (trap T4). Our server never
/// fills them: no SDK of those versions can read them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stream<'a> {
    /// 0 start, 1 middle, 2 end.
    pub flag: u8,
    /// Stream number.
    pub no: &'a str,
    /// Stream id.
    pub id: u64,
}

/// RECV.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recv<'a> {
    /// redDot, syncOnce and noPersist of the SEND.
    pub flags: Flags,
    /// Bits of [`setting`]; [`setting::STREAM`] is cleared on the wire below version 5 when
    /// `stream` is `None` (trap T4).
    pub setting: u8,
    /// Message key (§3).
    pub msg_key: &'a str,
    /// Sender; empty for the system user.
    pub from_uid: &'a str,
    /// Channel as this receiver names it.
    pub channel_id: &'a str,
    /// Channel type (§4.1).
    pub channel_type: u8,
    /// Seconds; on the wire from version 3 on.
    pub expire: u32,
    /// Key given by the sender.
    pub client_msg_no: &'a str,
    /// Only found in frames of a v2.2.5 server, see [`Stream`].
    pub stream: Option<Stream<'a>>,
    /// Id of the message.
    pub message_id: i64,
    /// Place in the channel, 0 when not stored.
    pub message_seq: u32,
    /// Push time in seconds.
    pub timestamp: i32,
    /// On the wire with [`setting::TOPIC`].
    pub topic: &'a str,
    /// Ciphertext in base64, or plain where encryption is off.
    pub payload: &'a [u8],
}

/// RECVACK.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recvack {
    /// Those of the RECV in most SDKs; they decide what the ack does (§2.7).
    pub flags: Flags,
    /// Id of the message.
    pub message_id: i64,
    /// Place in the channel.
    pub message_seq: u32,
}

/// DISCONNECT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// A [`crate::code::Code`], always ConnectKick from the server.
    pub reason: u8,
    /// For people.
    pub text: &'a str,
}

/// SUB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sub<'a> {
    /// Bits of [`setting`].
    pub setting: u8,
    /// Client's number of the subscription.
    pub sub_no: &'a str,
    /// Channel.
    pub channel_id: &'a str,
    /// Channel type.
    pub channel_type: u8,
    /// 0 subscribe, 1 unsubscribe.
    pub action: u8,
    /// Free text.
    pub param: &'a str,
}

/// SUBACK.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Suback<'a> {
    /// Of the SUB.
    pub sub_no: &'a str,
    /// Of the SUB.
    pub channel_id: &'a str,
    /// Of the SUB.
    pub channel_type: u8,
    /// Of the SUB.
    pub action: u8,
    /// A [`crate::code::Code`].
    pub reason: u8,
}

/// EVENT (§7). Send it to version 5 and above only (trap T2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event<'a> {
    /// Event id.
    pub id: &'a str,
    /// Event type, e.g. `stream.delta`.
    pub kind: &'a str,
    /// ms, as the author gave it.
    pub timestamp: i64,
    /// JSON.
    pub data: &'a [u8],
}
