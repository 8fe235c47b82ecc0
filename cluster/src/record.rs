//! What a group keeps in the log lane: entries, votes, positions.
//!
//! ```text
//! entry     version 1 | kind | term u64 | node u64 | payload      index is the lane's key
//! kind      0 blank, 1 entry (archived core entry, as it came), 2 membership (archived)
//! vote      version 1 | committed u8 | term u64 | node u64
//!           version 2 | the same | standing u8 | upto u64 | leader's term u64 | leader's node u64
//! standing  1 lost, 2 apart (see `standing`); a replica that may vote writes version 1
//! position  version 1 | term u64 | node u64 | index u64
//! ```
//!
//! Integers are big-endian. The payload is the proposal's own bytes, so that log, wire and apply
//! share one encoding.

use bytes::{BufMut, Bytes, BytesMut};
use openraft::EntryPayload;

use crate::{
    standing::{History, Standing},
    types::{EntryBytes, LeaderId, RaftEntry, RaftLogId, Vote},
    wire::{WireError, decode_membership, encode_membership},
};

const VERSION: u8 = 1;
/// Of votes of replicas that may not vote.
const VERSION_APART: u8 = 2;
const HEAD_SIZE: usize = 18;

const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// The record of an entry. A normal entry's payload is moved to share the record's memory, so
/// that the log's tail holds it once.
pub(crate) fn encode_entry(entry: &mut RaftEntry) -> Result<Bytes, WireError> {
    let head = |kind: u8, size: usize| {
        let mut record = BytesMut::with_capacity(HEAD_SIZE + size);
        record.put_u8(VERSION);
        record.put_u8(kind);
        record.put_u64(entry.log_id.leader_id.term);
        record.put_u64(entry.log_id.leader_id.node_id);
        record
    };
    match &entry.payload {
        EntryPayload::Blank => Ok(head(BLANK, 0).freeze()),
        EntryPayload::Normal(bytes) => {
            let mut record = head(NORMAL, bytes.0.len());
            record.put_slice(&bytes.0);
            let record = record.freeze();
            entry.payload = EntryPayload::Normal(EntryBytes(record.slice(HEAD_SIZE..)));
            Ok(record)
        }
        EntryPayload::Membership(membership) => {
            let bytes = encode_membership(membership)?;
            let mut record = head(MEMBERSHIP, bytes.len());
            record.put_slice(&bytes);
            Ok(record.freeze())
        }
    }
}

/// Reads a record. A normal payload shares the record's memory.
pub(crate) fn decode_entry(index: u64, record: &Bytes) -> Result<RaftEntry, WireError> {
    let wrong = |reason: &str| WireError::new("a log record", format!("{index}: {reason}"));
    let (version, rest) = record.split_first().ok_or_else(|| wrong("no bytes"))?;
    if *version != VERSION {
        return Err(wrong("unknown version"));
    }
    let (kind, rest) = rest.split_first().ok_or_else(|| wrong("too short"))?;
    let (term, rest) = take_u64(rest).ok_or_else(|| wrong("too short"))?;
    let (node_id, rest) = take_u64(rest).ok_or_else(|| wrong("too short"))?;
    let payload = match *kind {
        BLANK if rest.is_empty() => EntryPayload::Blank,
        NORMAL => EntryPayload::Normal(EntryBytes(record.slice(HEAD_SIZE..))),
        MEMBERSHIP => EntryPayload::Membership(decode_membership(rest)?),
        _ => return Err(wrong("unknown kind")),
    };
    Ok(RaftEntry { log_id: RaftLogId { leader_id: LeaderId { term, node_id }, index }, payload })
}

/// About how many bytes an entry holds in memory.
pub(crate) fn entry_size(entry: &RaftEntry) -> usize {
    let payload = match &entry.payload {
        EntryPayload::Blank => 0,
        EntryPayload::Normal(bytes) => bytes.0.len(),
        // Rare, and small enough.
        EntryPayload::Membership(_) => 512,
    };
    payload + HEAD_SIZE + size_of::<RaftEntry>()
}

/// The bytes of a vote, and of whether this replica may vote at all.
pub(crate) fn encode_vote(vote: &Vote, standing: Standing) -> Bytes {
    let mut bytes = BytesMut::with_capacity(HEAD_SIZE + 25);
    let apart = match standing {
        Standing::Full => None,
        Standing::Lost(history) => Some((1, history)),
        Standing::Apart(history) => Some((2, history)),
    };
    bytes.put_u8(if apart.is_some() { VERSION_APART } else { VERSION });
    bytes.put_u8(u8::from(vote.committed));
    bytes.put_u64(vote.leader_id.term);
    bytes.put_u64(vote.leader_id.node_id);
    if let Some((kind, history)) = apart {
        bytes.put_u8(kind);
        bytes.put_u64(history.upto);
        bytes.put_u64(history.leader.0);
        bytes.put_u64(history.leader.1);
    }
    bytes.freeze()
}

/// Reads what [`encode_vote`] wrote.
pub(crate) fn decode_vote(bytes: &[u8]) -> Result<(Vote, Standing), WireError> {
    let parse = || {
        let (&[version, committed @ (0 | 1)], rest) = bytes.split_first_chunk::<2>()? else {
            return None;
        };
        let (term, rest) = take_u64(rest)?;
        let (node_id, rest) = take_u64(rest)?;
        let vote = Vote { leader_id: LeaderId { term, node_id }, committed: committed == 1 };
        let standing = match version {
            VERSION if rest.is_empty() => Standing::Full,
            VERSION_APART => decode_standing(rest)?,
            _ => return None,
        };
        Some((vote, standing))
    };
    parse().ok_or_else(|| WireError::new("a vote", format!("{bytes:?}")))
}

fn decode_standing(bytes: &[u8]) -> Option<Standing> {
    let (kind, rest) = bytes.split_first()?;
    let (upto, rest) = take_u64(rest)?;
    let (term, rest) = take_u64(rest)?;
    let (node, rest) = take_u64(rest)?;
    let history = History { upto, leader: (term, node) };
    match kind {
        1 if rest.is_empty() => Some(Standing::Lost(history)),
        2 if rest.is_empty() => Some(Standing::Apart(history)),
        _ => None,
    }
}

/// The bytes of a position.
pub(crate) fn encode_log_id(log_id: &RaftLogId) -> Bytes {
    let mut bytes = BytesMut::with_capacity(25);
    bytes.put_u8(VERSION);
    bytes.put_u64(log_id.leader_id.term);
    bytes.put_u64(log_id.leader_id.node_id);
    bytes.put_u64(log_id.index);
    bytes.freeze()
}

/// Reads a position.
pub(crate) fn decode_log_id(bytes: &[u8]) -> Result<RaftLogId, WireError> {
    let parts = match bytes.split_first() {
        Some((&VERSION, rest)) => take_u64(rest).and_then(|(term, rest)| {
            let (node_id, rest) = take_u64(rest)?;
            let (index, end) = take_u64(rest)?;
            end.is_empty().then_some(RaftLogId { leader_id: LeaderId { term, node_id }, index })
        }),
        _ => None,
    };
    parts.ok_or_else(|| WireError::new("a position", format!("{bytes:?}")))
}

fn take_u64(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*head), rest))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::collections::BTreeSet;

    use super::*;
    use crate::types::{Membership, Payload};

    fn entry(payload: Payload) -> RaftEntry {
        RaftEntry {
            log_id: RaftLogId { leader_id: LeaderId { term: 5, node_id: 1001 }, index: 77 },
            payload,
        }
    }

    #[test]
    fn every_kind_of_entry_comes_back_from_its_record() {
        let membership = Membership::new_with_defaults(vec![BTreeSet::from([1, 2])], []);
        for payload in [
            EntryPayload::Blank,
            EntryPayload::Normal(EntryBytes(Bytes::new())),
            EntryPayload::Normal(EntryBytes(Bytes::from_static(b"payload"))),
            EntryPayload::Membership(membership),
        ] {
            let mut entry = entry(payload);
            let before = entry.clone();
            let record = encode_entry(&mut entry).unwrap();
            assert_eq!(entry, before);
            assert_eq!(decode_entry(77, &record).unwrap(), before);
        }
    }

    #[test]
    fn damaged_records_are_refused() {
        for bytes in [&b""[..], b"\x02", b"\x01\x01\0\0\0", b"\x01\x09"] {
            assert!(decode_entry(1, &Bytes::copy_from_slice(bytes)).is_err());
        }
        let mut blank = entry(EntryPayload::Blank);
        let mut long = encode_entry(&mut blank).unwrap().to_vec();
        long.push(0);
        assert!(decode_entry(1, &long.into()).is_err());
    }

    #[test]
    fn votes_and_positions_come_back() {
        for committed in [false, true] {
            let vote = Vote { leader_id: LeaderId { term: 1, node_id: 2 }, committed };
            let bytes = encode_vote(&vote, Standing::Full);
            assert_eq!(bytes.len(), HEAD_SIZE, "as it always was");
            assert_eq!(decode_vote(&bytes).unwrap(), (vote, Standing::Full));
            assert!(decode_vote(&bytes.slice(..17)).is_err());
            let history = History { upto: 7, leader: (3, 2) };
            for standing in [Standing::Lost(history), Standing::Apart(history)] {
                let bytes = encode_vote(&vote, standing);
                assert_eq!(decode_vote(&bytes).unwrap(), (vote, standing));
                for cut in 0..bytes.len() {
                    assert!(decode_vote(&bytes.slice(..cut)).is_err(), "{cut}");
                }
            }
        }
        let log_id = entry(EntryPayload::Blank).log_id;
        let bytes = encode_log_id(&log_id);
        assert_eq!(decode_log_id(&bytes).unwrap(), log_id);
        assert!(decode_log_id(&bytes.slice(..24)).is_err());
        assert!(decode_vote(&bytes).is_err());
    }
}
