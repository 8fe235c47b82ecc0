//! Commands that a user missed: /message/sync (http-api.md §8.3) and /message/syncack (§8.4).
//!
//! What is handed out stands in the user's rows, so that it can be acknowledged on any node.

use std::collections::BTreeMap;

use futures::future::join_all;
use jindou_core::{
    id::{ChannelId, Name, SlotId},
    message::SharedMessage,
    request::{Reply, Request, Target},
    row::{Conversation, DigestQuery},
};

use crate::{
    answer::{Answer, Refusal, done, ok, value},
    api::{Api, Call},
    ids::is_blank,
    json::{body, read},
    message_json::MessageJson,
    node::Node,
    stream::{Detail, Streams},
};

/// The most commands of one answer, and bytes of their content after which it ends.
const LIMIT_MAX: usize = 10_000;
const SIZE_MAX: usize = 8 << 20;
/// How many commands are fetched when the back end does not say.
const LIMIT_DEFAULT: usize = 200;

const NO_ROWS: &str = "获取conversation失败！";
const NO_RECENTS: &str = "获取最近消息失败！";

body! {
    /// POST /message/sync.
    SyncBody { uid: String, message_seq: u64, limit: i64, }
}

body! {
    /// POST /message/syncack.
    AckBody { uid: String, last_message_seq: u64, }
}

/// POST /message/sync: the oldest commands above the user's positions, channel by channel.
pub(crate) async fn sync<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let body: SyncBody = read(&call.body)?;
    if is_blank(&body.uid) {
        return Err(Refusal::Rule("用户uid不能为空！"));
    }
    let Ok(limit) = usize::try_from(body.limit) else {
        return Err(Refusal::Rule("limit不能为负数！"));
    };
    let limit = if limit == 0 { LIMIT_DEFAULT } else { limit.min(LIMIT_MAX) };
    api.settings.check_uid("uid", &body.uid)?;
    if api.settings.command_sync_off {
        return Ok(value::<[MessageJson<'_>; 0]>(&[]));
    }
    let uid = Name::from(body.uid);
    let rows = rows(api, &uid).await?;
    let mut messages: Vec<SharedMessage> = Vec::new();
    let mut positions = Vec::new();
    let mut size = 0;
    for (channel, row) in with_news(api, &uid, &rows).await? {
        if messages.len() >= limit || size >= SIZE_MAX {
            break;
        }
        let found = above(api, channel.clone(), row.read_to, limit - messages.len()).await?;
        // Only what is handed out may be acknowledged.
        let Some(last) = found.last() else { continue };
        positions.push((channel, last.seq));
        size += found.iter().map(|message| message.payload.len()).sum::<usize>();
        messages.extend(found);
    }
    let streams = Streams::of(api, &messages).await?;
    if !positions.is_empty() || rows.iter().any(|(_, row)| row.handed_to > 0) {
        let request = Request::HandOut { uid: uid.clone(), positions };
        let reply = api.node.ask(Target::Id(uid), request).await;
        if reply != Reply::Done {
            return Err(Refusal::by(&reply, NO_ROWS));
        }
    }
    let shown = messages.iter().map(|message| streams.show(message, Detail::Full));
    Ok(value(&shown.collect::<Vec<_>>()))
}

/// POST /message/syncack: what the last sync gave is read. Without one it changes nothing.
pub(crate) async fn ack<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let body: AckBody = read(&call.body)?;
    if is_blank(&body.uid) {
        return Err(Refusal::Rule("用户UID不能为空！"));
    }
    if body.last_message_seq == 0 {
        return Err(Refusal::Rule("最后一次messageSeq不能为0！"));
    }
    api.settings.check_uid("uid", &body.uid)?;
    if api.settings.command_sync_off {
        return Ok(ok());
    }
    let uid = Name::from(body.uid);
    let reply = api.node.ask(Target::Id(uid.clone()), Request::TakeHanded { uid }).await;
    done(&reply, "消息同步回执失败！")
}

/// The user's positions by command channel.
async fn rows<N: Node>(
    api: &Api<N>,
    uid: &Name,
) -> Result<Vec<(ChannelId, Conversation)>, Refusal> {
    let request = Request::CommandConversations { uid: uid.clone() };
    let reply = api.node.ask(Target::Id(uid.clone()), request).await;
    if let Reply::Conversations(rows) = reply {
        Ok(rows)
    } else {
        Err(Refusal::by(&reply, NO_ROWS))
    }
}

/// Those of the rows whose channel has something above them. Each slot is asked once.
async fn with_news<N: Node>(
    api: &Api<N>,
    uid: &Name,
    rows: &[(ChannelId, Conversation)],
) -> Result<Vec<(ChannelId, Conversation)>, Refusal> {
    let mut by_slot: BTreeMap<SlotId, Vec<&(ChannelId, Conversation)>> = BTreeMap::new();
    for row in rows {
        by_slot.entry(api.node.slot_of(&row.0.id)).or_default().push(row);
    }
    let asked = by_slot.into_iter().map(|(slot, rows)| async move {
        let items = rows
            .iter()
            .map(|(channel, row)| DigestQuery {
                channel: channel.clone(),
                after: row.read_to,
                count_max: 0,
            })
            .collect();
        let request = Request::Digests { uid: uid.clone(), items };
        (rows, api.node.ask(Target::Slot(slot), request).await)
    });
    let mut news = Vec::new();
    for (rows, reply) in join_all(asked).await {
        let Reply::Digests(digests) = reply else {
            return Err(Refusal::by(&reply, NO_RECENTS));
        };
        if digests.len() != rows.len() {
            return Err(Refusal::Confused);
        }
        let found = rows.into_iter().zip(&digests);
        let found = found.filter(|((_, row), digest)| digest.last_seq > row.read_to);
        news.extend(found.map(|(row, _)| row.clone()));
    }
    news.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(news)
}

async fn above<N: Node>(
    api: &Api<N>,
    channel: ChannelId,
    read_to: u64,
    count_max: usize,
) -> Result<Vec<SharedMessage>, Refusal> {
    let target = Target::Id(channel.id.clone());
    let first = read_to.saturating_add(1);
    let request = Request::Messages { channel, first, last: u64::MAX, count_max, from_start: true };
    let reply = api.node.ask(target, request).await;
    if let Reply::Messages(found) = reply {
        Ok(found)
    } else {
        Err(Refusal::by(&reply, NO_RECENTS))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::panic, clippy::wildcard_enum_match_arm, reason = "tests")]
    use std::{cell::RefCell, rc::Rc};

    use jindou_core::{request::Failure, row::Digest};

    use super::*;
    use crate::testing::{Fixture, err, fine, message, read_log};

    type Handed = Rc<RefCell<Vec<Vec<(ChannelId, u64)>>>>;

    /// A user with three command channels, of which each has `last` commands, and what is handed out.
    fn fixture(last: u64, handed_to: u64) -> (Fixture, Handed) {
        let handed = Handed::default();
        let kept = handed.clone();
        let fixture = Fixture::answers(move |_, request| match request {
            Request::CommandConversations { .. } => {
                let row = |read_to| Conversation { read_to, handed_to, ..Conversation::default() };
                let channel = |id| ChannelId::new(id, 2);
                Reply::Conversations(vec![
                    (channel("a____cmd"), row(1)),
                    (channel("b____cmd"), row(3)),
                    (channel("c____cmd"), row(0)),
                ])
            }
            Request::Digests { items, .. } => {
                let digest = Digest { last_seq: last, ..Digest::default() };
                Reply::Digests(items.iter().map(|_| digest.clone()).collect())
            }
            Request::Messages { channel, first, last: to, count_max, from_start } => {
                Reply::Messages(read_log(channel, last, (*first, *to), *count_max, *from_start))
            }
            Request::HandOut { positions, .. } => {
                kept.borrow_mut().push(positions.clone());
                Reply::Done
            }
            Request::TakeHanded { .. } => Reply::Done,
            other => panic!("{other:?}"),
        });
        (fixture, handed)
    }

    fn fetched(fixture: &Fixture, limit: i64) -> Vec<String> {
        let (status, text) =
            fixture.post("/message/sync", &format!(r#"{{"uid":"u","limit":{limit}}}"#));
        assert_eq!(status, 200);
        let part = |text: &str, name: &str| {
            let rest = text.split(name).nth(1).unwrap_or_default();
            rest.split([',', '}']).next().unwrap_or_default().replace('"', "")
        };
        let messages = text.split(r#"{"header""#).skip(1);
        let seen = messages
            .map(|m| format!("{} {}", part(m, "\"channel_id\":"), part(m, "\"message_seq\":")));
        seen.collect()
    }

    #[test]
    fn commands_come_channel_by_channel_and_only_what_came_is_handed_out() {
        let (fixture, handed) = fixture(3, 0);
        let all = ["a____cmd 2", "a____cmd 3", "c____cmd 1", "c____cmd 2", "c____cmd 3"];
        assert_eq!(fetched(&fixture, 50), all);
        assert_eq!(fetched(&fixture, 2), all.split_at(2).0);
        assert_eq!(fetched(&fixture, 3), all.split_at(3).0);
        let channel = |id| ChannelId::new(id, 2);
        let expected = [
            vec![(channel("a____cmd"), 3), (channel("c____cmd"), 3)],
            vec![(channel("a____cmd"), 3)],
            vec![(channel("a____cmd"), 3), (channel("c____cmd"), 1)],
        ];
        assert_eq!(*handed.borrow(), expected);
    }

    #[test]
    fn an_empty_answer_makes_what_was_handed_out_before_void() {
        let (fresh, handed) = fixture(0, 0);
        assert!(fetched(&fresh, 9).is_empty() && handed.borrow().is_empty());
        let (owed, handed) = fixture(0, 2);
        assert!(fetched(&owed, 9).is_empty());
        assert_eq!(*handed.borrow(), [vec![]]);
    }

    #[test]
    fn nothing_is_given_that_could_not_be_noted() {
        let fixture = Fixture::answers(|_, request| match request {
            Request::CommandConversations { .. } => {
                let row = (ChannelId::new("a____cmd", 2), Conversation::default());
                Reply::Conversations(vec![row])
            }
            Request::Digests { .. } => {
                Reply::Digests(vec![Digest { last_seq: 1, ..Digest::default() }])
            }
            Request::Messages { .. } => Reply::Messages(vec![message(1, "a____cmd", 2).into()]),
            _ => Reply::Failed(Failure::Storage),
        });
        assert_eq!(fixture.post("/message/sync", r#"{"uid":"u"}"#), err(NO_ROWS));
    }

    #[test]
    fn refusals_have_the_recorded_texts() {
        let fixture = Fixture::silent();
        for (body, text) in [
            ("", "EOF"),
            ("{", "unexpected EOF"),
            ("{}", "用户uid不能为空！"),
            (r#"{"uid":" "}"#, "用户uid不能为空！"),
            (r#"{"uid":"u","limit":-1}"#, "limit不能为负数！"),
        ] {
            assert_eq!(fixture.post("/message/sync", body), err(text), "{body}");
        }
        for (body, text) in
            [("{}", "用户UID不能为空！"), (r#"{"uid":"u"}"#, "最后一次messageSeq不能为0！")]
        {
            assert_eq!(fixture.post("/message/syncack", body), err(text), "{body}");
        }
    }

    #[test]
    fn turned_off_both_answer_an_empty_success() {
        let nobody = |_: &Target, request: &Request| panic!("{request:?}");
        let fixture = Fixture::configured(nobody, |_, settings| settings.command_sync_off = true);
        assert_eq!(fixture.post("/message/sync", r#"{"uid":"u"}"#), (200, "[]".to_owned()));
        let ack = r#"{"uid":"u","last_message_seq":1}"#;
        assert_eq!(fixture.post("/message/syncack", ack), fine());
    }
}
