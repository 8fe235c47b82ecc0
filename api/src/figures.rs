//! What a node knows of its part in the cluster without asking others: how its links are, and what
//! its groups look like. For /metrics and /readyz.

use jindou_core::id::{NodeId, SlotId};

/// A node's part in the cluster, gathered from all its shards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterFigures {
    /// The other nodes that this one is to have links with, ascending.
    pub peers: Vec<PeerFigures>,
    /// Its groups.
    pub groups: GroupFigures,
}

/// The links of all shards to one node. Traffic is counted since the node is a peer, on links of
/// either side; sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerFigures {
    /// The node.
    pub node: NodeId,
    /// Where it is dialled, `host:port`.
    pub address: String,
    /// Whether every shard reaches it.
    pub is_up: bool,
    /// For how many ms the longest of its links have been down.
    pub down_ms: Option<u64>,
    /// Why links are down, in words.
    pub trouble: Option<String>,
    /// Why it refuses this node, if it does.
    pub refusal: Option<String>,
    /// The slowest shard's newest round trip, in microseconds; none while no link is up.
    pub rtt_us: Option<u64>,
    /// Bytes that came.
    pub bytes_in: u64,
    /// Bytes that left.
    pub bytes_out: u64,
    /// Frames that came.
    pub frames_in: u64,
    /// Frames that were queued.
    pub frames_out: u64,
    /// Gauge: bytes that wait to leave.
    pub queue_size: u64,
    /// Gauge: asks that wait for answers.
    pub asks: u64,
    /// Times that a shard's links failed.
    pub resets: u64,
    /// Of the groups led here: how many entries its replica furthest behind lacks. None if it has
    /// no replica of them.
    pub lag: Option<u64>,
}

/// The groups of a node, group 0 included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupFigures {
    /// Replicas held here.
    pub held: u64,
    /// Groups that are led and served here.
    pub leading: u64,
    /// Groups of the cluster, held here or not, whose leader this node does not know.
    pub leaderless: u64,
    /// Replicas here that may not vote yet, because they began with nothing.
    pub muted: u64,
    /// Replicas here that have stopped by themselves.
    pub failed: u64,
    /// How many voters each group is to have.
    pub voters_wanted: u64,
    /// Groups led here with fewer live voters than that, ascending.
    pub short: Vec<SlotId>,
    /// Of the groups led here: entries that the follower furthest behind lacks.
    pub lag_max: u64,
    /// Entries that are committed and not yet applied here, in the group with most of them.
    pub apply_lag_max: u64,
    /// Times that another node was seen to lead a group than before, since the start.
    pub leader_changes: u64,
    /// Times that a replica here stood for election because it heard of no leader, since the start.
    pub elections: u64,
}
