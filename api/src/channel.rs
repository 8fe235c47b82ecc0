//! Channels and their flags: /channel, /channel/info, /channel/delete (http-api.md §7.1–7.3).

use jindou_core::{
    channel_info::{ChannelInfo, kind},
    id::{ChannelId, has_special_char},
    request::{Request, Target},
};

use crate::{
    answer::{Answer, Refusal, done},
    api::{Api, Call},
    ids::{is_blank, without_blanks},
    json::{body, read},
    node::Node,
};

body! {
    /// POST /channel.
    ChannelBody {
        channel_id: String,
        channel_type: u8,
        large: i64,
        ban: i64,
        disband: i64,
        send_ban: i64,
        allow_stranger: i64,
        reset: i64,
        subscribers: Vec<String>,
    }
}

body! {
    /// POST /channel/info.
    InfoBody {
        channel_id: String,
        channel_type: u8,
        large: i64,
        ban: i64,
        disband: i64,
        send_ban: i64,
        allow_stranger: i64,
    }
}

body! {
    /// POST /channel/delete.
    DeleteBody { channel_id: String, channel_type: u8, }
}

/// POST /channel: creates or updates a channel, with members.
pub(crate) async fn create<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let body: ChannelBody = read(&call.body).map_err(Refusal::Format)?;
    if is_blank(&body.channel_id) {
        return Err(Refusal::Rule("频道ID不能为空！"));
    }
    if body.channel_type == 0 {
        return Err(Refusal::Rule("频道类型错误！"));
    }
    if has_special_char(&body.channel_id) {
        return Err(Refusal::Rule("频道ID不能包含特殊字符！"));
    }
    if body.channel_type == kind::PERSON && !body.subscribers.is_empty() {
        return Err(Refusal::Rule("不支持个人频道添加订阅者！"));
    }
    api.settings.check_channel(&body.channel_id, body.channel_type)?;
    api.settings.check_uids("subscriber", &body.subscribers)?;
    let channel = ChannelId::new(body.channel_id, body.channel_type);
    let request = Request::WriteChannel {
        channel: channel.clone(),
        info: Some(ChannelInfo {
            large: body.large == 1,
            ban: body.ban == 1,
            disband: body.disband == 1,
            send_ban: body.send_ban == 1,
            allow_stranger: body.allow_stranger == 1,
        }),
        reset: body.reset == 1,
        members: without_blanks(&body.subscribers),
    };
    let reply = api.node.ask(Target::Id(channel.id), request).await;
    done(&reply, "创建或更新频道失败")
}

/// POST /channel/info: creates or updates the flags only. No id is refused, the empty one neither.
pub(crate) async fn info<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let body: InfoBody = read(&call.body).map_err(|_| Refusal::Rule("数据格式有误！"))?;
    api.settings.check_channel(&body.channel_id, body.channel_type)?;
    let channel = ChannelId::new(body.channel_id, body.channel_type);
    let request = Request::WriteChannel {
        channel: channel.clone(),
        info: Some(ChannelInfo {
            large: body.large == 1,
            ban: body.ban == 1,
            disband: body.disband == 1,
            send_ban: body.send_ban == 1,
            allow_stranger: body.allow_stranger == 1,
        }),
        reset: false,
        members: Vec::new(),
    };
    let reply = api.node.ask(Target::Id(channel.id), request).await;
    done(&reply, "添加或更新频道信息失败！")
}

/// POST /channel/delete: sets the disband flag of an existing channel; everything else stays.
pub(crate) async fn delete<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let body: DeleteBody = read(&call.body).map_err(Refusal::Format)?;
    if body.channel_type == kind::PERSON {
        return Err(Refusal::Rule("个人频道不支持添加订阅者！"));
    }
    api.settings.check_channel(&body.channel_id, body.channel_type)?;
    let channel = ChannelId::new(body.channel_id, body.channel_type);
    let request = Request::Disband { channel: channel.clone() };
    let reply = api.node.ask(Target::Id(channel.id), request).await;
    done(&reply, "更新频道信息失败！")
}

#[cfg(test)]
mod tests;
