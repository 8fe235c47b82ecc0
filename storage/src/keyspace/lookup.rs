//! `message_id`, `message_number` — which message has an id, or a client number. Derived from the
//! rows of `message`: written in the same batch, made anew from a snapshot's messages, and no part
//! of a slot's hash.
//!
//! message_id      key    slot u16 | message id u64        ids count up, so rows come nearly in order
//!                 value  seq u64
//! message_number  key    slot u16 | digest u64 | seq u64  digest of channel and client number
//!                 value  empty
//! write  with the message         read  lookups, which check the message that they find
//! life   as long as the message
//!
//! In `message_id` the key of one byte [`COMPLETE`] says that every message has its rows: a
//! directory of before there were any gets them when it is opened.

use std::hash::Hasher as _;

use jindou_core::{
    id::{ChannelId, SlotId},
    message::Message,
};
use siphasher::sip::SipHasher13;

use crate::error::StorageError;

pub(crate) const ID_NAME: &str = "message_id";
pub(crate) const NUMBER_NAME: &str = "message_number";
pub(crate) const COMPLETE: [u8; 1] = [0xff];

/// The rows of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lookups {
    pub(crate) id_key: [u8; 10],
    pub(crate) seq: [u8; 8],
    /// `None`: it has no client number.
    pub(crate) number_key: Option<[u8; 18]>,
}

impl Lookups {
    pub(crate) fn of(slot: SlotId, message: &Message) -> Self {
        let number = &*message.client_msg_no;
        let number_key = (!number.is_empty()).then(|| {
            let mut key = [0; 18];
            let (prefix, seq) = key.split_at_mut(10);
            prefix.copy_from_slice(&number_prefix(slot, &message.channel, number));
            seq.copy_from_slice(&message.seq.to_be_bytes());
            key
        });
        Self { id_key: id_key(slot, message.id), seq: message.seq.to_be_bytes(), number_key }
    }
}

pub(crate) fn id_key(slot: SlotId, id: i64) -> [u8; 10] {
    with_slot(slot, id.to_be_bytes())
}

/// All messages of the channel with this client number, and hardly any other, in order of seq.
pub(crate) fn number_prefix(slot: SlotId, channel: &ChannelId, number: &str) -> [u8; 10] {
    let mut digest = SipHasher13::new();
    digest.write_u8(channel.kind);
    digest.write_u64((channel.id.len() as u64).to_le());
    digest.write(channel.id.as_bytes());
    digest.write(number.as_bytes());
    with_slot(slot, digest.finish().to_be_bytes())
}

fn with_slot(slot: SlotId, rest: [u8; 8]) -> [u8; 10] {
    let mut key = [0; 10];
    let (head, tail) = key.split_at_mut(2);
    head.copy_from_slice(&slot.0.to_be_bytes());
    tail.copy_from_slice(&rest);
    key
}

/// The seq in a row of `message_id`.
pub(crate) fn decode_seq(value: &[u8]) -> Result<u64, StorageError> {
    let seq = value.try_into().map(u64::from_be_bytes);
    seq.map_err(|_| StorageError::corrupt(ID_NAME, "value"))
}

/// The seq in a key of `message_number`.
pub(crate) fn number_seq(key: &[u8]) -> Result<u64, StorageError> {
    let seq = key.last_chunk().filter(|_| key.len() == 18);
    seq.map(|seq| u64::from_be_bytes(*seq)).ok_or_else(|| StorageError::corrupt(NUMBER_NAME, "key"))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;
    use crate::testing::any_message;

    proptest! {
        #[test]
        fn the_rows_of_a_message_lead_to_it(message in any_message(), slot: u16) {
            let slot = SlotId(slot);
            let rows = Lookups::of(slot, &message);
            prop_assert_eq!(rows.id_key, id_key(slot, message.id));
            prop_assert_eq!(decode_seq(&rows.seq).unwrap(), message.seq);
            if let Some(key) = rows.number_key {
                let prefix = number_prefix(slot, &message.channel, &message.client_msg_no);
                prop_assert!(key.starts_with(&prefix));
                prop_assert_eq!(number_seq(&key).unwrap(), message.seq);
            } else {
                prop_assert!(message.client_msg_no.is_empty());
            }
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes: Vec<u8>) {
            let _ = (decode_seq(&bytes), number_seq(&bytes));
        }
    }
}
