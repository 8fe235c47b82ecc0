//! G10: what a user has not read, by number.

use std::collections::BTreeMap;

use super::delivery::Members;
use super::{Conversation, Facts, Findings};

pub(super) fn check(facts: &Facts<'_>, found: &mut Findings) {
    check_backwards(facts, found);
    let members = Members::new(&facts.history.memberships);
    let channels = Channels::new(facts);
    for seen in facts.history.conversations.iter().filter(|seen| seen.settled) {
        check_exact(facts, &members, &channels, seen, found);
    }
}

/// A read position never moves back, unless the membership changed and with it the conversation.
fn check_backwards(facts: &Facts<'_>, found: &mut Findings) {
    let history = facts.history;
    let members = Members::new(&history.memberships);
    let mut all: BTreeMap<(&str, &str), Vec<&Conversation>> = BTreeMap::new();
    for seen in &history.conversations {
        all.entry((&seen.channel, &seen.uid)).or_default().push(seen);
    }
    for ((channel, uid), mut all) in all {
        if members.changes(channel, uid).len() > 1 {
            continue;
        }
        all.sort_by_key(|seen| seen.end);
        let mut highest = (0, 0);
        let mut later: Vec<_> = all.iter().map(|seen| (seen.start, seen.state)).collect();
        later.sort_by_key(|(start, _)| *start);
        let mut ends = all.iter();
        let mut next = ends.next();
        for (start, state) in later {
            while let Some(seen) = next.filter(|seen| seen.end < start) {
                if let Some(counts) = seen.state.filter(|counts| counts.read_seq > highest.0) {
                    highest = (counts.read_seq, seen.end);
                }
                next = ends.next();
            }
            if let Some(counts) = state.filter(|counts| counts.read_seq < highest.0) {
                let (now, was) = (counts.read_seq, highest.0);
                found.add("G10", format!("{channel}: {uid} had read {was}, later {now}"));
            }
        }
    }
}

/// When a message was sent and acknowledged, and its seq.
type Placed = (u64, Option<u64>, u32);

/// Bounds of the last seq of each channel at a moment.
struct Channels<'a>(BTreeMap<&'a str, Vec<Placed>>);

impl<'a> Channels<'a> {
    fn new(facts: &Facts<'a>) -> Self {
        let mut all: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for (key, message) in &facts.messages {
            if let Some(seq) = message.seq {
                all.entry(key.0).or_default().push((message.sent, message.acked, seq));
            }
        }
        Self(all)
    }

    /// At least so much was there at `at`.
    fn low(&self, channel: &str, at: u64) -> u32 {
        let all = self.0.get(channel).into_iter().flatten();
        let there = all.filter(|(_, acked, _)| acked.is_some_and(|acked| acked < at));
        there.map(|(_, _, seq)| *seq).max().unwrap_or(0)
    }

    /// No more was there at `at`.
    fn high(&self, channel: &str, at: u64) -> u32 {
        let all = self.0.get(channel).into_iter().flatten();
        all.filter(|(sent, _, _)| *sent <= at).map(|(_, _, seq)| *seq).max().unwrap_or(0)
    }
}

/// unread = last seq − read seq, where the read seq is at least the user's own last one.
fn check_exact(
    facts: &Facts<'_>,
    members: &Members<'_>,
    channels: &Channels<'_>,
    seen: &Conversation,
    found: &mut Findings,
) {
    let Some(read) = facts.settled.get(seen.channel.as_str()) else {
        return;
    };
    let (channel, uid, last) = (&seen.channel, &seen.uid, read.last());
    if last == 0 || !members.must(channel, uid, seen.start, seen.end) {
        return;
    }
    let Some(counts) = seen.state else {
        found.add("G10", format!("{channel}: no conversation of {uid}"));
        return;
    };
    let own = read.messages.iter().filter(|stored| stored.from == *uid);
    let own = own.map(|stored| stored.seq).max().unwrap_or(0);
    // Joining again begins at the end of the channel.
    let changes = members.changes(channel, uid);
    let joined = changes.iter().rev().find(|change| change.added);
    let again = joined.filter(|_| changes.len() > 1);
    let (mut low, mut high, mut since) = (0, 0, 0);
    if let Some(joined) = again {
        low = channels.low(channel, joined.sent);
        high = joined.answered.map_or(last, |at| channels.high(channel, at));
        since = joined.answered.unwrap_or(u64::MAX);
    }
    for position in &facts.history.positions {
        if position.channel != *channel || position.uid != *uid || position.sent < since {
            continue;
        }
        if position.answered.is_some() {
            low = low.max(channels.low(channel, position.sent));
        }
        high = high.max(position.answered.map_or(last, |at| channels.high(channel, at)));
    }
    let (low, high) = (low.max(own).min(last), high.max(own).min(last));
    let right = last - high..=last - low;
    if counts.last_seq != last || !right.contains(&counts.unread) {
        let text = format!(
            "{channel}: {uid} has {counts:?} where last is {last}, unread within {right:?}"
        );
        found.add("G10", text);
    }
}
