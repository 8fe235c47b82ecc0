//! `dated` — channels, users and devices by the time when they were made.
//!
//! key    slot u16 | what u8 | created u64, Unix ns | name (the rest)      big-endian: order of time
//!        what: 1 channel, its name: kind u8 | id; 2 user, its name: uid; 3 device, its name:
//!        device flag u8 | uid
//! value  version u8 = 1
//! write  apply, with the first row of what it names           read  searches
//! life   as the row that it names

use jindou_core::{
    id::{ChannelId, Name, SlotId},
    row::Dated,
};

use crate::{
    codec::{Cursor, Writer, name_bytes, whole},
    error::StorageError,
};

pub(crate) const NAME: &str = "dated";
const VERSION: u8 = 1;

/// What a key is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Channel = 1,
    User = 2,
    Device = 3,
}

/// All of one kind.
pub(crate) fn prefix(slot: SlotId, kind: Kind) -> Vec<u8> {
    Writer::with_capacity(16).slot(slot).u8(kind as u8).done()
}

/// Where the keys of a time begin. What was made before 1970 counts as made then.
pub(crate) fn time_prefix(slot: SlotId, kind: Kind, created_ns: i64) -> Vec<u8> {
    let created = u64::try_from(created_ns).unwrap_or(0);
    Writer::over(prefix(slot, kind)).u64(created).done()
}

pub(crate) fn key(slot: SlotId, what: &Dated, created_ns: i64) -> Result<Vec<u8>, StorageError> {
    let over = |kind| Writer::over(time_prefix(slot, kind, created_ns));
    Ok(match what {
        Dated::Channel(channel) => {
            over(Kind::Channel).u8(channel.kind).bytes(name_bytes(NAME, &channel.id)?)
        }
        Dated::User(uid) => over(Kind::User).bytes(name_bytes(NAME, uid)?),
        Dated::Device(uid, flag) => over(Kind::Device).u8(*flag).bytes(name_bytes(NAME, uid)?),
    }
    .done())
}

pub(crate) fn parse_key(key: &[u8]) -> Result<(SlotId, Dated, i64), StorageError> {
    let parse = || -> Option<(SlotId, Dated, i64)> {
        let mut key = Cursor::new(key);
        let (slot, kind) = (key.slot()?, key.u8()?);
        let created_ns = i64::try_from(key.u64()?).ok()?;
        let name = |key: &mut Cursor<'_>| -> Option<Name> { key.last_name() };
        let what = match kind {
            1 => {
                let kind = key.u8()?;
                Dated::Channel(ChannelId { kind, id: name(&mut key)? })
            }
            2 => Dated::User(name(&mut key)?),
            3 => {
                let flag = key.u8()?;
                Dated::Device(name(&mut key)?, flag)
            }
            _ => return None,
        };
        Some((slot, what, created_ns))
    };
    parse().ok_or_else(|| StorageError::corrupt(NAME, "key"))
}

pub(crate) fn encode() -> Vec<u8> {
    vec![VERSION]
}

pub(crate) fn decode(value: &[u8]) -> Result<(), StorageError> {
    whole(NAME, "value", value, |value| value.version(VERSION))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;
    use crate::testing::any_dated;

    proptest! {
        #[test]
        fn a_row_comes_back(slot: u16, what in any_dated(), at in 0..i64::MAX) {
            let key = key(SlotId(slot), &what, at).unwrap();
            prop_assert_eq!(parse_key(&key).unwrap(), (SlotId(slot), what, at));
            prop_assert!(decode(&encode()).is_ok());
        }

        #[test]
        fn keys_are_in_order_of_time(what in any_dated(), a in 0..i64::MAX, b in 0..i64::MAX) {
            let key = |at| key(SlotId(1), &what, at).unwrap();
            prop_assert_eq!(key(a).cmp(&key(b)), a.cmp(&b));
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes: Vec<u8>) {
            let _ = (parse_key(&bytes), decode(&bytes));
        }
    }
}
