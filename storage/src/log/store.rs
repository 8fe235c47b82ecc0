//! The log database: which rows an operation writes and reads. Used by the lane's thread only.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{Bound, Range},
    sync::Arc,
};

use bytes::Bytes;
use fjall::{
    Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode,
    config::{CompressionPolicy, FilterPolicy},
};

use super::{LogOptions, LogState, lane::Touch, purge::PurgeMarks};
use crate::{
    error::{OpenError, StorageError},
    janitor::{Janitor, Watched},
    keyspace::{
        log_entry,
        log_meta::{self, What},
    },
};

/// With one worker fjall deadlocks: it is both reader and writer of its bounded channel.
const WORKER_COUNT: usize = 2;
/// Beyond this fjall seals memtables by itself; the janitor is there before.
const JOURNAL_SIZE_MAX: u64 = 512 << 20;

pub(super) struct LogStore {
    // Ends before the database is closed.
    janitor: Janitor,
    entries: Keyspace,
    meta: Keyspace,
    marks: PurgeMarks,
    database: Database,
}

/// Writes that are committed together.
pub(super) struct Batch {
    rows: OwnedWriteBatch,
    entries: Keyspace,
    size: u64,
    /// One row per key: within a batch fjall promises no order.
    meta: BTreeMap<(u16, What), Vec<u8>>,
    purged: BTreeMap<u16, u64>,
    appended: BTreeSet<u16>,
    truncated: BTreeSet<u16>,
}

impl Batch {
    /// Whether the request may become part of this batch.
    pub(super) fn admits(&self, touch: &Touch) -> bool {
        match touch {
            Touch::Nothing => true,
            Touch::Append(group) => !self.truncated.contains(group),
            // A read would not see purge marks, votes and entries that are in here.
            Touch::Look(group) => {
                !self.appended.contains(group)
                    && !self.truncated.contains(group)
                    && !self.purged.contains_key(group)
                    && !self.meta.contains_key(&(*group, What::Vote))
            }
        }
    }

    pub(super) fn append(&mut self, group: u16, index: u64, entry: &Bytes) {
        self.size += entry.len() as u64 + 64;
        self.appended.insert(group);
        let key = log_entry::key(group, index);
        self.rows.insert(&self.entries, key.as_slice(), &**entry);
    }

    pub(super) fn vote(&mut self, group: u16, vote: &[u8]) {
        self.meta
            .insert((group, What::Vote), log_meta::encode(vote));
    }

    pub(super) fn committed(&mut self, group: u16, committed: &[u8]) {
        let value = log_meta::encode(committed);
        self.meta.insert((group, What::Committed), value);
    }

    pub(super) fn purge(&mut self, group: u16, index: u64, mark: &[u8]) {
        if self.purged.get(&group).is_none_or(|old| *old < index) {
            self.purged.insert(group, index);
            let value = log_meta::encode_purged(index, mark);
            self.meta.insert((group, What::Purged), value);
        }
    }
}

impl LogStore {
    pub(super) fn open(options: &LogOptions) -> Result<Self, OpenError> {
        let failed = |e: fjall::Error| OpenError::Database {
            path: options.path.clone(),
            reason: e.to_string(),
        };
        let marks = PurgeMarks::default();
        let filter = marks.clone();
        let database = Database::builder(&options.path)
            .worker_threads(WORKER_COUNT)
            .cache_size(options.cache_size)
            .max_journaling_size(JOURNAL_SIZE_MAX)
            .manual_journal_persist(true)
            .with_compaction_filter_factories(Arc::new(move |name| {
                (name == log_entry::NAME).then(|| Arc::new(filter.clone()) as _)
            }))
            .open()
            .map_err(failed)?;
        // Entries are read by range and live for seconds: filters and compression are no use.
        let create = || {
            KeyspaceCreateOptions::default()
                .manual_journal_persist(true)
                .max_memtable_size(u64::MAX)
                .filter_policy(FilterPolicy::disabled())
                .data_block_compression_policy(CompressionPolicy::disabled())
        };
        let entries = database.keyspace(log_entry::NAME, create).map_err(failed)?;
        let meta = database.keyspace(log_meta::NAME, create).map_err(failed)?;
        let watched = [&entries, &meta].map(|keyspace| Watched {
            keyspace: keyspace.clone(),
            memtable_size_max: options.memtable_size_max,
        });
        let janitor = Janitor::start("log", database.clone(), watched.into())
            .map_err(|source| OpenError::Thread { source })?;
        let store = Self {
            janitor,
            entries,
            meta,
            marks,
            database,
        };
        store.recover_marks().map_err(OpenError::Storage)?;
        Ok(store)
    }

    fn recover_marks(&self) -> Result<(), StorageError> {
        for row in self.meta.iter() {
            let (key, value) = row.into_inner().map_err(read_error)?;
            let (group, what) = log_meta::parse_key(&key)?;
            if what == What::Purged {
                self.marks.raise(group, log_meta::decode_purged(&value)?.0);
            }
        }
        Ok(())
    }

    pub(super) fn batch(&self) -> Batch {
        Batch {
            rows: self.database.batch(),
            entries: self.entries.clone(),
            size: 0,
            meta: BTreeMap::new(),
            purged: BTreeMap::new(),
            appended: BTreeSet::new(),
            truncated: BTreeSet::new(),
        }
    }

    /// Removes what is committed of the group after `index`.
    pub(super) fn truncate(
        &self,
        group: u16,
        index: Option<u64>,
        batch: &mut Batch,
    ) -> Result<(), StorageError> {
        batch.truncated.insert(group);
        let Some(first) = index.map_or(Some(0), |index| index.checked_add(1)) else {
            return Ok(());
        };
        let first = first.max(self.first_kept(group));
        for row in self.entries.range(range(group, first..)) {
            batch
                .rows
                .remove(&self.entries, row.key().map_err(read_error)?);
            batch.size += 32;
        }
        Ok(())
    }

    /// The lowest index that is not purged.
    fn first_kept(&self, group: u16) -> u64 {
        self.marks
            .get(group)
            .map_or(0, |mark| mark.saturating_add(1))
    }

    pub(super) fn read(
        &self,
        group: u16,
        indexes: Range<u64>,
        size_max: usize,
    ) -> Result<Vec<(u64, Bytes)>, StorageError> {
        let first = indexes.start.max(self.first_kept(group));
        let mut entries = Vec::new();
        if first >= indexes.end {
            return Ok(entries);
        }
        let mut size = 0usize;
        for row in self.entries.range(range(group, first..indexes.end)) {
            let (key, value) = row.into_inner().map_err(read_error)?;
            size = size.saturating_add(value.len()).max(1);
            if !entries.is_empty() && size > size_max {
                break;
            }
            let (_, index) = log_entry::parse_key(&key)?;
            entries.push((index, Bytes::copy_from_slice(&value)));
        }
        Ok(entries)
    }

    pub(super) fn load(&self, group: u16, tail_size_max: usize) -> Result<LogState, StorageError> {
        let meta = |what| {
            self.meta
                .get(log_meta::key(group, what))
                .map_err(read_error)
        };
        let bytes = |what| {
            meta(what)?
                .map(|value| log_meta::decode(&value))
                .transpose()
        };
        let purged = meta(What::Purged)?
            .map(|value| log_meta::decode_purged(&value))
            .transpose()?;
        let mut state = LogState {
            vote: bytes(What::Vote)?,
            committed: bytes(What::Committed)?,
            purged,
            ..LogState::default()
        };
        let kept = || self.entries.range(range(group, self.first_kept(group)..));
        if let Some(row) = kept().next() {
            let key = row.key().map_err(read_error)?;
            state.first = Some(log_entry::parse_key(&key)?.1);
        }
        let mut size = 0usize;
        for row in kept().rev() {
            let (key, value) = row.into_inner().map_err(read_error)?;
            let (_, index) = log_entry::parse_key(&key)?;
            state.last = state.last.or(Some(index));
            size = size.saturating_add(value.len()).max(1);
            if !state.tail.is_empty() && size > tail_size_max {
                break;
            }
            if let Some((above, _)) = state.tail.last()
                && index.checked_add(1) != Some(*above)
            {
                return Err(StorageError::corrupt(
                    log_entry::NAME,
                    format!("group {group} has no entry between {index} and {above}"),
                ));
            }
            state.tail.push((index, Bytes::copy_from_slice(&value)));
        }
        state.tail.reverse();
        Ok(state)
    }

    /// Makes the batch durable. An error is final.
    pub(super) fn commit(&self, batch: Batch) -> fjall::Result<()> {
        let mut rows = batch.rows;
        let mut size = batch.size;
        for ((group, what), value) in batch.meta {
            size += value.len() as u64 + 64;
            rows.insert(&self.meta, log_meta::key(group, what).as_slice(), value);
        }
        if rows.is_empty() {
            return Ok(());
        }
        rows.durability(Some(PersistMode::SyncData)).commit()?;
        for (group, index) in batch.purged {
            self.marks.raise(group, index);
        }
        self.janitor.wrote(size);
        Ok(())
    }
}

/// The keys of a group's entries, from an index on or up to another.
fn range(
    group: u16,
    indexes: impl std::ops::RangeBounds<u64>,
) -> (Bound<[u8; 10]>, Bound<[u8; 10]>) {
    let key = |index: &u64| log_entry::key(group, *index);
    let first = match indexes.start_bound() {
        Bound::Unbounded => Bound::Included(key(&0)),
        bound => bound.map(key),
    };
    let last = match indexes.end_bound() {
        Bound::Unbounded => Bound::Included(key(&u64::MAX)),
        bound => bound.map(key),
    };
    (first, last)
}

fn read_error(e: fjall::Error) -> StorageError {
    StorageError::Read(e.to_string().into())
}
