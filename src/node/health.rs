//! What /health and /readyz tell. The only thing that the shards of a node share: who leads what,
//! as flags, and what became of the node.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use jindou_api::{Check, Fault, Health};
use jindou_core::{
    id::{NodeId, SlotId},
    shard::CLUSTER_SLOT,
};

use super::webhook;

/// How long a slot may be without a leader before it counts against this node: an election is the
/// cluster's matter, a longer silence means that this node is cut off (operations.md §3.10).
const GRACE_MS: u64 = 3_000;
/// A slot that has never been served or routed.
const NEVER: u64 = 0;
/// A slot that is served or routed.
const NOW: u64 = u64::MAX;

/// The state of this node.
#[derive(Debug)]
pub(super) struct NodeHealth {
    /// By slot, group 0 last: [`NOW`], [`NEVER`], or when its leader was lost, in ms of `origin`.
    slots: Box<[AtomicU64]>,
    /// By slot, as far as they are on other nodes.
    leaders: Mutex<BTreeMap<SlotId, NodeId>>,
    /// By slot: who led it last.
    last_leaders: Mutex<BTreeMap<SlotId, NodeId>>,
    /// How often that was another node than before.
    leader_changes: AtomicU64,
    /// Other nodes that are not reached.
    away: Mutex<BTreeSet<NodeId>>,
    origin: Instant,
    draining: AtomicBool,
    /// What a node that starts waits for.
    waiting: RwLock<Option<String>>,
    /// The first error of a disk or a shard. Final.
    fault: OnceLock<String>,
    /// Bytes of the data directory, as last counted.
    pub(super) disk_size: AtomicU64,
    pub(super) webhooks: webhook::Figures,
    /// Questions that the datasource has not answered.
    pub(super) datasource_failures: AtomicU64,
    pub(super) io_uring: bool,
    pub(super) started_ms: i64,
}

impl NodeHealth {
    pub(super) fn new(slot_count: u16, io_uring: bool, started_ms: i64) -> Self {
        Self {
            slots: (0..=slot_count).map(|_| AtomicU64::new(NEVER)).collect(),
            leaders: Mutex::default(),
            last_leaders: Mutex::default(),
            leader_changes: AtomicU64::new(0),
            away: Mutex::default(),
            origin: Instant::now(),
            draining: AtomicBool::new(false),
            waiting: RwLock::default(),
            fault: OnceLock::new(),
            disk_size: AtomicU64::new(0),
            webhooks: webhook::Figures::default(),
            datasource_failures: AtomicU64::new(0),
            io_uring,
            started_ms,
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(NOW - 1).max(NEVER + 1)
    }

    /// Who leads a slot is known: this node (`None`) that serves it or not yet, or another one.
    pub(super) fn set_leader(&self, slot: SlotId, elsewhere: Option<NodeId>, serves: bool) {
        let mut leaders = lock(&self.leaders);
        match elsewhere {
            Some(node) => {
                leaders.insert(slot, node);
                self.set_served(slot, !lock(&self.away).contains(&node));
            }
            None => {
                leaders.remove(&slot);
                self.set_served(slot, serves);
            }
        }
    }

    /// A node leads a slot: the first one that is seen, or another, or the same in a new term.
    pub(super) fn note_leader(&self, slot: SlotId, leader: NodeId) {
        let before = lock(&self.last_leaders).insert(slot, leader);
        if before.is_some_and(|before| before != leader) {
            self.leader_changes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often another node was seen to lead a slot than before.
    pub(super) fn leader_changes(&self) -> u64 {
        self.leader_changes.load(Ordering::Relaxed)
    }

    /// Another node is reached, or is not any more.
    pub(super) fn set_reached(&self, node: NodeId, reached: bool) {
        let leaders = lock(&self.leaders);
        let mut away = lock(&self.away);
        let is_news = if reached { away.remove(&node) } else { away.insert(node) };
        if is_news {
            for (slot, _) in leaders.iter().filter(|(_, leader)| **leader == node) {
                self.set_served(*slot, reached);
            }
        }
    }

    fn set_served(&self, slot: SlotId, served: bool) {
        let place = match slot {
            CLUSTER_SLOT => self.slots.last(),
            SlotId(slot) => self.slots.get(usize::from(slot)),
        };
        let Some(place) = place else { return };
        if served {
            place.store(NOW, Ordering::Release);
        } else {
            // Only the first loss counts; a slot that never was served stays so.
            let lost_at = self.now_ms();
            let _ = place.compare_exchange(NOW, lost_at, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// The node is told to stop.
    pub(super) fn set_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// What the node waits for before it serves; `None`: nothing. Told once in the log.
    pub(super) fn set_waiting(&self, text: Option<String>) {
        let mut waiting = self.waiting.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = text.as_ref().filter(|text| waiting.as_ref() != Some(text)) {
            tracing::warn!("{text}");
        }
        *waiting = text;
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

    /// Whether every slot is served here or routed, and nothing speaks against it.
    pub(super) fn is_ready(&self) -> bool {
        self.slots.iter().all(|slot| slot.load(Ordering::Acquire) == NOW)
            && !self.draining.load(Ordering::Acquire)
            && self.fault().is_none()
    }

    pub(super) fn report(&self) -> Health {
        let now_ms = self.now_ms();
        let (mut served, mut lost) = (0, 0);
        for slot in &self.slots {
            match slot.load(Ordering::Acquire) {
                NOW => served += 1,
                NEVER => lost += 1,
                since => lost += usize::from(now_ms.saturating_sub(since) > GRACE_MS),
            }
        }
        let groups = self.slots.len();
        let fault = match self.fault() {
            Some(_) => Some(Fault::Storage),
            None if self.draining.load(Ordering::Acquire) => Some(Fault::Draining),
            None if lost == groups => Some(Fault::NoSlots),
            None if lost > 0 => Some(Fault::NotReady),
            None => None,
        };
        let storage = self.fault();
        let mut checks = vec![
            Check {
                name: "slots",
                ok: served == groups,
                detail: format!("{served} of {groups} groups have a leader that is reached"),
            },
            Check {
                name: "storage",
                ok: storage.is_none(),
                detail: storage.unwrap_or("no error").to_owned(),
            },
        ];
        let waiting = self.waiting.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(text) = &waiting {
            checks.push(Check { name: "cluster", ok: false, detail: text.clone() });
        }
        Health { fault, waiting, checks }
    }
}

/// A poisoned lock holds what it held: nothing in here panics half-way.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_red_until_every_group_is_served_and_after_a_fault() {
        let health = NodeHealth::new(2, true, 0);
        assert_eq!(health.report().fault, Some(Fault::NoSlots));
        health.set_served(SlotId(0), true);
        assert_eq!(health.report().fault, Some(Fault::NotReady));
        assert!(!health.is_ready());
        health.set_served(SlotId(1), true);
        health.set_served(CLUSTER_SLOT, true);
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
    fn an_election_is_not_held_against_the_node_a_longer_silence_is() {
        let mut health = NodeHealth::new(1, true, 0);
        health.set_served(SlotId(0), true);
        health.set_served(CLUSTER_SLOT, true);
        health.set_served(SlotId(0), false);
        assert_eq!(health.report().fault, None);
        assert!(!health.is_ready());
        let ago = std::time::Duration::from_millis(GRACE_MS + 10);
        health.origin -= ago;
        health.set_served(SlotId(0), false);
        assert_eq!(health.report().fault, Some(Fault::NotReady));
        health.set_served(SlotId(0), true);
        assert_eq!(health.report().fault, None);
    }

    #[test]
    fn a_leader_counts_while_its_node_is_reached() {
        let health = NodeHealth::new(1, true, 0);
        health.set_leader(CLUSTER_SLOT, None, true);
        health.set_reached(NodeId(2), false);
        health.set_leader(SlotId(0), Some(NodeId(2)), false);
        assert!(!health.is_ready());
        health.set_reached(NodeId(2), true);
        assert!(health.is_ready());
        health.set_reached(NodeId(2), false);
        assert!(!health.is_ready());
        health.set_leader(SlotId(0), Some(NodeId(3)), false);
        assert!(health.is_ready());
    }

    #[test]
    fn a_change_of_leaders_counts_and_the_first_leader_does_not() {
        let health = NodeHealth::new(2, true, 0);
        for (slot, leader) in [(0, 1), (1, 2), (0, 1), (0, 3), (1, 2), (0, 1)] {
            health.note_leader(SlotId(slot), NodeId(leader));
        }
        assert_eq!(health.leader_changes(), 2);
    }

    #[test]
    fn what_it_waits_for_stands_in_the_details() {
        let health = NodeHealth::new(1, true, 0);
        health.set_waiting(Some("waiting for node 2".into()));
        let told =
            |health: &NodeHealth| health.report().waiting.as_deref() == Some("waiting for node 2");
        assert!(told(&health));
        health.set_waiting(None);
        assert!(!told(&health));
    }
}
