//! The lists of a channel: members, deny list (blacklist), allow list (whitelist) (http-api.md
//! §7.4–7.10). Blank uids are dropped before anything is asked.

use jindou_core::{
    channel_info::{List, ListChange, kind},
    id::{ChannelId, Name, has_special_char},
    request::{Reply, Request, Target},
};
use serde::Serialize;

use crate::{
    answer::{Answer, Refusal, done, value},
    api::{Api, Call},
    ids::{fnv1a_64, is_blank, without_blanks},
    json::{body, read},
    node::Node,
    time::rfc3339,
};

body! {
    /// POST /channel/subscriber_add, _remove and _remove_all.
    SubscriberBody {
        channel_id: String,
        channel_type: u8,
        subscribers: Vec<String>,
        reset: i64,
        temp_subscriber: i64,
    }
}

body! {
    /// POST /channel/blacklist_* and /channel/whitelist_*.
    ListBody { channel_id: String, channel_type: u8, uids: Vec<String>, }
}

body! {
    /// The routes that empty a list.
    ClearBody { channel_id: String, channel_type: u8, }
}

body! {
    /// POST /tmpchannel/subscriber_set.
    RecipientsBody { channel_id: String, uids: Vec<String>, }
}

/// POST /tmpchannel/subscriber_set: who gets the messages of a temporary channel from now on. They
/// don't belong to it, so they can't write to it.
pub(crate) async fn set_recipients<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let body: RecipientsBody = read(&call.body).map_err(Refusal::Format)?;
    if is_blank(&body.channel_id) {
        return Err(Refusal::Rule("channel_id不能为空！"));
    }
    if has_special_char(&body.channel_id) {
        return Err(Refusal::Rule("频道ID不能包含特殊字符！"));
    }
    let uids = without_blanks(&body.uids);
    if uids.is_empty() {
        return Err(Refusal::Rule("uids不能为空！"));
    }
    api.settings.check_channel(&body.channel_id, kind::TEMP)?;
    api.settings.check_uids("uid", &body.uids)?;
    let channel = ChannelId::new(body.channel_id, kind::TEMP);
    change(api, channel, List::Recipients, ListChange::Set, uids, "").await
}

/// Reads the body of subscriber_add and subscriber_remove; the members that aren't blank.
fn subscribers<N: Node>(api: &Api<N>, call: &Call) -> Result<(SubscriberBody, Vec<Name>), Refusal> {
    let body: SubscriberBody = read(&call.body).map_err(Refusal::Format)?;
    if is_blank(&body.channel_id) {
        return Err(Refusal::Rule("频道ID不能为空！"));
    }
    if has_special_char(&body.channel_id) {
        return Err(Refusal::Rule("频道ID不能包含特殊字符！"));
    }
    let members = without_blanks(&body.subscribers);
    if members.is_empty() {
        return Err(Refusal::Rule("订阅者不能为空！"));
    }
    if body.channel_type == kind::PERSON {
        return Err(Refusal::Rule("个人频道不支持添加订阅者！"));
    }
    api.settings.check_channel(&body.channel_id, body.channel_type)?;
    api.settings.check_uids("subscriber", &body.subscribers)?;
    Ok((body, members))
}

/// POST /channel/subscriber_add: adds members, makes the channel if there is none.
pub(crate) async fn subscriber_add<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let (body, members) = subscribers(api, call)?;
    if body.temp_subscriber == 1 {
        return Err(Refusal::Rule("新版本临时订阅者已不支持！"));
    }
    let channel_kind = if body.channel_type == 0 { kind::GROUP } else { body.channel_type };
    let channel = ChannelId::new(body.channel_id, channel_kind);
    let request = Request::WriteChannel {
        channel: channel.clone(),
        info: None,
        reset: body.reset == 1,
        members,
    };
    let reply = api.node.ask(Target::Id(channel.id), request).await;
    done(&reply, "添加频道失败！")
}

/// POST /channel/subscriber_remove.
pub(crate) async fn subscriber_remove<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let (body, uids) = subscribers(api, call)?;
    let channel = ChannelId::new(body.channel_id, body.channel_type);
    change(api, channel, List::Members, ListChange::Remove, uids, "").await
}

/// POST /channel/subscriber_remove_all.
pub(crate) async fn subscriber_remove_all<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let body: ClearBody = read(&call.body).map_err(Refusal::Format)?;
    check_typed(&body.channel_id, body.channel_type)?;
    if body.channel_type == kind::PERSON {
        return Err(Refusal::Rule("个人频道不支持此操作！"));
    }
    api.settings.check_channel(&body.channel_id, body.channel_type)?;
    let channel = ChannelId::new(body.channel_id, body.channel_type);
    let storage = "移除所有订阅者失败！";
    change(api, channel, List::Members, ListChange::Clear, Vec::new(), storage).await
}

/// POST /channel/blacklist_add, _set, _remove and _remove_all.
pub(crate) async fn blacklist<N: Node>(api: &Api<N>, call: &Call, how: ListChange) -> Answer {
    let (channel, uids) = list_body(api, call, how, false)?;
    let storage = if how == ListChange::Clear { "移除所有黑名单失败！" } else { "" };
    change(api, channel, List::Deny, how, uids, storage).await
}

/// POST /channel/whitelist_add, _set, _remove and _remove_all.
pub(crate) async fn whitelist<N: Node>(api: &Api<N>, call: &Call, how: ListChange) -> Answer {
    let (channel, uids) = list_body(api, call, how, true)?;
    let storage = if how == ListChange::Clear { "移除所有白名单失败！" } else { "" };
    change(api, channel, List::Allow, how, uids, storage).await
}

/// Reads and checks a body of the blacklist and whitelist routes. Only the whitelist's add and
/// remove refuse special characters.
fn list_body<N: Node>(
    api: &Api<N>,
    call: &Call,
    how: ListChange,
    is_whitelist: bool,
) -> Result<(ChannelId, Vec<Name>), Refusal> {
    let (channel_id, channel_type, uids) = match how {
        ListChange::Clear => {
            let body: ClearBody = read(&call.body)?;
            check_typed(&body.channel_id, body.channel_type)?;
            (body.channel_id, body.channel_type, Vec::new())
        }
        ListChange::Set => {
            let body: ListBody = read(&call.body)?;
            if is_blank(&body.channel_id) {
                return Err(Refusal::Rule("频道ID不能为空！"));
            }
            (body.channel_id, body.channel_type, body.uids)
        }
        ListChange::Add | ListChange::Remove => {
            let body: ListBody = read(&call.body)?;
            if body.channel_id.is_empty() {
                return Err(Refusal::Rule("channel_id不能为空！"));
            }
            if is_whitelist && has_special_char(&body.channel_id) {
                return Err(Refusal::Rule("频道ID不能包含特殊字符！"));
            }
            check_typed(&body.channel_id, body.channel_type)?;
            if body.uids.iter().all(|uid| is_blank(uid)) {
                return Err(Refusal::Rule("uids不能为空！"));
            }
            (body.channel_id, body.channel_type, body.uids)
        }
    };
    api.settings.check_channel(&channel_id, channel_type)?;
    api.settings.check_uids("uid", &uids)?;
    Ok((ChannelId::new(channel_id, channel_type), without_blanks(&uids)))
}

/// The checks of most list routes.
fn check_typed(channel_id: &str, channel_type: u8) -> Result<(), Refusal> {
    if channel_id.is_empty() {
        return Err(Refusal::Rule("channel_id不能为空！"));
    }
    if channel_type == 0 {
        return Err(Refusal::Rule("频道类型不能为0！"));
    }
    Ok(())
}

async fn change<N: Node>(
    api: &Api<N>,
    channel: ChannelId,
    list: List,
    change: ListChange,
    uids: Vec<Name>,
    storage: &'static str,
) -> Answer {
    let request = Request::ChangeList { channel: channel.clone(), list, change, uids };
    done(&api.node.ask(Target::Id(channel.id), request).await, storage)
}

#[derive(Serialize)]
struct ItemJson {
    id: u64,
    uid: Name,
    created_at: String,
    updated_at: String,
}

/// GET /channel/whitelist: the allow list, as objects.
pub(crate) async fn read_whitelist<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let id = call.query.text("channel_id");
    let channel = ChannelId::new(id, call.query.kind("channel_type"));
    api.settings.check_channel(id, channel.kind)?;
    let request = Request::ReadList { channel: channel.clone(), list: List::Allow };
    let reply = api.node.ask(Target::Id(channel.id), request).await;
    let Reply::List(items) = reply else {
        return Err(Refusal::by(&reply, ""));
    };
    let list: Vec<ItemJson> = items
        .into_iter()
        .map(|(uid, added_ms)| {
            let added = rfc3339(added_ms, api.settings.utc_offset_seconds);
            ItemJson {
                // v2 shows a row id made from the uid; nothing takes it as input.
                id: fnv1a_64(uid.as_bytes()).max(1),
                uid,
                created_at: added.clone(),
                updated_at: added,
            }
        })
        .collect();
    Ok(value(&list))
}

#[cfg(test)]
mod tests;
