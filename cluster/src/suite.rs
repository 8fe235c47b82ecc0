//! openraft's own storage suite, on our log store and state machine over the lanes.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

use std::{
    cell::RefCell,
    path::Path,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

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

use crate::{
    Runtime,
    group::spawn,
    lanes::Lanes,
    log_store::{Bounds, LogCore, LogStore},
    shared::Shared,
    state_machine::{StateMachine, membership_of},
    types::{GroupId, TypeConfig},
};

/// Two nodes, which the tests of the suite get in turns; each test gets slots of its own. The one
/// that takes a snapshot from one node to the other builds two stores in a row, which must be of
/// one slot.
struct Builder {
    nodes: [NodeLanes; 2],
    built: AtomicU16,
    /// With a bound of nothing every read goes to the lane.
    tail_size_max: usize,
}

type NodeLanes = (Arc<dyn LogStorage>, Arc<dyn StateStorage>);

fn memory() -> NodeLanes {
    (Arc::new(MemoryLog::new()), Arc::new(MemoryState::new()))
}

fn disk(path: &Path) -> Storage {
    Storage::open(&StorageOptions {
        path: path.to_owned(),
        node: NodeId(1),
        slot_count: 64,
        state_cache_size: 32 << 20,
        state_sync_interval: Duration::from_secs(5),
        on_fatal: Arc::new(|error| panic!("{error}")),
        on_idle: jindou_storage::OnIdle::default(),
        on_synced: Arc::new(|_| {}),
    })
    .unwrap()
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
type Built = ((), LogStore<Runtime>, StateMachine<Runtime>);

impl StoreBuilder<Config, LogStore<Runtime>, StateMachine<Runtime>> for Builder {
    async fn build(&self) -> Result<Built, StorageError<Config>> {
        let built = self.built.fetch_add(1, Ordering::Relaxed);
        let group = GroupId::of(SlotId(built / 2));
        let (log, state) = self.nodes[usize::from(built % 2)].clone();
        let (sender, receiver) = completions(ShardId(0), Arc::new(|| {}));
        let lanes = Lanes::new(0, log, state.clone(), sender.clone());
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
        Ok(((), store, StateMachine::new(shared, lanes, membership)))
    }
}

fn check(nodes: [NodeLanes; 2], tail_size_max: usize) {
    let builder = Builder { nodes, built: AtomicU16::new(0), tail_size_max };
    Runtime::new(1).block_on(async move {
        Suite::test_all(builder).await.expect("the suite passes");
    });
}

#[test]
fn the_suite_passes_in_memory() {
    check([memory(), memory()], 1 << 20);
}

#[test]
fn the_suite_passes_when_every_read_goes_to_the_lane() {
    check([memory(), memory()], 0);
}

#[test]
fn the_suite_passes_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = ["one", "two"].map(|name| disk(&dir.path().join(name)));
    check(nodes.each_ref().map(|node| (node.log(), node.state())), 1_000);
    for node in nodes {
        node.close();
    }
}
