//! Parcels: what another shard must take in order, kept until it has reached the sessions.
//!
//! ```text
//! channel's shard ──Deliver──► home ──Push──► shard of the session
//!        ◄───────Delivered──────┘ ◄─Delivered──┘
//! ```
//! A home says [`Envelope::Delivered`] when the pushes that it made of a parcel are taken, so that
//! the loss of a home or of a link loses nothing: whoever keeps the parcel sends it again, or to
//! the next home. It says so of each parcel, whatever stands before it: two homes that send each
//! other parcels and pushes would else wait for each other for ever, each push behind a parcel
//! that waits for a push of the other.
//!
//! On a node without peers nothing is numbered: rings lose nothing, and what dies dies together.

mod homeless;
mod incoming;
mod missed;

use std::collections::VecDeque;

use self::{
    homeless::{Line, Whom},
    incoming::Incoming,
    missed::Missed,
};
use super::{Shard, routes::WHEN_TOLD};
use crate::{
    envelope::{Content, Envelope, Epoch, Except, Part, Receipt},
    id::{ChannelId, ConnId, NodeId, SessionAddr, ShardAddr, ShardId, SlotId},
    map::Map,
    message::SharedMessage,
};

/// A parcel without an answer for this long goes out again, with all behind it.
const SILENCE_MS: u64 = 3_000;
/// On whose behalf something is delivered: it is told when nothing is left to do.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Parent {
    /// Nobody wants to know.
    None,
    /// An entry of a slot of this shard.
    Entry(SlotId, u64),
    /// An entry of a slot of this shard, whose callers are answered when sessions know of it.
    Word(SlotId, u64),
    /// A parcel of another shard.
    Parcel(Receipt),
}

#[derive(Debug)]
struct Kept {
    content: Content,
    parent: Parent,
    /// For a push that this shard made of its own entry: for whom. If their home moves before it
    /// is taken, the next home must have it before anything that comes later.
    of: Option<(Part, Except)>,
    /// Unix ms when it was to be delivered first.
    kept_ms: i64,
}

/// For whom something is that is delivered late, again, or by the next home: sessions that came
/// since may have got newer ones already (G6). The one that sent it knows that itself.
pub(crate) fn again(except: Except, kept_ms: i64) -> Except {
    match except {
        Except::None | Except::Sender(_) => Except::Since(kept_ms),
        Except::Since(_) => except,
    }
}

/// Parcels to one shard.
#[derive(Debug)]
struct Outgoing {
    epoch: u32,
    /// The number of the first of this epoch.
    begin: u64,
    /// The number of the first in the queue.
    first: u64,
    /// `None`: it is done, or went another way.
    queue: VecDeque<Option<Kept>>,
    due_ms: Option<u64>,
    /// When something of it was taken last.
    moved_ms: u64,
}

/// Everything on its way from or to other shards.
#[derive(Debug, Default)]
pub(crate) struct Parcels {
    outgoing: Map<ShardAddr, Outgoing>,
    incoming: Map<ShardAddr, Incoming>,
    homeless: Map<SlotId, Line>,
    /// Whom this shard owes word that parcels are done, and of which that are not the first ones.
    owed: Map<ShardAddr, Vec<u64>>,
    /// Up to which epoch parcels for this slot are given back to whom.
    refused: Map<(SlotId, ShardAddr), Epoch>,
    /// What went by at shards that are away.
    missed: Map<ShardAddr, Missed>,
    count: usize,
    homeless_count: usize,
}

impl Parcels {
    /// Whether recipients of this slot wait for a home: nothing overtakes them.
    pub(crate) fn has_homeless(&self, slot: SlotId) -> bool {
        !self.homeless.is_empty() && self.homeless.contains_key(&slot)
    }

    /// How many wait to be taken.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The same without those that have no home: a slot without a leader harms no other.
    pub(crate) fn moving_count(&self) -> usize {
        self.count - self.homeless_count
    }
}

impl Shard {
    /// Delivers to the homes of uids, grouped by slot.
    pub(super) fn deliver_parts(
        &mut self,
        message: &SharedMessage,
        parts: &[Part],
        except: Except,
        parent: Parent,
    ) {
        let mut here = Vec::new();
        let mut away: Vec<(ShardAddr, Vec<Part>)> = Vec::new();
        for part in parts {
            let waits = self.parcels.has_homeless(part.slot);
            match self.living_home_of(part.slot).filter(|_| !waits) {
                Some(home) if home == self.me() => here.push(part.clone()),
                Some(home) => match away.iter_mut().find(|(to, _)| *to == home) {
                    Some((_, parts)) => parts.push(part.clone()),
                    None => away.push((home, vec![part.clone()])),
                },
                None => {
                    let to = Whom::Uids(part.uids.clone());
                    self.keep_homeless(part.slot, message.clone(), to, except, parent);
                }
            }
        }
        if !here.is_empty() {
            self.add_job(message.clone(), here.into(), except, parent);
        }
        for (home, parts) in away {
            let message = message.clone();
            self.send_parcel(home, Content::Deliver { message, parts, except }, parent);
        }
    }

    /// Has a command message delivered to the recipients of its base channel.
    pub(super) fn deliver_to_base(
        &mut self,
        message: SharedMessage,
        base: ChannelId,
        except: Except,
        parent: Parent,
    ) {
        let slot = base.slot(self.settings.slot_count);
        let waits = self.parcels.has_homeless(slot);
        match self.living_home_of(slot).filter(|_| !waits) {
            Some(home) if home == self.me() => self.on_fan_out(message, base, except, parent),
            Some(home) => {
                self.send_parcel(home, Content::FanOut { message, base, except }, parent);
            }
            None => self.keep_homeless(slot, message, Whom::Base(base), except, parent),
        }
    }

    /// Sends a parcel to another shard.
    pub(super) fn send_parcel(&mut self, to: ShardAddr, content: Content, parent: Parent) {
        self.send_parcel_of(to, content, parent, None);
    }

    /// Sends the part of a message that concerns the sessions of one shard.
    pub(super) fn send_push(
        &mut self,
        to: ShardAddr,
        (message, conns): (SharedMessage, Vec<ConnId>),
        (part, except): (&Part, Except),
        parent: Parent,
    ) {
        let of = matches!(parent, Parent::Entry(..)).then(|| (part.clone(), except));
        self.send_parcel_of(to, Content::Push { message, conns }, parent, of);
    }

    fn send_parcel_of(
        &mut self,
        to: ShardAddr,
        content: Content,
        parent: Parent,
        of: Option<(Part, Except)>,
    ) {
        let of_session = matches!(
            content,
            Content::Push { .. }
                | Content::Kick { .. }
                | Content::EndSessions { .. }
                | Content::SendBan { .. }
                | Content::Systems { .. }
        );
        let own = to.node == self.settings.node;
        if !self.has_peers() || (own && of_session) {
            return self.send_to(to, Envelope::Parcel { receipt: None, content });
        }
        let peer = self.routes.peers.get(&to.node);
        if of_session && peer.is_none_or(|peer| peer.dead) {
            return self.miss_content(to, content);
        }
        let up = own || peer.is_some_and(|peer| peer.up);
        self.hold(parent);
        let (from, life, begin, now) = (self.me(), self.life, self.next_id, self.now.mono_ms);
        let kept_ms = self.now.unix_ms;
        let outgoing = self.parcels.outgoing.entry(to).or_insert_with(|| Outgoing {
            epoch: 0,
            begin,
            first: begin,
            queue: VecDeque::new(),
            due_ms: None,
            moved_ms: now,
        });
        if outgoing.queue.is_empty() {
            outgoing.moved_ms = now;
        }
        let (number, begin) = (next_number(outgoing), outgoing.begin);
        let epoch = Epoch { life, count: outgoing.epoch };
        if !up {
            outgoing.due_ms = Some(WHEN_TOLD);
        }
        let goes = outgoing.due_ms.is_none();
        let copy = goes.then(|| content.clone());
        outgoing.queue.push_back(Some(Kept { content, parent, of, kept_ms }));
        self.parcels.count += 1;
        if let Some(content) = copy {
            let receipt = Some(Receipt { from, epoch, begin, number });
            self.send_to(to, Envelope::Parcel { receipt, content });
        }
    }

    /// Sends what is due.
    pub(super) fn send_due_parcels(&mut self) {
        let now = self.now.mono_ms;
        let (mut due, mut next_ms) = (Vec::new(), WHEN_TOLD);
        for (to, outgoing) in &self.parcels.outgoing {
            match outgoing.due_ms {
                Some(due_ms) if due_ms <= now => due.push(*to),
                Some(due_ms) => next_ms = next_ms.min(due_ms),
                None => {}
            }
        }
        for to in due {
            self.repeat_parcels_to(to);
        }
        self.due_at(next_ms);
        self.send_due_homeless();
    }

    /// The links to a node are new: everything for it goes out again.
    pub(super) fn repeat_parcels(&mut self, node: NodeId) {
        let targets: Vec<ShardAddr> = self.parcels.outgoing.keys().copied().collect();
        for target in targets.into_iter().filter(|target| target.node == node) {
            self.repeat_parcels_to(target);
        }
    }

    /// Everything for a shard goes out again, under the next epoch and with new numbers.
    pub(super) fn repeat_parcels_to(&mut self, to: ShardAddr) {
        let own = to.node == self.settings.node;
        let up = own || self.routes.peers.get(&to.node).is_some_and(|peer| peer.up);
        let (from, life, now) = (self.me(), self.life, self.now.mono_ms);
        let Some(outgoing) = self.parcels.outgoing.get_mut(&to) else {
            return;
        };
        if !up {
            outgoing.due_ms = Some(WHEN_TOLD);
            return;
        }
        outgoing.first = next_number(outgoing);
        outgoing.begin = outgoing.first;
        outgoing.queue.retain(Option::is_some);
        outgoing.epoch += 1;
        (outgoing.due_ms, outgoing.moved_ms) = (None, now);
        let epoch = Epoch { life, count: outgoing.epoch };
        let begin = outgoing.begin;
        let mut number = begin;
        let contents = outgoing.queue.iter_mut().flatten().map(|kept| {
            if let Content::Deliver { except, .. } | Content::FanOut { except, .. } =
                &mut kept.content
            {
                *except = again(*except, kept.kept_ms);
            }
            kept.content.clone()
        });
        let contents: Vec<Content> = contents.collect();
        for content in contents {
            let receipt = Some(Receipt { from, epoch, begin, number });
            self.send_to(to, Envelope::Parcel { receipt, content });
            number = number.wrapping_add(1);
        }
    }

    /// The links to a node are down.
    pub(super) fn stop_parcels(&mut self, node: NodeId) {
        for (to, outgoing) in &mut self.parcels.outgoing {
            if to.node == node {
                outgoing.due_ms = Some(WHEN_TOLD);
            }
        }
    }

    /// A node is gone, and what was on its way to its sessions; it is given back.
    pub(super) fn drop_session_parcels(&mut self, node: NodeId) -> Vec<(ShardAddr, Content)> {
        let mut dropped = Vec::new();
        for (to, outgoing) in self.parcels.outgoing.iter_mut().filter(|(to, _)| to.node == node) {
            for entry in &mut outgoing.queue {
                let of_homes = matches!(
                    entry,
                    Some(Kept { content: Content::Deliver { .. } | Content::FanOut { .. }, .. })
                );
                if !of_homes {
                    dropped.extend(entry.take().map(|kept| (*to, kept)));
                }
            }
        }
        self.parcels.count -= dropped.len();
        let give_back = |(to, kept): (ShardAddr, Kept)| {
            self.release(kept.parent);
            (to, kept.content)
        };
        dropped.into_iter().map(give_back).collect()
    }

    /// A node has come back, maybe with other shards: what goes to homes finds its way anew.
    pub(super) fn redirect_parcels(&mut self, node: NodeId) {
        for slot in (0..self.settings.slot_count).map(SlotId) {
            let targets: Vec<ShardAddr> = self.parcels.outgoing.keys().copied().collect();
            for target in targets.into_iter().filter(|target| target.node == node) {
                self.take_back(target, slot);
            }
        }
    }

    /// Parcels up to this one have reached their sessions.
    pub(super) fn on_delivered(&mut self, by: ShardAddr, number: u64, later: &[u64]) {
        let now = self.now.mono_ms;
        let Some(outgoing) = self.parcels.outgoing.get_mut(&by) else {
            return;
        };
        // What was said of an earlier epoch is outside.
        let place = |number: u64, first: u64, len: usize| {
            usize::try_from(number.wrapping_sub(first)).ok().filter(|place| *place < len)
        };
        let mut taken = Vec::new();
        for number in later {
            if let Some(place) = place(*number, outgoing.first, outgoing.queue.len()) {
                taken.extend(outgoing.queue.get_mut(place).and_then(Option::take));
                outgoing.moved_ms = now;
            }
        }
        if let Some(place) = place(number, outgoing.first, outgoing.queue.len()) {
            taken.extend(outgoing.queue.drain(..=place).flatten());
            outgoing.first = number.wrapping_add(1);
            outgoing.moved_ms = now;
        }
        while let Some(None) = outgoing.queue.front() {
            outgoing.queue.pop_front();
            outgoing.first = outgoing.first.wrapping_add(1);
        }
        if outgoing.queue.is_empty() && outgoing.queue.capacity() > 1_024 {
            outgoing.queue = VecDeque::new();
        }
        self.parcels.count -= taken.len();
        for kept in taken {
            self.release(kept.parent);
        }
    }

    /// Looks for parcels that nobody has answered.
    pub(super) fn look_after_parcels(&mut self) {
        let now = self.now.mono_ms;
        let mut silent = Vec::new();
        for (to, outgoing) in &self.parcels.outgoing {
            let waits = !outgoing.queue.is_empty() && outgoing.due_ms.is_none();
            if waits && outgoing.moved_ms + SILENCE_MS <= now {
                silent.push(*to);
            }
        }
        for to in silent {
            self.repeat_parcels_to(to);
        }
    }

    /// The shard that has a session.
    pub(super) fn shard_of_session(session: SessionAddr) -> ShardAddr {
        let shard: ShardId = session.conn.shard();
        ShardAddr { node: session.node, shard }
    }
}

fn next_number(outgoing: &Outgoing) -> u64 {
    outgoing.first.wrapping_add(u64::try_from(outgoing.queue.len()).unwrap_or(0))
}
