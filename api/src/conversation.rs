//! Conversations: one user's view of the channels (http-api.md §10, semantics.md §8).
//!
//! A row keeps what can't be computed: the read position and the deletion mark. Everything else is
//! asked of the channels at the time of the sync: one question per shard, for all channels that
//! live there.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use jindou_core::{
    channel_info::kind,
    id::{ChannelId, Name, SYSTEM_UID, SlotId},
    request::{Reply, Request, Target},
    row::{Conversation, Digest, DigestQuery},
};
use serde::Serialize;

use crate::{
    answer::{Answer, Refusal, done, ok, value},
    api::{Api, Call},
    history::last_seq,
    ids::{is_blank, read_channel, shown_to},
    json::{body, read},
    message_json::MessageJson,
    node::Node,
    query::unsigned,
    stream::{Detail, Streams},
};

/// How many recent messages an item has when syncByChannels is not told.
pub(crate) const RECENT_COUNT_DEFAULT: usize = 15;
/// How many an item has at most.
const RECENT_COUNT_MAX: usize = 10_000;
/// How many all items of an answer have together, at most.
pub(crate) const RECENT_TOTAL_MAX: usize = 100_000;
/// How many channels one syncByChannels may name.
pub(crate) const CHANNEL_COUNT_MAX: usize = 10_000;
/// Conversations of a page.
const PAGE_SIZE_DEFAULT: i64 = 100;
const PAGE_SIZE_MAX: i64 = 500;

const NO_ROWS: &str = "获取conversation失败！";
const NO_RECENTS: &str = "获取最近消息失败！";

body! {
    /// POST /conversations/clearUnread, setUnread and delete.
    ReadBody {
        uid: String,
        channel_id: String,
        channel_type: u8,
        message_seq: u32,
        unread: i64,
    }
}

/// Reads the body of the three routes that name one conversation.
fn named<N: Node>(
    api: &Api<N>,
    call: &Call,
    no_uid: &'static str,
) -> Result<(Name, ChannelId, i64), Refusal> {
    let body: ReadBody = read(&call.body)?;
    if body.uid.is_empty() {
        return Err(Refusal::Rule(no_uid));
    }
    if body.channel_id.is_empty() || body.channel_type == 0 {
        return Err(Refusal::Rule("channel_id or channel_type cannot be empty"));
    }
    api.settings.check_uid("uid", &body.uid)?;
    api.settings.check_channel(&body.channel_id, body.channel_type)?;
    let channel = read_channel(&body.uid, &body.channel_id, body.channel_type);
    Ok((body.uid.into(), channel, body.unread))
}

/// POST /conversations/clearUnread: everything is read.
pub(crate) async fn clear_unread<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let (uid, channel, _) = named(api, call, "uid cannot be empty")?;
    let last = last_seq(api, channel.clone()).await?;
    read_to(api, uid, channel, last).await
}

/// POST /conversations/setUnread: everything but the last `unread` messages is read.
pub(crate) async fn set_unread<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let (uid, channel, unread) = named(api, call, "UID cannot be empty")?;
    let last = last_seq(api, channel.clone()).await?;
    read_to(api, uid, channel, read_position(last, unread)).await
}

/// The read position that leaves `unread` messages. More than there are, or a negative count,
/// leave one.
fn read_position(last: u64, unread: i64) -> u64 {
    match u64::try_from(unread) {
        Ok(unread) if unread <= last => last - unread,
        Ok(_) | Err(_) => last.saturating_sub(1),
    }
}

/// Moves the read position on. 0 moves nothing and makes no row.
async fn read_to<N: Node>(api: &Api<N>, uid: Name, channel: ChannelId, seq: u64) -> Answer {
    if seq == 0 {
        return Ok(ok());
    }
    let request = Request::ReadTo { uid: uid.clone(), channel, seq };
    done(&api.node.ask(Target::Id(uid), request).await, "")
}

/// POST /conversations/delete: hides what there is now.
pub(crate) async fn delete<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let (uid, channel, _) = named(api, call, "Uid cannot be empty")?;
    let seq = last_seq(api, channel.clone()).await?;
    if seq == 0 {
        return Ok(ok());
    }
    let request = Request::DeleteConversation { uid: uid.clone(), channel, seq };
    done(&api.node.ask(Target::Id(uid), request).await, "")
}

body! {
    /// POST /conversation/sync.
    SyncBody {
        uid: String,
        version: i64,
        last_msg_seqs: String,
        msg_count: i64,
        only_unread: u8,
        exclude_channel_types: bytes::Bytes,
        page: i64,
        page_size: i64,
    }
}

/// One conversation, as the user sees it.
#[derive(Serialize)]
struct ItemJson<'a> {
    channel_id: &'a str,
    channel_type: u8,
    unread: u64,
    timestamp: i64,
    last_msg_seq: u64,
    last_client_msg_no: &'a str,
    offset_msg_seq: i64,
    readed_to_msg_seq: u64,
    version: i64,
    recents: Vec<MessageJson<'a>>,
}

/// What a channel has for a user, put together with the user's row.
fn item<'a>(
    uid: &str,
    channel: &'a ChannelId,
    row: Conversation,
    digest: &'a Digest,
    streams: &'a Streams,
) -> ItemJson<'a> {
    let newest = digest.recents.first();
    let last = newest.map_or(0, |message| message.seq);
    let is_own = newest.is_some_and(|message| &*message.from == uid && uid != SYSTEM_UID);
    // What the user wrote itself, it has read, and everything before it.
    let own = if is_own { last } else { digest.own_seq.min(last) };
    let read = row.read_to.max(own);
    let timestamp = newest.map_or(0, |message| message.timestamp);
    // Without a message it is the time of the row, in nanoseconds like the other.
    let version = match newest {
        Some(_) => timestamp.saturating_mul(1_000_000_000),
        None => row.updated_ms.saturating_mul(1_000_000),
    };
    ItemJson {
        channel_id: shown_to(uid, channel),
        channel_type: channel.kind,
        unread: last.saturating_sub(read),
        timestamp,
        last_msg_seq: last,
        last_client_msg_no: newest.map_or("", |message| &message.client_msg_no),
        offset_msg_seq: 0,
        readed_to_msg_seq: read,
        version,
        recents: digest.recents.iter().map(|m| streams.show(m, Detail::Full)).collect(),
    }
}

/// POST /conversation/sync.
pub(crate) async fn sync<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let body: SyncBody = read(&call.body)?;
    let uid = known_uid(api, body.uid)?;
    let recent_count = usize::try_from(body.msg_count).unwrap_or(0);
    if recent_count == 0 {
        return Ok(value::<[ItemJson<'_>; 0]>(&[]));
    }
    let client_seqs = last_seqs(&uid, &body.last_msg_seqs);
    let is_unread_only = body.version > 0 || body.only_unread == 1;
    let mut rows = rows(api, &uid).await?;
    page(&mut rows, body.page, body.page_size);
    rows.retain(|(channel, _)| {
        !body.exclude_channel_types.contains(&channel.kind) || client_seqs.contains_key(channel)
    });
    let queries = rows.iter().map(|(channel, row)| {
        let from = match client_seqs.get(channel) {
            Some(seq) if *seq > 0 => *seq,
            _ if is_unread_only => row.read_to,
            _ => 0,
        };
        (channel.clone(), from.max(row.deleted_to))
    });
    let digests = digests(api, &uid, queries.collect(), recent_count).await?;
    let streams = Streams::of(api, digests.iter().flat_map(|digest| &digest.recents)).await?;
    let items: Vec<ItemJson<'_>> = rows
        .iter()
        .zip(&digests)
        .filter(|(_, digest)| !digest.recents.is_empty())
        .map(|((channel, row), digest)| item(&uid, channel, *row, digest, &streams))
        .filter(|item| item.channel_type != kind::PERSON || item.channel_id != SYSTEM_UID)
        .collect();
    Ok(value(&items))
}

/// A uid that isn't blank and not too long.
fn known_uid<N: Node>(api: &Api<N>, uid: String) -> Result<Name, Refusal> {
    if is_blank(&uid) {
        return Err(Refusal::Rule("uid cannot be empty"));
    }
    api.settings.check_uid("uid", &uid)?;
    Ok(uid.into())
}

/// The user's conversations, the last touched first, without those of command channels.
async fn rows<N: Node>(
    api: &Api<N>,
    uid: &Name,
) -> Result<Vec<(ChannelId, Conversation)>, Refusal> {
    let request = Request::Conversations { uid: uid.clone() };
    let reply = api.node.ask(Target::Id(uid.clone()), request).await;
    let Reply::Conversations(mut rows) = reply else {
        return Err(Refusal::by(&reply, NO_ROWS));
    };
    rows.retain(|(channel, _)| channel.command_base().is_none());
    rows.truncate(api.settings.conversation_count_max);
    Ok(rows)
}

/// Cuts a page out of the rows, if one is asked for.
fn page<T>(rows: &mut Vec<T>, page: i64, page_size: i64) {
    if page < 1 {
        return;
    }
    let size = if page_size <= 0 { PAGE_SIZE_DEFAULT } else { page_size.min(PAGE_SIZE_MAX) };
    let first = usize::try_from((page - 1).saturating_mul(size)).unwrap_or(usize::MAX);
    let count = usize::try_from(size).unwrap_or(usize::MAX);
    rows.drain(..first.min(rows.len()));
    rows.truncate(count);
}

/// What the client has, by stored channel: `id:type:seq` joined by `|`, persons by the peer.
/// Entries that aren't three parts are skipped; of repeated ones the last counts.
fn last_seqs(uid: &str, text: &str) -> BTreeMap<ChannelId, u64> {
    text.split('|')
        .filter_map(|entry| {
            let mut parts = entry.split(':');
            let (id, channel_kind, seq) = (parts.next()?, parts.next()?, parts.next()?);
            if parts.next().is_some() {
                return None;
            }
            let channel_kind = u8::try_from(unsigned(channel_kind)).unwrap_or(0);
            Some((read_channel(uid, id, channel_kind), unsigned(seq)))
        })
        .collect()
}

/// What the channels have above their bounds for the user, in the order of the question.
///
/// A shard's answer has a bound in bytes and leaves out what lies beyond it. A channel that has
/// something and shows nothing is asked again for its newest message, so that no conversation is
/// missing from a list because others are large.
pub(crate) async fn digests<N: Node>(
    api: &Api<N>,
    uid: &Name,
    queries: Vec<(ChannelId, u64)>,
    recent_count: usize,
) -> Result<Vec<Digest>, Refusal> {
    let fair_share = RECENT_TOTAL_MAX / queries.len().max(1);
    let count_max = recent_count.min(RECENT_COUNT_MAX).min(fair_share.max(1));
    let mut digests: Vec<Digest> = queries.iter().map(|_| Digest::default()).collect();
    let mut wanted: Vec<usize> = (0..queries.len()).collect();
    let mut count_max_now = count_max;
    while !wanted.is_empty() {
        let asked = wanted.len();
        ask_digests(api, uid, &queries, wanted, count_max_now, &mut digests).await?;
        wanted = queries
            .iter()
            .zip(&digests)
            .enumerate()
            .filter(|(_, ((_, after), digest))| {
                digest.recents.is_empty() && digest.last_seq > *after
            })
            .map(|(place, _)| place)
            .collect();
        if count_max_now == 1 && wanted.len() >= asked {
            return Err(Refusal::Rule(NO_RECENTS));
        }
        count_max_now = 1;
    }
    Ok(digests)
}

/// Asks each slot once for the queries at these places.
async fn ask_digests<N: Node>(
    api: &Api<N>,
    uid: &Name,
    queries: &[(ChannelId, u64)],
    wanted: Vec<usize>,
    count_max: usize,
    digests: &mut [Digest],
) -> Result<(), Refusal> {
    let mut by_slot: BTreeMap<SlotId, (Vec<usize>, Vec<DigestQuery>)> = BTreeMap::new();
    for place in wanted {
        let Some((channel, after)) = queries.get(place) else { continue };
        let (places, items) = by_slot.entry(api.node.slot_of(&channel.id)).or_default();
        places.push(place);
        items.push(DigestQuery { channel: channel.clone(), after: *after, count_max });
    }
    let asked = by_slot.into_iter().map(|(slot, (places, items))| async move {
        let count = items.len();
        let request = Request::Digests { uid: uid.clone(), items };
        let reply = api.node.ask(Target::Slot(slot), request).await;
        (places, count, reply)
    });
    for (places, count, reply) in join_all(asked).await {
        let Reply::Digests(of_slot) = reply else {
            return Err(Refusal::by(&reply, NO_RECENTS));
        };
        if of_slot.len() != count {
            return Err(Refusal::Confused);
        }
        for (place, digest) in places.into_iter().zip(of_slot) {
            if let Some(kept) = digests.get_mut(place) {
                *kept = digest;
            }
        }
    }
    Ok(())
}

body! {
    /// POST /conversation/channels.
    UidBody { uid: String, }
}

#[derive(Serialize)]
struct ChannelJson<'a> {
    channel_id: &'a str,
    channel_type: u8,
}

/// POST /conversation/channels: the stored ids of the user's conversations, deleted ones too.
pub(crate) async fn channels<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let body: UidBody = read(&call.body)?;
    let uid = known_uid(api, body.uid)?;
    let rows = rows(api, &uid).await?;
    let list: Vec<ChannelJson<'_>> = rows
        .iter()
        .map(|(channel, _)| ChannelJson { channel_id: &channel.id, channel_type: channel.kind })
        .collect();
    Ok(value(&list))
}

body! {
    /// A channel as the user names it.
    ChannelBody { channel_id: String, channel_type: u8, }
}

body! {
    /// POST /conversation/syncByChannels.
    ByChannelsBody { uid: String, channels: Vec<ChannelBody>, msg_count: i64, }
}

/// POST /conversation/syncByChannels: an item per channel of the body, in its order, whether there
/// is a conversation or not. What was deleted is shown.
pub(crate) async fn sync_by_channels<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let body: ByChannelsBody = read(&call.body)?;
    let uid = known_uid(api, body.uid)?;
    if body.channels.is_empty() {
        return Err(Refusal::Rule("channels cannot be empty"));
    }
    if body.channels.len() > CHANNEL_COUNT_MAX {
        return Err(Refusal::Rule("too many channels"));
    }
    for channel in &body.channels {
        api.settings.check_channel(&channel.channel_id, channel.channel_type)?;
    }
    let recent_count = match usize::try_from(body.msg_count) {
        Ok(0) | Err(_) => RECENT_COUNT_DEFAULT,
        Ok(count) => count,
    };
    let request = Request::Conversations { uid: uid.clone() };
    let reply = api.node.ask(Target::Id(uid.clone()), request).await;
    let Reply::Conversations(rows) = reply else {
        return Err(Refusal::by(&reply, "获取会话失败！"));
    };
    let rows: BTreeMap<ChannelId, Conversation> = rows.into_iter().collect();
    let wanted: Vec<ChannelId> = body
        .channels
        .iter()
        .map(|channel| read_channel(&uid, &channel.channel_id, channel.channel_type))
        .collect();
    // A channel named twice is asked for once.
    let once: BTreeSet<&ChannelId> = wanted.iter().collect();
    let queries = once.iter().map(|channel| ((*channel).clone(), 0)).collect();
    let found = digests(api, &uid, queries, recent_count).await?;
    let found: BTreeMap<&ChannelId, &Digest> = once.into_iter().zip(&found).collect();
    let streams = Streams::of(api, found.values().flat_map(|digest| &digest.recents)).await?;
    let items: Vec<ItemJson<'_>> = wanted
        .iter()
        .filter_map(|channel| {
            let row = rows.get(channel).copied().unwrap_or_default();
            Some(item(&uid, channel, row, found.get(channel)?, &streams))
        })
        .collect();
    Ok(value(&items))
}

/// The reader of `last_msg_seqs`, for the fuzz target.
pub(crate) fn fuzz_last_seqs(text: &str) {
    let _ = last_seqs("u", text);
}

#[cfg(test)]
mod tests;
