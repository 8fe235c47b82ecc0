//! `notice` — what a slot still has to tell the receiver of webhooks.
//!
//! key    slot u16 | number u64; number 0 is the head       oldest first
//! value  head: version u8 = 1 | first u64 | next u64 | total u64 | gone u64
//!        others: version u8 = 1 | total u64 | time i64 (Unix ms) | archived notice (the rest)
//! write  apply, in the batch of the entry that made it     read  the head at start, then in pieces
//! life   until the receiver has taken it, or it is too old or too many are there

use bytes::Bytes;
use jindou_core::{
    id::SlotId,
    notice::{NoticeHead, NoticeRow},
};

use crate::{
    codec::{Writer, whole},
    error::StorageError,
};

pub(crate) const NAME: &str = "notice";
const VERSION: u8 = 1;

/// The number of the head's key.
pub(crate) const HEAD: u64 = 0;

pub(crate) fn key(slot: SlotId, number: u64) -> Vec<u8> {
    Writer::with_capacity(10).slot(slot).u64(number).done()
}

pub(crate) fn parse_key(key: &[u8]) -> Result<(SlotId, u64), StorageError> {
    whole(NAME, "key", key, |key| Some((key.slot()?, key.u64()?)))
}

pub(crate) fn encode_head(head: &NoticeHead) -> Vec<u8> {
    Writer::with_capacity(33)
        .u8(VERSION)
        .u64(head.first)
        .u64(head.next)
        .u64(head.total)
        .u64(head.gone)
        .done()
}

pub(crate) fn decode_head(value: &[u8]) -> Result<NoticeHead, StorageError> {
    whole(NAME, "head", value, |value| {
        value.version(VERSION)?;
        let (first, next) = (value.u64()?, value.u64()?);
        Some(NoticeHead { first, next, total: value.u64()?, gone: value.u64()? })
    })
}

pub(crate) fn encode(row: &NoticeRow) -> Vec<u8> {
    Writer::with_capacity(17 + row.notice.len())
        .u8(VERSION)
        .u64(row.total)
        .i64(row.time_ms)
        .bytes(&row.notice)
        .done()
}

pub(crate) fn decode(value: &[u8]) -> Result<NoticeRow, StorageError> {
    let corrupt = || StorageError::corrupt(NAME, "value");
    let [VERSION, rest @ ..] = value else {
        return Err(corrupt());
    };
    let (total, rest) = rest.split_first_chunk::<8>().ok_or_else(corrupt)?;
    let (time_ms, notice) = rest.split_first_chunk::<8>().ok_or_else(corrupt)?;
    Ok(NoticeRow {
        total: u64::from_be_bytes(*total),
        time_ms: i64::from_be_bytes(*time_ms),
        notice: Bytes::copy_from_slice(notice),
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_row_comes_back(slot: u16, number: u64, total: u64, time_ms: i64, notice: Vec<u8>) {
            prop_assert_eq!(parse_key(&key(SlotId(slot), number)).unwrap(), (SlotId(slot), number));
            let row = NoticeRow { total, time_ms, notice: notice.into() };
            prop_assert_eq!(decode(&encode(&row)).unwrap(), row);
            let head = NoticeHead { first: number, next: total, total: number, gone: total };
            prop_assert_eq!(decode_head(&encode_head(&head)).unwrap(), head);
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes: Vec<u8>) {
            let _ = (parse_key(&bytes), decode(&bytes), decode_head(&bytes));
        }
    }
}
