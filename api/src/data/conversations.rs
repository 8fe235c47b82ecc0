//! /cluster/conversations (http-api.md §17.4).

use std::collections::BTreeMap;

use futures::future::join_all;
use jindou_core::{
    id::{Name, SlotId},
    request::{Reply, Request, Target},
    row::{Digest, DigestQuery},
    scan::{ConversationSummary, Scan, ScanOf, ScanPage, ScanRows},
};
use serde::Serialize;

use super::{
    format::{kind_name, row_id, time},
    page::{self, Gaps, Patience},
    scan,
};
use crate::{
    answer::{Answer, Refusal, value},
    api::{Api, Call},
    node::Node,
};

#[derive(Serialize)]
struct ConversationJson {
    id: u64,
    uid: Name,
    #[serde(rename = "type")]
    conversation_type: u8,
    type_format: &'static str,
    channel_id: Name,
    channel_type: u8,
    channel_type_format: &'static str,
    unread_count: u64,
    last_msg_seq: u64,
    readed_to_msg_seq: u64,
    created_at: i64,
    updated_at: i64,
    created_at_format: String,
    updated_at_format: String,
}

impl ConversationJson {
    fn new(found: &ConversationSummary, digest: &Digest, utc_offset_seconds: i32) -> Self {
        let ConversationSummary { uid, channel, conversation: row } = found;
        let (last, read) = (digest.last_seq, row.read_to.max(digest.own_seq));
        let is_command = channel.command_base().is_some();
        Self {
            id: row_id(&[uid.as_bytes(), &[channel.kind], channel.id.as_bytes()]),
            uid: uid.clone(),
            conversation_type: is_command.into(),
            type_format: if is_command { "命令" } else { "聊天" },
            channel_id: channel.id.clone(),
            channel_type: channel.kind,
            channel_type_format: kind_name(channel.kind),
            unread_count: last.saturating_sub(read.max(row.deleted_to)),
            last_msg_seq: last,
            readed_to_msg_seq: read,
            created_at: row.created_ms.div_euclid(1000),
            updated_at: row.updated_ms.div_euclid(1000),
            created_at_format: time(row.created_ms, utc_offset_seconds),
            updated_at_format: time(row.updated_ms, utc_offset_seconds),
        }
    }
}

#[derive(Serialize)]
struct ConversationsJson {
    total: usize,
    data: Vec<ConversationJson>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<String>,
}

/// GET /cluster/conversations: one user's, the last touched first, or everybody's in the order in
/// which they are stored. Both by `current_page`, from 1. `total` is a user's count; all are not
/// counted.
pub(super) async fn search<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let limit = page::limit(call);
    let before = usize::try_from(call.query.unsigned("current_page").max(1) - 1);
    let skip = before.unwrap_or(usize::MAX).saturating_mul(limit);
    let uid = call.query.text("uid").trim();
    let (total, rows, errors) = if uid.is_empty() {
        let (rows, errors) = of_all(api, skip, limit).await?;
        (0, rows, errors)
    } else {
        api.settings.check_uid("uid", uid)?;
        let all = of_user(api, uid.into()).await?;
        (all.len(), all.into_iter().skip(skip).take(limit).collect(), Vec::new())
    };
    let digests = digests(api, &rows).await?;
    let offset = api.settings.utc_offset_seconds;
    let data = rows.iter().zip(&digests);
    let data = data.map(|(row, digest)| ConversationJson::new(row, digest, offset)).collect();
    Ok(value(&ConversationsJson { total, data, errors }))
}

async fn of_user<N: Node>(api: &Api<N>, uid: Name) -> Result<Vec<ConversationSummary>, Refusal> {
    let request = Request::Conversations { uid: uid.clone() };
    let reply = api.node.ask(Target::Id(uid.clone()), request).await;
    let Reply::Conversations(rows) = reply else { return Err(Refusal::by(&reply, "")) };
    let rows = rows.into_iter().map(|(channel, conversation)| ConversationSummary {
        uid: uid.clone(),
        channel,
        conversation,
    });
    Ok(rows.collect())
}

/// Slot after slot. A slot that cannot be read counts as empty.
async fn of_all<N: Node>(
    api: &Api<N>,
    mut skip: usize,
    limit: usize,
) -> Result<(Vec<ConversationSummary>, Vec<String>), Refusal> {
    let patience = Patience::new(api);
    let (mut found, mut gaps) = (Vec::new(), Gaps::default());
    let slots = page::slots(api);
    for slot in &slots {
        let mut after = None;
        while found.len() < limit {
            if patience.is_over(api) {
                gaps.unread(*slot);
                break;
            }
            let what = ScanOf::Conversations { skip };
            let request = Scan { slot: *slot, what, after, count_max: limit - found.len() };
            let page = match scan(api, request).await {
                Ok(page) => page,
                Err(refusal) => {
                    gaps.failed(*slot, refusal);
                    break;
                }
            };
            let ScanPage { rows: ScanRows::Conversations { skipped, list }, next } = page else {
                return Err(Refusal::Confused);
            };
            skip = skip.saturating_sub(skipped);
            found.extend(list);
            after = match next {
                Some(next) => Some(next),
                None => break,
            };
        }
        if found.len() >= limit {
            break;
        }
    }
    Ok((found, gaps.told(slots.len())?))
}

/// What each channel has for each user, in the order of the rows.
async fn digests<N: Node>(
    api: &Api<N>,
    rows: &[ConversationSummary],
) -> Result<Vec<Digest>, Refusal> {
    let mut groups: BTreeMap<(SlotId, &Name), Vec<usize>> = BTreeMap::new();
    for (place, row) in rows.iter().enumerate() {
        let slot = api.node.slot_of(&row.channel.id);
        groups.entry((slot, &row.uid)).or_default().push(place);
    }
    let mut digests: Vec<Digest> = rows.iter().map(|_| Digest::default()).collect();
    let groups: Vec<_> = groups.into_iter().collect();
    for wave in groups.chunks(8 * page::SLOTS_AT_ONCE) {
        let asked = wave.iter().map(|((slot, uid), places)| {
            let rows = places.iter().filter_map(|place| rows.get(*place));
            let items = rows.map(|row| DigestQuery {
                channel: row.channel.clone(),
                after: 0,
                count_max: 0,
            });
            let request = Request::Digests { uid: (*uid).clone(), items: items.collect() };
            api.node.ask(Target::Slot(*slot), request)
        });
        for ((_, places), reply) in wave.iter().zip(join_all(asked).await) {
            let Reply::Digests(of_group) = reply else { return Err(Refusal::by(&reply, "")) };
            for (place, digest) in places.iter().zip(of_group) {
                if let Some(kept) = digests.get_mut(*place) {
                    *kept = digest;
                }
            }
        }
    }
    Ok(digests)
}
