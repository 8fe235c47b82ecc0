//! Apply: committed entries become state, in order, on every replica alike.
//!
//! What an entry needs in memory is loaded first (design.md §2a); the entries of a slot wait for
//! it in order, other slots go on. Nothing here looks at a clock, a setting that differs between
//! nodes, or another slot.

use std::sync::Arc;

use super::{
    Shard,
    cache::Found,
    channel::Channel,
    slot::{Applying, Batch, Held, Outcome, Waiter},
    user::User,
    waiting::Waiting,
};
use crate::{
    channel_info::{ChannelInfo, List, ListChange, kind},
    effect::{Committed, Effect},
    entry::{
        self, ChannelRef, Command, ConversationAction, ConversationChange, Entry, EntryHead,
        NewMessage,
    },
    envelope::Origin,
    id::{ChannelId, LogId, Name, SYSTEM_UID, SlotId},
    map::Map,
    message::{Message, SharedMessage},
    row::{DedupeRecord, Device, Persist, Row},
    shard::dedupe,
};

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
}

struct Delivery {
    message: SharedMessage,
    recipients: Option<Vec<Name>>,
    origin: Option<Origin>,
}

impl Shard {
    /// An entry of a slot is committed.
    pub(super) fn on_committed(&mut self, slot: SlotId, log_id: LogId, body: Committed) {
        if let Some(state) = self.slots.get_mut(&slot) {
            state.committed.push_back((log_id, body));
            self.apply_ready(slot);
        }
    }

    /// Applies what is committed and has its rows in memory.
    pub(super) fn apply_ready(&mut self, slot: SlotId) {
        loop {
            let Some(state) = self.slots.get_mut(&slot) else {
                return;
            };
            let Some(applying) = state.applying.take() else {
                if !self.begin_apply(slot) {
                    return;
                }
                continue;
            };
            if self.load_for(slot, &applying.batch.commands) {
                self.finish_apply(slot, applying);
            } else {
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
                Some((head.time_ms, state.proposals.remove(at)?.batch))
            },
        );
        let (time_ms, batch) = match own {
            Some(own) => own,
            None => match Entry::decode(&bytes) {
                Ok(entry) => {
                    let waiters = entry.commands.iter().map(|_| Waiter::Nobody).collect();
                    (entry.head.time_ms, Batch { commands: entry.commands, waiters })
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
            state.applying = Some(Applying { log_id, time_ms, batch });
        }
        true
    }

    /// Whether all rows that the commands need are in memory; asks for those that are not.
    fn load_for(&mut self, slot: SlotId, commands: &[Command]) -> bool {
        let mut complete = true;
        for command in commands {
            match command {
                Command::Message(NewMessage { channel, .. })
                | Command::SetInfo { channel, .. }
                | Command::Disband { channel }
                | Command::ChangeList { channel, .. } => {
                    complete &= self.channel_or_wait(&channel.into(), slot);
                }
                Command::SetToken { uid, .. } => complete &= self.user_or_wait(uid, slot),
                Command::Conversation(change) => complete &= self.user_or_wait(&change.uid, slot),
                Command::FromOutbox { changes, .. } => {
                    for change in changes {
                        complete &= self.user_or_wait(&change.uid, slot);
                    }
                }
                Command::OutboxDone { .. } | Command::SetClusterKey { .. } => {}
            }
        }
        complete
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

    fn finish_apply(&mut self, slot: SlotId, applying: Applying) {
        let Applying { log_id, time_ms, batch } = applying;
        let mut gathered = Gathered::default();
        let waiters = batch.waiters.into_iter().chain(std::iter::repeat_with(|| Waiter::Nobody));
        for (command, waiter) in batch.commands.into_iter().zip(waiters) {
            let changes_before = gathered.changes.values().map(Vec::len).sum::<usize>();
            let channel = match (&command, &waiter) {
                (Command::Message(new), Waiter::Send { .. }) => Some(ChannelId::from(&new.channel)),
                _ => None,
            };
            let outcome = self.apply_command(slot, command, &waiter, time_ms, &mut gathered);
            let changed = gathered.changes.values().map(Vec::len).sum::<usize>() > changes_before;
            if matches!(waiter, Waiter::Nobody) {
                continue;
            }
            if changed {
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
        let window = (self.settings.dedupe_count_max, self.settings.dedupe_ms);
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
                state.held.insert(log_id.index, Held { channels, targets, answers });
            }
        }
        self.persist(slot, log_id, gathered.rows);
        for (waiter, outcome) in gathered.answers {
            self.answer(waiter, outcome);
        }
        for Delivery { message, recipients, origin } in gathered.deliveries {
            let except = match origin {
                Some(Origin::Session { conn, .. }) => Some(conn),
                Some(Origin::Api { .. }) | None => None,
            };
            self.deliver(message, recipients, except);
        }
        self.send_outbox(slot, &targets);
        self.mark_dirty(slot);
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
        self.out.effects.push(Effect::Persist(persist));
        self.out.effects.push(Effect::Applied { slot, log_id: applied });
    }

    fn apply_command(
        &mut self,
        slot: SlotId,
        command: Command,
        waiter: &Waiter,
        time_ms: i64,
        gathered: &mut Gathered,
    ) -> Outcome {
        match command {
            Command::Message(new) => self.apply_message(slot, new, waiter, time_ms, gathered),
            Command::SetInfo { channel, info } => {
                self.with_channel(&channel, |channel| {
                    let info = match (info, channel.info) {
                        (Some(info), _) => info,
                        (None, Some(_)) => return,
                        (None, None) => ChannelInfo::default(),
                    };
                    channel.info = Some(info);
                    gathered.rows.push(Row::Info { channel: channel.id.clone(), info });
                });
                self.tell_sessions_of(&channel);
                Outcome::Done
            }
            Command::Disband { channel } => {
                self.with_channel(&channel, |channel| {
                    if let Some(info) = &mut channel.info {
                        info.disband = true;
                        let info = *info;
                        gathered.rows.push(Row::Info { channel: channel.id.clone(), info });
                    }
                });
                Outcome::Done
            }
            Command::ChangeList { channel, list, change, uids } => {
                let mut last_seq = 0;
                self.with_channel(&channel, |channel| {
                    last_seq = channel.last_seq;
                    channel.change_list(list, change, &uids, time_ms, &mut gathered.rows);
                });
                let action = conversation_of_list_change(channel.kind, list, change, last_seq);
                if let Some(action) = action {
                    let personal = channel.kind == kind::PERSON;
                    for uid in uids.into_iter().filter(|uid| !(personal && *uid == channel.id)) {
                        let channel = if personal {
                            ChannelRef {
                                id: crate::id::person_channel(&channel.id, &uid).into(),
                                kind: kind::PERSON,
                            }
                        } else {
                            channel.clone()
                        };
                        self.change_elsewhere(
                            gathered,
                            ConversationChange { uid, channel, action },
                        );
                    }
                }
                Outcome::Done
            }
            Command::SetToken { uid, device_flag, device_level, token, only_existing } => {
                self.with_user(&uid, |user| {
                    if !only_existing || user.device(device_flag).is_some() {
                        let device = Device { level: device_level, token };
                        user.set_device(device_flag, device, &mut gathered.rows);
                    }
                });
                Outcome::Done
            }
            Command::Conversation(change) => {
                self.apply_conversation(&change, time_ms, &mut gathered.rows);
                Outcome::Done
            }
            Command::FromOutbox { source, index, changes } => {
                let source = SlotId(source);
                let Some(state) = self.slots.get_mut(&slot) else {
                    return Outcome::Done;
                };
                if state.received.get(&source).is_some_and(|taken| *taken >= index) {
                    return Outcome::Done;
                }
                state.received.insert(source, index);
                gathered.rows.push(Row::Received { source, index });
                for change in &changes {
                    self.apply_conversation(change, time_ms, &mut gathered.rows);
                }
                Outcome::Done
            }
            Command::OutboxDone { target, index } => {
                let target = SlotId(target);
                let Some(state) = self.slots.get_mut(&slot) else {
                    return Outcome::Done;
                };
                let mut rest = state.outbox.split_off(&(target, 0));
                let mut after = rest.split_off(&(target, index + 1));
                for (target, index) in rest.into_keys() {
                    gathered.rows.push(Row::Outbox { target, index, changes: None });
                }
                state.outbox.append(&mut after);
                Outcome::Done
            }
            Command::SetClusterKey { key, value } => {
                let Some(state) = self.slots.get_mut(&slot) else {
                    return Outcome::Done;
                };
                if !state.cluster.contains_key(&key) {
                    let value = bytes::Bytes::from(value);
                    state.cluster.insert(key.clone(), value.clone());
                    gathered.rows.push(Row::ClusterKey { key, value });
                }
                Outcome::Done
            }
        }
    }

    /// Assigns the seq, unless the sender has sent it before (G2, G4).
    fn apply_message(
        &mut self,
        slot: SlotId,
        new: NewMessage,
        waiter: &Waiter,
        time_ms: i64,
        gathered: &mut Gathered,
    ) -> Outcome {
        let channel_id = ChannelId::from(&new.channel);
        let digest = (!new.client_msg_no.is_empty())
            .then(|| dedupe::digest(&channel_id, &new.from, &new.client_msg_no));
        let Some(state) = self.slots.get_mut(&slot) else {
            return Outcome::Done;
        };
        if let Some((message_id, seq)) = digest.and_then(|digest| state.dedupe.find(digest)) {
            self.vars.deduplicated += 1;
            return Outcome::Sent { message_id, seq };
        }
        let Some(channel) = self.channels.get(&channel_id) else {
            return Outcome::Done;
        };
        channel.last_seq += 1;
        let seq = channel.last_seq;
        let message: SharedMessage = Arc::new(Message {
            id: new.id,
            seq,
            channel: channel_id.clone(),
            from: new.from,
            client_msg_no: new.client_msg_no,
            flags: new.flags,
            setting: new.setting,
            expire: new.expire,
            timestamp: time_ms.div_euclid(1000),
            topic: new.topic,
            stream_no: new.stream_no,
            shown: new.shown,
            payload: new.payload,
        });
        let opened = match (seq, new.opens_conversations) {
            (1, true) => channel.recipients(),
            _ => Vec::new(),
        };
        if let Some(digest) = digest {
            let record = DedupeRecord { digest, id: message.id, seq, time_ms };
            state.dedupe.insert(&record);
            gathered.records.push(record);
        }
        self.vars.stored += 1;
        gathered.rows.push(Row::Message(message.clone()));
        gathered.rows.push(Row::Sent { channel: channel_id, uid: message.from.clone(), seq });
        for uid in opened {
            let read_to = if uid == message.from { seq } else { 0 };
            let action = ConversationAction::OpenIfAbsent { read_to };
            let channel = new.channel.clone();
            self.change_elsewhere(gathered, ConversationChange { uid, channel, action });
        }
        let (recipients, origin) = match waiter {
            Waiter::Send { origin, recipients } => (recipients.clone(), Some(*origin)),
            Waiter::Nobody | Waiter::Api { .. } | Waiter::Token { .. } | Waiter::Outbox { .. } => {
                (None, None)
            }
        };
        if self.slots.get(&slot).is_some_and(|state| state.leading) {
            gathered.deliveries.push(Delivery { message: message.clone(), recipients, origin });
        }
        Outcome::Sent { message_id: message.id, seq }
    }

    fn change_elsewhere(&self, gathered: &mut Gathered, change: ConversationChange) {
        if change.uid.is_empty() || &*change.uid == SYSTEM_UID {
            return;
        }
        let target = SlotId::of(&change.uid, self.settings.slot_count);
        gathered.changes.entry(target).or_default().push(change);
    }

    fn apply_conversation(
        &mut self,
        change: &ConversationChange,
        time_ms: i64,
        rows: &mut Vec<Row>,
    ) {
        let channel = ChannelId::from(&change.channel);
        self.with_user(&change.uid, |user| user.change(&channel, change.action, time_ms, rows));
    }

    fn with_channel(&mut self, channel: &ChannelRef, f: impl FnOnce(&mut Channel)) {
        let id = ChannelId::from(channel);
        if let Some(channel) = self.channels.get(&id) {
            f(channel);
            self.channels.resize(&id, Channel::size);
        }
    }

    fn with_user(&mut self, uid: &Name, f: impl FnOnce(&mut User)) {
        if let Some(user) = self.users.get(uid) {
            f(user);
            self.users.resize(uid, User::size);
        }
    }
}

/// What a change of a list does to the conversations of the uids (http-api.md §7.4–7.9).
fn conversation_of_list_change(
    channel_kind: u8,
    list: List,
    change: ListChange,
    last_seq: u64,
) -> Option<ConversationAction> {
    match (channel_kind, list, change) {
        (kind::PERSON, List::Allow, ListChange::Add) => {
            Some(ConversationAction::OpenIfAbsent { read_to: 0 })
        }
        (kind::PERSON | kind::LIVE, _, _) | (_, _, ListChange::Clear) => None,
        (_, List::Members, ListChange::Add | ListChange::Set) => {
            Some(ConversationAction::Reopen { read_to: last_seq })
        }
        (_, List::Members, ListChange::Remove)
        | (_, List::Deny, ListChange::Add | ListChange::Set) => Some(ConversationAction::Remove),
        (_, List::Deny, ListChange::Remove) => {
            Some(ConversationAction::OpenIfAbsent { read_to: 0 })
        }
        (_, List::Allow, _) => None,
    }
}
