//! G8 and G9: who gets a message, and who does not.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Facts, Findings, Membership, Message, Session, key};

pub(super) fn check(facts: &Facts<'_>, found: &mut Findings) {
    let members = Members::new(&facts.history.memberships);
    check_cut(facts, &members, found);
    if facts.history.settled > 0 {
        check_sessions(facts, &members, found);
        check_readers(facts, &members, found);
    }
}

/// Who belongs to which group when.
pub(super) struct Members<'a>(HashMap<&'a str, HashMap<&'a str, Vec<&'a Membership>>>);

impl<'a> Members<'a> {
    pub(super) fn new(memberships: &'a [Membership]) -> Self {
        let mut all: HashMap<&str, HashMap<&str, Vec<&Membership>>> = HashMap::new();
        for change in memberships {
            let of = all.entry(&change.channel).or_default();
            of.entry(&change.uid).or_default().push(change);
        }
        for changes in all.values_mut().flat_map(HashMap::values_mut) {
            changes.sort_by_key(|change| change.sent);
        }
        Self(all)
    }

    /// Changes of one membership, in the order in which they were asked for.
    pub(super) fn changes(&self, channel: &str, uid: &str) -> &[&'a Membership] {
        let changes = self.0.get(channel).and_then(|of| of.get(uid));
        changes.map_or(&[], Vec::as_slice)
    }

    /// Everybody who was ever asked to be in a channel.
    fn of(&self, channel: &str) -> impl Iterator<Item = &'a str> {
        self.0.get(channel).into_iter().flat_map(|of| of.keys().copied())
    }

    /// Whether `uid` was a member throughout, whatever unanswered changes did.
    pub(super) fn must(&self, channel: &str, uid: &str, from: u64, to: u64) -> bool {
        let mut is = false;
        for change in self.changes(channel, uid) {
            if change.added {
                is = is || change.answered.is_some_and(|answered| answered <= from);
            } else if change.sent <= to {
                // Even if it was over before `from`, only a later addition makes sure.
                is = false;
            }
        }
        is
    }

    /// Whether `uid` may have been a member at some moment of this time.
    pub(super) fn may(&self, channel: &str, uid: &str, from: u64, to: u64) -> bool {
        let mut is = false;
        for change in self.changes(channel, uid) {
            if change.added {
                is = is || change.sent <= to;
            } else if change.answered.is_some_and(|answered| answered < from) {
                is = false;
            }
        }
        is
    }
}

/// G9: no RECV of a message that was sent after the removal of its receiver had been acknowledged.
fn check_cut(facts: &Facts<'_>, members: &Members<'_>, found: &mut Findings) {
    for push in &facts.history.pushes {
        if members.changes(&push.channel, &push.uid).is_empty() {
            continue;
        }
        let Some(message) = facts.messages.get(&key(&push.channel, &push.message)) else {
            continue;
        };
        if !members.may(&push.channel, &push.uid, message.sent, push.at) {
            let (channel, uid, seq) = (&push.channel, &push.uid, push.message.seq);
            found.add("G9", format!("{channel}: RECV {seq} went to {uid}, removed before it"));
        }
    }
}

/// Messages of a channel in seq order.
type Placed<'a> = Vec<(u32, &'a str, &'a Message<'a>)>;

fn placed<'a>(facts: &'a Facts<'_>) -> BTreeMap<&'a str, Placed<'a>> {
    let mut channels: BTreeMap<&str, Placed<'_>> = BTreeMap::new();
    for (key, message) in &facts.messages {
        if let Some(seq) = message.seq {
            channels.entry(key.0).or_default().push((seq, key.1, message));
        }
    }
    for all in channels.values_mut() {
        all.sort_unstable_by_key(|(seq, _, _)| *seq);
    }
    channels
}

/// G8: a connection that was open before a message was sent and until all had settled got it; one
/// that was closed earlier got all up to the last that it got.
fn check_sessions(facts: &Facts<'_>, members: &Members<'_>, found: &mut Findings) {
    let channels = placed(facts);
    let mut pushed: HashMap<u64, HashMap<&str, BTreeSet<u32>>> = HashMap::new();
    for push in &facts.history.pushes {
        let of = pushed.entry(push.connection).or_default();
        of.entry(&push.channel).or_default().insert(push.message.seq);
    }
    for session in &facts.history.sessions {
        let got = pushed.remove(&session.connection).unwrap_or_default();
        for (channel, messages) in &channels {
            if members.changes(channel, &session.uid).is_empty() {
                continue;
            }
            let empty = BTreeSet::new();
            let got = got.get(channel).unwrap_or(&empty);
            let missing = missing(session, facts.history.settled, messages, got)
                .filter(|(_, message)| {
                    let end = message.acked.unwrap_or(facts.history.settled);
                    members.must(channel, &session.uid, message.sent, end)
                })
                .map(|(seq, _)| seq);
            let missing: Vec<u32> = missing.collect();
            if let Some(first) = missing.first() {
                let Session { uid, node, connection, .. } = session;
                let text = format!(
                    "{channel}: {} messages from {first} on were not pushed to {uid} (connection \
                     {connection} to {node}, open {}, closed {:?})",
                    missing.len(),
                    session.open,
                    session.closed,
                );
                found.add("G8", text);
            }
        }
    }
}

/// Messages that a session should have got, and did not.
fn missing<'a>(
    session: &'a Session,
    settled: u64,
    messages: &'a Placed<'a>,
    got: &'a BTreeSet<u32>,
) -> impl Iterator<Item = (u32, &'a Message<'a>)> {
    let to_the_end = session.closed.is_none_or(|closed| closed >= settled);
    let last = got.last().copied().unwrap_or(0);
    (messages.iter())
        .filter(move |(seq, sender, message)| {
            let due = to_the_end || *seq < last;
            // What it sent itself goes to its other connections only.
            due && *sender != session.uid && message.sent > session.open && !got.contains(seq)
        })
        .map(|(seq, _, message)| (*seq, *message))
}

/// G8: what a user was pushed, and what it read after each reconnect, leave no gap.
fn check_readers(facts: &Facts<'_>, members: &Members<'_>, found: &mut Findings) {
    let mut known: HashMap<(&str, &str), BTreeSet<u32>> = HashMap::new();
    for push in &facts.history.pushes {
        known.entry((&push.channel, &push.uid)).or_default().insert(push.message.seq);
    }
    let mut users = BTreeSet::new();
    for session in &facts.history.sessions {
        users.insert(session.uid.as_str());
    }
    for read in facts.history.reads.iter().filter(|read| !read.settled) {
        let seqs = read.messages.iter().map(|stored| stored.seq);
        known.entry((&read.channel, &read.reader)).or_default().extend(seqs);
    }
    for (channel, messages) in placed(facts) {
        for uid in members.of(channel).filter(|uid| users.contains(uid)) {
            let known = known.get(&(channel, uid));
            let missing: Vec<u32> = (messages.iter())
                .filter(|(_, sender, _)| *sender != uid)
                .filter(|(seq, _, _)| !known.is_some_and(|known| known.contains(seq)))
                .filter(|(_, _, message)| {
                    let end = message.acked.unwrap_or(facts.history.settled);
                    members.must(channel, uid, message.sent, end)
                })
                .map(|(seq, _, _)| *seq)
                .collect();
            if let Some(first) = missing.first() {
                let count = missing.len();
                let text = format!("{channel}: {uid} never saw {count} messages, first {first}");
                found.add("G8", text);
            }
        }
    }
}
