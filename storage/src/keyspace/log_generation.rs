//! `log-<n>`, head row (database `log/`) — which generation of the log a keyspace holds.
//!
//! key    0 u8
//! value  version u8 = 1 | order u64: the higher, the younger
//! write  in the first batch of a generation, together with the meta rows of all groups
//! read   at start
//! life   until the keyspace is cleared. A cleared keyspace holds the row with key 3 u8 and no
//!        value, which is flushed so that fjall lets go of the journals, and waits to be the next
//!        generation.

use crate::{
    codec::{Cursor, Writer},
    error::StorageError,
};

pub(crate) const NAME: &str = "log generation";
/// What keyspaces of the log are called, before their number.
pub(crate) const NAME_PREFIX: &str = "log-";
pub(crate) const HEAD_KEY: [u8; 1] = [0];
pub(crate) const CLEARED_KEY: [u8; 1] = [3];
const VERSION: u8 = 1;

pub(crate) fn encode(order: u64) -> Vec<u8> {
    Writer::with_capacity(9).u8(VERSION).u64(order).done()
}

pub(crate) fn decode(value: &[u8]) -> Result<u64, StorageError> {
    let parse = || {
        let mut value = Cursor::new(value);
        value.version(VERSION)?;
        let order = value.u64()?;
        value.end().map(|()| order)
    };
    parse().ok_or_else(|| StorageError::corrupt(NAME, "head row"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_head_row_comes_back(order: u64) {
            prop_assert_eq!(decode(&encode(order)).unwrap(), order);
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }
}
