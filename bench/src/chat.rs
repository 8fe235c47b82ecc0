//! Connections that send and receive: persons in pairs, or one group. What was sent, answered and
//! delivered is kept per message, so that the run ends with a verdict and not only with a rate.

use std::collections::VecDeque;

use crate::args::Until;
use crate::client::{Closed, Profile, SUCCESS, Sink};
use crate::counts::Counts;
use crate::engine::Engine;
use crate::ledger::{Ledger, Outcome};
use crate::schedule::Schedule;

/// Unwritten bytes of a connection above which the open loop waits for it.
const BACKLOG_MAX: usize = 4 << 20;

/// Who sends what to whom, on one thread. Clients are known by their number.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// One uid per connection.
    pub(crate) uids: Vec<String>,
    /// The first so many connections send.
    pub(crate) senders: usize,
    /// Where each of them sends to.
    pub(crate) channels: Vec<String>,
    /// 1 person, 2 group.
    pub(crate) channel_type: u8,
    /// How many connections get each message.
    pub(crate) receivers: u32,
}

/// How messages are let go.
pub(crate) enum Pace {
    /// So many in flight per sender.
    Closed {
        /// At most this many of each sender, by the sender's number.
        in_flight: Vec<usize>,
        /// When one leaves the count.
        until: Until,
    },
    /// On schedule.
    Open(Schedule),
}

/// The workload of one thread.
pub(crate) struct Chat {
    layout: Layout,
    pace: Pace,
    /// 16 hexadecimal digits that tell this thread's messages of this run from all others.
    run: String,
    ledgers: Vec<Ledger>,
    in_flight: Vec<usize>,
    /// Senders with room for more, each once.
    ready: VecDeque<usize>,
    is_ready: Vec<bool>,
    /// Next sender of the open loop.
    turn: usize,
    /// Highest seq seen per connection.
    seen: Vec<u32>,
    /// Messages intended from here to there count towards the latencies, ns.
    window: (u64, u64),
    /// Sends that may still be made.
    left: u64,
    /// When the last one was made, ns.
    pub(crate) ended: Option<u64>,
    /// Whether what comes in counts towards the rates.
    pub(crate) measuring: bool,
    /// The clock as of this turn, ns.
    now: u64,
    /// When something last came in, ns.
    pub(crate) progress: u64,
    pub(crate) counts: Counts,
}

impl Chat {
    pub(crate) fn new(
        layout: Layout,
        pace: Pace,
        run: u64,
        window: (u64, u64),
        left: u64,
    ) -> anyhow::Result<Chat> {
        let senders = layout.senders;
        Ok(Chat {
            run: format!("{run:016x}"),
            ledgers: (0..senders).map(|_| Ledger::new(layout.receivers)).collect(),
            in_flight: vec![0; senders],
            ready: (0..senders).collect(),
            is_ready: vec![true; senders],
            turn: 0,
            seen: vec![0; layout.uids.len()],
            window,
            left,
            ended: None,
            measuring: false,
            now: 0,
            progress: 0,
            counts: Counts::new()?,
            layout,
            pace,
        })
    }

    /// Sends what is due.
    pub(crate) fn pump(&mut self, engine: &mut Engine<'_>, profile: &Profile, now: u64) {
        self.now = now;
        while let (Pace::Closed { in_flight, .. }, Some(sender)) =
            (&self.pace, self.ready.front().copied())
        {
            let room = in_flight.get(sender).copied().unwrap_or(0);
            self.ready.pop_front();
            if let Some(flag) = self.is_ready.get_mut(sender) {
                *flag = false;
            }
            while self.in_flight.get(sender).is_some_and(|n| *n < room) {
                if !self.send(engine, profile, sender, now) {
                    break;
                }
            }
        }
        while self.left > 0 {
            let Pace::Open(schedule) = &mut self.pace else {
                return;
            };
            let sender = self.turn;
            if engine.backlog(sender) > BACKLOG_MAX {
                return; // what is due stays due, at its own moment
            }
            let Some(intended) = schedule.take(now) else {
                return;
            };
            self.turn = (sender + 1) % self.layout.senders.max(1);
            self.send(engine, profile, sender, intended);
        }
    }

    /// When the open loop has to send next, ns.
    pub(crate) fn next_due(&self) -> Option<u64> {
        match &self.pace {
            Pace::Open(schedule) if self.left > 0 => schedule.next(),
            Pace::Open(_) | Pace::Closed { .. } => None,
        }
    }

    fn send(
        &mut self,
        engine: &mut Engine<'_>,
        profile: &Profile,
        sender: usize,
        intended: u64,
    ) -> bool {
        let Some(client) = engine.client(sender).filter(|_| self.left > 0) else {
            return false;
        };
        let (Some(ledger), Some(channel)) =
            (self.ledgers.get_mut(sender), self.layout.channels.get(sender))
        else {
            return false;
        };
        let seq = ledger.open(intended);
        let mut message_no = [0; 32];
        write_no(&mut message_no, &self.run, sender, seq);
        let message_no = std::str::from_utf8(&message_no).unwrap_or("");
        client.send(profile, channel, self.layout.channel_type, seq, message_no);
        engine.touch(sender);
        if let Some(n) = self.in_flight.get_mut(sender) {
            *n += 1;
        }
        self.counts.sent += 1;
        self.left -= 1;
        if self.left == 0 {
            self.ended = Some(self.now);
        }
        true
    }

    /// A message of `sender` is no longer in flight.
    fn landed(&mut self, sender: usize) {
        if let Some(n) = self.in_flight.get_mut(sender) {
            *n = n.saturating_sub(1);
        }
        if let Some(flag) = self.is_ready.get_mut(sender)
            && !*flag
        {
            *flag = true;
            self.ready.push_back(sender);
        }
    }

    /// Messages that something is still awaited of.
    pub(crate) fn pending(&self) -> usize {
        self.ledgers.iter().map(Ledger::pending).sum()
    }

    /// Counts connections that have ended.
    pub(crate) fn lose(&mut self, gone: &[(usize, Closed)]) {
        for (_, why) in gone {
            self.counts.lost += 1;
            self.counts.lost_why.get_or_insert_with(|| why.to_string());
        }
    }

    /// The counts, with what is open at the end. A send without an answer counts as one whose answer
    /// came now: leaving it out would make a server that stalls look fast.
    pub(crate) fn finish(mut self) -> Counts {
        for ledger in &self.ledgers {
            for intended in ledger.unanswered() {
                if (self.window.0..self.window.1).contains(&intended) {
                    self.counts.ack_latency.record(self.now.saturating_sub(intended));
                }
            }
            let rest = ledger.rest();
            self.counts.rest.undelivered += rest.undelivered;
            self.counts.rest.unanswered += rest.unanswered;
            self.counts.rest.phantoms += rest.phantoms;
        }
        self.counts
    }

    fn in_window(&self, at: u64) -> bool {
        (self.window.0..self.window.1).contains(&at)
    }

    fn until(&self) -> Until {
        match &self.pace {
            Pace::Closed { until, .. } => *until,
            Pace::Open(_) => Until::Ack,
        }
    }

    /// Whether connection `at` is one that gets messages of `sender`.
    fn is_receiver(&self, at: usize, sender: usize) -> bool {
        match self.layout.channel_type {
            1 => self.layout.channels.get(sender) == self.layout.uids.get(at),
            _ => at != sender,
        }
    }
}

impl Sink for Chat {
    fn now(&mut self, now: u64) {
        self.now = now;
    }

    fn live(&mut self, _: usize) {}

    fn answer(&mut self, at: usize, client_seq: u32, reason: u8) {
        self.progress = self.now;
        let stored = reason == SUCCESS;
        let Some(ledger) = self.ledgers.get_mut(at) else {
            return;
        };
        let Outcome::First { intended, complete } = ledger.answer(client_seq, stored) else {
            self.counts.duplicates += 1;
            return;
        };
        if stored {
            self.counts.acked += 1;
            self.counts.window_acked += u64::from(self.measuring);
            if self.in_window(intended) {
                self.counts.ack_latency.record(self.now.saturating_sub(intended));
            }
        } else {
            *self.counts.refused.entry(reason).or_default() += 1;
        }
        if complete || self.until() == Until::Ack {
            self.landed(at);
        }
    }

    fn recv(&mut self, at: usize, client_msg_no: &str, message_seq: u32) {
        self.progress = self.now;
        let Some((sender, seq)) = read_no(client_msg_no, &self.run) else {
            self.counts.foreign += 1;
            return;
        };
        if !self.is_receiver(at, sender) {
            self.counts.misdelivered += 1;
            return;
        }
        let receiver = if self.layout.receivers == 1 { 0 } else { u32::try_from(at).unwrap_or(0) };
        let Some(ledger) = self.ledgers.get_mut(sender) else {
            return;
        };
        match ledger.deliver(seq, receiver) {
            Outcome::First { intended, complete } => {
                self.counts.delivered += 1;
                self.counts.window_delivered += u64::from(self.measuring);
                if self.in_window(intended) {
                    self.counts.recv_latency.record(self.now.saturating_sub(intended));
                }
                if let Some(seen) = self.seen.get_mut(at) {
                    self.counts.disordered += u64::from(message_seq <= *seen);
                    *seen = message_seq.max(*seen);
                }
                if complete && self.until() == Until::Delivered {
                    self.landed(sender);
                }
            }
            Outcome::Again => self.counts.duplicates += 1,
            Outcome::Unknown => self.counts.foreign += 1,
        }
    }
}

/// Run, sender and seq as 32 hexadecimal digits.
fn write_no(out: &mut [u8; 32], run: &str, sender: usize, seq: u32) {
    let (head, tail) = out.split_at_mut(16);
    head.copy_from_slice(run.as_bytes().get(..16).unwrap_or(&[b'0'; 16]));
    let value = (u64::try_from(sender & 0xffff_ffff).unwrap_or(0) << 32) | u64::from(seq);
    for (place, digit) in tail.iter_mut().zip((0..16).rev()) {
        let nibble = u8::try_from((value >> (4 * digit)) & 0xf).unwrap_or(0);
        *place = if nibble < 10 { b'0' + nibble } else { b'a' - 10 + nibble };
    }
}

/// Sender and seq of a message of that run.
fn read_no(text: &str, run: &str) -> Option<(usize, u32)> {
    let tail = text.strip_prefix(run).filter(|tail| tail.len() == 16)?;
    let sender = u32::from_str_radix(tail.get(..8)?, 16).ok()?;
    let seq = u32::from_str_radix(tail.get(8..)?, 16).ok()?;
    Some((usize::try_from(sender).ok()?, seq))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeMap;

    use super::*;
    use crate::args::Arrivals;
    use crate::ledger::Rest;

    fn pair(pace: Pace) -> Chat {
        let uids = vec!["a".to_owned(), "b".to_owned()];
        let channels = vec!["b".to_owned(), "a".to_owned()];
        let layout = Layout { uids, senders: 2, channels, channel_type: 1, receivers: 1 };
        Chat::new(layout, pace, 0xfeed, (1_000, 2_000), u64::MAX).unwrap()
    }

    fn no(sender: usize, seq: u32) -> String {
        let mut out = [0; 32];
        write_no(&mut out, &format!("{:016x}", 0xfeed), sender, seq);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn message_numbers_read_back() {
        let run = format!("{:016x}", 0xfeed);
        assert_eq!(no(70_000, 9), "000000000000feed0001117000000009");
        assert_eq!(read_no(&no(70_000, u32::MAX), &run), Some((70_000, u32::MAX)));
        for other in
            ["", "x", "000000000000feee0001117000000009", "000000000000feed00011170000000zz"]
        {
            assert_eq!(read_no(other, &run), None);
        }
    }

    #[test]
    fn latency_counts_from_the_intended_moment_and_only_within_the_window() {
        let mut chat = pair(Pace::Open(Schedule::new(0, 3_000, 1e9, Arrivals::Uniform, 1)));
        for intended in [500, 1_000, 1_999, 2_000] {
            chat.ledgers.first_mut().unwrap().open(intended);
        }
        // All answers come late, after the server has been away.
        Sink::now(&mut chat, 1_000_000);
        for seq in 1..=4 {
            chat.answer(0, seq, SUCCESS);
            chat.recv(1, &no(0, seq), seq);
        }
        let acks = chat.counts.ack_latency.summary();
        assert_eq!((acks.count, chat.counts.recv_latency.summary().count), (2, 2));
        assert!(acks.max.abs_diff(999_000) < 1_000, "{acks:?}");
        assert_eq!((chat.counts.acked, chat.counts.window_acked), (4, 0));
        assert_eq!(chat.pending(), 0);
    }

    #[test]
    fn what_goes_wrong_is_told_apart() {
        let mut chat = pair(Pace::Closed { in_flight: vec![8, 8], until: Until::Delivered });
        for _ in 0..5 {
            chat.ledgers.first_mut().unwrap().open(0);
        }
        chat.recv(1, &no(0, 2), 2);
        chat.recv(1, &no(0, 1), 1); // out of order
        chat.recv(1, &no(0, 1), 1); // again
        chat.recv(0, &no(0, 3), 3); // to its own sender
        chat.recv(1, "of somebody else", 4);
        chat.recv(1, &no(0, 9), 9); // never sent
        chat.answer(0, 3, SUCCESS); // and never delivered
        chat.answer(0, 4, 15);
        chat.answer(0, 4, 15); // again
        chat.recv(1, &no(0, 4), 5); // refused, and yet
        let counts = chat.finish();
        assert_eq!((counts.disordered, counts.duplicates), (1, 2));
        assert_eq!((counts.misdelivered, counts.foreign), (1, 2));
        assert_eq!(counts.refused, BTreeMap::from([(15, 1)]));
        assert_eq!(counts.rest, Rest { undelivered: 1, unanswered: 3, phantoms: 1 });
    }

    #[test]
    fn a_message_is_in_flight_until_acked_or_until_delivered() {
        for (until, after_ack) in [(Until::Ack, 1), (Until::Delivered, 0)] {
            let mut chat = pair(Pace::Closed { in_flight: vec![1, 1], until });
            chat.ready.clear();
            chat.is_ready.fill(false);
            chat.ledgers.first_mut().unwrap().open(0);
            chat.answer(0, 1, SUCCESS);
            assert_eq!(chat.ready.len(), after_ack);
            chat.recv(1, &no(0, 1), 1);
            assert_eq!(chat.ready.len(), 1);
        }
    }
}
