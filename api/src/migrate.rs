//! /migrate/*: what `jindou import` writes here of what another server has (docs/import.md), and
//! GET /migrate/result, which is v2's (http-api.md §14). Writing is for managers with the right
//! `import`.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::future::join_all;
use jindou_core::{
    channel_info::List,
    entry::ChannelRef,
    id::{Name, SYSTEM_UID},
    import::{Import, ImportedConversation, ImportedMessage},
    message::flag,
    request::{Reply, Request, Target},
};
use serde::Serialize;

use crate::{
    answer::{Answer, Refusal, ok, value},
    api::{Api, Call},
    ids::{check_text, is_blank, without_blanks},
    json::{body, read},
    message::HeaderBody,
    node::Node,
};

/// How many pieces of one request are under way at once.
const PIECES_AT_ONCE: usize = 64;

/// The highest seq that a conversation may name.
const SEQ_MAX: u64 = u64::MAX >> 1;

#[derive(Serialize)]
struct ResultJson {
    status: &'static str,
    step: &'static str,
    last_err: Option<()>,
    try_count: u64,
}

body! {
    /// A message that has its place already, in the form in which histories show it.
    PlacedBody {
        header: HeaderBody,
        setting: u8,
        message_id: i64,
        client_msg_no: String,
        message_seq: u64,
        from_uid: String,
        topic: String,
        expire: u32,
        timestamp: i64,
        payload: Bytes,
    }
}

body! {
    /// POST /migrate/messages. The channel by its stored id.
    ImportMessagesBody { channel_id: String, channel_type: u8, messages: Vec<PlacedBody>, }
}

body! {
    /// A conversation, the channel by its stored id. Times are Unix seconds.
    ConversationRowBody {
        uid: String,
        channel_id: String,
        channel_type: u8,
        readed_to_msg_seq: u64,
        deleted_to_msg_seq: u64,
        created_at: i64,
        updated_at: i64,
    }
}

body! {
    /// POST /migrate/conversations.
    ImportConversationsBody { conversations: Vec<ConversationRowBody>, }
}

body! {
    /// POST /migrate/conversations/read.
    ReadConversationsBody { uids: Vec<String>, }
}

body! {
    /// A device of a user.
    DeviceBody { uid: String, device_flag: u8, device_level: u8, token: String, }
}

body! {
    /// POST /migrate/devices.
    ImportDevicesBody { devices: Vec<DeviceBody>, }
}

body! {
    /// POST /migrate/list. `list`: subscribers, denylist or allowlist.
    ImportListBody { channel_id: String, channel_type: u8, list: String, uids: Vec<String>, }
}

/// What to write, or to read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ImportRoute {
    Messages,
    Conversations,
    ReadConversations,
    Devices,
    List,
}

/// GET /migrate/result: nothing is imported from a v1 server: v2 says `running` then too.
pub(crate) fn result() -> Answer {
    Ok(value(&ResultJson { status: "running", step: "message", last_err: None, try_count: 0 }))
}

/// Answers a route that writes.
pub(crate) async fn answer<N: Node>(api: &Api<N>, call: &Call, route: ImportRoute) -> Answer {
    match route {
        ImportRoute::Messages => messages(api, call).await,
        ImportRoute::Conversations => conversations(api, call).await,
        ImportRoute::ReadConversations => read_conversations(api, call).await,
        ImportRoute::Devices => devices(api, call).await,
        ImportRoute::List => list(api, call).await,
    }
}

fn uid_of<N: Node>(api: &Api<N>, uid: &str) -> Result<Name, Refusal> {
    if is_blank(uid) {
        return Err(Refusal::Rule("uid不能为空！"));
    }
    api.settings.check_uid("uid", uid)?;
    Ok(uid.into())
}

fn channel_of<N: Node>(api: &Api<N>, id: &str, kind: u8) -> Result<ChannelRef, Refusal> {
    if is_blank(id) {
        return Err(Refusal::Rule("channel_id不能为空！"));
    }
    // A person channel's stored id holds two uids.
    api.settings.check_channel(id, if id.contains('@') { 0 } else { kind })?;
    Ok(ChannelRef { id: id.into(), kind })
}

async fn write<N: Node>(api: &Api<N>, piece: Import) -> Result<Reply, Refusal> {
    let target = Target::Id(piece.id().clone());
    let reply = api.node.ask(target, Request::Import(Box::new(piece))).await;
    if matches!(reply, Reply::Done | Reply::LastSeq(_)) {
        Ok(reply)
    } else {
        Err(Refusal::by(&reply, ""))
    }
}

/// Writes pieces, some at once; the first that fails is told. Writing again what was written
/// changes nothing.
async fn write_all<N: Node>(api: &Api<N>, pieces: Vec<Import>) -> Answer {
    let mut pieces = pieces.into_iter();
    loop {
        let wave: Vec<Import> = pieces.by_ref().take(PIECES_AT_ONCE).collect();
        if wave.is_empty() {
            return Ok(ok());
        }
        for written in join_all(wave.into_iter().map(|piece| write(api, piece))).await {
            written?;
        }
    }
}

/// POST /migrate/messages → the last seq that the channel has then.
async fn messages<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    #[derive(Serialize)]
    struct LastJson {
        last_message_seq: u64,
    }

    let body: ImportMessagesBody = read(&call.body)?;
    let channel = channel_of(api, &body.channel_id, body.channel_type)?;
    let messages = body.messages.into_iter().map(|message| placed(api, message));
    let messages = messages.collect::<Result<Vec<_>, _>>()?;
    let reply = write(api, Import::Messages { channel, messages }).await?;
    let Reply::LastSeq(last_message_seq) = reply else { return Err(Refusal::Confused) };
    Ok(value(&LastJson { last_message_seq }))
}

fn placed<N: Node>(api: &Api<N>, body: PlacedBody) -> Result<ImportedMessage, Refusal> {
    if body.message_seq == 0 || body.message_id <= 0 {
        return Err(Refusal::Rule("message_id and message_seq is required"));
    }
    check_time(body.timestamp)?;
    api.settings.check_uid("from_uid", &body.from_uid)?;
    check_text("client_msg_no", &body.client_msg_no)?;
    check_text("topic", &body.topic)?;
    // Histories show messages of the system without a sender.
    let from = if body.from_uid.is_empty() { SYSTEM_UID } else { &body.from_uid };
    Ok(ImportedMessage {
        seq: body.message_seq,
        id: body.message_id,
        timestamp: body.timestamp,
        from: from.into(),
        client_msg_no: body.client_msg_no.into(),
        // What is stored is stored, whatever it said of itself.
        flags: body.header.flags() & !flag::NO_PERSIST,
        setting: body.setting,
        expire: body.expire,
        topic: body.topic.into(),
        payload: body.payload,
    })
}

/// Times are as v2 has them, in 32 bits.
fn check_time(seconds: i64) -> Result<(), Refusal> {
    let fits = u32::try_from(seconds).is_ok();
    if fits { Ok(()) } else { Err(Refusal::Rule("a time is no Unix seconds")) }
}

/// POST /migrate/conversations.
async fn conversations<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let body: ImportConversationsBody = read(&call.body)?;
    api.settings.check_count("conversations", body.conversations.len())?;
    let mut by_user: BTreeMap<Name, Vec<ImportedConversation>> = BTreeMap::new();
    for row in body.conversations {
        let uid = uid_of(api, &row.uid)?;
        check_time(row.created_at)?;
        check_time(row.updated_at)?;
        if row.readed_to_msg_seq.max(row.deleted_to_msg_seq) > SEQ_MAX {
            return Err(Refusal::Rule("a seq is too large"));
        }
        by_user.entry(uid).or_default().push(ImportedConversation {
            channel: channel_of(api, &row.channel_id, row.channel_type)?,
            read_to: row.readed_to_msg_seq,
            deleted_to: row.deleted_to_msg_seq,
            created_ms: row.created_at.saturating_mul(1000),
            updated_ms: row.updated_at.saturating_mul(1000),
        });
    }
    let pieces = by_user.into_iter().map(|(uid, rows)| Import::Conversations { uid, rows });
    write_all(api, pieces.collect()).await
}

/// POST /migrate/conversations/read: the rows of users as they are stored, by user and channel.
async fn read_conversations<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    #[derive(Serialize)]
    struct RowJson {
        uid: Name,
        channel_id: Name,
        channel_type: u8,
        readed_to_msg_seq: u64,
        deleted_to_msg_seq: u64,
        created_at: i64,
        updated_at: i64,
    }

    let body: ReadConversationsBody = read(&call.body)?;
    api.settings.check_count("uids", body.uids.len())?;
    let uids = body.uids.iter().map(|uid| uid_of(api, uid)).collect::<Result<Vec<_>, _>>()?;
    let mut rows = Vec::new();
    for wave in uids.chunks(PIECES_AT_ONCE) {
        let asked = wave.iter().map(|uid| {
            api.node.ask(Target::Id(uid.clone()), Request::Conversations { uid: uid.clone() })
        });
        for (uid, reply) in wave.iter().zip(join_all(asked).await) {
            let Reply::Conversations(mut found) = reply else {
                return Err(Refusal::by(&reply, ""));
            };
            found.sort_by(|(a, _), (b, _)| a.cmp(b));
            rows.extend(found.into_iter().map(|(channel, row)| RowJson {
                uid: uid.clone(),
                channel_id: channel.id,
                channel_type: channel.kind,
                readed_to_msg_seq: row.read_to,
                deleted_to_msg_seq: row.deleted_to,
                created_at: row.created_ms.div_euclid(1000),
                updated_at: row.updated_ms.div_euclid(1000),
            }));
        }
    }
    Ok(value(&rows))
}

/// POST /migrate/devices.
async fn devices<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let body: ImportDevicesBody = read(&call.body)?;
    api.settings.check_count("devices", body.devices.len())?;
    let piece = |device: DeviceBody| {
        check_text("token", &device.token)?;
        Ok(Import::Device {
            uid: uid_of(api, &device.uid)?,
            device_flag: device.device_flag,
            device_level: device.device_level,
            token: device.token,
        })
    };
    let pieces = body.devices.into_iter().map(piece).collect::<Result<Vec<_>, Refusal>>()?;
    write_all(api, pieces).await
}

/// POST /migrate/list.
async fn list<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let body: ImportListBody = read(&call.body)?;
    let channel = channel_of(api, &body.channel_id, body.channel_type)?;
    let list = match body.list.as_str() {
        "subscribers" => List::Members,
        "denylist" => List::Deny,
        "allowlist" => List::Allow,
        _ => return Err(Refusal::Rule("list is subscribers, denylist or allowlist")),
    };
    api.settings.check_uids("uid", &body.uids)?;
    let uids = without_blanks(&body.uids);
    write(api, Import::List { channel, list, uids }).await?;
    Ok(ok())
}

#[cfg(test)]
mod tests;
