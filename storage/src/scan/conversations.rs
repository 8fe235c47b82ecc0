//! Conversations of all users, in the order of their keys, as v2 pages them: by count.

use jindou_core::scan::{ConversationSummary, ScanPage, ScanRows};

use super::{Budget, KeyRange, Page, Result, cursor};
use crate::keyspace::{Table, conversation};

pub(super) fn page(page: &Page<'_>, skip: usize, mut budget: Budget) -> Result<ScanPage> {
    let prefix = page.slot.0.to_be_bytes();
    let from = page.cursor(&prefix)?;
    let mut list = Vec::new();
    let mut skipped = 0;
    let mut last = None;
    let mut next = None;
    if let Some(range) = KeyRange::after(&prefix, from) {
        for row in page.source.rows(Table::Conversation, range) {
            let (key, value) = row?;
            if !budget.may_look() {
                next = last;
                break;
            }
            budget.look(1);
            if skipped < skip {
                skipped += 1;
            } else {
                let (_, uid, channel) = conversation::parse_key(&key)?;
                if !budget.take(uid.len() + channel.id.len() + 96) {
                    next = last;
                    break;
                }
                let conversation = conversation::decode(&value)?;
                list.push(ConversationSummary { uid, channel, conversation });
            }
            last = Some(key);
        }
    }
    let rows = ScanRows::Conversations { skipped, list };
    Ok(ScanPage { rows, next: next.and_then(|key| cursor(&key)) })
}
