//! Messages of one channel, and of all channels of a slot.
//!
//! Nothing is kept in the order of message ids across channels. A search over all of them goes from
//! channel to channel and reads in each only what can still be among the best: within a channel ids
//! grow with the seq, but for those of sends that were under way at the same time.

use std::ops::Bound;

use bytes::Bytes;
use fjall::UserKey;
use jindou_core::{
    id::ChannelId,
    message::SharedMessage,
    scan::{MessageFilter, ScanPage, ScanRows},
};

use super::{Budget, KeyRange, Page, Result, cursor, end_of};
use crate::keyspace::{Table, message, sent};

/// By how many places a message may stand away from where its id belongs.
const DISORDER_MAX: u64 = 64;
/// The same in time: sends wait some seconds at most, and clocks of nodes agree to a second.
const DISORDER_MS_MAX: i64 = 60_000;
/// The bits of an id below its milliseconds.
const ID_TIME_SHIFT: u32 = 22;
/// What a seek counts for, in rows.
const SEEK_COST: usize = 8;

/// What is wanted, and in which order.
pub(super) struct Wanted<'a> {
    pub(super) newest_first: bool,
    pub(super) filter: &'a MessageFilter,
}

/// Messages of one channel by seq.
pub(super) fn of_channel(
    page: &Page<'_>,
    channel: &ChannelId,
    (first, last): (u64, u64),
    wanted: &Wanted<'_>,
    mut budget: Budget,
) -> Result<ScanPage> {
    let empty = ScanPage { rows: ScanRows::Messages(Vec::new()), next: None };
    if wanted.filter.id.is_some() {
        let mut search = Search::new(page, (i64::MIN, i64::MAX), wanted, 1);
        search.channel(channel, None)?;
        search.found.retain(|message| (first..=last).contains(&message.seq));
        return Ok(ScanPage { rows: ScanRows::Messages(search.found), next: None });
    }
    let Some(last) = last_of_sender(page, channel, wanted.filter)?.map(|sent| sent.min(last))
    else {
        return Ok(empty);
    };
    let key = |seq| message::key(page.slot, channel, seq);
    let after = page.cursor(&message::prefix(page.slot, channel)?)?;
    let (from, to) = (Bound::Included(key(first)?), Bound::Included(key(last)?));
    let range = match after {
        Some(after) if wanted.newest_first => KeyRange::new(from, Bound::Excluded(after)),
        Some(after) => KeyRange::new(Bound::Excluded(after), to),
        None => KeyRange::new(from, to),
    };
    let Some(range) = range else { return Ok(empty) };
    let (mut found, mut next, mut before) = (Vec::new(), None, None);
    for row in rows(page, range, wanted.newest_first) {
        let (seq, message) = row.and_then(|(key, value)| read(channel, &key, &value))?;
        let is_taken = wanted.filter.takes(&message);
        if !budget.may_look() || is_taken && !budget.take(size(&message)) {
            next = before;
            break;
        }
        budget.look(1);
        if is_taken {
            found.push(message);
        }
        before = Some(seq);
    }
    let next = next.map(key).transpose()?;
    Ok(ScanPage { rows: ScanRows::Messages(found), next: next.and_then(|key| cursor(&key)) })
}

/// Messages of all channels with `above < id < below`: the best of those that this page has seen.
pub(super) fn page(
    page: &Page<'_>,
    between: (i64, i64),
    wanted: &Wanted<'_>,
    count_max: usize,
) -> Result<ScanPage> {
    let mut search = Search::new(page, between, wanted, count_max);
    let slot = page.slot.0.to_be_bytes();
    let next = match page.cursor(&slot)? {
        Some(after) => {
            let (_, channel, seq) = message::parse_key(&after)?;
            match search.channel(&channel, Some(seq))? {
                Some(stopped) => Some(stopped),
                None => search.channels(Bound::Excluded(last_key(page, &channel)?))?,
            }
        }
        None => search.channels(Bound::Included(slot.to_vec()))?,
    };
    Ok(ScanPage { rows: ScanRows::Messages(search.found), next: next.map(Bytes::from) })
}

struct Search<'a> {
    page: &'a Page<'a>,
    wanted: &'a Wanted<'a>,
    count_max: usize,
    /// Only what lies between can be among the best.
    above: i64,
    below: i64,
    /// The best so far, in order.
    found: Vec<SharedMessage>,
    budget: Budget,
}

impl<'a> Search<'a> {
    fn new(
        page: &'a Page<'a>,
        (above, below): (i64, i64),
        wanted: &'a Wanted<'a>,
        count_max: usize,
    ) -> Self {
        let id = wanted.filter.id;
        Self {
            page,
            wanted,
            count_max,
            above: above.max(id.map_or(i64::MIN, |id| id.saturating_sub(1))),
            below: below.min(id.map_or(i64::MAX, |id| id.saturating_add(1))),
            found: Vec::new(),
            budget: Budget::new(usize::MAX),
        }
    }

    /// All channels from a key on. Gives the key to go on after.
    fn channels(&mut self, mut from: Bound<Vec<u8>>) -> Result<Option<Vec<u8>>> {
        let slot = self.page.slot.0.to_be_bytes();
        loop {
            let Some(range) = KeyRange::new(from, end_of(&slot)) else { return Ok(None) };
            let Some(key) = self.page.source.keys(Table::Message, range).next() else {
                return Ok(None);
            };
            let (_, channel, _) = message::parse_key(&key?)?;
            if let Some(stopped) = self.channel(&channel, None)? {
                return Ok(Some(stopped));
            }
            let end = last_key(self.page, &channel)?;
            if !self.budget.may_look() {
                // Resumed here, the channel has nothing left in either direction.
                let done = if self.wanted.newest_first { 0 } else { u64::MAX };
                return message::key(self.page.slot, &channel, done).map(Some);
            }
            from = Bound::Excluded(end);
        }
    }

    /// One channel, after a seq if there is one. Gives where it stopped before it was through.
    fn channel(&mut self, channel: &ChannelId, after: Option<u64>) -> Result<Option<Vec<u8>>> {
        self.budget.look(SEEK_COST);
        let filter = self.wanted.filter;
        let Some(sent) = last_of_sender(self.page, channel, filter)? else { return Ok(None) };
        let Some(ends) = self.ends(channel)? else { return Ok(None) };
        let (oldest, newest) = ends;
        let disorder = DISORDER_MS_MAX << ID_TIME_SHIFT;
        if newest.id.saturating_add(disorder) <= self.above
            || oldest.id.saturating_sub(disorder) >= self.below
        {
            return Ok(None);
        }
        let seqs = (oldest.seq, newest.seq.min(sent));
        let Some(range) = self.span(channel, seqs, after)? else { return Ok(None) };
        let (mut missed, mut before) = (0, after);
        for row in rows(self.page, range, self.wanted.newest_first) {
            let (seq, message) = row.and_then(|(key, value)| read(channel, &key, &value))?;
            let id = message.id;
            let (too_far, not_yet) = if self.wanted.newest_first {
                (id <= self.above, id >= self.below)
            } else {
                (id >= self.below, id <= self.above)
            };
            let is_taken = !too_far && !not_yet && filter.takes(&message);
            if !self.budget.may_look() || is_taken && !self.budget.take(size(&message)) {
                // At least one was looked at in this page, so that it does not stand still.
                let stopped = before.or(after);
                return match stopped {
                    Some(seq) => message::key(self.page.slot, channel, seq).map(Some),
                    None => self.before(channel).map(Some),
                };
            }
            self.budget.look(1);
            before = Some(seq);
            missed = if too_far { missed + 1 } else { 0 };
            if missed > DISORDER_MAX {
                break;
            }
            if is_taken {
                // When enough are found the bound moves, and what follows is missed.
                self.keep(message);
            }
        }
        Ok(None)
    }

    /// A key of a channel from which nothing of it is passed over.
    fn before(&self, channel: &ChannelId) -> Result<Vec<u8>> {
        let seq = if self.wanted.newest_first { u64::MAX } else { 0 };
        message::key(self.page.slot, channel, seq)
    }

    /// The first and the last message of a channel.
    fn ends(&self, channel: &ChannelId) -> Result<Option<(SharedMessage, SharedMessage)>> {
        let range = KeyRange::of(&message::prefix(self.page.slot, channel)?);
        let mut rows = self.page.source.rows(Table::Message, range);
        let Some(oldest) = rows.next() else { return Ok(None) };
        let newest = rows.next_back();
        let message = |(key, value): (UserKey, fjall::UserValue)| read(channel, &key, &value);
        let (_, oldest) = oldest.and_then(message)?;
        let newest = match newest {
            Some(row) => row.and_then(message)?.1,
            None => oldest.clone(),
        };
        Ok(Some((oldest, newest)))
    }

    /// The rows of a channel in which what is wanted can stand.
    fn span(
        &mut self,
        channel: &ChannelId,
        (mut first, mut last): (u64, u64),
        after: Option<u64>,
    ) -> Result<Option<KeyRange>> {
        match after {
            Some(after) if self.wanted.newest_first => {
                let Some(below) = after.checked_sub(1) else { return Ok(None) };
                last = last.min(below);
            }
            Some(after) => {
                let Some(above) = after.checked_add(1) else { return Ok(None) };
                first = first.max(above);
            }
            None if self.wanted.newest_first && self.below < i64::MAX => {
                let place = self.place_of(channel, (first, last), self.below)?;
                last = last.min(place.saturating_add(DISORDER_MAX));
            }
            None if !self.wanted.newest_first && self.above > 0 => {
                let place = self.place_of(channel, (first, last), self.above)?;
                first = first.max(place.saturating_sub(DISORDER_MAX));
            }
            None => {}
        }
        let key = |seq| message::key(self.page.slot, channel, seq);
        Ok(KeyRange::new(Bound::Included(key(first)?), Bound::Included(key(last)?)))
    }

    /// About the first seq whose id is not below `id`.
    fn place_of(
        &mut self,
        channel: &ChannelId,
        (mut first, mut last): (u64, u64),
        id: i64,
    ) -> Result<u64> {
        while first < last {
            let middle = first + (last - first) / 2;
            self.budget.look(1);
            let key = message::key(self.page.slot, channel, middle)?;
            let is_below = match self.page.source.value(Table::Message, &key)? {
                Some(value) => message::decode(channel, middle, &value)?.id < id,
                None => true,
            };
            if is_below {
                first = middle + 1;
            } else {
                last = middle;
            }
        }
        Ok(first)
    }

    /// Keeps a message, and no more than are wanted.
    fn keep(&mut self, message: SharedMessage) {
        let newest_first = self.wanted.newest_first;
        let place = self.found.partition_point(|other| {
            if newest_first { other.id > message.id } else { other.id < message.id }
        });
        self.found.insert(place, message);
        if self.found.len() > self.count_max {
            self.found.pop();
        }
        if self.found.len() == self.count_max
            && let Some(worst) = self.found.last()
        {
            if newest_first {
                self.above = self.above.max(worst.id);
            } else {
                self.below = self.below.min(worst.id);
            }
        }
    }
}

/// The last key that a channel may have.
fn last_key(page: &Page<'_>, channel: &ChannelId) -> Result<Vec<u8>> {
    message::key(page.slot, channel, u64::MAX)
}

/// The last seq that can be of the wanted sender; `None`: it has sent nothing here.
fn last_of_sender(
    page: &Page<'_>,
    channel: &ChannelId,
    filter: &MessageFilter,
) -> Result<Option<u64>> {
    let Some(from) = &filter.from else { return Ok(Some(u64::MAX)) };
    let row = page.source.value(Table::Sent, &sent::key(page.slot, channel, from)?)?;
    row.map(|value| sent::decode(&value)).transpose()
}

fn rows<'a>(page: &Page<'a>, range: KeyRange, newest_first: bool) -> super::RowsOf<'a> {
    let rows = page.source.rows(Table::Message, range);
    if newest_first { Box::new(rows.rev()) } else { rows }
}

fn read(channel: &ChannelId, key: &[u8], value: &[u8]) -> Result<(u64, SharedMessage)> {
    let seq = message::seq_of(key)?;
    Ok((seq, message::decode(channel, seq, value)?))
}

fn size(message: &SharedMessage) -> usize {
    message.payload.len() + message.from.len() + message.client_msg_no.len() + 128
}
