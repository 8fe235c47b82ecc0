//! /cluster/messages (http-api.md §17.3): the only search for messages.
//!
//! In one channel messages are found by seq, over all channels by id, the newest first. A search
//! without a channel goes through the channels of every slot; what it could not look at in time it
//! tells in `errors`.

use std::cmp::Reverse;

use futures::future::join_all;
use jindou_core::{
    id::{ChannelId, Name, SlotId},
    message::{Message, SharedMessage, setting},
    scan::{MessageFilter, Scan, ScanOf, ScanPage, ScanRows},
};
use serde::Serialize;

use super::{
    format::time,
    page::{self, Gaps, Patience},
    scan,
};
use crate::{
    answer::{Answer, Refusal, value},
    api::{Api, Call},
    ids::check_text,
    json::{Base64, decode_base64},
    node::Node,
};

/// Bytes of content on one page; more messages than fit are on the next one.
const PAGE_SIZE_MAX: usize = 16 << 20;
/// The longest piece of content that is searched for.
const PIECE_SIZE_MAX: usize = 64 << 10;

#[derive(Serialize)]
struct MessageJson<'a> {
    message_id: String,
    message_seq: u64,
    client_msg_no: &'a str,
    timestamp: i64,
    timestamp_format: String,
    channel_id: &'a str,
    channel_type: u8,
    topic: &'a str,
    from_uid: &'a str,
    payload: Base64<'a>,
    expire: u32,
    /// Of the Raft entry; a message is not stored with it here.
    term: u64,
    is_stream: u8,
}

impl<'a> MessageJson<'a> {
    fn new(message: &'a Message, utc_offset_seconds: i32) -> Self {
        Self {
            message_id: message.id.to_string(),
            message_seq: message.seq,
            client_msg_no: &message.client_msg_no,
            timestamp: message.timestamp,
            timestamp_format: time(message.timestamp.saturating_mul(1000), utc_offset_seconds),
            channel_id: &message.channel.id,
            channel_type: message.channel.kind,
            topic: &message.topic,
            from_uid: &message.from,
            payload: Base64(&message.payload),
            expire: message.expire,
            term: 1,
            is_stream: (message.setting & setting::STREAM != 0).into(),
        }
    }
}

#[derive(Serialize)]
struct MessagesJson<'a> {
    /// All messages are not counted.
    total: usize,
    data: Vec<MessageJson<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<String>,
}

/// GET /cluster/messages.
pub(super) async fn search<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let filter = filter(api, call)?;
    let id = call.query.text("channel_id").trim();
    let query = Query { limit: page::limit(call), newest_first: !page::is_backward(call), filter };
    let (messages, errors) = if id.is_empty() {
        over_all(api, call, query).await?
    } else {
        // A person's stored id holds two uids.
        api.settings.check_channel(id, 0)?;
        let channel = ChannelId::new(id, call.query.kind("channel_type"));
        in_channel(api, call, channel, query).await?
    };
    let offset = api.settings.utc_offset_seconds;
    let data = messages.iter().map(|message| MessageJson::new(message, offset)).collect();
    Ok(value(&MessagesJson { total: 0, data, errors }))
}

struct Query {
    limit: usize,
    newest_first: bool,
    filter: MessageFilter,
}

/// What a query filters by. A message id of 0, or one that is no number, is none.
fn filter<N: Node>(api: &Api<N>, call: &Call) -> Result<MessageFilter, Refusal> {
    let text = |name: &str| -> Option<Name> {
        let text = call.query.text(name).trim();
        (!text.is_empty()).then(|| text.into())
    };
    let (from, client_msg_no) = (text("from_uid"), text("client_msg_no"));
    api.settings.check_uid("from_uid", from.as_deref().unwrap_or_default())?;
    check_text("client_msg_no", client_msg_no.as_deref().unwrap_or_default())?;
    let payload = decode_base64(call.query.text("payload").trim().as_bytes())?;
    if payload.len() > PIECE_SIZE_MAX {
        return Err(Refusal::TooLong { what: "payload", max: PIECE_SIZE_MAX });
    }
    let id = Some(call.query.signed("message_id")).filter(|id| *id != 0);
    Ok(MessageFilter { from, client_msg_no, id, payload: payload.into() })
}

/// Messages that are kept for a page.
struct Best {
    limit: usize,
    newest_first: bool,
    messages: Vec<SharedMessage>,
}

impl Best {
    /// Adds messages and keeps the best of all, as many as fit a page. Gives the worst of them if
    /// the page is full.
    fn add(&mut self, found: Vec<SharedMessage>) -> Option<i64> {
        self.messages.extend(found);
        if self.newest_first {
            self.messages.sort_by_key(|message| Reverse((message.id, message.seq)));
        } else {
            self.messages.sort_by_key(|message| (message.id, message.seq));
        }
        let (mut size, mut fit) = (0_usize, 0);
        for message in self.messages.iter().take(self.limit) {
            size = size.saturating_add(message.payload.len());
            if size > PAGE_SIZE_MAX && fit > 0 {
                self.limit = fit;
                break;
            }
            fit += 1;
        }
        self.messages.truncate(self.limit);
        self.messages.last().filter(|_| self.messages.len() >= self.limit).map(|worst| worst.id)
    }

    /// The newest first, whichever way they were found.
    fn shown(mut self) -> Vec<SharedMessage> {
        self.messages.sort_by_key(|message| Reverse((message.id, message.seq)));
        self.messages
    }
}

/// The place that a page begins at: `None` when there is nothing before it.
fn offset(call: &Call) -> i64 {
    call.query.signed("offset_message_id").max(0)
}

/// Over all channels, by id.
async fn over_all<N: Node>(
    api: &Api<N>,
    call: &Call,
    query: Query,
) -> Result<(Vec<SharedMessage>, Vec<String>), Refusal> {
    let Query { limit, newest_first, filter } = query;
    let patience = Patience::new(api);
    let (mut above, mut below) = match (offset(call), newest_first) {
        (0, _) => (i64::MIN, i64::MAX),
        (offset, true) => (i64::MIN, offset),
        (offset, false) => (offset, i64::MAX),
    };
    let mut best = Best { limit, newest_first, messages: Vec::new() };
    let (slots, mut gaps) = (page::slots(api), Gaps::default());
    for wave in slots.chunks(page::SLOTS_AT_ONCE) {
        let mut open: Vec<(SlotId, Option<bytes::Bytes>)> =
            wave.iter().map(|slot| (*slot, None)).collect();
        while !open.is_empty() {
            if patience.is_over(api) {
                open.iter().for_each(|(slot, _)| gaps.unread(*slot));
                break;
            }
            let asked = std::mem::take(&mut open);
            let pages = asked.iter().map(|(slot, after)| {
                let filter = filter.clone();
                let what = ScanOf::Messages { above, below, newest_first, filter };
                let after = after.clone();
                scan(api, Scan { slot: *slot, what, after, count_max: best.limit })
            });
            for ((slot, _), page) in asked.iter().zip(join_all(pages).await) {
                let page = match page {
                    Ok(page) => page,
                    Err(refusal) => {
                        gaps.failed(*slot, refusal);
                        continue;
                    }
                };
                let ScanPage { rows: ScanRows::Messages(found), next } = page else {
                    return Err(Refusal::Confused);
                };
                if let Some(worst) = best.add(found) {
                    if newest_first {
                        above = above.max(worst);
                    } else {
                        below = below.min(worst);
                    }
                }
                if next.is_some() {
                    open.push((*slot, next));
                }
            }
            // There is one message of an id: it was found.
            if filter.id.is_some() && !best.messages.is_empty() {
                return Ok((best.shown(), Vec::new()));
            }
        }
    }
    Ok((best.shown(), gaps.told(slots.len())?))
}

/// In one channel, by seq.
async fn in_channel<N: Node>(
    api: &Api<N>,
    call: &Call,
    channel: ChannelId,
    query: Query,
) -> Result<(Vec<SharedMessage>, Vec<String>), Refusal> {
    let Query { limit, newest_first, filter } = query;
    let patience = Patience::new(api);
    let slot = api.node.slot_of(&channel.id);
    let (first, last) = match (call.query.unsigned("offset_message_seq"), newest_first) {
        (0, _) => (1, u64::MAX),
        (offset, true) => (1, offset - 1),
        (offset, false) => (offset.saturating_add(1), u64::MAX),
    };
    let id_offset = offset(call);
    let is_on_page = |message: &SharedMessage| match newest_first {
        _ if id_offset == 0 => true,
        true => message.id < id_offset,
        false => message.id > id_offset,
    };
    let mut best = Best { limit, newest_first, messages: Vec::new() };
    let (mut after, mut errors) = (None, Vec::new());
    while best.messages.len() < best.limit && first <= last {
        if patience.is_over(api) {
            let mut gaps = Gaps::default();
            gaps.unread(slot);
            errors = gaps.told(2)?;
            break;
        }
        let what = ScanOf::ChannelMessages {
            channel: channel.clone(),
            first,
            last,
            newest_first,
            filter: filter.clone(),
        };
        let count_max = best.limit - best.messages.len();
        let page = scan(api, Scan { slot, what, after, count_max }).await?;
        let ScanPage { rows: ScanRows::Messages(mut found), next } = page else {
            return Err(Refusal::Confused);
        };
        found.retain(is_on_page);
        best.add(found);
        after = match next {
            Some(next) => Some(next),
            None => break,
        };
    }
    Ok((best.shown(), errors))
}
