//! The types that openraft works with, and their way to and from the core's.

use std::{cmp::Ordering, fmt, marker::PhantomData};

use bytes::Bytes;
use jindou_core::id::{LogId, SlotId};
pub use jindou_core::shard::CLUSTER_SLOT;
use openraft::{AsyncRuntime, EntryPayload, RaftTypeConfig, impls::leader_id_adv};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::proposal::WriteResponder;

/// A Raft group of a cluster: 0 is the cluster's own state, slot s is group s + 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct GroupId(pub u16);

impl GroupId {
    /// The group of the cluster's own state.
    pub const CLUSTER: Self = Self(0);

    /// The group that replicates a slot.
    pub fn of(slot: SlotId) -> Self {
        // u16::MAX wraps to 0: exactly the group of the cluster's own state.
        Self(slot.0.wrapping_add(1))
    }

    /// The slot that a group replicates.
    pub fn slot(self) -> SlotId {
        SlotId(self.0.wrapping_sub(1))
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::CLUSTER { f.write_str("the cluster's group") } else { self.slot().fmt(f) }
    }
}

/// How a member of the cluster is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Where its links are accepted, `host:port`.
    pub addr: String,
    /// Where its HTTP API is reached from outside, as a URL.
    pub api_url: String,
}

/// The bytes of an entry: an archived [`jindou_core::entry::Entry`], the same in log, wire and
/// apply. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Default)]
pub(crate) struct EntryBytes(pub Bytes);

impl fmt::Debug for EntryBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EntryBytes({})", self.0.len())
    }
}

impl fmt::Display for EntryBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for EntryBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for EntryBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(Vec::<u8>::deserialize(deserializer)?.into()))
    }
}

/// openraft's type configuration on a runtime `R`: monoio for real, a deterministic one in a
/// simulator.
pub(crate) struct TypeConfig<R>(PhantomData<fn() -> R>);

pub(crate) type LeaderId = leader_id_adv::LeaderId<u64, u64>;
pub(crate) type RaftLogId = openraft::LogId<LeaderId>;
pub(crate) type Vote = openraft::Vote<LeaderId>;
pub(crate) type Payload = EntryPayload<EntryBytes, u64, Node>;
pub(crate) type RaftEntry = openraft::Entry<LeaderId, Payload>;
pub(crate) type Membership = openraft::Membership<u64, Node>;
pub(crate) type StoredMembership = openraft::StoredMembership<LeaderId, u64, Node>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<LeaderId, u64, Node>;
pub(crate) type Snapshot =
    openraft::Snapshot<LeaderId, u64, Node, crate::state_machine::SnapshotData>;
pub(crate) type Raft<R> = openraft::Raft<TypeConfig<R>, crate::state_machine::StateMachine<R>>;

impl<R: AsyncRuntime> RaftTypeConfig for TypeConfig<R> {
    type D = EntryBytes;
    type R = ();
    type NodeId = u64;
    type Node = Node;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = Vote;
    type Payload = Payload;
    type Entry = RaftEntry;
    type AsyncRuntime = R;
    type Responder<T>
        = WriteResponder<T>
    where
        T: 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

/// The vote of one that never voted: lower than all others.
pub(crate) fn no_vote() -> Vote {
    Vote::new(0, 0)
}

/// The core's form of a position.
pub(crate) fn to_core(log_id: &RaftLogId) -> LogId {
    LogId { term: log_id.leader_id.term, node: log_id.leader_id.node_id, index: log_id.index }
}

/// openraft's form of a position.
pub(crate) fn to_raft(log_id: LogId) -> RaftLogId {
    RaftLogId {
        leader_id: LeaderId { term: log_id.term, node_id: log_id.node },
        index: log_id.index,
    }
}

// openraft asks these of a type configuration, which has no value of any interest. Derived, they
// would be asked of R too.
impl<R> fmt::Debug for TypeConfig<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TypeConfig")
    }
}

impl<R> Clone for TypeConfig<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for TypeConfig<R> {}

impl<R> Default for TypeConfig<R> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<R> PartialEq for TypeConfig<R> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl<R> Eq for TypeConfig<R> {}

impl<R> PartialOrd for TypeConfig<R> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<R> Ord for TypeConfig<R> {
    fn cmp(&self, _: &Self) -> Ordering {
        Ordering::Equal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_zero_is_the_clusters_own_slot() {
        assert_eq!(GroupId::of(CLUSTER_SLOT), GroupId::CLUSTER);
        assert_eq!(GroupId::CLUSTER.slot(), CLUSTER_SLOT);
        assert_eq!(GroupId::of(SlotId(0)), GroupId(1));
        assert_eq!(GroupId(64).slot(), SlotId(63));
    }
}
