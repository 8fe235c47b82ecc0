//! The outbox: what an entry of one slot changes in others (design.md §2a). A row stays in the
//! source slot until the target has committed it; it is sent again after any loss, and the target
//! takes each row once, in order.

use super::{
    Shard,
    slot::{Outcome, Waiter},
};
use crate::{
    entry::{Command, ConversationChange, decode_changes},
    envelope::Envelope,
    id::SlotId,
};

/// An unanswered row is sent again after this time.
const RESEND_MS: u64 = 2_000;

impl Shard {
    /// Sends the next row to each target that has none under way.
    pub(super) fn send_outbox(&mut self, source: SlotId, targets: &[SlotId]) {
        for target in targets {
            let Some(state) = self.slots.get_mut(&source) else {
                return;
            };
            if !state.leading {
                return;
            }
            let Some((index, row)) = state.next_outbox(*target) else {
                continue;
            };
            let changes = match decode_changes(row) {
                Ok(changes) => changes,
                Err(error) => {
                    self.warn(format!("{source}: outbox row {index} does not decode: {error}"));
                    Vec::new()
                }
            };
            self.send_row(source, *target, index, changes);
        }
    }

    fn send_row(
        &mut self,
        source: SlotId,
        target: SlotId,
        index: u64,
        changes: Vec<ConversationChange>,
    ) {
        if let Some(state) = self.slots.get_mut(&source) {
            state.sending.insert(target, (index, self.now.mono_ms + RESEND_MS));
        }
        self.send_to_slot(target, Envelope::Outbox { source, target, index, changes });
    }

    /// A row for a slot of this shard.
    pub(super) fn on_outbox(
        &mut self,
        source: SlotId,
        target: SlotId,
        index: u64,
        changes: Vec<ConversationChange>,
    ) {
        if !self.leads(target) {
            // Others know the next leader before it leads.
            if self.leader_of(target) == Some(self.settings.node)
                && let Some(state) = self.slots.get_mut(&target)
            {
                state.early.insert(source, (index, changes));
            }
            return;
        }
        let command = Command::FromOutbox { source: source.0, index, changes };
        // When the accumulator is full the source sends the row again.
        let _ = self.offer(target, vec![(command, Waiter::Outbox { source, target, index })]);
    }

    /// This shard leads the slot now: what has come for its next leader.
    pub(super) fn take_early_rows(&mut self, target: SlotId) {
        let early = self.slots.get_mut(&target).map(|state| std::mem::take(&mut state.early));
        for (source, (index, changes)) in early.into_iter().flatten() {
            self.on_outbox(source, target, index, changes);
        }
    }

    /// A row is committed here: its source may forget it.
    pub(super) fn outbox_committed(&mut self, source: SlotId, target: SlotId, index: u64) {
        self.send_to_slot(source, Envelope::OutboxTaken { source, target, index });
    }

    /// The target has committed a row of a slot of this shard.
    pub(super) fn on_outbox_taken(&mut self, source: SlotId, target: SlotId, index: u64) {
        let Some(state) = self.slots.get_mut(&source) else {
            return;
        };
        if state.sending.get(&target).is_some_and(|(sent, _)| *sent == index) {
            state.sending.swap_remove(&target);
        }
        let taken = state.taken.entry(target).or_insert(index);
        *taken = index.max(*taken);
        if let Some(held) = state.held.get_mut(&index) {
            held.targets.retain(|waiting| *waiting != target);
            self.answer_held(source, index);
        }
        self.send_outbox(source, &[target]);
    }

    /// Answers the callers of an entry if all know of it that must.
    pub(super) fn answer_held(&mut self, slot: SlotId, index: u64) {
        let Some(state) = self.slots.get_mut(&slot) else {
            return;
        };
        if state.untold.get(&index).is_some_and(|count| *count > 0) {
            return;
        }
        state.untold.remove(&index);
        if state.held.get(&index).is_none_or(|held| !held.targets.is_empty()) {
            return;
        }
        let answers = state.held.remove(&index).map(|held| held.answers).unwrap_or_default();
        for (waiter, outcome) in answers {
            self.answer(slot, waiter, outcome);
        }
    }

    /// The target has a new leader, or its links came up: rows under way may be lost.
    pub(super) fn resend_outbox_to(&mut self, target: SlotId) {
        let sources = self
            .slots
            .iter_mut()
            .filter_map(|(source, state)| state.sending.swap_remove(&target).map(|_| *source));
        for source in sources.collect::<Vec<SlotId>>() {
            self.send_outbox(source, &[target]);
        }
    }

    /// Sends again what was not answered; deletes confirmed rows of slots that propose nothing
    /// else. Returns when to look again.
    pub(super) fn look_after_outboxes(&mut self) {
        let now = self.now.mono_ms;
        let has_peers = self.has_peers();
        let slots: Vec<SlotId> = self.slots.keys().copied().collect();
        for slot in slots {
            let Some(state) = self.slots.get_mut(&slot) else {
                continue;
            };
            if !state.leading {
                continue;
            }
            let overdue: Vec<SlotId> = state
                .sending
                .iter()
                .filter(|(_, (_, due))| *due <= now)
                .map(|(target, _)| *target)
                .collect();
            for target in &overdue {
                state.sending.swap_remove(target);
            }
            let mut forget: Vec<(Command, Waiter)> = std::mem::take(&mut state.taken)
                .into_iter()
                .map(|(target, index)| {
                    (Command::OutboxDone { target: target.0, index }, Waiter::Nobody)
                })
                .collect();
            // Nothing else goes to the followers that could take the word along.
            let is_quiet = state.proposals.is_empty() && state.accumulator.commands.is_empty();
            if has_peers
                && is_quiet
                && state.undelivered.is_untold()
                && let Some(index) = state.undelivered.news(state.applied)
            {
                forget.push((Command::Delivered { index }, Waiter::Nobody));
            }
            self.send_outbox(slot, &overdue);
            if !forget.is_empty() {
                let _ = self.offer(slot, forget);
            }
        }
    }

    /// Callers that have waited too long, for an entry or for what it changes in other slots, are
    /// answered: unknown.
    pub(super) fn answer_overdue(&mut self) {
        let now = self.overdue_ms();
        let mut overdue = Vec::new();
        for (slot, state) in &mut self.slots {
            for proposal in state.proposals.iter_mut().filter(|p| p.deadline_ms <= now) {
                for waiter in &mut proposal.batch.waiters {
                    overdue.push((*slot, std::mem::replace(waiter, Waiter::Nobody)));
                }
            }
            state.held.retain(|_, held| {
                if held.deadline_ms <= now {
                    overdue.extend(held.answers.drain(..).map(|(waiter, _)| (*slot, waiter)));
                }
                held.deadline_ms > now
            });
        }
        for (slot, waiter) in overdue {
            self.answer(slot, waiter, Outcome::Failed(crate::request::Failure::Timeout));
        }
    }
}
