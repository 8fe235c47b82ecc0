//! What the log lane commits at once.

use std::collections::{BTreeMap, BTreeSet};

use fjall::{Keyspace, OwnedWriteBatch};

use super::{index::Segment, lane::Touch};
use crate::keyspace::{
    log_carried, log_entry,
    log_meta::{self, What},
};

/// What an entry costs beside its bytes, about, in memory and in the journal.
pub(super) const ENTRY_OVERHEAD: u64 = 64;

/// Writes that are committed together.
pub(super) struct Batch {
    pub(super) rows: OwnedWriteBatch,
    pub(super) head: Keyspace,
    pub(super) order: u64,
    pub(super) size: u64,
    /// Entries and bytes of each group.
    pub(super) shares: BTreeMap<u16, (u64, u64)>,
    pub(super) meta: BTreeMap<(u16, What), Vec<u8>>,
    pub(super) purged: BTreeMap<u16, u64>,
    pub(super) appended: Vec<(u16, u64)>,
    /// Group, first and last index of what was copied from an older generation.
    pub(super) carried: Vec<(u16, Segment)>,
    pub(super) appended_groups: BTreeSet<u16>,
    pub(super) truncated: BTreeMap<u16, Option<u64>>,
}

impl Batch {
    pub(super) fn new(rows: OwnedWriteBatch, head: Keyspace, order: u64) -> Self {
        Self {
            rows,
            head,
            order,
            size: 0,
            shares: BTreeMap::new(),
            meta: BTreeMap::new(),
            purged: BTreeMap::new(),
            appended: Vec::new(),
            carried: Vec::new(),
            appended_groups: BTreeSet::new(),
            truncated: BTreeMap::new(),
        }
    }

    /// Whether the request may become part of this batch: it must not have to see what is in it,
    /// and no key may be written twice, since rows of a batch have no order.
    pub(super) fn admits(&self, touch: &Touch) -> bool {
        match touch {
            Touch::Nothing => true,
            Touch::Append(group) => !self.truncated.contains_key(group),
            Touch::Look(group) => {
                !self.appended_groups.contains(group)
                    && !self.truncated.contains_key(group)
                    && !self.purged.contains_key(group)
                    && !self.meta.contains_key(&(*group, What::Vote))
            }
        }
    }

    /// Whether there is nothing to commit. The first batch of a generation never is empty.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.meta.is_empty()
    }

    pub(super) fn append(&mut self, group: u16, index: u64, entry: &[u8]) {
        self.count(group, entry.len());
        self.appended.push((group, index));
        self.appended_groups.insert(group);
        let key = log_entry::key(group, index);
        self.rows.insert(&self.head, key.as_slice(), entry);
    }

    fn count(&mut self, group: u16, size: usize) {
        let size = size as u64 + ENTRY_OVERHEAD;
        self.size += size;
        let share = self.shares.entry(group).or_default();
        *share = (share.0 + 1, share.1 + size);
    }

    /// Copies entries that an older generation holds.
    pub(super) fn carry(
        &mut self,
        group: u16,
        segment: Segment,
        from: &Keyspace,
    ) -> fjall::Result<()> {
        let keys = log_entry::key(group, segment.first)..=log_entry::key(group, segment.last);
        for row in from.range(keys) {
            let (key, value) = row.into_inner()?;
            self.count(group, value.len());
            self.rows.insert(&self.head, key, value);
        }
        let key = log_carried::key(group, segment.first);
        self.rows.insert(&self.head, key, log_carried::encode(segment.last));
        self.carried.push((group, segment));
        // Its entries must not be truncated in the batch that writes them.
        self.appended_groups.insert(group);
        Ok(())
    }

    pub(super) fn vote(&mut self, group: u16, vote: &[u8]) {
        let value = log_meta::encode(vote);
        self.meta.insert((group, What::Vote), value);
    }

    pub(super) fn committed(&mut self, group: u16, committed: &[u8]) {
        let value = log_meta::encode(committed);
        self.meta.insert((group, What::Committed), value);
    }
}
