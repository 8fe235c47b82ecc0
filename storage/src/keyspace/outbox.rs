//! `outbox` — what a slot's entries change in other slots, until those have committed it.
//!
//! key    slot u16 | target slot u16 | entry index u64       order of delivery, per target
//! value  version u8 = 1 | archived changes (the rest), opaque here
//! write  apply, in the batch of the entry that made it     read  at start, whole
//! life   until the target has committed it

use bytes::Bytes;
use jindou_core::id::SlotId;

use crate::{
    codec::{Writer, whole},
    error::StorageError,
};

pub(crate) const NAME: &str = "outbox";
const VERSION: u8 = 1;

pub(crate) fn key(slot: SlotId, target: SlotId, index: u64) -> Vec<u8> {
    Writer::with_capacity(12).slot(slot).slot(target).u64(index).done()
}

pub(crate) fn parse_key(key: &[u8]) -> Result<(SlotId, SlotId, u64), StorageError> {
    whole(NAME, "key", key, |key| Some((key.slot()?, key.slot()?, key.u64()?)))
}

pub(crate) fn encode(changes: &[u8]) -> Vec<u8> {
    Writer::with_capacity(1 + changes.len()).u8(VERSION).bytes(changes).done()
}

pub(crate) fn decode(value: &[u8]) -> Result<Bytes, StorageError> {
    match value {
        [VERSION, changes @ ..] => Ok(Bytes::copy_from_slice(changes)),
        _ => Err(StorageError::corrupt(NAME, "value")),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_row_comes_back(slot: u16, target: u16, index: u64, changes: Vec<u8>) {
            let (slot, target) = (SlotId(slot), SlotId(target));
            let key = key(slot, target, index);
            prop_assert_eq!(parse_key(&key).unwrap(), (slot, target, index));
            prop_assert_eq!(decode(&encode(&changes)).unwrap(), changes);
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes: Vec<u8>) {
            let _ = (parse_key(&bytes), decode(&bytes));
        }
    }
}
