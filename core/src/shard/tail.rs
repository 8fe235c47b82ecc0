//! The newest messages of a channel, kept in memory after somebody has read them: a history that is
//! read again, or goes on while it is read, costs the store nothing.

use std::collections::VecDeque;

use crate::message::SharedMessage;

/// Messages that are kept of one channel, and bytes of their content. They count towards the bound
/// of the cache that the channel is in.
const COUNT_MAX: usize = 64;
const SIZE_MAX: usize = 64 << 10;

/// Messages without a gap, up to the channel's last.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    messages: VecDeque<SharedMessage>,
    size: usize,
}

/// Seqs that are asked for: `first..=last`, at most `count_max`, the lowest if `from_start`, else
/// the highest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) count_max: usize,
    pub(crate) from_start: bool,
}

impl Window {
    /// The lowest and the highest seq of the answer, given the channel's last seq; `None`: there is
    /// nothing to answer.
    pub(crate) fn ends(self, last_seq: u64) -> Option<(u64, u64)> {
        let high = self.last.min(last_seq);
        let more = u64::try_from(self.count_max).unwrap_or(u64::MAX).checked_sub(1)?;
        let first = self.first.max(1);
        if first > high {
            return None;
        }
        Some(if self.from_start {
            (first, high.min(first.saturating_add(more)))
        } else {
            (first.max(high.saturating_sub(more)), high)
        })
    }
}

impl Tail {
    /// The end of what was read up to the channel's last message.
    pub(crate) fn of(messages: &[SharedMessage]) -> Self {
        let mut tail = Self::default();
        for message in messages {
            tail.push(message.clone());
        }
        tail
    }

    /// The channel goes on with this message.
    pub(crate) fn push(&mut self, message: SharedMessage) {
        self.size += message.payload.len();
        self.messages.push_back(message);
        while self.messages.len() > COUNT_MAX || self.size > SIZE_MAX {
            let Some(oldest) = self.messages.pop_front() else { break };
            self.size -= oldest.payload.len();
        }
    }

    /// About how many bytes it takes.
    pub(crate) fn size(&self) -> usize {
        64 + 256 * self.messages.len() + self.size
    }

    /// The messages with these seqs, if all of them are here.
    pub(crate) fn range(&self, (low, high): (u64, u64)) -> Option<Vec<SharedMessage>> {
        let first = self.messages.front()?.seq;
        let start = usize::try_from(low.checked_sub(first)?).ok()?;
        let end = usize::try_from(high.checked_sub(first)?).ok()?;
        (end < self.messages.len()).then(|| self.messages.range(start..=end).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{id::ChannelId, message::Message};

    fn message(seq: u64, size: usize) -> SharedMessage {
        Arc::new(Message {
            id: 1,
            seq,
            channel: ChannelId::new("g", 2),
            from: "a".into(),
            client_msg_no: "".into(),
            flags: 0,
            setting: 0,
            expire: 0,
            timestamp: 0,
            topic: "".into(),
            stream_no: "".into(),
            shown: None,
            payload: vec![0; size].into(),
        })
    }

    fn seqs(tail: &Tail, range: (u64, u64)) -> Option<Vec<u64>> {
        Some(tail.range(range)?.iter().map(|message| message.seq).collect())
    }

    #[test]
    fn the_ends_of_a_window_are_those_of_the_answer() {
        let ends = |first, last, count_max, from_start, last_seq| {
            Window { first, last, count_max, from_start }.ends(last_seq)
        };
        assert_eq!(ends(1, u64::MAX, 3, false, 9), Some((7, 9)));
        assert_eq!(ends(0, u64::MAX, 3, true, 9), Some((1, 3)));
        assert_eq!(ends(4, 6, 100, false, 9), Some((4, 6)));
        assert_eq!(ends(8, 20, usize::MAX, true, 9), Some((8, 9)));
        assert_eq!(ends(10, 20, 5, true, 9), None);
        assert_eq!(ends(1, 20, 0, true, 9), None);
        assert_eq!(ends(1, 20, 5, true, 0), None);
    }

    #[test]
    fn what_is_not_all_here_is_not_given() {
        let all: Vec<SharedMessage> = (11..=20).map(|seq| message(seq, 10)).collect();
        let mut tail = Tail::of(&all);
        assert_eq!(seqs(&tail, (18, 20)), Some(vec![18, 19, 20]));
        assert_eq!(seqs(&tail, (11, 12)), Some(vec![11, 12]));
        assert_eq!((seqs(&tail, (10, 12)), seqs(&tail, (20, 21))), (None, None));
        tail.push(message(21, 10));
        assert_eq!(seqs(&tail, (20, 21)), Some(vec![20, 21]));
        assert_eq!(seqs(&Tail::default(), (1, 1)), None);
    }

    #[test]
    fn there_is_a_bound_in_count_and_in_bytes() {
        let all: Vec<SharedMessage> = (1..=200).map(|seq| message(seq, 10)).collect();
        let tail = Tail::of(&all);
        assert_eq!((tail.messages.len(), tail.size), (COUNT_MAX, 10 * COUNT_MAX));
        let all: Vec<SharedMessage> = (1..=9).map(|seq| message(seq, 20_000)).collect();
        assert_eq!(Tail::of(&all).messages.len(), 3);
        assert_eq!(Tail::of(&[message(1, 1 << 20)]).messages.len(), 0);
    }
}
