//! `stream` — what was appended to messages after they were sent (AI output, http-api.md §9).
//!
//! key    slot u16 | kind u8 | id length u16 | id | client number length u16 | client number | piece
//! piece  0: the stream as a whole
//!        1 | lane (the rest)                       a lane
//!        2 | lane length u16 | lane | number u32   a part of its text, in order
//!        3 | lane length u16 | lane | u8           a content: 0 stored, 1 live
//! value  version u8 = 1, then
//!        0: from | message id i64 | seq u64 | version u64 | size u64 | claimed i64, Unix ms
//!           | owner: kind u8, id
//!        1: status u8 | seq u64 | event id | event type | visibility | occurred i64, Unix ms
//!           | snapshot u8 | text size u64 | part count u32 | live size u64 | stored size u64
//!           | end reason u8 | error
//!        2: id count u16 | ids u64 each | text (the rest)
//!        3: JSON (the rest)
//!        texts: LEB128 length, UTF-8
//! write  apply: the pieces that an entry has changed, once; of a text the last part, of about 1 KiB
//! read   head, lanes and last parts before an event is applied; all of it for readers
//! life   as long as the message; an ended stream is ordinary history
//!
//! The empty channel holds claims: to which channel a client number belongs, in the slot of the
//! number.

use bytes::Bytes;
use jindou_core::{
    id::{ChannelId, Name, SlotId},
    stream::{Head, Lane, LaneStatus, Source, StreamKey, StreamPart},
};

use crate::{
    codec::{Cursor, NAME_SIZE_MAX, Writer, channel_prefix, name_bytes, whole},
    error::StorageError,
};

pub(crate) const NAME: &str = "stream";
const VERSION: u8 = 1;

const HEAD: u8 = 0;
const LANE: u8 = 1;
const TEXT: u8 = 2;
const CONTENT: u8 = 3;

/// All pieces of a stream.
pub(crate) fn prefix(slot: SlotId, stream: &StreamKey) -> Result<Vec<u8>, StorageError> {
    Ok(begin(slot, stream)?.done())
}

/// Its head and lanes.
pub(crate) fn outline(
    slot: SlotId,
    stream: &StreamKey,
) -> Result<std::ops::Range<Vec<u8>>, StorageError> {
    Ok(begin(slot, stream)?.u8(HEAD).done()..begin(slot, stream)?.u8(TEXT).done())
}

/// The parts of the text of one lane.
pub(crate) fn texts(slot: SlotId, stream: &StreamKey, lane: &str) -> Result<Vec<u8>, StorageError> {
    Ok(sized(begin(slot, stream)?.u8(TEXT), lane)?.done())
}

fn begin(slot: SlotId, stream: &StreamKey) -> Result<Writer, StorageError> {
    sized(channel_prefix(NAME, slot, &stream.channel)?, &stream.client_msg_no)
}

fn sized(writer: Writer, name: &str) -> Result<Writer, StorageError> {
    let bytes = name_bytes(NAME, name)?;
    let size = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    Ok(writer.u16(size).bytes(bytes))
}

pub(crate) fn key(
    slot: SlotId,
    stream: &StreamKey,
    part: &StreamPart,
) -> Result<Vec<u8>, StorageError> {
    let key = begin(slot, stream)?;
    Ok(match part {
        StreamPart::Head(_) => key.u8(HEAD),
        StreamPart::Lane { key: lane, .. } => key.u8(LANE).bytes(name_bytes(NAME, lane)?),
        StreamPart::Text { key: lane, number, .. } => sized(key.u8(TEXT), lane)?.u32(*number),
        StreamPart::Content { key: lane, is_live, .. } => {
            sized(key.u8(CONTENT), lane)?.u8(u8::from(*is_live))
        }
    }
    .done())
}

pub(crate) fn encode(part: &StreamPart) -> Vec<u8> {
    let writer = Writer::with_capacity(part.size() + 32).u8(VERSION);
    match part {
        StreamPart::Head(head) => writer
            .text(&head.from)
            .i64(head.message_id)
            .u64(head.seq)
            .u64(head.version)
            .u64(head.size)
            .i64(head.claimed_ms)
            .u8(head.owner.kind)
            .text(&head.owner.id),
        StreamPart::Lane { lane, .. } => writer
            .u8(match lane.status {
                LaneStatus::Open => 0,
                LaneStatus::Closed => 1,
                LaneStatus::Error => 2,
                LaneStatus::Cancelled => 3,
            })
            .u64(lane.seq)
            .text(&lane.event_id)
            .text(&lane.event_type)
            .text(&lane.visibility)
            .i64(lane.occurred_ms)
            .u8(match lane.snapshot {
                Source::None => 0,
                Source::Text => 1,
                Source::Live => 2,
                Source::Stored => 3,
            })
            .u64(lane.text_size)
            .u32(lane.part_count)
            .u64(lane.live_size)
            .u64(lane.stored_size)
            .u8(lane.end_reason)
            .text(&lane.error),
        StreamPart::Text { ids, text, .. } => {
            let count = u16::try_from(ids.len()).unwrap_or(u16::MAX);
            let ids = ids.iter().take(count.into());
            ids.fold(writer.u16(count), |writer, id| writer.u64(*id)).bytes(text.as_bytes())
        }
        StreamPart::Content { json, .. } => writer.bytes(json),
    }
    .done()
}

/// Which piece a row is.
enum Piece {
    Head,
    Lane(Name),
    Text(Name, u32),
    Content(Name, bool),
}

fn parse_key(key: &[u8]) -> Result<(SlotId, StreamKey, Piece), StorageError> {
    whole(NAME, "key", key, |key| {
        let slot = key.slot()?;
        let channel = key.channel()?;
        let stream = StreamKey { channel, client_msg_no: key.name()? };
        let piece = match key.u8()? {
            HEAD => Piece::Head,
            LANE => Piece::Lane(key.last_name()?),
            TEXT => Piece::Text(key.name()?, key.u32()?),
            CONTENT => {
                let lane = key.name()?;
                Piece::Content(
                    lane,
                    match key.u8()? {
                        0 => false,
                        1 => true,
                        _ => return None,
                    },
                )
            }
            _ => return None,
        };
        Some((slot, stream, piece))
    })
}

/// A row as a whole.
pub(crate) fn decode(
    key: &[u8],
    value: &[u8],
) -> Result<(SlotId, StreamKey, StreamPart), StorageError> {
    let (slot, stream, piece) = parse_key(key)?;
    let part = whole(NAME, "value", value, |value| {
        value.version(VERSION)?;
        Some(match piece {
            Piece::Head => StreamPart::Head(head(value)?),
            Piece::Lane(key) => StreamPart::Lane { key, lane: lane(value)? },
            Piece::Text(key, number) => {
                let count = value.u16()?;
                let ids = (0..count).map(|_| value.u64()).collect::<Option<Vec<u64>>>()?;
                let text = std::str::from_utf8(value.rest()).ok()?.to_owned();
                StreamPart::Text { key, number, ids, text }
            }
            Piece::Content(key, is_live) => {
                let json = Bytes::copy_from_slice(value.rest());
                StreamPart::Content { key, is_live, json }
            }
        })
    })?;
    Ok((slot, stream, part))
}

fn head(value: &mut Cursor<'_>) -> Option<Head> {
    Some(Head {
        from: value.text()?.into(),
        message_id: value.i64()?,
        seq: value.u64()?,
        version: value.u64()?,
        size: value.u64()?,
        claimed_ms: value.i64()?,
        owner: {
            let kind = value.u8()?;
            ChannelId::new(value.text()?, kind)
        },
    })
}

fn lane(value: &mut Cursor<'_>) -> Option<Lane> {
    Some(Lane {
        status: match value.u8()? {
            0 => LaneStatus::Open,
            1 => LaneStatus::Closed,
            2 => LaneStatus::Error,
            3 => LaneStatus::Cancelled,
            _ => return None,
        },
        seq: value.u64()?,
        event_id: value.text()?.into(),
        event_type: value.text()?.into(),
        visibility: value.text()?.into(),
        occurred_ms: value.i64()?,
        snapshot: match value.u8()? {
            0 => Source::None,
            1 => Source::Text,
            2 => Source::Live,
            3 => Source::Stored,
            _ => return None,
        },
        text_size: value.u64()?,
        part_count: value.u32()?,
        live_size: value.u64()?,
        stored_size: value.u64()?,
        end_reason: value.u8()?,
        error: value.text()?.into(),
    })
}

const _: () = assert!(jindou_core::stream::CLIENT_NO_SIZE_MAX <= NAME_SIZE_MAX);

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{any_name, any_stream, any_stream_part};

    proptest! {
        #[test]
        fn a_piece_comes_back(slot: u16, stream in any_stream(), part in any_stream_part()) {
            let key = key(SlotId(slot), &stream, &part).unwrap();
            prop_assert!(key.starts_with(&prefix(SlotId(slot), &stream).unwrap()));
            let is_outline = matches!(part, StreamPart::Head(_) | StreamPart::Lane { .. });
            let outline = outline(SlotId(slot), &stream).unwrap();
            prop_assert_eq!(outline.contains(&key), is_outline);
            if let StreamPart::Text { key: lane, .. } = &part {
                prop_assert!(key.starts_with(&texts(SlotId(slot), &stream, lane).unwrap()));
            }
            let back = decode(&key, &encode(&part)).unwrap();
            prop_assert_eq!(back, (SlotId(slot), stream, part));
        }

        #[test]
        fn texts_are_in_order_and_of_one_lane(
            stream in any_stream(),
            (lane, other) in (any_name(), any_name()),
            (a, b) in any::<(u32, u32)>(),
        ) {
            let text = |key: &Name, number| StreamPart::Text {
                key: key.clone(),
                number,
                ids: Vec::new(),
                text: String::new(),
            };
            let key = |part: StreamPart| key(SlotId(1), &stream, &part).unwrap();
            prop_assert_eq!(key(text(&lane, a)).cmp(&key(text(&lane, b))), a.cmp(&b));
            let prefix = texts(SlotId(1), &stream, &lane).unwrap();
            prop_assert_eq!(key(text(&other, a)).starts_with(&prefix), lane == other);
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(key: Vec<u8>, value: Vec<u8>) {
            let _ = decode(&key, &value);
        }
    }
}
