//! What a session remembers, in a cluster, of the messages that went through it: a home that moves
//! or a leader that changes may have a message pushed twice, or after a newer one (G6, G8).

use std::{borrow::Cow, collections::VecDeque};

use crate::{
    id::{ChannelId, Name},
    map::Map,
    message::Message,
};

/// How many channels a session remembers.
const CHANNELS_MAX: usize = 256;
/// How many ids of messages without a place in a channel.
const IDS_MAX: usize = 256;
/// How many of its own messages: at least as many as a follower keeps of one slot.
const SENT_MAX: usize = 2_048;
/// How long it remembers them when nothing comes: as long as anybody keeps what has no home.
const REMEMBERED_MS: u64 = 60_000;

/// Where a push stands among those that a session has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Nothing newer of its channel was pushed.
    Next,
    /// It was pushed before, or came from here.
    Again,
    /// A newer one of its channel was pushed, and this one was not, as far as is known.
    Late,
}

/// The last seqs of a channel that were pushed.
#[derive(Debug)]
struct Pushed {
    highest: u64,
    /// Bit `n`: `highest - n` was pushed.
    before: u128,
}

/// What one session remembers.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Those pushed to last at the end, roughly.
    channels: Map<ChannelId, Pushed>,
    /// Ids of messages that are known and have no bit.
    known: VecDeque<i64>,
    /// Ids of the last messages that came from here, ascending: whoever delivers them again may
    /// not know whose they are.
    sent: VecDeque<i64>,
    /// `Now::mono_ms` when the last of these came.
    last_ms: u64,
}

impl Memory {
    /// Where this message stands in an order (see [`order_of`]); it counts as pushed if it is the next.
    pub(crate) fn push(
        &mut self,
        uid: &Name,
        message: &Message,
        order: &ChannelId,
        now_ms: u64,
    ) -> Order {
        self.last_ms = now_ms;
        let own = message.from == *uid && self.has_sent(message.id);
        if own || self.known.contains(&message.id) {
            return Order::Again;
        }
        let seq = message.seq;
        if seq == 0 {
            self.know(message.id, now_ms);
            return Order::Next;
        }
        let Some(pushed) = self.channels.get_mut(order) else {
            if self.channels.len() >= CHANNELS_MAX {
                self.channels.drain(..CHANNELS_MAX / 2);
            }
            let pushed = Pushed { highest: seq, before: 1 };
            self.channels.insert(order.clone(), pushed);
            return Order::Next;
        };
        if let Some(older) = pushed.highest.checked_sub(seq) {
            let bit = u32::try_from(older).ok().and_then(|older| 1_u128.checked_shl(older));
            return match bit {
                Some(bit) if pushed.before & bit != 0 => Order::Again,
                Some(_) | None => Order::Late,
            };
        }
        let ahead = u32::try_from(seq - pushed.highest).unwrap_or(u32::MAX);
        pushed.before = pushed.before.checked_shl(ahead).unwrap_or(0) | 1;
        pushed.highest = seq;
        Order::Next
    }

    /// The session has heard of a message otherwise.
    pub(crate) fn know(&mut self, message_id: i64, now_ms: u64) {
        self.last_ms = now_ms;
        if self.known.len() >= IDS_MAX {
            self.known.pop_front();
        }
        self.known.push_back(message_id);
    }

    /// A message comes from here.
    pub(crate) fn sent(&mut self, message_id: i64, now_ms: u64) {
        self.last_ms = now_ms;
        if self.sent.len() >= SENT_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back(message_id);
    }

    /// Whether the message came from here lately.
    pub(crate) fn has_sent(&self, message_id: i64) -> bool {
        self.sent.binary_search(&message_id).is_ok()
    }

    /// Whether nothing has come for so long that nobody repeats anything any more.
    pub(crate) fn is_over(&self, now_ms: u64) -> bool {
        self.last_ms + REMEMBERED_MS < now_ms
    }
}

/// Under what the order of a message is remembered: its channel, or, since events have an order of
/// their own in each stream, an id that no channel has. The same for all who get the message.
pub(crate) fn order_of(message: &Message) -> Cow<'_, ChannelId> {
    let (channel, client_msg_no) = (&message.channel, &message.client_msg_no);
    if message.is_event() {
        let id = format!("{}\n{client_msg_no}\n", channel.id);
        Cow::Owned(ChannelId::new(id, channel.kind))
    } else {
        Cow::Borrowed(channel)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn message(channel: &str, seq: u64, id: i64) -> Message {
        Message {
            id,
            seq,
            channel: ChannelId::new(channel, 2),
            from: "a".into(),
            client_msg_no: "".into(),
            flags: 0,
            setting: 0,
            expire: 0,
            timestamp: 0,
            topic: "".into(),
            stream_no: "".into(),
            shown: None,
            payload: Vec::new().into(),
        }
    }

    fn push(memory: &mut Memory, channel: &str, seq: u64) -> Order {
        let message = message(channel, seq, i64::try_from(seq).unwrap());
        memory.push(&"b".into(), &message, &order_of(&message), 0)
    }

    #[test]
    fn channels_do_not_disturb_each_other() {
        let mut memory = Memory::default();
        assert_eq!(push(&mut memory, "g", 9), Order::Next);
        assert_eq!(push(&mut memory, "h", 3), Order::Next);
        assert_eq!(push(&mut memory, "g", 8), Order::Late);
        assert_eq!(push(&mut memory, "h", 3), Order::Again);
    }

    #[test]
    fn own_and_unstored_messages_are_known_by_id() {
        let mut memory = Memory::default();
        memory.sent(7, 0);
        let own = |memory: &mut Memory, seq, id| {
            let message = message("g", seq, id);
            memory.push(&"a".into(), &message, &order_of(&message), 0)
        };
        assert_eq!(own(&mut memory, 4, 7), Order::Again);
        assert_eq!(own(&mut memory, 0, 8), Order::Next);
        assert_eq!(own(&mut memory, 0, 8), Order::Again);
        memory.know(9, 0);
        assert_eq!(own(&mut memory, 5, 9), Order::Again);
    }

    #[test]
    fn many_channels_are_bounded() {
        let mut memory = Memory::default();
        for n in 0..10_000 {
            assert_eq!(push(&mut memory, &format!("g{n}"), 5), Order::Next);
            assert!(memory.channels.len() <= CHANNELS_MAX);
        }
        assert_eq!(push(&mut memory, "g9999", 5), Order::Again);
    }

    proptest! {
        /// What is next rises; what was pushed is never pushed again; nothing that rises is held up.
        #[test]
        fn pushes_leave_in_seq_order(seqs in prop::collection::vec(1_u64..400, 0..200)) {
            let mut memory = Memory::default();
            let mut out = BTreeSet::new();
            for seq in seqs {
                let highest = out.last().copied().unwrap_or(0);
                match push(&mut memory, "g", seq) {
                    Order::Next => prop_assert!(seq > highest),
                    Order::Again => prop_assert!(out.contains(&seq)),
                    Order::Late => {
                        prop_assert!(seq < highest);
                        prop_assert!(!out.contains(&seq) || highest - seq >= 128);
                        continue;
                    }
                }
                out.insert(seq);
            }
        }
    }
}
