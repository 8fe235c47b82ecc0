//! `channel` — the flags of a channel. A channel exists when it has this row.
//!
//! key    slot u16 | kind u8 | id length u16 | id
//! value  version u8 = 1 | bits u8: 1 large, 2 ban, 4 disband, 8 send_ban, 16 allow_stranger
//! write  apply of channel commands   read  before a channel's first use, and after it left memory
//! life   for good: `disband` is a flag

use jindou_core::{
    channel_info::ChannelInfo,
    id::{ChannelId, SlotId},
};

use crate::{
    codec::{channel_prefix, whole},
    error::StorageError,
};

pub(crate) const NAME: &str = "channel";
const VERSION: u8 = 1;

pub(crate) fn key(slot: SlotId, channel: &ChannelId) -> Result<Vec<u8>, StorageError> {
    Ok(channel_prefix(NAME, slot, channel)?.done())
}

pub(crate) fn parse_key(key: &[u8]) -> Result<(SlotId, ChannelId), StorageError> {
    whole(NAME, "key", key, |key| Some((key.slot()?, key.channel()?)))
}

pub(crate) fn encode(info: &ChannelInfo) -> Vec<u8> {
    let ChannelInfo { large, ban, disband, send_ban, allow_stranger } = *info;
    let bits = [large, ban, disband, send_ban, allow_stranger];
    let bits = (0u8..).zip(bits).fold(0, |all, (place, bit)| all | u8::from(bit) << place);
    vec![VERSION, bits]
}

pub(crate) fn decode(value: &[u8]) -> Result<ChannelInfo, StorageError> {
    match *value {
        [VERSION, bits] if bits < 32 => Ok(ChannelInfo {
            large: bits & 1 != 0,
            ban: bits & 2 != 0,
            disband: bits & 4 != 0,
            send_ban: bits & 8 != 0,
            allow_stranger: bits & 16 != 0,
        }),
        _ => Err(StorageError::corrupt(NAME, "value")),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{any_channel, any_info};

    proptest! {
        #[test]
        fn a_row_comes_back(slot: u16, channel in any_channel(), info in any_info()) {
            let key = key(SlotId(slot), &channel).unwrap();
            prop_assert_eq!(parse_key(&key).unwrap(), (SlotId(slot), channel));
            prop_assert_eq!(decode(&encode(&info)).unwrap(), info);
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes: Vec<u8>) {
            let _ = (parse_key(&bytes), decode(&bytes));
        }
    }
}
