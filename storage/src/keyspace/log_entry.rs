//! `log-<n>`, entries (database `log/`) — the Raft entries of all groups, in generations.
//!
//! key    1 u8 | group u16 | index u64      big-endian: a group's entries are one range, in order
//! value  the entry as the caller wrote it, opaque here
//! write  append, through the log lane, fsynced before it is answered; a truncated entry is
//!        removed by a tombstone, and its index may be written again, here or in a later generation
//! read   at start, and for followers that are behind
//! life   from append to purge. A purged entry is not removed: reads begin after the purge mark,
//!        and the whole generation is cleared when nothing in it is above its group's mark.
//!
//! An index may stand in two generations when entries were carried over (`log_carried`); the later
//! one counts.

use crate::{codec::whole, error::StorageError};

pub(crate) const NAME: &str = "log entry";
const TAG: u8 = 1;

pub(crate) type Key = [u8; 11];

pub(crate) fn key(group: u16, index: u64) -> Key {
    let mut key = [TAG; 11];
    let (head, tail) = key.split_at_mut(3);
    let (_, middle) = head.split_at_mut(1);
    middle.copy_from_slice(&group.to_be_bytes());
    tail.copy_from_slice(&index.to_be_bytes());
    key
}

pub(crate) fn parse_key(key: &[u8]) -> Result<(u16, u64), StorageError> {
    whole(NAME, "key", key, |key| {
        key.version(TAG)?;
        Some((key.u16()?, key.u64()?))
    })
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
