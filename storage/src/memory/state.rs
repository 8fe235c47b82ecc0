//! The applied state of all slots, in memory, as typed rows.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    sync::Mutex,
};

use bytes::Bytes;
use fjall::UserValue;
use jindou_core::{
    channel_info::{ChannelInfo, List},
    effect::Outbox,
    id::{ChannelId, LogId, Name, SlotId},
    message::SharedMessage,
    notice::{Notice, NoticeHead, NoticeRow, StoredNotice},
    row::{
        ChannelRows, Conversation, Dated, DedupeRecord, Device, Digest, DigestQuery, Persist, Read,
        Row, Rows, SlotRows, Sought, Times, UserRows,
    },
    scan::Scan,
    stream::{StreamKey, StreamPart, StreamView},
};

use super::lock;
use crate::{
    DIGESTS_SIZE_MAX, MESSAGES_SIZE_MAX, NOTICES_SIZE_MAX, STREAMS_SIZE_MAX,
    completion::{Answers, CompletionSender, Done, Outcome},
    error::StorageError,
    keyspace::{self, RawRow, Stored, Table},
    scan::{self, KeyRange, Keys, RowsOf, Source},
    state::{
        OpenedSlot, SnapshotReader, StateStorage,
        chunk::{self, ChunkWriter},
        hash::StateHash,
        read::Budget,
    },
};

/// A [`StateStorage`] in memory. Everything is taken over at once.
#[derive(Default)]
pub struct MemoryState {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    slots: BTreeMap<SlotId, Slot>,
    installs: BTreeMap<SlotId, Install>,
}

/// A snapshot that is being received.
#[derive(Default)]
struct Install {
    slot: Slot,
    chunk_count: u32,
    complete: bool,
}

#[derive(Clone, Default)]
struct Slot {
    applied: Option<LogId>,
    synced: Option<LogId>,
    membership: Option<Bytes>,
    messages: BTreeMap<ChannelId, BTreeMap<u64, SharedMessage>>,
    sent: BTreeMap<(ChannelId, Name), u64>,
    infos: BTreeMap<ChannelId, (ChannelInfo, Times)>,
    lists: BTreeMap<(ChannelId, List), BTreeMap<Name, i64>>,
    devices: BTreeMap<Name, BTreeMap<u8, Device>>,
    conversations: BTreeMap<Name, BTreeMap<(u8, Name), Conversation>>,
    dedupe: BTreeMap<u64, Vec<DedupeRecord>>,
    outbox: BTreeMap<(SlotId, u64), Bytes>,
    received: BTreeMap<SlotId, u64>,
    cluster: BTreeMap<String, Bytes>,
    /// By stream, and by a piece's own key.
    streams: BTreeMap<StreamKey, BTreeMap<Vec<u8>, StreamPart>>,
    dated: Vec<(Dated, i64)>,
    notices: BTreeMap<u64, NoticeRow>,
    notice_head: Option<NoticeHead>,
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
            Row::Info { channel, info, times } => {
                self.infos.insert(channel, (info, times));
            }
            Row::ListItem { channel, list, uid, added_ms } => {
                set(self.lists.entry((channel, list)).or_default().entry(uid), added_ms)
            }
            Row::Device { uid, device_flag, device } => {
                self.devices.entry(uid).or_default().insert(device_flag, device);
            }
            Row::Conversation { uid, channel, conversation } => {
                let of_user = self.conversations.entry(uid).or_default();
                set(of_user.entry((channel.kind, channel.id)), conversation);
            }
            Row::Dedupe { index, records } => set(self.dedupe.entry(index), records),
            Row::Outbox { target, index, changes } => {
                set(self.outbox.entry((target, index)), changes)
            }
            Row::Received { source, index } => {
                self.received.insert(source, index);
            }
            Row::ClusterKey { key, value } => {
                self.cluster.insert(key, value);
            }
            Row::Membership(membership) => self.membership = Some(membership),
            Row::Stream { stream, part } => {
                // A stream whose key has no bytes is refused where rows become bytes.
                if let Ok(key) = keyspace::stream::key(SlotId(0), &stream, &part) {
                    self.streams.entry(stream).or_default().insert(key, part);
                }
            }
            Row::Dated { what, created_ns } => {
                let row = (what, created_ns);
                if !self.dated.contains(&row) {
                    self.dated.push(row);
                }
            }
            Row::Notice { number, row } => set(self.notices.entry(number), row),
            Row::NoticeHead(head) => self.notice_head = Some(head),
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
                notices: self.notice_head.unwrap_or_default(),
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
        budget: &mut Budget,
    ) -> Vec<SharedMessage> {
        let Some(history) = self.messages.get(channel).filter(|_| first <= last) else {
            return Vec::new();
        };
        let range = history.range(first..=last).map(|(_, message)| message);
        let fits = |message: &&SharedMessage| budget.take(message.payload.len());
        if from_start {
            range.take(count_max).take_while(fits).cloned().collect()
        } else {
            let cut = range.rev().take(count_max).take_while(fits);
            let mut messages: Vec<_> = cut.cloned().collect();
            messages.reverse();
            messages
        }
    }

    fn find(&self, channel: &ChannelId, sought: &Sought) -> Option<SharedMessage> {
        let history = self.messages.get(channel)?;
        let mut messages = history.values();
        match sought {
            Sought::Seq(seq) => history.get(seq),
            Sought::Id(id) => messages.find(|message| message.id == *id),
            Sought::Newest(number) => messages.rfind(|message| message.client_msg_no == *number),
            Sought::Oldest(number) => messages.find(|message| message.client_msg_no == *number),
        }
        .cloned()
    }

    fn stored_notices(&self, first: u64, count_max: usize, contents: bool) -> Vec<StoredNotice> {
        let mut budget = Budget::new(NOTICES_SIZE_MAX);
        let stored = |(number, row): (&u64, &NoticeRow)| {
            let notice = Notice::decode(&row.notice).ok();
            let message = match &notice {
                Some(Notice::Stored { channel, seq, .. }) if contents => {
                    self.messages.get(&channel.into()).and_then(|all| all.get(seq)).cloned()
                }
                _ => None,
            };
            let payload_size = message.as_ref().map_or(0, |message| message.payload.len());
            let (number, total, time_ms) = (*number, row.total, row.time_ms);
            budget.take(payload_size + row.notice.len()).then_some(StoredNotice {
                number,
                total,
                time_ms,
                notice,
                message,
            })
        };
        self.notices.range(first..).take(count_max).map_while(stored).collect()
    }

    fn digest(&self, uid: &Name, query: &DigestQuery, budget: &mut Budget) -> Digest {
        let channel = &query.channel;
        let range = (query.after.saturating_add(1), u64::MAX);
        let mut recents = self.messages(channel, range, query.count_max, false, budget);
        recents.reverse();
        Digest {
            last_seq: self.last_seq(channel),
            own_seq: self.sent.get(&(channel.clone(), uid.clone())).copied().unwrap_or_default(),
            recents,
        }
    }

    /// Every row as it would be stored, in the order of tables and keys.
    fn raw_rows(&self, slot: SlotId) -> Result<Vec<RawRow>, StorageError> {
        let messages = self.messages.values().flat_map(BTreeMap::values);
        let rows = messages
            .map(|message| Row::Message(message.clone()))
            .chain(self.sent.iter().map(|((channel, uid), seq)| Row::Sent {
                channel: channel.clone(),
                uid: uid.clone(),
                seq: *seq,
            }))
            .chain(self.infos.iter().map(|(channel, (info, times))| Row::Info {
                channel: channel.clone(),
                info: *info,
                times: *times,
            }))
            .chain(self.lists.iter().flat_map(|((channel, list), items)| {
                items.iter().map(|(uid, added_ms)| Row::ListItem {
                    channel: channel.clone(),
                    list: *list,
                    uid: uid.clone(),
                    added_ms: Some(*added_ms),
                })
            }))
            .chain(self.devices.iter().flat_map(|(uid, devices)| {
                devices.iter().map(|(device_flag, device)| Row::Device {
                    uid: uid.clone(),
                    device_flag: *device_flag,
                    device: device.clone(),
                })
            }))
            .chain(self.conversations.iter().flat_map(|(uid, rows)| {
                rows.iter().map(|((kind, id), row)| Row::Conversation {
                    uid: uid.clone(),
                    channel: ChannelId::new(id.clone(), *kind),
                    conversation: Some(*row),
                })
            }))
            .chain(self.dedupe.iter().map(|(index, records)| Row::Dedupe {
                index: *index,
                records: Some(records.clone()),
            }))
            .chain(self.outbox.iter().map(|(key, changes)| Row::Outbox {
                target: key.0,
                index: key.1,
                changes: Some(changes.clone()),
            }))
            .chain(
                self.received
                    .iter()
                    .map(|(source, index)| Row::Received { source: *source, index: *index }),
            )
            .chain(
                self.cluster
                    .iter()
                    .map(|(key, value)| Row::ClusterKey { key: key.clone(), value: value.clone() }),
            )
            .chain(self.streams.iter().flat_map(|(stream, parts)| {
                parts
                    .values()
                    .map(|part| Row::Stream { stream: stream.clone(), part: part.clone() })
            }))
            .chain(self.membership.clone().map(Row::Membership))
            .chain(self.dated.iter().map(|(what, created_ns)| Row::Dated {
                what: what.clone(),
                created_ns: *created_ns,
            }))
            .chain(self.notice_head.map(Row::NoticeHead))
            .chain(
                self.notices
                    .iter()
                    .map(|(number, row)| Row::Notice { number: *number, row: Some(row.clone()) }),
            );
        let mut raw: Vec<RawRow> =
            rows.map(|row| keyspace::encode(slot, &row)).collect::<Result<_, _>>()?;
        raw.extend(self.applied.map(|at| keyspace::encode_applied(slot, at)));
        let place = |table| Table::ALL.iter().position(|other| *other == table);
        raw.sort_by(|a, b| (place(a.table), &a.key).cmp(&(place(b.table), &b.key)));
        Ok(raw)
    }

    fn chunks(&self, slot: SlotId) -> Result<Vec<Bytes>, StorageError> {
        let mut writer = ChunkWriter::new(slot);
        let mut chunks = Vec::new();
        for row in self.raw_rows(slot)? {
            let value = row.value.unwrap_or_default();
            chunks.extend(writer.add(row.table, &row.key, &value));
        }
        chunks.push(writer.finish());
        Ok(chunks)
    }

    fn hash(&self, slot: SlotId) -> Result<u128, StorageError> {
        let mut hash = StateHash::default();
        for row in self.raw_rows(slot)? {
            hash.add(row.table, &row.key, &row.value.unwrap_or_default());
        }
        Ok(hash.finish())
    }

    fn scan(&self, scan: &Scan) -> Result<Rows, StorageError> {
        let rows = self.raw_rows(scan.slot)?.into_iter();
        let rows = rows.map(|row| ((row.table, row.key), row.value.unwrap_or_default()));
        scan::page(&RawRows(rows.collect()), scan).map(Rows::Scanned)
    }

    fn read(&self, read: Read) -> Rows {
        match read {
            Read::Channel(channel) => Rows::Channel(ChannelRows {
                info: self.infos.get(&channel).map(|(info, _)| *info),
                times: self.infos.get(&channel).map(|(_, times)| *times).unwrap_or_default(),
                members: self.list(&channel, List::Members),
                deny: self.list(&channel, List::Deny),
                allow: self.list(&channel, List::Allow),
                recipients: self.list(&channel, List::Recipients),
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
                    .map(|rows| {
                        rows.iter()
                            .map(|((kind, id), row)| (ChannelId::new(id.clone(), *kind), *row))
                            .collect()
                    })
                    .unwrap_or_default(),
            }),
            Read::Messages { channel, first, last, count_max, from_start } => {
                let mut budget = Budget::new(MESSAGES_SIZE_MAX);
                let range = (first, last);
                Rows::Messages(self.messages(&channel, range, count_max, from_start, &mut budget))
            }
            Read::Digests { uid, items } => {
                let mut budget = Budget::new(DIGESTS_SIZE_MAX);
                let digests = items.iter();
                Rows::Digests(digests.map(|item| self.digest(&uid, item, &mut budget)).collect())
            }
            Read::Find { channel, sought } => {
                let mut budget = Budget::new(MESSAGES_SIZE_MAX);
                let found = sought.iter().map(|sought| self.find(&channel, sought));
                let fits = |found: &Option<SharedMessage>| {
                    found.as_ref().is_none_or(|message| budget.take(message.payload.len()))
                };
                Rows::Found(found.take_while(fits).collect())
            }
            Read::Stream(stream) => {
                let parts = self.streams.get(&stream).into_iter().flat_map(BTreeMap::values);
                let is_needed = |part: &&StreamPart| !matches!(part, StreamPart::Content { .. });
                Rows::Stream(parts.filter(is_needed).cloned().collect())
            }
            Read::Streams(streams) => {
                let mut budget = Budget::new(STREAMS_SIZE_MAX);
                let views = streams.iter().map(|stream| {
                    let parts = self.streams.get(stream).into_iter().flat_map(BTreeMap::values);
                    StreamView::of(parts.cloned())
                });
                Rows::Streams(views.take_while(|view| budget.take(view.size())).collect())
            }
            Read::Scan(scan) => self.scan(&scan).unwrap_or_else(|e| Rows::Failed(e.to_string())),
            Read::Notices { first, count_max, contents } => {
                Rows::Notices(self.stored_notices(first, count_max, contents))
            }
        }
    }
}

/// The rows of a slot as they would be stored.
struct RawRows(BTreeMap<(Table, Vec<u8>), Vec<u8>>);

impl Source for RawRows {
    fn keys(&self, table: Table, range: KeyRange) -> Keys<'_> {
        Box::new(self.rows(table, range).map(|row| row.map(|(key, _)| key)))
    }

    fn rows(&self, table: Table, range: KeyRange) -> RowsOf<'_> {
        let rows = self.0.iter().filter(move |((of, key), _)| {
            *of == table && std::ops::RangeBounds::contains(&range.0, key)
        });
        Box::new(rows.map(|((_, key), value)| Ok((key.as_slice().into(), value.as_slice().into()))))
    }

    fn value(&self, table: Table, key: &[u8]) -> Result<Option<UserValue>, StorageError> {
        Ok(self.0.get(&(table, key.to_vec())).map(|value| value.as_slice().into()))
    }
}

impl Inner {
    /// The slot, empty if nothing is known of it.
    fn slot(&self, slot: SlotId) -> Slot {
        self.slots.get(&slot).cloned().unwrap_or_default()
    }

    fn take_chunk(&mut self, slot: SlotId, bytes: &[u8]) -> Result<(), StorageError> {
        let refused = |reason: &str| StorageError::Chunk(reason.into());
        let mut install = self
            .installs
            .remove(&slot)
            .ok_or_else(|| refused("no install of the slot was begun"))?;
        if install.complete {
            return Err(refused("after the last one"));
        }
        let parsed = chunk::parse(bytes, slot, install.chunk_count)?;
        for row in parsed.rows {
            match row.stored {
                Stored::Row(row) => install.slot.perform(row),
                Stored::Applied(applied) => install.slot.applied = Some(applied),
            }
        }
        install.chunk_count += 1;
        install.complete = parsed.last;
        self.installs.insert(slot, install);
        Ok(())
    }

    fn end_install(&mut self, slot: SlotId) -> Result<OpenedSlot, StorageError> {
        let install = self.installs.remove(&slot);
        let Some(install) = install.filter(|install| install.complete) else {
            return Err(StorageError::Chunk("the last one is missing".into()));
        };
        let opened = install.slot.opened();
        self.slots.insert(slot, install.slot);
        Ok(opened)
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
            let mut inner = lock(&self.inner);
            let slot = inner.slots.entry(persist.slot).or_default();
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
        let rows = match lock(&self.inner).slots.get(&slot) {
            Some(slot) => slot.read(read),
            None => Slot::default().read(read),
        };
        done.answer(Ok(Outcome::Rows(rows)));
    }

    fn open_slot(&self, slot: SlotId, done: Done) {
        let opened = lock(&self.inner).slot(slot).opened();
        done.answer(Ok(Outcome::Slot(Box::new(opened))));
    }

    fn snapshot(&self, slot: SlotId, done: Done) {
        let copy = lock(&self.inner).slot(slot);
        let reader = copy.chunks(slot).map(|chunks| {
            let mut chunks = chunks.into_iter();
            let next = move |done: Done| done.answer(Ok(Outcome::Chunk(chunks.next())));
            SnapshotReader::new(slot, copy.applied, copy.membership, Box::new(next))
        });
        done.answer(reader.map(Outcome::Snapshot));
    }

    fn install_begin(&self, slot: SlotId, done: Done) {
        lock(&self.inner).installs.insert(slot, Install::default());
        done.answer(Ok(Outcome::Done));
    }

    fn install_chunk(&self, slot: SlotId, chunk: Bytes, done: Done) {
        let result = lock(&self.inner).take_chunk(slot, &chunk);
        done.answer(result.map(|()| Outcome::Done));
    }

    fn install_end(&self, slot: SlotId, done: Done) {
        let result = lock(&self.inner).end_install(slot);
        done.answer(result.map(|opened| Outcome::Slot(Box::new(opened))));
    }

    fn hash(&self, slot: SlotId, done: Done) {
        let result = lock(&self.inner).slot(slot).hash(slot);
        done.answer(result.map(Outcome::Hash));
    }

    fn sync(&self, done: Done) {
        let mut moved = Vec::new();
        for (id, slot) in &mut lock(&self.inner).slots {
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
