//! The receiver's side of parcels: taken in order, opened, and answered for when all that was made
//! of them is done.

use std::collections::VecDeque;

use super::Parent;
use crate::{
    envelope::{Content, Envelope, Epoch, Receipt},
    id::SlotId,
    shard::Shard,
};

/// Parcels of one shard that have not done their work.
#[derive(Debug)]
pub(super) struct Incoming {
    epoch: Epoch,
    first: u64,
    /// How many things are left to do for each.
    counts: VecDeque<u32>,
}

impl Shard {
    /// A parcel has come.
    pub(in crate::shard) fn on_parcel(&mut self, receipt: Option<Receipt>, content: Content) {
        let Some(receipt) = receipt else {
            return self.open_parcel(content, Parent::None);
        };
        let Receipt { from, epoch, begin, number } = receipt;
        let fresh = || Incoming { epoch, first: begin, counts: VecDeque::new() };
        let incoming = self.parcels.incoming.entry(from).or_insert_with(fresh);
        if incoming.epoch != epoch {
            if epoch.is_until(incoming.epoch) {
                return;
            }
            *incoming = fresh();
        }
        let next = u64::try_from(incoming.counts.len()).unwrap_or(0).wrapping_add(incoming.first);
        if number != next {
            // A gap: what is missing comes again, and this one after it.
            return;
        }
        incoming.counts.push_back(1);
        let parent = Parent::Parcel(receipt);
        self.open_parcel(content, parent);
        self.release(parent);
    }

    fn open_parcel(&mut self, content: Content, parent: Parent) {
        match content {
            Content::Deliver { message, mut parts, except } => {
                if let Parent::Parcel(receipt) = parent {
                    let back: Vec<SlotId> = parts
                        .iter()
                        .map(|part| part.slot)
                        .filter(|slot| self.is_given_back(*slot, &receipt))
                        .collect();
                    if !back.is_empty() {
                        parts.retain(|part| !back.contains(&part.slot));
                        self.give_back(receipt, back);
                    }
                }
                if !parts.is_empty() {
                    self.add_job(message, parts.into(), except, parent);
                }
            }
            Content::FanOut { message, base, except } => {
                let slot = base.slot(self.settings.slot_count);
                match parent {
                    Parent::Parcel(receipt) if self.is_given_back(slot, &receipt) => {
                        self.give_back(receipt, vec![slot]);
                    }
                    Parent::None | Parent::Entry(..) | Parent::Word(..) | Parent::Parcel(_) => {
                        self.on_fan_out(message, base, except, parent);
                    }
                }
            }
            Content::Push { message, conns } => self.push(&message, &conns),
            Content::Kick { conn, text } => self.on_kick(conn, text.as_deref()),
            Content::EndSessions { conns, slots } => self.on_end_sessions(conns, &slots),
            Content::SendBan { conn, banned } => self.on_send_ban(conn, banned),
            Content::Systems { version, uids } => self.on_systems(version, uids),
        }
    }

    fn is_given_back(&self, slot: SlotId, receipt: &Receipt) -> bool {
        let refused = self.parcels.refused.get(&(slot, receipt.from));
        refused.is_some_and(|epoch| receipt.epoch.is_until(*epoch))
    }

    /// One thing more is to do before the parent is told.
    pub(in crate::shard) fn hold(&mut self, parent: Parent) {
        match parent {
            Parent::None => {}
            Parent::Entry(slot, index) => {
                if let Some(state) = self.slots.get_mut(&slot) {
                    state.undelivered.hold(index);
                }
            }
            Parent::Word(slot, index) => {
                if let Some(state) = self.slots.get_mut(&slot) {
                    *state.untold.entry(index).or_default() += 1;
                }
            }
            Parent::Parcel(receipt) => {
                if let Some(count) = self.count_of(&receipt) {
                    *count += 1;
                }
            }
        }
    }

    /// One thing is done.
    pub(in crate::shard) fn release(&mut self, parent: Parent) {
        match parent {
            Parent::None => {}
            Parent::Entry(slot, index) => {
                if let Some(state) = self.slots.get_mut(&slot) {
                    state.undelivered.release(index);
                }
            }
            Parent::Word(slot, index) => {
                let state = self.slots.get_mut(&slot);
                if let Some(count) = state.and_then(|state| state.untold.get_mut(&index)) {
                    *count = count.saturating_sub(1);
                    self.answer_held(slot, index);
                }
            }
            Parent::Parcel(receipt) => {
                let Some(count) = self.count_of(&receipt) else {
                    return;
                };
                *count = count.saturating_sub(1);
                if *count > 0 {
                    return;
                }
                let owed = self.parcels.owed.entry(receipt.from).or_default();
                let Some(incoming) = self.parcels.incoming.get_mut(&receipt.from) else {
                    return;
                };
                if receipt.number != incoming.first {
                    owed.push(receipt.number);
                    return;
                }
                while incoming.counts.front() == Some(&0) {
                    incoming.counts.pop_front();
                    incoming.first = incoming.first.wrapping_add(1);
                }
            }
        }
    }

    fn count_of(&mut self, receipt: &Receipt) -> Option<&mut u32> {
        let incoming = self.parcels.incoming.get_mut(&receipt.from)?;
        if incoming.epoch != receipt.epoch {
            return None;
        }
        let place = usize::try_from(receipt.number.wrapping_sub(incoming.first)).ok()?;
        incoming.counts.get_mut(place)
    }

    /// Ends a step: one word to each shard whose parcels are done.
    pub(in crate::shard) fn pay_receipts(&mut self) {
        let by = self.me();
        for (to, later) in std::mem::take(&mut self.parcels.owed) {
            if let Some(incoming) = self.parcels.incoming.get(&to) {
                let number = incoming.first.wrapping_sub(1);
                self.send_to(to, Envelope::Delivered { by, number, later });
            }
        }
    }
}
