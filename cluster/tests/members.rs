//! Replicas that come, go, and lose what they had.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod support;

use std::time::Duration;

use jindou_cluster::{AsyncRuntime, CLUSTER_SLOT, GroupStatus, MembershipError, Runtime};
use jindou_core::id::{NodeId, SlotId};
use support::{
    SLOT,
    cluster::{Cluster, member},
    life, until,
};

impl Cluster {
    fn status(&self, id: u64) -> Option<GroupStatus> {
        self.nodes[&id].groups.status(SLOT)
    }

    /// Makes these nodes the voters, whoever leads meanwhile.
    async fn set_voters(&self, ids: &[u64]) {
        let desired: Vec<_> = ids.iter().copied().map(member).collect();
        for _ in 0..20 {
            let leader = self.leader().await;
            let groups = self.nodes[&leader].groups.clone();
            match groups.change_voters(SLOT, &desired).await {
                Ok(()) => return,
                Err(MembershipError::Moved(_) | MembershipError::NotLeader { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            Runtime::sleep(Duration::from_millis(20)).await;
        }
        panic!("the voters were not changed");
    }
}

fn nodes(ids: &[u64]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

#[test]
fn a_fourth_node_takes_the_place_of_each_of_three() {
    life(async || {
        let mut cluster = Cluster::start().await;
        cluster.write(400).await;
        cluster.sync();
        let leader = cluster.leader().await;
        until("purged", || cluster.first_index(leader) > 300).await;
        cluster.boot(4).await;
        assert!(cluster.status(4).is_none(), "nothing is open that nobody spoke to");
        let mut voters = vec![1, 2, 3];
        for (gone, new) in [(1, 4), (2, 1), (3, 2), (4, 3)] {
            voters.retain(|id| *id != gone);
            voters.push(new);
            cluster.set_voters(&voters).await;
            voters.sort_unstable();
            let leader = cluster.leader().await;
            let status = cluster.status(leader).unwrap();
            assert_eq!((status.voters, status.joint), (nodes(&voters), false));
            assert_eq!(status.learners, []);
            until("the one that left is closed", || cluster.status(gone).is_none()).await;
            cluster.write(20).await;
            assert!(voters.iter().all(|id| cluster.status(*id).unwrap().may_vote));
        }
        // It is a cluster like any other.
        let leader = cluster.leader().await;
        cluster.kill(leader).await;
        cluster.write(20).await;
    });
}

#[test]
fn a_slot_of_one_grows_to_three_and_has_leases() {
    life(async || {
        let mut cluster = Cluster::of(1, 1, &[SLOT], false).await;
        cluster.write(10).await;
        assert_eq!(cluster.nodes[&1].seen.borrow().leases[&SLOT], u64::MAX);
        cluster.boot(2).await;
        cluster.boot(3).await;
        cluster.set_voters(&[1, 2, 3]).await;
        until("a lease of a leader with followers", || {
            let lease = cluster.nodes[&1].seen.borrow().leases[&SLOT];
            lease != u64::MAX && lease > cluster.world.borrow().now_ms()
        })
        .await;
        cluster.write(10).await;
        cluster.kill(1).await;
        cluster.write(10).await;
    });
}

#[test]
fn slots_live_where_they_are_placed_and_only_there() {
    life(async || {
        let mut slots: Vec<_> = (0..8).map(SlotId).collect();
        slots.push(CLUSTER_SLOT);
        let cluster = Cluster::of(6, 3, &slots, false).await;
        for slot in &slots {
            cluster.leader_of(*slot).await;
        }
        for slot in 0..8 {
            let here = |id: &u64| cluster.nodes[id].groups.status(SlotId(slot)).is_some();
            let holders: Vec<u64> = cluster.nodes.keys().copied().filter(here).collect();
            let mut expected: Vec<u64> = (0..3).map(|n| (u64::from(slot) + n) % 6 + 1).collect();
            expected.sort_unstable();
            assert_eq!(holders, expected, "{slot}");
        }
        let leader = cluster.leader_of(CLUSTER_SLOT).await;
        let groups = cluster.nodes[&leader].groups.clone();
        assert_eq!(groups.status(CLUSTER_SLOT).unwrap().voters, nodes(&[1, 2, 3, 4, 5]));
        groups.set_learners(CLUSTER_SLOT, &[member(6)]).await.unwrap();
        let copies = || {
            let status = cluster.nodes[&6].groups.status(CLUSTER_SLOT);
            status.is_some_and(|status| status.learners == nodes(&[6]) && status.leader.is_some())
        };
        until("the sixth node copies the cluster's group", copies).await;
        groups.set_learners(CLUSTER_SLOT, &[]).await.unwrap();
        let closed = || cluster.nodes[&6].groups.status(CLUSTER_SLOT).is_none();
        until("and does not any more", closed).await;
    });
}

#[test]
fn an_emptied_node_copies_and_never_votes_until_it_is_made_a_voter_anew() {
    life(async || wiped(false).await);
}

#[test]
fn an_emptied_node_that_starts_again_remembers_that_it_must_not_vote() {
    life(async || wiped(true).await);
}

async fn wiped(restarts: bool) {
    let mut cluster = Cluster::start().await;
    cluster.write(300).await;
    cluster.sync();
    let leader = cluster.leader().await;
    until("purged", || cluster.first_index(leader) > 200).await;
    let wiped = (1..=3).find(|id| *id != leader).unwrap();
    let third = (1..=3).find(|id| *id != leader && *id != wiped).unwrap();
    cluster.kill(wiped).await;
    cluster.lanes.remove(&wiped);
    cluster.write(10).await;
    cluster.boot(wiped).await;
    let groups = cluster.nodes[&wiped].groups.clone();
    until("the leader speaks to it", || groups.status(SLOT).is_some()).await;
    cluster.settled().await;
    if restarts {
        cluster.kill(wiped).await;
        cluster.boot(wiped).await;
    }
    assert!(!cluster.status(wiped).unwrap().may_vote);
    // Its voice would make a majority, but it does not know what it said before.
    cluster.kill(leader).await;
    Runtime::sleep(Duration::from_millis(2_500)).await;
    assert!(cluster.leaders().is_empty());
    cluster.boot(leader).await;
    let leader = cluster.leader().await;
    assert_ne!(leader, wiped);
    cluster.write(10).await;
    // Out of the voters, and in again.
    let rest: Vec<u64> = (1..=3).filter(|id| *id != wiped).collect();
    cluster.set_voters(&rest).await;
    cluster.set_voters(&[1, 2, 3]).await;
    until("it votes", || cluster.status(wiped).is_some_and(|status| status.may_vote)).await;
    cluster.write(10).await;
    cluster.kill(third).await;
    cluster.write(10).await;
}

#[test]
fn an_address_that_changes_is_known_to_all() {
    life(async || {
        let mut cluster = Cluster::start().await;
        cluster.write(10).await;
        let leader = cluster.leader().await;
        let mut desired: Vec<_> = (1..=3).map(member).collect();
        desired[1].1.addr = "10.9.9.9:1".into();
        let groups = cluster.nodes[&leader].groups.clone();
        groups.change_voters(SLOT, &desired).await.unwrap();
        groups.change_voters(SLOT, &desired).await.unwrap();
        let known = || {
            (1..=3).all(|id| cluster.status(id).unwrap().members[&NodeId(2)].addr == "10.9.9.9:1")
        };
        until("known to all", known).await;
        let follower = leader % 3 + 1;
        let groups = cluster.nodes[&follower].groups.clone();
        let error = groups.change_voters(SLOT, &desired).await.unwrap_err();
        let MembershipError::NotLeader { leader: known } = error else { panic!("{error}") };
        assert_eq!(known, Some(NodeId(leader)));
    });
}
