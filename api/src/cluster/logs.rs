//! GET /cluster/logs: a node's log of a slot or of group 0, the newest first (http-api.md §17.6).
//! What stands in the entries is not shown: messages and tokens do.

use jindou_core::id::{NodeId, SlotId};
use serde::Serialize;

use super::{node_of, slot_of, view};
use crate::{
    answer::{Answer, Refusal, value},
    api::{Api, Call},
    node::Node,
    time::rfc3339,
};

/// Entries of a page when nothing is said, and at most.
const LIMIT_DEFAULT: u64 = 20;
const LIMIT_MAX: u64 = 200;
/// `log_type` of the cluster's own state and of slots.
const OF_CLUSTER: u64 = 1;
const OF_SLOT: u64 = 2;

/// Which entries of whose log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogQuery {
    /// The node.
    pub node: NodeId,
    /// The slot; `None`: group 0.
    pub slot: Option<SlotId>,
    /// Only entries with a higher index, the lowest of them.
    pub after: Option<u64>,
    /// Only entries with a lower index, the highest of them.
    pub before: Option<u64>,
    /// How many at most.
    pub limit: u64,
}

/// A page of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogPage {
    /// Entries, in any order.
    pub entries: Vec<LogEntryView>,
    /// Up to which index the node has applied.
    pub applied: u64,
    /// The last index of its log.
    pub last: u64,
}

/// An entry, without what stands in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogEntryView {
    /// Its index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// `blank`, `entry` or `members`.
    pub kind: String,
    /// Commands in it.
    pub commands: u64,
    /// Bytes of it.
    pub size: u64,
    /// Unix ms when it was proposed; 0: not known.
    pub time_ms: i64,
}

#[derive(Serialize)]
struct LogsJson {
    next: u64,
    pre: u64,
    applied: u64,
    last: u64,
    more: u8,
    logs: Vec<LogJson>,
}

#[derive(Serialize)]
struct LogJson {
    id: u64,
    index: u64,
    term: u64,
    cmd: String,
    data: String,
    time_format: String,
}

/// GET /cluster/logs. `next` asks for what is older than an index, `pre` for what is newer.
pub(super) async fn logs<N: Node>(api: &Api<N>, call: &Call) -> Answer {
    let query = &call.query;
    let view = view(api).await?;
    let node = node_of(&view, query.text("node_id"))?;
    if !node.online {
        return Err(Refusal::Rule("node offline"));
    }
    let slot = match query.unsigned("log_type") {
        0 | OF_CLUSTER => None,
        OF_SLOT => Some(slot_of(&view, query.text("slot"))?.slot),
        _ => return Err(Refusal::Rule("log_type: wanted 1 or 2")),
    };
    let index = |name| Some(query.unsigned(name)).filter(|index| *index > 0);
    let limit = match query.unsigned("limit") {
        0 => LIMIT_DEFAULT,
        limit => limit.min(LIMIT_MAX),
    };
    let asked = LogQuery { node: node.id, slot, after: index("pre"), before: index("next"), limit };
    let mut page = api.node.logs(asked).await.map_err(Refusal::Told)?;
    page.entries.sort_by_key(|entry| std::cmp::Reverse(entry.index));
    let (newest, oldest) = (page.entries.first(), page.entries.last());
    Ok(value(&LogsJson {
        next: oldest.map_or(0, |entry| entry.index),
        pre: newest.map_or(0, |entry| entry.index),
        applied: page.applied,
        last: page.last,
        // Whether there is more the way that was asked for; what is purged is gone.
        more: u8::from(match asked.after {
            Some(_) => newest.is_some_and(|entry| entry.index < page.last),
            None => oldest.is_some_and(|entry| entry.index > 1),
        }),
        logs: page
            .entries
            .iter()
            .map(|entry| LogJson {
                id: entry.index,
                index: entry.index,
                term: entry.term,
                cmd: entry.kind.clone(),
                data: format!("{} commands, {} bytes", entry.commands, entry.size),
                time_format: match entry.time_ms {
                    0 => String::new(),
                    time_ms => rfc3339(time_ms, api.settings.utc_offset_seconds),
                },
            })
            .collect(),
    }))
}
