//! `list` — members, deny and allow list of a channel, recipients of a temporary one.
//!
//! key    slot u16 | kind u8 | id length u16 | id | list u8 | uid (the rest)
//!        list: 0 members, 1 deny, 2 allow, 3 recipients
//! value  version u8 = 1 | added i64, Unix ms
//! write  apply of list commands      read  with the channel, whole
//! life   until removed from the list

use jindou_core::{
    channel_info::List,
    id::{ChannelId, Name, SlotId},
};

use crate::{
    codec::{Cursor, Writer, channel_prefix, name_bytes, whole},
    error::StorageError,
};

pub(crate) const NAME: &str = "list";
const VERSION: u8 = 1;

fn list_code(list: List) -> u8 {
    match list {
        List::Members => 0,
        List::Deny => 1,
        List::Allow => 2,
        List::Recipients => 3,
    }
}

fn list_of(code: u8) -> Option<List> {
    Some(match code {
        0 => List::Members,
        1 => List::Deny,
        2 => List::Allow,
        3 => List::Recipients,
        _ => return None,
    })
}

/// All lists of a channel.
pub(crate) fn prefix(slot: SlotId, channel: &ChannelId) -> Result<Vec<u8>, StorageError> {
    Ok(channel_prefix(NAME, slot, channel)?.done())
}

/// List and uid of a key that begins with `prefix`.
pub(crate) fn item_of(prefix: &[u8], key: &[u8]) -> Result<(List, Name), StorageError> {
    let parse = || {
        let mut key = Cursor::new(key.strip_prefix(prefix)?);
        Some((list_of(key.u8()?)?, key.last_name()?))
    };
    parse().ok_or_else(|| StorageError::corrupt(NAME, "key"))
}

pub(crate) fn key(
    slot: SlotId,
    channel: &ChannelId,
    list: List,
    uid: &str,
) -> Result<Vec<u8>, StorageError> {
    let uid = name_bytes(NAME, uid)?;
    Ok(channel_prefix(NAME, slot, channel)?.u8(list_code(list)).bytes(uid).done())
}

pub(crate) fn parse_key(key: &[u8]) -> Result<(SlotId, ChannelId, List, Name), StorageError> {
    whole(NAME, "key", key, |key| {
        Some((key.slot()?, key.channel()?, list_of(key.u8()?)?, key.last_name()?))
    })
}

pub(crate) fn encode(added_ms: i64) -> Vec<u8> {
    Writer::with_capacity(9).u8(VERSION).i64(added_ms).done()
}

pub(crate) fn decode(value: &[u8]) -> Result<i64, StorageError> {
    whole(NAME, "value", value, |value| {
        value.version(VERSION)?;
        value.i64()
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{any_channel, any_list, any_name};

    proptest! {
        #[test]
        fn a_row_comes_back(
            slot: u16,
            channel in any_channel(),
            list in any_list(),
            uid in any_name(),
            at: i64,
        ) {
            let key = key(SlotId(slot), &channel, list, &uid).unwrap();
            let prefix = prefix(SlotId(slot), &channel).unwrap();
            prop_assert_eq!(item_of(&prefix, &key).unwrap(), (list, uid.clone()));
            prop_assert_eq!(parse_key(&key).unwrap(), (SlotId(slot), channel, list, uid));
            prop_assert_eq!(decode(&encode(at)).unwrap(), at);
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes: Vec<u8>) {
            let _ = (parse_key(&bytes), decode(&bytes), item_of(b"x", &bytes));
        }
    }
}
