//! G12 to G14: a cluster with a majority takes writes, soon after anything that happens to it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::delivery::Members;
use super::{Facts, Fault, Findings, History, Kind, Limits, Message};

/// Acknowledgements of a failover are looked at for so long after it began.
const LOOK: u64 = 30_000_000_000;

pub(super) fn check(facts: &Facts<'_>, limits: &Limits, found: &mut Findings) {
    if facts.history.faults.is_empty() {
        return;
    }
    let heal = limits.heal.as_nanos() as u64;
    let waits = waits(facts);
    check_writes(facts.history, &waits, heal, found);
    check_silence(facts.history, limits, found);
    check_refusals(facts, found);
    for fault in &facts.history.faults {
        match fault.kind {
            Kind::Kill | Kind::Wipe if fault.quorum && fault.nodes.len() == 1 => {
                check_failover(facts.history, &waits, fault, limits, found);
            }
            Kind::Stop | Kind::Join if fault.quorum => check_graceful(facts, fault, found),
            _ => {}
        }
        if fault.kind == Kind::Join {
            check_spread(facts.history, fault, found);
        }
    }
}

/// Times in which a channel owed an acknowledgement and gave none.
type Waits<'a> = BTreeMap<&'a str, Vec<(u64, u64)>>;

fn waits<'a>(facts: &Facts<'a>) -> Waits<'a> {
    let mut channels: BTreeMap<&str, Vec<(u64, u64)>> = BTreeMap::new();
    let end = facts.history.attempts.iter().map(|attempt| attempt.sent).max().unwrap_or(0);
    let end = end.max(facts.history.settled);
    for (key, message) in &facts.messages {
        let acked = match message.acked {
            Some(acked) => acked,
            None if message.attempts.iter().any(|attempt| attempt.is_refused()) => continue,
            None => end,
        };
        channels.entry(key.0).or_default().push((acked, message.wanted));
    }
    let mut out = Waits::new();
    for (channel, mut all) in channels {
        all.sort_unstable();
        // The earliest wanted of those that are acknowledged here or later.
        let mut owed = u64::MAX;
        let mut places: Vec<(u64, u64)> = Vec::new();
        for (acked, wanted) in all.iter().rev() {
            owed = owed.min(*wanted);
            places.push((owed, *acked));
        }
        places.reverse();
        let mut last = 0;
        for (owed, acked) in places {
            let from = owed.max(last);
            if acked > from {
                out.entry(channel).or_default().push((from, acked));
            }
            last = acked;
        }
    }
    out
}

/// G12: with a majority, and some time after it has come back, every channel takes writes.
fn check_writes(history: &History, waits: &Waits<'_>, heal: u64, found: &mut Findings) {
    let mut excused: Vec<(u64, u64)> = (history.faults.iter())
        .filter(|fault| !fault.quorum)
        .map(|fault| (fault.start, fault.end))
        .collect();
    excused.sort_unstable();
    for (channel, waits) in waits {
        for (from, to) in waits {
            let mut from = *from;
            let mut longest = (0, from);
            for (start, end) in &excused {
                if *start < *to && *end > from {
                    longest = longest.max((start.saturating_sub(from), from));
                    from = *end;
                }
            }
            longest = longest.max((to.saturating_sub(from), from));
            if longest.0 > heal {
                let wait = Duration::from_nanos(longest.0);
                let text = format!(
                    "{channel} acknowledged nothing for {wait:?} from {} on, with a majority alive",
                    longest.1
                );
                found.add("G12", text);
            }
        }
    }
}

/// A request gets an answer, or a reason to try again: never silence.
fn check_silence(history: &History, limits: &Limits, found: &mut Findings) {
    for silence in &history.silences {
        // A node that is cut off from the others still answers its clients.
        let touched = |fault: &Fault| {
            let during = fault.start <= silence.to && fault.end >= silence.from;
            let harmed = match fault.kind {
                Kind::Slow => true,
                Kind::Cut | Kind::Flap | Kind::Join => false,
                Kind::Kill | Kind::Pause | Kind::Vanish | Kind::Wipe | Kind::Stop => {
                    fault.nodes.contains(&silence.node)
                }
            };
            during && harmed
        };
        let wait = silence.to - silence.from;
        if Duration::from_nanos(wait) >= limits.answer && !history.faults.iter().any(touched) {
            let (what, node) = (&silence.what, silence.node);
            let wait = Duration::from_nanos(wait);
            found.add("G12", format!("{node} answered nothing for {wait:?} to {what}"));
        }
    }
}

/// A member is not refused for good, whatever state the cluster is in: that would end its message.
fn check_refusals(facts: &Facts<'_>, found: &mut Findings) {
    let members = Members::new(&facts.history.memberships);
    for attempt in facts.history.attempts.iter().filter(|attempt| attempt.is_refused()) {
        let (channel, sender) = (&attempt.channel, &attempt.sender);
        if members.must(channel, sender, attempt.sent, u64::MAX) {
            let (number, outcome) = (&attempt.client_msg_no, attempt.outcome);
            found.add("G12", format!("{channel}: {number} of {sender} ended with {outcome:?}"));
        }
    }
}

/// Longest time without an acknowledgement that was owed, over the channels.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gaps {
    pub channels: usize,
    pub p50: Duration,
    pub p99: Duration,
    pub max: Duration,
}

impl fmt::Display for Gaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { channels, p50, p99, max } = self;
        write!(f, "p50 {p50:.0?}, p99 {p99:.0?}, max {max:.0?} over {channels} channels")
    }
}

fn longest(waits: &Waits<'_>, from: u64, to: u64) -> Gaps {
    let one = |waits: &Vec<(u64, u64)>| {
        let overlap = waits.iter().filter(|(start, end)| *end >= from && *start <= to);
        overlap.map(|(start, end)| end - start).max().unwrap_or(0)
    };
    let mut all: Vec<u64> = waits.values().map(one).collect();
    all.sort_unstable();
    let at = |share: usize| {
        let place = (all.len() * share).div_ceil(100).max(1) - 1;
        Duration::from_nanos(all.get(place).copied().unwrap_or(0))
    };
    Gaps { channels: all.len(), p50: at(50), p99: at(99), max: at(100) }
}

/// Gaps of every fault, in the order of the faults.
pub fn gaps(history: &History) -> Vec<Gaps> {
    let facts = Facts::gather(history, &mut Findings::default());
    let waits = waits(&facts);
    history.faults.iter().map(|fault| longest(&waits, fault.start, until(history, fault))).collect()
}

/// How long the effects of a fault are its own.
fn until(history: &History, fault: &Fault) -> u64 {
    let later = history.faults.iter().map(|other| other.start).filter(|at| *at > fault.start);
    later.min().unwrap_or(u64::MAX).min(fault.end.max(fault.start.saturating_add(LOOK)))
}

/// G13: one node dies, and every channel acknowledges soon again.
fn check_failover(
    history: &History,
    waits: &Waits<'_>,
    fault: &Fault,
    limits: &Limits,
    found: &mut Findings,
) {
    let gaps = longest(waits, fault.start, until(history, fault));
    if gaps.p99 > limits.failover {
        found.add("G13", format!("after {:?} of {:?}: {gaps}", fault.kind, fault.nodes));
    }
}

/// G13, G14: a graceful stop, or a node that joins, costs a client that retries once nothing.
fn check_graceful(facts: &Facts<'_>, fault: &Fault, found: &mut Findings) {
    let rule = if fault.kind == Kind::Stop { "G13" } else { "G14" };
    let during = |message: &Message<'_>| {
        let mut sent = message.attempts.iter().map(|attempt| attempt.sent);
        sent.all(|sent| sent >= fault.start && sent <= fault.end)
    };
    let mut failed = facts.messages.iter().filter(|(_, message)| {
        let tries = message.attempts.iter().filter(|attempt| attempt.acked().is_none()).count();
        during(message) && tries > 1
    });
    if let Some((key, message)) = failed.next() {
        let (count, kind, nodes) = (1 + failed.count(), fault.kind, &fault.nodes);
        let outcomes: Vec<_> = message.attempts.iter().map(|attempt| attempt.outcome).collect();
        let text = format!(
            "{kind:?} of {nodes:?}: {count} messages failed more than once, as {key:?}: {outcomes:?}"
        );
        found.add(rule, text);
    }
}

/// G14: replicas and leaders are even over the nodes, the new one among them.
fn check_spread(history: &History, fault: &Fault, found: &mut Findings) {
    let Some(spread) = history.spreads.iter().rfind(|spread| spread.at >= fault.end) else {
        return;
    };
    let missing = fault.nodes.iter().find(|node| !spread.nodes.contains_key(*node));
    if let Some(node) = missing {
        found.add("G14", format!("{node} joined and is in no list of slots"));
    }
    let uneven = |numbers: &mut dyn Iterator<Item = u32>| {
        let (mut low, mut high) = (u32::MAX, 0);
        for number in numbers {
            (low, high) = (low.min(number), high.max(number));
        }
        high.saturating_sub(low) > 1
    };
    if uneven(&mut spread.nodes.values().map(|counts| counts.0)) {
        found.add("G14", format!("replicas are not even: {:?}", spread.nodes));
    }
    if uneven(&mut spread.nodes.values().map(|counts| counts.1)) {
        found.add("G14", format!("leaders are not even: {:?}", spread.nodes));
    }
}
