//! The window of remembered sends of one slot (G4). Deterministic: time is the entry's, and what
//! falls out depends on the entries alone.

use std::{collections::VecDeque, hash::Hasher};

use siphasher::sip128::{Hasher128, SipHasher13};

use crate::{
    entry::DedupeWindow,
    id::ChannelId,
    map::Map,
    row::{DedupeRecord, Row},
};

/// Remembered sends, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Dedupe {
    by_digest: Map<u128, (i64, u64)>,
    by_entry: VecDeque<(u64, Vec<DedupeRecord>)>,
    count: usize,
}

/// The digest under which a send is remembered.
pub(crate) fn digest(channel: &ChannelId, sender: &str, client_msg_no: &str) -> u128 {
    let mut hasher = SipHasher13::new();
    hasher.write_u8(channel.kind);
    for text in [&channel.id, sender, client_msg_no] {
        hasher.write_usize(text.len());
        hasher.write(text.as_bytes());
    }
    hasher.finish128().as_u128()
}

/// The same for a send without a client number: its message id. No text has such a length.
pub(crate) fn digest_of_id(channel: &ChannelId, message_id: i64) -> u128 {
    let mut hasher = SipHasher13::new();
    hasher.write_u8(channel.kind);
    hasher.write_usize(channel.id.len());
    hasher.write(channel.id.as_bytes());
    hasher.write_usize(usize::MAX);
    hasher.write_i64(message_id);
    hasher.finish128().as_u128()
}

impl Dedupe {
    pub(crate) fn new(entries: Vec<(u64, Vec<DedupeRecord>)>) -> Self {
        let mut this = Self::default();
        for (index, records) in entries {
            for record in &records {
                this.by_digest.insert(record.digest, (record.id, record.seq));
            }
            this.count += records.len();
            this.by_entry.push_back((index, records));
        }
        this
    }

    /// The first message's id and seq.
    pub(crate) fn find(&self, digest: u128) -> Option<(i64, u64)> {
        self.by_digest.get(&digest).copied()
    }

    /// Makes a send known at once, so that the next one of the same entry meets it.
    pub(crate) fn insert(&mut self, record: &DedupeRecord) {
        self.by_digest.insert(record.digest, (record.id, record.seq));
    }

    /// Ends an entry: its sends become one row, and what is over time or count falls out. Returns
    /// how many fell out before their time.
    pub(crate) fn close_entry(
        &mut self,
        index: u64,
        mut records: Vec<DedupeRecord>,
        time_ms: i64,
        window: DedupeWindow,
        rows: &mut Vec<Row>,
    ) -> u64 {
        if !records.is_empty() {
            rows.push(Row::Dedupe { index, records: Some(records.clone()) });
            self.count += records.len();
            // Most entries have one, and stay for minutes.
            records.shrink_to_fit();
            self.by_entry.push_back((index, records));
        }
        let count_max = usize::try_from(window.count_max).unwrap_or(usize::MAX);
        let oldest_ms = time_ms.saturating_sub_unsigned(window.ms);
        let mut cut = 0;
        while let Some((index, oldest)) = self.by_entry.front() {
            let expired = oldest.last().is_none_or(|r| r.time_ms < oldest_ms);
            if !expired && self.count <= count_max {
                break;
            }
            if !expired {
                cut += u64::try_from(oldest.len()).unwrap_or(u64::MAX);
            }
            for record in oldest {
                if self.by_digest.get(&record.digest).is_some_and(|(id, _)| *id == record.id) {
                    self.by_digest.swap_remove(&record.digest);
                }
            }
            self.count -= oldest.len();
            rows.push(Row::Dedupe { index: *index, records: None });
            self.by_entry.pop_front();
        }
        cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(n: u8, time_ms: i64) -> DedupeRecord {
        DedupeRecord { digest: n.into(), id: n.into(), seq: n.into(), time_ms }
    }

    fn window(count_max: u64) -> DedupeWindow {
        DedupeWindow { count_max, ms: 100 }
    }

    #[test]
    fn the_window_is_bounded_by_time_and_by_count() {
        let mut dedupe = Dedupe::default();
        let mut rows = Vec::new();
        for n in 1..=4u8 {
            dedupe.insert(&record(n, n.into()));
            let cut = dedupe.close_entry(
                n.into(),
                vec![record(n, n.into())],
                n.into(),
                window(3),
                &mut rows,
            );
            assert_eq!(cut, u64::from(n == 4));
        }
        assert_eq!(dedupe.find(1), None);
        assert_eq!(dedupe.find(2), Some((2, 2)));
        assert_eq!(dedupe.close_entry(9, Vec::new(), 104, window(3), &mut rows), 0);
        assert_eq!((dedupe.find(3), dedupe.find(4)), (None, Some((4, 4))));
    }

    #[test]
    fn what_was_written_gives_the_same_window_again() {
        let mut dedupe = Dedupe::default();
        let mut rows = Vec::new();
        for n in 1..=9u8 {
            dedupe.insert(&record(n, n.into()));
            dedupe.close_entry(n.into(), vec![record(n, n.into())], n.into(), window(4), &mut rows);
        }
        let mut kept = std::collections::BTreeMap::new();
        for row in rows {
            if let Row::Dedupe { index, records } = row {
                match records {
                    Some(records) => kept.insert(index, records),
                    None => kept.remove(&index),
                };
            }
        }
        let again = Dedupe::new(kept.into_iter().collect());
        assert_eq!(again.by_entry, dedupe.by_entry);
        assert_eq!(again.count, dedupe.count);
    }
}
