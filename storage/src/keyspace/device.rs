//! `device` — the token of a user's device.
//!
//! key    slot u16 | uid length u16 | uid | device flag u8
//! value  version u8 = 1 | level u8 | token (the rest, UTF-8)
//! write  apply of token commands     read  with the user, whole
//! life   for good; an empty token lets nobody in

use jindou_core::{
    id::{Name, SlotId},
    row::Device,
};

use crate::{
    codec::{Cursor, Writer, name_prefix, whole},
    error::StorageError,
};

pub(crate) const NAME: &str = "device";
const VERSION: u8 = 1;

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
    Writer::with_capacity(2 + device.token.len())
        .u8(VERSION)
        .u8(device.level)
        .bytes(device.token.as_bytes())
        .done()
}

pub(crate) fn decode(value: &[u8]) -> Result<Device, StorageError> {
    let parse = || {
        let mut value = Cursor::new(value);
        value.version(VERSION)?;
        Some(Device { level: value.u8()?, token: String::from_utf8(value.rest().to_vec()).ok()? })
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
            let device = Device { level, token };
            prop_assert_eq!(decode(&encode(&device)).unwrap(), device);
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes: Vec<u8>) {
            let _ = (parse_key(&bytes), decode(&bytes));
        }
    }
}
