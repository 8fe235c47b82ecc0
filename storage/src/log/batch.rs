//! What the log lane commits at once.

use std::collections::{BTreeMap, BTreeSet};

use fjall::{Keyspace, OwnedWriteBatch};

use super::lane::Touch;
use crate::keyspace::{
    log_entry,
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
    pub(super) meta: BTreeMap<(u16, What), Vec<u8>>,
    pub(super) purged: BTreeMap<u16, u64>,
    pub(super) appended: Vec<(u16, u64)>,
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
            meta: BTreeMap::new(),
            purged: BTreeMap::new(),
            appended: Vec::new(),
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
        self.size += entry.len() as u64 + ENTRY_OVERHEAD;
        self.appended.push((group, index));
        self.appended_groups.insert(group);
        let key = log_entry::key(group, index);
        self.rows.insert(&self.head, key.as_slice(), entry);
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
