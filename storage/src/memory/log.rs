//! The log of all groups, in memory.

use std::{collections::BTreeMap, ops::Range, sync::Mutex};

use bytes::Bytes;

use super::lock;
use crate::{
    completion::{Answers, Done, Outcome},
    log::{LogFull, LogState, LogStorage},
};

/// A [`LogStorage`] in memory. Writes are visible at once; they become durable at once
/// ([`MemoryLog::new`]) or when [`MemoryLog::fsync`] is called ([`MemoryLog::held`]).
pub struct MemoryLog {
    held: bool,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    visible: BTreeMap<u16, Group>,
    durable: BTreeMap<u16, Group>,
    unsynced: Vec<(u16, Write, Option<Done>)>,
}

#[derive(Clone)]
enum Write {
    Append(Vec<(u64, Bytes)>),
    Vote(Bytes),
    Truncate(Option<u64>),
    Purge(u64, Bytes),
    Committed(Bytes),
}

#[derive(Clone, Default)]
struct Group {
    vote: Option<Bytes>,
    committed: Option<Bytes>,
    purged: Option<(u64, Bytes)>,
    entries: BTreeMap<u64, Bytes>,
}

impl Group {
    fn perform(&mut self, write: &Write) {
        match write {
            Write::Append(entries) => self.entries.extend(entries.iter().cloned()),
            Write::Vote(vote) => self.vote = Some(vote.clone()),
            Write::Truncate(None) => self.entries.clear(),
            Write::Truncate(Some(index)) => {
                self.entries.split_off(&index.saturating_add(1));
            }
            Write::Purge(index, mark) => {
                if self.purged.as_ref().is_none_or(|(old, _)| old < index) {
                    self.entries = self.entries.split_off(&index.saturating_add(1));
                    self.purged = Some((*index, mark.clone()));
                }
            }
            Write::Committed(committed) => self.committed = Some(committed.clone()),
        }
    }

    fn state(&self, tail_size_max: usize) -> LogState {
        let mut size = 0usize;
        let mut tail: Vec<_> = self
            .entries
            .iter()
            .rev()
            .take_while(|(_, entry)| {
                let first = size == 0;
                size = size.saturating_add(entry.len()).max(1);
                first || size <= tail_size_max
            })
            .map(|(index, entry)| (*index, entry.clone()))
            .collect();
        tail.reverse();
        LogState {
            vote: self.vote.clone(),
            committed: self.committed.clone(),
            purged: self.purged.clone(),
            first: self.entries.first_key_value().map(|(index, _)| *index),
            last: self.entries.last_key_value().map(|(index, _)| *index),
            tail,
        }
    }
}

impl MemoryLog {
    /// A log whose writes are durable when the call returns.
    pub fn new() -> Self {
        Self { held: false, inner: Mutex::default() }
    }

    /// A log whose writes are answered, and survive [`MemoryLog::crash`], after
    /// [`MemoryLog::fsync`].
    pub fn held() -> Self {
        Self { held: true, inner: Mutex::default() }
    }

    /// Everything handed over is durable now, and answered in order.
    pub fn fsync(&self) {
        let inner = &mut *lock(&self.inner);
        let mut answers = Answers::default();
        for (group, write, done) in inner.unsynced.drain(..) {
            inner.durable.entry(group).or_default().perform(&write);
            if let Some(done) = done {
                answers.push(done, Ok(Outcome::Done));
            }
        }
        answers.publish();
    }

    /// The power goes: what was not fsynced is lost, and nobody gets an answer to it.
    pub fn crash(&self) {
        let inner = &mut *lock(&self.inner);
        inner.unsynced.clear();
        inner.visible = inner.durable.clone();
    }

    fn write(&self, group: u16, write: Write, done: Option<Done>) {
        {
            let inner = &mut *lock(&self.inner);
            inner.visible.entry(group).or_default().perform(&write);
            inner.unsynced.push((group, write, done));
        }
        if !self.held {
            self.fsync();
        }
    }
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self::new()
    }
}

impl LogStorage for MemoryLog {
    fn append(&self, group: u16, entries: Vec<(u64, Bytes)>, done: Done) -> Result<(), LogFull> {
        self.write(group, Write::Append(entries), Some(done));
        Ok(())
    }

    fn save_vote(&self, group: u16, vote: Bytes, done: Done) {
        self.write(group, Write::Vote(vote), Some(done));
    }

    fn truncate_after(&self, group: u16, index: Option<u64>, done: Done) {
        self.write(group, Write::Truncate(index), Some(done));
    }

    fn purge_to(&self, group: u16, index: u64, mark: Bytes, done: Done) {
        self.write(group, Write::Purge(index, mark), Some(done));
    }

    fn save_committed(&self, group: u16, committed: Bytes) {
        self.write(group, Write::Committed(committed), None);
    }

    fn read(&self, group: u16, range: Range<u64>, size_max: usize, done: Done) {
        let mut size = 0usize;
        let entries = match lock(&self.inner).visible.get(&group) {
            Some(group) if !range.is_empty() => group
                .entries
                .range(range)
                .take_while(|(_, entry)| {
                    let first = size == 0;
                    size = size.saturating_add(entry.len()).max(1);
                    first || size <= size_max
                })
                .map(|(index, entry)| (*index, entry.clone()))
                .collect(),
            _ => Vec::new(),
        };
        done.answer(Ok(Outcome::Entries(entries)));
    }

    fn load(&self, group: u16, tail_size_max: usize, done: Done) {
        let state = lock(&self.inner)
            .visible
            .get(&group)
            .map(|group| group.state(tail_size_max))
            .unwrap_or_default();
        done.answer(Ok(Outcome::Log(Box::new(state))));
    }

    fn queue_size(&self) -> usize {
        0
    }
}
