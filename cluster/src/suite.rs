//! openraft's own storage suite, on our log store and state machine over the lanes.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{cell::RefCell, rc::Rc, sync::Arc};

use bytes::Bytes;
use jindou_core::{
    effect::{Committed, Event},
    id::{NodeId, ShardId, SlotId},
    row::{Persist, Row},
};
use jindou_storage::{
    Completion, CompletionSender, LogStorage, MemoryLog, MemoryState, Outcome, StateStorage,
    Storage, StorageOptions, completions,
};
use openraft::{
    AsyncRuntime, StorageError,
    testing::log::{StoreBuilder, Suite},
};

use tempfile::TempDir;

use crate::{
    Runtime,
    group::spawn,
    lanes::Lanes,
    log_store::{Bounds, LogCore, LogStore},
    shared::Shared,
    state_machine::{StateMachine, membership_of},
    types::{GroupId, TypeConfig},
};

/// What keeps a disk's directory alive. Dropping it closes the storage and removes the files.
struct Disk {
    storage: Storage,
    _dir: TempDir,
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.storage.close();
    }
}

type Fresh = (Option<Disk>, Arc<dyn LogStorage>, Arc<dyn StateStorage>);

fn memory() -> Fresh {
    let (log, state) = (MemoryLog::new(), MemoryState::new());
    (None, Arc::new(log), Arc::new(state))
}

fn disk() -> Fresh {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::open(&StorageOptions {
        path: dir.path().join("data"),
        node: NodeId(1),
        slot_count: 64,
        on_fatal: Arc::new(|error| panic!("{error}")),
        on_synced: Arc::new(|_| {}),
    })
    .unwrap();
    let (log, state) = (storage.log(), storage.state());
    (Some(Disk { storage, _dir: dir }), log, state)
}

/// Makes a fresh node for every test of the suite.
struct Builder {
    fresh: fn() -> Fresh,
    /// With a bound of nothing every read goes to the lane.
    tail_size_max: usize,
}

/// The shard of these tests: an applied entry is a row.
fn apply(state: &dyn StateStorage, from: &CompletionSender, shared: &Shared, event: Event) {
    let Event::Committed { slot, log_id, body } = event else {
        return;
    };
    let row = |value: Bytes| Row::ClusterKey { key: format!("entry {}", log_id.index), value };
    let rows = match body {
        Committed::Blank => vec![row(Bytes::from_static(b"blank"))],
        Committed::Entry(bytes) => vec![row(bytes)],
        Committed::Membership(bytes) => vec![Row::Membership(bytes)],
    };
    state.persist(Persist { slot, applied: log_id, rows }, from);
    shared.set_applied(log_id);
}

type Config = TypeConfig<Runtime>;
type Built = (Option<Disk>, LogStore<Runtime>, StateMachine<Runtime>);

impl StoreBuilder<Config, LogStore<Runtime>, StateMachine<Runtime>, Option<Disk>> for Builder {
    async fn build(&self) -> Result<Built, StorageError<Config>> {
        let group = GroupId::of(SlotId(3));
        let (guard, log, state) = (self.fresh)();
        let (sender, receiver) = completions(ShardId(0), Arc::new(|| {}));
        let lanes = Lanes::new(log, state.clone(), sender.clone());
        let pumped = lanes.clone();
        spawn::<Runtime>(async move {
            while let Ok(completion) = receiver.recv_async().await {
                if let Completion::Answer { token, result } = completion {
                    pumped.on_completion(token, result);
                }
            }
        });
        let log = lanes.ask(|lanes, done| lanes.log.load(group.0, 0, done));
        let Ok(Outcome::Log(stored)) = log.await else {
            panic!("the log could not be loaded");
        };
        let slot = lanes.ask(|lanes, done| lanes.state.open_slot(group.slot(), done));
        let Ok(Outcome::Slot(opened)) = slot.await else {
            panic!("the slot could not be opened");
        };
        let core = Rc::new(RefCell::new(LogCore::restore(&stored).unwrap()));
        let membership = membership_of(opened.membership.as_deref()).unwrap();
        let shared = Rc::new_cyclic(|weak: &std::rc::Weak<Shared>| {
            let weak = weak.clone();
            let sink = Rc::new(move |event| {
                apply(&*state, &sender, &weak.upgrade().unwrap(), event);
            });
            Shared::new(group, 0, sink, opened.rows.applied)
        });
        let bounds = Bounds { tail_size_max: self.tail_size_max, read_size_max: 400 };
        let store = LogStore::new(group, lanes.clone(), core, bounds);
        Ok((guard, store, StateMachine::new(shared, lanes, membership)))
    }
}

fn check(fresh: fn() -> Fresh, tail_size_max: usize) {
    let builder = Builder { fresh, tail_size_max };
    Runtime::new(1).block_on(async move {
        Suite::test_all(builder).await.expect("the suite passes");
    });
}

#[test]
fn the_suite_passes_in_memory() {
    check(memory, 1 << 20);
}

#[test]
fn the_suite_passes_when_every_read_goes_to_the_lane() {
    check(memory, 0);
}

#[test]
fn the_suite_passes_on_disk() {
    check(disk, 1_000);
}
