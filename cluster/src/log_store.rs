//! A group's log, as openraft sees it: the newest entries in memory, all of them in the log lane.
//!
//! Entries are readable when `append` returns and durable when the lane has answered; only then
//! does openraft count this replica. The lane performs the requests of one group in order, reads
//! included, so an entry that has left memory can be read back before it is durable.

use std::{
    cell::RefCell,
    collections::VecDeque,
    fmt::Debug,
    io,
    ops::{Bound, RangeBounds},
    rc::Rc,
};

use bytes::Bytes;
use futures::{Stream, stream};
use jindou_storage::{LogState as Stored, Outcome};
use openraft::{
    AsyncRuntime, EntryPayload, LogState, RaftLogReader,
    storage::{IOFlushed, RaftLogStorage},
};

use crate::{
    lanes::{Lanes, unexpected},
    record::{
        decode_entry, decode_log_id, decode_vote, encode_entry, encode_log_id, encode_vote,
        entry_size,
    },
    standing::Standing,
    types::{GroupId, RaftEntry, RaftLogId, TypeConfig, Vote},
};

/// What is known of a group's log without asking the lane.
#[derive(Debug, Default)]
pub(crate) struct LogCore {
    vote: Option<Vote>,
    /// Whether this replica may vote; kept with the vote.
    standing: Standing,
    committed: Option<RaftLogId>,
    purged: Option<RaftLogId>,
    last: Option<RaftLogId>,
    /// The lowest index that can be read, if any.
    first: u64,
    /// The newest entries without holes, the last of which is `last`.
    tail: VecDeque<RaftEntry>,
    tail_size: usize,
}

impl LogCore {
    /// What the lane found at a start.
    pub(crate) fn restore(stored: &Stored) -> io::Result<Self> {
        let vote = stored.vote.as_deref().map(decode_vote).transpose().map_err(invalid)?;
        let mut core = Self {
            vote: vote.map(|(vote, _)| vote),
            standing: vote.map_or(Standing::Full, |(_, standing)| standing),
            committed: stored
                .committed
                .as_deref()
                .map(decode_log_id)
                .transpose()
                .map_err(invalid)?,
            purged: stored
                .purged
                .as_ref()
                .map(|(_, mark)| decode_log_id(mark))
                .transpose()
                .map_err(invalid)?,
            ..Self::default()
        };
        core.last = core.purged;
        for (index, record) in &stored.tail {
            let entry = decode_entry(*index, record).map_err(invalid)?;
            if core.tail.back().is_some_and(|last| last.log_id.index + 1 != *index) {
                return Err(hole(*index));
            }
            core.push(entry);
        }
        // The mark may be on disk before the entries; those that are missing come again.
        core.committed = core.committed.min(core.last);
        core.first = stored.first.unwrap_or(0);
        if core.last.map(|last| last.index) != stored.last.or(core.purged.map(|p| p.index)) {
            return Err(invalid("the last entry of a log is missing"));
        }
        Ok(core)
    }

    pub(crate) fn is_fresh(&self) -> bool {
        self.vote.is_none() && self.last.is_none()
    }

    pub(crate) fn vote(&self) -> Option<Vote> {
        self.vote
    }

    pub(crate) fn last(&self) -> Option<RaftLogId> {
        self.last
    }

    pub(crate) fn standing(&self) -> Standing {
        self.standing
    }

    /// Changes what this replica may do. Returns the bytes to save when that must be remembered:
    /// without a vote there is nothing to forget, and the next one that is saved tells.
    pub(crate) fn set_standing(&mut self, standing: Standing) -> Option<Bytes> {
        if std::mem::replace(&mut self.standing, standing) == standing {
            return None;
        }
        self.vote.map(|vote| encode_vote(&vote, standing))
    }

    pub(crate) fn purged_index(&self) -> Option<u64> {
        self.purged.map(|purged| purged.index)
    }

    fn push(&mut self, entry: RaftEntry) {
        if self.last == self.purged {
            self.first = entry.log_id.index;
        }
        self.tail_size += entry_size(&entry);
        self.last = Some(entry.log_id);
        self.tail.push_back(entry);
    }

    fn forget_first(&mut self) {
        if let Some(entry) = self.tail.pop_front() {
            self.tail_size -= entry_size(&entry);
        }
    }

    /// Cuts the tail to a size; the rest is in the lane.
    pub(crate) fn bound(&mut self, tail_size_max: usize) {
        while self.tail_size > tail_size_max {
            self.forget_first();
        }
    }

    /// Forgets the entries up to `index` that are in memory.
    pub(crate) fn forget_to(&mut self, index: u64) {
        while self.tail.front().is_some_and(|first| first.log_id.index <= index) {
            self.forget_first();
        }
    }

    fn truncate_after(&mut self, last: Option<RaftLogId>) {
        let keep = last.map_or(0, |last| last.index + 1);
        while self.tail.back().is_some_and(|last| last.log_id.index >= keep) {
            if let Some(entry) = self.tail.pop_back() {
                self.tail_size -= entry_size(&entry);
            }
        }
        if self.last.is_some_and(|last| last.index >= keep) {
            self.last = last.or(self.purged);
        }
    }

    fn purge(&mut self, log_id: RaftLogId) {
        self.forget_to(log_id.index);
        if self.purged.is_none_or(|purged| purged.index < log_id.index) {
            self.purged = Some(log_id);
        }
        // A snapshot was installed that reaches beyond the log.
        if self.last.is_none_or(|last| last.index < log_id.index) {
            self.last = Some(log_id);
        }
    }

    /// The part of `range` that exists.
    fn clamp(&self, range: &impl RangeBounds<u64>) -> (u64, u64) {
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let first = self.purged.map_or(0, |purged| purged.index + 1).max(self.first);
        let last = self.last.map_or(0, |last| last.index + 1);
        (start.max(first), end.min(last))
    }

    /// Where the part in memory begins.
    fn tail_first(&self) -> u64 {
        self.tail.front().map_or(u64::MAX, |first| first.log_id.index)
    }

    /// Entries in memory from `start` to before `end`, as many as fit and at least one.
    fn in_memory(&self, start: u64, end: u64, size_max: usize) -> Vec<RaftEntry> {
        let skip = usize::try_from(start - self.tail_first().min(start)).unwrap_or(usize::MAX);
        let mut size = 0usize;
        self.tail
            .iter()
            .skip(skip)
            .take_while(|entry| {
                let first = size == 0;
                size += entry_size(entry);
                entry.log_id.index < end && (first || size <= size_max)
            })
            .cloned()
            .collect()
    }
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

fn hole(index: u64) -> io::Error {
    invalid(format!("the log has a hole before index {index}"))
}

/// The bounds of a group's log in memory and per read, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) tail_size_max: usize,
    pub(crate) read_size_max: usize,
}

/// A group's log: openraft's log store, and each of its readers.
pub(crate) struct LogStore<R: AsyncRuntime> {
    group: GroupId,
    lanes: Rc<Lanes<R>>,
    core: Rc<RefCell<LogCore>>,
    bounds: Bounds,
}

impl<R: AsyncRuntime> Clone for LogStore<R> {
    fn clone(&self) -> Self {
        Self {
            group: self.group,
            lanes: self.lanes.clone(),
            core: self.core.clone(),
            bounds: self.bounds,
        }
    }
}

impl<R: AsyncRuntime> LogStore<R> {
    pub(crate) fn new(
        group: GroupId,
        lanes: Rc<Lanes<R>>,
        core: Rc<RefCell<LogCore>>,
        bounds: Bounds,
    ) -> Self {
        Self { group, lanes, core, bounds }
    }

    /// Entries from `start` to before `end`, which exist: as many as fit and at least one.
    async fn read_some(&self, start: u64, end: u64, size_max: usize) -> io::Result<Vec<RaftEntry>> {
        let tail_first = {
            let core = self.core.borrow();
            if start >= core.tail_first() {
                return Ok(core.in_memory(start, end, size_max));
            }
            core.tail_first()
        };
        let range = start..end.min(tail_first);
        let answer = self
            .lanes
            .ask(|lanes, done| lanes.log.read(self.group.0, range, size_max, done))
            .await
            .map_err(io::Error::other)?;
        let Outcome::Entries(records) = answer else {
            return Err(unexpected(&answer));
        };
        let mut entries = Vec::with_capacity(records.len());
        for ((index, record), expected) in records.iter().zip(start..) {
            if *index != expected {
                return Err(hole(*index));
            }
            entries.push(decode_entry(*index, record).map_err(invalid)?);
        }
        if entries.is_empty() {
            return Err(hole(start));
        }
        Ok(entries)
    }
}

impl<R: AsyncRuntime> RaftLogReader<TypeConfig<R>> for LogStore<R> {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<RaftEntry>> {
        let (mut start, end) = self.core.borrow().clamp(&range);
        let mut entries = Vec::new();
        while start < end {
            let more = self.read_some(start, end, self.bounds.read_size_max).await?;
            start += more.len() as u64;
            if entries.is_empty() {
                entries = more;
            } else {
                entries.extend(more);
            }
        }
        Ok(entries)
    }

    /// In pieces, so that applying a long log does not hold it in memory.
    async fn entries_stream<RB: RangeBounds<u64> + Clone + Debug>(
        &mut self,
        range: RB,
    ) -> impl Stream<Item = io::Result<RaftEntry>> {
        let (start, end) = self.core.borrow().clamp(&range);
        let reader = &*self;
        let size_max = self.bounds.read_size_max;
        stream::unfold((start, Vec::new().into_iter()), move |(start, mut read)| async move {
            if let Some(entry) = read.next() {
                return Some((Ok(entry), (start, read)));
            }
            if start >= end {
                return None;
            }
            match reader.read_some(start, end, size_max).await {
                Ok(more) => {
                    let next = start + more.len() as u64;
                    let mut read = more.into_iter();
                    read.next().map(|entry| (Ok(entry), (next, read)))
                }
                Err(error) => Some((Err(error), (end, Vec::new().into_iter()))),
            }
        })
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> io::Result<Vec<RaftEntry>> {
        let (start, end) = self.core.borrow().clamp(&(start..end));
        if start >= end {
            return Ok(Vec::new());
        }
        self.read_some(start, end, self.bounds.read_size_max).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.core.borrow().vote)
    }
}

impl<R: AsyncRuntime> RaftLogStorage<TypeConfig<R>> for LogStore<R> {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig<R>>> {
        let core = self.core.borrow();
        Ok(LogState { last_purged_log_id: core.purged, last_log_id: core.last })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let bytes = {
            let mut core = self.core.borrow_mut();
            // At once: whoever saves the standing meanwhile must not bring an older vote back.
            core.vote = Some(*vote);
            encode_vote(vote, core.standing)
        };
        self.lanes
            .ask(|lanes, done| lanes.log.save_vote(self.group.0, bytes, done))
            .await
            .map_err(io::Error::other)?;
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> io::Result<()> {
        if let Some(log_id) = committed {
            self.lanes.log.save_committed(self.group.0, encode_log_id(&log_id));
        }
        self.core.borrow_mut().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<RaftLogId>> {
        Ok(self.core.borrow().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig<R>>) -> io::Result<()>
    where
        I: IntoIterator<Item = RaftEntry>,
    {
        let mut records = Vec::new();
        let mut standing = None;
        {
            let mut core = self.core.borrow_mut();
            for mut entry in entries {
                if let EntryPayload::Membership(membership) = &entry.payload {
                    let index = entry.log_id.index;
                    let now = core.standing.saw(self.lanes.node, index, membership);
                    standing = core.set_standing(now).or(standing);
                }
                records.push((entry.log_id.index, encode_entry(&mut entry).map_err(invalid)?));
                core.push(entry);
            }
            core.bound(self.bounds.tail_size_max);
        }
        // Before the entries: they would not be looked at again after a crash.
        if let Some(bytes) = standing {
            self.lanes.tell(|lanes, done| lanes.log.save_vote(self.group.0, bytes, done));
        }
        self.lanes.append(self.group, records, callback).await;
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<RaftLogId>) -> io::Result<()> {
        self.core.borrow_mut().truncate_after(last_log_id);
        let index = last_log_id.map(|last| last.index);
        self.lanes
            .ask(|lanes, done| lanes.log.truncate_after(self.group.0, index, done))
            .await
            .map_err(io::Error::other)?;
        Ok(())
    }

    async fn purge(&mut self, log_id: RaftLogId) -> io::Result<()> {
        self.core.borrow_mut().purge(log_id);
        // Not waited for: entries that come back after a crash are purged again.
        self.lanes.tell(|lanes, done| {
            lanes.log.purge_to(self.group.0, log_id.index, encode_log_id(&log_id), done);
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::types::to_raft;
    use jindou_core::id::LogId;

    #[test]
    fn what_is_committed_and_not_there_comes_again() {
        let mark = |index| encode_log_id(&to_raft(LogId { term: 3, node: 1, index }));
        let stored = Stored {
            vote: None,
            committed: Some(mark(20)),
            purged: Some((10, mark(10))),
            first: None,
            last: None,
            tail: Vec::new(),
        };
        let core = LogCore::restore(&stored).unwrap();
        assert_eq!(core.committed, core.last);
        assert_eq!(core.committed.map(|at| at.index), Some(10));
    }
}
