//! openraft's own storage suite, on our log store and state machine over the lanes.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
};

use bytes::Bytes;
use jindou_core::{
    effect::{Committed, Event},
    id::{ShardId, SlotId},
    row::{Persist, Row},
};
use jindou_storage::{
    Completion, CompletionSender, LogStorage, MemoryLog, MemoryState, Outcome, StateStorage,
    completions,
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

/// Makes stores that share lanes, each a group of its own, as the suite wants fresh ones.
struct Builder {
    log: Arc<dyn LogStorage>,
    state: Arc<dyn StateStorage>,
    next: AtomicU16,
    /// With a bound of nothing every read goes to the lane.
    tail_size_max: usize,
}

/// The shard of these tests: an applied entry is a row.
fn apply(state: &dyn StateStorage, from: &CompletionSender, shared: &Shared, event: Event) {
    let Event::Committed { slot, log_id, body } = event else {
        return;
    };
    let row = |value: Bytes| Row::ClusterKey {
        key: format!("entry {}", log_id.index),
        value,
    };
    let rows = match body {
        Committed::Blank => vec![row(Bytes::from_static(b"blank"))],
        Committed::Entry(bytes) => vec![row(bytes)],
        Committed::Membership(bytes) => vec![Row::Membership(bytes)],
    };
    state.persist(
        Persist {
            slot,
            applied: log_id,
            rows,
        },
        from,
    );
    shared.set_applied(log_id);
}

impl StoreBuilder<TypeConfig<Runtime>, LogStore<Runtime>, StateMachine<Runtime>> for Builder {
    async fn build(
        &self,
    ) -> Result<((), LogStore<Runtime>, StateMachine<Runtime>), StorageError<TypeConfig<Runtime>>>
    {
        let group = GroupId::of(SlotId(self.next.fetch_add(1, Ordering::Relaxed)));
        let (sender, receiver) = completions(ShardId(0), Arc::new(|| {}));
        let lanes = Lanes::new(self.log.clone(), self.state.clone(), sender.clone());
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
        let state = self.state.clone();
        let shared = Rc::new_cyclic(|weak: &std::rc::Weak<Shared>| {
            let weak = weak.clone();
            let sink = Rc::new(move |event| {
                apply(&*state, &sender, &weak.upgrade().unwrap(), event);
            });
            Shared::new(group, 0, sink, opened.rows.applied)
        });
        let bounds = Bounds {
            tail_size_max: self.tail_size_max,
            read_size_max: 400,
        };
        let store = LogStore::new(group, lanes.clone(), core, bounds);
        Ok(((), store, StateMachine::new(shared, lanes, membership)))
    }
}

fn check(log: Arc<dyn LogStorage>, state: Arc<dyn StateStorage>, tail_size_max: usize) {
    let builder = Builder {
        log,
        state,
        next: AtomicU16::new(0),
        tail_size_max,
    };
    Runtime::new(1).block_on(async move {
        Suite::test_all(builder).await.expect("the suite passes");
    });
}

#[test]
fn the_suite_passes_in_memory() {
    check(
        Arc::new(MemoryLog::new()),
        Arc::new(MemoryState::new()),
        1 << 20,
    );
}

#[test]
fn the_suite_passes_when_every_read_goes_to_the_lane() {
    check(Arc::new(MemoryLog::new()), Arc::new(MemoryState::new()), 0);
}
