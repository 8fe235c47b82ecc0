//! `log-<n>`, meta rows (database `log/`) — what a group remembers beside its entries.
//!
//! key    2 u8 | group u16 | what u8: 0 vote, 1 committed, 2 purged
//! value  version u8 = 1 | vote and committed: the caller's bytes (the rest), opaque here
//!                         purged: index u64 | the caller's mark (the rest)
//! write  votes and purge marks fsynced before they are answered, committed with whatever is
//!        fsynced next; every generation begins with all rows of all groups
//! read   at start, from the youngest generation      life  as the group; overwritten

use bytes::Bytes;

use crate::{
    codec::{Cursor, Writer, whole},
    error::StorageError,
};

pub(crate) const NAME: &str = "log meta";
const TAG: u8 = 2;
const VERSION: u8 = 1;

/// Which row of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    Vote,
    Committed,
    Purged,
}

/// The range of all rows.
pub(crate) const ROWS: std::ops::Range<[u8; 1]> = [TAG]..[TAG + 1];

pub(crate) fn key(group: u16, what: What) -> [u8; 4] {
    let [high, low] = group.to_be_bytes();
    let what = match what {
        What::Vote => 0,
        What::Committed => 1,
        What::Purged => 2,
    };
    [TAG, high, low, what]
}

pub(crate) fn parse_key(key: &[u8]) -> Result<(u16, What), StorageError> {
    whole(NAME, "key", key, |key| {
        key.version(TAG)?;
        let group = key.u16()?;
        let what = match key.u8()? {
            0 => What::Vote,
            1 => What::Committed,
            2 => What::Purged,
            _ => return None,
        };
        Some((group, what))
    })
}

pub(crate) fn encode(bytes: &[u8]) -> Vec<u8> {
    Writer::with_capacity(1 + bytes.len()).u8(VERSION).bytes(bytes).done()
}

pub(crate) fn decode(value: &[u8]) -> Result<Bytes, StorageError> {
    match value {
        [VERSION, bytes @ ..] => Ok(Bytes::copy_from_slice(bytes)),
        _ => Err(StorageError::corrupt(NAME, "value")),
    }
}

pub(crate) fn encode_purged(index: u64, mark: &[u8]) -> Vec<u8> {
    Writer::with_capacity(9 + mark.len()).u8(VERSION).u64(index).bytes(mark).done()
}

pub(crate) fn decode_purged(value: &[u8]) -> Result<(u64, Bytes), StorageError> {
    let parse = || {
        let mut value = Cursor::new(value);
        value.version(VERSION)?;
        Some((value.u64()?, Bytes::copy_from_slice(value.rest())))
    };
    parse().ok_or_else(|| StorageError::corrupt(NAME, "purge mark"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rows_come_back(group: u16, index: u64, bytes: Vec<u8>) {
            for what in [What::Vote, What::Committed, What::Purged] {
                prop_assert_eq!(parse_key(&key(group, what)).unwrap(), (group, what));
            }
            prop_assert_eq!(decode(&encode(&bytes)).unwrap(), bytes.clone());
            let purged = decode_purged(&encode_purged(index, &bytes)).unwrap();
            prop_assert_eq!(purged, (index, Bytes::from(bytes)));
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes: Vec<u8>) {
            let _ = (parse_key(&bytes), decode(&bytes), decode_purged(&bytes));
        }
    }
}
