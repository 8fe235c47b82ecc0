//! `log_entry` (database `log/`) — the Raft entries of all groups.
//!
//! key    group u16 | index u64      big-endian: a group's log is one range, in order
//! value  the entry as the caller wrote it, opaque here
//! write  append, through the log lane, fsynced before it is answered
//! read   at start, and for followers that are behind
//! life   from append to purge. A truncated entry is removed by a tombstone and its key may be
//!        written again. A purged one is not removed at all: reads begin after the purge mark
//!        (keyspace `log_meta`), and compaction drops what lies below it.

use crate::{codec::Cursor, error::StorageError};

pub(crate) const NAME: &str = "log_entry";

pub(crate) fn key(group: u16, index: u64) -> [u8; 10] {
    let mut key = [0; 10];
    let (head, tail) = key.split_at_mut(2);
    head.copy_from_slice(&group.to_be_bytes());
    tail.copy_from_slice(&index.to_be_bytes());
    key
}

pub(crate) fn parse_key(key: &[u8]) -> Result<(u16, u64), StorageError> {
    let parse = || {
        let mut key = Cursor::new(key);
        let parts = (key.u16()?, key.u64()?);
        key.end().map(|()| parts)
    };
    parse().ok_or_else(|| StorageError::corrupt(NAME, "key"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_come_back_and_are_in_order(a: (u16, u64), b: (u16, u64)) {
            let (x, y) = (key(a.0, a.1), key(b.0, b.1));
            prop_assert_eq!(parse_key(&x).unwrap(), a);
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes: Vec<u8>) {
            let _ = parse_key(&bytes);
        }
    }
}
