//! `received` — how far another slot's outbox has been taken over, so that nothing is taken twice.
//!
//! key    slot u16 | source slot u16
//! value  version u8 = 1 | entry index u64 in the source slot
//! write  apply of what an outbox sent     read  at start, whole
//! life   for good; one row per pair of slots

use jindou_core::id::SlotId;

use crate::{
    codec::{Writer, whole},
    error::StorageError,
};

pub(crate) const NAME: &str = "received";
const VERSION: u8 = 1;

pub(crate) fn key(slot: SlotId, source: SlotId) -> Vec<u8> {
    Writer::with_capacity(4).slot(slot).slot(source).done()
}

pub(crate) fn parse_key(key: &[u8]) -> Result<(SlotId, SlotId), StorageError> {
    whole(NAME, "key", key, |key| Some((key.slot()?, key.slot()?)))
}

pub(crate) fn encode(index: u64) -> Vec<u8> {
    Writer::with_capacity(9).u8(VERSION).u64(index).done()
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

    proptest! {
        #[test]
        fn a_row_comes_back(slot: u16, source: u16, index: u64) {
            let (slot, source) = (SlotId(slot), SlotId(source));
            prop_assert_eq!(parse_key(&key(slot, source)).unwrap(), (slot, source));
            prop_assert_eq!(decode(&encode(index)).unwrap(), index);
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes: Vec<u8>) {
            let _ = (parse_key(&bytes), decode(&bytes));
        }
    }
}
