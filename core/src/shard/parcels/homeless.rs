//! Parcels whose home is elsewhere, or nowhere: they are taken back, wait, and go to the next home
//! before anything that comes later.

use std::{collections::VecDeque, sync::Arc};

use super::{Kept, Parent, again};
use crate::{
    envelope::{Content, Envelope, Epoch, Except, Part, Receipt},
    id::{ChannelId, Name, ShardAddr, SlotId},
    message::SharedMessage,
    shard::{
        Shard,
        routes::{RETRY_MS, RETRY_MS_MAX},
    },
};

/// What has no home for this long is given up.
const HOMELESS_MS: u64 = 60_000;
/// What may wait for the home of one slot: messages, and bytes of their content.
const COUNT_MAX: usize = 8_192;
const SIZE_MAX: usize = 8 << 20;

/// Recipients whose home is not known, or a fan-out whose base channel's slot has no leader.
#[derive(Debug)]
struct Homeless {
    message: SharedMessage,
    to: Whom,
    except: Except,
    parent: Parent,
    until_ms: u64,
}

#[derive(Debug)]
pub(super) enum Whom {
    Uids(Arc<[Name]>),
    Base(ChannelId),
}

/// What waits for the home of one slot, in order.
#[derive(Debug, Default)]
pub(super) struct Line {
    queue: VecDeque<Homeless>,
    size: usize,
}

impl Line {
    fn push(&mut self, homeless: Homeless) {
        self.size += homeless.message.payload.len();
        self.queue.push_back(homeless);
    }

    /// The first, if there is too much of it, or it has waited too long.
    fn pop_given_up(&mut self, now_ms: u64) -> Option<Homeless> {
        let full = self.queue.len() > COUNT_MAX || self.size > SIZE_MAX;
        let first = self.queue.pop_front_if(|first| full || first.until_ms <= now_ms)?;
        self.size -= first.message.payload.len();
        Some(first)
    }
}

impl Shard {
    /// Uids (or a base channel) of a slot that this shard does not lead: another way for them.
    pub(in crate::shard) fn not_home(
        &mut self,
        message: SharedMessage,
        part: Part,
        except: Except,
        parent: Parent,
    ) {
        match parent {
            Parent::Parcel(receipt) => self.give_back(receipt, vec![part.slot]),
            Parent::None | Parent::Entry(..) | Parent::Word(..) => {
                self.keep_homeless(part.slot, message, Whom::Uids(part.uids), except, parent);
            }
        }
    }

    /// The same for a fan-out.
    pub(in crate::shard) fn not_base(
        &mut self,
        message: SharedMessage,
        base: ChannelId,
        except: Except,
        parent: Parent,
    ) {
        let slot = base.slot(self.settings.slot_count);
        match parent {
            Parent::Parcel(receipt) => self.give_back(receipt, vec![slot]),
            Parent::None | Parent::Entry(..) | Parent::Word(..) => {
                self.keep_homeless(slot, message, Whom::Base(base), except, parent);
            }
        }
    }

    pub(super) fn give_back(&mut self, receipt: Receipt, slots: Vec<SlotId>) {
        let Receipt { from, epoch, number, .. } = receipt;
        for slot in &slots {
            self.parcels.refused.insert((*slot, from), epoch);
            self.tell_leader(*slot, from);
        }
        let by = self.me();
        self.send_to(from, Envelope::NotHome { by, epoch, number, slots });
    }

    /// Uids of these slots have their home elsewhere: with all that stands behind them.
    pub(in crate::shard) fn on_not_home(&mut self, by: ShardAddr, epoch: Epoch, slots: &[SlotId]) {
        let life = self.life;
        let Some(outgoing) = self.parcels.outgoing.get_mut(&by) else {
            return;
        };
        if epoch != (Epoch { life, count: outgoing.epoch }) {
            return;
        }
        let due_ms = self.now.mono_ms + RETRY_MS;
        outgoing.due_ms = Some(outgoing.due_ms.map_or(due_ms, |due| due.min(due_ms)));
        self.due_at(due_ms);
        for slot in slots {
            self.take_back(by, *slot);
            if self.home_of(*slot) != Some(by) {
                self.send_homeless(*slot);
            }
        }
    }

    /// The slot has another leader: what others have not taken goes to the new one.
    pub(in crate::shard) fn take_back_parcels(&mut self, slot: SlotId) {
        let home = self.home_of(slot);
        let targets: Vec<ShardAddr> = self.parcels.outgoing.keys().copied().collect();
        for target in targets {
            if home != Some(target) {
                self.take_back(target, slot);
            }
        }
    }

    pub(super) fn take_back(&mut self, target: ShardAddr, slot: SlotId) {
        let slot_count = self.settings.slot_count;
        let Some(outgoing) = self.parcels.outgoing.get_mut(&target) else {
            return;
        };
        let mut taken = Vec::new();
        let mut empty = Vec::new();
        for entry in &mut outgoing.queue {
            let Some(kept) = entry else {
                continue;
            };
            let Kept { content, parent, kept_ms, .. } = kept;
            let gone = match content {
                Content::Deliver { message, parts, except } => {
                    for part in parts.iter().filter(|part| part.slot == slot) {
                        let to = Whom::Uids(part.uids.clone());
                        taken.push((message.clone(), to, again(*except, *kept_ms), *parent));
                    }
                    parts.retain(|part| part.slot != slot);
                    parts.is_empty()
                }
                Content::FanOut { message, base, except } if base.slot(slot_count) == slot => {
                    let to = Whom::Base(base.clone());
                    taken.push((message.clone(), to, again(*except, *kept_ms), *parent));
                    true
                }
                Content::FanOut { .. }
                | Content::Push { .. }
                | Content::Kick { .. }
                | Content::EndSessions { .. }
                | Content::SendBan { .. }
                | Content::Systems { .. } => false,
            };
            if gone {
                empty.extend(entry.take());
            }
        }
        self.parcels.count -= empty.len();
        for (message, to, except, parent) in taken {
            self.keep_homeless(slot, message, to, except, parent);
        }
        for kept in empty {
            self.release(kept.parent);
        }
    }

    /// This shard is no home of the slot any more: what it has pushed for its own entries, and
    /// nobody has taken, goes to the next home too, before anything that comes later.
    pub(in crate::shard) fn take_back_pushes(&mut self, slot: SlotId) {
        let mut taken = Vec::new();
        for outgoing in self.parcels.outgoing.values_mut() {
            for kept in outgoing.queue.iter_mut().flatten() {
                if let Content::Push { message, .. } = &kept.content
                    && let Some((part, except)) = kept.of.take_if(|(part, _)| part.slot == slot)
                {
                    let except = again(except, kept.kept_ms);
                    taken.push((message.clone(), part.uids, except, kept.parent));
                }
            }
        }
        // Several shards may have parts of one message: each channel's go in the order of seqs.
        taken.sort_by_key(|(message, ..)| (message.seq, message.id));
        taken.dedup_by_key(|(message, uids, ..)| (message.id, Arc::as_ptr(uids)));
        for (message, uids, except, parent) in taken {
            self.keep_homeless(slot, message, Whom::Uids(uids), except, parent);
        }
    }

    pub(super) fn keep_homeless(
        &mut self,
        slot: SlotId,
        message: SharedMessage,
        to: Whom,
        except: Except,
        parent: Parent,
    ) {
        self.hold(parent);
        let except = again(except, self.now.unix_ms);
        let until_ms = self.now.mono_ms + HOMELESS_MS;
        let homeless = Homeless { message, to, except, parent, until_ms };
        self.parcels.homeless.entry(slot).or_default().push(homeless);
        self.parcels.count += 1;
        self.parcels.homeless_count += 1;
        self.give_up_homeless(slot);
        self.due_at(self.now.mono_ms + RETRY_MS);
    }

    /// What is too much, or has waited too long. Sessions that it was for must come again and read.
    fn give_up_homeless(&mut self, slot: SlotId) {
        let now_ms = self.now.mono_ms;
        let mut lost = Vec::new();
        if let Some(line) = self.parcels.homeless.get_mut(&slot) {
            lost.extend(std::iter::from_fn(|| line.pop_given_up(now_ms)));
            if line.queue.is_empty() {
                self.parcels.homeless.swap_remove(&slot);
            }
        }
        if lost.is_empty() {
            return;
        }
        self.parcels.count -= lost.len();
        self.parcels.homeless_count -= lost.len();
        for homeless in lost {
            self.vars.shed += 1;
            self.release(homeless.parent);
        }
        for shard in self.shards_known() {
            self.miss(shard, Vec::new(), vec![slot]);
        }
    }

    /// Looks for homes of what has none.
    pub(super) fn send_due_homeless(&mut self) {
        let slots: Vec<SlotId> = self.parcels.homeless.keys().copied().collect();
        for slot in slots {
            self.send_homeless(slot);
            self.give_up_homeless(slot);
        }
        if !self.parcels.homeless.is_empty() {
            self.due_at(self.now.mono_ms + RETRY_MS_MAX);
        }
    }

    /// The slot's leader may be known now.
    pub(in crate::shard) fn send_homeless(&mut self, slot: SlotId) {
        if self.living_home_of(slot).is_none() {
            return;
        }
        let Some(waiting) = self.parcels.homeless.swap_remove(&slot) else {
            return;
        };
        self.parcels.count -= waiting.queue.len();
        self.parcels.homeless_count -= waiting.queue.len();
        for Homeless { message, to, except, parent, .. } in waiting.queue {
            match to {
                Whom::Uids(uids) => {
                    self.deliver_parts(&message, &[Part { slot, uids }], except, parent);
                }
                Whom::Base(base) => self.deliver_to_base(message, base, except, parent),
            }
            self.release(parent);
        }
    }
}
