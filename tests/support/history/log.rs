//! G1 to G7: what a channel is.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Facts, Findings, History, Key, Message, Outcome, Read, key};
use crate::support::api::Stored;

pub(super) fn check(facts: &Facts<'_>, found: &mut Findings) {
    let Facts { history, messages, settled } = facts;
    check_dense(history, found);
    check_one_order(history, found);
    check_once(settled, found);
    check_known(history, messages, found);
    check_kept(messages, settled, found);
    check_real_time(messages, found);
    check_written_order(messages, found);
    check_push_order(history, found);
    check_fresh(facts, found);
    check_forward(history, found);
}

pub(super) fn gather<'a>(
    history: &'a History,
    found: &mut Findings,
) -> HashMap<Key<'a>, Message<'a>> {
    let mut messages: HashMap<Key<'_>, Message<'_>> = HashMap::new();
    for attempt in &history.attempts {
        let key =
            (attempt.channel.as_str(), attempt.sender.as_str(), attempt.client_msg_no.as_str());
        let message = messages.entry(key).or_insert_with(|| Message {
            wanted: u64::MAX,
            sent: u64::MAX,
            ..Message::default()
        });
        message.wanted = message.wanted.min(attempt.wanted);
        message.sent = message.sent.min(attempt.sent);
        if let Outcome::Acked { at, id, seq } = attempt.outcome {
            message.acked = Some(message.acked.map_or(at, |first| first.min(at)));
            for other in &message.attempts {
                let Outcome::Acked { id: other_id, seq: other_seq, .. } = other.outcome else {
                    continue;
                };
                let same_seq = seq.is_none() || other_seq.is_none() || seq == other_seq;
                if other_id != id || !same_seq {
                    let first = (other_id, other_seq);
                    found.add("G4", format!("{key:?} got {first:?}, sent again {:?}", (id, seq)));
                }
            }
        }
        message.attempts.push(attempt);
    }
    messages
}

/// G2: 1..n without a hole.
fn check_dense(history: &History, found: &mut Findings) {
    for read in &history.reads {
        for (expected, stored) in (read.from..).zip(&read.messages) {
            if stored.seq != expected {
                let (channel, got) = (&read.channel, stored.seq);
                found.add("G2", format!("{channel}: seq {got} where {expected} should be"));
                break;
            }
        }
    }
}

/// G2, G3: a seq names one message, for every reader, whatever the way.
fn check_one_order(history: &History, found: &mut Findings) {
    let mut named: HashMap<(&str, u32), &Stored> = HashMap::new();
    let reads = history
        .reads
        .iter()
        .flat_map(|read| read.messages.iter().map(|stored| (read.channel.as_str(), stored)));
    let pushes = history.pushes.iter().map(|push| (push.channel.as_str(), &push.message));
    for (channel, stored) in reads.chain(pushes) {
        let first = *named.entry((channel, stored.seq)).or_insert(stored);
        if first.payload != stored.payload {
            found.add("G2", format!("{channel} seq {} carries two payloads", stored.seq));
        } else if first != stored {
            found.add("G3", format!("{channel}: {first:?} and {stored:?} have one seq"));
        }
    }
}

/// G4: a client_msg_no of a sender stands once in a channel, and no id stands twice.
fn check_once(settled: &BTreeMap<&str, &Read>, found: &mut Findings) {
    for (channel, read) in settled {
        let (mut numbers, mut ids) = (HashMap::new(), HashMap::new());
        for stored in &read.messages {
            let number = (stored.from.as_str(), stored.client_msg_no.as_str());
            if let Some(first) = numbers.insert(number, stored.seq) {
                found.add("G4", format!("{channel}: {number:?} at {first} and {}", stored.seq));
            }
            if let Some(first) = ids.insert(stored.id, stored.seq) {
                let (id, again) = (stored.id, stored.seq);
                found.add("G3", format!("{channel}: id {id} at {first} and {again}"));
            }
        }
    }
}

/// G5: what is read was sent, and not refused.
fn check_known(history: &History, messages: &HashMap<Key<'_>, Message<'_>>, found: &mut Findings) {
    let reads = (history.reads.iter())
        .flat_map(|read| read.messages.iter().map(|stored| (read.channel.as_str(), stored)));
    let pushes = history.pushes.iter().map(|push| (push.channel.as_str(), &push.message));
    let mut seen = HashSet::new();
    for (channel, stored) in reads.chain(pushes) {
        let key = key(channel, stored);
        if !seen.insert((key, stored.seq, &stored.payload)) {
            continue;
        }
        let Some(message) = messages.get(&key) else {
            found.add("G5", format!("{key:?} was never sent"));
            continue;
        };
        if message.attempts.iter().all(|attempt| attempt.payload != stored.payload) {
            found.add("G5", format!("{key:?} was sent with another payload"));
        }
        if message.attempts.iter().all(|attempt| attempt.is_refused()) {
            found.add("G5", format!("{key:?} was refused and is there"));
        }
    }
}

/// G1: what was acknowledged is there, as it was acknowledged.
fn check_kept(
    messages: &HashMap<Key<'_>, Message<'_>>,
    settled: &BTreeMap<&str, &Read>,
    found: &mut Findings,
) {
    for (key, message) in messages {
        let Some(read) = settled.get(key.0) else {
            continue;
        };
        for attempt in &message.attempts {
            let Outcome::Acked { id, seq, .. } = attempt.outcome else {
                continue;
            };
            let stored = match message.seq {
                Some(place) => read.messages.get(place as usize - 1),
                None => None,
            };
            let Some(stored) = stored else {
                found.add("G1", format!("{key:?} was acknowledged as {seq:?} and is missing"));
                continue;
            };
            if stored.id != id || seq.is_some_and(|seq| seq != stored.seq) {
                let (is, was) = ((stored.id, stored.seq), (id, seq));
                found.add("G1", format!("{key:?} was acknowledged as {was:?} and is {is:?}"));
            }
        }
    }
}

/// G6: acknowledged before another was sent means a lower seq.
fn check_real_time(messages: &HashMap<Key<'_>, Message<'_>>, found: &mut Findings) {
    let mut channels: BTreeMap<&str, Vec<(u32, &Message<'_>)>> = BTreeMap::new();
    for (key, message) in messages {
        if let Some(seq) = message.seq {
            channels.entry(key.0).or_default().push((seq, message));
        }
    }
    for (channel, mut placed) in channels {
        placed.sort_by_key(|(seq, _)| *seq);
        // The latest sent among those before; nothing after may have been acknowledged by then.
        let mut latest = (0, 0);
        for (seq, message) in placed {
            if message.acked.is_some_and(|acked| acked < latest.1) {
                let before = latest.0;
                found.add(
                    "G6",
                    format!("{channel}: {seq} was acknowledged before {before} was sent"),
                );
            }
            if message.sent > latest.1 {
                latest = (seq, message.sent);
            }
        }
    }
}

/// G6: one connection's sends to a channel keep the order in which they were written. Only messages
/// with a single attempt count: which of several was taken cannot be told.
fn check_written_order(messages: &HashMap<Key<'_>, Message<'_>>, found: &mut Findings) {
    let mut written: BTreeMap<(u64, &str), Vec<(u64, u32)>> = BTreeMap::new();
    for (key, message) in messages {
        if let (&[only], Some(seq)) = (message.attempts.as_slice(), message.seq) {
            written.entry((only.connection, key.0)).or_default().push((only.place, seq));
        }
    }
    for ((connection, channel), mut places) in written {
        places.sort_unstable();
        for pair in places.windows(2) {
            if pair[0].1 > pair[1].1 {
                let text =
                    format!("{channel}: connection {connection} wrote {pair:?} (place, seq)");
                found.add("G6", text);
            }
        }
    }
}

/// G6: RECVs of a channel leave a connection in seq order; only a repeated one may look back.
fn check_push_order(history: &History, found: &mut Findings) {
    let mut last: HashMap<(u64, &str), (u32, HashSet<i64>)> = HashMap::new();
    for push in &history.pushes {
        let (seq, ids) = last.entry((push.connection, &push.channel)).or_default();
        let message = &push.message;
        if message.seq == 0 || !ids.insert(message.id) {
            continue;
        }
        if message.seq <= *seq {
            let (channel, uid, got) = (&push.channel, &push.uid, message.seq);
            found.add("G6", format!("{channel}: RECV {got} of {uid} came after {seq}"));
        }
        *seq = message.seq.max(*seq);
    }
}

/// G7: a read holds all that was acknowledged before it began, by whichever node. Reads are dense
/// (G2), so the highest acknowledged seq tells.
fn check_fresh(facts: &Facts<'_>, found: &mut Findings) {
    let mut acked: HashMap<&str, Vec<(u64, u32, &str)>> = HashMap::new();
    for (key, message) in &facts.messages {
        for attempt in &message.attempts {
            let Outcome::Acked { at, seq, .. } = attempt.outcome else {
                continue;
            };
            if let Some(seq) = seq.or(message.seq) {
                acked.entry(key.0).or_default().push((at, seq, key.2));
            }
        }
    }
    for all in acked.values_mut() {
        all.sort_unstable();
        let mut highest = (0, "");
        for (_, seq, number) in all {
            if *seq > highest.0 {
                highest = (*seq, *number);
            }
            (*seq, *number) = highest;
        }
    }
    for read in &facts.history.reads {
        let Some(all) = acked.get(read.channel.as_str()) else {
            continue;
        };
        let before = all.partition_point(|(at, _, _)| *at < read.start);
        if let Some((_, seq, number)) = before.checked_sub(1).and_then(|last| all.get(last))
            && *seq > read.last()
        {
            let (channel, reader, end) = (&read.channel, &read.reader, read.last());
            let text = format!(
                "{channel}: {reader} read to {end} without {number} ({seq}), acknowledged before"
            );
            found.add("G7", text);
        }
    }
}

/// G7: no reader sees a channel go back: not behind an earlier read, not behind what was pushed.
fn check_forward(history: &History, found: &mut Findings) {
    /// What a reader saw, in the order of the moments from which it counts.
    enum Seen {
        Known(u32),
        Read(u32),
    }
    let mut readers: BTreeMap<(&str, &str), Vec<(u64, Seen)>> = BTreeMap::new();
    for read in &history.reads {
        let all = readers.entry((&read.channel, &read.reader)).or_default();
        all.push((read.end, Seen::Known(read.last())));
        all.push((read.start, Seen::Read(read.last())));
    }
    for push in &history.pushes {
        let all = readers.entry((&push.channel, &push.uid)).or_default();
        all.push((push.at, Seen::Known(push.message.seq)));
    }
    for ((channel, reader), mut all) in readers {
        // A read that begins when another ends does not come after it.
        all.sort_by_key(|(at, seen)| (*at, matches!(seen, Seen::Known(_))));
        let mut known = 0;
        for (_, seen) in all {
            match seen {
                Seen::Known(seq) => known = known.max(seq),
                Seen::Read(last) if last < known => {
                    found.add("G7", format!("{channel} went back for {reader}: {last} < {known}"));
                }
                Seen::Read(_) => {}
            }
        }
    }
}
