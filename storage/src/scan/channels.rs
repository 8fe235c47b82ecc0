//! Channels, with how many stand on their lists and their last message.

use jindou_core::{
    channel_info::List,
    id::ChannelId,
    row::Dated,
    scan::{ChannelFilter, ChannelSummary, Made, ScanPage, ScanRows},
};

use super::{Budget, KeyRange, Page, Result, cursor, list};
use crate::{
    error::StorageError,
    keyspace::{
        Table, channel,
        dated::{self, Kind},
        message,
    },
};

/// Channels by the time when they were made.
pub(super) fn page(
    page: &Page<'_>,
    made: Made,
    filter: &ChannelFilter,
    mut budget: Budget,
) -> Result<ScanPage> {
    let mut channels = Vec::new();
    let mut last = None;
    let mut next = None;
    for key in page.dated(Kind::Channel, made)? {
        let key = key?;
        if !budget.may_look() {
            next = last;
            break;
        }
        budget.look(1);
        let (_, Dated::Channel(channel), _) = dated::parse_key(&key)? else {
            return Err(StorageError::corrupt(dated::NAME, "key"));
        };
        if let Some(found) = summary(page, channel, filter, &mut budget)? {
            if !budget.take(found.channel.id.len() + 128) {
                next = last;
                break;
            }
            channels.push(found);
        }
        last = Some(key);
    }
    let next = next.and_then(|key| cursor(&key));
    Ok(ScanPage { rows: ScanRows::Channels(channels), next })
}

/// The channels of one id, of any type: there are not more than 256.
pub(super) fn of(page: &Page<'_>, id: &str, filter: &ChannelFilter) -> Result<ScanPage> {
    let mut budget = Budget::new(usize::MAX);
    let mut channels = Vec::new();
    for kind in 0..=u8::MAX {
        channels.extend(summary(page, ChannelId::new(id, kind), filter, &mut budget)?);
    }
    Ok(ScanPage { rows: ScanRows::Channels(channels), next: None })
}

/// A channel, if it has flags and passes the filter. What costs most is looked at last.
fn summary(
    page: &Page<'_>,
    channel: ChannelId,
    filter: &ChannelFilter,
    budget: &mut Budget,
) -> Result<Option<ChannelSummary>> {
    if filter.kind.is_some_and(|kind| kind != channel.kind) {
        return Ok(None);
    }
    let row = page.source.value(Table::Channel, &channel::key(page.slot, &channel)?)?;
    let Some(row) = row else { return Ok(None) };
    let (info, times) = channel::decode(&row)?;
    if filter.ban.is_some_and(|ban| ban != info.ban)
        || filter.disband.is_some_and(|disband| disband != info.disband)
    {
        return Ok(None);
    }
    let mut count = |which| -> Result<u64> {
        let count = list::count(page, &channel, which)?;
        budget.look(usize::try_from(count).unwrap_or(usize::MAX));
        Ok(count)
    };
    let (deny, allow, members) = (count(List::Deny)?, count(List::Allow)?, count(List::Members)?);
    if !(filter.deny.holds(deny) && filter.allow.holds(allow) && filter.members.holds(members)) {
        return Ok(None);
    }
    let (last_seq, last_timestamp) = last_message(page, &channel)?;
    Ok(Some(ChannelSummary {
        channel,
        info,
        times,
        members,
        deny,
        allow,
        last_seq,
        last_timestamp,
    }))
}

/// Seq and time of a channel's last message.
fn last_message(page: &Page<'_>, channel: &ChannelId) -> Result<(u64, i64)> {
    let range = KeyRange::of(&message::prefix(page.slot, channel)?);
    let Some(row) = page.source.rows(Table::Message, range).next_back() else {
        return Ok((0, 0));
    };
    let (key, value) = row?;
    let seq = message::seq_of(&key)?;
    Ok((seq, message::decode(channel, seq, &value)?.timestamp))
}
