//! What the data pages write beside the values themselves, for people.

use jindou_core::{channel_info::kind, id::ChannelId, row::Times};
use serde::Serialize;

use crate::{ids::fnv1a_64, time::minutes};

/// `created_at` and `updated_at` in ns, with their forms for people; empty when not known.
#[derive(Serialize)]
pub(super) struct TimesJson {
    created_at: i64,
    updated_at: i64,
    created_at_format: String,
    updated_at_format: String,
}

impl TimesJson {
    pub(super) fn new(times: Times, utc_offset_seconds: i32) -> Self {
        Self {
            created_at: times.created_ns,
            updated_at: times.updated_ms.saturating_mul(1_000_000),
            created_at_format: time(times.created_ns / 1_000_000, utc_offset_seconds),
            updated_at_format: time(times.updated_ms, utc_offset_seconds),
        }
    }
}

/// A time in Unix ms; empty for none.
pub(super) fn time(unix_ms: i64, utc_offset_seconds: i32) -> String {
    if unix_ms <= 0 { String::new() } else { minutes(unix_ms, utc_offset_seconds) }
}

/// v2 shows the number of a row, made from its key; nothing takes it as input.
pub(super) fn row_id(key: &[&[u8]]) -> u64 {
    fnv1a_64(&key.concat()).max(1)
}

/// The row number of a channel.
pub(super) fn channel_row_id(channel: &ChannelId) -> u64 {
    row_id(&[&[channel.kind], channel.id.as_bytes()])
}

/// A channel type in words.
pub(super) fn kind_name(channel_kind: u8) -> &'static str {
    match channel_kind {
        kind::PERSON => "单聊",
        kind::GROUP => "群组",
        kind::CUSTOMER_SERVICE => "客服",
        4 => "社区",
        5 => "社区话题",
        kind::INFO => "资讯",
        kind::DATA => "数据",
        kind::TEMP => "临时",
        kind::LIVE => "直播",
        kind::VISITORS => "访客",
        kind::AGENT => "智能体",
        12 => "智能体群组",
        _ => "其他",
    }
}
