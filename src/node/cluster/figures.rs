//! What this node knows of its links and groups by itself: each shard tells its part, the one that
//! is asked adds them up.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::future::{Either, join_all, select};
use jindou_api::{ClusterFigures, GroupFigures, PeerFigures};
use jindou_cluster::{CLUSTER_SLOT, GroupStatus};
use jindou_core::id::{NodeId, ShardId, SlotId};
use jindou_net::link::LinkStatus;

use super::office::{Office, pause};

/// How long a shard of this node may take to tell its part.
const TELL_MAX: Duration = Duration::from_millis(1_000);

/// A shard's part.
#[derive(Clone, Debug, Default)]
pub(super) struct ShardFigures {
    /// Its links to each other node.
    links: Vec<LinkStatus>,
    /// Its groups.
    groups: GroupFigures,
    /// By other node: what its replica furthest behind lacks of the groups that are led here.
    lags: BTreeMap<NodeId, u64>,
}

impl Office {
    /// This node's links and groups. An error is for the operator.
    pub(in crate::node) async fn figures(&self) -> Result<ClusterFigures, String> {
        let told = (0..self.shard_count()).map(|shard| async move {
            let told = self.post().ask_figures(ShardId(shard)).into_recv_async();
            match select(told, Box::pin(pause(TELL_MAX))).await {
                Either::Left((Ok(figures), _)) => Ok(figures),
                Either::Left((Err(_), _)) | Either::Right(_) => {
                    Err(format!("shard {shard} of this node does not answer"))
                }
            }
        });
        let shards = join_all(told).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut figures = sum(&shards);
        let groups = (0..self.slot_count()).map(SlotId).chain([CLUSTER_SLOT]);
        let leaderless = groups.filter(|slot| self.router().leader(*slot).is_none());
        figures.groups.leaderless = count(leaderless.count());
        Ok(figures)
    }

    /// This shard's part.
    pub(super) fn shard_figures(&self) -> ShardFigures {
        let settings = self.settings();
        let nodes = match self.document().read(|document| document.holders().len()) {
            // The cluster is being founded, of those that the configuration names.
            0 => settings.members.len(),
            holders => holders,
        };
        let voters_wanted = count(settings.replicas(nodes));
        let links = self.links().status();
        let groups = self.groups();
        let statuses = groups.slots().into_iter().filter_map(|slot| {
            let status = groups.status(slot)?;
            Some((slot, status))
        });
        let mut figures = of_groups(settings.node, voters_wanted, links, statuses);
        figures.groups.failed = count(groups.failed());
        figures.groups.elections = groups.elections();
        figures
    }
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// Entries of a log that ends at `last` beyond those up to `index`. Indices begin with 0.
fn beyond(last: Option<u64>, index: Option<u64>) -> u64 {
    let entries = |end: Option<u64>| end.map_or(0, |end| end.saturating_add(1));
    entries(last).saturating_sub(entries(index))
}

/// What the groups of a shard amount to, seen with its links.
fn of_groups(
    own: NodeId,
    voters_wanted: u64,
    links: Vec<LinkStatus>,
    statuses: impl Iterator<Item = (SlotId, GroupStatus)>,
) -> ShardFigures {
    let live: BTreeSet<NodeId> =
        links.iter().filter(|link| link.is_up).map(|link| link.node).chain([own]).collect();
    let mut groups = GroupFigures { voters_wanted, ..GroupFigures::default() };
    let mut lags: BTreeMap<NodeId, u64> = BTreeMap::new();
    for (slot, status) in statuses {
        groups.held += 1;
        groups.muted += u64::from(!status.may_vote);
        let apply_lag = beyond(status.committed, status.applied);
        groups.apply_lag_max = groups.apply_lag_max.max(apply_lag);
        if !status.leading {
            continue;
        }
        groups.leading += 1;
        let voters = status.voters.iter().filter(|voter| live.contains(voter)).count();
        if count(voters) < voters_wanted {
            groups.short.push(slot);
        }
        for (node, matched) in &status.matched {
            let lag = beyond(status.last_log, *matched);
            groups.lag_max = groups.lag_max.max(lag);
            let most = lags.entry(*node).or_default();
            *most = lag.max(*most);
        }
    }
    ShardFigures { links, groups, lags }
}

/// The node's figures from those of all its shards.
fn sum(shards: &[ShardFigures]) -> ClusterFigures {
    let mut peers: BTreeMap<NodeId, (usize, PeerFigures)> = BTreeMap::new();
    let mut all = GroupFigures::default();
    for shard in shards {
        for link in &shard.links {
            let (up_count, peer) =
                peers.entry(link.node).or_insert_with(|| (0, unmet(link.node, &link.address)));
            *up_count += usize::from(link.is_up);
            add(peer, link);
        }
        for (node, lag) in &shard.lags {
            let (_, peer) = peers.entry(*node).or_insert_with(|| (0, unmet(*node, "")));
            peer.lag = peer.lag.max(Some(*lag));
        }
        let groups = &shard.groups;
        all.held += groups.held;
        all.leading += groups.leading;
        all.muted += groups.muted;
        all.failed += groups.failed;
        all.elections += groups.elections;
        all.voters_wanted = all.voters_wanted.max(groups.voters_wanted);
        all.lag_max = all.lag_max.max(groups.lag_max);
        all.apply_lag_max = all.apply_lag_max.max(groups.apply_lag_max);
        all.short.extend_from_slice(&groups.short);
    }
    all.short.sort_unstable();
    let is_up = |up_count| up_count == shards.len();
    let peers = peers.into_values();
    let peers = peers.map(|(up_count, peer)| PeerFigures { is_up: is_up(up_count), ..peer });
    ClusterFigures { peers: peers.collect(), groups: all }
}

fn unmet(node: NodeId, address: &str) -> PeerFigures {
    PeerFigures {
        node,
        address: address.to_owned(),
        is_up: false,
        down_ms: None,
        trouble: None,
        refusal: None,
        rtt_us: None,
        bytes_in: 0,
        bytes_out: 0,
        frames_in: 0,
        frames_out: 0,
        queue_size: 0,
        asks: 0,
        resets: 0,
        lag: None,
    }
}

/// One shard's links to a node.
fn add(peer: &mut PeerFigures, link: &LinkStatus) {
    peer.down_ms = peer.down_ms.max(link.down_ms);
    if !link.is_up && peer.trouble.is_none() {
        peer.trouble.clone_from(&link.trouble);
    }
    if peer.refusal.is_none() {
        peer.refusal = link.refusal.as_ref().map(ToString::to_string);
    }
    peer.rtt_us = peer.rtt_us.max(link.rtt_us);
    peer.bytes_in += link.bytes_in;
    peer.bytes_out += link.bytes_out;
    peer.frames_in += link.frames_in;
    peer.frames_out += link.frames_out;
    peer.queue_size += count(link.queue_size);
    peer.asks += count(link.ask_count);
    peer.resets += link.resets;
}

#[cfg(test)]
mod tests {
    use jindou_net::link::{Refusal, RefusalCode};

    use super::*;

    fn link(node: u64, is_up: bool) -> LinkStatus {
        LinkStatus {
            node: NodeId(node),
            address: format!("h{node}:1"),
            is_up,
            incarnation: None,
            shard_count: None,
            down_ms: (!is_up).then_some(700),
            silent_ms: None,
            rtt_us: is_up.then_some(50 * node),
            bytes_in: 10,
            bytes_out: 20,
            frames_in: 1,
            frames_out: 2,
            queue_size: 5,
            ask_count: 3,
            resets: 1,
            trouble: (!is_up).then(|| "no answer".to_owned()),
            refusal: None,
        }
    }

    /// A group of nodes 1 to 3 with a log of 100 entries, followed by them up to these indices.
    fn group(leading: bool, matched: &[(u64, Option<u64>)]) -> GroupStatus {
        GroupStatus {
            voters: [1, 2, 3].map(NodeId).to_vec(),
            leader: Some(NodeId(1)),
            term: 1,
            last_log: Some(99),
            committed: Some(99),
            applied: Some(99),
            matched: matched.iter().map(|(node, index)| (NodeId(*node), *index)).collect(),
            leading,
            may_vote: true,
            ..GroupStatus::default()
        }
    }

    fn shard(links: Vec<LinkStatus>, statuses: Vec<(u16, GroupStatus)>) -> ShardFigures {
        let statuses = statuses.into_iter().map(|(slot, status)| (SlotId(slot), status));
        of_groups(NodeId(1), 3, links, statuses)
    }

    #[test]
    fn a_lagging_follower_and_a_late_apply_are_seen() {
        let late = GroupStatus { applied: Some(89), ..group(false, &[]) };
        let blank = GroupStatus { applied: None, committed: None, ..group(false, &[]) };
        let up = || vec![link(2, true), link(3, true)];
        let one = shard(up(), vec![(0, group(true, &[(2, Some(99)), (3, Some(95))])), (2, late)]);
        let other = shard(up(), vec![(1, group(true, &[(2, Some(98)), (3, None)])), (3, blank)]);
        let figures = sum(&[one, other]);
        let groups = &figures.groups;
        assert_eq!((groups.held, groups.leading, groups.muted), (4, 2, 0));
        assert_eq!((groups.lag_max, groups.apply_lag_max), (100, 10));
        let lags: Vec<_> = figures.peers.iter().map(|peer| (peer.node.0, peer.lag)).collect();
        assert_eq!(lags, [(2, Some(1)), (3, Some(100))]);
        assert!(groups.short.is_empty());
    }

    #[test]
    fn a_node_is_up_when_every_shard_reaches_it_and_its_figures_are_sums() {
        let one = shard(vec![link(2, true), link(3, true)], vec![]);
        let other = shard(vec![link(2, true), link(3, false)], vec![]);
        let figures = sum(&[one.clone(), other]);
        let [two, three] = figures.peers.as_slice() else { panic!("{figures:?}") };
        assert!(two.is_up && two.trouble.is_none() && two.down_ms.is_none());
        assert_eq!((two.bytes_in, two.bytes_out, two.frames_in, two.frames_out), (20, 40, 2, 4));
        assert_eq!((two.queue_size, two.asks, two.resets, two.rtt_us), (10, 6, 2, Some(100)));
        assert!(!three.is_up && three.down_ms == Some(700) && three.rtt_us == Some(150));
        assert_eq!(three.trouble.as_deref(), Some("no answer"));
        // A shard that has not heard of a node does not reach it.
        assert!(!sum(&[one, shard(vec![], vec![])]).peers.iter().any(|peer| peer.is_up));
    }

    #[test]
    fn a_group_is_short_while_a_voter_is_away_or_was_left_out() {
        let refusal = Refusal::new(RefusalCode::NotMember, "gone");
        let refused = LinkStatus { refusal: Some(refusal.clone()), ..link(3, false) };
        let muted = GroupStatus { may_vote: false, ..group(false, &[]) };
        let two = GroupStatus { voters: vec![NodeId(1), NodeId(2)], ..group(true, &[]) };
        let away = shard(
            vec![link(2, true), refused],
            vec![(9, two.clone()), (4, group(true, &[])), (5, group(false, &[])), (6, muted)],
        );
        let figures = sum(&[away]);
        assert_eq!(figures.groups.short, [SlotId(4), SlotId(9)]);
        assert_eq!(figures.groups.muted, 1);
        let refusals: Vec<_> = figures.peers.iter().map(|peer| peer.refusal.clone()).collect();
        assert_eq!(refusals, [None, Some(refusal.to_string())]);
        let back = shard(vec![link(2, true), link(3, true)], vec![(4, group(true, &[])), (9, two)]);
        assert_eq!(sum(&[back]).groups.short, [SlotId(9)]);
    }
}
