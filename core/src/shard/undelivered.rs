//! What a slot has stored and not delivered: the leader counts what is left to do for each entry,
//! the followers keep the messages themselves, so that whoever leads next delivers them (G8).

use std::collections::VecDeque;

use crate::{id::Name, message::SharedMessage};

/// Bytes of messages that a follower keeps per slot.
const RECENT_SIZE_MAX: usize = 256 << 10;
/// How long it keeps them.
const RECENT_MS: i64 = 10_000;

/// The leader's count. It goes on when the leadership is lost: what was on its way still is.
#[derive(Debug, Default)]
pub(crate) struct Undelivered {
    /// Index of an entry and what is left to do for it, ascending.
    entries: VecDeque<(u64, u32)>,
    /// The last entry for which there was something to do.
    last: u64,
    /// The index up to which followers were told.
    told: u64,
}

impl Undelivered {
    fn place(&self, index: u64) -> Result<usize, usize> {
        // Nearly always the last or the first.
        match self.entries.back() {
            Some((last, _)) if *last == index => Ok(self.entries.len() - 1),
            Some((last, _)) if *last < index => Err(self.entries.len()),
            None => Err(0),
            Some(_) => self.entries.binary_search_by_key(&index, |(index, _)| *index),
        }
    }

    /// One thing more is to do for an entry.
    pub(crate) fn hold(&mut self, index: u64) {
        self.last = self.last.max(index);
        match self.place(index) {
            Ok(place) => {
                if let Some((_, count)) = self.entries.get_mut(place) {
                    *count += 1;
                }
            }
            Err(place) => self.entries.insert(place, (index, 1)),
        }
    }

    /// One thing is done.
    pub(crate) fn release(&mut self, index: u64) {
        if let Ok(place) = self.place(index)
            && let Some((_, count)) = self.entries.get_mut(place)
        {
            *count = count.saturating_sub(1);
        }
        while self.entries.front().is_some_and(|(_, count)| *count == 0) {
            self.entries.pop_front();
        }
    }

    /// Whether followers would deliver something again that is delivered.
    pub(crate) fn is_untold(&self) -> bool {
        self.entries.is_empty() && self.told < self.last
    }

    /// News for followers: the index up to which everything is delivered, given that entries up to
    /// `applied` are applied.
    pub(crate) fn news(&mut self, applied: u64) -> Option<u64> {
        let done = self.entries.front().map_or(applied, |(index, _)| index.saturating_sub(1));
        (done > self.told).then(|| {
            self.told = done;
            done
        })
    }
}

/// A message that may have to be delivered.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) index: u64,
    /// Unix ms at this replica: it was committed before.
    pub(crate) applied_ms: i64,
    pub(crate) message: SharedMessage,
    pub(crate) recipients: Option<Vec<Name>>,
}

/// The last messages of a slot, of which the leader has not said that they are delivered.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    queue: VecDeque<Kept>,
    size: usize,
    delivered: u64,
}

fn size_of(kept: &Kept) -> usize {
    160 + kept.message.payload.len()
}

impl Recent {
    /// A message of an entry that another has proposed.
    pub(crate) fn push(
        &mut self,
        (index, applied_ms): (u64, i64),
        message: SharedMessage,
        recipients: Option<Vec<Name>>,
    ) {
        let kept = Kept { index, applied_ms, message, recipients };
        self.size += size_of(&kept);
        self.queue.push_back(kept);
        while self.size > RECENT_SIZE_MAX
            || self.queue.front().is_some_and(|first| first.applied_ms < applied_ms - RECENT_MS)
        {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some(first) = self.queue.pop_front() {
            self.size -= size_of(&first);
        }
    }

    /// The leader says that everything up to this index is delivered.
    pub(crate) fn delivered(&mut self, index: u64) {
        self.delivered = self.delivered.max(index);
        while self.queue.front().is_some_and(|first| first.index <= self.delivered) {
            self.pop();
        }
    }

    /// What must be delivered by whoever leads now.
    pub(crate) fn take(&mut self, unix_ms: i64) -> impl Iterator<Item = Kept> + use<> {
        self.size = 0;
        let queue = std::mem::take(&mut self.queue);
        queue.into_iter().filter(move |kept| kept.applied_ms >= unix_ms - RECENT_MS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn followers_hear_of_an_entry_when_all_before_it_is_done() {
        let mut undelivered = Undelivered::default();
        undelivered.hold(3);
        undelivered.hold(3);
        undelivered.hold(5);
        assert_eq!(undelivered.news(5), Some(2));
        undelivered.release(5);
        undelivered.release(3);
        assert_eq!(undelivered.news(6), None);
        undelivered.release(3);
        assert!(undelivered.is_untold());
        assert_eq!(undelivered.news(6), Some(6));
        assert_eq!(undelivered.news(6), None);
        assert!(!undelivered.is_untold());
    }
}
