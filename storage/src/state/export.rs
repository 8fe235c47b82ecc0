//! Hands a slot out in chunks, from a thread of its own: reading a large slot must hold up
//! neither the lane nor other reads.

use std::thread::Builder;

use bytes::Bytes;
use jindou_core::id::SlotId;

use super::{SnapshotReader, chunk::ChunkWriter, hash::StateHash, read::Reader};
use crate::{
    completion::{Done, Outcome},
    error::StorageError,
};

/// Begins an export. The thread ends with the reader that is given out.
pub(super) fn snapshot(reader: Reader, slot: SlotId) -> Result<SnapshotReader, StorageError> {
    let (applied, membership) = reader.applied(slot)?;
    let (orders, inbox) = flume::unbounded::<Done>();
    Builder::new()
        .name("snapshot".into())
        .spawn(move || export(&reader, slot, &inbox))
        .map_err(|e| StorageError::Read(e.to_string().into()))?;
    let next = move |done: Done| {
        if let Err(flume::SendError(done)) = orders.send(done) {
            done.answer(Err(StorageError::Closed));
        }
    };
    Ok(SnapshotReader::new(slot, applied, membership, Box::new(next)))
}

fn export(reader: &Reader, slot: SlotId, orders: &flume::Receiver<Done>) {
    let mut chunks = Chunks { rows: reader.rows(slot), writer: Some(ChunkWriter::new(slot)) };
    for done in orders {
        let chunk = chunks.next();
        let failed = chunk.is_err();
        done.answer(chunk.map(Outcome::Chunk));
        if failed {
            break;
        }
    }
}

struct Chunks<I> {
    rows: I,
    /// `None` after the last chunk.
    writer: Option<ChunkWriter>,
}

impl<I, K, V> Chunks<I>
where
    I: Iterator<Item = Result<(crate::keyspace::Table, K, V), StorageError>>,
    K: AsRef<[u8]>,
    V: AsRef<[u8]>,
{
    fn next(&mut self) -> Result<Option<Bytes>, StorageError> {
        let Some(writer) = &mut self.writer else {
            return Ok(None);
        };
        for row in &mut self.rows {
            let (table, key, value) = row?;
            if let Some(chunk) = writer.add(table, key.as_ref(), value.as_ref()) {
                return Ok(Some(chunk));
            }
        }
        Ok(self.writer.take().map(ChunkWriter::finish))
    }
}

/// Hashes a slot, on a thread of its own.
pub(super) fn hash(reader: Reader, slot: SlotId, done: Done) {
    let thread = Builder::new().name("hash".into());
    let mut done = Some(done);
    let (sender, receiver) = flume::bounded(1);
    let started = thread.spawn(move || {
        let result = hash_rows(&reader, slot).map(Outcome::Hash);
        if let Ok(done) = receiver.recv() {
            Done::answer(done, result);
        }
    });
    match (started, done.take()) {
        (Ok(_), Some(done)) => {
            let _ = sender.send(done);
        }
        (Err(e), Some(done)) => done.answer(Err(StorageError::Read(e.to_string().into()))),
        (_, None) => {}
    }
}

fn hash_rows(reader: &Reader, slot: SlotId) -> Result<u128, StorageError> {
    let mut hash = StateHash::default();
    for row in reader.rows(slot) {
        let (table, key, value) = row?;
        hash.add(table, &key, &value);
    }
    Ok(hash.finish())
}
