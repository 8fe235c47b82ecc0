//! Raft frames between nodes: what one group's replica asks another's, and the answers.
//!
//! A frame is a version byte, a CRC-32 and an archived [`Ask`] or [`Answer`]. Which group it is for, and to
//! whom the answer goes, stands outside, in the link's envelope.

use bytes::Bytes;
use openraft::{
    AsyncRuntime,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest,
        VoteResponse,
    },
};
use rkyv::{Archive, Deserialize, Serialize};

use crate::{
    record::{decode_entry, encode_entry},
    shared::Transfer,
    types::{RaftEntry, TypeConfig},
    wire::{WireError, WireLogId, WireStoredMembership, WireVote, decode, encode},
};

const VERSION: u8 = 1;

/// An entry as the log keeps it (see `record`).
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub(crate) struct WireEntry {
    index: u64,
    record: Vec<u8>,
}

/// Names one transfer of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub(crate) struct WireTransfer {
    node: u64,
    term: u64,
    count: u64,
}

impl From<Transfer> for WireTransfer {
    fn from(transfer: Transfer) -> Self {
        Self { node: transfer.node, term: transfer.term, count: transfer.count }
    }
}

impl From<WireTransfer> for Transfer {
    fn from(transfer: WireTransfer) -> Self {
        Self { node: transfer.node, term: transfer.term, count: transfer.count }
    }
}

/// What a replica asks another.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// AppendEntries; a heartbeat when empty.
    Append {
        vote: WireVote,
        prev: Option<WireLogId>,
        entries: Vec<WireEntry>,
        commit: Option<WireLogId>,
    },
    /// RequestVote, or the question whether a vote would be granted.
    Vote { vote: WireVote, last: Option<WireLogId>, leadership_transfer: bool, pre: bool },
    /// The leader wants `to` to lead.
    Transfer { from: WireVote, to: u64, last: Option<WireLogId> },
    /// A snapshot begins.
    SnapshotBegin {
        vote: WireVote,
        transfer: WireTransfer,
        last: Option<WireLogId>,
        membership: WireStoredMembership,
    },
    /// The next chunk of it.
    SnapshotChunk { transfer: WireTransfer, number: u64, chunk: Vec<u8> },
    /// All chunks are sent: install it.
    SnapshotEnd { transfer: WireTransfer, count: u64 },
}

/// What the other answers.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// All entries are there.
    Appended,
    /// Entries up to here are there.
    AppendedTo(Option<WireLogId>),
    /// The entry before the first is another one.
    Conflict,
    /// The asker is not the leader any more.
    HigherVote(WireVote),
    /// To a vote.
    Voted { vote: WireVote, granted: bool, last: Option<WireLogId> },
    /// To a part of a snapshot, and to a transfer of leadership.
    Taken,
    /// A snapshot is installed or not wanted; the vote tells.
    Installed(WireVote),
    /// It did not work; it may be tried again.
    Failed(String),
}

impl Ask {
    pub(crate) fn encode(&self) -> Result<Bytes, WireError> {
        encode(VERSION, self)
    }

    pub(crate) fn decode(frame: &[u8]) -> Result<Self, WireError> {
        decode("a raft frame", VERSION, frame)
    }
}

impl Answer {
    pub(crate) fn encode(&self) -> Bytes {
        // Serialisation to memory fails for no answer of ours; an empty frame would be refused by
        // the asker as undecodable.
        encode(VERSION, self).unwrap_or_default()
    }

    pub(crate) fn decode(frame: &[u8]) -> Result<Self, WireError> {
        decode("an answer to a raft frame", VERSION, frame)
    }
}

/// AppendEntries for the wire.
pub(crate) fn append_ask<R: AsyncRuntime>(
    request: AppendEntriesRequest<TypeConfig<R>>,
) -> Result<Ask, WireError> {
    let entries = request
        .entries
        .into_iter()
        .map(|mut entry| {
            Ok(WireEntry { index: entry.log_id.index, record: encode_entry(&mut entry)?.to_vec() })
        })
        .collect::<Result<_, WireError>>()?;
    Ok(Ask::Append {
        vote: request.vote.into(),
        prev: request.prev_log_id.map(Into::into),
        entries,
        commit: request.leader_commit.map(Into::into),
    })
}

/// AppendEntries from the wire.
pub(crate) fn append_request<R: AsyncRuntime>(
    vote: WireVote,
    prev: Option<WireLogId>,
    entries: Vec<WireEntry>,
    commit: Option<WireLogId>,
) -> Result<AppendEntriesRequest<TypeConfig<R>>, WireError> {
    let entries = entries
        .into_iter()
        .map(|entry| decode_entry(entry.index, &entry.record.into()))
        .collect::<Result<Vec<RaftEntry>, WireError>>()?;
    let first = prev.map_or(0, |prev| prev.index.saturating_add(1));
    if entries.iter().zip(first..).any(|(entry, index)| entry.log_id.index != index) {
        return Err(WireError::new("a raft frame", "entries with a hole"));
    }
    Ok(AppendEntriesRequest {
        vote: vote.into(),
        prev_log_id: prev.map(Into::into),
        entries,
        leader_commit: commit.map(Into::into),
    })
}

impl<R: AsyncRuntime> From<AppendEntriesResponse<TypeConfig<R>>> for Answer {
    fn from(response: AppendEntriesResponse<TypeConfig<R>>) -> Self {
        match response {
            AppendEntriesResponse::Success => Self::Appended,
            AppendEntriesResponse::PartialSuccess(to) => Self::AppendedTo(to.map(Into::into)),
            AppendEntriesResponse::Conflict => Self::Conflict,
            AppendEntriesResponse::HigherVote(vote) => Self::HigherVote(vote.into()),
        }
    }
}

impl<R: AsyncRuntime> From<VoteResponse<TypeConfig<R>>> for Answer {
    fn from(response: VoteResponse<TypeConfig<R>>) -> Self {
        Self::Voted {
            vote: response.vote.into(),
            granted: response.vote_granted,
            last: response.last_log_id.map(Into::into),
        }
    }
}

/// A vote request for the wire.
pub(crate) fn vote_ask<R: AsyncRuntime>(request: &VoteRequest<TypeConfig<R>>, pre: bool) -> Ask {
    Ask::Vote {
        vote: request.vote.into(),
        last: request.last_log_id.map(Into::into),
        leadership_transfer: request.leadership_transfer,
        pre,
    }
}

/// A transfer of leadership for the wire.
pub(crate) fn transfer_ask<R: AsyncRuntime>(request: &TransferLeaderRequest<TypeConfig<R>>) -> Ask {
    Ask::Transfer {
        from: (*request.from_leader()).into(),
        to: *request.to_node_id(),
        last: request.last_log_id().copied().map(Into::into),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use openraft::EntryPayload;

    use super::*;
    use crate::types::{EntryBytes, LeaderId, RaftLogId, Vote};

    type Config = TypeConfig<crate::Runtime>;

    fn log_id(index: u64) -> RaftLogId {
        RaftLogId { leader_id: LeaderId { term: 2, node_id: 1 }, index }
    }

    fn request(first: u64) -> AppendEntriesRequest<Config> {
        let entry = |index| RaftEntry {
            log_id: log_id(index),
            payload: EntryPayload::Normal(EntryBytes(Bytes::from_static(b"abc"))),
        };
        AppendEntriesRequest {
            vote: Vote::new_committed(2, 1),
            prev_log_id: Some(log_id(4)),
            entries: vec![entry(first), entry(first + 1)],
            leader_commit: Some(log_id(3)),
        }
    }

    fn over_the_wire(
        request: AppendEntriesRequest<Config>,
    ) -> Result<AppendEntriesRequest<Config>, WireError> {
        let frame = append_ask(request).unwrap().encode().unwrap();
        let Ask::Append { vote, prev, entries, commit } = Ask::decode(&frame).unwrap() else {
            unreachable!("an append was encoded");
        };
        append_request(vote, prev, entries, commit)
    }

    #[test]
    fn entries_come_over_the_wire_as_they_were() {
        let back = over_the_wire(request(5)).unwrap();
        assert_eq!(format!("{back:?}"), format!("{:?}", request(5)));
    }

    #[test]
    fn entries_with_a_hole_and_torn_frames_are_refused() {
        assert!(over_the_wire(request(6)).is_err());
        let frame = append_ask(request(5)).unwrap().encode().unwrap();
        for cut in 0..frame.len() {
            assert!(Ask::decode(&frame.slice(..cut)).is_err(), "{cut}");
        }
        assert!(Answer::decode(b"").is_err());
        let answer = Answer::Failed("busy".into());
        assert_eq!(Answer::decode(&answer.encode()).unwrap(), answer);
    }
}
