//! Reason codes: the one table of what CONNACK, SENDACK and DISCONNECT may say
//! (protocol reference §1.6).

/// Defines [`Code`] and its conversions from one table.
macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $value:literal,)+) => {
        /// Why the server answered as it did. The wire carries the `u8`; a plugin may send
        /// numbers that are not in this table, so frames keep the raw byte.
        #[derive(
            Clone,
            Copy,
            Debug,
            PartialEq,
            Eq,
            Hash,
            PartialOrd,
            Ord,
            rkyv::Archive,
            rkyv::Serialize,
            rkyv::Deserialize,
        )]
        #[repr(u8)]
        #[non_exhaustive]
        pub enum Code {
            $($(#[doc = $doc])+ $name = $value,)+
        }

        impl Code {
            /// Every code, in the order of its number.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The name used in JSON-RPC error objects and in logs.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }

            /// The code with this number, if the table has one.
            #[must_use]
            pub const fn from_u8(value: u8) -> Option<Self> {
                match value {
                    $($value => Some(Self::$name),)+
                    _ => None,
                }
            }
        }
    };
}

codes! {
    /// Never sent on purpose.
    Unknown = 0,
    /// CONNACK, SENDACK: accepted.
    Success = 1,
    /// CONNACK: wrong token.
    AuthFail = 2,
    /// SENDACK: the sender is no subscriber, also of a channel that does not exist.
    SubscriberNotExist = 3,
    /// SENDACK: the sender is on the deny list of the channel (person: of the receiver).
    InBlacklist = 4,
    /// Not sent.
    ChannelNotExist = 5,
    /// Not sent.
    UserNotOnNode = 6,
    /// Not sent.
    SenderOffline = 7,
    /// Not sent; a wrong message key gives [`Code::PayloadDecodeError`].
    MsgKeyError = 8,
    /// SENDACK: wrong message key, or the payload cannot be decrypted.
    PayloadDecodeError = 9,
    /// Not sent.
    ForwardSendPacketError = 10,
    /// SENDACK: refused by a rule outside the core.
    NotAllowSend = 11,
    /// DISCONNECT: the session was ended by the server.
    ConnectKick = 12,
    /// SENDACK: the channel has an allow list without the sender.
    NotInWhitelist = 13,
    /// Not sent.
    QueryTokenError = 14,
    /// SENDACK: the node could not do it now; the client may send again.
    SystemError = 15,
    /// Not sent.
    ChannelIDError = 16,
    /// Not sent.
    NodeMatchError = 17,
    /// Not sent.
    NodeNotMatch = 18,
    /// CONNACK: the user is banned. SENDACK: the channel is banned.
    Ban = 19,
    /// Not sent.
    NotSupportHeader = 20,
    /// CONNACK: the client key is empty or unusable.
    ClientKeyIsEmpty = 21,
    /// SENDACK: too many sends on this connection.
    RateLimit = 22,
    /// Not sent.
    NotSupportChannelType = 23,
    /// SENDACK: the channel was disbanded.
    Disband = 24,
    /// SENDACK: the sender may not send at all.
    SendBan = 25,
}

impl From<Code> for u8 {
    fn from(code: Code) -> Self {
        code as Self
    }
}

/// The number is in no row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown reason code {0}")]
pub struct UnknownCode(pub u8);

impl TryFrom<u8> for Code {
    type Error = UnknownCode;

    fn try_from(value: u8) -> Result<Self, UnknownCode> {
        Self::from_u8(value).ok_or(UnknownCode(value))
    }
}

impl core::fmt::Display for Code {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{} ({})", self.name(), u8::from(*self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_up_to_the_last_has_one_code_that_converts_back() {
        for value in 0..=25_u8 {
            let code = Code::try_from(value);
            assert_eq!(code.map(u8::from), Ok(value));
        }
        assert_eq!(Code::ALL.len(), 26);
        assert_eq!(Code::try_from(26), Err(UnknownCode(26)));
    }

    #[test]
    fn names_are_those_of_the_protocol_table() {
        assert_eq!(Code::AuthFail.name(), "AuthFail");
        assert_eq!(Code::ClientKeyIsEmpty.to_string(), "ClientKeyIsEmpty (21)");
    }
}
