//! The state database: its keyspaces, and how a batch of rows is written.

use std::collections::BTreeMap;

use fjall::{
    CompressionType, Database, Keyspace, KeyspaceCreateOptions, KvSeparationOptions, PersistMode,
    Readable as _, Snapshot,
    config::{BlockSizePolicy, FilterPolicy},
};
use jindou_core::{
    id::{LogId, SlotId},
    row::{Persist, Row},
};

use super::StateOptions;
use crate::{
    error::{OpenError, StorageError},
    janitor::{Janitor, Watched},
    journal::{self, Unsynced},
    keyspace::{self, RawRow, Stored, Table, install, lookup, lookup::Lookups, message},
};

/// With one worker fjall deadlocks: it is both reader and writer of its bounded channel.
const WORKER_COUNT: usize = 2;
/// Tables and blob files that are kept open.
const FILE_COUNT_MAX: usize = 512;
/// Beyond this fjall seals memtables by itself; the janitor is there before.
const JOURNAL_SIZE_MAX: u64 = 512 << 20;

/// Handles of the keyspaces; cheap to clone.
#[derive(Clone)]
pub(super) struct Tables {
    tables: [Keyspace; Table::ALL.len()],
    pub(super) install: Keyspace,
    pub(super) ids: Keyspace,
    pub(super) numbers: Keyspace,
}

impl Tables {
    pub(super) fn get(&self, table: Table) -> &Keyspace {
        let [
            message,
            sent,
            channel,
            list,
            device,
            conversation,
            dedupe,
            outbox,
            received,
            cluster,
            applied,
            stream,
            dated,
            notice,
        ] = &self.tables;
        match table {
            Table::Message => message,
            Table::Sent => sent,
            Table::Channel => channel,
            Table::List => list,
            Table::Device => device,
            Table::Conversation => conversation,
            Table::Dedupe => dedupe,
            Table::Outbox => outbox,
            Table::Received => received,
            Table::Cluster => cluster,
            Table::Applied => applied,
            Table::Stream => stream,
            Table::Dated => dated,
            Table::Notice => notice,
        }
    }
}

pub(super) struct StateStore {
    // Ends before the database is closed.
    janitor: Janitor,
    tables: Tables,
    database: Database,
}

/// Rows that are committed together. What is written twice is written once, the later value.
#[derive(Default)]
pub(super) struct Pending {
    messages: Vec<RawRow>,
    lookups: Vec<Lookups>,
    others: BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>,
    applied: BTreeMap<SlotId, LogId>,
    size: u64,
}

impl Pending {
    /// Takes rows and position over.
    pub(super) fn add(&mut self, persist: &Persist) -> Result<(), StorageError> {
        for row in &persist.rows {
            let raw = keyspace::encode(persist.slot, row)?;
            if let Row::Message(message) = row {
                self.lookups.push(Lookups::of(persist.slot, message));
                self.size += LOOKUPS_SIZE;
            }
            self.size += (raw.key.len() + raw.value.as_ref().map_or(0, Vec::len) + 32) as u64;
            if raw.table == Table::Message {
                self.messages.push(raw);
            } else {
                self.others.insert((raw.table, raw.key), raw.value);
            }
        }
        self.applied.insert(persist.slot, persist.applied);
        Ok(())
    }

    pub(super) fn touches(&self, slot: SlotId) -> bool {
        self.applied.contains_key(&slot)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.applied.is_empty()
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn applied(&self) -> &BTreeMap<SlotId, LogId> {
        &self.applied
    }
}

impl StateStore {
    pub(super) fn open(options: &StateOptions) -> Result<Self, OpenError> {
        let failed = |e: fjall::Error| OpenError::Database {
            path: options.path.clone(),
            reason: e.to_string(),
        };
        let database = journal::open_or_mend(&options.path, Unsynced::Tail, || {
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
        let tables = Table::ALL.map(|table| database.keyspace(table.name(), || of(table)));
        let tables: Vec<Keyspace> = tables.into_iter().collect::<Result<_, _>>().map_err(failed)?;
        let Ok(tables) = tables.try_into() else {
            return Err(OpenError::Storage(StorageError::Closed));
        };
        let tables = Tables {
            tables,
            install: database.keyspace(install::NAME, plain).map_err(failed)?,
            ids: database.keyspace(lookup::ID_NAME, plain).map_err(failed)?,
            numbers: database.keyspace(lookup::NUMBER_NAME, by_range).map_err(failed)?,
        };
        let mut watched: Vec<Watched> = Table::ALL
            .into_iter()
            .map(|table| Watched {
                keyspace: tables.get(table).clone(),
                memtable_size_max: match table {
                    Table::Message => options.memtable_size_max,
                    Table::Sent
                    | Table::Channel
                    | Table::List
                    | Table::Device
                    | Table::Conversation
                    | Table::Dedupe
                    | Table::Outbox
                    | Table::Received
                    | Table::Cluster
                    | Table::Applied
                    | Table::Stream
                    | Table::Dated
                    | Table::Notice => options.memtable_size_max / 4,
                },
            })
            .collect();
        watched.extend([&tables.install, &tables.ids, &tables.numbers].map(|keyspace| Watched {
            keyspace: keyspace.clone(),
            memtable_size_max: options.memtable_size_max / 4,
        }));
        let janitor = Janitor::start("state", database.clone(), watched, options.rest)
            .map_err(|source| OpenError::Thread { source })?;
        let store = Self { janitor, tables, database };
        store.complete_lookups().map_err(OpenError::Storage)?;
        Ok(store)
    }

    pub(super) fn tables(&self) -> &Tables {
        &self.tables
    }

    /// What is committed now, and stays as it is while it is held.
    pub(super) fn snapshot(&self) -> Snapshot {
        self.database.snapshot()
    }

    /// Writes rows and positions at once, without fsync. An error is final.
    pub(super) fn commit(&self, pending: Pending) -> fjall::Result<()> {
        let mut batch = self.database.batch();
        for row in pending.messages {
            if let Some(value) = row.value {
                batch.insert(self.tables.get(Table::Message), row.key, value);
            }
        }
        for lookups in pending.lookups {
            self.tables.add_lookups(&mut batch, lookups);
        }
        let applied = pending
            .applied
            .into_iter()
            .map(|(slot, applied)| keyspace::encode_applied(slot, applied));
        let others =
            pending.others.into_iter().map(|((table, key), value)| RawRow { table, key, value });
        for row in others.chain(applied) {
            let keyspace = self.tables.get(row.table);
            match row.value {
                Some(value) => batch.insert(keyspace, row.key, value),
                None => batch.remove(keyspace, row.key),
            }
        }
        batch.commit()?;
        self.janitor.wrote(pending.size);
        Ok(())
    }

    /// Commits a batch that an install made.
    pub(super) fn commit_raw(&self, batch: fjall::OwnedWriteBatch, size: u64) -> fjall::Result<()> {
        batch.commit()?;
        self.janitor.wrote(size);
        Ok(())
    }

    pub(super) fn batch(&self) -> fjall::OwnedWriteBatch {
        self.database.batch()
    }

    /// Everything committed so far survives a power cut from now on. An error is final.
    pub(super) fn sync(&self) -> fjall::Result<()> {
        self.database.persist(PersistMode::SyncData)
    }
}

/// What the lookup rows of a message take, about.
const LOOKUPS_SIZE: u64 = 100;
/// Messages whose lookup rows are written at once when all of them are made.
const COMPLETE_COUNT: usize = 10_000;

impl Tables {
    /// Adds the lookup rows of a message.
    pub(super) fn add_lookups(&self, batch: &mut fjall::OwnedWriteBatch, lookups: Lookups) {
        batch.insert(&self.ids, lookups.id_key, lookups.seq);
        if let Some(key) = lookups.number_key {
            batch.insert(&self.numbers, key, []);
        }
    }
}

impl StateStore {
    /// Makes the lookup rows of all messages if that was never done.
    fn complete_lookups(&self) -> Result<(), StorageError> {
        let ids = &self.tables.ids;
        if ids.get(lookup::COMPLETE).map_err(read_error)?.is_some() {
            return Ok(());
        }
        let mut batch = self.database.batch();
        let mut count = 0;
        for row in self.snapshot().iter(self.tables.get(Table::Message)) {
            let (key, value) = row.into_inner().map_err(read_error)?;
            if let (slot, Stored::Row(Row::Message(message))) =
                keyspace::decode(Table::Message, &key, &value)?
            {
                self.tables.add_lookups(&mut batch, Lookups::of(slot, &message));
                count += 1;
            }
            if batch.len() >= COMPLETE_COUNT {
                let full = std::mem::replace(&mut batch, self.database.batch());
                let size = full.len() as u64 * LOOKUPS_SIZE;
                self.commit_raw(full, size).map_err(read_error)?;
            }
        }
        batch.insert(ids, lookup::COMPLETE, []);
        let size = batch.len() as u64 * LOOKUPS_SIZE;
        self.commit_raw(batch, size).map_err(read_error)?;
        if count > 0 {
            tracing::info!("{count} messages can be found by id and client number now");
        }
        Ok(())
    }
}

/// Sealing memtables is the janitor's business, syncing the lane's.
fn plain() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default().manual_journal_persist(true).max_memtable_size(u64::MAX)
}

/// Read by range only, so filters are no use.
fn by_range() -> KeyspaceCreateOptions {
    plain().filter_policy(FilterPolicy::disabled())
}

fn of(table: Table) -> KeyspaceCreateOptions {
    match table {
        Table::Message => by_range()
            .data_block_size_policy(BlockSizePolicy::all(8 << 10))
            .with_kv_separation(Some(
                KvSeparationOptions::default().separation_threshold(message::SEPARATED_SIZE_MIN),
            )),
        Table::List
        | Table::Conversation
        | Table::Dedupe
        | Table::Outbox
        | Table::Received
        | Table::Cluster
        | Table::Stream
        | Table::Dated
        | Table::Notice => by_range(),
        Table::Sent | Table::Channel | Table::Device | Table::Applied => plain(),
    }
}

pub(super) fn read_error(e: fjall::Error) -> StorageError {
    StorageError::Read(e.to_string().into())
}
