//! The formats: a file per keyspace, and [`Table`], which names those of the state database.
//!
//! All keys of the state database begin with the slot, so that a slot is one range per keyspace.

pub(crate) mod applied;
pub(crate) mod channel;
pub(crate) mod cluster;
pub(crate) mod conversation;
pub(crate) mod dated;
pub(crate) mod dedupe;
pub(crate) mod device;
pub(crate) mod install;
pub(crate) mod list;
pub(crate) mod log_carried;
pub(crate) mod log_entry;
pub(crate) mod log_generation;
pub(crate) mod log_meta;
pub(crate) mod lookup;
pub(crate) mod message;
pub(crate) mod notice;
pub(crate) mod outbox;
pub(crate) mod received;
pub(crate) mod sent;
pub(crate) mod stream;

use jindou_core::{
    id::{LogId, SlotId},
    row::Row,
};

use crate::error::StorageError;

/// A keyspace whose rows are a slot's state. The number stands in snapshot chunks and must stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Table {
    Message = 1,
    Sent = 2,
    Channel = 3,
    List = 4,
    Device = 5,
    Conversation = 6,
    Dedupe = 7,
    Outbox = 8,
    Received = 9,
    Cluster = 10,
    /// An install writes it last, after the slot's rows.
    Applied = 11,
    Stream = 12,
    Dated = 13,
    Notice = 14,
}

impl Table {
    /// In the order in which snapshots and hashes go through them.
    pub(crate) const ALL: [Self; 14] = [
        Self::Message,
        Self::Sent,
        Self::Channel,
        Self::List,
        Self::Device,
        Self::Conversation,
        Self::Dedupe,
        Self::Outbox,
        Self::Received,
        Self::Cluster,
        Self::Applied,
        Self::Stream,
        Self::Dated,
        Self::Notice,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Message => message::NAME,
            Self::Sent => sent::NAME,
            Self::Channel => channel::NAME,
            Self::List => list::NAME,
            Self::Device => device::NAME,
            Self::Conversation => conversation::NAME,
            Self::Dedupe => dedupe::NAME,
            Self::Outbox => outbox::NAME,
            Self::Received => received::NAME,
            Self::Cluster => cluster::NAME,
            Self::Applied => applied::NAME,
            Self::Stream => stream::NAME,
            Self::Dated => dated::NAME,
            Self::Notice => notice::NAME,
        }
    }

    /// The number in snapshot chunks.
    pub(crate) fn code(self) -> u8 {
        self as u8
    }

    pub(crate) fn of_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.code() == code)
    }
}

/// A row as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawRow {
    pub(crate) table: Table,
    pub(crate) key: Vec<u8>,
    /// `None`: the row goes.
    pub(crate) value: Option<Vec<u8>>,
}

/// What a stored row says.
#[derive(Clone, Debug)]
pub(crate) enum Stored {
    Row(Row),
    Applied(LogId),
}

/// The bytes of a row.
pub(crate) fn encode(slot: SlotId, row: &Row) -> Result<RawRow, StorageError> {
    let (table, key, value) = match row {
        Row::Message(message) => (
            Table::Message,
            message::key(slot, &message.channel, message.seq)?,
            Some(message::encode(message)),
        ),
        Row::Sent { channel, uid, seq } => {
            (Table::Sent, sent::key(slot, channel, uid)?, Some(sent::encode(*seq)))
        }
        Row::Info { channel, info, times } => {
            (Table::Channel, channel::key(slot, channel)?, Some(channel::encode(info, times)))
        }
        Row::ListItem { channel, list, uid, added_ms } => {
            (Table::List, list::key(slot, channel, *list, uid)?, added_ms.map(list::encode))
        }
        Row::Device { uid, device_flag, device } => {
            (Table::Device, device::key(slot, uid, *device_flag)?, Some(device::encode(device)))
        }
        Row::Conversation { uid, channel, conversation } => (
            Table::Conversation,
            conversation::key(slot, uid, channel)?,
            conversation.as_ref().map(conversation::encode),
        ),
        Row::Dedupe { index, records } => {
            (Table::Dedupe, dedupe::key(slot, *index), records.as_deref().map(dedupe::encode))
        }
        Row::Outbox { target, index, changes } => (
            Table::Outbox,
            outbox::key(slot, *target, *index),
            changes.as_deref().map(outbox::encode),
        ),
        Row::Received { source, index } => {
            (Table::Received, received::key(slot, *source), Some(received::encode(*index)))
        }
        Row::ClusterKey { key, value } => {
            (Table::Cluster, cluster::key(slot, key)?, Some(cluster::encode(value)))
        }
        Row::Membership(membership) => (
            Table::Applied,
            applied::key(slot, applied::What::Membership),
            Some(applied::encode_membership(membership)),
        ),
        Row::Stream { stream, part } => {
            (Table::Stream, stream::key(slot, stream, part)?, Some(stream::encode(part)))
        }
        Row::Dated { what, created_ns } => {
            (Table::Dated, dated::key(slot, what, *created_ns)?, Some(dated::encode()))
        }
        Row::Notice { number, row } => {
            (Table::Notice, notice::key(slot, *number), row.as_ref().map(notice::encode))
        }
        Row::NoticeHead(head) => {
            (Table::Notice, notice::key(slot, notice::HEAD), Some(notice::encode_head(head)))
        }
    };
    Ok(RawRow { table, key, value })
}

/// The bytes of a slot's applied position.
pub(crate) fn encode_applied(slot: SlotId, applied: LogId) -> RawRow {
    RawRow {
        table: Table::Applied,
        key: applied::key(slot, applied::What::Position),
        value: Some(applied::encode_position(applied)),
    }
}

/// Reads a stored row back, with its slot.
pub(crate) fn decode(
    table: Table,
    key: &[u8],
    value: &[u8],
) -> Result<(SlotId, Stored), StorageError> {
    let (slot, row) = match table {
        Table::Message => {
            let (slot, channel, seq) = message::parse_key(key)?;
            (slot, Row::Message(message::decode(&channel, seq, value)?))
        }
        Table::Sent => {
            let (slot, channel, uid) = sent::parse_key(key)?;
            let seq = sent::decode(value)?;
            (slot, Row::Sent { channel, uid, seq })
        }
        Table::Channel => {
            let (slot, channel) = channel::parse_key(key)?;
            let (info, times) = channel::decode(value)?;
            (slot, Row::Info { channel, info, times })
        }
        Table::List => {
            let (slot, channel, list, uid) = list::parse_key(key)?;
            let row = Row::ListItem { channel, list, uid, added_ms: Some(list::decode(value)?) };
            (slot, row)
        }
        Table::Device => {
            let (slot, uid, device_flag) = device::parse_key(key)?;
            let row = Row::Device { uid, device_flag, device: device::decode(value)? };
            (slot, row)
        }
        Table::Conversation => {
            let (slot, uid, channel) = conversation::parse_key(key)?;
            let row = Row::Conversation {
                uid,
                channel,
                conversation: Some(conversation::decode(value)?),
            };
            (slot, row)
        }
        Table::Dedupe => {
            let (slot, index) = dedupe::parse_key(key)?;
            let records = Some(dedupe::decode(value)?);
            (slot, Row::Dedupe { index, records })
        }
        Table::Outbox => {
            let (slot, target, index) = outbox::parse_key(key)?;
            let row = Row::Outbox { target, index, changes: Some(outbox::decode(value)?) };
            (slot, row)
        }
        Table::Received => {
            let (slot, source) = received::parse_key(key)?;
            let index = received::decode(value)?;
            (slot, Row::Received { source, index })
        }
        Table::Cluster => {
            let (slot, key) = cluster::parse_key(key)?;
            let value = cluster::decode(value)?;
            (slot, Row::ClusterKey { key, value })
        }
        Table::Stream => {
            let (slot, stream, part) = stream::decode(key, value)?;
            (slot, Row::Stream { stream, part })
        }
        Table::Dated => {
            let (slot, what, created_ns) = dated::parse_key(key)?;
            dated::decode(value)?;
            (slot, Row::Dated { what, created_ns })
        }
        Table::Notice => match notice::parse_key(key)? {
            (slot, notice::HEAD) => (slot, Row::NoticeHead(notice::decode_head(value)?)),
            (slot, number) => (slot, Row::Notice { number, row: Some(notice::decode(value)?) }),
        },
        Table::Applied => match applied::parse_key(key)? {
            (slot, applied::What::Position) => {
                return Ok((slot, Stored::Applied(applied::decode_position(value)?)));
            }
            (slot, applied::What::Membership) => {
                (slot, Row::Membership(applied::decode_membership(value)?))
            }
        },
    };
    Ok((slot, Stored::Row(row)))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;
    use crate::testing::any_row;

    #[test]
    fn every_table_has_its_own_name_and_number() {
        for (place, table) in Table::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(table.code()), place + 1);
            assert_eq!(Table::of_code(table.code()), Some(table));
        }
        let mut names = Table::ALL.map(Table::name).to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Table::ALL.len());
        assert_eq!(Table::of_code(0), None);
    }

    proptest! {
        #[test]
        fn a_row_comes_back_from_its_bytes(slot: u16, row in any_row()) {
            let raw = encode(SlotId(slot), &row).unwrap();
            prop_assert!(raw.key.starts_with(&slot.to_be_bytes()));
            if let Some(value) = raw.value {
                let (back_slot, back) = decode(raw.table, &raw.key, &value).unwrap();
                prop_assert_eq!(back_slot, SlotId(slot));
                prop_assert_eq!(format!("{back:?}"), format!("{:?}", Stored::Row(row)));
            }
        }
    }
}
