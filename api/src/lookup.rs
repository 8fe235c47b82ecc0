//! Single messages of a channel: /messages (http-api.md §8.5), /message (§8.6) and
//! /message/byclientmsgno (§8.7). Other channels are not looked at, whatever the id.

use std::collections::VecDeque;

use jindou_core::{
    channel_info::kind,
    id::ChannelId,
    message::SharedMessage,
    request::{Reply, Request, Target},
    row::Sought,
};
use serde::Serialize;

use crate::{
    answer::{Answer, Refusal, status, value},
    api::{Api, Call},
    ids::{is_blank, read_channel},
    json::{body, read},
    message_json::MessageJson,
    node::Node,
};

/// How many messages one request may name.
const SOUGHT_MAX: usize = 10_000;

const BAD_BODY: Refusal = Refusal::Rule("数据格式有误！");
const NO_CHANNEL: Refusal = Refusal::Rule("channel_id不能为空！");

body! {
    /// POST /messages.
    MessagesBody {
        login_uid: String,
        channel_id: String,
        channel_type: u8,
        message_seqs: Vec<u32>,
        message_ids: Vec<i64>,
        client_msg_nos: Vec<String>,
    }
}

body! {
    /// POST /message.
    MessageBody {
        login_uid: String,
        channel_id: String,
        channel_type: u8,
        message_id: i64,
        client_msg_no: String,
    }
}

#[derive(Serialize)]
struct FoundJson<'a> {
    start_message_seq: u64,
    end_message_seq: u64,
    more: u8,
    messages: Vec<MessageJson<'a>>,
}

/// POST /messages: by seqs, then by ids, then by client numbers, each in the order of the request.
/// What is not there is left out. A client number gives its newest message.
pub(crate) async fn messages<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let body: MessagesBody = read(&call.body).map_err(|_| BAD_BODY)?;
    if is_blank(&body.channel_id) {
        return Err(NO_CHANNEL);
    }
    let count = body.message_seqs.len() + body.message_ids.len() + body.client_msg_nos.len();
    if count > SOUGHT_MAX {
        return Err(Refusal::TooMany { what: "message", max: SOUGHT_MAX });
    }
    api.settings.check_uid("login_uid", &body.login_uid)?;
    api.settings.check_channel(&body.channel_id, body.channel_type)?;
    let channel = read_channel(&body.login_uid, &body.channel_id, body.channel_type);
    let seqs = body.message_seqs.into_iter().map(|seq| Sought::Seq(seq.into()));
    let ids = body.message_ids.into_iter().map(Sought::Id);
    let numbers = body.client_msg_nos.into_iter().filter(|number| !number.is_empty());
    let numbers = numbers.map(|number| Sought::Newest(number.into()));
    let found = find(api, channel, seqs.chain(ids).chain(numbers).collect()).await?;
    Ok(value(&FoundJson {
        start_message_seq: 0,
        end_message_seq: 0,
        more: 0,
        messages: found.iter().map(|message| MessageJson::new(message)).collect(),
    }))
}

/// POST /message: by id, or without one by client number.
pub(crate) async fn message<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let body: MessageBody = read(&call.body).map_err(|_| BAD_BODY)?;
    if is_blank(&body.channel_id) {
        return Err(NO_CHANNEL);
    }
    if body.channel_type == 0 {
        return Err(Refusal::Rule("channel_type不能为0"));
    }
    if body.channel_type == kind::PERSON && is_blank(&body.login_uid) {
        return Err(Refusal::Rule("login_uid不能为空！"));
    }
    api.settings.check_uid("login_uid", &body.login_uid)?;
    api.settings.check_channel(&body.channel_id, body.channel_type)?;
    let channel = read_channel(&body.login_uid, &body.channel_id, body.channel_type);
    let sought = match (body.message_id, body.client_msg_no) {
        (0, number) if number.is_empty() => return Ok(status(404)),
        (0, number) => Sought::Newest(number.into()),
        (id, _) => Sought::Id(id),
    };
    one(api, channel, sought).await
}

/// GET /message/byclientmsgno: the oldest message with the number. Persons by their stored id.
pub(crate) async fn by_client_msg_no<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let id = call.query.text("channel_id");
    if is_blank(id) {
        return Err(Refusal::Rule("channel_id不能为空"));
    }
    let channel_kind = call.query.kind("channel_type");
    if channel_kind == 0 {
        return Err(Refusal::Rule("channel_type不能为0"));
    }
    let number = call.query.text("client_msg_no");
    if is_blank(number) {
        return Err(Refusal::Rule("client_msg_no不能为空"));
    }
    // A person's stored id is two uids.
    api.settings.check_channel(id, kind::GROUP)?;
    one(api, ChannelId::new(id, channel_kind), Sought::Oldest(number.into())).await
}

async fn one<N: Node>(api: &Api<N>, channel: ChannelId, sought: Sought) -> Answer {
    let found = find(api, channel, vec![sought]).await?;
    Ok(found.first().map_or_else(|| status(404), |message| value(&MessageJson::new(message))))
}

/// The messages that there are, in the order of the question. An answer has a bound in bytes: what
/// it leaves out is asked for again.
async fn find<N: Node>(
    api: &Api<N>,
    channel: ChannelId,
    sought: Vec<Sought>,
) -> Result<Vec<SharedMessage>, Refusal> {
    let mut messages = Vec::new();
    let mut rest = VecDeque::from(sought);
    while !rest.is_empty() {
        let sought = rest.iter().cloned().collect();
        let request = Request::Find { channel: channel.clone(), sought };
        let reply = api.node.ask(Target::Id(channel.id.clone()), request).await;
        let Reply::Found(found) = reply else {
            return Err(Refusal::by(&reply, ""));
        };
        if found.is_empty() || found.len() > rest.len() {
            return Err(Refusal::Confused);
        }
        rest.drain(..found.len());
        messages.extend(found.into_iter().flatten());
    }
    Ok(messages)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::panic, reason = "tests")]
    use super::*;
    use crate::testing::{Fixture, err, message};

    /// A node with the messages 1 to 3 of any channel, which answers two questions at a time.
    fn fixture() -> Fixture {
        Fixture::answers(|_, request| {
            let Request::Find { channel, sought } = request else { panic!("{request:?}") };
            let found = sought.iter().take(2).map(|sought| {
                let seq = match sought {
                    Sought::Seq(seq) => *seq,
                    Sought::Id(id) => u64::try_from(id - 1_000_000).unwrap_or(0),
                    Sought::Newest(number) | Sought::Oldest(number) => {
                        number.trim_start_matches('n').parse().unwrap_or(0)
                    }
                };
                let is_there = (1..=3).contains(&seq);
                is_there.then(|| message(seq, &channel.id, channel.kind).into())
            });
            Reply::Found(found.collect())
        })
    }

    fn seqs(text: &str) -> Vec<&str> {
        let parts = text.split("\"message_seq\":").skip(1);
        parts.filter_map(|part| part.split(',').next()).collect()
    }

    #[test]
    fn a_batch_comes_in_the_order_of_its_parts_and_in_as_many_answers_as_it_takes() {
        let fixture = fixture();
        let body = r#"{"channel_id":"g","channel_type":2,"message_seqs":[3,9,1],
            "message_ids":[1000002,77,1000002],"client_msg_nos":["n3","","x","n1"]}"#;
        let (status, text) = fixture.post("/messages", body);
        assert_eq!(status, 200);
        let head = r#"{"start_message_seq":0,"end_message_seq":0,"more":0,"messages":[{"header""#;
        assert!(text.starts_with(head), "{text}");
        assert_eq!(seqs(&text), ["3", "1", "2", "2", "3", "1"]);
        assert_eq!(fixture.asked().len(), 5);
    }

    #[test]
    fn either_side_of_a_person_channel_asks_for_the_same() {
        for (uid, peer) in [("u1", "u2"), ("u2", "u1")] {
            let fixture = fixture();
            let body = format!(
                r#"{{"login_uid":"{uid}","channel_id":"{peer}","channel_type":1,"message_seqs":[1]}}"#
            );
            assert_eq!(fixture.post("/messages", &body).0, 200);
            assert_eq!(fixture.last_asked().0, Target::Id("u2@u1".into()));
        }
    }

    #[test]
    fn one_message_by_id_or_else_by_number() {
        let body = |rest: &str| format!(r#"{{"channel_id":"g","channel_type":2{rest}}}"#);
        let missing = (200, r#"{"status":404}"#.to_owned());
        let found = |rest: &str| seqs(&fixture().post("/message", &body(rest)).1).join("");
        assert_eq!(found(r#","message_id":1000002,"client_msg_no":"n1""#), "2");
        assert_eq!(found(r#","client_msg_no":"n1""#), "1");
        for rest in ["", r#","message_id":-5"#, r#","client_msg_no":"nope""#] {
            assert_eq!(fixture().post("/message", &body(rest)), missing, "{rest}");
        }
    }

    #[test]
    fn refusals_have_the_recorded_texts() {
        let fixture = Fixture::silent();
        for path in ["/messages", "/message"] {
            for bad in ["", "{", "[]", r#"{"channel_id":1}"#] {
                assert_eq!(fixture.post(path, bad), err("数据格式有误！"), "{bad}");
            }
            assert_eq!(fixture.post(path, "{}"), err("channel_id不能为空！"));
        }
        for bad in [
            r#"{"channel_id":"x","message_seqs":[-1]}"#,
            r#"{"channel_id":"x","message_seqs":[4294967296]}"#,
            r#"{"channel_id":"x","message_ids":["1"]}"#,
            r#"{"channel_id":"x","message_ids":[9223372036854775808]}"#,
        ] {
            assert_eq!(fixture.post("/messages", bad), err("数据格式有误！"), "{bad}");
        }
        let many = format!(r#"{{"channel_id":"g","message_seqs":[1{}]}}"#, ",1".repeat(10_000));
        assert_eq!(
            fixture.post("/messages", &many),
            err("more than 10000 of message in one request")
        );
        assert_eq!(fixture.post("/message", r#"{"channel_id":"g"}"#), err("channel_type不能为0"));
        let person = r#"{"channel_id":"a","channel_type":1,"message_id":4}"#;
        assert_eq!(fixture.post("/message", person), err("login_uid不能为空！"));
        for (query, text) in [
            ("", "channel_id不能为空"),
            ("?channel_id=g", "channel_type不能为0"),
            ("?channel_id=g&channel_type=x2&client_msg_no=n", "channel_type不能为0"),
            ("?channel_id=g&channel_type=2&client_msg_no=+", "client_msg_no不能为空"),
        ] {
            assert_eq!(fixture.get(&format!("/message/byclientmsgno{query}")), err(text));
        }
    }
}
