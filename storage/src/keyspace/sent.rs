//! `sent` — the last seq that a user sent to a channel.
//!
//! key    slot u16 | kind u8 | id length u16 | id | uid (the rest)
//! value  version u8 = 1 | seq u64
//! write  apply, with each message    read  digests: what one sent oneself is never unread
//! life   as the channel's history; the newest seq stands

use jindou_core::id::{ChannelId, Name, SlotId};

use crate::{
    codec::{Writer, channel_prefix, name_bytes, whole},
    error::StorageError,
};

pub(crate) const NAME: &str = "sent";
const VERSION: u8 = 1;

pub(crate) fn key(slot: SlotId, channel: &ChannelId, uid: &str) -> Result<Vec<u8>, StorageError> {
    let uid = name_bytes(NAME, uid)?;
    Ok(channel_prefix(NAME, slot, channel)?.bytes(uid).done())
}

pub(crate) fn parse_key(key: &[u8]) -> Result<(SlotId, ChannelId, Name), StorageError> {
    whole(NAME, "key", key, |key| Some((key.slot()?, key.channel()?, key.last_name()?)))
}

pub(crate) fn encode(seq: u64) -> Vec<u8> {
    Writer::with_capacity(9).u8(VERSION).u64(seq).done()
}

pub(crate) fn decode(value: &[u8]) -> Result<u64, StorageError> {
    whole(NAME, "value", value, |value| {
        value.version(VERSION)?;
        value.u64()
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{any_channel, any_name};

    proptest! {
        #[test]
        fn a_row_comes_back(slot: u16, channel in any_channel(), uid in any_name(), seq: u64) {
            let key = key(SlotId(slot), &channel, &uid).unwrap();
            prop_assert_eq!(parse_key(&key).unwrap(), (SlotId(slot), channel, uid));
            prop_assert_eq!(decode(&encode(seq)).unwrap(), seq);
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes: Vec<u8>) {
            let _ = (parse_key(&bytes), decode(&bytes));
        }
    }
}
