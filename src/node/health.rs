//! What /health and /readyz tell. The only thing that the shards of a node share: who leads what,
//! as flags, and what became of the node.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use jindou_api::{Check, Fault, Health};
use jindou_core::{id::SlotId, shard::CLUSTER_SLOT};

/// The state of this node.
#[derive(Debug)]
pub(super) struct NodeHealth {
    /// By slot, group 0 last: whether its leader serves here.
    serving: Box<[AtomicBool]>,
    draining: AtomicBool,
    /// The first error of a disk or a shard. Final.
    fault: OnceLock<String>,
    /// Bytes of the data directory, as last counted.
    pub(super) disk_size: AtomicU64,
    pub(super) io_uring: bool,
    pub(super) started_ms: i64,
}

impl NodeHealth {
    pub(super) fn new(slot_count: u16, io_uring: bool, started_ms: i64) -> Self {
        Self {
            serving: (0..=slot_count).map(|_| AtomicBool::new(false)).collect(),
            draining: AtomicBool::new(false),
            fault: OnceLock::new(),
            disk_size: AtomicU64::new(0),
            io_uring,
            started_ms,
        }
    }

    /// The leader of a slot began to serve here, or ended.
    pub(super) fn set_serving(&self, slot: SlotId, serving: bool) {
        let flag = match slot {
            CLUSTER_SLOT => self.serving.last(),
            SlotId(slot) => self.serving.get(usize::from(slot)),
        };
        if let Some(flag) = flag {
            flag.store(serving, Ordering::Release);
        }
    }

    pub(super) fn set_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Notes that this node can't go on.
    pub(super) fn set_fault(&self, text: String) {
        // The first error stays: later ones follow from it.
        let _ = self.fault.set(text);
    }

    /// Why this node can't go on, if so.
    pub(super) fn fault(&self) -> Option<&str> {
        self.fault.get().map(String::as_str)
    }

    /// Whether every group serves and nothing speaks against it.
    pub(super) fn is_ready(&self) -> bool {
        self.serving.iter().all(|flag| flag.load(Ordering::Acquire))
            && !self.draining.load(Ordering::Acquire)
            && self.fault().is_none()
    }

    pub(super) fn report(&self) -> Health {
        let groups = self.serving.len();
        let serving = self.serving.iter().filter(|flag| flag.load(Ordering::Acquire)).count();
        let fault = match self.fault() {
            Some(_) => Some(Fault::Storage),
            None if self.draining.load(Ordering::Acquire) => Some(Fault::Draining),
            None if serving == 0 => Some(Fault::NoSlots),
            None if serving < groups => Some(Fault::NotReady),
            None => None,
        };
        let storage = self.fault();
        Health {
            fault,
            checks: vec![
                Check {
                    name: "slots",
                    ok: serving == groups,
                    detail: format!("{serving} of {groups} groups serve here"),
                },
                Check {
                    name: "storage",
                    ok: storage.is_none(),
                    detail: storage.unwrap_or("no error").to_owned(),
                },
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_red_until_every_group_serves_and_after_a_fault() {
        let health = NodeHealth::new(2, true, 0);
        assert_eq!(health.report().fault, Some(Fault::NoSlots));
        health.set_serving(SlotId(0), true);
        assert_eq!(health.report().fault, Some(Fault::NotReady));
        assert!(!health.is_ready());
        health.set_serving(SlotId(1), true);
        health.set_serving(CLUSTER_SLOT, true);
        assert_eq!(health.report().fault, None);
        assert!(health.is_ready());
        health.set_draining();
        assert!(!health.is_ready());
        assert_eq!(health.report().fault, Some(Fault::Draining));
        health.set_fault("disk".into());
        health.set_fault("what follows".into());
        assert_eq!(health.report().fault, Some(Fault::Storage));
        assert_eq!(health.fault(), Some("disk"));
    }

    #[test]
    fn news_that_comes_twice_or_ends_nothing_counts_once() {
        let health = NodeHealth::new(1, true, 0);
        health.set_serving(SlotId(0), false);
        health.set_serving(CLUSTER_SLOT, true);
        health.set_serving(CLUSTER_SLOT, true);
        health.set_serving(SlotId(9), true);
        assert_eq!(health.report().fault, Some(Fault::NotReady));
        health.set_serving(SlotId(0), true);
        assert_eq!(health.report().fault, None);
        health.set_serving(SlotId(0), false);
        assert_eq!(health.report().fault, Some(Fault::NotReady));
    }
}
