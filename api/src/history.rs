//! The history of a channel: /channel/messagesync (http-api.md §8.8), /channel/max_message_seq
//! (§8.9), /channel/last_message (§8.10).

use jindou_core::{
    channel_info::kind,
    id::ChannelId,
    message::SharedMessage,
    request::{Reply, Request, Target},
};
use serde::Serialize;

use crate::{
    answer::{Answer, Refusal, status, value},
    api::{Api, Call},
    ids::{is_blank, read_channel},
    json::{body, read},
    message_json::MessageJson,
    node::Node,
    stream::{Detail, Streams},
};

/// The most messages of one page; also of a page without a limit, which then says that there is
/// more.
const LIMIT_MAX: usize = 10_000;
/// A reply with this many bytes of payload may have been cut by the store's own bound (see
/// [`jindou_core::row::Read::Messages`]).
const CUT_SUSPECT_SIZE: usize = 8 << 20;

body! {
    /// POST /channel/messagesync.
    SyncBody {
        login_uid: String,
        channel_id: String,
        channel_type: u8,
        start_message_seq: u64,
        end_message_seq: u64,
        limit: i64,
        pull_mode: i64,
        event_summary_mode: String,
    }
}

/// Seqs to read: `first..=last`, at most `count_max`, the lowest if `from_start`, else the highest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    first: u64,
    last: u64,
    count_max: usize,
    from_start: bool,
}

impl Window {
    /// What a page is made of (the table of http-api.md §8.8); `None`: nothing. `start` is
    /// included, `end` is not.
    fn new(start: u64, end: u64, limit: usize, is_up: bool) -> Option<Self> {
        let window = match (start, end, is_up) {
            (0, 0, _) => Self { first: 1, last: u64::MAX, count_max: limit, from_start: false },
            (_, _, true) => Self {
                first: start.max(1),
                last: if end == 0 { u64::MAX } else { end - 1 },
                count_max: if limit == 0 { LIMIT_MAX } else { limit },
                from_start: true,
            },
            (_, _, false) => {
                let size = u64::try_from(limit).unwrap_or(u64::MAX);
                // The first seq of a full page, by one too high so that it can't be below 0.
                let after_first = start.saturating_sub(size).max(end);
                Self {
                    first: after_first.saturating_add(1),
                    last: start,
                    count_max: limit,
                    from_start: false,
                }
            }
        };
        (window.first <= window.last && window.count_max > 0).then_some(window)
    }
}

#[derive(Serialize)]
struct PageJson<'a> {
    start_message_seq: u64,
    end_message_seq: u64,
    more: u8,
    messages: Vec<MessageJson<'a>>,
}

/// POST /channel/messagesync.
pub(crate) async fn sync<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let body: SyncBody = read(&call.body)?;
    if is_blank(&body.channel_id) {
        return Err(Refusal::Rule("channel_id不能为空！"));
    }
    if is_blank(&body.login_uid) {
        return Err(Refusal::Rule("login_uid不能为空！"));
    }
    // v2 takes a negative limit for a request of one message that nobody asked for.
    let Ok(limit) = usize::try_from(body.limit) else {
        return Err(Refusal::Rule("limit不能为负数！"));
    };
    let limit = limit.min(LIMIT_MAX);
    api.settings.check_uid("login_uid", &body.login_uid)?;
    api.settings.check_channel(&body.channel_id, body.channel_type)?;
    let channel = read_channel(&body.login_uid, &body.channel_id, body.channel_type);
    let (start, end) = (body.start_message_seq, body.end_message_seq);
    let (messages, is_cut) = match Window::new(start, end, limit, body.pull_mode == 1) {
        Some(window) => page(api, channel, window).await?,
        None => (Vec::new(), false),
    };
    let streams = Streams::of(api, &messages).await?;
    let is_full = matches!(body.event_summary_mode.trim().to_lowercase().as_str(), "" | "full");
    let detail = if is_full { Detail::Full } else { Detail::Basic };
    Ok(value(&PageJson {
        start_message_seq: start,
        end_message_seq: end,
        more: (is_cut || messages.len() >= limit).into(),
        messages: messages.iter().map(|message| streams.show(message, detail)).collect(),
    }))
}

/// Reads a window, and whether messages of it are missing because a reply has a bound in bytes.
async fn page<N: Node>(
    api: &Api<N>,
    channel: ChannelId,
    window: Window,
) -> Result<(Vec<SharedMessage>, bool), Refusal> {
    let found = messages(api, channel.clone(), window).await?;
    let (Some(first), Some(last)) = (found.first(), found.last()) else {
        return Ok((found, false));
    };
    if found.len() >= window.count_max {
        return Ok((found, false));
    }
    if !window.from_start {
        let is_cut = first.seq > window.first;
        return Ok((found, is_cut));
    }
    let size: usize = found.iter().map(|message| message.payload.len()).sum();
    if size < CUT_SUSPECT_SIZE || last.seq >= window.last {
        return Ok((found, false));
    }
    let rest = Window { first: last.seq.saturating_add(1), count_max: 1, ..window };
    let is_cut = !messages(api, channel, rest).await?.is_empty();
    Ok((found, is_cut))
}

async fn messages<N: Node>(
    api: &Api<N>,
    channel: ChannelId,
    window: Window,
) -> Result<Vec<SharedMessage>, Refusal> {
    let Window { first, last, count_max, from_start } = window;
    let target = Target::Id(channel.id.clone());
    let request = Request::Messages { channel, first, last, count_max, from_start };
    let reply = api.node.ask(target, request).await;
    if let Reply::Messages(messages) = reply { Ok(messages) } else { Err(Refusal::by(&reply, "")) }
}

/// The last seq of a channel; 0 when it has none.
pub(crate) async fn last_seq<N: Node>(api: &Api<N>, channel: ChannelId) -> Result<u64, Refusal> {
    let target = Target::Id(channel.id.clone());
    let reply = api.node.ask(target, Request::LastSeq { channel }).await;
    if let Reply::LastSeq(seq) = reply { Ok(seq) } else { Err(Refusal::by(&reply, "")) }
}

/// The channel that query parameters name. A person's full id may stand for itself if
/// `takes_stored` says so.
fn queried<N: Node>(api: &Api<N>, call: &Call, takes_stored: bool) -> Result<ChannelId, Refusal> {
    let id = call.query.text("channel_id");
    if id.is_empty() {
        return Err(Refusal::Rule("channel_id不能为空"));
    }
    let channel_kind = call.query.kind("channel_type");
    let uid = call.query.text("login_uid");
    if channel_kind == kind::PERSON && takes_stored && id.contains('@') {
        api.settings.check_channel(id, kind::GROUP)?;
        return Ok(ChannelId::new(id, channel_kind));
    }
    if channel_kind == kind::PERSON && uid.is_empty() {
        return Err(Refusal::Rule("login_uid不能为空"));
    }
    api.settings.check_uid("login_uid", uid)?;
    api.settings.check_channel(id, channel_kind)?;
    Ok(read_channel(uid, id, channel_kind))
}

#[derive(Serialize)]
struct SeqJson {
    message_seq: u64,
}

/// GET /channel/max_message_seq: 0 for a channel without messages.
pub(crate) async fn max_message_seq<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let channel = queried(api, call, true)?;
    let message_seq = last_seq(api, channel).await?;
    Ok(value(&SeqJson { message_seq }))
}

/// GET /channel/last_message.
pub(crate) async fn last_message<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let channel = queried(api, call, false)?;
    let newest = Window { first: 1, last: u64::MAX, count_max: 1, from_start: false };
    Ok(match messages(api, channel, newest).await?.last() {
        Some(message) => value(&MessageJson::new(message)),
        None => status(404),
    })
}

#[cfg(test)]
mod tests;
