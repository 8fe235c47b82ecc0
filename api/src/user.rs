//! Users: tokens, devices and presence (http-api.md §5).

use std::collections::BTreeMap;

use futures::future::join_all;
use jindou_core::{
    id::{Name, SYSTEM_UID, SlotId, has_special_char},
    request::{Reply, Request, Target},
};
use serde::Serialize;

use crate::{
    answer::{Answer, Refusal, done, ok, value},
    api::{Api, Call},
    ids::{check_text, is_blank},
    json::{body, read},
    node::Node,
};

body! {
    /// POST /user/token.
    TokenBody { uid: String, token: String, device_flag: u8, device_level: u8, }
}

/// POST /user/token: registers a device's token and level, or updates them.
pub(crate) async fn token<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let body: TokenBody = read(&call.body)?;
    if body.uid.is_empty() {
        return Err(Refusal::Rule("uid不能为空！"));
    }
    if body.token.is_empty() {
        return Err(Refusal::Rule("token不能为空！"));
    }
    if has_special_char(&body.uid) {
        return Err(Refusal::Rule("uid不能包含特殊字符！"));
    }
    if body.uid == SYSTEM_UID {
        return Err(Refusal::Rule("系统账号不允许更新token！"));
    }
    api.settings.check_uid("uid", &body.uid)?;
    check_text("token", &body.token)?;
    let uid = Name::from(body.uid);
    let request = Request::SetToken {
        uid: uid.clone(),
        device_flag: body.device_flag,
        device_level: body.device_level,
        token: body.token,
    };
    done(&api.node.ask(Target::Id(uid), request).await, "")
}

body! {
    /// POST /user/device_quit.
    DeviceQuitBody { uid: String, device_flag: i64, }
}

/// POST /user/device_quit: forgets tokens and ends the connections of their devices.
pub(crate) async fn device_quit<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let body: DeviceQuitBody = read(&call.body)?;
    if body.uid.is_empty() {
        return Err(Refusal::Rule("uid不能为空！"));
    }
    api.settings.check_uid("uid", &body.uid)?;
    let device_flags = match (body.device_flag, u8::try_from(body.device_flag)) {
        (-1, _) => vec![0, 1, 2],
        (_, Ok(flag)) => vec![flag],
        // No device has such a flag.
        (_, Err(_)) => return Ok(ok()),
    };
    let uid = Name::from(body.uid);
    let request = Request::QuitDevices { uid: uid.clone(), device_flags };
    done(&api.node.ask(Target::Id(uid), request).await, "")
}

#[derive(Serialize)]
struct OnlineJson<'a> {
    uid: &'a str,
    device_flag: u8,
    online: u8,
}

/// POST /user/onlinestatus: one item per connection of each uid, in the order of the question.
pub(crate) async fn online_status<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let uids: Vec<String> = read(&call.body)?;
    if uids.is_empty() {
        return Ok(ok());
    }
    api.settings.check_uids("uid", &uids)?;
    let mut by_slot: BTreeMap<SlotId, Vec<Name>> = BTreeMap::new();
    let mut flags: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    for uid in uids.iter().filter(|uid| !is_blank(uid)) {
        if flags.insert(uid, Vec::new()).is_none() {
            let slot = api.node.slot_of(uid);
            by_slot.entry(slot).or_default().push(uid.as_str().into());
        }
    }
    let asked = by_slot
        .into_iter()
        .map(|(slot, uids)| api.node.ask(Target::Slot(slot), Request::Online { uids }));
    for reply in join_all(asked).await {
        let Reply::Online(items) = reply else {
            return Err(Refusal::by(&reply, ""));
        };
        for item in items {
            if let Some(flags) = flags.get_mut(&*item.uid) {
                flags.push(item.device_flag);
            }
        }
    }
    let list: Vec<OnlineJson<'_>> = uids
        .iter()
        .filter_map(|uid| Some((uid, flags.get(uid.as_str())?)))
        .flat_map(|(uid, flags)| {
            flags.iter().map(|flag| OnlineJson { uid, device_flag: *flag, online: 1 })
        })
        .collect();
    Ok(value(&list))
}

#[cfg(test)]
mod tests;
