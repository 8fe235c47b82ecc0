//! `device` — the token of a user's device.
//!
//! key    slot u16 | uid length u16 | uid | device flag u8
//! value  version u8 = 2 | level u8 | created i64, Unix ns | updated i64, Unix ms
//!        | token (the rest, UTF-8)                           version 1 has no times
//! write  apply of token commands     read  with the user, whole
//! life   for good; an empty token lets nobody in

use jindou_core::{
    id::{Name, SlotId},
    row::{Device, Times},
};

use crate::{
    codec::{Cursor, Writer, name_prefix, whole},
    error::StorageError,
};

pub(crate) const NAME: &str = "device";
const VERSION: u8 = 2;
/// Without times.
const VERSION_1: u8 = 1;

/// All devices of a user.
pub(crate) fn prefix(slot: SlotId, uid: &str) -> Result<Vec<u8>, StorageError> {
    Ok(name_prefix(NAME, slot, uid)?.done())
}

pub(crate) fn key(slot: SlotId, uid: &str, device_flag: u8) -> Result<Vec<u8>, StorageError> {
    Ok(name_prefix(NAME, slot, uid)?.u8(device_flag).done())
}

pub(crate) fn parse_key(key: &[u8]) -> Result<(SlotId, Name, u8), StorageError> {
    whole(NAME, "key", key, |key| Some((key.slot()?, key.name()?, key.u8()?)))
}

pub(crate) fn encode(device: &Device) -> Vec<u8> {
    Writer::with_capacity(18 + device.token.len())
        .u8(VERSION)
        .u8(device.level)
        .i64(device.times.created_ns)
        .i64(device.times.updated_ms)
        .bytes(device.token.as_bytes())
        .done()
}

pub(crate) fn decode(value: &[u8]) -> Result<Device, StorageError> {
    let parse = || {
        let mut value = Cursor::new(value);
        let (version, level) = (value.u8()?, value.u8()?);
        let times = match version {
            VERSION => Times { created_ns: value.i64()?, updated_ms: value.i64()? },
            VERSION_1 => Times::default(),
            _ => return None,
        };
        Some(Device { level, times, token: String::from_utf8(value.rest().to_vec()).ok()? })
    };
    parse().ok_or_else(|| StorageError::corrupt(NAME, "value"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;
    use crate::testing::any_name;

    proptest! {
        #[test]
        fn a_row_comes_back(slot: u16, uid in any_name(), flag: u8, level: u8, token: String) {
            let key = key(SlotId(slot), &uid, flag).unwrap();
            prop_assert!(key.starts_with(&prefix(SlotId(slot), &uid).unwrap()));
            prop_assert_eq!(parse_key(&key).unwrap(), (SlotId(slot), uid, flag));
            let times = Times { created_ns: i64::from(slot), updated_ms: -1 };
            let device = Device { level, token, times };
            prop_assert_eq!(decode(&encode(&device)).unwrap(), device);
        }

        #[test]
        fn a_row_of_version_1_is_read(level: u8, token: String) {
            let value = [&[1, level], token.as_bytes()].concat();
            let times = Times::default();
            prop_assert_eq!(decode(&value).unwrap(), Device { level, token, times });
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes: Vec<u8>) {
            let _ = (parse_key(&bytes), decode(&bytes));
        }
    }
}
