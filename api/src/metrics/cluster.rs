//! The cluster in /metrics: the links to each other node, the groups of this one.

use prometheus::Opts;

use super::{
    Kind::{self, Counter, Gauge},
    Page,
};
use crate::figures::{ClusterFigures, GroupFigures, PeerFigures};

type OfPeer = fn(&PeerFigures) -> u64;

/// One series per other node.
const PEERS: &[(&str, Kind, OfPeer, &str)] = &[
    ("jindou_peer_up", Gauge, |p| p.is_up.into(), "1: every shard reaches the node."),
    ("jindou_peer_refused", Gauge, |p| p.refusal.is_some().into(), "1: it refuses this node."),
    ("jindou_peer_bytes_in_total", Counter, |p| p.bytes_in, "Bytes from the node."),
    ("jindou_peer_bytes_out_total", Counter, |p| p.bytes_out, "Bytes to the node."),
    ("jindou_peer_frames_in_total", Counter, |p| p.frames_in, "Frames from the node."),
    ("jindou_peer_frames_out_total", Counter, |p| p.frames_out, "Frames to the node."),
    ("jindou_peer_queued_bytes", Gauge, |p| p.queue_size, "Bytes that wait to leave for it."),
    ("jindou_peer_asks", Gauge, |p| p.asks, "Asks that wait for its answer."),
    ("jindou_peer_resets_total", Counter, |p| p.resets, "Times that a shard's links failed."),
];

type OfGroups = fn(&GroupFigures) -> u64;

/// One series per node.
const GROUPS: &[(&str, Kind, OfGroups, &str)] = &[
    ("jindou_groups_leading", Gauge, |g| g.leading, "Groups led here, group 0 included."),
    ("jindou_groups_held", Gauge, |g| g.held, "Replicas held here, group 0 included."),
    (
        "jindou_groups_leaderless",
        Gauge,
        |g| g.leaderless,
        "Groups of the cluster whose leader this node does not know.",
    ),
    (
        "jindou_groups_muted",
        Gauge,
        |g| g.muted,
        "Replicas here that began with nothing and may not vote yet.",
    ),
    ("jindou_groups_failed", Gauge, |g| g.failed, "Replicas here that stopped by themselves."),
    (
        "jindou_groups_short",
        Gauge,
        |g| u64::try_from(g.short.len()).unwrap_or(u64::MAX),
        "Groups led here with fewer live voters than wanted.",
    ),
    ("jindou_voters_wanted", Gauge, |g| g.voters_wanted, "Voters that each group is to have."),
    (
        "jindou_follower_lag_max_entries",
        Gauge,
        |g| g.lag_max,
        "Entries that the follower furthest behind lacks, over groups led here.",
    ),
    (
        "jindou_apply_lag_max_entries",
        Gauge,
        |g| g.apply_lag_max,
        "Entries committed and not yet applied here, in the group with most.",
    ),
    (
        "jindou_leader_changes_total",
        Counter,
        |g| g.leader_changes,
        "Times that another node was seen to lead a group than before.",
    ),
    (
        "jindou_elections_total",
        Counter,
        |g| g.elections,
        "Times that a replica here stood because it heard of no leader.",
    ),
];

pub(super) fn put(page: &Page, figures: &ClusterFigures) -> prometheus::Result<()> {
    for peer in &figures.peers {
        let of_node = |name: &str, help: &str| {
            Opts::new(name, help).const_label("node", peer.node.0.to_string())
        };
        for (name, kind, value, help) in PEERS {
            page.put(of_node(name, help), *kind, value(peer))?;
        }
        if let Some(rtt_us) = peer.rtt_us {
            let opts =
                of_node("jindou_peer_round_trip_seconds", "The newest ping's, slowest shard.");
            page.put_float(opts, Gauge, seconds(rtt_us))?;
        }
        if let Some(lag) = peer.lag {
            let help = "Entries that its replica furthest behind lacks, over groups led here.";
            page.put(of_node("jindou_follower_lag_entries", help), Gauge, lag)?;
        }
    }
    for (name, kind, value, help) in GROUPS {
        page.put(Opts::new(*name, *help), *kind, value(&figures.groups))?;
    }
    Ok(())
}

fn seconds(us: u64) -> f64 {
    std::time::Duration::from_micros(us).as_secs_f64()
}
