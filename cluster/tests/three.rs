//! Three replicas in one thread: the code of one node, over a transport that is a function call.
//! Links, placement and membership come later; this shows that they find everything in place.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, channel::oneshot, future::LocalBoxFuture};
use jindou_cluster::{
    AsyncRuntime, GroupId, Groups, Node, Options, Runtime, Transport, TransportError,
};
use jindou_core::id::NodeId;
use jindou_storage::{
    LogStorage, MemoryLog, MemoryState, Outcome, StateStorage, Storage, StorageOptions, wait,
};
use support::{SLOT, TestNode, Toy, entry, life, no_meddling, until};
use tempfile::TempDir;

#[derive(Default)]
struct World {
    nodes: BTreeMap<NodeId, Groups<Runtime, Wire>>,
    cut: BTreeSet<NodeId>,
    frames: usize,
}

/// One node's way to the others.
#[derive(Clone)]
struct Wire {
    from: NodeId,
    world: Rc<RefCell<World>>,
}

impl Transport for Wire {
    fn call(
        &self,
        to: NodeId,
        _: &Node,
        group: GroupId,
        frame: Bytes,
    ) -> LocalBoxFuture<'static, Result<Bytes, TransportError>> {
        let target = {
            let mut world = self.world.borrow_mut();
            world.frames += 1;
            let cut = world.cut.contains(&to) || world.cut.contains(&self.from);
            world.nodes.get(&to).filter(|_| !cut).cloned()
        };
        let (sender, receiver) = oneshot::channel();
        if let Some(target) = target {
            target.receive(group, frame, |answer| drop(sender.send(answer)));
        } else {
            drop(sender);
        }
        async move { receiver.await.map_err(|_| TransportError::Unreachable(to)) }.boxed_local()
    }
}

struct Cluster {
    world: Rc<RefCell<World>>,
    nodes: BTreeMap<u64, TestNode<Wire>>,
    lanes: BTreeMap<u64, Lanes>,
    on_disk: bool,
    next: u64,
}

/// What a node keeps while it is down.
enum Lanes {
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
                    on_fatal: Arc::new(|error| panic!("{error}")),
                    on_synced: Arc::new(|_| {}),
                };
                let storage = open.insert(Storage::open(&options).unwrap());
                (storage.log(), storage.state())
            }
        }
    }

    fn close(&mut self) {
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

impl Cluster {
    async fn start() -> Self {
        Self::start_on(false).await
    }

    async fn start_on(on_disk: bool) -> Self {
        let mut cluster = Self {
            on_disk,
            world: Rc::default(),
            nodes: BTreeMap::new(),
            lanes: BTreeMap::new(),
            next: 0,
        };
        for id in 1..=3 {
            cluster.boot(id).await;
        }
        let members = (1..=3).map(|id| (NodeId(id), Node::default())).collect();
        for node in cluster.nodes.values() {
            node.groups.bootstrap(&members).await.unwrap();
        }
        cluster
    }

    async fn boot(&mut self, id: u64) {
        let lanes = self.lanes.entry(id);
        let (log, state) = lanes.or_insert_with(|| Lanes::new(self.on_disk)).open(id);
        let wire = Wire { from: NodeId(id), world: self.world.clone() };
        let options = Options { keep_count: 20, purge_count_min: 1, ..Options::default() };
        let node = TestNode::start(id, log, state, wire, options, no_meddling());
        {
            let mut world = self.world.borrow_mut();
            world.nodes.insert(NodeId(id), node.groups.clone());
            world.cut.remove(&NodeId(id));
        }
        node.groups.open(&[SLOT]).await.unwrap();
        self.nodes.insert(id, node);
    }

    /// The node is gone, as far as the others can tell.
    async fn kill(&mut self, id: u64) {
        self.world.borrow_mut().cut.insert(NodeId(id));
        self.world.borrow_mut().nodes.remove(&NodeId(id));
        self.nodes.remove(&id).unwrap().groups.shutdown().await;
        self.lanes.get_mut(&id).unwrap().close();
    }

    fn leaders(&self) -> Vec<u64> {
        let leads = |(id, node): (&u64, &TestNode<Wire>)| node.is_leading(SLOT).then_some(*id);
        self.nodes.iter().filter_map(leads).collect()
    }

    async fn leader(&self) -> u64 {
        until("one leads", || self.leaders().len() == 1).await;
        self.leaders()[0]
    }

    /// Proposes at the leader and waits until the nodes that live have applied it all.
    async fn write(&mut self, count: u64) {
        let leader = self.leader().await;
        let node = &self.nodes[&leader];
        for _ in 0..count {
            node.groups.propose(SLOT, self.next, entry(self.next, 500));
            self.next += 1;
        }
        self.settled().await;
    }

    async fn settled(&self) {
        let mut expected = Toy::default();
        for proposal in 0..self.next {
            expected.step(&entry(proposal, 500));
        }
        let same = || {
            self.nodes.values().all(|node| {
                let toy = node.toy(SLOT);
                (toy.count, toy.hash) == (expected.count, expected.hash)
            })
        };
        until("all have applied the same", same).await;
    }

    fn sync(&self) {
        for node in self.nodes.values() {
            let Ok(Outcome::Synced(moved)) = wait(|done| node.state.sync(done)) else {
                panic!("no sync");
            };
            node.groups.synced(&moved);
        }
    }

    fn first_index(&self, id: u64) -> u64 {
        let log = &self.nodes[&id].log;
        let Ok(Outcome::Log(stored)) = wait(|done| log.load(GroupId::of(SLOT).0, 0, done)) else {
            panic!("no log");
        };
        stored.first.unwrap()
    }
}

#[test]
fn three_replicas_elect_a_leader_and_apply_the_same() {
    life(async || {
        let mut cluster = Cluster::start().await;
        cluster.write(500).await;
        let leader = cluster.leader().await;
        for node in cluster.nodes.values() {
            assert_eq!(node.router.leader(SLOT), Some(NodeId(leader)));
            assert_eq!(node.groups.ready(), 1);
            assert_eq!(node.failed(), []);
        }
        assert!(cluster.world.borrow().frames > 0);
    });
}

#[test]
fn a_proposal_at_a_follower_fails() {
    life(async || {
        let mut cluster = Cluster::start().await;
        cluster.write(1).await;
        let leader = cluster.leader().await;
        let follower = cluster.nodes.values().find(|node| node.id.0 != leader);
        let follower = follower.unwrap();
        follower.groups.propose(SLOT, 99, entry(99, 8));
        until("it fails", || follower.failed() == [(SLOT, 99)]).await;
    });
}

#[test]
fn a_dead_leader_is_replaced_and_catches_up_from_the_log() {
    life(async || {
        let mut cluster = Cluster::start().await;
        cluster.write(100).await;
        let dead = cluster.leader().await;
        cluster.kill(dead).await;
        let start = std::time::Instant::now();
        let heir = cluster.leader().await;
        let gap = start.elapsed();
        assert!(gap < Duration::from_secs(2), "{gap:?}");
        assert_ne!(heir, dead);
        cluster.write(100).await;
        cluster.boot(dead).await;
        cluster.settled().await;
        assert_eq!(cluster.nodes[&dead].seen.borrow().opened[&SLOT], 1);
        cluster.write(100).await;
    });
}

#[test]
fn a_follower_that_missed_what_was_purged_gets_a_snapshot() {
    life(async || snapshot_for_a_late_follower(false, 0).await);
}

#[test]
fn on_disk_a_snapshot_of_many_chunks_replaces_a_late_followers_rows() {
    life(async || snapshot_for_a_late_follower(true, 12).await);
}

async fn snapshot_for_a_late_follower(on_disk: bool, ballast: usize) {
    let mut cluster = Cluster::start_on(on_disk).await;
    cluster.write(100).await;
    let leader = cluster.leader().await;
    let late = (1..=3).find(|id| *id != leader).unwrap();
    cluster.kill(late).await;
    for node in cluster.nodes.values() {
        node.ballast.set(ballast);
    }
    cluster.write(500).await;
    cluster.sync();
    until("purged", || cluster.first_index(leader) > 500).await;
    cluster.boot(late).await;
    cluster.settled().await;
    let node = &cluster.nodes[&late];
    let opened = node.seen.borrow().opened[&SLOT];
    assert_eq!(opened, 2, "opened again by the snapshot");
    node.ballast.set(ballast);
    cluster.write(100).await;
    let hashes: Vec<_> = cluster.nodes.values().map(hash).collect();
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    // What it got is as good as the rest: it can lead.
    let leader = cluster.leader().await;
    cluster.kill(leader).await;
    cluster.write(100).await;
    // And restart.
    cluster.kill(late).await;
    cluster.boot(leader).await;
    cluster.boot(late).await;
    cluster.write(100).await;
}

/// Of all rows of the slot in the state store.
fn hash(node: &TestNode<Wire>) -> u128 {
    match wait(|done| node.state.hash(SLOT, done)) {
        Ok(Outcome::Hash(hash)) => hash,
        other => panic!("no hash: {other:?}"),
    }
}

#[test]
fn an_emptied_node_gets_everything_again() {
    life(async || {
        let mut cluster = Cluster::start().await;
        cluster.write(300).await;
        cluster.sync();
        let leader = cluster.leader().await;
        until("purged", || cluster.first_index(leader) > 200).await;
        let wiped = (1..=3).find(|id| *id != leader).unwrap();
        cluster.kill(wiped).await;
        cluster.lanes.remove(&wiped);
        cluster.write(10).await;
        cluster.boot(wiped).await;
        cluster.settled().await;
    });
}

#[test]
fn a_minority_confirms_nothing_and_agrees_later() {
    life(async || {
        let mut cluster = Cluster::start().await;
        cluster.write(10).await;
        let old = cluster.leader().await;
        cluster.world.borrow_mut().cut.insert(NodeId(old));
        let lost = &cluster.nodes[&old];
        for proposal in 1_000..1_010 {
            lost.groups.propose(SLOT, proposal, entry(proposal, 500));
        }
        let others: Vec<u64> = (1..=3).filter(|id| *id != old).collect();
        until("another leads", || others.iter().any(|id| cluster.nodes[id].is_leading(SLOT))).await;
        assert_eq!(lost.count(SLOT), 10);
        let heir = others.iter().find(|id| cluster.nodes[id].is_leading(SLOT)).unwrap();
        for _ in 0..10 {
            let node = &cluster.nodes[heir];
            node.groups.propose(SLOT, cluster.next, entry(cluster.next, 500));
            cluster.next += 1;
        }
        cluster.world.borrow_mut().cut.clear();
        cluster.settled().await;
        let failed = cluster.nodes[&old].failed();
        assert_eq!(failed.len(), 10, "{failed:?}");
        assert_eq!(cluster.leaders().len(), 1);
    });
}

#[test]
fn a_group_that_slept_wakes_for_a_proposal() {
    life(async || {
        let mut cluster = Cluster::start().await;
        cluster.write(10).await;
        for node in cluster.nodes.values() {
            node.groups.hibernate(SLOT, true);
        }
        Runtime::sleep(Duration::from_millis(100)).await;
        let frames = cluster.world.borrow().frames;
        Runtime::sleep(Duration::from_millis(1_500)).await;
        assert_eq!(cluster.world.borrow().frames, frames, "nobody says a word");
        let start = std::time::Instant::now();
        cluster.write(20).await;
        let waking = start.elapsed();
        assert!(waking < Duration::from_millis(200), "{waking:?}");
        let leader = cluster.leader().await;
        assert_eq!(cluster.nodes[&leader].failed(), []);
    });
}
