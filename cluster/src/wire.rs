//! Archived forms of openraft's small types, for disk and links. Everything that is read from
//! bytes is validated; nothing here panics on what a peer or a disk gives.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use rkyv::{Archive, Deserialize, Serialize, rancor};

use crate::types::{LeaderId, Membership, Node, RaftLogId, StoredMembership, Vote};

/// Bytes that do not hold what they should.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what} does not decode: {reason}")]
pub struct WireError {
    what: &'static str,
    reason: String,
}

impl WireError {
    pub(crate) fn new(what: &'static str, reason: impl ToString) -> Self {
        Self { what, reason: reason.to_string() }
    }
}

/// A position in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub(crate) struct WireLogId {
    pub(crate) term: u64,
    pub(crate) node: u64,
    pub(crate) index: u64,
}

impl From<RaftLogId> for WireLogId {
    fn from(log_id: RaftLogId) -> Self {
        Self { term: log_id.leader_id.term, node: log_id.leader_id.node_id, index: log_id.index }
    }
}

impl From<WireLogId> for RaftLogId {
    fn from(log_id: WireLogId) -> Self {
        Self {
            leader_id: LeaderId { term: log_id.term, node_id: log_id.node },
            index: log_id.index,
        }
    }
}

/// A vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub(crate) struct WireVote {
    pub(crate) term: u64,
    pub(crate) node: u64,
    pub(crate) committed: bool,
}

impl From<Vote> for WireVote {
    fn from(vote: Vote) -> Self {
        Self { term: vote.leader_id.term, node: vote.leader_id.node_id, committed: vote.committed }
    }
}

impl From<WireVote> for Vote {
    fn from(vote: WireVote) -> Self {
        Self {
            leader_id: LeaderId { term: vote.term, node_id: vote.node },
            committed: vote.committed,
        }
    }
}

/// A member: id, link address, API URL.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub(crate) struct WireMember {
    id: u64,
    addr: String,
    api_url: String,
}

/// Who belongs to a group.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub(crate) struct WireMembership {
    /// The voters; two sets while a change is under way.
    configs: Vec<Vec<u64>>,
    /// Voters and learners.
    members: Vec<WireMember>,
}

impl From<&Membership> for WireMembership {
    fn from(membership: &Membership) -> Self {
        Self {
            configs: membership
                .get_joint_config()
                .iter()
                .map(|config| config.iter().copied().collect())
                .collect(),
            members: membership
                .nodes()
                .map(|(id, node)| WireMember {
                    id: *id,
                    addr: node.addr.clone(),
                    api_url: node.api_url.clone(),
                })
                .collect(),
        }
    }
}

impl TryFrom<WireMembership> for Membership {
    type Error = WireError;

    fn try_from(wire: WireMembership) -> Result<Self, WireError> {
        let configs: Vec<BTreeSet<u64>> =
            wire.configs.into_iter().map(|config| config.into_iter().collect()).collect();
        let nodes: BTreeMap<u64, Node> = wire
            .members
            .into_iter()
            .map(|member| {
                let node = Node { addr: member.addr, api_url: member.api_url };
                (member.id, node)
            })
            .collect();
        // A membership that was never set is empty, and openraft refuses to make one anew.
        if configs.is_empty() && nodes.is_empty() {
            return Ok(Self::default());
        }
        Self::new(configs, nodes).map_err(|e| WireError::new("a membership", e))
    }
}

/// A membership and the entry that set it.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub(crate) struct WireStoredMembership {
    log_id: Option<WireLogId>,
    membership: WireMembership,
}

impl From<&StoredMembership> for WireStoredMembership {
    fn from(stored: &StoredMembership) -> Self {
        Self { log_id: (*stored.log_id()).map(Into::into), membership: stored.membership().into() }
    }
}

impl TryFrom<WireStoredMembership> for StoredMembership {
    type Error = WireError;

    fn try_from(wire: WireStoredMembership) -> Result<Self, WireError> {
        Ok(Self::new(wire.log_id.map(Into::into), wire.membership.try_into()?))
    }
}

/// Archives a value behind a version byte and a CRC-32: the archive's root is at its end, so a
/// torn one could pass for another value.
pub(crate) fn encode<T>(version: u8, value: &T) -> Result<Bytes, WireError>
where
    T: for<'a> Serialize<
        rkyv::api::high::HighSerializer<
            rkyv::util::AlignedVec,
            rkyv::ser::allocator::ArenaHandle<'a>,
            rancor::Error,
        >,
    >,
{
    let body = rkyv::to_bytes::<rancor::Error>(value).map_err(|e| WireError::new("a value", e))?;
    let mut bytes = Vec::with_capacity(body.len() + 5);
    bytes.push(version);
    bytes.extend_from_slice(&crc32fast::hash(&body).to_be_bytes());
    bytes.extend_from_slice(&body);
    Ok(bytes.into())
}

/// Reads what [`encode`] wrote.
pub(crate) fn decode<T>(what: &'static str, version: u8, bytes: &[u8]) -> Result<T, WireError>
where
    T: Archive,
    T::Archived: for<'a> rkyv::bytecheck::CheckBytes<rkyv::api::high::HighValidator<'a, rancor::Error>>
        + Deserialize<T, rkyv::api::high::HighDeserializer<rancor::Error>>,
{
    let Some((&[found, a, b, c, d], body)) = bytes.split_first_chunk::<5>() else {
        return Err(WireError::new(what, "too short"));
    };
    if found != version {
        return Err(WireError::new(what, format!("version {found}")));
    }
    if crc32fast::hash(body) != u32::from_be_bytes([a, b, c, d]) {
        return Err(WireError::new(what, "checksum"));
    }
    rkyv::from_bytes::<T, rancor::Error>(body).map_err(|e| WireError::new(what, e))
}

const MEMBERSHIP_VERSION: u8 = 1;

/// The bytes of a membership in the state store (`Row::Membership`).
pub(crate) fn encode_stored_membership(stored: &StoredMembership) -> Result<Bytes, WireError> {
    encode(MEMBERSHIP_VERSION, &WireStoredMembership::from(stored))
}

/// Reads what [`encode_stored_membership`] wrote.
pub(crate) fn decode_stored_membership(bytes: &[u8]) -> Result<StoredMembership, WireError> {
    decode::<WireStoredMembership>("a stored membership", MEMBERSHIP_VERSION, bytes)?.try_into()
}

/// The bytes of a membership in a log record.
pub(crate) fn encode_membership(membership: &Membership) -> Result<Bytes, WireError> {
    encode(MEMBERSHIP_VERSION, &WireMembership::from(membership))
}

/// Reads what [`encode_membership`] wrote.
pub(crate) fn decode_membership(bytes: &[u8]) -> Result<Membership, WireError> {
    decode::<WireMembership>("a membership", MEMBERSHIP_VERSION, bytes)?.try_into()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn membership() -> Membership {
        let node = |n: u64| Node {
            addr: format!("10.0.0.{n}:11110"),
            api_url: format!("http://10.0.0.{n}:5001"),
        };
        Membership::new(
            vec![BTreeSet::from([1, 2]), BTreeSet::from([2, 3])],
            BTreeMap::from([(1, node(1)), (2, node(2)), (3, node(3)), (4, node(4))]),
        )
        .unwrap()
    }

    #[test]
    fn a_membership_comes_back_from_its_bytes() {
        let stored = StoredMembership::new(
            Some(RaftLogId { leader_id: LeaderId { term: 3, node_id: 2 }, index: 9 }),
            membership(),
        );
        let bytes = encode_stored_membership(&stored).unwrap();
        assert_eq!(decode_stored_membership(&bytes).unwrap(), stored);
        let empty = StoredMembership::default();
        let bytes = encode_stored_membership(&empty).unwrap();
        assert_eq!(decode_stored_membership(&bytes).unwrap(), empty);
        let bytes = encode_membership(&membership()).unwrap();
        assert_eq!(decode_membership(&bytes).unwrap(), membership());
    }

    #[test]
    fn damaged_bytes_are_refused() {
        let bytes = encode_membership(&membership()).unwrap();
        assert!(decode_membership(&[]).is_err());
        assert!(decode_membership(&[9, 0, 0]).is_err());
        for cut in 0..bytes.len() {
            assert!(decode_membership(&bytes.slice(..cut)).is_err(), "{cut}");
        }
    }
}
