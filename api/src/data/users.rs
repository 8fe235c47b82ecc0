//! /cluster/users and /cluster/devices (http-api.md §17.4).

use std::collections::{BTreeMap, BTreeSet};

use futures::future::join_all;
use jindou_core::{
    id::{Name, SlotId},
    request::{Reply, Request, Target},
    scan::{DeviceSummary, Scan, ScanOf, ScanRows, UserSummary},
};
use serde::Serialize;

use super::{
    format::{TimesJson, row_id},
    page::{self, ByTime, Dated, Page, PageJson},
    scan,
};
use crate::{
    answer::{Answer, Refusal, value},
    api::{Api, Call},
    node::Node,
};

/// What stands for a token: never the token itself (operations.md §3.14).
const HIDDEN_TOKEN: &str = "******";

impl Dated for UserSummary {
    fn pick(rows: ScanRows) -> Option<Vec<Self>> {
        if let ScanRows::Users(users) = rows { Some(users) } else { None }
    }

    fn created_ns(&self) -> i64 {
        self.times.created_ns
    }
}

impl Dated for DeviceSummary {
    fn pick(rows: ScanRows) -> Option<Vec<Self>> {
        if let ScanRows::Devices(devices) = rows { Some(devices) } else { None }
    }

    fn created_ns(&self) -> i64 {
        self.times.created_ns
    }
}

/// Messages and bytes of a user or device. A connection counts its own (/connz); nothing is kept
/// after it, as v2 keeps nothing.
#[derive(Default, Serialize)]
struct TrafficJson {
    conn_count: usize,
    send_msg_count: u64,
    recv_msg_count: u64,
    send_msg_bytes: u64,
    recv_msg_bytes: u64,
}

#[derive(Serialize)]
struct UserJson {
    id: u64,
    uid: Name,
    device_count: u64,
    online_device_count: usize,
    #[serde(flatten)]
    traffic: TrafficJson,
    #[serde(flatten)]
    times: TimesJson,
    slot: u16,
}

#[derive(Serialize)]
struct DeviceJson {
    id: u64,
    uid: Name,
    token: &'static str,
    device_flag: u8,
    device_flag_format: &'static str,
    device_level: u8,
    device_level_format: &'static str,
    #[serde(flatten)]
    traffic: TrafficJson,
    #[serde(flatten)]
    times: TimesJson,
}

/// The page of a query over all users: one user's rows, or by time.
async fn found<N: Node, T: Dated>(
    api: &Api<N>,
    call: &Call,
    of_user: impl FnOnce(Name) -> ScanOf,
    of_all: impl Fn(jindou_core::scan::Made) -> ScanOf,
) -> Result<Page<T>, Refusal> {
    let uid = call.query.text("uid").trim();
    if uid.is_empty() {
        return page::by_time(api, &page::slots(api), ByTime::read(call), of_all).await;
    }
    api.settings.check_uid("uid", uid)?;
    let slot = api.node.slot_of(uid);
    let request = Scan { slot, what: of_user(uid.into()), after: None, count_max: 256 };
    let rows = T::pick(scan(api, request).await?.rows).ok_or(Refusal::Confused)?;
    Ok(Page { rows, more: false, errors: Vec::new() })
}

/// The device flags of each connection of these users. Who can't be asked counts as offline.
async fn online<'a, N: Node>(
    api: &Api<N>,
    uids: impl Iterator<Item = &'a Name>,
) -> BTreeMap<Name, Vec<u8>> {
    let mut by_slot: BTreeMap<SlotId, BTreeSet<Name>> = BTreeMap::new();
    for uid in uids {
        by_slot.entry(api.node.slot_of(uid)).or_default().insert(uid.clone());
    }
    let asked = by_slot.into_iter().map(|(slot, uids)| {
        let uids = uids.into_iter().collect();
        api.node.ask(Target::Slot(slot), Request::Online { uids })
    });
    let mut flags: BTreeMap<Name, Vec<u8>> = BTreeMap::new();
    for reply in join_all(asked).await {
        if let Reply::Online(items) = reply {
            for item in items {
                flags.entry(item.uid).or_default().push(item.device_flag);
            }
        }
    }
    flags
}

/// GET /cluster/users.
pub(super) async fn users<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let one = |uid| ScanOf::User { uid };
    let all = |made| ScanOf::Users { made };
    let Page { rows, more, errors } = found::<_, UserSummary>(api, call, one, all).await?;
    let online = online(api, rows.iter().map(|user| &user.uid)).await;
    let data = rows.into_iter().map(|user| {
        let flags = online.get(&user.uid).map_or(&[][..], Vec::as_slice);
        UserJson {
            id: row_id(&[user.uid.as_bytes()]),
            device_count: user.device_count,
            online_device_count: flags.iter().collect::<BTreeSet<_>>().len(),
            traffic: TrafficJson { conn_count: flags.len(), ..TrafficJson::default() },
            times: TimesJson::new(user.times, api.settings.utc_offset_seconds),
            slot: api.node.slot_of(&user.uid).0,
            uid: user.uid,
        }
    });
    Ok(value(&PageJson::new(data.collect(), more, errors)))
}

/// GET /cluster/devices.
pub(super) async fn devices<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    // v2 takes 0 (an app) for "any".
    let flag = call.query.unsigned("device_flag");
    let device_flag = u8::try_from(flag).ok().filter(|flag| *flag > 0);
    let one = |uid| ScanOf::DevicesOf { uid, device_flag };
    let all = |made| ScanOf::Devices { made, device_flag };
    let Page { rows, more, errors } = found::<_, DeviceSummary>(api, call, one, all).await?;
    let online = online(api, rows.iter().map(|device| &device.uid)).await;
    let data = rows.into_iter().map(|device| {
        let flags = online.get(&device.uid).map_or(&[][..], Vec::as_slice);
        let conn_count = flags.iter().filter(|flag| **flag == device.device_flag).count();
        DeviceJson {
            id: row_id(&[&[device.device_flag], device.uid.as_bytes()]),
            token: if device.has_token { HIDDEN_TOKEN } else { "" },
            device_flag: device.device_flag,
            device_flag_format: match device.device_flag {
                0 => "APP",
                1 => "WEB",
                2 => "PC",
                99 => "SYSTEM",
                _ => "未知",
            },
            device_level: device.level,
            device_level_format: if device.level == 1 { "主设备" } else { "从设备" },
            traffic: TrafficJson { conn_count, ..TrafficJson::default() },
            times: TimesJson::new(device.times, api.settings.utc_offset_seconds),
            uid: device.uid,
        }
    });
    Ok(value(&PageJson::new(data.collect(), more, errors)))
}
