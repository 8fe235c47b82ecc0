//! Answers questions from a snapshot of the state database.

use fjall::{Keyspace, Readable as _, Snapshot, UserValue};
use jindou_core::{
    channel_info::List,
    id::{ChannelId, SlotId},
    message::SharedMessage,
    notice::{Notice, NoticeHead, StoredNotice},
    row::{ChannelRows, Digest, DigestQuery, Read, Rows, SlotRows, Sought, UserRows},
    stream::{PARTS_REMEMBERED, StreamKey, StreamPart, StreamView},
};

use super::{
    OpenedSlot,
    store::{Tables, read_error},
};
use crate::{
    DIGESTS_SIZE_MAX, MESSAGES_SIZE_MAX, NOTICES_SIZE_MAX, STREAMS_SIZE_MAX,
    error::StorageError,
    keyspace::{
        Table, applied, channel, cluster, conversation, dedupe, device, list, lookup, message,
        notice, outbox, received, sent, stream,
    },
    scan::{self, KeyRange, Keys, RowsOf, Source},
};

type Result<T> = std::result::Result<T, StorageError>;

/// How many bytes a list of messages may still grow by. The first message always fits.
pub(crate) struct Budget {
    left: usize,
    untouched: bool,
}

impl Budget {
    pub(crate) fn new(size_max: usize) -> Self {
        Self { left: size_max, untouched: true }
    }

    /// Takes a message of so much payload, if there is room.
    pub(crate) fn take(&mut self, payload_size: usize) -> bool {
        // An empty message costs something, too.
        let size = payload_size.saturating_add(64);
        let fits = self.untouched || size <= self.left;
        self.untouched = false;
        if fits {
            self.left = self.left.saturating_sub(size);
        }
        fits
    }
}

/// The state of all slots at one moment.
pub(super) struct Reader {
    snapshot: Snapshot,
    tables: Tables,
}

impl Reader {
    pub(super) fn new(snapshot: Snapshot, tables: Tables) -> Self {
        Self { snapshot, tables }
    }

    pub(super) fn answer(&self, slot: SlotId, read: &Read) -> Rows {
        let rows = match read {
            Read::Channel(channel) => self.channel(slot, channel).map(Rows::Channel),
            Read::User(uid) => self.user(slot, uid).map(Rows::User),
            Read::Messages { channel, first, last, count_max, from_start } => {
                let range = (*first, *last);
                let mut budget = Budget::new(MESSAGES_SIZE_MAX);
                if *from_start {
                    self.oldest(slot, channel, range, *count_max, &mut budget)
                } else {
                    self.newest(slot, channel, range, *count_max, &mut budget).map(
                        |mut messages| {
                            messages.reverse();
                            messages
                        },
                    )
                }
                .map(Rows::Messages)
            }
            Read::Digests { uid, items } => {
                let mut budget = Budget::new(DIGESTS_SIZE_MAX);
                items
                    .iter()
                    .map(|item| self.digest(slot, uid, item, &mut budget))
                    .collect::<Result<_>>()
                    .map(Rows::Digests)
            }
            Read::Find { channel, sought } => self.find(slot, channel, sought).map(Rows::Found),
            Read::Stream(stream) => self.stream(slot, stream).map(Rows::Stream),
            Read::Streams(streams) => self.streams(slot, streams).map(Rows::Streams),
            Read::Scan(scan) => scan::page(self, scan).map(Rows::Scanned),
            Read::Notices { first, count_max, contents } => {
                self.notices(slot, *first, *count_max, *contents).map(Rows::Notices)
            }
        };
        rows.unwrap_or_else(|e| {
            tracing::error!("reading {slot}: {e}");
            Rows::Failed(e.to_string())
        })
    }

    fn keyspace(&self, table: Table) -> &Keyspace {
        self.tables.get(table)
    }

    fn get<T>(
        &self,
        table: Table,
        key: &[u8],
        decode: impl FnOnce(&[u8]) -> Result<T>,
    ) -> Result<Option<T>> {
        self.snapshot
            .get(self.keyspace(table), key)
            .map_err(read_error)?
            .map(|value| decode(&value))
            .transpose()
    }

    /// Every row whose key begins with `prefix`, in order.
    fn scan<T>(
        &self,
        table: Table,
        prefix: &[u8],
        mut decode: impl FnMut(&[u8], &[u8]) -> Result<T>,
    ) -> Result<Vec<T>> {
        self.snapshot
            .prefix(self.keyspace(table), prefix)
            .map(|row| {
                let (key, value) = row.into_inner().map_err(read_error)?;
                decode(&key, &value)
            })
            .collect()
    }

    fn channel(&self, slot: SlotId, channel: &ChannelId) -> Result<ChannelRows> {
        let info = self.get(Table::Channel, &channel::key(slot, channel)?, channel::decode)?;
        let mut rows = ChannelRows {
            info: info.map(|(info, _)| info),
            times: info.map(|(_, times)| times).unwrap_or_default(),
            last_seq: self.last_seq(slot, channel)?,
            ..ChannelRows::default()
        };
        let prefix = list::prefix(slot, channel)?;
        let items = self.scan(Table::List, &prefix, |key, value| {
            Ok((list::item_of(&prefix, key)?, list::decode(value)?))
        })?;
        for ((list, uid), added_ms) in items {
            match list {
                List::Members => rows.members.push((uid, added_ms)),
                List::Deny => rows.deny.push((uid, added_ms)),
                List::Allow => rows.allow.push((uid, added_ms)),
                List::Recipients => rows.recipients.push((uid, added_ms)),
            }
        }
        Ok(rows)
    }

    fn last_seq(&self, slot: SlotId, channel: &ChannelId) -> Result<u64> {
        let prefix = message::prefix(slot, channel)?;
        match self.snapshot.prefix(self.keyspace(Table::Message), prefix).next_back() {
            Some(row) => message::seq_of(&row.key().map_err(read_error)?),
            None => Ok(0),
        }
    }

    fn user(&self, slot: SlotId, uid: &str) -> Result<UserRows> {
        Ok(UserRows {
            devices: self.scan(Table::Device, &device::prefix(slot, uid)?, |key, value| {
                let (_, _, device_flag) = device::parse_key(key)?;
                Ok((device_flag, device::decode(value)?))
            })?,
            conversations: self.scan(
                Table::Conversation,
                &conversation::prefix(slot, uid)?,
                |key, value| {
                    let (_, _, channel) = conversation::parse_key(key)?;
                    Ok((channel, conversation::decode(value)?))
                },
            )?,
        })
    }

    fn messages_in(
        &self,
        slot: SlotId,
        channel: &ChannelId,
        (first, last): (u64, u64),
    ) -> Result<Option<fjall::Iter>> {
        if first > last {
            return Ok(None);
        }
        let range = message::key(slot, channel, first)?..=message::key(slot, channel, last)?;
        let rows = self.snapshot.range(self.keyspace(Table::Message), range);
        Ok(Some(rows))
    }

    fn oldest(
        &self,
        slot: SlotId,
        channel: &ChannelId,
        range: (u64, u64),
        count_max: usize,
        budget: &mut Budget,
    ) -> Result<Vec<SharedMessage>> {
        match self.messages_in(slot, channel, range)? {
            Some(rows) => collect(channel, rows, count_max, budget),
            None => Ok(Vec::new()),
        }
    }

    /// Newest first.
    fn newest(
        &self,
        slot: SlotId,
        channel: &ChannelId,
        range: (u64, u64),
        count_max: usize,
        budget: &mut Budget,
    ) -> Result<Vec<SharedMessage>> {
        match self.messages_in(slot, channel, range)? {
            Some(rows) => collect(channel, rows.rev(), count_max, budget),
            None => Ok(Vec::new()),
        }
    }

    /// Single messages, until they are too many bytes.
    fn find(
        &self,
        slot: SlotId,
        channel: &ChannelId,
        sought: &[Sought],
    ) -> Result<Vec<Option<SharedMessage>>> {
        let mut budget = Budget::new(MESSAGES_SIZE_MAX);
        let mut found = Vec::with_capacity(sought.len());
        for sought in sought {
            let message = match sought {
                Sought::Seq(seq) => self.message(slot, channel, *seq)?,
                Sought::Id(id) => self.by_id(slot, channel, *id)?,
                Sought::Newest(number) => {
                    let rows = self.by_number(slot, channel, number).rev();
                    self.first_with(slot, channel, number, rows)?
                }
                Sought::Oldest(number) => {
                    let rows = self.by_number(slot, channel, number);
                    self.first_with(slot, channel, number, rows)?
                }
            };
            if message.as_ref().is_some_and(|message| !budget.take(message.payload.len())) {
                break;
            }
            found.push(message);
        }
        Ok(found)
    }

    fn message(
        &self,
        slot: SlotId,
        channel: &ChannelId,
        seq: u64,
    ) -> Result<Option<SharedMessage>> {
        let key = message::key(slot, channel, seq)?;
        self.get(Table::Message, &key, |value| message::decode(channel, seq, value))
    }

    fn by_id(&self, slot: SlotId, channel: &ChannelId, id: i64) -> Result<Option<SharedMessage>> {
        let row = self.snapshot.get(&self.tables.ids, lookup::id_key(slot, id));
        let Some(value) = row.map_err(read_error)? else {
            return Ok(None);
        };
        // The seq may be one of another channel.
        let message = self.message(slot, channel, lookup::decode_seq(&value)?)?;
        Ok(message.filter(|message| message.id == id))
    }

    fn by_number(&self, slot: SlotId, channel: &ChannelId, number: &str) -> fjall::Iter {
        let prefix = lookup::number_prefix(slot, channel, number);
        self.snapshot.prefix(&self.tables.numbers, prefix)
    }

    /// The first of these that is what it seems to be.
    fn first_with(
        &self,
        slot: SlotId,
        channel: &ChannelId,
        number: &str,
        rows: impl Iterator<Item = fjall::Guard>,
    ) -> Result<Option<SharedMessage>> {
        for row in rows {
            let seq = lookup::number_seq(&row.key().map_err(read_error)?)?;
            let message = self.message(slot, channel, seq)?;
            if message.as_ref().is_some_and(|message| &*message.client_msg_no == number) {
                return Ok(message);
            }
        }
        Ok(None)
    }

    fn digest(
        &self,
        slot: SlotId,
        uid: &str,
        query: &DigestQuery,
        budget: &mut Budget,
    ) -> Result<Digest> {
        let channel = &query.channel;
        let range = (query.after.saturating_add(1), u64::MAX);
        Ok(Digest {
            last_seq: self.last_seq(slot, channel)?,
            own_seq: self
                .get(Table::Sent, &sent::key(slot, channel, uid)?, sent::decode)?
                .unwrap_or_default(),
            recents: self.newest(slot, channel, range, query.count_max, budget)?,
        })
    }

    /// What a stream needs in memory.
    fn stream(&self, slot: SlotId, key: &StreamKey) -> Result<Vec<StreamPart>> {
        let outline = stream::outline(slot, key)?;
        let mut parts = self
            .snapshot
            .range(self.keyspace(Table::Stream), outline)
            .map(stream_part)
            .collect::<Result<Vec<StreamPart>>>()?;
        let lanes = parts.iter().filter_map(|part| match part {
            StreamPart::Lane { key, .. } => Some(key.clone()),
            StreamPart::Head(_) | StreamPart::Text { .. } | StreamPart::Content { .. } => None,
        });
        for lane in lanes.collect::<Vec<_>>() {
            let texts = stream::texts(slot, key, &lane)?;
            let last = self.snapshot.prefix(self.keyspace(Table::Stream), texts).rev();
            let last = last.take(PARTS_REMEMBERED).map(stream_part);
            let last = last.collect::<Result<Vec<StreamPart>>>()?;
            parts.extend(last.into_iter().rev());
        }
        Ok(parts)
    }

    fn streams(&self, slot: SlotId, keys: &[StreamKey]) -> Result<Vec<StreamView>> {
        let mut views = Vec::new();
        let mut budget = Budget::new(STREAMS_SIZE_MAX);
        for key in keys {
            let prefix = stream::prefix(slot, key)?;
            let parts = self.snapshot.prefix(self.keyspace(Table::Stream), prefix);
            let parts = parts.map(stream_part).collect::<Result<Vec<StreamPart>>>()?;
            let view = StreamView::of(parts);
            if !budget.take(view.size()) {
                break;
            }
            views.push(view);
        }
        Ok(views)
    }

    fn notices(
        &self,
        slot: SlotId,
        first: u64,
        count_max: usize,
        contents: bool,
    ) -> Result<Vec<StoredNotice>> {
        let mut budget = Budget::new(NOTICES_SIZE_MAX);
        let mut notices = Vec::new();
        let range = notice::key(slot, first.max(1))..=notice::key(slot, u64::MAX);
        for row in self.snapshot.range(self.keyspace(Table::Notice), range).take(count_max) {
            let (key, value) = row.into_inner().map_err(read_error)?;
            let (_, number) = notice::parse_key(&key)?;
            let row = notice::decode(&value)?;
            let decoded = Notice::decode(&row.notice).ok();
            let message = match &decoded {
                Some(Notice::Stored { channel, seq, .. }) if contents => {
                    let channel = ChannelId::from(channel);
                    let key = message::key(slot, &channel, *seq)?;
                    self.get(Table::Message, &key, |value| message::decode(&channel, *seq, value))?
                }
                _ => None,
            };
            let payload_size = message.as_ref().map_or(0, |message| message.payload.len());
            if !budget.take(payload_size + row.notice.len()) {
                break;
            }
            let (total, time_ms) = (row.total, row.time_ms);
            notices.push(StoredNotice { number, total, time_ms, notice: decoded, message });
        }
        Ok(notices)
    }

    /// Position and members of a slot.
    pub(super) fn applied(
        &self,
        slot: SlotId,
    ) -> Result<(Option<jindou_core::id::LogId>, Option<bytes::Bytes>)> {
        let key = |what| applied::key(slot, what);
        let position =
            self.get(Table::Applied, &key(applied::What::Position), applied::decode_position)?;
        let membership =
            self.get(Table::Applied, &key(applied::What::Membership), applied::decode_membership)?;
        Ok((position, membership))
    }

    pub(super) fn open_slot(&self, slot: SlotId) -> Result<OpenedSlot> {
        let (applied, membership) = self.applied(slot)?;
        let prefix = slot.0.to_be_bytes();
        let rows = SlotRows {
            applied,
            dedupe: self.scan(Table::Dedupe, &prefix, |key, value| {
                Ok((dedupe::parse_key(key)?.1, dedupe::decode(value)?))
            })?,
            outbox: self.scan(Table::Outbox, &prefix, |key, value| {
                let (_, target, index) = outbox::parse_key(key)?;
                Ok((target, index, outbox::decode(value)?))
            })?,
            received: self.scan(Table::Received, &prefix, |key, value| {
                Ok((received::parse_key(key)?.1, received::decode(value)?))
            })?,
            cluster: self.scan(Table::Cluster, &prefix, |key, value| {
                Ok((cluster::parse_key(key)?.1, cluster::decode(value)?))
            })?,
            notices: self
                .get(Table::Notice, &notice::key(slot, notice::HEAD), notice::decode_head)?
                .unwrap_or_else(NoticeHead::default),
        };
        Ok(OpenedSlot { rows, membership })
    }

    /// All rows of a slot, table by table, as bytes.
    pub(super) fn rows(
        &self,
        slot: SlotId,
    ) -> impl Iterator<Item = Result<(Table, fjall::UserKey, UserValue)>> {
        Table::ALL.into_iter().flat_map(move |table| {
            self.snapshot.prefix(self.keyspace(table), slot.0.to_be_bytes()).map(move |row| {
                let (key, value) = row.into_inner().map_err(read_error)?;
                Ok((table, key, value))
            })
        })
    }
}

fn stream_part(row: fjall::Guard) -> Result<StreamPart> {
    let (key, value) = row.into_inner().map_err(read_error)?;
    Ok(stream::decode(&key, &value)?.2)
}

impl Source for Reader {
    fn keys(&self, table: Table, range: KeyRange) -> Keys<'_> {
        let rows = self.snapshot.range(self.keyspace(table), range.0);
        Box::new(rows.map(|row| row.key().map_err(read_error)))
    }

    fn rows(&self, table: Table, range: KeyRange) -> RowsOf<'_> {
        let rows = self.snapshot.range(self.keyspace(table), range.0);
        Box::new(rows.map(|row| row.into_inner().map_err(read_error)))
    }

    fn value(&self, table: Table, key: &[u8]) -> Result<Option<UserValue>> {
        self.snapshot.get(self.keyspace(table), key).map_err(read_error)
    }
}

fn collect(
    channel: &ChannelId,
    rows: impl Iterator<Item = fjall::Guard>,
    count_max: usize,
    budget: &mut Budget,
) -> Result<Vec<SharedMessage>> {
    let mut messages = Vec::new();
    for row in rows.take(count_max) {
        let (key, value) = row.into_inner().map_err(read_error)?;
        let message = message::decode(channel, message::seq_of(&key)?, &value)?;
        if !budget.take(message.payload.len()) {
            break;
        }
        messages.push(message);
    }
    Ok(messages)
}
