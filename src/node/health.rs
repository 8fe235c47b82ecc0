//! What /health and /readyz tell. The only thing that the shards of a node share: who leads what,
//! as bits, and two flags.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use jindou_api::{Check, Fault, Health};

/// The state of this node.
#[derive(Debug)]
pub(super) struct NodeHealth {
    slot_count: usize,
    /// Slots (and group 0) whose leader serves here.
    serving: AtomicUsize,
    draining: AtomicBool,
    /// The first error of a disk. Final.
    fault: OnceLock<String>,
    pub(super) io_uring: bool,
    pub(super) started_ms: i64,
}

impl NodeHealth {
    pub(super) fn new(slot_count: u16, io_uring: bool, started_ms: i64) -> Self {
        Self {
            slot_count: usize::from(slot_count),
            serving: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            fault: OnceLock::new(),
            io_uring,
            started_ms,
        }
    }

    /// A group began to serve, or ended.
    pub(super) fn set_serving(&self, serving: bool) {
        if serving {
            self.serving.fetch_add(1, Ordering::AcqRel);
        } else {
            self.serving.fetch_sub(1, Ordering::AcqRel);
        }
    }

    pub(super) fn set_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Notes that this node can't store any more.
    pub(super) fn set_fault(&self, text: String) {
        // The first error stays: later ones follow from it.
        let _ = self.fault.set(text);
    }

    /// Whether every group serves and nothing speaks against it.
    pub(super) fn is_ready(&self) -> bool {
        self.serving.load(Ordering::Acquire) > self.slot_count
            && !self.draining.load(Ordering::Acquire)
            && self.fault.get().is_none()
    }

    pub(super) fn report(&self) -> Health {
        // Group 0 counts as one more.
        let groups = self.slot_count + 1;
        let serving = self.serving.load(Ordering::Acquire);
        let fault = match self.fault.get() {
            Some(_) => Some(Fault::Storage),
            None if self.draining.load(Ordering::Acquire) => Some(Fault::Draining),
            None if serving == 0 => Some(Fault::NoSlots),
            None if serving < groups => Some(Fault::NotReady),
            None => None,
        };
        let storage = self.fault.get();
        Health {
            fault,
            checks: vec![
                Check {
                    name: "slots",
                    ok: serving >= groups,
                    detail: format!("{serving} of {groups} groups serve here"),
                },
                Check {
                    name: "storage",
                    ok: storage.is_none(),
                    detail: storage.map_or_else(|| "no error".to_owned(), Clone::clone),
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
        health.set_serving(true);
        assert_eq!(health.report().fault, Some(Fault::NotReady));
        assert!(!health.is_ready());
        health.set_serving(true);
        health.set_serving(true);
        assert_eq!(health.report().fault, None);
        assert!(health.is_ready());
        health.set_draining();
        assert!(!health.is_ready());
        assert_eq!(health.report().fault, Some(Fault::Draining));
        health.set_fault("disk".into());
        assert_eq!(health.report().fault, Some(Fault::Storage));
    }
}
