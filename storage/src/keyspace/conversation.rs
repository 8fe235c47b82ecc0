//! `conversation` — one user's view of one channel.
//!
//! key    slot u16 | uid length u16 | uid | kind u8 | channel id (the rest)
//! value  version u8 = 1 | read_to u64 | deleted_to u64 | created i64 | updated i64, Unix ms
//!        or version u8 = 2 | the same | handed_to u64, when that is not 0
//! write  apply of conversation changes; never per message     read  with the user, whole
//! life   until removed; the row lives in the slot of the user, not of the channel

use jindou_core::{
    id::{ChannelId, Name, SlotId},
    row::Conversation,
};

use crate::{
    codec::{Cursor, Writer, name_bytes, name_prefix, whole},
    error::StorageError,
};

pub(crate) const NAME: &str = "conversation";
const VERSION: u8 = 1;
const VERSION_HANDED: u8 = 2;

/// All conversations of a user.
pub(crate) fn prefix(slot: SlotId, uid: &str) -> Result<Vec<u8>, StorageError> {
    Ok(name_prefix(NAME, slot, uid)?.done())
}

pub(crate) fn key(slot: SlotId, uid: &str, channel: &ChannelId) -> Result<Vec<u8>, StorageError> {
    let id = name_bytes(NAME, &channel.id)?;
    Ok(name_prefix(NAME, slot, uid)?.u8(channel.kind).bytes(id).done())
}

pub(crate) fn parse_key(key: &[u8]) -> Result<(SlotId, Name, ChannelId), StorageError> {
    let parse = || {
        let mut key = Cursor::new(key);
        let (slot, uid, kind) = (key.slot()?, key.name()?, key.u8()?);
        let id = key.last_name()?;
        Some((slot, uid, ChannelId { id, kind }))
    };
    parse().ok_or_else(|| StorageError::corrupt(NAME, "key"))
}

pub(crate) fn encode(conversation: &Conversation) -> Vec<u8> {
    let handed = conversation.handed_to;
    let value = Writer::with_capacity(41)
        .u8(if handed == 0 { VERSION } else { VERSION_HANDED })
        .u64(conversation.read_to)
        .u64(conversation.deleted_to)
        .i64(conversation.created_ms)
        .i64(conversation.updated_ms);
    if handed == 0 { value.done() } else { value.u64(handed).done() }
}

pub(crate) fn decode(value: &[u8]) -> Result<Conversation, StorageError> {
    whole(NAME, "value", value, |value| {
        let version = value.u8()?;
        let row = Conversation {
            read_to: value.u64()?,
            deleted_to: value.u64()?,
            created_ms: value.i64()?,
            updated_ms: value.i64()?,
            handed_to: 0,
        };
        match version {
            VERSION => Some(row),
            VERSION_HANDED => Some(Conversation { handed_to: value.u64()?, ..row }),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{any_channel, any_conversation, any_name};

    proptest! {
        #[test]
        fn a_row_comes_back(
            slot: u16,
            uid in any_name(),
            channel in any_channel(),
            conversation in any_conversation(),
        ) {
            let key = key(SlotId(slot), &uid, &channel).unwrap();
            prop_assert!(key.starts_with(&prefix(SlotId(slot), &uid).unwrap()));
            prop_assert_eq!(parse_key(&key).unwrap(), (SlotId(slot), uid, channel));
            prop_assert_eq!(decode(&encode(&conversation)).unwrap(), conversation);
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes: Vec<u8>) {
            let _ = (parse_key(&bytes), decode(&bytes));
        }
    }
}
