//! From the document and what the groups look like to the next steps.

use jindou_core::id::{NodeId, SlotId};

use super::{document::Document, observed::Observed};

/// A change of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    SetVoters { slot: SlotId, voters: Vec<NodeId> },
    Transfer { slot: SlotId, to: NodeId },
}

pub(super) fn plan(
    _document: &Document,
    _observed: &Observed,
    _replicas: impl Fn(usize) -> usize,
    _slot_count: u16,
) -> Vec<Step> {
    Vec::new()
}
