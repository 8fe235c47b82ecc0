//! A look at a group's log, for operators. What stands in the entries stays bytes here.

use std::ops::Range;

use bytes::Bytes;
use jindou_core::id::SlotId;
use openraft::{AsyncRuntime, EntryPayload, storage::RaftLogReader as _};

use crate::{
    Transport,
    groups::Groups,
    log_store::{Bounds, LogStore},
    types::GroupId,
};

/// An entry of a group's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogItem {
    /// Its index.
    pub index: u64,
    /// The term of the leader that proposed it.
    pub term: u64,
    /// What it holds.
    pub content: LogContent,
}

/// What an entry holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogContent {
    /// Nothing: a leader's first.
    Blank,
    /// An encoded entry of the shard.
    Entry(Bytes),
    /// The group's members.
    Members,
}

impl<R: AsyncRuntime, T: Transport> Groups<R, T> {
    /// The entries of this node's replica with an index in `range`, ascending, those that are not
    /// purged: as many from the front as one read of the log gives, and at least one if there is
    /// any.
    ///
    /// # Errors
    /// A text for the operator: there is no replica here, or the log can't be read.
    pub async fn log_page(&self, slot: SlotId, range: Range<u64>) -> Result<Vec<LogItem>, String> {
        let group = self.group(slot).ok_or("this node has no replica of the slot")?;
        let options = &self.0.setup.options;
        let bounds =
            Bounds { tail_size_max: options.tail_size_max, read_size_max: options.read_size_max };
        let (lanes, core) = (self.0.lanes.clone(), group.log.clone());
        let mut log = LogStore::new(GroupId::of(slot), lanes, core, bounds);
        let entries = log.limited_get_log_entries(range.start, range.end).await;
        let items = entries.map_err(|error| error.to_string())?.into_iter().map(|entry| LogItem {
            index: entry.log_id.index,
            term: entry.log_id.leader_id.term,
            content: match entry.payload {
                EntryPayload::Blank => LogContent::Blank,
                EntryPayload::Normal(bytes) => LogContent::Entry(bytes.0),
                EntryPayload::Membership(_) => LogContent::Members,
            },
        });
        Ok(items.collect())
    }
}
