//! Some nodes in one thread: the code of one node each, over links that are function calls with
//! delays, and the pings that go with them.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{FutureExt, channel::oneshot, future::LocalBoxFuture};
use jindou_cluster::{
    AsyncRuntime, CLUSTER_SLOT, GroupId, Groups, Node, Options, Runtime, Transport, TransportError,
};
use jindou_core::id::{NodeId, SlotId};
use jindou_storage::{
    LogStorage, MemoryLog, MemoryState, Outcome, StateStorage, Storage, StorageOptions, wait,
};
use tempfile::TempDir;

use super::{SLOT, Seen, TestNode, Toy, entry, no_meddling, until};

const PING: Duration = Duration::from_millis(100);
const SILENCE_MS: u64 = 600;

pub(crate) struct World {
    pub(crate) nodes: BTreeMap<NodeId, Groups<Runtime, Wire>>,
    pub(crate) cut: BTreeSet<NodeId>,
    pub(crate) frames: usize,
    /// Every frame, ping and answer takes up to this long.
    pub(crate) delay_max: Duration,
    dice: u64,
    start: Instant,
    seen: BTreeMap<NodeId, Rc<RefCell<Seen>>>,
    pub(crate) incarnations: BTreeMap<NodeId, u64>,
    /// Leaders that were elected while another node had a lease.
    pub(crate) overlaps: Vec<String>,
}

impl World {
    pub(crate) fn now_ms(&self) -> u64 {
        // Far from zero: clocks have any origin.
        1_000_000 + u64::try_from(self.start.elapsed().as_millis()).unwrap()
    }

    pub(crate) fn roll(&mut self, below: u64) -> u64 {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695);
        (self.dice >> 33) % below.max(1)
    }

    fn delay(&mut self) -> Duration {
        let max = u64::try_from(self.delay_max.as_micros()).unwrap();
        Duration::from_micros(self.roll(max))
    }

    fn is_cut(&self, a: NodeId, b: NodeId) -> bool {
        self.cut.contains(&a) || self.cut.contains(&b)
    }

    fn reach(&self, from: NodeId, to: NodeId) -> Option<Groups<Runtime, Wire>> {
        self.nodes.get(&to).filter(|_| !self.is_cut(from, to)).cloned()
    }

    /// A node leads: nobody else may be sure that it does.
    fn on_leading(&mut self, node: NodeId, slot: SlotId) {
        let now_ms = self.now_ms();
        for (other, seen) in self.seen.iter().filter(|(other, _)| **other != node) {
            let Ok(seen) = seen.try_borrow() else { continue };
            let lease = seen.leases.get(&slot).copied().unwrap_or(0);
            if lease > now_ms {
                self.overlaps.push(format!(
                    "{slot}: {node:?} leads at {now_ms}, {other:?} has a lease until {lease}"
                ));
            }
        }
    }
}

/// One node's way to the others.
#[derive(Clone)]
pub(crate) struct Wire {
    from: NodeId,
    pub(crate) world: Rc<RefCell<World>>,
}

impl Transport for Wire {
    fn call(
        &self,
        to: NodeId,
        _: &Node,
        group: GroupId,
        frame: Bytes,
    ) -> LocalBoxFuture<'static, Result<Bytes, TransportError>> {
        let (from, world) = (self.from, self.world.clone());
        let (sender, receiver) = oneshot::channel();
        let (target, delays) = {
            let mut world = world.borrow_mut();
            world.frames += 1;
            let delays = (!world.delay_max.is_zero()).then(|| (world.delay(), world.delay()));
            (world.reach(from, to), delays)
        };
        let Some(target) = target else {
            return async move { Err(TransportError::Unreachable(to)) }.boxed_local();
        };
        let Some((there, back)) = delays else {
            target.receive(group, frame, |answer| drop(sender.send(answer)));
            return async move { receiver.await.map_err(|_| TransportError::Unreachable(to)) }
                .boxed_local();
        };
        async move {
            Runtime::sleep(there).await;
            let target = world.borrow().reach(from, to);
            let target = target.ok_or(TransportError::Broken("cut".into()))?;
            target.receive(group, frame, |answer| drop(sender.send(answer)));
            let answer = receiver.await.map_err(|_| TransportError::Unreachable(to))?;
            Runtime::sleep(back).await;
            if world.borrow().is_cut(from, to) {
                return Err(TransportError::Broken("cut".into()));
            }
            Ok(answer)
        }
        .boxed_local()
    }
}

pub(crate) struct Cluster {
    pub(crate) world: Rc<RefCell<World>>,
    pub(crate) nodes: BTreeMap<u64, TestNode<Wire>>,
    pub(crate) lanes: BTreeMap<u64, Lanes>,
    on_disk: bool,
    pub(crate) next: u64,
    pub(crate) slots: Vec<SlotId>,
}

/// What a node keeps while it is down.
pub(crate) enum Lanes {
    Memory(Arc<MemoryLog>, Arc<MemoryState>),
    Disk(TempDir, Option<Storage>),
}

impl Lanes {
    fn new(on_disk: bool) -> Self {
        if on_disk {
            Self::Disk(tempfile::tempdir().unwrap(), None)
        } else {
            Self::Memory(Arc::default(), Arc::default())
        }
    }

    fn open(&mut self, id: u64) -> (Arc<dyn LogStorage>, Arc<dyn StateStorage>) {
        match self {
            Self::Memory(log, state) => (log.clone(), state.clone()),
            Self::Disk(dir, open) => {
                let options = StorageOptions {
                    path: dir.path().join("data"),
                    node: NodeId(id),
                    slot_count: 64,
                    state_cache_size: 32 << 20,
                    state_sync_interval: Duration::from_secs(5),
                    on_fatal: Arc::new(|error| panic!("{error}")),
                    on_idle: jindou_storage::OnIdle::default(),
                    on_synced: Arc::new(|_| {}),
                };
                let storage = open.insert(Storage::open(&options).unwrap());
                (storage.log(), storage.state())
            }
        }
    }

    pub(crate) fn close(&mut self) {
        if let Self::Disk(_, open) = self
            && let Some(storage) = open.take()
        {
            storage.close();
        }
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        self.close();
    }
}

/// How a member is reached in these tests.
pub(crate) fn member(id: u64) -> (NodeId, Node) {
    (NodeId(id), Node { addr: format!("10.0.0.{id}:11110"), api_url: String::new() })
}

impl Cluster {
    /// Three nodes with one slot.
    pub(crate) async fn start() -> Self {
        Self::start_on(false).await
    }

    pub(crate) async fn start_on(on_disk: bool) -> Self {
        Self::of(3, 3, &[SLOT], on_disk).await
    }

    /// So many nodes, with so many replicas of each slot.
    pub(crate) async fn of(
        node_count: u64,
        replica_count: usize,
        slots: &[SlotId],
        on_disk: bool,
    ) -> Self {
        let world = World {
            nodes: BTreeMap::new(),
            cut: BTreeSet::new(),
            frames: 0,
            delay_max: Duration::ZERO,
            dice: 7,
            start: Instant::now(),
            seen: BTreeMap::new(),
            incarnations: BTreeMap::new(),
            overlaps: Vec::new(),
        };
        let mut cluster = Self {
            on_disk,
            world: Rc::new(RefCell::new(world)),
            nodes: BTreeMap::new(),
            lanes: BTreeMap::new(),
            next: 0,
            slots: slots.to_vec(),
        };
        for id in 1..=node_count {
            cluster.boot(id).await;
        }
        let members = (1..=node_count).map(member).collect();
        for node in cluster.nodes.values() {
            node.groups.bootstrap_placed(slots, &members, replica_count).await.unwrap();
        }
        cluster
    }

    /// Starts a node: what it has on disk is opened.
    pub(crate) async fn boot(&mut self, id: u64) {
        let lanes = self.lanes.entry(id);
        let (log, state) = lanes.or_insert_with(|| Lanes::new(self.on_disk)).open(id);
        let wire = Wire { from: NodeId(id), world: self.world.clone() };
        let options = Options { keep_count: 20, purge_count_min: 1, ..Options::default() };
        let world = self.world.clone();
        let on_leading = Rc::new(move |slot| world.borrow_mut().on_leading(NodeId(id), slot));
        let node =
            TestNode::start_watched(id, log, state, wire, options, no_meddling(), on_leading);
        {
            let mut world = self.world.borrow_mut();
            world.nodes.insert(NodeId(id), node.groups.clone());
            world.seen.insert(NodeId(id), node.seen.clone());
            *world.incarnations.entry(NodeId(id)).or_default() += 1;
            world.cut.remove(&NodeId(id));
        }
        let slots: Vec<_> = (0..64).map(SlotId).chain([CLUSTER_SLOT]).collect();
        node.groups.open_stored(&slots).await.unwrap();
        live(&self.world, &node);
        self.nodes.insert(id, node);
    }

    /// The node is gone, as far as the others can tell.
    pub(crate) async fn kill(&mut self, id: u64) {
        {
            let mut world = self.world.borrow_mut();
            world.cut.insert(NodeId(id));
            world.nodes.remove(&NodeId(id));
            world.seen.remove(&NodeId(id));
        }
        let node = self.nodes.remove(&id).unwrap();
        node.alive.set(false);
        node.groups.shutdown().await;
        self.lanes.get_mut(&id).unwrap().close();
    }

    pub(crate) fn leaders_of(&self, slot: SlotId) -> Vec<u64> {
        let leads = |(id, node): (&u64, &TestNode<Wire>)| node.is_leading(slot).then_some(*id);
        self.nodes.iter().filter_map(leads).collect()
    }

    pub(crate) fn leaders(&self) -> Vec<u64> {
        self.leaders_of(SLOT)
    }

    pub(crate) async fn leader_of(&self, slot: SlotId) -> u64 {
        until("one leads", || self.leaders_of(slot).len() == 1).await;
        self.leaders_of(slot)[0]
    }

    pub(crate) async fn leader(&self) -> u64 {
        self.leader_of(SLOT).await
    }

    pub(crate) fn propose(&mut self, id: u64) {
        let node = &self.nodes[&id];
        node.groups.propose(SLOT, self.next, entry(self.next, 500));
        self.next += 1;
    }

    /// Proposes at the leader and waits until the nodes that live have applied it all.
    pub(crate) async fn write(&mut self, count: u64) {
        let leader = self.leader().await;
        for _ in 0..count {
            self.propose(leader);
        }
        self.settled().await;
    }

    fn expected(&self) -> (u64, u64) {
        let mut expected = Toy::default();
        for proposal in 0..self.next {
            expected.step(&entry(proposal, 500));
        }
        (expected.count, expected.hash)
    }

    pub(crate) fn has_all(&self, id: u64) -> bool {
        let toy = self.nodes[&id].toy(SLOT);
        (toy.count, toy.hash) == self.expected()
    }

    /// Waits until all replicas have applied all proposals.
    pub(crate) async fn settled(&self) {
        let replicas = self.nodes.iter().filter(|(_, node)| node.groups.status(SLOT).is_some());
        let replicas: Vec<u64> = replicas.map(|(id, _)| *id).collect();
        let same = || replicas.iter().all(|id| self.has_all(*id));
        until("all have applied the same", same).await;
    }

    pub(crate) fn sync(&self) {
        for node in self.nodes.values() {
            let Ok(Outcome::Synced(moved)) = wait(|done| node.state.sync(done)) else {
                panic!("no sync");
            };
            node.groups.synced(&moved);
        }
    }

    pub(crate) fn first_index(&self, id: u64) -> u64 {
        let log = &self.nodes[&id].log;
        let Ok(Outcome::Log(stored)) = wait(|done| log.load(GroupId::of(SLOT).0, 0, done)) else {
            panic!("no log");
        };
        stored.first.unwrap()
    }
}

/// Ticks and pings, until the node is killed.
fn live(world: &Rc<RefCell<World>>, node: &TestNode<Wire>) {
    let (groups, alive, clock) = (node.groups.clone(), node.alive.clone(), world.clone());
    drop(Runtime::spawn(async move {
        while alive.get() {
            let now_ms = clock.borrow().now_ms();
            let due_ms = groups.tick(now_ms);
            assert!(due_ms > now_ms);
            Runtime::sleep(Duration::from_millis((due_ms - now_ms).min(50))).await;
        }
    }));
    let (groups, alive, world, id) =
        (node.groups.clone(), node.alive.clone(), world.clone(), node.id);
    drop(Runtime::spawn(async move {
        let links: Rc<RefCell<BTreeMap<NodeId, Link>>> = Rc::default();
        while alive.get() {
            let others: Vec<NodeId> = {
                let world = world.borrow();
                world.seen.keys().copied().filter(|other| *other != id).collect()
            };
            for other in others {
                let link = links.borrow_mut().entry(other).or_default().clone();
                link.turn(&world, &groups, id, other, &alive);
            }
            Runtime::sleep(PING).await;
        }
    }));
}

/// One node's links to another.
#[derive(Clone, Default)]
struct Link(Rc<Cell<(bool, u64)>>, Rc<Cell<u64>>);

impl Link {
    fn turn(
        &self,
        world: &Rc<RefCell<World>>,
        groups: &Groups<Runtime, Wire>,
        from: NodeId,
        to: NodeId,
        alive: &Rc<Cell<bool>>,
    ) {
        let (now_ms, reachable) = {
            let world = world.borrow();
            (world.now_ms(), world.reach(from, to).is_some())
        };
        let (up, heard_ms) = self.0.get();
        if up && now_ms > heard_ms + SILENCE_MS {
            self.0.set((false, 0));
            groups.peer(to, false);
        } else if !up && reachable {
            self.0.set((true, now_ms));
            let incarnation = world.borrow().incarnations[&to];
            if ![0, incarnation].contains(&self.1.replace(incarnation)) {
                groups.restarted(to);
            }
            groups.peer(to, true);
        }
        let (link, world, groups, alive) =
            (self.clone(), world.clone(), groups.clone(), alive.clone());
        drop(Runtime::spawn(async move {
            let (there, back) = {
                let mut world = world.borrow_mut();
                (world.delay(), world.delay())
            };
            Runtime::sleep(there).await;
            let target = world.borrow().reach(from, to);
            let Some(target) = target else { return };
            target.heard(from, world.borrow().now_ms());
            Runtime::sleep(back).await;
            let cut = world.borrow().is_cut(from, to);
            let (up, _) = link.0.get();
            if !cut && up && alive.get() {
                link.0.set((true, world.borrow().now_ms()));
                groups.peer_answered(to, now_ms);
            }
        }));
    }
}
