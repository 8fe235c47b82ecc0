//! Who stands on a list of a channel.

use std::ops::Bound;

use jindou_core::{
    channel_info::List,
    id::ChannelId,
    scan::{ScanPage, ScanRows},
};

use super::{Budget, KeyRange, Page, Result, cursor, end_of};
use crate::keyspace::{Table, list};

pub(super) fn page(
    page: &Page<'_>,
    channel: &ChannelId,
    which: List,
    mut budget: Budget,
) -> Result<ScanPage> {
    let of_channel = list::prefix(page.slot, channel)?;
    let prefix = list::key(page.slot, channel, which, "")?;
    let from = page.cursor(&prefix)?;
    let mut items = Vec::new();
    let mut next = None;
    if let Some(range) = KeyRange::after(&prefix, from) {
        for row in page.source.rows(Table::List, range) {
            let (key, value) = row?;
            let (_, uid) = list::item_of(&of_channel, &key)?;
            if !budget.may_look() || !budget.take(uid.len() + 32) {
                next = items.last().and_then(|(uid, _): &(jindou_core::id::Name, i64)| {
                    list::key(page.slot, channel, which, uid).ok()
                });
                break;
            }
            budget.look(1);
            items.push((uid, list::decode(&value)?));
        }
    }
    Ok(ScanPage { rows: ScanRows::List(items), next: next.and_then(|key| cursor(&key)) })
}

/// How many stand on a list.
pub(super) fn count(page: &Page<'_>, channel: &ChannelId, which: List) -> Result<u64> {
    let prefix = list::key(page.slot, channel, which, "")?;
    let range = KeyRange::new(Bound::Included(prefix.clone()), end_of(&prefix));
    let mut count = 0;
    if let Some(range) = range {
        for key in page.source.keys(Table::List, range) {
            key?;
            count += 1;
        }
    }
    Ok(count)
}
