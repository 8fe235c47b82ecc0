//! Answers a page of a search over the rows of one slot (see [`jindou_core::scan`]), from whatever
//! keeps rows in the order of their keys.
//!
//! Every page has three bounds: rows, bytes and rows looked at. When one is reached the page ends
//! with the key to go on after, so that a slot of any size is read in small steps, and other reads
//! have their turn between two of them.

mod channels;
mod conversations;
mod list;
mod messages;
mod users;

use std::ops::Bound;

use bytes::Bytes;
use fjall::{UserKey, UserValue};
use jindou_core::{
    id::SlotId,
    row::Times,
    scan::{Made, Scan, ScanOf, ScanPage},
};

use crate::{
    error::StorageError,
    keyspace::{
        Table,
        dated::{self, Kind},
    },
};

/// How many rows one page looks at: some 10 ms.
pub(crate) const LOOK_COUNT_MAX: usize = 20_000;
/// How many bytes a page may have; the first row always fits.
pub(crate) const PAGE_SIZE_MAX: usize = 2 << 20;

type Result<T> = std::result::Result<T, StorageError>;

/// Keys in order.
pub(crate) type Keys<'a> = Box<dyn DoubleEndedIterator<Item = Result<UserKey>> + 'a>;
/// Rows in the order of their keys.
pub(crate) type RowsOf<'a> = Box<dyn DoubleEndedIterator<Item = Result<(UserKey, UserValue)>> + 'a>;

/// A range of keys; never one that ends before it begins.
#[derive(Clone, Debug)]
pub(crate) struct KeyRange(pub(crate) (Bound<Vec<u8>>, Bound<Vec<u8>>));

/// Whoever keeps rows in the order of their keys.
pub(crate) trait Source {
    /// The keys of a range; values that lie elsewhere are not read.
    fn keys(&self, table: Table, range: KeyRange) -> Keys<'_>;
    /// The rows of a range.
    fn rows(&self, table: Table, range: KeyRange) -> RowsOf<'_>;
    /// One value.
    fn value(&self, table: Table, key: &[u8]) -> Result<Option<UserValue>>;
}

/// A page of a search.
pub(crate) fn page(source: &dyn Source, scan: &Scan) -> Result<ScanPage> {
    let request = Page { source, slot: scan.slot, after: scan.after.as_deref() };
    let budget = Budget::new(scan.count_max.max(1));
    match &scan.what {
        ScanOf::List { channel, list } => list::page(&request, channel, *list, budget),
        ScanOf::Channels { made, filter } => channels::page(&request, *made, filter, budget),
        ScanOf::ChannelsOf { id, filter } => channels::of(&request, id, filter),
        ScanOf::Users { made } => users::page(&request, *made, budget),
        ScanOf::User { uid } => users::one(&request, uid),
        ScanOf::Devices { made, device_flag } => {
            users::devices(&request, *made, *device_flag, budget)
        }
        ScanOf::DevicesOf { uid, device_flag } => users::devices_of(&request, uid, *device_flag),
        ScanOf::Conversations { skip } => conversations::page(&request, *skip, budget),
        ScanOf::ChannelMessages { channel, first, last, newest_first, filter } => {
            let wanted = messages::Wanted { newest_first: *newest_first, filter };
            messages::of_channel(&request, channel, (*first, *last), &wanted, budget)
        }
        ScanOf::Messages { above, below, newest_first, filter } => {
            let wanted = messages::Wanted { newest_first: *newest_first, filter };
            messages::page(&request, (*above, *below), &wanted, scan.count_max.max(1))
        }
    }
}

/// What a page is made from.
struct Page<'a> {
    source: &'a dyn Source,
    slot: SlotId,
    after: Option<&'a [u8]>,
}

impl Page<'_> {
    /// The key to go on after. It is one of ours: what it points at lies in `prefix`.
    fn cursor(&self, prefix: &[u8]) -> Result<Option<Vec<u8>>> {
        match self.after {
            Some(after) if after.starts_with(prefix) => Ok(Some(after.to_vec())),
            Some(_) => Err(StorageError::corrupt("search", "cursor")),
            None => Ok(None),
        }
    }

    /// Rows by the time when they were made.
    fn dated(
        &self,
        kind: Kind,
        made: Made,
    ) -> Result<Box<dyn Iterator<Item = Result<UserKey>> + '_>> {
        let prefix = dated::prefix(self.slot, kind);
        let cursor = self.cursor(&prefix)?;
        // Before the first key of the next nanosecond, from the last of this one.
        let low = Bound::Included(match made.after_ns {
            ..0 => prefix.clone(),
            after => dated::time_prefix(self.slot, kind, after.saturating_add(1)),
        });
        let high = if made.before_ns == i64::MAX {
            end_of(&prefix)
        } else {
            Bound::Excluded(dated::time_prefix(self.slot, kind, made.before_ns))
        };
        let (low, high) = match (cursor, made.newest_first) {
            (Some(cursor), true) => (low, Bound::Excluded(cursor)),
            (Some(cursor), false) => (Bound::Excluded(cursor), high),
            (None, _) => (low, high),
        };
        Ok(match (KeyRange::new(low, high), made.newest_first) {
            (None, _) => Box::new(std::iter::empty()),
            (Some(range), true) => Box::new(self.source.keys(Table::Dated, range).rev()),
            (Some(range), false) => Box::new(self.source.keys(Table::Dated, range)),
        })
    }
}

/// What a page may still take.
struct Budget {
    rows: usize,
    size: usize,
    looks: usize,
    is_empty: bool,
}

impl Budget {
    fn new(count_max: usize) -> Self {
        Self { rows: count_max, size: PAGE_SIZE_MAX, looks: LOOK_COUNT_MAX, is_empty: true }
    }

    /// Whether another row may be looked at.
    fn may_look(&self) -> bool {
        self.rows > 0 && self.looks > 0
    }

    /// So many rows were looked at.
    fn look(&mut self, count: usize) {
        self.looks = self.looks.saturating_sub(count);
    }

    /// Takes a row of so many bytes, if there is room.
    fn take(&mut self, size: usize) -> bool {
        let fits = self.rows > 0 && (self.is_empty || size <= self.size);
        if fits {
            self.rows -= 1;
            self.size = self.size.saturating_sub(size);
            self.is_empty = false;
        }
        fits
    }
}

impl KeyRange {
    /// A range; `None` when nothing can lie in it.
    fn new(from: Bound<Vec<u8>>, to: Bound<Vec<u8>>) -> Option<Self> {
        let holds = match (&from, &to) {
            (Bound::Unbounded, _) | (_, Bound::Unbounded) => true,
            (Bound::Included(a), Bound::Included(b)) => a <= b,
            (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) => {
                a < b
            }
        };
        holds.then_some(Self((from, to)))
    }

    /// The keys that begin with `prefix`, after a key if there is one.
    fn after(prefix: &[u8], cursor: Option<Vec<u8>>) -> Option<Self> {
        let from = cursor.map_or_else(|| Bound::Included(prefix.to_vec()), Bound::Excluded);
        Self::new(from, end_of(prefix))
    }

    /// The keys that begin with `prefix`.
    fn of(prefix: &[u8]) -> Self {
        Self((Bound::Included(prefix.to_vec()), end_of(prefix)))
    }
}

/// Where the keys that begin with `prefix` end.
fn end_of(prefix: &[u8]) -> Bound<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if let Some(next) = last.checked_add(1) {
            end.push(next);
            return Bound::Excluded(end);
        }
    }
    Bound::Unbounded
}

/// A cursor that stands on this key.
fn cursor(key: &[u8]) -> Option<Bytes> {
    Some(Bytes::copy_from_slice(key))
}

/// Of several rows of one thing: when the first was made, and the last changed.
fn together(all: impl Iterator<Item = Times>) -> Times {
    all.reduce(|a, b| Times {
        created_ns: a.created_ns.min(b.created_ns),
        updated_ms: a.updated_ms.max(b.updated_ms),
    })
    .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_next_one() {
        assert_eq!(end_of(&[1, 2]), Bound::Excluded(vec![1, 3]));
        assert_eq!(end_of(&[1, 255]), Bound::Excluded(vec![2]));
        assert_eq!(end_of(&[255, 255]), Bound::Unbounded);
        assert_eq!(end_of(&[]), Bound::Unbounded);
    }
}
