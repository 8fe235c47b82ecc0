//! `applied` — how far a slot has applied its log, and with which members.
//!
//! key    slot u16 | what u8: 0 position, 1 membership
//! value  position: version u8 = 1 | term u64 | node u64 | index u64
//!        membership: version u8 = 1 | bytes of the caller (the rest), opaque here
//! write  in every batch of rows, so that rows and position are found together or not at all
//! read   at start                    life  as the slot

use bytes::Bytes;
use jindou_core::id::{LogId, SlotId};

use crate::{
    codec::{Writer, whole},
    error::StorageError,
};

pub(crate) const NAME: &str = "applied";
const VERSION: u8 = 1;

/// Which of a slot's two rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Position,
    Membership,
}

pub(crate) fn key(slot: SlotId, what: What) -> Vec<u8> {
    let what = match what {
        What::Position => 0,
        What::Membership => 1,
    };
    Writer::with_capacity(3).slot(slot).u8(what).done()
}

pub(crate) fn parse_key(key: &[u8]) -> Result<(SlotId, What), StorageError> {
    whole(NAME, "key", key, |key| {
        let slot = key.slot()?;
        let what = match key.u8()? {
            0 => What::Position,
            1 => What::Membership,
            _ => return None,
        };
        Some((slot, what))
    })
}

pub(crate) fn encode_position(applied: LogId) -> Vec<u8> {
    Writer::with_capacity(25)
        .u8(VERSION)
        .u64(applied.term)
        .u64(applied.node)
        .u64(applied.index)
        .done()
}

pub(crate) fn decode_position(value: &[u8]) -> Result<LogId, StorageError> {
    whole(NAME, "position", value, |value| {
        value.version(VERSION)?;
        Some(LogId { term: value.u64()?, node: value.u64()?, index: value.u64()? })
    })
}

pub(crate) fn encode_membership(membership: &[u8]) -> Vec<u8> {
    Writer::with_capacity(1 + membership.len()).u8(VERSION).bytes(membership).done()
}

pub(crate) fn decode_membership(value: &[u8]) -> Result<Bytes, StorageError> {
    match value {
        [VERSION, membership @ ..] => Ok(Bytes::copy_from_slice(membership)),
        _ => Err(StorageError::corrupt(NAME, "membership")),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn both_rows_come_back(slot: u16, term: u64, node: u64, index: u64, members: Vec<u8>) {
            for what in [What::Position, What::Membership] {
                prop_assert_eq!(parse_key(&key(SlotId(slot), what)).unwrap(), (SlotId(slot), what));
            }
            let applied = LogId { term, node, index };
            prop_assert_eq!(decode_position(&encode_position(applied)).unwrap(), applied);
            prop_assert_eq!(decode_membership(&encode_membership(&members)).unwrap(), members);
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes: Vec<u8>) {
            let _ = (parse_key(&bytes), decode_position(&bytes), decode_membership(&bytes));
        }
    }
}
