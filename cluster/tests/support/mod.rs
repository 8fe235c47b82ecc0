//! A shard that counts: what the tests put around the groups in place of core, net and wiring.

#![allow(dead_code, reason = "every test file uses a part")]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::wildcard_enum_match_arm,
    reason = "tests"
)]

pub(crate) mod cluster;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use futures::{StreamExt, channel::mpsc};
use jindou_cluster::{AsyncRuntime, Groups, Node, Options, Router, Runtime, Setup, Transport};
use jindou_core::{
    effect::{Committed, Event},
    id::{LogId, NodeId, ShardId, SlotId},
    row::{Persist, Row},
};
use jindou_storage::{
    Completion, CompletionSender, LogStorage, Outcome, StateStorage, StorageError, completions,
};

pub(crate) type Answer = Result<Outcome, StorageError>;

/// What a shard knows of a slot: enough to show that two shards applied the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Toy {
    pub(crate) applied: Option<LogId>,
    /// Entries applied, blanks and memberships left out.
    pub(crate) count: u64,
    /// Of all of them in order.
    pub(crate) hash: u64,
}

impl Toy {
    fn row(&self) -> Row {
        let mut value = BytesMut::new();
        value.put_u64(self.count);
        value.put_u64(self.hash);
        Row::ClusterKey { key: "toy".into(), value: value.freeze() }
    }

    fn restore(applied: Option<LogId>, rows: &[(String, Bytes)]) -> Self {
        let value = rows.iter().find(|(key, _)| key == "toy");
        let (count, hash) = value.map_or((0, 0), |(_, value)| {
            let (count, hash) = value.split_at(8);
            (
                u64::from_be_bytes(count.try_into().unwrap()),
                u64::from_be_bytes(hash.try_into().unwrap()),
            )
        });
        Self { applied, count, hash }
    }

    pub(crate) fn step(&mut self, entry: &[u8]) {
        self.count += 1;
        for byte in entry {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

/// What a shard has seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) toys: BTreeMap<SlotId, Toy>,
    /// Own proposals that were committed since the start, in order.
    pub(crate) committed: Vec<(SlotId, u64)>,
    pub(crate) failed: Vec<(SlotId, u64)>,
    pub(crate) leading: BTreeMap<SlotId, bool>,
    /// Leases of slots that it leads, as told last.
    pub(crate) leases: BTreeMap<SlotId, u64>,
    /// Leaders and terms, as told last.
    pub(crate) leaders: BTreeMap<SlotId, (Option<NodeId>, u64)>,
    pub(crate) opened: BTreeMap<SlotId, usize>,
    /// Events in words, for tests of their order.
    pub(crate) events: Vec<String>,
}

/// What happens to answers of the lanes on their way.
pub(crate) type Meddle = Rc<dyn Fn(Answer) -> Answer>;

/// A node with one shard.
pub(crate) struct TestNode<T> {
    pub(crate) groups: Groups<Runtime, T>,
    pub(crate) seen: Rc<RefCell<Seen>>,
    pub(crate) alive: Rc<Cell<bool>>,
    pub(crate) log: Arc<dyn LogStorage>,
    pub(crate) state: Arc<dyn StateStorage>,
    pub(crate) router: Router,
    /// Events wait while this is set.
    pub(crate) paused: Rc<Cell<bool>>,
    /// Applied entries are given to the state lane with this many more rows.
    pub(crate) ballast: Rc<Cell<usize>>,
    pub(crate) id: NodeId,
}

pub(crate) fn no_meddling() -> Meddle {
    Rc::new(|answer| answer)
}

pub(crate) fn entry(proposal: u64, size: usize) -> Bytes {
    let mut bytes = BytesMut::zeroed(size.max(8));
    bytes[..8].copy_from_slice(&proposal.to_be_bytes());
    bytes.freeze()
}

impl<T: Transport> TestNode<T> {
    pub(crate) fn start(
        id: u64,
        log: Arc<dyn LogStorage>,
        state: Arc<dyn StateStorage>,
        transport: T,
        options: Options,
        meddle: Meddle,
    ) -> Self {
        Self::start_watched(id, log, state, transport, options, meddle, Rc::new(|_| ()))
    }

    /// `on_leading` is called when the shard hears that it leads a slot.
    pub(crate) fn start_watched(
        id: u64,
        log: Arc<dyn LogStorage>,
        state: Arc<dyn StateStorage>,
        transport: T,
        options: Options,
        meddle: Meddle,
        on_leading: Rc<dyn Fn(SlotId)>,
    ) -> Self {
        let id = NodeId(id);
        let (sender, receiver) = completions(ShardId(0), Arc::new(|| {}));
        let (inbox, events) = mpsc::unbounded();
        let router = Router::new(id, 1, 64);
        let groups = Groups::new(Setup {
            node: id,
            log: log.clone(),
            state: state.clone(),
            completions: sender.clone(),
            sink: Rc::new(move |event| {
                let _ = inbox.unbounded_send(event);
            }),
            transport,
            router: router.clone(),
            options,
        })
        .unwrap();
        let node = Self {
            groups,
            seen: Rc::default(),
            alive: Rc::new(Cell::new(true)),
            log,
            state,
            router,
            paused: Rc::default(),
            ballast: Rc::default(),
            id,
        };
        let groups = node.groups.clone();
        drop(Runtime::spawn(async move {
            while let Ok(completion) = receiver.recv_async().await {
                if let Completion::Answer { token, result } = completion {
                    assert!(Groups::<Runtime, T>::owns(token));
                    groups.on_completion(token, meddle(result));
                }
            }
        }));
        drop(Runtime::spawn(node.shard(events, sender, on_leading)));
        node
    }

    fn shard(
        &self,
        mut events: mpsc::UnboundedReceiver<Event>,
        sender: CompletionSender,
        on_leading: Rc<dyn Fn(SlotId)>,
    ) -> impl Future<Output = ()> + use<T> {
        let (groups, seen) = (self.groups.clone(), self.seen.clone());
        let (state, paused) = (self.state.clone(), self.paused.clone());
        let ballast = self.ballast.clone();
        async move {
            while let Some(event) = events.next().await {
                while paused.get() {
                    Runtime::sleep(Duration::from_millis(1)).await;
                }
                let seen = &mut *seen.borrow_mut();
                match event {
                    Event::SlotOpened { slot, rows } => {
                        seen.events.push(format!("{slot} opened"));
                        *seen.opened.entry(slot).or_default() += 1;
                        let toy = Toy::restore(rows.applied, &rows.cluster);
                        seen.toys.insert(slot, toy);
                    }
                    Event::Committed { slot, log_id, body } => {
                        let toy = seen.toys.get_mut(&slot).unwrap();
                        let expected = toy.applied.map_or(0, |applied| applied.index + 1);
                        assert_eq!(log_id.index, expected, "{slot}: each entry once, in order");
                        toy.applied = Some(log_id);
                        let mut rows = Vec::new();
                        match body {
                            Committed::Blank => {}
                            Committed::Membership(bytes) => rows.push(Row::Membership(bytes)),
                            Committed::Entry(bytes) => {
                                toy.step(&bytes);
                                let proposal = bytes.first_chunk::<8>().unwrap();
                                let proposal = u64::from_be_bytes(*proposal);
                                seen.committed.push((slot, proposal));
                                for n in 0..ballast.get() {
                                    rows.push(Row::ClusterKey {
                                        key: format!("ballast {proposal} {n}"),
                                        value: bytes.clone(),
                                    });
                                }
                                rows.push(toy.row());
                            }
                        }
                        let persist = Persist { slot, applied: log_id, rows };
                        state.persist(persist, &sender);
                        groups.applied(slot, log_id);
                    }
                    Event::Leading { slot, leading } => {
                        seen.events.push(format!("{slot} leading {leading}"));
                        seen.leading.insert(slot, leading);
                        seen.leases.remove(&slot);
                        if leading {
                            on_leading(slot);
                        }
                    }
                    Event::ProposeFailed { slot, proposal } => {
                        seen.events.push(format!("{slot} failed {proposal}"));
                        seen.failed.push((slot, proposal));
                    }
                    Event::Leases(leases) => seen.leases.extend(leases),
                    Event::Leader { slot, leader, term } => {
                        let before = seen.leaders.insert(slot, (leader, term));
                        assert!(before.is_none_or(|(_, before)| before <= term), "{slot}");
                    }
                    other => panic!("not for a shard of tests: {other:?}"),
                }
            }
        }
    }

    /// Opens slots and makes a cluster of one of those that are fresh.
    pub(crate) async fn open_alone(&self, slots: &[SlotId]) {
        self.groups.open(slots).await.unwrap();
        let members = BTreeMap::from([(self.id, Node::default())]);
        self.groups.bootstrap(&members).await.unwrap();
    }

    pub(crate) fn is_leading(&self, slot: SlotId) -> bool {
        self.seen.borrow().leading.get(&slot) == Some(&true)
    }

    pub(crate) fn leading_count(&self) -> usize {
        let seen = self.seen.borrow();
        seen.leading.values().filter(|leading| **leading).count()
    }

    pub(crate) fn toy(&self, slot: SlotId) -> Toy {
        let seen = self.seen.borrow();
        seen.toys.get(&slot).cloned().unwrap_or_default()
    }

    pub(crate) fn count(&self, slot: SlotId) -> u64 {
        self.toy(slot).count
    }

    pub(crate) fn committed(&self) -> Vec<(SlotId, u64)> {
        self.seen.borrow().committed.clone()
    }

    pub(crate) fn failed(&self) -> Vec<(SlotId, u64)> {
        self.seen.borrow().failed.clone()
    }
}

/// Waits for a condition; ten seconds are an error of the test.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if condition() {
            return;
        }
        Runtime::sleep(Duration::from_millis(1)).await;
    }
    panic!("not within ten seconds: {what}");
}

/// Runs a test in a runtime of its own, as a process would: when it returns, tasks and timers are
/// gone, without a word to anybody.
pub(crate) fn life<O: Send + 'static>(test: impl AsyncFnOnce() -> O + Send + 'static) -> O {
    std::thread::spawn(move || Runtime::new(1).block_on(test())).join().unwrap()
}

pub(crate) const SLOT: SlotId = SlotId(3);
