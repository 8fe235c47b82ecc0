//! RECVs of one connection that wait for their RECVACK (protocol.md §2.7), oldest push first;
//! bounded by count and by bytes.

use std::collections::VecDeque;

use crate::message::SharedMessage;

/// A RECV that waits.
#[derive(Debug)]
pub(crate) struct Unacked {
    pub(crate) message: SharedMessage,
    /// When it was written last, `Now::mono_ms`.
    pub(crate) pushed_ms: u64,
    /// How often it was repeated.
    pub(crate) tries: u8,
}

/// What a connection has not acknowledged.
#[derive(Debug, Default)]
pub(crate) struct UnackedQueue {
    queue: VecDeque<Unacked>,
    size: usize,
}

impl UnackedQueue {
    /// How many wait.
    pub(crate) fn count(&self) -> usize {
        self.queue.len()
    }

    /// Adds one that was written just now.
    pub(crate) fn push(&mut self, unacked: Unacked) {
        self.size += unacked.message.payload.len();
        self.queue.push_back(unacked);
    }

    /// The client has the message, which is given back. Unknown ids are ignored.
    pub(crate) fn acknowledge(&mut self, message_id: i64) -> Option<SharedMessage> {
        // Clients acknowledge in order: nearly always it is the first.
        let place = self.queue.iter().position(|u| u.message.id == message_id)?;
        let unacked = self.queue.remove(place)?;
        self.size -= unacked.message.payload.len();
        if self.queue.is_empty() && self.queue.capacity() > 32 {
            self.queue = VecDeque::new();
        }
        Some(unacked.message)
    }

    /// Forgets the oldest until the rest is within the bounds; returns how many.
    pub(crate) fn shrink(&mut self, count_max: usize, size_max: usize) -> u64 {
        let mut dropped = 0;
        while self.queue.len() > count_max || (self.size > size_max && self.queue.len() > 1) {
            if let Some(unacked) = self.queue.pop_front() {
                self.size -= unacked.message.payload.len();
                dropped += 1;
            }
        }
        dropped
    }

    /// Takes out those that were written `retry_ms` ago or earlier.
    pub(crate) fn take_due(&mut self, now_ms: u64, retry_ms: u64) -> Vec<Unacked> {
        let due = self.queue.iter().take_while(|u| u.pushed_ms + retry_ms <= now_ms).count();
        let taken: Vec<Unacked> = self.queue.drain(..due).collect();
        self.size -= taken.iter().map(|unacked| unacked.message.payload.len()).sum::<usize>();
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{id::ChannelId, message::Message};

    fn queue(ids: impl Iterator<Item = i64>) -> UnackedQueue {
        let mut queue = UnackedQueue::default();
        for (pushed_ms, id) in (1..).zip(ids) {
            let message = Arc::new(Message {
                id,
                seq: 1,
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
                payload: vec![0; 10].into(),
            });
            queue.push(Unacked { message, pushed_ms, tries: 0 });
        }
        queue
    }

    #[test]
    fn bounds_drop_the_oldest_and_keep_the_last() {
        let mut waiting = queue(1..=10);
        assert_eq!(waiting.shrink(8, 1_000), 2);
        assert_eq!(waiting.shrink(8, 35), 5);
        assert_eq!(waiting.shrink(8, 0), 2, "one stays however large");
        assert!(waiting.acknowledge(10).is_some() && waiting.acknowledge(10).is_none());
        assert_eq!((waiting.count(), waiting.size), (0, 0));
    }

    #[test]
    fn only_what_is_due_comes_out() {
        let mut waiting = queue(1..=4);
        let due: Vec<i64> = waiting.take_due(12, 10).iter().map(|u| u.message.id).collect();
        assert_eq!(due, [1, 2]);
        assert_eq!((waiting.count(), waiting.size), (2, 20));
    }
}
