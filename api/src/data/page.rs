//! A page over all slots: of each slot the rows that can be on it, of those the best.
//!
//! What is held at once is about twice what a page shows. A slot that does not answer, or a search
//! that would take too long, does not fail the page: it says in `errors` what is missing.

use std::cmp::Reverse;

use futures::future::join_all;
use jindou_core::{
    id::SlotId,
    scan::{Made, Scan, ScanOf, ScanPage, ScanRows},
};
use serde::Serialize;

use super::scan;
use crate::{
    answer::Refusal,
    api::{Api, Call},
    node::Node,
};

/// Rows of a page when the caller says nothing.
const LIMIT_DEFAULT: usize = 20;
/// The most rows of a page.
const LIMIT_MAX: usize = 1000;
/// Slots that are asked at once.
pub(super) const SLOTS_AT_ONCE: usize = 8;
/// A page is made within this time, in ms: v2's `cluster.reqTimeout` is 10 s.
const TIME_MAX_MS: u64 = 8000;
/// Rows of one slot that may have the time of the last one shown.
const TIE_COUNT: usize = 8;

/// How many rows were asked for.
pub(super) fn limit(call: &Call) -> usize {
    match usize::try_from(call.query.signed("limit")) {
        Ok(0) | Err(_) => LIMIT_DEFAULT,
        Ok(asked) => asked.min(LIMIT_MAX),
    }
}

/// Whether newer rows than the given place are wanted, not older ones.
pub(super) fn is_backward(call: &Call) -> bool {
    call.query.signed("pre") == 1
}

/// How long a page may take.
pub(super) struct Patience {
    until_ms: u64,
}

impl Patience {
    pub(super) fn new<N: Node>(api: &Api<N>) -> Self {
        Self { until_ms: api.node.now().mono_ms.saturating_add(TIME_MAX_MS) }
    }

    /// Whether it is over.
    pub(super) fn is_over<N: Node>(&self, api: &Api<N>) -> bool {
        api.node.now().mono_ms >= self.until_ms
    }
}

/// What a page lacks, for whoever reads it.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    errors: Vec<String>,
    refusal: Option<Refusal>,
}

impl Gaps {
    /// A slot could not be read.
    pub(super) fn failed(&mut self, slot: SlotId, refusal: Refusal) {
        self.errors.push(format!("{slot}: {refusal}"));
        self.refusal.get_or_insert(refusal);
    }

    /// A slot was not read, or not to its end.
    pub(super) fn unread(&mut self, slot: SlotId) {
        self.errors.push(format!("{slot}: not read to its end in {} s", TIME_MAX_MS / 1000));
    }

    /// What to tell; the refusal itself when no slot at all could be read.
    pub(super) fn told(self, slot_count: usize) -> Result<Vec<String>, Refusal> {
        match self.refusal {
            Some(refusal) if self.errors.len() >= slot_count => Err(refusal),
            _ => Ok(self.errors),
        }
    }
}

/// All slots.
pub(super) fn slots<N: Node>(api: &Api<N>) -> Vec<SlotId> {
    (0..api.node.slot_count()).map(SlotId).collect()
}

/// A page by time, as a caller asks for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ByTime {
    limit: usize,
    made: Made,
}

impl ByTime {
    /// `limit`, `offset_created_at` (ns) and `pre`.
    pub(super) fn read(call: &Call) -> Self {
        let offset = call.query.signed("offset_created_at").max(0);
        let newest_first = !is_backward(call);
        let made = match (offset, newest_first) {
            (0, _) => Made { after_ns: -1, before_ns: i64::MAX, newest_first },
            (before_ns, true) => Made { after_ns: -1, before_ns, newest_first },
            (after_ns, false) => Made { after_ns, before_ns: i64::MAX, newest_first },
        };
        Self { limit: limit(call), made }
    }
}

/// A row that has a time.
pub(super) trait Dated: Sized {
    /// Picks the rows out of a page.
    fn pick(rows: ScanRows) -> Option<Vec<Self>>;
    /// When it was made, in ns.
    fn created_ns(&self) -> i64;
}

/// A page over all slots.
pub(super) struct Page<T> {
    /// The newest first.
    pub(super) rows: Vec<T>,
    /// There is another one, further in the direction asked for.
    pub(super) more: bool,
    /// What is missing.
    pub(super) errors: Vec<String>,
}

/// The page of a search by time over these slots.
pub(super) async fn by_time<N: Node, T: Dated>(
    api: &Api<N>,
    slots: &[SlotId],
    asked: ByTime,
    what: impl Fn(Made) -> ScanOf,
) -> Result<Page<T>, Refusal> {
    let patience = Patience::new(api);
    let ByTime { limit, mut made } = asked;
    let (mut best, mut gaps): (Vec<T>, Gaps) = (Vec::new(), Gaps::default());
    for wave in slots.chunks(SLOTS_AT_ONCE) {
        let asked = wave.iter().map(|slot| of_slot(api, *slot, what(made), limit, &patience));
        for (slot, found) in wave.iter().zip(join_all(asked).await) {
            match found {
                Ok((rows, is_whole)) => {
                    best.extend(rows);
                    if !is_whole {
                        gaps.unread(*slot);
                    }
                }
                Err(refusal) => gaps.failed(*slot, refusal),
            }
        }
        sort(&mut best, made.newest_first);
        let end = end_of_page(&best, limit);
        // One more tells that there is another page.
        best.truncate(end + 1);
        if let Some(beyond) = best.get(end) {
            if made.newest_first {
                made.after_ns = beyond.created_ns() - 1;
            } else {
                made.before_ns = beyond.created_ns().saturating_add(1);
            }
        }
    }
    let end = end_of_page(&best, limit);
    let more = best.len() > end;
    best.truncate(end);
    sort(&mut best, true);
    Ok(Page { rows: best, more, errors: gaps.told(slots.len())? })
}

fn sort<T: Dated>(rows: &mut [T], newest_first: bool) {
    if newest_first {
        rows.sort_by_key(|row| Reverse(row.created_ns()));
    } else {
        rows.sort_by_key(Dated::created_ns);
    }
}

/// How many rows a page shows: those of one time stay together, because the next page begins after
/// it.
fn end_of_page<T: Dated>(rows: &[T], limit: usize) -> usize {
    let Some(last) = limit.checked_sub(1).and_then(|last| rows.get(last)) else {
        return rows.len();
    };
    let time = last.created_ns();
    rows.iter()
        .skip(limit)
        .position(|row| row.created_ns() != time)
        .map_or(rows.len(), |n| limit + n)
}

/// The first rows of a slot, and whether there are no others that are wanted.
async fn of_slot<N: Node, T: Dated>(
    api: &Api<N>,
    slot: SlotId,
    what: ScanOf,
    limit: usize,
    patience: &Patience,
) -> Result<(Vec<T>, bool), Refusal> {
    let wanted = limit + TIE_COUNT;
    let (mut found, mut after) = (Vec::new(), None);
    while found.len() < wanted {
        if patience.is_over(api) {
            return Ok((found, false));
        }
        let count_max = wanted - found.len();
        let request = Scan { slot, what: what.clone(), after, count_max };
        let ScanPage { rows, next } = scan(api, request).await?;
        found.extend(T::pick(rows).ok_or(Refusal::Confused)?);
        after = match next {
            Some(next) => Some(next),
            None => break,
        };
    }
    Ok((found, true))
}

/// `{"total":0,"more":0|1,"data":[…]}`, as v2 does not count either.
#[derive(Serialize)]
pub(super) struct PageJson<T> {
    total: u64,
    more: u8,
    data: Vec<T>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<String>,
}

impl<T> PageJson<T> {
    /// A page whose rows became these.
    pub(super) fn new(data: Vec<T>, more: bool, errors: Vec<String>) -> Self {
        Self { total: 0, more: more.into(), data, errors }
    }
}
