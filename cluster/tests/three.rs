//! Replicas in one thread: the code of one node, over links that are function calls.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::time::Duration;

use jindou_cluster::{AsyncRuntime, Runtime};
use jindou_core::id::NodeId;
use jindou_storage::{Outcome, wait};
use support::{
    SLOT, TestNode,
    cluster::{Cluster, Wire},
    entry, life, until,
};

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
        assert!(gap < Duration::from_millis(1_500), "{gap:?}");
        assert_ne!(heir, dead);
        assert!(cluster.nodes[&heir].groups.elections() > 0);
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
fn an_idle_group_says_nothing_and_takes_a_proposal_at_once() {
    life(async || {
        let mut cluster = Cluster::start().await;
        cluster.write(10).await;
        Runtime::sleep(Duration::from_millis(300)).await;
        let frames = cluster.world.borrow().frames;
        Runtime::sleep(Duration::from_millis(1_500)).await;
        assert_eq!(cluster.world.borrow().frames, frames, "nobody says a word");
        let leader = cluster.leader().await;
        let start = std::time::Instant::now();
        cluster.propose(leader);
        until("it is committed", || cluster.has_all(leader)).await;
        let waking = start.elapsed();
        assert!(waking < Duration::from_millis(100), "{waking:?}");
        // The followers hear of it without another proposal.
        cluster.settled().await;
        assert!(start.elapsed() < Duration::from_millis(600), "{:?}", start.elapsed());
        assert_eq!(cluster.nodes[&leader].failed(), []);
    });
}
