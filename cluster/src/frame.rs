//! Raft frames between nodes: what one group's replica asks another's, and the answers.
//!
//! A frame is a version byte, a CRC-32 and an archived [`Ask`] or [`Answer`]. Which group it is for, and to
//! whom the answer goes, stands outside, in the link's envelope.

use std::collections::BTreeSet;

use bytes::Bytes;
use openraft::{
    AsyncRuntime, EntryPayload,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, TransferLeaderRequest, VoteRequest,
        VoteResponse,
    },
};
use rkyv::{Archive, Deserialize, Serialize};

use crate::{
    record::{decode_entry, encode_entry},
    shared::Transfer,
    types::{Membership, RaftEntry, RaftLogId, TypeConfig, Vote},
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
    /// AppendEntries; a heartbeat when empty. `log_end`: the last index of the leader's log.
    Append {
        vote: WireVote,
        prev: Option<WireLogId>,
        entries: Vec<WireEntry>,
        commit: Option<WireLogId>,
        log_end: u64,
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
        log_end: u64,
    },
    /// The next chunk of it.
    SnapshotChunk { transfer: WireTransfer, number: u64, chunk: Vec<u8> },
    /// All chunks are sent: install it.
    SnapshotEnd { transfer: WireTransfer, count: u64 },
    /// The membership at `set_at`, which is committed, does not know the replica that gets this.
    Removed { vote: WireVote, set_at: WireLogId },
    /// Would this replica lead, if the leader wanted it to?
    Willing,
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
    /// To a part of a snapshot, to a transfer of leadership, and to the question about one.
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
    log_end: u64,
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
        log_end,
    })
}

/// AppendEntries from the wire. What no leader can have sent is refused: openraft trusts its peers
/// and would take it for a broken invariant of its own.
pub(crate) fn append_request<R: AsyncRuntime>(
    vote: WireVote,
    prev: Option<WireLogId>,
    entries: Vec<WireEntry>,
    commit: Option<WireLogId>,
) -> Result<AppendEntriesRequest<TypeConfig<R>>, WireError> {
    let wrong = |reason: &str| WireError::new("a raft frame", reason);
    let vote = leader_vote(vote)?;
    let entries = entries
        .into_iter()
        .map(|entry| decode_entry(entry.index, &entry.record.into()))
        .collect::<Result<Vec<RaftEntry>, WireError>>()?;
    let prev: Option<RaftLogId> = prev.map(Into::into);
    let commit: Option<RaftLogId> = commit.map(Into::into);
    let first = prev.map_or(0, |prev| prev.index.saturating_add(1));
    if entries.iter().zip(first..).any(|(entry, index)| entry.log_id.index != index) {
        return Err(wrong("entries with a hole"));
    }
    let mut before = prev;
    for log_id in entries.iter().map(|entry| entry.log_id) {
        if before.is_some_and(|before| before.leader_id > log_id.leader_id) {
            return Err(wrong("entries of falling terms"));
        }
        before = Some(log_id);
    }
    if [before, commit].into_iter().flatten().any(|log_id| !fits(&log_id, &vote)) {
        return Err(wrong("entries of a term to come"));
    }
    for entry in &entries {
        if let EntryPayload::Membership(membership) = &entry.payload {
            check_membership(membership)?;
        }
    }
    Ok(AppendEntriesRequest { vote, prev_log_id: prev, entries, leader_commit: commit })
}

/// Terms and indexes above this are nobody's: arithmetic on those below does not overflow.
pub(crate) const NUMBER_MAX: u64 = 1 << 62;

/// Whether a log that this vote's leader knows can hold this position.
pub(crate) fn fits(log_id: &RaftLogId, vote: &Vote) -> bool {
    log_id.leader_id <= vote.leader_id && log_id.index < NUMBER_MAX
}

/// The vote of an established leader.
pub(crate) fn leader_vote(vote: WireVote) -> Result<Vote, WireError> {
    if !vote.committed || vote.term >= NUMBER_MAX {
        return Err(WireError::new("a raft frame", "not the vote of a leader"));
    }
    Ok(vote.into())
}

/// The vote of a candidate, and where its log ends.
pub(crate) fn candidate_vote(
    vote: WireVote,
    last: Option<WireLogId>,
) -> Result<(Vote, Option<RaftLogId>), WireError> {
    let last: Option<RaftLogId> = last.map(Into::into);
    let fitting = last.is_none_or(|last| fits(&last, &vote.into()));
    if vote.committed || vote.term >= NUMBER_MAX || !fitting {
        return Err(WireError::new("a raft frame", "not the vote of a candidate"));
    }
    Ok((vote.into(), last))
}

/// A group has voters, and each of its sets of voters does.
pub(crate) fn check_membership(membership: &Membership) -> Result<(), WireError> {
    let configs = membership.get_joint_config();
    if configs.is_empty() || configs.len() > 2 || configs.iter().any(BTreeSet::is_empty) {
        return Err(WireError::new("a raft frame", "a membership without voters"));
    }
    Ok(())
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
    use super::*;
    use crate::types::{EntryBytes, LeaderId};

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
        let frame = append_ask(request, 9).unwrap().encode().unwrap();
        let Ask::Append { vote, prev, entries, commit, log_end: 9 } = Ask::decode(&frame).unwrap()
        else {
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
        let frame = append_ask(request(5), 9).unwrap().encode().unwrap();
        for cut in 0..frame.len() {
            assert!(Ask::decode(&frame.slice(..cut)).is_err(), "{cut}");
        }
        assert!(Answer::decode(b"").is_err());
        let answer = Answer::Failed("busy".into());
        assert_eq!(Answer::decode(&answer.encode()).unwrap(), answer);
    }

    #[test]
    fn what_no_leader_can_have_sent_is_refused() {
        let with = |change: fn(&mut AppendEntriesRequest<Config>)| {
            let mut request = request(5);
            change(&mut request);
            over_the_wire(request)
        };
        assert!(with(|_| ()).is_ok());
        assert!(with(|request| request.vote.committed = false).is_err());
        assert!(with(|request| request.vote.leader_id.term = u64::MAX).is_err());
        assert!(
            with(|request| request.vote.leader_id.term = 1).is_err(),
            "entries of a later term"
        );
        assert!(
            with(|request| {
                request.prev_log_id =
                    Some(RaftLogId { leader_id: LeaderId { term: 3, node_id: 1 }, index: 4 });
            })
            .is_err()
        );
        assert!(
            with(|request| {
                let none = Membership::default();
                request.entries.last_mut().unwrap().payload = EntryPayload::Membership(none);
            })
            .is_err()
        );
        let vote = WireVote { term: 5, node: 2, committed: true };
        assert!(candidate_vote(vote, None).is_err());
        let vote = WireVote { term: 5, node: 2, committed: false };
        assert!(candidate_vote(vote, None).is_ok());
        let later = WireLogId { term: 6, node: 2, index: 3 };
        assert!(candidate_vote(vote, Some(later)).is_err());
        assert!(leader_vote(vote).is_err());
    }
}
