//! Replaces a slot's rows by a received snapshot.
//!
//! ```text
//! chunks ──► install/<slot>   fsync   ──► mark row, synced ──► old rows go, new rows come
//!            (old rows stay)                                   ──► position, mark gone, synced
//!                                                              ──► file gone
//! ```
//!
//! A crash before the mark leaves the old rows, and the file is thrown away at the next start. A
//! crash after it leaves a mixture that nobody sees: the next start finds the mark and does the
//! replacement again from the file.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read as _, Write as _},
    path::{Path, PathBuf},
};

use fjall::{OwnedWriteBatch, Readable as _};
use jindou_core::{
    id::{LogId, SlotId},
    row::Row,
};

use super::{
    chunk::{self, CHUNK_SIZE_MAX},
    store::{StateStore, read_error},
};
use crate::{
    dir::sync_dir,
    error::{OpenError, StorageError},
    keyspace::{Stored, Table, install, lookup::Lookups},
};

/// Rows that go are removed in batches of so many.
const REMOVE_COUNT: usize = 10_000;

/// Why an install ended.
pub(super) enum InstallError {
    /// The old rows are still there.
    GivenUp(StorageError),
    /// The database is done for.
    Fatal(String),
}

/// Snapshots that are being received.
pub(super) struct Installs {
    path: PathBuf,
    open: BTreeMap<SlotId, Receiving>,
}

struct Receiving {
    file: BufWriter<File>,
    chunk_count: u32,
    complete: bool,
}

impl Installs {
    /// Finishes what a crash interrupted, and clears away what never came to its end.
    pub(super) fn open(path: &Path, store: &StateStore) -> Result<Self, OpenError> {
        let at = |path: &Path| {
            let path = path.to_owned();
            |source| OpenError::Io { path, source }
        };
        fs::create_dir_all(path).map_err(at(path))?;
        let installs = Self { path: path.to_owned(), open: BTreeMap::new() };
        let marks: Vec<_> = store.snapshot().iter(&store.tables().install).collect();
        for mark in marks {
            let (key, value) = mark.into_inner().map_err(|e| OpenError::Storage(read_error(e)))?;
            let slot = install::parse_key(&key).map_err(OpenError::Storage)?;
            let chunk_count = install::decode(&value).map_err(OpenError::Storage)?;
            tracing::warn!("{slot}: finishing the install of a snapshot");
            match installs.replace(slot, chunk_count, store) {
                Ok(_) => {}
                Err(InstallError::GivenUp(e)) => return Err(OpenError::Storage(e)),
                Err(InstallError::Fatal(reason)) => {
                    return Err(OpenError::Database { path: installs.file_of(slot), reason });
                }
            }
        }
        for entry in fs::read_dir(path).map_err(at(path))? {
            let file = entry.map_err(at(path))?.path();
            fs::remove_file(&file).map_err(at(&file))?;
        }
        Ok(installs)
    }

    fn file_of(&self, slot: SlotId) -> PathBuf {
        self.path.join(slot.0.to_string())
    }

    pub(super) fn begin(&mut self, slot: SlotId) -> Result<(), StorageError> {
        self.open.remove(&slot);
        let file = File::create(self.file_of(slot)).map_err(file_error)?;
        let receiving = Receiving { file: BufWriter::new(file), chunk_count: 0, complete: false };
        self.open.insert(slot, receiving);
        Ok(())
    }

    /// Takes the next chunk. An error gives the install up.
    pub(super) fn chunk(&mut self, slot: SlotId, bytes: &[u8]) -> Result<(), StorageError> {
        let result = self.take(slot, bytes);
        if result.is_err() {
            self.give_up(slot);
        }
        result
    }

    fn take(&mut self, slot: SlotId, bytes: &[u8]) -> Result<(), StorageError> {
        let receiving = self.open.get_mut(&slot).ok_or_else(not_begun)?;
        if receiving.complete {
            return Err(StorageError::Chunk("after the last one".into()));
        }
        let parsed = chunk::parse(bytes, slot, receiving.chunk_count)?;
        let size =
            u32::try_from(bytes.len()).map_err(|_| StorageError::Chunk("too large".into()))?;
        receiving
            .file
            .write_all(&size.to_be_bytes())
            .and_then(|()| receiving.file.write_all(bytes))
            .map_err(file_error)?;
        receiving.chunk_count += 1;
        receiving.complete = parsed.last;
        Ok(())
    }

    fn give_up(&mut self, slot: SlotId) {
        if self.open.remove(&slot).is_some() {
            let _ = fs::remove_file(self.file_of(slot));
        }
    }

    /// All chunks are there: replaces the slot's rows, durably. Gives the new position.
    pub(super) fn end(
        &mut self,
        slot: SlotId,
        store: &StateStore,
    ) -> Result<Option<LogId>, InstallError> {
        let result = self.finish_file(slot);
        self.open.remove(&slot);
        match result {
            Ok(chunk_count) => self.replace(slot, chunk_count, store),
            Err(e) => {
                let _ = fs::remove_file(self.file_of(slot));
                Err(InstallError::GivenUp(e))
            }
        }
    }

    fn finish_file(&mut self, slot: SlotId) -> Result<u32, StorageError> {
        let receiving = self.open.get_mut(&slot).ok_or_else(not_begun)?;
        if !receiving.complete {
            return Err(StorageError::Chunk("the last one is missing".into()));
        }
        receiving.file.flush().map_err(file_error)?;
        receiving.file.get_ref().sync_all().map_err(file_error)?;
        sync_dir(&self.path).map_err(file_error)?;
        Ok(receiving.chunk_count)
    }

    fn replace(
        &self,
        slot: SlotId,
        chunk_count: u32,
        store: &StateStore,
    ) -> Result<Option<LogId>, InstallError> {
        let marks = &store.tables().install;
        let mut batch = store.batch();
        batch.insert(marks, install::key(slot), install::encode(chunk_count));
        commit(store, batch, 64)?;
        store.sync().map_err(fatal)?;
        // From here on the old rows are gone, and a failure is final until the next start.
        remove_rows(slot, store)?;
        let mut last = store.batch();
        let mut applied = None;
        let file = File::open(self.file_of(slot)).map_err(fatal)?;
        let mut file = BufReader::new(file);
        for ordinal in 0..chunk_count {
            let bytes = read_chunk(&mut file).map_err(fatal)?;
            let parsed = chunk::parse(&bytes, slot, ordinal).map_err(fatal)?;
            let mut batch = store.batch();
            for row in parsed.rows {
                let keyspace = store.tables().get(row.table);
                if let Stored::Applied(position) = row.stored {
                    applied = Some(position);
                }
                if row.table == Table::Applied {
                    last.insert(keyspace, row.key, row.value);
                } else {
                    batch.insert(keyspace, row.key, row.value);
                    if let Stored::Row(Row::Message(message)) = &row.stored {
                        store.tables().add_lookups(&mut batch, Lookups::of(slot, message));
                    }
                }
            }
            commit(store, batch, bytes.len() as u64)?;
        }
        last.remove(marks, install::key(slot));
        commit(store, last, 256)?;
        store.sync().map_err(fatal)?;
        if let Err(e) = fs::remove_file(self.file_of(slot)) {
            tracing::warn!("{slot}: removing an installed snapshot: {e}");
        }
        Ok(applied)
    }
}

fn remove_rows(slot: SlotId, store: &StateStore) -> Result<(), InstallError> {
    let snapshot = store.snapshot();
    let tables = store.tables();
    let lookups = [&tables.ids, &tables.numbers];
    for keyspace in Table::ALL.map(|table| tables.get(table)).into_iter().chain(lookups) {
        let mut batch = store.batch();
        for row in snapshot.prefix(keyspace, slot.0.to_be_bytes()) {
            batch.remove(keyspace, row.key().map_err(fatal)?);
            if batch.len() >= REMOVE_COUNT {
                let size = batch.len() as u64 * 64;
                commit(store, batch, size)?;
                batch = store.batch();
            }
        }
        let size = batch.len() as u64 * 64;
        commit(store, batch, size)?;
    }
    Ok(())
}

fn read_chunk(file: &mut impl io::Read) -> io::Result<Vec<u8>> {
    let mut size = [0; 4];
    file.read_exact(&mut size)?;
    let size = u64::from(u32::from_be_bytes(size));
    if size > CHUNK_SIZE_MAX as u64 {
        return Err(io::Error::other("a chunk is too large"));
    }
    let mut bytes = Vec::new();
    file.take(size).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn commit(store: &StateStore, batch: OwnedWriteBatch, size: u64) -> Result<(), InstallError> {
    store.commit_raw(batch, size).map_err(fatal)
}

fn fatal(e: impl ToString) -> InstallError {
    InstallError::Fatal(e.to_string())
}

fn not_begun() -> StorageError {
    StorageError::Chunk("no install of the slot was begun".into())
}

fn file_error(e: io::Error) -> StorageError {
    StorageError::Chunk(format!("writing the snapshot: {e}").into())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::wildcard_enum_match_arm, reason = "tests")]
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::{
        MemoryState, Outcome, StateLane, StateOptions, StateStorage, state::chunk::ChunkWriter,
        wait,
    };

    const SLOT: SlotId = SlotId(2);

    fn at(index: u64) -> LogId {
        LogId { term: 1, node: 1, index }
    }

    /// Rows of a slot that stands at `index`, in chunks of one row.
    fn chunks(index: u64) -> Vec<Bytes> {
        let rows = (0..index).map(|key| Row::ClusterKey {
            key: format!("{index}-{key}"),
            value: Bytes::from_static(b"value"),
        });
        let applied = crate::keyspace::encode_applied(SLOT, at(index));
        let raw = rows.map(|row| crate::keyspace::encode(SLOT, &row).unwrap());
        let mut writer = ChunkWriter::new(SLOT);
        let mut chunks = Vec::new();
        for row in raw.chain([applied]) {
            assert!(writer.add(row.table, &row.key, &row.value.unwrap()).is_none());
            chunks.push(writer.close(false));
        }
        chunks.push(writer.finish());
        chunks
    }

    fn hash(state: &dyn StateStorage) -> u128 {
        match wait(|done| state.hash(SLOT, done)).unwrap() {
            Outcome::Hash(hash) => hash,
            other => panic!("{other:?}"),
        }
    }

    fn installed(state: &dyn StateStorage, index: u64) -> u128 {
        wait(|done| state.install_begin(SLOT, done)).unwrap();
        for chunk in chunks(index) {
            wait(|done| state.install_chunk(SLOT, chunk, done)).unwrap();
        }
        wait(|done| state.install_end(SLOT, done)).unwrap();
        hash(state)
    }

    fn options(path: &Path) -> StateOptions {
        StateOptions::new(path.join("state"), path.join("install"))
    }

    fn lane(path: &Path) -> StateLane {
        let on_fatal: crate::OnFatal = Arc::new(|e| panic!("{e}"));
        StateLane::open(&options(path), on_fatal, Arc::new(|_| {})).unwrap()
    }

    /// Receives a snapshot up to a step of its replacement and stops there, as a crash would.
    fn interrupted(path: &Path, steps: u32) {
        let store = StateStore::open(&options(path)).unwrap();
        let mut installs = Installs::open(&path.join("install"), &store).unwrap();
        installs.begin(SLOT).unwrap();
        for chunk in chunks(7) {
            installs.chunk(SLOT, &chunk).unwrap();
        }
        let chunk_count = installs.finish_file(SLOT).unwrap();
        if steps > 0 {
            let mut batch = store.batch();
            let mark = install::encode(chunk_count);
            batch.insert(&store.tables().install, install::key(SLOT), mark);
            store.commit_raw(batch, 1).unwrap();
        }
        if steps > 1 {
            assert!(remove_rows(SLOT, &store).is_ok());
        }
        if steps > 2 {
            let mut batch = store.batch();
            let row = Row::ClusterKey { key: "7-0".into(), value: Bytes::from_static(b"value") };
            let raw = crate::keyspace::encode(SLOT, &row).unwrap();
            batch.insert(store.tables().get(raw.table), raw.key, raw.value.unwrap());
            store.commit_raw(batch, 1).unwrap();
        }
        store.sync().unwrap();
    }

    #[test]
    fn an_interrupted_install_leaves_the_old_state_or_is_finished() {
        let twin = MemoryState::new();
        let (old, new) = (installed(&twin, 4), installed(&twin, 7));
        assert_ne!(old, new);
        for (steps, expected) in [(0, old), (1, new), (2, new), (3, new)] {
            let dir = tempfile::tempdir().unwrap();
            assert_eq!(installed(&lane(dir.path()), 4), old);
            interrupted(dir.path(), steps);
            assert_eq!(hash(&lane(dir.path())), expected, "after step {steps}");
            assert_eq!(hash(&lane(dir.path())), expected, "and once more");
        }
    }
}
