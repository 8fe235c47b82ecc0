//! What each command does to the state of its slot.

use std::sync::Arc;

use bytes::Bytes;

use super::{Delivery, Gathered};
use crate::{
    channel_info::{ChannelInfo, List, ListChange, kind},
    effect::Effect,
    entry::{ChannelRef, Command, ConversationAction, ConversationChange, NewMessage},
    id::{ChannelId, Name, SYSTEM_UID, SlotId, person_channel},
    message::{Message, SharedMessage},
    notice::{Notice, tell},
    row::{DedupeRecord, Row},
    shard::{
        Shard,
        channel::Channel,
        dedupe,
        deliver::pair_of,
        openings::is_pair,
        parcels::Parent,
        slot::{Outcome, Waiter},
        systems,
        user::User,
    },
};

/// Where an entry stands, and when it was proposed.
#[derive(Clone, Copy)]
struct Place {
    slot: SlotId,
    index: u64,
    time_ms: i64,
}

impl Shard {
    pub(super) fn apply_command(
        &mut self,
        slot: SlotId,
        index: u64,
        command: Command,
        waiter: &Waiter,
        time_ms: i64,
        gathered: &mut Gathered,
    ) -> Outcome {
        match command {
            Command::Message(new) => {
                let place = Place { slot, index, time_ms };
                self.apply_message(place, new, None, waiter, gathered)
            }
            Command::MessageTo { message, recipients } => {
                let place = Place { slot, index, time_ms };
                self.apply_message(place, *message, Some(recipients), waiter, gathered)
            }
            Command::SetInfo { channel, info } => {
                self.with_channel(&channel, |channel| {
                    let info = match (info, channel.info) {
                        (Some(info), _) => info,
                        (None, Some(_)) => return,
                        (None, None) => ChannelInfo::default(),
                    };
                    channel.set_info(info, time_ms, &mut gathered.rows);
                });
                self.tell_sessions_of(&channel, Parent::Word(slot, index));
                Outcome::Done
            }
            Command::Disband { channel } => {
                self.with_channel(&channel, |channel| {
                    if let Some(info) = channel.info {
                        let info = ChannelInfo { disband: true, ..info };
                        channel.set_info(info, time_ms, &mut gathered.rows);
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
                                id: person_channel(&channel.id, &uid).into(),
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
                        let rows = &mut gathered.rows;
                        user.set_device(device_flag, device_level, token, time_ms, rows);
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
                let mut after = rest.split_off(&(target, index.saturating_add(1)));
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
                    self.set_cluster_key(slot, key, value.into(), gathered);
                }
                Outcome::Done
            }
            Command::WriteClusterKey { key, value } => {
                self.set_cluster_key(slot, key, value.into(), gathered);
                Outcome::Done
            }
            Command::ChangeSystems { add, uids } => {
                for uid in uids {
                    let value = if add { Bytes::from_static(b"1") } else { Bytes::new() };
                    let key = systems::key_of(&uid);
                    let is_there =
                        self.slots.get(&slot).is_some_and(|s| s.cluster.contains_key(&key));
                    if is_there != add {
                        self.set_cluster_key(slot, key, value, gathered);
                    }
                }
                self.tell_systems(Parent::Word(slot, index));
                Outcome::Done
            }
            Command::StreamEvent(event) => {
                self.apply_event((slot, index), &event, time_ms, gathered)
            }
            Command::Import(import) => self.apply_import(*import, time_ms, gathered),
            Command::ClaimStream(claim) => self.apply_claim(&claim, time_ms, gathered),
            Command::OpenCommands { base, uids } => {
                for change in Self::changes_of_openings(&ChannelId::from(&base), uids) {
                    self.change_elsewhere(gathered, change);
                }
                Outcome::Done
            }
            Command::HandOut { uid, positions } => {
                let positions: Vec<(ChannelId, u64)> =
                    positions.iter().map(|(channel, seq)| (channel.into(), *seq)).collect();
                self.with_user(&uid, |user| user.hand_out(&positions, &mut gathered.rows));
                Outcome::Done
            }
            Command::TakeHanded { uid } => {
                self.with_user(&uid, |user| user.take_handed(&mut gathered.rows));
                Outcome::Done
            }
            Command::Delivered { index } => {
                if let Some(state) = self.slots.get_mut(&slot) {
                    state.recent.delivered(index);
                }
                Outcome::Done
            }
            Command::TellStatus { item } => {
                gathered.notices.push((Notice::Status { item }, None));
                Outcome::Done
            }
            Command::NoticesDone { up_to, total } => {
                if let Some(state) = self.slots.get_mut(&slot) {
                    state.notices.remove(up_to, total, &mut gathered.rows);
                }
                Outcome::Done
            }
        }
    }

    /// A key becomes a value; an empty one: it goes. Its row stays, empty.
    fn set_cluster_key(
        &mut self,
        slot: SlotId,
        key: String,
        value: Bytes,
        gathered: &mut Gathered,
    ) {
        let Some(state) = self.slots.get_mut(&slot) else {
            return;
        };
        if value.is_empty() {
            state.cluster.remove(&key);
        } else {
            state.cluster.insert(key.clone(), value.clone());
        }
        gathered.rows.push(Row::ClusterKey { key: key.clone(), value: value.clone() });
        self.out.effects.push(Effect::ClusterKey { key, value });
    }

    /// Assigns the seq, unless the sender has sent it before (G2, G4).
    fn apply_message(
        &mut self,
        Place { slot, index, time_ms }: Place,
        new: NewMessage,
        recipients: Option<Vec<Name>>,
        waiter: &Waiter,
        gathered: &mut Gathered,
    ) -> Outcome {
        let channel_id = ChannelId::from(&new.channel);
        // Without a client number the message id tells a repetition: it is drawn where the send
        // is kept, once.
        let digest = if new.client_msg_no.is_empty() {
            dedupe::digest_of_id(&channel_id, new.id)
        } else {
            dedupe::digest(&channel_id, &new.from, &new.client_msg_no)
        };
        let Some(state) = self.slots.get_mut(&slot) else {
            return Outcome::Done;
        };
        if let Some((message_id, seq)) = state.dedupe.find(digest) {
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
            flags: new.flags & !tell::ALL,
            setting: new.setting,
            expire: new.expire,
            timestamp: time_ms.div_euclid(1000),
            topic: new.topic,
            stream_no: new.stream_no,
            shown: new.shown,
            payload: new.payload,
        });
        let mut has_tail = false;
        if let Some(tail) = &mut channel.tail {
            tail.push(message.clone());
            has_tail = true;
        }
        if new.flags & tell::ALL != 0 {
            let tells = new.flags & tell::ALL;
            let recipients = recipients.clone().unwrap_or_default();
            let notice = Notice::Stored { channel: new.channel.clone(), seq, tells, recipients };
            gathered.notices.push((notice, Some(message.clone())));
        }
        let mut opened = match (channel_id.command_base(), seq, new.opens_conversations) {
            // Everybody else has a row by now (`openings`).
            (Some(base), _, true) if !is_pair(base.kind) => vec![message.from.clone()],
            (Some(base), 1, true) => pair_of(&base),
            (None, 1, true) => channel.recipients(),
            _ => Vec::new(),
        };
        // In memory their order depends on when the channel was loaded (G16).
        opened.sort_unstable();
        if has_tail {
            self.channels.resize(&channel_id, Channel::size);
        }
        let record = DedupeRecord { digest, id: message.id, seq, time_ms };
        state.dedupe.insert(&record);
        gathered.records.push(record);
        self.vars.stored += 1;
        gathered.rows.push(Row::Message(message.clone()));
        gathered.rows.push(Row::Sent { channel: channel_id, uid: message.from.clone(), seq });
        for uid in opened {
            let read_to = if uid == message.from { seq } else { 0 };
            let action = ConversationAction::OpenIfAbsent { read_to };
            let channel = new.channel.clone();
            self.change_elsewhere(gathered, ConversationChange { uid, channel, action });
        }
        let message_id = message.id;
        if message.is_stream() {
            self.anchor_stream(&message, gathered);
        }
        let has_peers = self.has_peers();
        if let Some(state) = self.slots.get_mut(&slot) {
            if state.leading {
                let except = match waiter {
                    Waiter::Send(sender) => sender.session,
                    Waiter::Nobody
                    | Waiter::Openings { .. }
                    | Waiter::Api(_)
                    | Waiter::Token { .. }
                    | Waiter::Outbox { .. } => None,
                };
                let except = except.into();
                gathered.deliveries.push(Delivery { message, recipients, except });
            } else if has_peers {
                let applied_ms = self.now.unix_ms;
                state.recent.push((index, applied_ms), message, recipients);
            }
        }
        Outcome::Sent { message_id, seq }
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
        (_, List::Allow | List::Recipients, _) => None,
    }
}
