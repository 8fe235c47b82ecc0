//! /cluster/channels/:id/:type/subscribers, /denylist and /allowlist (http-api.md §17.5): the only
//! way to read members and the deny list.

use bytes::Bytes;
use http::StatusCode;
use jindou_core::{
    channel_info::List,
    id::{ChannelId, Name},
    scan::{Scan, ScanOf, ScanPage, ScanRows},
};

use super::{named_channel, scan};
use crate::{
    answer::{Answer, Refusal},
    api::{Api, Call},
    http::HttpResponse,
    json::to_json,
    node::Node,
};

/// Uids of one page.
const PAGE_COUNT: usize = 10_000;
/// The largest answer, in bytes: some two million members.
const ANSWER_SIZE_MAX: usize = 64 << 20;

/// A list of a channel, id as given: `LIST` of uids.
pub(super) async fn list<N: Node>(api: &Api<N>, call: &Call, list: List) -> Answer {
    let channel = named_channel(api, call)?;
    let mut body = b"[".to_vec();
    let mut after = None;
    loop {
        let (uids, next) = page(api, &channel, list, after).await?;
        for (uid, _) in &uids {
            if body.len() > 1 {
                body.push(b',');
            }
            body.extend_from_slice(&to_json(uid));
        }
        if body.len() > ANSWER_SIZE_MAX {
            return Err(Refusal::TooLong { what: "the list", max: ANSWER_SIZE_MAX });
        }
        after = match next {
            Some(next) => Some(next),
            None => break,
        };
    }
    body.push(b']');
    Ok(HttpResponse::json(StatusCode::OK, body.into()))
}

/// A page of a list and where the next one begins.
async fn page<N: Node>(
    api: &Api<N>,
    channel: &ChannelId,
    list: List,
    after: Option<Bytes>,
) -> Result<(Vec<(Name, i64)>, Option<Bytes>), Refusal> {
    let slot = api.node.slot_of(&channel.id);
    let what = ScanOf::List { channel: channel.clone(), list };
    let found = scan(api, Scan { slot, what, after, count_max: PAGE_COUNT }).await?;
    let ScanPage { rows: ScanRows::List(uids), next } = found else {
        return Err(Refusal::Confused);
    };
    Ok((uids, next))
}
