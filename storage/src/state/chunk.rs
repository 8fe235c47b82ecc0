//! Snapshot chunks: a slot's rows on their way to another node.
//!
//! ```text
//! chunk  magic "JDSN" | version u8 = 1 | last u8: 0 or 1 | slot u16 | ordinal u32 | crc u32
//!        | rows
//! row    table u8 | key size u32 | value size u32 | key | value
//! ```
//!
//! The CRC-32 covers the rows and everything before it. Tables come in the order of
//! `Table::ALL`, rows in the order of their keys: equal states give equal chunks.

use bytes::Bytes;
use jindou_core::id::SlotId;

use crate::{
    codec::{Cursor, Writer},
    error::StorageError,
    keyspace::{self, Stored, Table},
};

const MAGIC: &[u8; 4] = b"JDSN";
const VERSION: u8 = 1;
const HEAD_SIZE: usize = 16;
/// A chunk is closed when it has grown to this.
const CHUNK_SIZE: usize = 1 << 20;
/// No chunk is larger: the target and one row of the largest size there is.
pub(crate) const CHUNK_SIZE_MAX: usize = 64 << 20;

/// Puts rows into chunks.
pub(crate) struct ChunkWriter {
    slot: SlotId,
    ordinal: u32,
    rows: Writer,
}

impl ChunkWriter {
    pub(crate) fn new(slot: SlotId) -> Self {
        Self { slot, ordinal: 0, rows: Writer::with_capacity(CHUNK_SIZE) }
    }

    /// Adds a row; gives a chunk when one is full.
    pub(crate) fn add(&mut self, table: Table, key: &[u8], value: &[u8]) -> Option<Bytes> {
        let rows = std::mem::replace(&mut self.rows, Writer::with_capacity(0));
        self.rows =
            rows.u8(table.code()).u32(size_of(key)).u32(size_of(value)).bytes(key).bytes(value);
        (self.rows.size() >= CHUNK_SIZE).then(|| self.close(false))
    }

    /// The last chunk.
    pub(crate) fn finish(mut self) -> Bytes {
        self.close(true)
    }

    pub(super) fn close(&mut self, last: bool) -> Bytes {
        let rows = std::mem::replace(&mut self.rows, Writer::with_capacity(CHUNK_SIZE)).done();
        let head = Writer::with_capacity(HEAD_SIZE + rows.len())
            .bytes(MAGIC)
            .u8(VERSION)
            .u8(u8::from(last))
            .slot(self.slot)
            .u32(self.ordinal)
            .done();
        let crc = checksum(&head, &rows);
        self.ordinal += 1;
        Writer::over(head).u32(crc).bytes(&rows).done().into()
    }
}

fn size_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

fn checksum(head: &[u8], rows: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(head);
    crc.update(rows);
    crc.finalize()
}

/// A row of a chunk, checked.
pub(crate) struct ChunkRow<'a> {
    pub(crate) table: Table,
    pub(crate) key: &'a [u8],
    pub(crate) value: &'a [u8],
    pub(crate) stored: Stored,
}

/// A chunk, checked: whole, of that slot, the `ordinal`th.
pub(crate) struct Chunk<'a> {
    pub(crate) rows: Vec<ChunkRow<'a>>,
    pub(crate) last: bool,
}

/// Reads a chunk that came from a peer or a file.
pub(crate) fn parse(bytes: &[u8], slot: SlotId, ordinal: u32) -> Result<Chunk<'_>, StorageError> {
    let refused = |reason: &str| StorageError::Chunk(reason.into());
    if bytes.len() > CHUNK_SIZE_MAX {
        return Err(refused("too large"));
    }
    let (head, rest) = bytes.split_at_checked(HEAD_SIZE - 4).ok_or_else(|| refused("too short"))?;
    let mut body = Cursor::new(rest);
    let crc = body.u32().ok_or_else(|| refused("too short"))?;
    let mut rows = Cursor::new(body.rest());
    if checksum(head, rows.peek()) != crc {
        return Err(refused("the checksum is wrong"));
    }
    let mut head = Cursor::new(head);
    if head.take(4) != Some(MAGIC) || head.version(VERSION).is_none() {
        return Err(refused("of an unknown format"));
    }
    let last = match head.u8() {
        Some(0) => false,
        Some(1) => true,
        _ => return Err(refused("of an unknown format")),
    };
    if head.slot() != Some(slot) {
        return Err(refused("of another slot"));
    }
    if head.u32() != Some(ordinal) {
        return Err(refused("not the next one"));
    }
    let mut parsed = Vec::new();
    while !rows.peek().is_empty() {
        let row = parse_row(&mut rows).ok_or_else(|| refused("a row is cut short"))?;
        let (table, key, value) = row;
        let (row_slot, stored) = keyspace::decode(table, key, value)?;
        if row_slot != slot {
            return Err(refused("a row is of another slot"));
        }
        parsed.push(ChunkRow { table, key, value, stored });
    }
    Ok(Chunk { rows: parsed, last })
}

fn parse_row<'a>(rows: &mut Cursor<'a>) -> Option<(Table, &'a [u8], &'a [u8])> {
    let table = Table::of_code(rows.u8()?)?;
    let key_size = usize::try_from(rows.u32()?).ok()?;
    let value_size = usize::try_from(rows.u32()?).ok()?;
    Some((table, rows.take(key_size)?, rows.take(value_size)?))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
    use proptest::prelude::*;

    use super::*;
    use crate::testing::any_row;

    const SLOT: SlotId = SlotId(5);

    proptest! {
        #[test]
        fn rows_come_back_from_their_chunks(rows in prop::collection::vec(any_row(), 0..40)) {
            let mut writer = ChunkWriter::new(SLOT);
            let mut chunks = Vec::new();
            let mut written = Vec::new();
            for row in &rows {
                let raw = keyspace::encode(SLOT, row).unwrap();
                if let Some(value) = raw.value {
                    chunks.extend(writer.add(raw.table, &raw.key, &value));
                    written.push((raw.table, raw.key, value));
                }
            }
            chunks.push(writer.finish());
            let mut read = Vec::new();
            for (ordinal, chunk) in (0..).zip(&chunks) {
                let parsed = parse(chunk, SLOT, ordinal).unwrap();
                prop_assert_eq!(parsed.last, usize::try_from(ordinal).unwrap() + 1 == chunks.len());
                let rows = parsed.rows.iter();
                read.extend(rows.map(|row| (row.table, row.key.to_vec(), row.value.to_vec())));
                prop_assert!(parse(chunk, SlotId(6), ordinal).is_err());
                prop_assert!(parse(chunk, SLOT, ordinal + 1).is_err());
            }
            prop_assert_eq!(read, written);
        }

        #[test]
        fn a_changed_bit_is_noticed(row in any_row(), place: prop::sample::Index, bit in 0..8) {
            let mut writer = ChunkWriter::new(SLOT);
            let raw = keyspace::encode(SLOT, &row).unwrap();
            writer.add(raw.table, &raw.key, &raw.value.unwrap_or_default());
            let mut bytes = writer.finish().to_vec();
            let place = place.index(bytes.len());
            bytes[place] ^= 1u8 << bit;
            prop_assert!(parse(&bytes, SLOT, 0).is_err());
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes: Vec<u8>) {
            prop_assert!(parse(&bytes, SLOT, 0).is_err());
        }
    }
}
