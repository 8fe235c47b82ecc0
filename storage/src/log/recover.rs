//! Finds out at start what each generation holds.
//!
//! Within a generation, what a group appended is one run of indexes, and so is each range that was
//! carried over from older generations; so two lookups tell a run's ends and nothing is scanned.
//! Generations are taken from the oldest to the youngest, and the younger one is right:
//!
//! - an appended run ends everything that older generations hold from its first index on (there
//!   was a truncation, or there is nothing);
//! - a carried range replaces what older generations hold within it, and nothing else.
//!
//! ```text
//!  log-0   1 2 3 4 5 6                                 being cleared: its 5 6 are stale
//!  log-1               7 8 9
//!  log-2   . . . . 5 6         carried 5..=6
//!  log-2                     10 11 12                  appended later
//! ```

use std::collections::{BTreeMap, BTreeSet};

use fjall::Keyspace;

use super::{index::GroupIndex, store::read_error};
use crate::{
    error::StorageError,
    keyspace::{log_carried, log_entry},
};

type Result<T> = std::result::Result<T, StorageError>;

/// Adds what a generation holds to the index, younger generations last. Gives how many entries
/// that is.
pub(super) fn generation(
    keyspace: &Keyspace,
    order: u64,
    index: &mut BTreeMap<u16, GroupIndex>,
) -> Result<u64> {
    let carried = carried(keyspace)?;
    let mut groups: BTreeSet<u16> = carried.keys().copied().collect();
    let mut from = 0;
    while let Some((group, _)) = first_entry(keyspace, (from, 0), (u16::MAX, u64::MAX))? {
        groups.insert(group);
        match group.checked_add(1) {
            Some(next) => from = next,
            None => break,
        }
    }
    let mut count = 0;
    for group in groups {
        let known = index.entry(group).or_default();
        let mut from = Some(0);
        for (first, last) in carried.get(&group).into_iter().flatten().copied() {
            if let (Some(from), Some(before)) = (from, first.checked_sub(1))
                && let Some((first, last)) = run(keyspace, group, from, before)?
            {
                count += last - first + 1;
                known.add(first, last, order);
            }
            known.forget(first, last);
            if let Some((first, last)) = run(keyspace, group, first, last)? {
                count += last - first + 1;
                known.insert(first, last, order);
            }
            from = last.checked_add(1);
        }
        if let Some(from) = from
            && let Some((first, last)) = run(keyspace, group, from, u64::MAX)?
        {
            count += last - first + 1;
            known.add(first, last, order);
        }
    }
    Ok(count)
}

/// The carried ranges of each group, ascending.
fn carried(keyspace: &Keyspace) -> Result<BTreeMap<u16, Vec<(u64, u64)>>> {
    let mut carried: BTreeMap<u16, Vec<(u64, u64)>> = BTreeMap::new();
    for row in keyspace.range(log_carried::ROWS) {
        let (key, value) = row.into_inner().map_err(read_error)?;
        let (group, first) = log_carried::parse_key(&key)?;
        carried.entry(group).or_default().push((first, log_carried::decode(&value)?));
    }
    Ok(carried)
}

/// The first and last index from `first` to `last` that the generation holds.
fn run(keyspace: &Keyspace, group: u16, first: u64, last: u64) -> Result<Option<(u64, u64)>> {
    let Some((_, first)) = first_entry(keyspace, (group, first), (group, last))? else {
        return Ok(None);
    };
    let range = log_entry::key(group, first)..=log_entry::key(group, last);
    let last = match keyspace.range(range).next_back() {
        Some(row) => log_entry::parse_key(&row.key().map_err(read_error)?)?.1,
        None => first,
    };
    Ok(Some((first, last)))
}

fn first_entry(
    keyspace: &Keyspace,
    from: (u16, u64),
    to: (u16, u64),
) -> Result<Option<(u16, u64)>> {
    let range = log_entry::key(from.0, from.1)..=log_entry::key(to.0, to.1);
    let Some(row) = keyspace.range(range).next() else {
        return Ok(None);
    };
    log_entry::parse_key(&row.key().map_err(read_error)?).map(Some)
}
