//! `channel` — the flags of a channel. A channel exists when it has this row.
//!
//! key    slot u16 | kind u8 | id length u16 | id
//! value  version u8 = 2 | bits u8: 1 large, 2 ban, 4 disband, 8 send_ban, 16 allow_stranger
//!        | created i64, Unix ns | updated i64, Unix ms       version 1 ends after the bits
//! write  apply of channel commands   read  before a channel's first use, and after it left memory
//! life   for good: `disband` is a flag

use jindou_core::{
    channel_info::ChannelInfo,
    id::{ChannelId, SlotId},
    row::Times,
};

use crate::{
    codec::{Writer, channel_prefix, whole},
    error::StorageError,
};

pub(crate) const NAME: &str = "channel";
const VERSION: u8 = 2;
/// Without times.
const VERSION_1: u8 = 1;

pub(crate) fn key(slot: SlotId, channel: &ChannelId) -> Result<Vec<u8>, StorageError> {
    Ok(channel_prefix(NAME, slot, channel)?.done())
}

pub(crate) fn parse_key(key: &[u8]) -> Result<(SlotId, ChannelId), StorageError> {
    whole(NAME, "key", key, |key| Some((key.slot()?, key.channel()?)))
}

pub(crate) fn encode(info: &ChannelInfo, times: &Times) -> Vec<u8> {
    let ChannelInfo { large, ban, disband, send_ban, allow_stranger } = *info;
    let bits = [large, ban, disband, send_ban, allow_stranger];
    let bits = (0u8..).zip(bits).fold(0, |all, (place, bit)| all | u8::from(bit) << place);
    Writer::with_capacity(18)
        .u8(VERSION)
        .u8(bits)
        .i64(times.created_ns)
        .i64(times.updated_ms)
        .done()
}

pub(crate) fn decode(value: &[u8]) -> Result<(ChannelInfo, Times), StorageError> {
    whole(NAME, "value", value, |value| {
        let version = value.u8()?;
        let bits = value.u8().filter(|bits| *bits < 32)?;
        let info = ChannelInfo {
            large: bits & 1 != 0,
            ban: bits & 2 != 0,
            disband: bits & 4 != 0,
            send_ban: bits & 8 != 0,
            allow_stranger: bits & 16 != 0,
        };
        let times = match version {
            VERSION => Times { created_ns: value.i64()?, updated_ms: value.i64()? },
            VERSION_1 => Times::default(),
            _ => return None,
        };
        Some((info, times))
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{any_channel, any_info};

    proptest! {
        #[test]
        fn a_row_comes_back(slot: u16, channel in any_channel(), info in any_info()) {
            let key = key(SlotId(slot), &channel).unwrap();
            prop_assert_eq!(parse_key(&key).unwrap(), (SlotId(slot), channel));
            let times = Times { created_ns: i64::from(slot), updated_ms: -1 };
            prop_assert_eq!(decode(&encode(&info, &times)).unwrap(), (info, times));
        }

        #[test]
        fn a_row_of_version_1_is_read(bits in 0u8..32) {
            let (info, times) = decode(&[1, bits]).unwrap();
            prop_assert_eq!(times, Times::default());
            prop_assert_eq!(encode(&info, &times)[1], bits);
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes: Vec<u8>) {
            let _ = (parse_key(&bytes), decode(&bytes));
        }
    }
}
