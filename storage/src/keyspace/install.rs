//! `install` — slots whose rows are just being replaced by a received snapshot.
//!
//! key    slot u16
//! value  version u8 = 1 | chunk count u32
//! write  synced before the first row of the slot goes; removed in the batch that writes the
//!        new applied position
//! read   at start: the replacement is done again from the file, from its beginning
//! life   as long as a replacement runs

use jindou_core::id::SlotId;

use crate::{
    codec::{Cursor, Writer, whole},
    error::StorageError,
};

pub(crate) const NAME: &str = "install";
const VERSION: u8 = 1;

pub(crate) fn key(slot: SlotId) -> Vec<u8> {
    slot.0.to_be_bytes().to_vec()
}

pub(crate) fn parse_key(key: &[u8]) -> Result<SlotId, StorageError> {
    let mut key = Cursor::new(key);
    let slot = key.slot().filter(|_| key.end().is_some());
    slot.ok_or_else(|| StorageError::corrupt(NAME, "key"))
}

pub(crate) fn encode(chunk_count: u32) -> Vec<u8> {
    Writer::with_capacity(5).u8(VERSION).u32(chunk_count).done()
}

pub(crate) fn decode(value: &[u8]) -> Result<u32, StorageError> {
    whole(NAME, "value", value, |value| {
        value.version(VERSION)?;
        value.u32()
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_row_comes_back(slot: u16, chunk_count: u32) {
            prop_assert_eq!(parse_key(&key(SlotId(slot))).unwrap(), SlotId(slot));
            prop_assert_eq!(decode(&encode(chunk_count)).unwrap(), chunk_count);
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes: Vec<u8>) {
            let _ = (parse_key(&bytes), decode(&bytes));
        }
    }
}
