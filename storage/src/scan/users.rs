//! Users and their devices.

use jindou_core::{
    id::Name,
    row::{Dated, Device},
    scan::{DeviceSummary, Made, ScanPage, ScanRows, UserSummary},
};

use super::{Budget, KeyRange, Page, Result, cursor, together};
use crate::{
    error::StorageError,
    keyspace::{
        Table,
        dated::{self, Kind},
        device,
    },
};

/// Users by when their first device came.
pub(super) fn page(page: &Page<'_>, made: Made, mut budget: Budget) -> Result<ScanPage> {
    let mut users = Vec::new();
    let mut last = None;
    let mut next = None;
    for key in page.dated(Kind::User, made)? {
        let key = key?;
        if !budget.may_look() {
            next = last;
            break;
        }
        budget.look(1);
        let (_, Dated::User(uid), created_ns) = dated::parse_key(&key)? else {
            return Err(StorageError::corrupt(dated::NAME, "key"));
        };
        if let Some(mut user) = user(page, uid)? {
            // Pages are turned by it.
            user.times.created_ns = created_ns;
            if !budget.take(user.uid.len() + 64) {
                next = last;
                break;
            }
            users.push(user);
        }
        last = Some(key);
    }
    Ok(ScanPage { rows: ScanRows::Users(users), next: next.and_then(|key| cursor(&key)) })
}

/// One user.
pub(super) fn one(page: &Page<'_>, uid: &Name) -> Result<ScanPage> {
    let users = user(page, uid.clone())?.into_iter().collect();
    Ok(ScanPage { rows: ScanRows::Users(users), next: None })
}

fn user(page: &Page<'_>, uid: Name) -> Result<Option<UserSummary>> {
    let devices = all_devices(page, &uid)?;
    if devices.is_empty() {
        return Ok(None);
    }
    let times = together(devices.iter().map(|(_, device)| device.times));
    let device_count = u64::try_from(devices.len()).unwrap_or(u64::MAX);
    Ok(Some(UserSummary { uid, times, device_count }))
}

/// There are not more than 256.
fn all_devices(page: &Page<'_>, uid: &str) -> Result<Vec<(u8, Device)>> {
    let range = KeyRange::of(&device::prefix(page.slot, uid)?);
    page.source
        .rows(Table::Device, range)
        .map(|row| {
            let (key, value) = row?;
            let (_, _, flag) = device::parse_key(&key)?;
            Ok((flag, device::decode(&value)?))
        })
        .collect()
}

fn shown(uid: Name, device_flag: u8, device: &Device) -> DeviceSummary {
    DeviceSummary {
        uid,
        device_flag,
        level: device.level,
        has_token: !device.token.is_empty(),
        times: device.times,
    }
}

/// Devices by when they were registered.
pub(super) fn devices(
    page: &Page<'_>,
    made: Made,
    only: Option<u8>,
    mut budget: Budget,
) -> Result<ScanPage> {
    let mut devices = Vec::new();
    let mut last = None;
    let mut next = None;
    for key in page.dated(Kind::Device, made)? {
        let key = key?;
        if !budget.may_look() {
            next = last;
            break;
        }
        budget.look(1);
        let (_, Dated::Device(uid, flag), created_ns) = dated::parse_key(&key)? else {
            return Err(StorageError::corrupt(dated::NAME, "key"));
        };
        if only.is_none_or(|only| only == flag)
            && let Some(row) =
                page.source.value(Table::Device, &device::key(page.slot, &uid, flag)?)?
        {
            if !budget.take(uid.len() + 64) {
                next = last;
                break;
            }
            let mut found = shown(uid, flag, &device::decode(&row)?);
            found.times.created_ns = created_ns;
            devices.push(found);
        }
        last = Some(key);
    }
    Ok(ScanPage { rows: ScanRows::Devices(devices), next: next.and_then(|key| cursor(&key)) })
}

/// The devices of one user.
pub(super) fn devices_of(page: &Page<'_>, uid: &Name, only: Option<u8>) -> Result<ScanPage> {
    let devices = all_devices(page, uid)?;
    let devices = devices.iter().filter(|(flag, _)| only.is_none_or(|only| only == *flag));
    let devices = devices.map(|(flag, device)| shown(uid.clone(), *flag, device)).collect();
    Ok(ScanPage { rows: ScanRows::Devices(devices), next: None })
}
