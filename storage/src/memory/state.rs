//! The applied state of all slots, in memory, as typed rows.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Mutex,
};

use bytes::Bytes;
use jindou_core::{
    channel_info::{ChannelInfo, List},
    effect::Outbox,
    id::{ChannelId, LogId, Name, SlotId},
    message::SharedMessage,
    row::{
        ChannelRows, Conversation, DedupeRecord, Device, Digest, DigestQuery, Persist, Read, Row,
        Rows, SlotRows, UserRows,
    },
};

use super::lock;
use crate::{
    MESSAGES_SIZE_MAX,
    completion::{Answers, CompletionSender, Done, Outcome},
    error::StorageError,
    state::{OpenedSlot, StateStorage},
};

/// A [`StateStorage`] in memory. Everything is taken over at once.
#[derive(Default)]
pub struct MemoryState {
    inner: Mutex<BTreeMap<SlotId, Slot>>,
}

#[derive(Clone, Default)]
struct Slot {
    applied: Option<LogId>,
    synced: Option<LogId>,
    membership: Option<Bytes>,
    messages: BTreeMap<ChannelId, BTreeMap<u64, SharedMessage>>,
    sent: BTreeMap<(ChannelId, Name), u64>,
    infos: BTreeMap<ChannelId, ChannelInfo>,
    lists: BTreeMap<(ChannelId, List), BTreeMap<Name, i64>>,
    devices: BTreeMap<Name, BTreeMap<u8, Device>>,
    conversations: BTreeMap<Name, BTreeMap<ChannelId, Conversation>>,
    dedupe: BTreeMap<u64, Vec<DedupeRecord>>,
    outbox: BTreeMap<(SlotId, u64), Bytes>,
    received: BTreeMap<SlotId, u64>,
    cluster: BTreeMap<String, Bytes>,
}

fn set<K: Ord, V>(entry: Entry<'_, K, V>, value: Option<V>) {
    match (entry, value) {
        (Entry::Occupied(mut old), Some(value)) => {
            old.insert(value);
        }
        (Entry::Occupied(old), None) => {
            old.remove();
        }
        (Entry::Vacant(hole), Some(value)) => {
            hole.insert(value);
        }
        (Entry::Vacant(_), None) => {}
    }
}

impl Slot {
    fn perform(&mut self, row: Row) {
        match row {
            Row::Message(message) => {
                self.messages
                    .entry(message.channel.clone())
                    .or_default()
                    .insert(message.seq, message);
            }
            Row::Sent { channel, uid, seq } => {
                self.sent.insert((channel, uid), seq);
            }
            Row::Info { channel, info } => {
                self.infos.insert(channel, info);
            }
            Row::ListItem {
                channel,
                list,
                uid,
                added_ms,
            } => set(
                self.lists.entry((channel, list)).or_default().entry(uid),
                added_ms,
            ),
            Row::Device {
                uid,
                device_flag,
                device,
            } => {
                self.devices
                    .entry(uid)
                    .or_default()
                    .insert(device_flag, device);
            }
            Row::Conversation {
                uid,
                channel,
                conversation,
            } => set(
                self.conversations.entry(uid).or_default().entry(channel),
                conversation,
            ),
            Row::Dedupe { index, records } => set(self.dedupe.entry(index), records),
            Row::Outbox {
                target,
                index,
                changes,
            } => set(self.outbox.entry((target, index)), changes),
            Row::Received { source, index } => {
                self.received.insert(source, index);
            }
            Row::ClusterKey { key, value } => {
                self.cluster.insert(key, value);
            }
            Row::Membership(membership) => self.membership = Some(membership),
        }
    }

    fn opened(&self) -> OpenedSlot {
        OpenedSlot {
            rows: SlotRows {
                applied: self.applied,
                dedupe: self.dedupe.clone().into_iter().collect(),
                outbox: self
                    .outbox
                    .iter()
                    .map(|((target, index), changes)| (*target, *index, changes.clone()))
                    .collect(),
                received: self.received.clone().into_iter().collect(),
                cluster: self.cluster.clone().into_iter().collect(),
            },
            membership: self.membership.clone(),
        }
    }

    fn last_seq(&self, channel: &ChannelId) -> u64 {
        self.messages
            .get(channel)
            .and_then(|history| history.last_key_value())
            .map_or(0, |(seq, _)| *seq)
    }

    fn list(&self, channel: &ChannelId, list: List) -> Vec<(Name, i64)> {
        self.lists
            .get(&(channel.clone(), list))
            .map(|list| list.iter().map(|(uid, at)| (uid.clone(), *at)).collect())
            .unwrap_or_default()
    }

    fn messages(
        &self,
        channel: &ChannelId,
        (first, last): (u64, u64),
        count_max: usize,
        from_start: bool,
    ) -> Vec<SharedMessage> {
        let Some(history) = self.messages.get(channel).filter(|_| first <= last) else {
            return Vec::new();
        };
        let mut size = 0usize;
        let mut room = |message: &SharedMessage| {
            let before = size;
            size = size.saturating_add(message.payload.len());
            before == 0 || size <= MESSAGES_SIZE_MAX
        };
        let range = history.range(first..=last).map(|(_, message)| message);
        if from_start {
            let cut = range.take(count_max).take_while(|m| room(m));
            cut.cloned().collect()
        } else {
            let cut = range.rev().take(count_max).take_while(|m| room(m));
            let mut messages: Vec<_> = cut.cloned().collect();
            messages.reverse();
            messages
        }
    }

    fn digest(&self, uid: &Name, query: &DigestQuery) -> Digest {
        let channel = &query.channel;
        let mut recents = self.messages(
            channel,
            (query.after.saturating_add(1), u64::MAX),
            query.count_max,
            false,
        );
        recents.reverse();
        Digest {
            last_seq: self.last_seq(channel),
            own_seq: self
                .sent
                .get(&(channel.clone(), uid.clone()))
                .copied()
                .unwrap_or_default(),
            recents,
        }
    }

    fn read(&self, read: Read) -> Rows {
        match read {
            Read::Channel(channel) => Rows::Channel(ChannelRows {
                info: self.infos.get(&channel).copied(),
                members: self.list(&channel, List::Members),
                deny: self.list(&channel, List::Deny),
                allow: self.list(&channel, List::Allow),
                last_seq: self.last_seq(&channel),
            }),
            Read::User(uid) => Rows::User(UserRows {
                devices: self
                    .devices
                    .get(&uid)
                    .map(|devices| devices.clone().into_iter().collect())
                    .unwrap_or_default(),
                conversations: self
                    .conversations
                    .get(&uid)
                    .map(|rows| rows.clone().into_iter().collect())
                    .unwrap_or_default(),
            }),
            Read::Messages {
                channel,
                first,
                last,
                count_max,
                from_start,
            } => Rows::Messages(self.messages(&channel, (first, last), count_max, from_start)),
            Read::Digests { uid, items } => {
                Rows::Digests(items.iter().map(|item| self.digest(&uid, item)).collect())
            }
        }
    }
}

impl MemoryState {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }
}

impl StateStorage for MemoryState {
    fn persist(&self, persist: Persist, from: &CompletionSender) {
        let size = Outbox::persist_size(&persist);
        {
            let mut slots = lock(&self.inner);
            let slot = slots.entry(persist.slot).or_default();
            for row in persist.rows {
                slot.perform(row);
            }
            slot.applied = Some(persist.applied);
        }
        let mut answers = Answers::default();
        answers.persisted(from, size);
        answers.publish();
    }

    fn read(&self, slot: SlotId, read: Read, done: Done) {
        let rows = match lock(&self.inner).get(&slot) {
            Some(slot) => slot.read(read),
            None => Slot::default().read(read),
        };
        done.answer(Ok(Outcome::Rows(rows)));
    }

    fn open_slot(&self, slot: SlotId, done: Done) {
        let opened = lock(&self.inner)
            .get(&slot)
            .map(Slot::opened)
            .unwrap_or_default();
        done.answer(Ok(Outcome::Slot(Box::new(opened))));
    }

    fn snapshot(&self, _slot: SlotId, done: Done) {
        done.answer(Err(StorageError::Closed));
    }

    fn install_begin(&self, _slot: SlotId, done: Done) {
        done.answer(Err(StorageError::Closed));
    }

    fn install_chunk(&self, _slot: SlotId, _chunk: Bytes, done: Done) {
        done.answer(Err(StorageError::Closed));
    }

    fn install_end(&self, _slot: SlotId, done: Done) {
        done.answer(Err(StorageError::Closed));
    }

    fn hash(&self, _slot: SlotId, done: Done) {
        done.answer(Err(StorageError::Closed));
    }

    fn sync(&self, done: Done) {
        let mut moved = Vec::new();
        for (id, slot) in lock(&self.inner).iter_mut() {
            if let Some(applied) = slot.applied.filter(|_| slot.synced != slot.applied) {
                slot.synced = Some(applied);
                moved.push((*id, applied));
            }
        }
        done.answer(Ok(Outcome::Synced(moved)));
    }

    fn queue_size(&self) -> usize {
        0
    }
}
