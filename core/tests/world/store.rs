//! The state store of the world: rows in sorted maps, so that two stores can be compared.

use std::collections::BTreeMap;

use jindou_core::{
    channel_info::{ChannelInfo, List},
    id::{ChannelId, LogId, Name, SlotId},
    message::SharedMessage,
    notice::{Notice, NoticeHead, NoticeRow, StoredNotice},
    row::{
        ChannelRows, Conversation, DedupeRecord, Device, Digest, Persist, Read, Row, Rows,
        SlotRows, Sought, Times, UserRows,
    },
    shard::CLUSTER_SLOT,
    stream::{StreamKey, StreamPart, StreamView},
};

/// All slots of the world.
#[derive(Clone, Default, Debug, PartialEq)]
pub(crate) struct Store {
    pub(crate) applied: BTreeMap<SlotId, LogId>,
    pub(crate) messages: BTreeMap<(ChannelId, u64), SharedMessage>,
    sent: BTreeMap<(ChannelId, Name), u64>,
    infos: BTreeMap<ChannelId, ChannelInfo>,
    lists: BTreeMap<(ChannelId, List, Name), i64>,
    devices: BTreeMap<(Name, u8), Device>,
    pub(crate) conversations: BTreeMap<(Name, ChannelId), Conversation>,
    dedupe: BTreeMap<(SlotId, u64), Vec<DedupeRecord>>,
    pub(crate) outbox: BTreeMap<(SlotId, SlotId, u64), bytes::Bytes>,
    received: BTreeMap<(SlotId, SlotId), u64>,
    cluster: BTreeMap<String, bytes::Bytes>,
    /// By what it is of, its lane and its number.
    streams: BTreeMap<(StreamKey, u8, Name, u32), StreamPart>,
    pub(crate) notices: BTreeMap<(SlotId, u64), NoticeRow>,
    pub(crate) notice_heads: BTreeMap<SlotId, NoticeHead>,
}

impl Store {
    pub(crate) fn persist(&mut self, persist: Persist) {
        let slot = persist.slot;
        self.applied.insert(slot, persist.applied);
        for row in persist.rows {
            match row {
                Row::Message(m) => {
                    let old = self.messages.insert((m.channel.clone(), m.seq), m);
                    assert!(old.is_none(), "G2: a seq was given twice");
                }
                Row::Sent { channel, uid, seq } => {
                    self.sent.insert((channel, uid), seq);
                }
                Row::Info { channel, info, .. } => {
                    self.infos.insert(channel, info);
                }
                Row::ListItem { channel, list, uid, added_ms } => match added_ms {
                    Some(ms) => {
                        self.lists.insert((channel, list, uid), ms);
                    }
                    None => {
                        self.lists.remove(&(channel, list, uid));
                    }
                },
                Row::Device { uid, device_flag, device } => {
                    self.devices.insert((uid, device_flag), device);
                }
                Row::Conversation { uid, channel, conversation } => match conversation {
                    Some(row) => {
                        self.conversations.insert((uid, channel), row);
                    }
                    None => {
                        self.conversations.remove(&(uid, channel));
                    }
                },
                Row::Dedupe { index, records } => match records {
                    Some(records) => {
                        self.dedupe.insert((slot, index), records);
                    }
                    None => {
                        self.dedupe.remove(&(slot, index));
                    }
                },
                Row::Outbox { target, index, changes } => match changes {
                    Some(row) => {
                        self.outbox.insert((slot, target, index), row);
                    }
                    None => {
                        self.outbox.remove(&(slot, target, index));
                    }
                },
                Row::Received { source, index } => {
                    self.received.insert((slot, source), index);
                }
                Row::ClusterKey { key, value } => {
                    self.cluster.insert(key, value);
                }
                Row::Membership(_) | Row::Dated { .. } => {}
                Row::Stream { stream, part } => {
                    let (piece, lane, number) = place_of(&part);
                    self.streams.insert((stream, piece, lane, number), part);
                }
                Row::Notice { number, row } => match row {
                    Some(row) => {
                        self.notices.insert((slot, number), row);
                    }
                    None => {
                        self.notices.remove(&(slot, number));
                    }
                },
                Row::NoticeHead(head) => {
                    self.notice_heads.insert(slot, head);
                }
            }
        }
    }

    pub(crate) fn open(&self, slot: SlotId) -> SlotRows {
        SlotRows {
            applied: self.applied.get(&slot).copied(),
            dedupe: of_slot(&self.dedupe, slot).map(|(i, r)| (i, r.clone())).collect(),
            outbox: self
                .outbox
                .iter()
                .filter(|((source, ..), _)| *source == slot)
                .map(|((_, target, index), row)| (*target, *index, row.clone()))
                .collect(),
            received: of_slot(&self.received, slot).map(|(s, i)| (s, *i)).collect(),
            cluster: match slot {
                CLUSTER_SLOT => self.cluster.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
                _ => Vec::new(),
            },
            notices: self.notice_heads.get(&slot).copied().unwrap_or_default(),
        }
    }

    pub(crate) fn read(&self, slot: SlotId, read: &Read) -> Rows {
        match read {
            Read::Notices { first, count_max, .. } => {
                let range = (slot, *first)..=(slot, u64::MAX);
                let stored =
                    self.notices.range(range).take(*count_max).map(|((_, number), row)| {
                        let notice = Notice::decode(&row.notice).ok();
                        let message = match &notice {
                            Some(Notice::Stored { channel, seq, .. }) => {
                                self.messages.get(&(channel.into(), *seq)).cloned()
                            }
                            Some(Notice::Status { .. }) | None => None,
                        };
                        let (number, total, time_ms) = (*number, row.total, row.time_ms);
                        StoredNotice { number, total, time_ms, notice, message }
                    });
                Rows::Notices(stored.collect())
            }
            Read::Channel(channel) => Rows::Channel(ChannelRows {
                info: self.infos.get(channel).copied(),
                times: Times::default(),
                members: self.list(channel, List::Members),
                deny: self.list(channel, List::Deny),
                allow: self.list(channel, List::Allow),
                recipients: self.list(channel, List::Recipients),
                last_seq: self.last_seq(channel),
            }),
            Read::User(uid) => Rows::User(UserRows {
                devices: self
                    .devices
                    .iter()
                    .filter(|((owner, _), _)| owner == uid)
                    .map(|((_, flag), device)| (*flag, device.clone()))
                    .collect(),
                conversations: self
                    .conversations
                    .iter()
                    .filter(|((owner, _), _)| owner == uid)
                    .map(|((_, channel), row)| (channel.clone(), *row))
                    .collect(),
            }),
            Read::Scan(_) => Rows::Failed("the world has no searches".into()),
            Read::Messages { channel, first, last, count_max, from_start } => {
                let all: Vec<_> = self
                    .messages
                    .range((channel.clone(), *first)..=(channel.clone(), *last))
                    .map(|(_, m)| m.clone())
                    .collect();
                let count = all.len().min(*count_max);
                let part = if *from_start { &all[..count] } else { &all[all.len() - count..] };
                Rows::Messages(part.to_vec())
            }
            Read::Find { channel, sought } => {
                Rows::Found(sought.iter().map(|sought| self.find(channel, sought)).collect())
            }
            Read::Stream(stream) => {
                let parts = self.parts(stream);
                let is_needed = |part: &StreamPart| !matches!(part, StreamPart::Content { .. });
                Rows::Stream(parts.filter(is_needed).collect())
            }
            Read::Streams(streams) => {
                Rows::Streams(streams.iter().map(|stream| self.stream(stream)).collect())
            }
            Read::Digests { uid, items } => Rows::Digests(
                items
                    .iter()
                    .map(|item| Digest {
                        last_seq: self.last_seq(&item.channel),
                        own_seq: self
                            .sent
                            .get(&(item.channel.clone(), uid.clone()))
                            .copied()
                            .unwrap_or(0),
                        recents: self
                            .messages
                            .range(
                                (item.channel.clone(), item.after + 1)
                                    ..=(item.channel.clone(), u64::MAX),
                            )
                            .rev()
                            .take(item.count_max)
                            .map(|(_, m)| m.clone())
                            .collect(),
                    })
                    .collect(),
            ),
        }
    }

    fn find(&self, channel: &ChannelId, sought: &Sought) -> Option<SharedMessage> {
        let all = (channel.clone(), 0)..=(channel.clone(), u64::MAX);
        let mut all = self.messages.range(all).map(|(_, message)| message);
        match sought {
            Sought::Seq(seq) => all.find(|m| m.seq == *seq),
            Sought::Id(id) => all.find(|m| m.id == *id),
            Sought::Newest(number) => all.rfind(|m| m.client_msg_no == *number),
            Sought::Oldest(number) => all.find(|m| m.client_msg_no == *number),
        }
        .cloned()
    }

    fn parts(&self, stream: &StreamKey) -> impl Iterator<Item = StreamPart> {
        let first = (stream.clone(), 0, Name::from(""), 0);
        let of_stream = self.streams.range(first..).take_while(|((s, ..), _)| s == stream);
        of_stream.map(|(_, part)| part.clone()).collect::<Vec<_>>().into_iter()
    }

    pub(crate) fn stream(&self, stream: &StreamKey) -> StreamView {
        StreamView::of(self.parts(stream))
    }

    fn list(&self, channel: &ChannelId, list: List) -> Vec<(Name, i64)> {
        self.lists
            .iter()
            .filter(|((c, l, _), _)| c == channel && *l == list)
            .map(|((_, _, uid), ms)| (uid.clone(), *ms))
            .collect()
    }

    pub(crate) fn last_seq(&self, channel: &ChannelId) -> u64 {
        let range = (channel.clone(), 0)..=(channel.clone(), u64::MAX);
        self.messages.range(range).next_back().map_or(0, |((_, seq), _)| *seq)
    }
}

fn place_of(part: &StreamPart) -> (u8, Name, u32) {
    match part {
        StreamPart::Head(_) => (0, "".into(), 0),
        StreamPart::Lane { key, .. } => (1, key.clone(), 0),
        StreamPart::Text { key, number, .. } => (2, key.clone(), *number),
        StreamPart::Content { key, is_live, .. } => (3, key.clone(), u32::from(*is_live)),
    }
}

fn of_slot<K: Copy, V>(
    map: &BTreeMap<(SlotId, K), V>,
    slot: SlotId,
) -> impl Iterator<Item = (K, &V)>
where
    (SlotId, K): Ord,
{
    map.iter().filter(move |((s, _), _)| *s == slot).map(|((_, key), value)| (*key, value))
}
