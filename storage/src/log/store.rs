//! The log database: generations of entries. Used by the lane's thread only.
//!
//! ```text
//!   log-2            log-0              log-1                 log-3
//!   [free]           [oldest, flushed]  [in memory]           [youngest: all writes go here]
//!      ▲                │ everything purged
//!      └─── cleared ────┘
//! ```
//!
//! Entries live for seconds. In one growing keyspace each would be flushed and compacted, and while
//! fjall installs a new table it keeps writers of that keyspace waiting for half a dozen fsyncs:
//! measured 86 ms at p99.9 with 1,024 entries in flight. So the log is a ring of keyspaces. Writes
//! go to the youngest, which is never flushed; when it is full the next one begins. An older one
//! of which everything is purged is cleared, which costs nothing per entry, and used again. Only
//! when purging lags behind are old generations flushed, to bound the memory; and the few entries
//! that keep an old generation alive are carried over to the youngest.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use bytes::Bytes;
use fjall::{
    AbstractTree as _, CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode,
    config::{CompressionPolicy, FilterPolicy},
};

use super::{
    LogOptions, LogState,
    batch::{Batch, ENTRY_OVERHEAD},
    index::{GroupIndex, Segment},
    recover,
    recycler::{Job, Recycler},
};
use crate::{
    error::{OpenError, StorageError},
    journal::{self, Unsynced},
    keyspace::{
        log_entry, log_generation,
        log_meta::{self, What},
    },
};

/// With one worker fjall deadlocks: it is both reader and writer of its bounded channel.
const WORKER_COUNT: usize = 2;
/// Tables that are kept open: there are few, and connections need descriptors, too.
const FILE_COUNT_MAX: usize = 64;
/// Never reached: generations are flushed or cleared long before. Beyond it fjall would flush the
/// youngest one.
const JOURNAL_SIZE_MAX: u64 = 1 << 30;
/// How many keyspaces a new log begins with: making one later holds all writers up.
const KEYSPACE_COUNT_MIN: u64 = 3;
/// With so many keyspaces being cleared, the next one is waited for instead of made.
const CLEARING_COUNT_MAX: usize = 4;
/// A log at rest keeps no more than this in memory.
const REST_SIZE_MAX: u64 = 1 << 20;
/// With more generations than this, what little is needed of one is carried over.
const GENERATION_COUNT_CALM: usize = 3;

pub(super) struct LogStore {
    recycler: Recycler,
    /// By order; the last one is written to.
    generations: BTreeMap<u64, Generation>,
    free: Vec<Keyspace>,
    groups: BTreeMap<u16, GroupIndex>,
    /// The rows that every generation begins with.
    meta: BTreeMap<(u16, What), Vec<u8>>,
    keyspace_count: u64,
    generation_size_max: u64,
    memory_size_max: u64,
    // Last, so that everything else has let go of it.
    database: Database,
}

struct Generation {
    keyspace: Keyspace,
    size: u64,
    entry_count: u64,
    /// What each group has put into it: entries and bytes. Not known of before a restart.
    shares: BTreeMap<u16, (u64, u64)>,
    /// Not flushed, nor asked to be.
    in_memory: bool,
}

impl Generation {
    /// About how many bytes a group's entries are.
    fn size_of(&self, group: u16, segment: &Segment) -> u64 {
        let (count, size) = match self.shares.get(&group) {
            Some((count, size)) => (*count, *size),
            None => (self.entry_count, self.size),
        };
        segment.count().saturating_mul(size / count.max(1))
    }
}

impl LogStore {
    pub(super) fn open(options: &LogOptions) -> Result<Self, OpenError> {
        let failed = |e: fjall::Error| OpenError::Database {
            path: options.path.clone(),
            reason: e.to_string(),
        };
        let database = journal::open_or_mend(&options.path, Unsynced::Last, || {
            Database::builder(&options.path)
                .worker_threads(WORKER_COUNT)
                .cache_size(options.cache_size)
                .max_cached_files(Some(FILE_COUNT_MAX))
                .max_journaling_size(JOURNAL_SIZE_MAX)
                .journal_compression(CompressionType::None)
                .manual_journal_persist(true)
                .open()
        })
        .map_err(failed)?;
        let mut store = Self {
            recycler: Recycler::start().map_err(|source| OpenError::Thread { source })?,
            generations: BTreeMap::new(),
            free: Vec::new(),
            groups: BTreeMap::new(),
            meta: BTreeMap::new(),
            keyspace_count: 0,
            generation_size_max: options.generation_size_max,
            memory_size_max: options.memory_size_max,
            database,
        };
        store.find_generations().map_err(OpenError::Storage)?;
        store.recover().map_err(OpenError::Storage)?;
        while store.keyspace_count < KEYSPACE_COUNT_MIN {
            let keyspace = store.make_keyspace().map_err(failed)?;
            store.free.push(keyspace);
        }
        Ok(store)
    }

    fn make_keyspace(&mut self) -> fjall::Result<Keyspace> {
        let name = format!("{}{}", log_generation::NAME_PREFIX, self.keyspace_count);
        self.keyspace_count += 1;
        self.open_keyspace(&name)
    }

    fn open_keyspace(&self, name: &str) -> fjall::Result<Keyspace> {
        // Read by range and short-lived: filters and compression are no use. Rotation is ours.
        self.database.keyspace(name, || {
            KeyspaceCreateOptions::default()
                .manual_journal_persist(true)
                .max_memtable_size(u64::MAX)
                .filter_policy(FilterPolicy::disabled())
                .data_block_compression_policy(CompressionPolicy::disabled())
        })
    }

    /// Sorts the keyspaces that exist into generations and free ones.
    fn find_generations(&mut self) -> Result<(), StorageError> {
        for name in self.database.list_keyspace_names() {
            let number = name
                .strip_prefix(log_generation::NAME_PREFIX)
                .and_then(|number| number.parse::<u64>().ok())
                .ok_or_else(|| StorageError::corrupt(log_generation::NAME, &*name))?;
            self.keyspace_count = self.keyspace_count.max(number + 1);
            let keyspace = self.open_keyspace(&name).map_err(read_error)?;
            let head = keyspace
                .get(log_generation::HEAD_KEY)
                .map_err(read_error)?
                .map(|value| log_generation::decode(&value))
                .transpose()?;
            let Some(order) = head else {
                self.free.push(keyspace);
                continue;
            };
            let in_memory = keyspace.tree.active_memtable().size();
            let generation = Generation {
                size: in_memory + keyspace.disk_space(),
                entry_count: 0,
                shares: BTreeMap::new(),
                in_memory: in_memory > 0,
                keyspace,
            };
            self.generations.insert(order, generation);
        }
        Ok(())
    }

    /// Reads meta rows and index from the generations.
    fn recover(&mut self) -> Result<(), StorageError> {
        if let Some((_, youngest)) = self.generations.last_key_value() {
            for row in youngest.keyspace.range(log_meta::ROWS) {
                let (key, value) = row.into_inner().map_err(read_error)?;
                let (group, what) = log_meta::parse_key(&key)?;
                if what == What::Purged {
                    let (index, _) = log_meta::decode_purged(&value)?;
                    self.groups.entry(group).or_default().purge(index);
                }
                self.meta.insert((group, what), value.to_vec());
            }
        }
        for (order, generation) in &mut self.generations {
            generation.entry_count =
                recover::generation(&generation.keyspace, *order, &mut self.groups)?;
        }
        Ok(())
    }

    /// A batch for the youngest generation, which begins with it if the last one is full.
    pub(super) fn batch(&mut self) -> fjall::Result<Batch> {
        while let Some(keyspace) = self.recycler.take()? {
            self.free.push(keyspace);
        }
        let full = self
            .generations
            .last_key_value()
            .is_none_or(|(_, head)| head.size >= self.generation_size_max);
        if full {
            return self.begin_generation();
        }
        match self.generations.last_key_value() {
            Some((order, head)) => Ok(self.empty_batch(head.keyspace.clone(), *order)),
            None => self.begin_generation(),
        }
    }

    fn empty_batch(&self, head: Keyspace, order: u64) -> Batch {
        Batch::new(self.database.batch(), head, order)
    }

    fn begin_generation(&mut self) -> fjall::Result<Batch> {
        self.clear_dead();
        let order = self.generations.last_key_value().map_or(0, |(order, _)| order + 1);
        if self.free.is_empty() && self.recycler.pending() >= CLEARING_COUNT_MAX {
            self.free.extend(self.recycler.wait()?);
        }
        let head = match self.free.pop() {
            Some(keyspace) => keyspace,
            None => self.make_keyspace()?,
        };
        let mut batch = self.empty_batch(head.clone(), order);
        let value = log_generation::encode(order);
        batch.rows.insert(&head, log_generation::HEAD_KEY, value);
        batch.meta = self.meta.clone();
        self.carry_over(&mut batch)?;
        self.bound_memory();
        let generation = Generation {
            keyspace: head,
            size: 0,
            entry_count: 0,
            shares: BTreeMap::new(),
            in_memory: true,
        };
        self.generations.insert(order, generation);
        Ok(batch)
    }

    /// Gives generations of which nothing is needed to the recycler; never the youngest.
    fn clear_dead(&mut self) {
        let youngest = self.generations.last_key_value().map(|(order, _)| *order);
        let needed: BTreeSet<u64> = self
            .groups
            .values()
            .flat_map(GroupIndex::segments)
            .map(|segment| segment.generation)
            .chain(youngest)
            .collect();
        let dead = self.generations.extract_if(.., |order, _| !needed.contains(order));
        for (_, generation) in dead {
            self.recycler.give(Job::Clear(generation.keyspace));
        }
    }

    /// Copies what an old generation still holds, if that is little, so that it can be cleared.
    /// Without this a group with little traffic and a long tail would keep, with a few entries in
    /// each, every generation that a busy group fills.
    fn carry_over(&self, batch: &mut Batch) -> fjall::Result<()> {
        if self.generations.len() <= GENERATION_COUNT_CALM {
            return Ok(());
        }
        let mut live: BTreeMap<u64, u64> = BTreeMap::new();
        for (group, index) in &self.groups {
            for segment in index.segments() {
                let generation = self.generations.get(&segment.generation);
                let size = generation.map_or(0, |generation| generation.size_of(*group, segment));
                *live.entry(segment.generation).or_default() += size;
            }
        }
        let sparse = live.into_iter().filter_map(|(order, live)| {
            let generation = self.generations.get(&order)?;
            (live <= self.generation_size_max / 4).then_some((live, order, generation))
        });
        let Some((_, order, generation)) = sparse.min_by_key(|(live, ..)| *live) else {
            return Ok(());
        };
        for (group, index) in &self.groups {
            for segment in index.segments().iter().filter(|s| s.generation == order) {
                batch.carry(*group, *segment, &generation.keyspace)?;
            }
        }
        Ok(())
    }

    fn memory_size(&self) -> u64 {
        let in_memory = self.generations.values().filter(|generation| generation.in_memory);
        in_memory.map(|generation| generation.size).sum()
    }

    /// Whether [`Self::rest`] would free memory.
    pub(super) fn is_restless(&self) -> bool {
        self.memory_size() > REST_SIZE_MAX
    }

    /// Nobody writes: begins a generation though the youngest is not full, so that what is in
    /// memory can be flushed. The batch begins it.
    pub(super) fn rest(&mut self) -> fjall::Result<Batch> {
        self.flush_beyond(0);
        self.begin_generation()
    }

    /// Flushes the oldest generations while more is in memory than may be.
    fn bound_memory(&mut self) {
        self.flush_beyond(self.memory_size_max.saturating_sub(self.generation_size_max));
    }

    /// Flushes the oldest generations while more than `size_max` is in memory.
    fn flush_beyond(&mut self, size_max: u64) {
        let mut size = self.memory_size();
        for generation in self.generations.values_mut() {
            if size <= size_max {
                break;
            }
            if generation.in_memory {
                size = size.saturating_sub(generation.size);
                generation.in_memory = false;
                self.recycler.give(Job::Flush(generation.keyspace.clone()));
            }
        }
    }

    /// Moves the purge mark of a group; never back.
    pub(super) fn purge(&self, group: u16, index: u64, mark: &[u8], batch: &mut Batch) {
        let stored = self.groups.get(&group).and_then(GroupIndex::mark);
        let known = batch.purged.get(&group).copied().or(stored);
        if known.is_none_or(|known| known < index) {
            batch.purged.insert(group, index);
            let value = log_meta::encode_purged(index, mark);
            batch.meta.insert((group, What::Purged), value);
        }
    }

    /// Removes what is committed of the group after `index`.
    pub(super) fn truncate(&self, group: u16, index: Option<u64>, batch: &mut Batch) {
        batch.truncated.insert(group, index);
        let Some(known) = self.groups.get(&group) else {
            return;
        };
        let first = match index.map(|index| index.checked_add(1)) {
            Some(Some(first)) => first,
            Some(None) => return,
            None => 0,
        };
        for part in known.parts(&(first..u64::MAX)) {
            if let Some(generation) = self.generations.get(&part.generation) {
                for index in part.first..=part.last {
                    let key = log_entry::key(group, index);
                    batch.rows.remove(&generation.keyspace, key.as_slice());
                    batch.size += ENTRY_OVERHEAD;
                }
            }
        }
    }

    pub(super) fn read(
        &self,
        group: u16,
        range: &Range<u64>,
        size_max: usize,
    ) -> Result<Vec<(u64, Bytes)>, StorageError> {
        let mut entries = Vec::new();
        let mut size = 0usize;
        let parts = self.groups.get(&group).map(|index| index.parts(range));
        for part in parts.unwrap_or_default() {
            let Some(generation) = self.generations.get(&part.generation) else {
                continue;
            };
            for row in generation.keyspace.range(key_range(group, &part)) {
                let (key, value) = row.into_inner().map_err(read_error)?;
                size = size.saturating_add(value.len()).max(1);
                if !entries.is_empty() && size > size_max {
                    return Ok(entries);
                }
                let (_, index) = log_entry::parse_key(&key)?;
                entries.push((index, Bytes::copy_from_slice(&value)));
            }
        }
        Ok(entries)
    }

    pub(super) fn load(&self, group: u16, tail_size_max: usize) -> Result<LogState, StorageError> {
        let meta = |what| self.meta.get(&(group, what));
        let bytes = |what| meta(what).map(|value| log_meta::decode(value)).transpose();
        let mut state = LogState {
            vote: bytes(What::Vote)?,
            committed: bytes(What::Committed)?,
            purged: meta(What::Purged).map(|value| log_meta::decode_purged(value)).transpose()?,
            ..LogState::default()
        };
        if let Some(index) = self.groups.get(&group) {
            state.first = index.first();
            state.last = index.last();
            state.tail = self.tail(group, index, tail_size_max)?;
        }
        Ok(state)
    }

    fn tail(
        &self,
        group: u16,
        index: &GroupIndex,
        size_max: usize,
    ) -> Result<Vec<(u64, Bytes)>, StorageError> {
        let mut tail = Vec::new();
        let mut size = 0usize;
        let mut expected = index.last();
        'all: for part in index.segments().iter().rev() {
            let Some(generation) = self.generations.get(&part.generation) else {
                continue;
            };
            for row in generation.keyspace.range(key_range(group, part)).rev() {
                let (key, value) = row.into_inner().map_err(read_error)?;
                size = size.saturating_add(value.len()).max(1);
                if !tail.is_empty() && size > size_max {
                    break 'all;
                }
                let (_, found) = log_entry::parse_key(&key)?;
                if expected != Some(found) {
                    return Err(StorageError::corrupt(
                        log_entry::NAME,
                        format!("group {group}: {found} found where {expected:?} belongs"),
                    ));
                }
                expected = found.checked_sub(1);
                tail.push((found, Bytes::copy_from_slice(&value)));
            }
        }
        tail.reverse();
        Ok(tail)
    }

    /// Makes the batch durable. An error is final.
    pub(super) fn commit(&mut self, batch: Batch) -> fjall::Result<()> {
        let mut rows = batch.rows;
        let mut size = batch.size;
        for ((group, what), value) in batch.meta {
            size += value.len() as u64 + ENTRY_OVERHEAD;
            let key = log_meta::key(group, what);
            rows.insert(&batch.head, key.as_slice(), value.as_slice());
            self.meta.insert((group, what), value);
        }
        if rows.is_empty() {
            return Ok(());
        }
        rows.durability(Some(PersistMode::SyncData)).commit()?;
        if let Some(head) = self.generations.get_mut(&batch.order) {
            head.size += size;
            for (group, (count, size)) in batch.shares {
                let share = head.shares.entry(group).or_default();
                *share = (share.0 + count, share.1 + size);
                head.entry_count += count;
            }
        }
        let carried = !batch.carried.is_empty();
        for (group, segment) in batch.carried {
            let known = self.groups.entry(group).or_default();
            known.insert(segment.first, segment.last, batch.order);
        }
        for (group, index) in batch.truncated {
            self.groups.entry(group).or_default().truncate(index);
        }
        for (group, index) in batch.appended {
            let known = self.groups.entry(group).or_default();
            known.add(index, index, batch.order);
        }
        // Only now is the mark durable: what it covers must not go on the word of a mark that a
        // power cut takes back.
        let purged = !batch.purged.is_empty();
        for (group, index) in batch.purged {
            self.groups.entry(group).or_default().purge(index);
        }
        if purged || carried {
            self.clear_dead();
        }
        Ok(())
    }
}

/// The keys of consecutive entries.
fn key_range(group: u16, part: &Segment) -> std::ops::RangeInclusive<log_entry::Key> {
    log_entry::key(group, part.first)..=log_entry::key(group, part.last)
}

pub(super) fn read_error(e: fjall::Error) -> StorageError {
    StorageError::Read(e.to_string().into())
}
