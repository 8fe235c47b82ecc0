//! `log-<n>`, carried rows (database `log/`) — entries that an older generation held before.
//!
//! key    4 u8 | group u16 | first index u64
//! value  version u8 = 1 | last index u64
//! write  in the first batch of a generation, with the entries themselves
//! read   at start: what an older generation holds in the range does not count any more, even
//!        where this one holds nothing (it was truncated later)
//! life   as the generation

use crate::{
    codec::{Writer, whole},
    error::StorageError,
};

pub(crate) const NAME: &str = "log carried";
const TAG: u8 = 4;
const VERSION: u8 = 1;

/// The range of all rows.
pub(crate) const ROWS: std::ops::Range<[u8; 1]> = [TAG]..[TAG + 1];

pub(crate) fn key(group: u16, first: u64) -> Vec<u8> {
    Writer::with_capacity(11).u8(TAG).u16(group).u64(first).done()
}

pub(crate) fn parse_key(key: &[u8]) -> Result<(u16, u64), StorageError> {
    whole(NAME, "key", key, |key| {
        key.version(TAG)?;
        Some((key.u16()?, key.u64()?))
    })
}

pub(crate) fn encode(last: u64) -> Vec<u8> {
    Writer::with_capacity(9).u8(VERSION).u64(last).done()
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
        fn a_row_comes_back(group: u16, first: u64, last: u64) {
            prop_assert_eq!(parse_key(&key(group, first)).unwrap(), (group, first));
            prop_assert_eq!(decode(&encode(last)).unwrap(), last);
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes: Vec<u8>) {
            let _ = (parse_key(&bytes), decode(&bytes));
        }
    }
}
