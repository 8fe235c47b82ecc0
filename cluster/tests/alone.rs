//! A cluster of one: the same code as many, with nobody else there.

#![expect(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{
    cell::Cell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use jindou_cluster::{AsyncRuntime, CLUSTER_SLOT, NoPeers, Options, Runtime};
use jindou_core::{
    id::SlotId,
    row::{Persist, Read},
};
use jindou_storage::{
    CompletionSender, Done, LogStorage, MemoryLog, MemoryState, Outcome, StateStorage,
    StorageError, wait,
};
use support::{Meddle, SLOT, TestNode, Toy, entry, life, no_meddling, until};

fn node(log: Arc<dyn LogStorage>, state: Arc<dyn StateStorage>) -> TestNode<NoPeers> {
    meddled(log, state, no_meddling())
}

fn meddled(
    log: Arc<dyn LogStorage>,
    state: Arc<dyn StateStorage>,
    meddle: Meddle,
) -> TestNode<NoPeers> {
    TestNode::start(1, log, state, NoPeers, Options::default(), meddle)
}

fn lanes() -> (Arc<MemoryLog>, Arc<MemoryState>) {
    (Arc::new(MemoryLog::new()), Arc::new(MemoryState::new()))
}

/// What a shard must have after these proposals.
fn expected(proposals: impl IntoIterator<Item = u64>, size: usize) -> (u64, u64) {
    let mut toy = Toy::default();
    for proposal in proposals {
        toy.step(&entry(proposal, size));
    }
    (toy.count, toy.hash)
}

fn summary(toy: &Toy) -> (u64, u64) {
    (toy.count, toy.hash)
}

#[test]
fn all_groups_of_a_fresh_node_lead_at_once_and_take_entries() {
    life(async || {
        let (log, state) = lanes();
        let node = node(log, state);
        let slots: Vec<_> = (0..64).map(SlotId).chain([CLUSTER_SLOT]).collect();
        let start = Instant::now();
        node.open_alone(&slots).await;
        until("all lead", || node.leading_count() == 65).await;
        let elected = start.elapsed();
        eprintln!("65 groups lead after {elected:?}");
        assert!(elected < Duration::from_secs(2), "{elected:?}");
        assert_eq!((node.groups.ready(), node.groups.count()), (65, 65));
        assert_eq!((node.router.ready(), node.router.count()), (65, 65));
        for slot in &slots {
            node.groups.propose(*slot, 7, entry(7, 100));
        }
        until("all committed", || node.committed().len() == 65).await;
        assert!(node.failed().is_empty());
        node.groups.shutdown().await;
        until("none leads", || node.leading_count() == 0).await;
    });
}

#[test]
fn entries_are_committed_in_the_order_of_the_proposals() {
    life(async || {
        let (log, state) = lanes();
        let node = node(log, state);
        node.open_alone(&[SLOT]).await;
        until("it leads", || node.is_leading(SLOT)).await;
        for proposal in 0..5_000 {
            node.groups.propose(SLOT, proposal, entry(proposal, 200));
        }
        until("all committed", || node.count(SLOT) == 5_000).await;
        assert_eq!(summary(&node.toy(SLOT)), expected(0..5_000, 200));
    });
}

/// A state lane that loses what comes after a point, as a power cut does with what was not synced.
struct Forgetful {
    inner: MemoryState,
    remembered: AtomicU64,
}

impl StateStorage for Forgetful {
    fn persist(&self, persist: Persist, from: &CompletionSender) {
        if persist.applied.index <= self.remembered.load(Ordering::Relaxed) {
            self.inner.persist(persist, from);
        }
    }
    fn read(&self, slot: SlotId, read: Read, done: Done) {
        self.inner.read(slot, read, done);
    }
    fn open_slot(&self, slot: SlotId, done: Done) {
        self.inner.open_slot(slot, done);
    }
    fn snapshot(&self, slot: SlotId, done: Done) {
        self.inner.snapshot(slot, done);
    }
    fn install_begin(&self, slot: SlotId, done: Done) {
        self.inner.install_begin(slot, done);
    }
    fn install_chunk(&self, slot: SlotId, chunk: bytes::Bytes, done: Done) {
        self.inner.install_chunk(slot, chunk, done);
    }
    fn install_end(&self, slot: SlotId, done: Done) {
        self.inner.install_end(slot, done);
    }
    fn hash(&self, slot: SlotId, done: Done) {
        self.inner.hash(slot, done);
    }
    fn sync(&self, done: Done) {
        self.inner.sync(done);
    }
    fn queue_size(&self) -> usize {
        0
    }
}

#[test]
fn a_restart_applies_every_committed_entry_exactly_once_from_the_durable_position() {
    for remembered in [0, 1, 57, 250, u64::MAX] {
        let log = Arc::new(MemoryLog::new());
        let state = Arc::new(Forgetful {
            inner: MemoryState::new(),
            remembered: AtomicU64::new(remembered),
        });
        let lanes = (log.clone(), state.clone());
        life(async move || {
            let node = node(lanes.0, lanes.1);
            node.open_alone(&[SLOT]).await;
            until("it leads", || node.is_leading(SLOT)).await;
            for proposal in 0..300 {
                node.groups.propose(SLOT, proposal, entry(proposal, 64));
            }
            until("committed", || node.count(SLOT) == 300).await;
        });
        log.crash();
        state.remembered.store(u64::MAX, Ordering::Relaxed);
        for life_number in 1..=2u64 {
            let lanes = (log.clone(), state.clone());
            life(async move || {
                let node = node(lanes.0, lanes.1);
                node.open_alone(&[SLOT]).await;
                until("it leads", || node.is_leading(SLOT)).await;
                let last = 300 + (life_number - 1) * 10;
                assert_eq!(summary(&node.toy(SLOT)), expected(0..last, 64));
                for proposal in last..last + 10 {
                    node.groups.propose(SLOT, proposal, entry(proposal, 64));
                }
                until("committed", || node.count(SLOT) == last + 10).await;
            });
            log.crash();
        }
    }
}

#[test]
fn nothing_is_confirmed_before_the_log_is_durable() {
    life(async || {
        let log = Arc::new(MemoryLog::held());
        let node = node(log.clone(), Arc::new(MemoryState::new()));
        let syncs = Rc::new(Cell::new(true));
        let (synced, on) = (log.clone(), syncs.clone());
        drop(Runtime::spawn(async move {
            loop {
                if on.get() {
                    synced.fsync();
                }
                Runtime::sleep(Duration::from_millis(1)).await;
            }
        }));
        node.open_alone(&[SLOT]).await;
        until("it leads", || node.is_leading(SLOT)).await;
        syncs.set(false);
        for proposal in 0..10 {
            node.groups.propose(SLOT, proposal, entry(proposal, 100));
        }
        Runtime::sleep(Duration::from_millis(200)).await;
        assert_eq!(node.committed(), []);
        log.fsync();
        until("committed", || node.count(SLOT) == 10).await;
    });
}

#[test]
fn what_was_not_durable_at_the_crash_was_not_confirmed() {
    let log = Arc::new(MemoryLog::held());
    let state = Arc::new(MemoryState::new());
    let lanes = (log.clone(), state.clone());
    let confirmed = life(async move || {
        let node = node(lanes.0.clone(), lanes.1);
        let synced = lanes.0.clone();
        let rounds = Rc::new(Cell::new(0));
        let count = rounds.clone();
        drop(Runtime::spawn(async move {
            while count.get() < 40 {
                synced.fsync();
                count.set(count.get() + 1);
                Runtime::sleep(Duration::from_millis(1)).await;
            }
        }));
        node.open_alone(&[SLOT]).await;
        until("it leads", || node.is_leading(SLOT)).await;
        let mut proposal = 0;
        while rounds.get() < 40 {
            node.groups.propose(SLOT, proposal, entry(proposal, 64));
            proposal += 1;
            Runtime::sleep(Duration::from_millis(1)).await;
        }
        for more in 0..20 {
            node.groups.propose(SLOT, proposal + more, entry(proposal + more, 64));
        }
        Runtime::sleep(Duration::from_millis(50)).await;
        assert!(node.count(SLOT) <= proposal);
        node.count(SLOT)
    });
    log.crash();
    let synced = log.clone();
    life(async move || {
        let node = node(synced.clone(), state);
        drop(Runtime::spawn(async move {
            loop {
                synced.fsync();
                Runtime::sleep(Duration::from_millis(1)).await;
            }
        }));
        node.open_alone(&[SLOT]).await;
        until("it leads", || node.is_leading(SLOT)).await;
        let count = node.count(SLOT);
        assert!(count >= confirmed, "{count} of {confirmed} confirmed");
        assert_eq!(summary(&node.toy(SLOT)), expected(0..count, 64));
    });
}

#[test]
fn a_failed_fsync_stops_the_group_and_fails_its_proposals() {
    life(async || {
        let broken = Rc::new(Cell::new(false));
        let is_broken = broken.clone();
        let meddle: Meddle = Rc::new(move |answer| match answer {
            Ok(Outcome::Done) if is_broken.get() => {
                Err(StorageError::Poisoned { database: "log", reason: "no space left".into() })
            }
            other => other,
        });
        let (log, state) = lanes();
        let node = meddled(log, state, meddle);
        node.open_alone(&[SLOT]).await;
        until("it leads", || node.is_leading(SLOT)).await;
        broken.set(true);
        for proposal in 0..3 {
            node.groups.propose(SLOT, proposal, entry(proposal, 100));
        }
        until("all fail", || node.failed().len() == 3).await;
        until("it has stopped", || node.groups.failed() == 1).await;
        assert!(!node.is_leading(SLOT));
        assert_eq!((node.groups.ready(), node.router.ready()), (0, 0));
        // Even if the lane would answer well again.
        broken.set(false);
        node.groups.propose(SLOT, 3, entry(3, 100));
        until("it fails", || node.failed().len() == 4).await;
        assert_eq!(node.committed(), []);
        assert_eq!(node.failed(), [(SLOT, 0), (SLOT, 1), (SLOT, 2), (SLOT, 3)]);
    });
}

#[test]
fn a_proposal_for_a_slot_that_is_not_here_fails() {
    life(async || {
        let (log, state) = lanes();
        let node = node(log, state);
        node.open_alone(&[SLOT]).await;
        node.groups.propose(SlotId(9), 1, entry(1, 10));
        until("it fails", || node.failed() == [(SlotId(9), 1)]).await;
    });
}

#[test]
fn the_log_is_purged_up_to_the_durable_state_and_a_restart_needs_no_more() {
    let (log, state) = lanes();
    let lanes = (log.clone(), state.clone());
    life(async move || {
        let node = node(lanes.0, lanes.1);
        node.open_alone(&[SLOT]).await;
        until("it leads", || node.is_leading(SLOT)).await;
        for round in 0..3u64 {
            for proposal in round * 500..(round + 1) * 500 {
                node.groups.propose(SLOT, proposal, entry(proposal, 64));
            }
            until("committed", || node.count(SLOT) == (round + 1) * 500).await;
            let Ok(Outcome::Synced(moved)) = wait(|done| node.state.sync(done)) else {
                panic!("no sync");
            };
            node.groups.synced(&moved);
            let durable = moved.first().unwrap().1.index;
            until("purged", || {
                let Ok(Outcome::Log(stored)) = wait(|done| node.log.load(4, 0, done)) else {
                    panic!("no log");
                };
                stored.first == Some(durable - 63)
            })
            .await;
        }
    });
    life(async move || {
        let node = node(log, state);
        node.open_alone(&[SLOT]).await;
        until("it leads", || node.is_leading(SLOT)).await;
        assert_eq!(summary(&node.toy(SLOT)), expected(0..1_500, 64));
        node.groups.propose(SLOT, 1_500, entry(1_500, 64));
        until("committed", || node.count(SLOT) == 1_501).await;
    });
}

#[test]
fn a_shard_that_applies_late_is_waited_for() {
    life(async || {
        let (log, state) = lanes();
        let node = node(log, state);
        node.open_alone(&[SLOT]).await;
        until("it leads", || node.is_leading(SLOT)).await;
        node.paused.set(true);
        for proposal in 0..2_000 {
            node.groups.propose(SLOT, proposal, entry(proposal, 64));
        }
        Runtime::sleep(Duration::from_millis(50)).await;
        node.paused.set(false);
        until("committed", || node.count(SLOT) == 2_000).await;
        assert_eq!(summary(&node.toy(SLOT)), expected(0..2_000, 64));
    });
}
