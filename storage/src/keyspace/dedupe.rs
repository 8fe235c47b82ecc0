//! `dedupe` — the window of remembered sends, so that a repeated one is told the first one's
//! answer (G4).
//!
//! key    slot u16 | entry index u64
//! value  version u8 = 1 | records of 40 bytes: digest u128 | id i64 | seq u64 | time i64, Unix ms
//! write  apply, one row per entry that stored messages with a client key    read  at start, whole
//! life   until the window has moved past the entry (apply removes the row)

use jindou_core::{id::SlotId, row::DedupeRecord};

use crate::{
    codec::{Cursor, Writer, whole},
    error::StorageError,
};

pub(crate) const NAME: &str = "dedupe";
const VERSION: u8 = 1;
const RECORD_SIZE: usize = 40;

pub(crate) fn key(slot: SlotId, index: u64) -> Vec<u8> {
    Writer::with_capacity(10).slot(slot).u64(index).done()
}

pub(crate) fn parse_key(key: &[u8]) -> Result<(SlotId, u64), StorageError> {
    whole(NAME, "key", key, |key| Some((key.slot()?, key.u64()?)))
}

pub(crate) fn encode(records: &[DedupeRecord]) -> Vec<u8> {
    let value = Writer::with_capacity(1 + records.len() * RECORD_SIZE).u8(VERSION);
    records
        .iter()
        .fold(value, |value, record| {
            value.u128(record.digest).i64(record.id).u64(record.seq).i64(record.time_ms)
        })
        .done()
}

pub(crate) fn decode(value: &[u8]) -> Result<Vec<DedupeRecord>, StorageError> {
    let parse = || {
        let mut value = Cursor::new(value);
        value.version(VERSION)?;
        let (records, rest) = value.rest().as_chunks::<RECORD_SIZE>();
        if !rest.is_empty() {
            return None;
        }
        let record = |bytes: &[u8; RECORD_SIZE]| {
            let mut bytes = Cursor::new(bytes);
            Some(DedupeRecord {
                digest: bytes.u128()?,
                id: bytes.i64()?,
                seq: bytes.u64()?,
                time_ms: bytes.i64()?,
            })
        };
        records.iter().map(record).collect()
    };
    parse().ok_or_else(|| StorageError::corrupt(NAME, "value"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;
    use crate::testing::any_dedupe;

    proptest! {
        #[test]
        fn a_row_comes_back(slot: u16, index: u64, records in any_dedupe()) {
            prop_assert_eq!(parse_key(&key(SlotId(slot), index)).unwrap(), (SlotId(slot), index));
            prop_assert_eq!(decode(&encode(&records)).unwrap(), records);
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes: Vec<u8>) {
            let _ = (parse_key(&bytes), decode(&bytes));
        }
    }
}
