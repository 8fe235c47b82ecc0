//! `cluster` — the cluster's own keys (secrets, placement), replicated by group 0.
//!
//! key    slot u16 | key (the rest, UTF-8)
//! value  version u8 = 1 | value (the rest), opaque here
//! write  apply of group 0            read  at start, whole
//! life   for good

use bytes::Bytes;
use jindou_core::id::SlotId;

use crate::{
    codec::{Cursor, Writer, name_bytes},
    error::StorageError,
};

pub(crate) const NAME: &str = "cluster";
const VERSION: u8 = 1;

pub(crate) fn key(slot: SlotId, name: &str) -> Result<Vec<u8>, StorageError> {
    let name = name_bytes(NAME, name)?;
    Ok(Writer::with_capacity(2 + name.len()).slot(slot).bytes(name).done())
}

pub(crate) fn parse_key(key: &[u8]) -> Result<(SlotId, String), StorageError> {
    let parse = || {
        let mut key = Cursor::new(key);
        let slot = key.slot()?;
        Some((slot, String::from_utf8(key.rest().to_vec()).ok()?))
    };
    parse().ok_or_else(|| StorageError::corrupt(NAME, "key"))
}

pub(crate) fn encode(value: &[u8]) -> Vec<u8> {
    Writer::with_capacity(1 + value.len()).u8(VERSION).bytes(value).done()
}

pub(crate) fn decode(value: &[u8]) -> Result<Bytes, StorageError> {
    match value {
        [VERSION, value @ ..] => Ok(Bytes::copy_from_slice(value)),
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
        fn a_row_comes_back(slot: u16, name: String, value: Vec<u8>) {
            let key = key(SlotId(slot), &name).unwrap();
            prop_assert_eq!(parse_key(&key).unwrap(), (SlotId(slot), name));
            prop_assert_eq!(decode(&encode(&value)).unwrap(), value);
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes: Vec<u8>) {
            let _ = (parse_key(&bytes), decode(&bytes));
        }
    }
}
