//! POST /conversation/syncMessages (http-api.md §10.5): messages of many channels from a seq on.

use std::collections::BTreeMap;

use futures::future::join_all;
use jindou_core::{
    id::{ChannelId, Name},
    message::SharedMessage,
    request::{Reply, Request, Target},
};
use serde::Serialize;

use crate::{
    answer::{Answer, Refusal, value},
    api::{Api, Call},
    conversation::{CHANNEL_COUNT_MAX, RECENT_COUNT_DEFAULT, RECENT_TOTAL_MAX, digests},
    json::{body, read},
    message_json::MessageJson,
    node::Node,
};

/// How many channels are read at once.
const WINDOW: usize = 64;
/// Bytes of content after which the channels that follow show nothing.
const SIZE_MAX: usize = 64 << 20;

const NO_RECENTS: &str = "获取最近消息失败！";

body! {
    /// A channel by its stored id, and the first seq that is wanted.
    FromBody { channel_id: String, channel_type: u8, last_msg_seq: u64, }
}

body! {
    /// POST /conversation/syncMessages.
    SyncMessagesBody {
        uid: String,
        channels: Vec<FromBody>,
        msg_count: i64,
        order_by_last: i64,
    }
}

#[derive(Serialize)]
struct ChannelJson<'a> {
    channel_id: &'a str,
    channel_type: u8,
    messages: Vec<MessageJson<'a>>,
    user_last_msg_seq: u64,
}

/// POST /conversation/syncMessages: the newest messages, newest first, or the oldest ones.
pub(crate) async fn sync_messages<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let body: SyncMessagesBody = read(&call.body).map_err(|_| Refusal::Rule("数据格式有误！"))?;
    if body.channels.len() > CHANNEL_COUNT_MAX {
        return Err(Refusal::TooMany { what: "channel", max: CHANNEL_COUNT_MAX });
    }
    api.settings.check_uid("uid", &body.uid)?;
    for channel in &body.channels {
        api.settings.check_channel(&channel.channel_id, jindou_core::channel_info::kind::GROUP)?;
    }
    let uid = Name::from(body.uid);
    let count = match usize::try_from(body.msg_count) {
        Ok(0) | Err(_) => RECENT_COUNT_DEFAULT,
        Ok(count) => count.min(RECENT_TOTAL_MAX / body.channels.len().max(1)).max(1),
    };
    let is_newest = body.order_by_last == 1;
    let channel_of = |from: &FromBody| ChannelId::new(from.channel_id.as_str(), from.channel_type);
    // A channel that is named twice is asked for once, from its lowest seq.
    let mut once: BTreeMap<ChannelId, u64> = BTreeMap::new();
    for from in &body.channels {
        let seq = once.entry(channel_of(from)).or_insert(from.last_msg_seq);
        *seq = from.last_msg_seq.min(*seq);
    }
    let queries = once.iter().map(|(channel, seq)| (channel.clone(), seq.saturating_sub(1)));
    let of_each = if is_newest { count } else { 1 };
    let found = digests(api, &uid, queries.collect(), of_each).await?;
    let found: BTreeMap<&ChannelId, _> = once.keys().zip(&found).collect();
    let mut oldest = BTreeMap::new();
    if !is_newest {
        oldest = oldest_of(api, &once, count).await?;
    }
    let items: Vec<ChannelJson<'_>> = body
        .channels
        .iter()
        .map(|from| {
            let channel = channel_of(from);
            let digest = found.get(&channel);
            let newest = digest.map_or(&[][..], |digest| &digest.recents);
            let shown = if is_newest {
                newest
            } else {
                oldest.get(&channel).map_or(&[][..], Vec::as_slice)
            };
            let shown = shown.iter().filter(|message| message.seq >= from.last_msg_seq);
            ChannelJson {
                channel_id: &from.channel_id,
                channel_type: from.channel_type,
                messages: shown.map(|message| MessageJson::new(message)).collect(),
                user_last_msg_seq: digest.map_or(0, |digest| digest.own_seq),
            }
        })
        .collect();
    Ok(value(&items))
}

/// The oldest messages of each channel from its seq on, until they are too many bytes.
async fn oldest_of<N: Node>(
    api: &Api<N>,
    channels: &BTreeMap<ChannelId, u64>,
    count_max: usize,
) -> Result<BTreeMap<ChannelId, Vec<SharedMessage>>, Refusal> {
    let mut oldest = BTreeMap::new();
    let mut size = 0;
    let channels: Vec<(&ChannelId, &u64)> = channels.iter().collect();
    for window in channels.chunks(WINDOW) {
        if size >= SIZE_MAX {
            break;
        }
        let asked = window.iter().map(|(channel, seq)| async move {
            let target = Target::Id(channel.id.clone());
            let request = Request::Messages {
                channel: (*channel).clone(),
                first: **seq,
                last: u64::MAX,
                count_max,
                from_start: true,
            };
            ((*channel).clone(), api.node.ask(target, request).await)
        });
        for (channel, reply) in join_all(asked).await {
            let Reply::Messages(messages) = reply else {
                return Err(Refusal::by(&reply, NO_RECENTS));
            };
            size += messages.iter().map(|message| message.payload.len()).sum::<usize>();
            oldest.insert(channel, messages);
        }
    }
    Ok(oldest)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::panic, clippy::wildcard_enum_match_arm, reason = "tests")]
    use jindou_core::row::Digest;

    use super::*;
    use crate::testing::{Fixture, err, read_log};

    /// Channels with nine messages; the reader has sent the seventh.
    fn fixture() -> Fixture {
        Fixture::answers(|_, request| match request {
            Request::Messages { channel, first, last, count_max, from_start } => {
                Reply::Messages(read_log(channel, 9, (*first, *last), *count_max, *from_start))
            }
            Request::Digests { items, .. } => {
                let digest = |item: &jindou_core::row::DigestQuery| {
                    let range = (item.after + 1, u64::MAX);
                    let mut recents = read_log(&item.channel, 9, range, item.count_max, false);
                    recents.reverse();
                    Digest { last_seq: 9, own_seq: 7, recents }
                };
                Reply::Digests(items.iter().map(digest).collect())
            }
            other => panic!("{other:?}"),
        })
    }

    fn seqs(rest: &str) -> Vec<Vec<String>> {
        let body = format!(
            r#"{{"uid":"u","channels":[{{"channel_id":"g","channel_type":2,"last_msg_seq":4}},
                {{"channel_id":"b@u","channel_type":1,"last_msg_seq":8}}]{rest}}}"#
        );
        let (status, text) = fixture().post("/conversation/syncMessages", &body);
        assert_eq!(status, 200);
        assert!(text.starts_with(r#"[{"channel_id":"g","channel_type":2,"messages":["#), "{text}");
        assert!(text.ends_with(r#"],"user_last_msg_seq":7}]"#), "{text}");
        let items = text.split(r#""messages":["#).skip(1);
        items
            .map(|item| {
                let parts = item.split(r#""message_seq":"#).skip(1);
                parts.filter_map(|part| Some(part.split(',').next()?.to_owned())).collect()
            })
            .collect()
    }

    #[test]
    fn either_end_is_given() {
        assert_eq!(seqs(r#","msg_count":2"#), [["4", "5"], ["8", "9"]]);
        assert_eq!(seqs(r#","msg_count":2,"order_by_last":1"#), [["9", "8"], ["9", "8"]]);
        let all = seqs("");
        assert_eq!(all.concat().len(), 6 + 2);
    }

    #[test]
    fn a_bad_body_is_refused() {
        for bad in ["", "{", "[]", r#"{"channels":["x"]}"#] {
            let answer = Fixture::silent().post("/conversation/syncMessages", bad);
            assert_eq!(answer, err("数据格式有误！"));
        }
    }
}
