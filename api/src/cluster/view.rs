//! The cluster as a node sees it, and what may be changed about it: the words that the API and
//! the wiring share.

use jindou_core::id::{NodeId, SlotId};

/// The cluster as one node could find out just now. Nodes that did not answer in time are offline;
/// what they lead is as the others know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterView {
    /// The node that looked.
    pub node: NodeId,
    /// Grows with every change of the cluster's document: the applied index of group 0.
    pub version: u64,
    /// Number of slots.
    pub slot_count: u16,
    /// Copies that each slot shall have once there are nodes enough: as configured, else 3, from
    /// five nodes on 5. A single node tells 3 too, as v2 does.
    pub replica_count: u16,
    /// The leader of group 0; `None`: not known.
    pub leader: Option<NodeId>,
    /// The term of group 0.
    pub term: u64,
    /// The members, one each, in any order. A removed node is not among them.
    pub nodes: Vec<NodeView>,
    /// The slots, one each, in any order.
    pub slots: Vec<SlotView>,
}

/// How far a node is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeStatus {
    /// Known, and not yet a full member.
    Joining,
    /// A member.
    Joined,
    /// Told to go; it hands over what it holds.
    Leaving,
}

/// A member of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeView {
    /// Its number.
    pub id: NodeId,
    /// `host:port` at which the others reach it; empty: it can't be reached.
    pub addr: String,
    /// Base URL of its HTTP API; may be empty.
    pub api_url: String,
    /// Whether it answered.
    pub online: bool,
    /// How far it is in.
    pub status: NodeStatus,
    /// Unix seconds when it was first known; 0: not known.
    pub created_at: i64,
    /// Slots of which it is a voter.
    pub slot_count: u32,
    /// Slots that it leads.
    pub leader_count: u32,
    /// Seconds since its process started; `None`: it did not say.
    pub uptime_s: Option<u64>,
    /// The version that it runs; `None`: it did not say.
    pub app_version: Option<String>,
    /// Whether it may hold slots and vote; one that may not only holds connections.
    pub votes: bool,
}

/// A slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotView {
    /// Which.
    pub slot: SlotId,
    /// Its leader; `None`: nobody is known to lead it.
    pub leader: Option<NodeId>,
    /// The leader's term.
    pub term: u64,
    /// The nodes with a vote, in the order of preference.
    pub voters: Vec<NodeId>,
    /// The nodes that are being brought up to date.
    pub learners: Vec<NodeId>,
    /// The last index of the leader's log.
    pub last: u64,
    /// Whether its voters or its leader are being changed.
    pub changing: bool,
}

/// What a replica takes itself for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaRole {
    /// It leads.
    Leader,
    /// It follows, with a vote.
    Follower,
    /// It follows, without a vote.
    Learner,
    /// It stands for election.
    Candidate,
}

/// One node's replica of a slot, as that node tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaView {
    /// The node.
    pub node: NodeId,
    /// Whom it takes for the leader.
    pub leader: Option<NodeId>,
    /// Its term.
    pub term: u64,
    /// The last index of its log.
    pub last: u64,
    /// Up to which index it has applied.
    pub applied: u64,
    /// Up to which index it knows to be committed.
    pub committed: u64,
    /// What it takes itself for.
    pub role: ReplicaRole,
    /// Whether it works; false: it has stopped after an error.
    pub running: bool,
}

/// A change of the cluster. Answered when it is committed (or, for an election, asked for); what
/// follows from it, such as moving data, may take long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterChange {
    /// A node takes another one's place in a slot. Where both are voters and `from` leads, `to`
    /// takes the lead only.
    Migrate {
        /// The slot.
        slot: SlotId,
        /// The node that gives.
        from: NodeId,
        /// The node that takes.
        to: NodeId,
    },
    /// A slot chooses its leader anew.
    Elect {
        /// The slot.
        slot: SlotId,
    },
    /// A node hands over what it holds, then it is no member any more.
    Remove {
        /// The node.
        node: NodeId,
    },
    /// A node that is leaving stays.
    Keep {
        /// The node.
        node: NodeId,
    },
    /// A node is from now on found at another address: it moved, or an empty machine takes the
    /// place of a dead one.
    Replace {
        /// The node.
        node: NodeId,
        /// `host:port`.
        addr: String,
    },
}

impl ClusterView {
    /// A member.
    pub fn member(&self, id: NodeId) -> Option<&NodeView> {
        self.nodes.iter().find(|node| node.id == id)
    }

    /// A slot.
    pub fn slot(&self, id: SlotId) -> Option<&SlotView> {
        self.slots.iter().find(|slot| slot.slot == id)
    }

    /// Whether a node is a member that answered.
    pub fn is_online(&self, id: NodeId) -> bool {
        self.member(id).is_some_and(|node| node.online)
    }
}
