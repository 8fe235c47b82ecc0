//! Apply: committed entries become state, in order, on every replica alike.
//!
//! What an entry needs in memory is loaded first (design.md §2a); the entries of a slot wait for
//! it in order, other slots go on. Nothing here looks at a clock, a setting that differs between
//! nodes, or another slot.

mod commands;
mod import;
mod streams;

use super::{
    Shard,
    cache::Found,
    notices::NewNotice,
    parcels::Parent,
    slot::{Applying, Batch, Held, Outcome, Waiter},
    waiting::Waiting,
};
use crate::{
    effect::{Committed, Effect},
    entry::{self, Command, ConversationChange, Entry, EntryHead, NewMessage},
    envelope::Except,
    id::{ChannelId, LogId, Name, SlotId},
    import::Import,
    map::Map,
    message::{SharedMessage, is_stream},
    row::{DedupeRecord, Persist, Row},
    stream::StreamKey,
};

/// An entry that is applied within this time of its proposal counts as prompt.
const PROMPT_MS: u64 = 500;

/// What applying one entry has gathered.
#[derive(Default)]
struct Gathered {
    rows: Vec<Row>,
    changes: Map<SlotId, Vec<ConversationChange>>,
    records: Vec<DedupeRecord>,
    deliveries: Vec<Delivery>,
    answers: Vec<(Waiter, Outcome)>,
    held: Vec<(Waiter, Outcome)>,
    held_channels: Vec<ChannelId>,
    /// Streams that have changed.
    streams: Vec<StreamKey>,
    notices: Vec<NewNotice>,
}

struct Delivery {
    message: SharedMessage,
    recipients: Option<Vec<Name>>,
    except: Except,
}

impl Shard {
    /// An entry of a slot is committed.
    pub(in crate::shard) fn on_committed(&mut self, slot: SlotId, log_id: LogId, body: Committed) {
        if let Some(state) = self.slots.get_mut(&slot) {
            state.committed.push_back((log_id, body));
            if state.applying.is_none() {
                self.apply_ready(slot);
            }
        }
    }

    /// Applies what is committed and has its rows in memory.
    pub(in crate::shard) fn apply_ready(&mut self, slot: SlotId) {
        loop {
            let Some(state) = self.slots.get_mut(&slot) else {
                return;
            };
            let Some(mut applying) = state.applying.take() else {
                if !self.begin_apply(slot) {
                    return;
                }
                continue;
            };
            applying.missing = self.load_for(slot, &applying.batch.commands);
            if applying.missing == 0 {
                if applying.pinned {
                    self.pin_for(&applying.batch.commands, false);
                }
                self.finish_apply(slot, applying);
            } else {
                if !applying.pinned {
                    self.pin_for(&applying.batch.commands, true);
                    applying.pinned = true;
                }
                if let Some(state) = self.slots.get_mut(&slot) {
                    state.applying = Some(applying);
                }
                return;
            }
        }
    }

    /// Takes the next committed entry; `false` when there is none.
    fn begin_apply(&mut self, slot: SlotId) -> bool {
        let Some(state) = self.slots.get_mut(&slot) else {
            return false;
        };
        let Some((log_id, body)) = state.committed.pop_front() else {
            return false;
        };
        let bytes = match body {
            Committed::Entry(bytes) => bytes,
            Committed::Blank => {
                self.persist(slot, log_id, Vec::new());
                return true;
            }
            Committed::Membership(bytes) => {
                self.persist(slot, log_id, vec![Row::Membership(bytes)]);
                return true;
            }
        };
        let own = EntryHead::decode(&bytes).filter(|head| head.proposer == self.proposer).and_then(
            |head| {
                let at = state.proposals.iter().position(|p| p.number == head.proposal)?;
                Some((head, state.proposals.remove(at)?))
            },
        );
        let (head, batch) = match own {
            Some((head, proposal)) => {
                // The deadline was set when it was proposed.
                let proposed_ms = proposal.deadline_ms - self.settings.request_ms;
                if self.now.mono_ms < proposed_ms + PROMPT_MS {
                    self.vars.proposals_prompt += 1;
                }
                (head, proposal.batch)
            }
            None => match Entry::decode(&bytes) {
                Ok(entry) => {
                    let waiters = entry.commands.iter().map(|_| Waiter::Nobody).collect();
                    (entry.head, Batch { commands: entry.commands, waiters })
                }
                Err(error) => {
                    // Every replica sees the same bytes and skips them alike.
                    self.warn(format!("{slot}: entry {} is skipped: {error}", log_id.index));
                    self.persist(slot, log_id, Vec::new());
                    return true;
                }
            },
        };
        if let Some(state) = self.slots.get_mut(&slot) {
            state.applying = Some(Applying { log_id, head, batch, missing: 0, pinned: false });
        }
        true
    }

    /// A row that an entry of this slot waits for has come.
    pub(in crate::shard) fn on_row_for_apply(&mut self, slot: SlotId) {
        let applying = self.slots.get_mut(&slot).and_then(|state| state.applying.as_mut());
        if let Some(applying) = applying {
            applying.missing = applying.missing.saturating_sub(1);
            if applying.missing > 0 {
                return;
            }
        }
        self.apply_ready(slot);
    }

    /// How many rows that the commands need are not in memory; asks for them.
    fn load_for(&mut self, slot: SlotId, commands: &[Command]) -> usize {
        let mut missing = 0;
        for_each_row(commands, |row| {
            let here = match row {
                Needed::Channel(channel) => self.channel_or_wait(&channel, slot),
                Needed::User(uid) => self.user_or_wait(uid, slot),
                Needed::Stream(stream) => self.stream_or_wait(&stream, slot),
            };
            missing += usize::from(!here);
        });
        missing
    }

    /// Keeps the rows that the commands need in memory, or lets them go. A row belongs to one slot,
    /// and a slot applies one entry at a time, so nobody else has pinned it.
    fn pin_for(&mut self, commands: &[Command], pin: bool) {
        for_each_row(commands, |row| match row {
            Needed::Channel(channel) => self.channels.pin(&channel, pin),
            Needed::User(uid) => self.users.pin(uid, pin),
            Needed::Stream(stream) => self.streams.pin(&stream, pin),
        });
    }

    fn channel_or_wait(&mut self, channel: &ChannelId, slot: SlotId) -> bool {
        match self.channels.get_or_wait(channel, || Waiting::Apply(slot)) {
            Found::Ready(_) => true,
            Found::Loading => false,
            Found::Missing => {
                self.load_channel(channel.clone());
                false
            }
        }
    }

    fn user_or_wait(&mut self, uid: &Name, slot: SlotId) -> bool {
        match self.users.get_or_wait(uid, || Waiting::Apply(slot)) {
            Found::Ready(_) => true,
            Found::Loading => false,
            Found::Missing => {
                self.load_user(uid.clone());
                false
            }
        }
    }

    fn stream_or_wait(&mut self, stream: &StreamKey, slot: SlotId) -> bool {
        match self.streams.get_or_wait(stream, || Waiting::Apply(slot)) {
            Found::Ready(_) => true,
            Found::Loading => false,
            Found::Missing => {
                self.load_stream(stream.clone());
                false
            }
        }
    }

    fn finish_apply(&mut self, slot: SlotId, applying: Applying) {
        let Applying { log_id, head: EntryHead { time_ms, window, .. }, batch, .. } = applying;
        let mut gathered = Gathered::default();
        let waiters = batch.waiters.into_iter().chain(std::iter::repeat_with(|| Waiter::Nobody));
        for (command, waiter) in batch.commands.into_iter().zip(waiters) {
            let changes_before = gathered.changes.values().map(Vec::len).sum::<usize>();
            let channel = match (&command, &waiter) {
                (Command::Message(new), Waiter::Send(_)) => Some(ChannelId::from(&new.channel)),
                (Command::MessageTo { message, .. }, Waiter::Send(_)) => {
                    Some(ChannelId::from(&message.channel))
                }
                _ => None,
            };
            let tells = matches!(command, Command::SetInfo { .. } | Command::ChangeSystems { .. });
            let outcome =
                self.apply_command(slot, log_id.index, command, &waiter, time_ms, &mut gathered);
            let changed = gathered.changes.values().map(Vec::len).sum::<usize>() > changes_before;
            if matches!(waiter, Waiter::Nobody) {
                continue;
            }
            let untold = tells
                && self.slots.get(&slot).is_some_and(|s| s.untold.contains_key(&log_id.index));
            if changed || untold {
                gathered.held_channels.extend(channel);
                gathered.held.push((waiter, outcome));
            } else if let Some(channel) = &channel
                && gathered.held_channels.contains(channel)
            {
                gathered.held.push((waiter, outcome));
            } else {
                self.answer_in_order(slot, channel, waiter, outcome, &mut gathered.answers);
            }
        }
        self.gather_streams(&mut gathered);
        let targets: Vec<SlotId> = gathered.changes.keys().copied().collect();
        if let Some(state) = self.slots.get_mut(&slot) {
            let records = std::mem::take(&mut gathered.records);
            self.vars.dedupe_cut += state.dedupe.close_entry(
                log_id.index,
                records,
                time_ms,
                window,
                &mut gathered.rows,
            );
            for (target, changes) in std::mem::take(&mut gathered.changes) {
                if let Ok(row) = entry::encode_changes(&changes) {
                    state.outbox.insert((target, log_id.index), row.clone());
                    gathered.rows.push(Row::Outbox {
                        target,
                        index: log_id.index,
                        changes: Some(row),
                    });
                }
            }
            if !gathered.held.is_empty() {
                let answers = std::mem::take(&mut gathered.held);
                let channels = std::mem::take(&mut gathered.held_channels);
                let targets = targets.clone();
                let deadline_ms = self.now.mono_ms + self.settings.request_ms;
                let held = Held { channels, targets, deadline_ms, answers };
                state.held.insert(log_id.index, held);
            }
        }
        let new = std::mem::take(&mut gathered.notices);
        let notices = self.add_notices(slot, time_ms, new, &mut gathered.rows);
        self.persist(slot, log_id, gathered.rows);
        for (waiter, outcome) in gathered.answers {
            self.answer(slot, waiter, outcome);
        }
        let parent = self.entry_parent(slot, log_id.index);
        for Delivery { message, recipients, except } in gathered.deliveries {
            self.deliver(message, recipients, except, parent);
        }
        self.send_outbox(slot, &targets);
        self.feed_new(slot, notices);
        self.mark_dirty(slot);
    }

    /// On whose behalf an entry's messages are delivered: without peers nobody counts.
    pub(in crate::shard) fn entry_parent(&self, slot: SlotId, index: u64) -> Parent {
        if self.has_peers() { Parent::Entry(slot, index) } else { Parent::None }
    }

    /// An answer joins those held for its channel, so that acknowledgements keep their order.
    fn answer_in_order(
        &mut self,
        slot: SlotId,
        channel: Option<ChannelId>,
        waiter: Waiter,
        outcome: Outcome,
        answers: &mut Vec<(Waiter, Outcome)>,
    ) {
        if let Some(channel) = channel
            && let Some(state) = self.slots.get_mut(&slot)
            && let Some(held) = state.held.values_mut().find(|h| h.channels.contains(&channel))
        {
            held.answers.push((waiter, outcome));
        } else {
            answers.push((waiter, outcome));
        }
    }

    /// Hands rows and position to the state lane and tells the group.
    fn persist(&mut self, slot: SlotId, applied: LogId, rows: Vec<Row>) {
        let persist = Persist { slot, applied, rows };
        self.state_queue_size += crate::effect::Outbox::persist_size(&persist);
        if let Some(state) = self.slots.get_mut(&slot) {
            state.applied = applied.index;
        }
        self.out.effects.push(Effect::Persist(persist));
        self.out.effects.push(Effect::Applied { slot, log_id: applied });
    }
}

/// A row that an entry needs in memory.
enum Needed<'a> {
    Channel(ChannelId),
    User(&'a Name),
    Stream(StreamKey),
}

fn for_each_row<'a>(commands: &'a [Command], mut f: impl FnMut(Needed<'a>)) {
    for command in commands {
        match command {
            Command::Message(message) => need_message(message, &mut f),
            Command::SetInfo { channel, .. }
            | Command::Disband { channel }
            | Command::ChangeList { channel, .. } => f(Needed::Channel(channel.into())),
            Command::SetToken { uid, .. }
            | Command::HandOut { uid, .. }
            | Command::TakeHanded { uid } => f(Needed::User(uid)),
            Command::Conversation(change) => f(Needed::User(&change.uid)),
            Command::FromOutbox { changes, .. } => {
                for change in changes {
                    f(Needed::User(&change.uid));
                }
            }
            Command::MessageTo { message, .. } => need_message(message, &mut f),
            Command::StreamEvent(event) => {
                f(Needed::Channel(event.stream.channel.clone()));
                f(Needed::Stream(event.stream.clone()));
            }
            Command::ClaimStream(claim) => {
                f(Needed::Stream(StreamKey::claim(claim.client_msg_no.clone())));
            }
            Command::Import(import) => need_import(import, &mut f),
            Command::OutboxDone { .. }
            | Command::SetClusterKey { .. }
            | Command::WriteClusterKey { .. }
            | Command::ChangeSystems { .. }
            | Command::OpenCommands { .. }
            | Command::Delivered { .. }
            | Command::TellStatus { .. }
            | Command::NoticesDone { .. } => {}
        }
    }
}

fn need_import<'a>(import: &'a Import, f: &mut impl FnMut(Needed<'a>)) {
    match import {
        Import::Messages { channel, messages } => {
            let channel = ChannelId::from(channel);
            for message in messages {
                if is_stream(message.setting, &message.client_msg_no) {
                    let number = message.client_msg_no.clone();
                    f(Needed::Stream(StreamKey::new(channel.clone(), number)));
                }
            }
            f(Needed::Channel(channel));
        }
        Import::List { channel, .. } => f(Needed::Channel(channel.into())),
        Import::Conversations { uid, .. } | Import::Device { uid, .. } => f(Needed::User(uid)),
    }
}

fn need_message<'a>(message: &NewMessage, f: &mut impl FnMut(Needed<'a>)) {
    let channel = ChannelId::from(&message.channel);
    if message.is_stream() {
        f(Needed::Stream(StreamKey::new(channel.clone(), message.client_msg_no.clone())));
    }
    f(Needed::Channel(channel));
}
