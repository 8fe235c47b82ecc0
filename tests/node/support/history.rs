//! The checker: what clients did and saw, held against G1 to G7.
//!
//! A time-out or a lost connection makes an attempt *unknown*: its message may be there, once, or
//! not at all. Times are nanoseconds of one clock; an attempt counts as sent just before its bytes
//! are written, as answered just after they were read, so every rule errs on the safe side.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::api::Stored;

/// One attempt to send a message. The same (sender, client_msg_no) may be attempted again.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// The channel, by one name for all its members.
    pub channel: String,
    pub sender: String,
    pub client_msg_no: String,
    pub payload: Vec<u8>,
    /// Which connection; every HTTP request is one of its own.
    pub connection: u64,
    /// Place among the writes of that connection.
    pub place: u64,
    pub sent: u64,
    pub outcome: Outcome,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Success was answered. HTTP tells no seq.
    Acked {
        at: u64,
        id: i64,
        seq: Option<u32>,
    },
    /// A refusal was answered.
    Refused {
        reason: u8,
    },
    Unknown,
}

/// A whole history of a channel, as one reader got it.
#[derive(Clone, Debug)]
pub struct Read {
    pub channel: String,
    pub reader: String,
    pub start: u64,
    pub end: u64,
    pub messages: Vec<Stored>,
}

/// A RECV, in the order in which its connection got them.
#[derive(Clone, Debug)]
pub struct Push {
    pub channel: String,
    pub connection: u64,
    pub message: Stored,
}

/// All that was done and seen. The last read of each channel is the settled one.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub attempts: Vec<Attempt>,
    pub reads: Vec<Read>,
    pub pushes: Vec<Push>,
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// `G1` to `G7`.
    pub rule: &'static str,
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.text)
    }
}

/// What is known of a message over all its attempts.
#[derive(Default)]
struct Message<'a> {
    attempts: Vec<&'a Attempt>,
    /// First moment at which it may have been taken.
    sent: u64,
    /// First moment at which it was acknowledged.
    acked: Option<u64>,
    /// Where it stands in the settled history.
    seq: Option<u32>,
}

type Key<'a> = (&'a str, &'a str, &'a str);

/// Everything in `history` that breaks G1 to G7; empty when all hold.
pub fn check(history: &History) -> Vec<Violation> {
    let mut found = Findings::default();
    let mut messages = gather(history, &mut found);
    let settled: BTreeMap<&str, &Read> =
        history.reads.iter().map(|read| (read.channel.as_str(), read)).collect();
    for read in settled.values() {
        for stored in &read.messages {
            let key = (read.channel.as_str(), stored.from.as_str(), stored.client_msg_no.as_str());
            if let Some(message) = messages.get_mut(&key) {
                message.seq.get_or_insert(stored.seq);
            }
        }
    }
    check_dense(history, &mut found);
    check_one_order(history, &mut found);
    check_once(&settled, &mut found);
    check_known(history, &messages, &mut found);
    check_kept(&messages, &settled, &mut found);
    check_real_time(&messages, &mut found);
    check_written_order(&messages, &mut found);
    check_push_order(history, &mut found);
    check_reads(history, &mut found);
    found.0
}

/// Panics with the first violations, if there are any.
pub fn assert_holds(history: &History) {
    let found = check(history);
    let first: Vec<_> = found.iter().take(12).map(ToString::to_string).collect();
    assert!(found.is_empty(), "{} violations:\n  {}", found.len(), first.join("\n  "));
}

#[derive(Default)]
struct Findings(Vec<Violation>);

impl Findings {
    fn add(&mut self, rule: &'static str, text: String) {
        self.0.push(Violation { rule, text });
    }
}

fn gather<'a>(history: &'a History, found: &mut Findings) -> HashMap<Key<'a>, Message<'a>> {
    let mut messages: HashMap<Key<'_>, Message<'_>> = HashMap::new();
    for attempt in &history.attempts {
        let key =
            (attempt.channel.as_str(), attempt.sender.as_str(), attempt.client_msg_no.as_str());
        let message =
            messages.entry(key).or_insert_with(|| Message { sent: u64::MAX, ..Message::default() });
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
        for (expected, stored) in (1..).zip(&read.messages) {
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
    for read in &history.reads {
        for stored in &read.messages {
            let key = (read.channel.as_str(), stored.from.as_str(), stored.client_msg_no.as_str());
            let Some(message) = messages.get(&key) else {
                found.add("G5", format!("{key:?} was never sent"));
                continue;
            };
            if message.attempts.iter().all(|attempt| attempt.payload != stored.payload) {
                found.add("G5", format!("{key:?} was sent with another payload"));
            }
            let mut outcomes = message.attempts.iter().map(|attempt| attempt.outcome);
            if outcomes.all(|outcome| matches!(outcome, Outcome::Refused { .. })) {
                found.add("G5", format!("{key:?} was refused and is there"));
            }
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

/// G6: one connection's sends to a channel keep the order in which they were written. Only first
/// attempts count: what is sent again keeps the place of the first time.
fn check_written_order(messages: &HashMap<Key<'_>, Message<'_>>, found: &mut Findings) {
    let mut written: BTreeMap<(u64, &str), Vec<(u64, u32)>> = BTreeMap::new();
    for (key, message) in messages {
        let first = message.attempts.iter().min_by_key(|attempt| attempt.sent);
        if let (Some(first), Some(seq)) = (first, message.seq) {
            let place = (first.place, seq);
            written.entry((first.connection, key.0)).or_default().push(place);
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
    let mut last: HashMap<(u64, &str), (u32, Vec<i64>)> = HashMap::new();
    for push in &history.pushes {
        let (seq, ids) = last.entry((push.connection, &push.channel)).or_default();
        let message = &push.message;
        if message.seq == 0 || ids.contains(&message.id) {
            continue;
        }
        if message.seq <= *seq {
            let (channel, got) = (&push.channel, message.seq);
            found.add("G6", format!("{channel}: RECV {got} came after {seq}"));
        }
        *seq = message.seq.max(*seq);
        // A repeat comes a minute later; what was pushed lately is enough to know one.
        if ids.len() == 4096 {
            ids.clear();
        }
        ids.push(message.id);
    }
}

/// G7: a read holds all that was acknowledged before it began, and no reader sees a channel shrink.
fn check_reads(history: &History, found: &mut Findings) {
    let mut acked: HashMap<&str, Vec<(u64, &Attempt)>> = HashMap::new();
    for attempt in &history.attempts {
        if let Outcome::Acked { at, .. } = attempt.outcome {
            acked.entry(&attempt.channel).or_default().push((at, attempt));
        }
    }
    for read in &history.reads {
        let numbers: HashMap<_, _> = (read.messages.iter())
            .map(|stored| ((stored.from.as_str(), stored.client_msg_no.as_str()), stored.seq))
            .collect();
        for (at, attempt) in acked.get(read.channel.as_str()).into_iter().flatten() {
            let number = (attempt.sender.as_str(), attempt.client_msg_no.as_str());
            if *at < read.start && !numbers.contains_key(&number) {
                let (channel, reader) = (&read.channel, &read.reader);
                found.add(
                    "G7",
                    format!("{channel}: {reader} read without {number:?}, acknowledged before"),
                );
            }
        }
    }
    for (place, read) in history.reads.iter().enumerate() {
        let earlier = history.reads[..place].iter().rev().find(|earlier| {
            earlier.channel == read.channel
                && earlier.reader == read.reader
                && earlier.end < read.start
        });
        let went_back = earlier.is_some_and(|earlier| earlier.messages.len() > read.messages.len());
        if went_back {
            let (channel, reader) = (&read.channel, &read.reader);
            found.add("G7", format!("{channel} went back for {reader}"));
        }
    }
}

mod tests;
