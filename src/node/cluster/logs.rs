//! A replica's log for operators: what kind of entries it holds and when they were made; never what
//! stands in them, which are messages and tokens.

use std::time::Duration;

use jindou_api::{LogEntryView, LogPage, LogQuery};
use jindou_cluster::{CLUSTER_SLOT, LogContent, LogItem};
use jindou_core::{
    effect::Place,
    entry::{Entry, EntryHead},
    id::SlotId,
};
use serde::{Deserialize, Serialize};

use super::{
    letters::{Answer, Ask},
    office::Office,
};

/// How long a node may take to read its log.
const READ_MAX: Duration = Duration::from_secs(5);

/// An entry as nodes tell each other of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct LogLine {
    /// Its index.
    index: u64,
    /// Its term.
    term: u64,
    /// `blank`, `entry` or `members`.
    kind: String,
    /// Commands in it.
    commands: u64,
    /// Bytes of it.
    size: u64,
    /// Unix ms when it was proposed; 0: it does not say.
    time_ms: i64,
}

impl From<LogItem> for LogLine {
    fn from(item: LogItem) -> Self {
        let (kind, bytes) = match item.content {
            LogContent::Blank => ("blank", None),
            LogContent::Members => ("members", None),
            LogContent::Entry(bytes) => ("entry", Some(bytes)),
        };
        let bytes = bytes.unwrap_or_default();
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        Self {
            index: item.index,
            term: item.term,
            kind: kind.to_owned(),
            commands: Entry::decode(&bytes).map_or(0, |entry| count(entry.commands.len())),
            size: count(bytes.len()),
            time_ms: EntryHead::decode(&bytes).map_or(0, |head| head.time_ms),
        }
    }
}

impl From<LogLine> for LogEntryView {
    fn from(line: LogLine) -> Self {
        Self {
            index: line.index,
            term: line.term,
            kind: line.kind,
            commands: line.commands,
            size: line.size,
            time_ms: line.time_ms,
        }
    }
}

impl Office {
    /// A page of a node's log.
    pub(in crate::node) async fn logs(&self, query: LogQuery) -> Result<LogPage, String> {
        let slot = query.slot.unwrap_or(CLUSTER_SLOT);
        let ask = Ask::Logs {
            slot: slot.0,
            after: query.after,
            before: query.before,
            limit: query.limit,
        };
        match self.ask(query.node, Place::Slot(slot), ask, READ_MAX).await {
            Answer::Logs { lines, applied, last } => Ok(LogPage {
                entries: lines.into_iter().map(LogEntryView::from).collect(),
                applied,
                last,
            }),
            Answer::Failed { reason, .. } => Err(reason),
            Answer::Done | Answer::Entered { .. } | Answer::Groups { .. } => {
                Err("the node answered another question".to_owned())
            }
        }
    }

    /// This node's own: the entries after one index, else the newest before another.
    pub(super) async fn read_logs(
        &self,
        slot: SlotId,
        after: Option<u64>,
        before: Option<u64>,
        limit: u64,
    ) -> Answer {
        let statuses = self.statuses();
        let Some(group) = statuses.iter().find(|group| group.slot == slot.0) else {
            return Answer::refuse("the node has no replica of the slot");
        };
        let range = match (after, before) {
            (Some(after), _) => {
                let start = after.saturating_add(1);
                start..start.saturating_add(limit)
            }
            (None, before) => {
                let end = before.unwrap_or(u64::MAX).min(group.last.saturating_add(1));
                end.saturating_sub(limit)..end
            }
        };
        let (mut start, mut lines) = (range.start, Vec::new());
        // Piece by piece: of large entries no more than one read is in memory.
        while start < range.end {
            let items = match self.groups().log_page(slot, start..range.end).await {
                Ok(items) => items,
                Err(reason) => return Answer::later(reason),
            };
            let Some(last) = items.last() else { break };
            start = last.index.saturating_add(1);
            lines.extend(items.into_iter().map(LogLine::from));
        }
        Answer::Logs { lines, applied: group.applied, last: group.last }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_line_tells_nothing_of_what_an_entry_says() {
        let content = LogContent::Entry(Bytes::from_static(b"hush: not an entry at all"));
        let line = LogLine::from(LogItem { index: 7, term: 2, content });
        let expected =
            LogLine { index: 7, term: 2, kind: "entry".to_owned(), size: 25, ..line.clone() };
        assert_eq!((line.commands, &line), (0, &expected));
        let blank = LogLine::from(LogItem { index: 1, term: 1, content: LogContent::Blank });
        assert_eq!((blank.kind.as_str(), blank.size, blank.time_ms), ("blank", 0, 0));
    }
}
