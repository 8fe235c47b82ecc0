//! Sending: /message/send (http-api.md §8.1) and /message/sendbatch (§8.2).

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::future::join_all;
use jindou_core::{
    channel_info::kind,
    code::Code,
    id::{ChannelId, Name, ONLINE_COMMAND_CHANNEL, SYSTEM_UID, has_special_char},
    message::{flag, setting},
    request::{ApiSend, Failure, Reply, Request, Target},
    stream::CLIENT_NO_SIZE_MAX,
};
use serde::Serialize;

use crate::{
    answer::{Answer, Refusal, ok, ok_data, value},
    api::{Api, Call},
    ids::{check_size, check_text, is_blank, list_channel, send_channel, without_blanks},
    json::{body, read},
    node::Node,
    stream,
};

/// How many messages of a batch are under way at once.
const BATCH_WINDOW: usize = 64;

const NO_PAYLOAD: Refusal = Refusal::Rule("payload不能为空！");
const BAD_CHANNEL: &str = "频道ID不合法！";
const UNCLEAR: Refusal = Refusal::Rule("无法处理发送消息请求！");

body! {
    /// `header` of a send. 1 is true, everything else is not.
    HeaderBody { no_persist: i64, red_dot: i64, sync_once: i64, }
}

impl HeaderBody {
    fn is_command(&self) -> bool {
        self.sync_once == 1
    }

    pub(crate) fn flags(&self) -> u8 {
        [
            (self.no_persist, flag::NO_PERSIST),
            (self.red_dot, flag::RED_DOT),
            (self.sync_once, flag::SYNC_ONCE),
        ]
        .into_iter()
        .filter(|(value, _)| *value == 1)
        .fold(0, |flags, (_, flag)| flags | flag)
    }
}

body! {
    /// POST /message/send.
    SendBody {
        header: HeaderBody,
        client_msg_no: String,
        is_stream: i64,
        from_uid: String,
        channel_id: String,
        channel_type: u8,
        expire: u32,
        subscribers: Vec<String>,
        payload: Bytes,
        tag_key: String,
    }
}

#[derive(Serialize)]
struct SentJson {
    client_msg_no: Name,
    message_id: i64,
}

/// POST /message/send: to a channel, or a command to a list of uids. Answers after the message is
/// committed and applied. That a rule refused it is not told, as in v2: the id is.
pub(crate) async fn send<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let body: SendBody = read(&call.body)?;
    if body.payload.is_empty() {
        return Err(NO_PAYLOAD);
    }
    let has_channel = !is_blank(&body.channel_id);
    let has_list = !body.subscribers.is_empty();
    if has_channel == has_list || (has_list && !body.header.is_command()) {
        return Err(UNCLEAR);
    }
    let from = if is_blank(&body.from_uid) { SYSTEM_UID } else { &body.from_uid };
    api.settings.check_uid("from_uid", from)?;
    check_text("client_msg_no", &body.client_msg_no)?;
    if has_list {
        return send_to_list(api, &body, from).await;
    }
    if has_special_char(&body.channel_id) {
        return Err(Refusal::Rule(BAD_CHANNEL));
    }
    api.settings.check_channel(&body.channel_id, body.channel_type)?;
    let client_msg_no = if is_blank(&body.client_msg_no) {
        fresh_number(api)
    } else {
        body.client_msg_no.as_str().into()
    };
    let is_command = body.header.is_command();
    let channel = send_channel(from, &body.channel_id, body.channel_type, is_command);
    // Receivers of a command see the channel as the back end named it.
    let shown = channel.command_base().map(|_| Name::from(body.channel_id.as_str()));
    let from = Name::from(from);
    if body.is_stream == 1 {
        check_size("client_msg_no", &client_msg_no, CLIENT_NO_SIZE_MAX)?;
        // Whoever appends to it need not say whose it is.
        stream::claim(api, &client_msg_no, &channel, &from, true).await?;
    }
    let message_id = ask(
        api,
        ApiSend {
            channel,
            shown,
            from,
            client_msg_no: client_msg_no.clone(),
            flags: body.header.flags(),
            setting: if body.is_stream == 1 { setting::STREAM } else { 0 },
            expire: body.expire,
            recipients: None,
            payload: body.payload,
        },
    )
    .await?;
    Ok(ok_data(SentJson { client_msg_no, message_id }))
}

/// A command to a list of uids: stored in a channel named after the list, or pushed only.
async fn send_to_list<N: Node>(api: &Api<N>, body: &SendBody, from: &str) -> Answer {
    api.settings.check_uids("subscriber", &body.subscribers)?;
    let mut seen = BTreeSet::new();
    let mut recipients = without_blanks(&body.subscribers);
    recipients.retain(|uid| seen.insert(uid.clone()));
    if recipients.is_empty() {
        return Err(UNCLEAR);
    }
    let channel = if body.header.no_persist == 1 {
        ChannelId::new(ONLINE_COMMAND_CHANNEL, kind::TEMP)
    } else {
        list_channel(&body.subscribers)
    };
    ask(
        api,
        ApiSend {
            channel,
            shown: None,
            from: from.into(),
            client_msg_no: fresh_number(api),
            flags: body.header.flags(),
            setting: 0,
            expire: body.expire,
            recipients: Some(recipients),
            payload: body.payload.clone(),
        },
    )
    .await?;
    Ok(ok())
}

/// A client number that the back end left out: 32 hexadecimal digits and a 0.
fn fresh_number<N: Node>(api: &Api<N>) -> Name {
    format!("{:032x}0", api.node.random()).into()
}

/// Sends; the message's id, of a refused one too. An error when the node could not do it.
async fn ask<N: Node>(api: &Api<N>, send: ApiSend) -> Result<i64, Refusal> {
    let target = Target::Id(send.channel.id.clone());
    let reply = api.node.ask(target, Request::Send(Box::new(send))).await;
    let Reply::Sent { message_id, code, .. } = reply else {
        return Err(Refusal::by(&reply, ""));
    };
    if code == Code::SystemError {
        return Err(Refusal::Failed(Failure::Busy));
    }
    Ok(message_id)
}

body! {
    /// POST /message/sendbatch.
    SendBatchBody {
        header: HeaderBody,
        from_uid: String,
        subscribers: Vec<String>,
        payload: Bytes,
    }
}

#[derive(Default, Serialize)]
struct BatchJson<'a> {
    fail_uids: Vec<&'a str>,
    reason: Vec<String>,
}

/// POST /message/sendbatch: one person message per uid. Blank uids are left out.
pub(crate) async fn send_batch<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let body: &SendBatchBody = &read(&call.body)?;
    if is_blank(&body.from_uid) {
        return Err(Refusal::Rule("from_uid不能为空！"));
    }
    if body.subscribers.is_empty() {
        return Err(Refusal::Rule("subscribers不能为空！"));
    }
    if body.payload.is_empty() {
        return Err(NO_PAYLOAD);
    }
    api.settings.check_uid("from_uid", &body.from_uid)?;
    api.settings.check_count("subscribers", body.subscribers.len())?;
    let mut failed = BatchJson::default();
    for window in body.subscribers.chunks(BATCH_WINDOW) {
        let sent = window
            .iter()
            .filter(|uid| !is_blank(uid))
            .map(|uid| async move { (uid, send_to_person(api, body, uid).await) });
        for (uid, outcome) in join_all(sent).await {
            if let Err(refusal) = outcome {
                failed.fail_uids.push(uid);
                failed.reason.push(refusal.to_string());
            }
        }
    }
    Ok(value(&failed))
}

async fn send_to_person<N: Node>(
    api: &Api<N>,
    body: &SendBatchBody,
    uid: &str,
) -> Result<i64, Refusal> {
    if has_special_char(uid) {
        return Err(Refusal::Rule(BAD_CHANNEL));
    }
    api.settings.check_uid("subscriber", uid)?;
    let channel = send_channel(&body.from_uid, uid, kind::PERSON, body.header.is_command());
    ask(
        api,
        ApiSend {
            shown: channel.command_base().map(|_| uid.into()),
            channel,
            from: body.from_uid.as_str().into(),
            client_msg_no: fresh_number(api),
            flags: body.header.flags(),
            setting: 0,
            expire: 0,
            recipients: None,
            payload: body.payload.clone(),
        },
    )
    .await
}

#[cfg(test)]
mod tests;
