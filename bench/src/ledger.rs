//! What became of each message of one sender: acknowledged, refused, delivered, to whom. Entries leave
//! when nothing more can happen to them, so the ledger is as long as what is in flight.

use std::collections::VecDeque;

/// The messages of one sender, by client seq from 1.
#[derive(Debug)]
pub(crate) struct Ledger {
    /// Receivers of every message.
    receivers: u32,
    /// Client seq of the first entry.
    first: u32,
    entries: VecDeque<Entry>,
}

#[derive(Debug)]
struct Entry {
    /// When it was to be sent, ns.
    intended: u64,
    answer: Answer,
    /// Receivers that do not have it.
    missing: u32,
    got: Bits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    None,
    Stored,
    Refused,
}

/// What an event meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The first of its kind for this message; `complete` when it was the last one awaited.
    First {
        /// When the message was to be sent, ns.
        intended: u64,
        /// Answered, and with every receiver.
        complete: bool,
    },
    /// It had happened before.
    Again,
    /// No such message.
    Unknown,
}

/// What is left when a run has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rest {
    /// Acknowledged, but some receiver has not got it: a broken promise.
    pub(crate) undelivered: u64,
    /// Never answered: unknown.
    pub(crate) unanswered: u64,
    /// Refused, but delivered: a broken promise.
    pub(crate) phantoms: u64,
}

impl Ledger {
    pub(crate) fn new(receivers: u32) -> Ledger {
        Ledger { receivers, first: 1, entries: VecDeque::new() }
    }

    /// Enters the next message and gives its client seq.
    pub(crate) fn open(&mut self, intended: u64) -> u32 {
        let seq = self.first.wrapping_add(u32::try_from(self.entries.len()).unwrap_or(u32::MAX));
        self.entries.push_back(Entry {
            intended,
            answer: Answer::None,
            missing: self.receivers,
            got: Bits::default(),
        });
        seq
    }

    /// A SENDACK came.
    pub(crate) fn answer(&mut self, seq: u32, stored: bool) -> Outcome {
        let Some(entry) = self.entry(seq) else {
            return self.settled(seq);
        };
        if entry.answer != Answer::None {
            return Outcome::Again;
        }
        entry.answer = if stored { Answer::Stored } else { Answer::Refused };
        let complete = !stored || entry.missing == 0;
        let intended = entry.intended;
        self.settle();
        Outcome::First { intended, complete }
    }

    /// A RECV came to the receiver with that number.
    pub(crate) fn deliver(&mut self, seq: u32, receiver: u32) -> Outcome {
        let Some(entry) = self.entry(seq) else {
            return self.settled(seq);
        };
        if !entry.got.set(receiver) {
            return Outcome::Again;
        }
        entry.missing = entry.missing.saturating_sub(1);
        let complete = entry.missing == 0 && entry.answer != Answer::None;
        let intended = entry.intended;
        self.settle();
        Outcome::First { intended, complete }
    }

    /// Messages that something is still awaited of.
    pub(crate) fn pending(&self) -> usize {
        let settled = |entry: &&Entry| match entry.answer {
            Answer::None => true,
            Answer::Stored => entry.missing > 0,
            Answer::Refused => false,
        };
        self.entries.iter().filter(settled).count()
    }

    /// Moments of the messages that were never answered.
    pub(crate) fn unanswered(&self) -> impl Iterator<Item = u64> {
        self.entries.iter().filter(|e| e.answer == Answer::None).map(|e| e.intended)
    }

    /// What is left. Phantoms that were settled already are not in it; [`Outcome`] told of them.
    pub(crate) fn rest(&self) -> Rest {
        let mut rest = Rest::default();
        for entry in &self.entries {
            match entry.answer {
                Answer::None => rest.unanswered += 1,
                Answer::Stored if entry.missing > 0 => rest.undelivered += 1,
                Answer::Refused if entry.missing < self.receivers => rest.phantoms += 1,
                Answer::Stored | Answer::Refused => {}
            }
        }
        rest
    }

    fn entry(&mut self, seq: u32) -> Option<&mut Entry> {
        let place = usize::try_from(seq.checked_sub(self.first)?).ok()?;
        self.entries.get_mut(place)
    }

    fn settled(&self, seq: u32) -> Outcome {
        if seq >= 1 && seq < self.first { Outcome::Again } else { Outcome::Unknown }
    }

    /// Lets go of what is stored and delivered. Refused entries stay as long as something before them
    /// does, and then leave as well: a RECV of one after that is counted as a repetition.
    fn settle(&mut self) {
        while let Some(entry) = self.entries.front() {
            let done = match entry.answer {
                Answer::None => false,
                Answer::Stored => entry.missing == 0,
                // A refused message that reached somebody is kept as evidence.
                Answer::Refused => entry.missing == self.receivers,
            };
            if !done {
                return;
            }
            self.entries.pop_front();
            self.first = self.first.wrapping_add(1);
        }
    }
}

/// A set of small numbers; the first 64 need no memory of their own.
#[derive(Debug, Default)]
struct Bits {
    low: u64,
    high: Vec<u64>,
}

impl Bits {
    /// Adds `n`; false when it was there.
    fn set(&mut self, n: u32) -> bool {
        let word = match usize::try_from(n / 64).unwrap_or(usize::MAX) {
            0 => &mut self.low,
            place => {
                if self.high.len() < place {
                    self.high.resize(place, 0);
                }
                match self.high.get_mut(place - 1) {
                    Some(word) => word,
                    None => return false,
                }
            }
        };
        let bit = 1u64 << (n % 64);
        let fresh = *word & bit == 0;
        *word |= bit;
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_complete_when_answered_and_with_everybody() {
        let mut ledger = Ledger::new(2);
        assert_eq!((ledger.open(10), ledger.open(20)), (1, 2));
        assert_eq!(ledger.deliver(1, 0), Outcome::First { intended: 10, complete: false });
        assert_eq!(ledger.deliver(1, 0), Outcome::Again);
        assert_eq!(ledger.answer(1, true), Outcome::First { intended: 10, complete: false });
        assert_eq!(ledger.answer(1, true), Outcome::Again);
        assert_eq!(ledger.pending(), 2);
        assert_eq!(ledger.deliver(1, 1), Outcome::First { intended: 10, complete: true });
        assert_eq!(ledger.deliver(1, 1), Outcome::Again);
        assert_eq!(ledger.deliver(3, 0), Outcome::Unknown);
        assert_eq!(ledger.deliver(0, 0), Outcome::Unknown);
        assert_eq!(ledger.rest(), Rest { unanswered: 1, ..Rest::default() });
        assert_eq!(ledger.open(30), 3);
    }

    #[test]
    fn broken_promises_are_left_over() {
        let mut ledger = Ledger::new(1);
        for at in 0..3 {
            ledger.open(at);
        }
        assert!(matches!(ledger.answer(1, true), Outcome::First { complete: false, .. }));
        assert!(matches!(ledger.answer(2, false), Outcome::First { complete: true, .. }));
        ledger.deliver(2, 0);
        assert_eq!(ledger.rest(), Rest { undelivered: 1, unanswered: 1, phantoms: 1 });
        assert_eq!(ledger.pending(), 2);
    }

    #[test]
    fn without_receivers_the_answer_is_all() {
        let mut ledger = Ledger::new(0);
        let seq = ledger.open(5);
        assert_eq!(ledger.answer(seq, true), Outcome::First { intended: 5, complete: true });
        assert_eq!((ledger.pending(), ledger.entries.len()), (0, 0));
    }

    #[test]
    fn many_receivers_are_told_apart() {
        let mut ledger = Ledger::new(200);
        let seq = ledger.open(1);
        ledger.answer(seq, true);
        for n in 0..199 {
            assert_eq!(ledger.deliver(seq, n), Outcome::First { intended: 1, complete: false });
            assert_eq!(ledger.deliver(seq, n), Outcome::Again);
        }
        assert_eq!(ledger.deliver(seq, 199), Outcome::First { intended: 1, complete: true });
        assert_eq!(ledger.rest(), Rest::default());
    }
}
