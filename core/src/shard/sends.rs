//! Sends of this shard's sessions and API, kept until they are answered.
//!
//! Per slot they are numbered and go out in order. After a refusal, a lost link or a change of
//! leader all that have no answer go out again, in order, under the next epoch; the leader takes
//! nothing of an epoch after it has refused something of it. So pipelined sends keep their order,
//! and what was stored already is found by its client number or its message id (G4, G6).

use std::{collections::VecDeque, sync::Arc};

use super::{
    Shard,
    routes::{RETRY_MS, RETRY_MS_MAX, WHEN_TOLD},
};
use crate::{
    code::Code,
    envelope::{Envelope, Epoch, Origin, SendOutcome, SendTask},
    id::{ConnId, Name, NodeId, SlotId},
    map::Map,
    message::Message,
    request::{Failure, Reply},
};

/// Sends without answer that a shard keeps; more are refused (15).
const COUNT_MAX: usize = 65_536;
/// The same in bytes of content.
const SIZE_MAX: usize = 64 << 20;

/// A send that waits for its answer.
#[derive(Debug)]
struct Kept {
    task: Arc<SendTask>,
    deadline_ms: u64,
}

/// Sends to one slot.
#[derive(Debug)]
struct ToSlot {
    /// How often everything was sent.
    epoch: u32,
    /// The number of the first in the queue.
    first: u64,
    /// The number of the one that went out last in this epoch.
    last: Option<u64>,
    /// `None`: answered out of turn.
    queue: VecDeque<Option<Kept>>,
    /// When all go out again; nothing goes out before.
    due_ms: Option<u64>,
    delay_ms: u64,
}

/// Everything that waits.
#[derive(Debug, Default)]
pub(crate) struct Sends {
    slots: Map<SlotId, ToSlot>,
    count: usize,
    size: usize,
}

impl Sends {
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Sessions that wait for an answer.
    pub(crate) fn sessions(&self) -> impl Iterator<Item = ConnId> {
        let kept = self.slots.values().flat_map(|to| to.queue.iter().flatten());
        kept.filter_map(|kept| kept.task.origin.session()).map(|session| session.conn)
    }

    fn forget(&mut self, kept: &Kept) {
        self.count -= 1;
        self.size -= kept.task.message.payload.len();
    }
}

impl ToSlot {
    fn shrink(&mut self) {
        while matches!(self.queue.front(), Some(None)) {
            self.queue.pop_front();
            self.first = self.first.wrapping_add(1);
        }
        if self.queue.is_empty() && self.queue.capacity() > 1_024 {
            self.queue = VecDeque::new();
        }
    }
}

impl Shard {
    /// Takes a message that wants to be sent.
    pub(super) fn keep_send(
        &mut self,
        message: Message,
        recipients: Option<Vec<Name>>,
        trusted: bool,
        origin: Origin,
    ) {
        let size = message.payload.len();
        let full = self.sends.count >= COUNT_MAX || self.sends.size + size > SIZE_MAX;
        if full || (self.draining && !self.has_peers()) {
            self.vars.shed += u64::from(full);
            return self.refuse_origin(origin, message.id, Failure::Busy);
        }
        let slot = message.channel.slot(self.settings.slot_count);
        let (from, epoch_life, reachable) = (self.me(), self.life, self.can_reach(slot));
        let begin = self.next_id;
        let deadline_ms = self.now.mono_ms + self.settings.request_ms;
        let state = self.sends.slots.entry(slot).or_insert_with(|| ToSlot {
            epoch: 0,
            first: begin,
            last: None,
            queue: VecDeque::new(),
            due_ms: None,
            delay_ms: RETRY_MS,
        });
        let number = state.first.wrapping_add(u64::try_from(state.queue.len()).unwrap_or(0));
        let task = Arc::new(SendTask { message, recipients, trusted, origin, from, number });
        state.queue.push_back(Some(Kept { task: task.clone(), deadline_ms }));
        self.sends.count += 1;
        self.sends.size += size;
        if state.due_ms.is_some() {
            return;
        }
        if reachable {
            let epoch = Epoch { life: epoch_life, count: state.epoch };
            let after = state.last.replace(number).unwrap_or(number);
            self.send_to_slot(slot, Envelope::Send { task, epoch, after });
        } else {
            state.due_ms = Some(WHEN_TOLD);
        }
    }

    /// The slot's leader has answered.
    pub(super) fn on_sent(
        &mut self,
        slot: SlotId,
        number: u64,
        epoch: Epoch,
        outcome: SendOutcome,
    ) {
        let Some(state) = self.sends.slots.get_mut(&slot) else {
            return;
        };
        match outcome {
            SendOutcome::Done { message_id, seq, code } => {
                let place = usize::try_from(number.wrapping_sub(state.first)).unwrap_or(usize::MAX);
                let Some(kept) = state.queue.get_mut(place).and_then(Option::take) else {
                    return;
                };
                state.delay_ms = RETRY_MS;
                state.shrink();
                self.sends.forget(&kept);
                self.answer_origin(kept.task.origin, message_id, seq, code);
            }
            // Also when its own time is over: nothing of this epoch is taken any more.
            SendOutcome::Again => {
                let current = epoch.life == self.life && epoch.count == state.epoch;
                if !current || state.due_ms.is_some() {
                    return;
                }
                let due_ms = self.now.mono_ms + state.delay_ms;
                state.due_ms = Some(due_ms);
                state.delay_ms = (2 * state.delay_ms).min(RETRY_MS_MAX);
                self.due_at(due_ms);
            }
        }
    }

    /// Sends everything of a slot again.
    pub(super) fn resend_sends(&mut self, slot: SlotId) {
        let (life, reachable) = (self.life, self.can_reach(slot));
        let Some(state) = self.sends.slots.get_mut(&slot) else {
            return;
        };
        if !reachable {
            state.due_ms = Some(WHEN_TOLD);
            return;
        }
        state.due_ms = None;
        state.epoch += 1;
        let epoch = Epoch { life, count: state.epoch };
        let tasks: Vec<Arc<SendTask>> =
            state.queue.iter().flatten().map(|kept| kept.task.clone()).collect();
        state.last = tasks.last().map(|task| task.number);
        let mut after = None;
        for task in tasks {
            let number = task.number;
            let after = after.replace(number).unwrap_or(number);
            self.send_to_slot(slot, Envelope::Send { task, epoch, after });
        }
    }

    /// Nothing goes out to a slot until it is settled.
    pub(super) fn stop_sends_of(&mut self, slot: SlotId) {
        if let Some(state) = self.sends.slots.get_mut(&slot) {
            state.due_ms = Some(WHEN_TOLD);
        }
    }

    /// A node can't be reached: what is kept for it waits.
    pub(super) fn stop_sends(&mut self, node: NodeId) {
        let slots: Vec<SlotId> = self.sends.slots.keys().copied().collect();
        for slot in slots {
            if self.leader_of(slot) == Some(node) {
                self.stop_sends_of(slot);
            }
        }
    }

    pub(super) fn send_due_sends(&mut self) {
        let now = self.now.mono_ms;
        let (mut due, mut next_ms) = (Vec::new(), WHEN_TOLD);
        for (slot, state) in &self.sends.slots {
            match state.due_ms {
                Some(due_ms) if due_ms <= now => due.push(*slot),
                Some(due_ms) => next_ms = next_ms.min(due_ms),
                None => {}
            }
        }
        self.due_at(next_ms);
        for slot in due {
            self.resend_sends(slot);
        }
    }

    /// Senders that have waited too long are told; whether it was stored is not known.
    pub(super) fn answer_overdue_sends(&mut self) {
        if self.sends.is_empty() {
            return;
        }
        let now = self.overdue_ms();
        let mut overdue = Vec::new();
        for state in self.sends.slots.values_mut() {
            for place in 0..state.queue.len() {
                match state.queue.get_mut(place) {
                    Some(Some(kept)) if kept.deadline_ms > now => break,
                    Some(kept) => overdue.extend(kept.take()),
                    None => break,
                }
            }
            state.shrink();
        }
        for kept in overdue {
            self.sends.forget(&kept);
            self.refuse_origin(kept.task.origin, kept.task.message.id, Failure::Timeout);
        }
    }

    fn refuse_origin(&mut self, origin: Origin, message_id: i64, failure: Failure) {
        match origin {
            Origin::Session { .. } => self.answer_origin(origin, message_id, 0, Code::SystemError),
            Origin::Api { token } => self.give_reply(token, Reply::Failed(failure)),
        }
    }

    /// Answers whoever sent. Sessions are answered when the current frame is done with.
    pub(super) fn answer_origin(&mut self, origin: Origin, message_id: i64, seq: u64, code: Code) {
        match origin {
            Origin::Session { .. } => self.acks.push_back((origin, message_id, seq, code)),
            Origin::Api { token } => {
                self.give_reply(token, Reply::Sent { message_id, seq, code });
            }
        }
    }
}
