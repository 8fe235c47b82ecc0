//! What the property tests of this crate draw from.

use bytes::Bytes;
use jindou_core::{
    channel_info::{ChannelInfo, List},
    id::{ChannelId, Name, SlotId},
    message::{Message, flag},
    notice::{NoticeHead, NoticeRow},
    row::{Conversation, Dated, DedupeRecord, Device, Row, Times},
    stream::{Head, Lane, LaneStatus, Source, StreamKey, StreamPart},
};
use proptest::{collection::vec, option, prelude::*, sample::select};

/// Short names that repeat, odd ones, and one as long as a channel id may be.
pub(crate) fn any_name() -> impl Strategy<Value = Name> {
    prop_oneof![
        4 => select(vec!["ann", "bob", "eve", "ann@bob", "bo"]).prop_map(Name::from),
        2 => "\\PC{0,12}".prop_map(Name::from),
        1 => Just(Name::from("长".repeat(1365))),
    ]
}

pub(crate) fn any_channel() -> impl Strategy<Value = ChannelId> {
    (any_name(), 1u8..4).prop_map(|(id, kind)| ChannelId { id, kind })
}

/// Client numbers, some of which repeat.
pub(crate) fn any_number() -> impl Strategy<Value = Name> {
    prop_oneof![
        select(vec!["", "n1", "n2", "n3"]).prop_map(Name::from),
        "\\PC{0,40}".prop_map(Name::from),
    ]
}

pub(crate) fn any_info() -> impl Strategy<Value = ChannelInfo> {
    any::<[bool; 5]>().prop_map(|[large, ban, disband, send_ban, allow_stranger]| ChannelInfo {
        large,
        ban,
        disband,
        send_ban,
        allow_stranger,
    })
}

pub(crate) fn any_list() -> impl Strategy<Value = List> {
    select(vec![List::Members, List::Deny, List::Allow, List::Recipients])
}

pub(crate) fn any_message() -> impl Strategy<Value = Message> {
    let payload = prop_oneof![vec(any::<u8>(), 0..64), vec(any::<u8>(), 300..600)];
    (
        (any_channel(), 1u64..20, any::<i64>(), any::<i64>()),
        (any::<u8>(), any::<u8>(), any::<u32>(), payload),
        (any_name(), any_number(), "\\PC{0,8}", "\\PC{0,8}"),
    )
        .prop_map(|(a, b, c)| {
            let (channel, seq, id, timestamp) = a;
            let (flags, setting, expire, payload) = b;
            let (from, client_msg_no, topic, stream_no) = c;
            Message {
                id,
                seq,
                channel,
                from,
                client_msg_no,
                flags: flags & !flag::NO_PERSIST,
                setting,
                expire,
                timestamp,
                topic: topic.into(),
                stream_no: stream_no.into(),
                shown: None,
                payload: Bytes::from(payload),
            }
        })
}

pub(crate) fn any_conversation() -> impl Strategy<Value = Conversation> {
    (any::<(u64, u64, i64, i64)>(), prop_oneof![Just(0), any::<u64>()]).prop_map(
        |((read_to, deleted_to, created_ms, updated_ms), handed_to)| Conversation {
            read_to,
            deleted_to,
            created_ms,
            updated_ms,
            handed_to,
        },
    )
}

pub(crate) fn any_times() -> impl Strategy<Value = Times> {
    any::<(i64, i64)>().prop_map(|(created_ns, updated_ms)| Times { created_ns, updated_ms })
}

pub(crate) fn any_dated() -> impl Strategy<Value = Dated> {
    prop_oneof![
        any_channel().prop_map(Dated::Channel),
        any_name().prop_map(Dated::User),
        (any_name(), 0u8..3).prop_map(|(uid, flag)| Dated::Device(uid, flag)),
    ]
}

pub(crate) fn any_dedupe() -> impl Strategy<Value = Vec<DedupeRecord>> {
    let record = any::<(u128, i64, u64, i64)>()
        .prop_map(|(digest, id, seq, time_ms)| DedupeRecord { digest, id, seq, time_ms });
    vec(record, 0..5)
}

pub(crate) fn any_notice() -> impl Strategy<Value = NoticeRow> {
    (any::<(u64, i64)>(), vec(any::<u8>(), 0..50))
        .prop_map(|((total, time_ms), notice)| NoticeRow { total, time_ms, notice: notice.into() })
}

pub(crate) fn any_row() -> impl Strategy<Value = Row> {
    let bytes = || vec(any::<u8>(), 0..50).prop_map(Bytes::from);
    prop_oneof![
        6 => any_message().prop_map(|message| Row::Message(message.into())),
        2 => (any_channel(), any_name(), any::<u64>())
            .prop_map(|(channel, uid, seq)| Row::Sent { channel, uid, seq }),
        2 => (any_channel(), any_info(), any_times())
            .prop_map(|(channel, info, times)| Row::Info { channel, info, times }),
        4 => (any_channel(), any_list(), any_name(), option::of(any::<i64>())).prop_map(
            |(channel, list, uid, added_ms)| Row::ListItem { channel, list, uid, added_ms }
        ),
        2 => (any_name(), 0u8..3, any::<u8>(), "\\PC{0,20}", any_times()).prop_map(
            |(uid, device_flag, level, token, times)| Row::Device {
                uid,
                device_flag,
                device: Device { level, token, times },
            }
        ),
        3 => (any_name(), any_channel(), option::of(any_conversation())).prop_map(
            |(uid, channel, conversation)| Row::Conversation { uid, channel, conversation }
        ),
        2 => (0u64..20, option::of(any_dedupe()))
            .prop_map(|(index, records)| Row::Dedupe { index, records }),
        2 => (0u16..4, 0u64..20, option::of(bytes())).prop_map(|(target, index, changes)| {
            Row::Outbox { target: SlotId(target), index, changes }
        }),
        1 => (0u16..4, any::<u64>())
            .prop_map(|(source, index)| Row::Received { source: SlotId(source), index }),
        1 => ("[a-c]{1,2}", bytes()).prop_map(|(key, value)| Row::ClusterKey { key, value }),
        1 => bytes().prop_map(Row::Membership),
        3 => (any_stream(), any_stream_part())
            .prop_map(|(stream, part)| Row::Stream { stream, part }),
        2 => (any_dated(), 0i64..30)
            .prop_map(|(what, created_ns)| Row::Dated { what, created_ns }),
        2 => (1u64..20, option::of(any_notice()))
            .prop_map(|(number, row)| Row::Notice { number, row }),
        1 => any::<[u64; 4]>().prop_map(|[first, next, total, gone]| {
            Row::NoticeHead(NoticeHead { first, next, total, gone })
        }),
    ]
}

pub(crate) fn any_stream() -> impl Strategy<Value = StreamKey> {
    (any_channel(), any_name())
        .prop_map(|(channel, client_msg_no)| StreamKey { channel, client_msg_no })
}

pub(crate) fn any_stream_part() -> impl Strategy<Value = StreamPart> {
    let statuses =
        vec![LaneStatus::Open, LaneStatus::Closed, LaneStatus::Error, LaneStatus::Cancelled];
    let sources = vec![Source::None, Source::Text, Source::Live, Source::Stored];
    let head = (any_name(), any::<(i64, u64, u64, u64, i64)>(), any_channel()).prop_map(
        |(from, (message_id, seq, version, size, claimed_ms), owner)| {
            StreamPart::Head(Head { from, message_id, seq, version, size, claimed_ms, owner })
        },
    );
    let lane = (
        (any_name(), select(statuses), select(sources), any_name(), any_name()),
        (any::<(u64, i64, u64, u32, u64, u64, u8)>(), any_name(), any_name()),
    )
        .prop_map(
            |((key, status, snapshot, event_id, event_type), (numbers, visibility, error))| {
                let (seq, occurred_ms, text_size, part_count, live_size, stored_size, end_reason) =
                    numbers;
                let lane = Lane {
                    status,
                    seq,
                    event_id,
                    event_type,
                    visibility,
                    occurred_ms,
                    snapshot,
                    text_size,
                    part_count,
                    live_size,
                    stored_size,
                    end_reason,
                    error,
                };
                StreamPart::Lane { key, lane }
            },
        );
    let text = (any_name(), 0u32..5, vec(any::<u64>(), 0..4), "\\PC{0,40}")
        .prop_map(|(key, number, ids, text)| StreamPart::Text { key, number, ids, text });
    let content =
        (any_name(), any::<bool>(), vec(any::<u8>(), 0..50)).prop_map(|(key, is_live, json)| {
            StreamPart::Content { key, is_live, json: Bytes::from(json) }
        });
    prop_oneof![head, lane, text, content]
}
