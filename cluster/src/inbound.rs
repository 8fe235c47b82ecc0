//! What a replica does with the frames of its peers.

use std::rc::Rc;

use bytes::Bytes;
use jindou_storage::Outcome;
use openraft::{
    AsyncRuntime, Instant,
    async_runtime::watch::WatchReceiver,
    raft::{TransferLeaderRequest, VoteRequest},
};

use crate::{
    election::PATIENCE,
    frame::{Answer, Ask, append_request, candidate_vote, check_membership, fits, leader_vote},
    group::Group,
    shared::{Incoming, Transfer},
    standing::Standing,
    state_machine::{SnapshotData, StagedSnapshot},
    types::{
        GroupId, RaftLogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig, Vote, no_vote,
    },
    wire::WireLogId,
};

/// Answers one frame. The request is with openraft (or the lane) after the first poll.
pub(crate) async fn answer<R: AsyncRuntime>(group: Rc<Group<R>>, frame: Bytes) -> Bytes {
    let ask = match Ask::decode(&frame) {
        Ok(ask) => ask,
        Err(error) => return Answer::Failed(error.to_string()).encode(),
    };
    match group.perform(ask).await {
        Ok(answer) => answer.encode(),
        Err(reason) => Answer::Failed(reason).encode(),
    }
}

/// The answer to a frame for a group that is not here.
pub(crate) fn no_such_group(group: GroupId) -> Bytes {
    Answer::Failed(format!("{group} is not here")).encode()
}

/// Whether whoever asks for this vote has itself voted in a later term than `own`. A leader must hear
/// of that: the others follow it and refuse the candidate, which in turn takes nothing from it, and a
/// group in which nothing is proposed would stay so for ever.
fn is_past(asked: &Vote, own: &Vote) -> bool {
    asked.leader_id.term > own.leader_id.term.saturating_add(1)
}

fn text(error: impl ToString) -> String {
    error.to_string()
}

impl<R: AsyncRuntime> Group<R> {
    async fn perform(&self, ask: Ask) -> Result<Answer, String> {
        match ask {
            Ask::Append { vote, prev, entries, commit, log_end } => {
                let request = append_request::<R>(vote, prev, entries, commit).map_err(text)?;
                self.meet(&request.vote, log_end)?;
                let response = self.raft.append_entries(request).await.map_err(text)?;
                Ok(response.into())
            }
            Ask::Vote { vote, last, leadership_transfer, pre } => {
                let (vote, last) = candidate_vote(vote, last).map_err(text)?;
                self.not_from_here(&vote)?;
                if pre {
                    self.answer_pre_vote(vote, last).await
                } else {
                    self.answer_vote(vote, last, leadership_transfer).await
                }
            }
            Ask::Transfer { from, to, last } => {
                let from = leader_vote(from).map_err(text)?;
                self.not_from_here(&from)?;
                if to == self.shared.node {
                    self.ensure_willing()?;
                }
                let last = last.map(Into::into);
                let request = TransferLeaderRequest::<TypeConfig<R>>::new(from, to, last);
                let response = self.raft.handle_transfer_leader(request).await;
                response.map_err(text)?.map_err(text)?;
                Ok(Answer::Taken)
            }
            Ask::SnapshotBegin { vote, transfer, last, membership, log_end } => {
                let meta = SnapshotMeta {
                    last_log_id: last.map(Into::into),
                    last_membership: membership.try_into().map_err(text)?,
                };
                let vote = leader_vote(vote).map_err(text)?;
                check_meta(&vote, &meta)?;
                self.meet(&vote, log_end)?;
                self.begin_snapshot(vote, transfer.into(), meta).await
            }
            Ask::Willing => self.ensure_willing().map(|()| Answer::Taken),
            Ask::Removed { vote, set_at } => self.removed(leader_vote(vote).map_err(text)?, set_at),
            Ask::SnapshotChunk { transfer, number, chunk } => {
                self.take_chunk(transfer.into(), number, chunk.into()).await
            }
            Ask::SnapshotEnd { transfer, count } => self.end_snapshot(transfer.into(), count).await,
        }
    }

    /// Whether this replica takes leadership over.
    fn ensure_willing(&self) -> Result<(), String> {
        if self.life.retiring.get() {
            return Err("this node stops".into());
        }
        if !self.log.borrow().standing().may_vote() {
            return Err("this replica has lost its log".into());
        }
        if !self.runs() {
            return Err("this replica does not run".into());
        }
        Ok(())
    }

    fn not_from_here(&self, vote: &Vote) -> Result<(), String> {
        if vote.leader_id.node_id == self.shared.node {
            return Err(format!("{vote} is this node's own"));
        }
        Ok(())
    }

    /// An established leader speaks. Its node lives, even if its pings wait behind what it says.
    fn meet(&self, leader: &Vote, log_end: u64) -> Result<(), String> {
        self.not_from_here(leader)?;
        self.name(*leader);
        self.life.heard(leader.leader_id.node_id);
        let standing = self.log.borrow().standing();
        if !standing.may_vote() {
            self.set_standing(standing.met(leader, log_end));
        }
        Ok(())
    }

    pub(crate) fn set_standing(&self, standing: Standing) {
        let bytes = self.log.borrow_mut().set_standing(standing);
        if let Some(bytes) = bytes {
            let group = self.shared.group.0;
            self.lanes.tell(|lanes, done| lanes.log.save_vote(group, bytes, done));
        }
    }

    /// The answer of one that does not help.
    fn refusal(&self) -> Answer {
        let log = self.log.borrow();
        let vote = log.vote().unwrap_or_else(no_vote);
        Answer::Voted { vote: vote.into(), granted: false, last: log.last().map(Into::into) }
    }

    /// Whether this replica would vote. It remembers nothing; but it may find that it should stand
    /// itself.
    async fn answer_pre_vote(&self, vote: Vote, last: Option<RaftLogId>) -> Result<Answer, String> {
        let candidate = vote.leader_id.node_id;
        let own = self.log.borrow().vote().unwrap_or_else(no_vote);
        if self.is_leader() && is_past(&vote, &own) {
            let _ = self.raft.trigger().heartbeat().await;
        }
        if let Some(until) = self.bound_until(candidate) {
            // The candidate's node heard the leader a moment before this one did.
            if until > R::Instant::now() + PATIENCE {
                return Ok(self.refusal());
            }
            R::sleep_until(until).await;
        }
        let log = self.log.borrow();
        if !log.standing().may_vote() || self.bound_until(candidate).is_some() {
            return Ok(self.refusal());
        }
        let own = log.vote().unwrap_or_else(no_vote);
        if last < log.last() {
            self.stand_soon();
        }
        let granted = last >= log.last() && vote >= own;
        if granted {
            self.stand_later();
        }
        let last = log.last().map(Into::into);
        Ok(Answer::Voted { vote: own.into(), granted, last })
    }

    async fn answer_vote(
        &self,
        vote: Vote,
        last_log_id: Option<RaftLogId>,
        leadership_transfer: bool,
    ) -> Result<Answer, String> {
        let bound = !leadership_transfer && self.bound_until(vote.leader_id.node_id).is_some();
        if bound || !self.log.borrow().standing().may_vote() {
            return Ok(self.refusal());
        }
        // From here on it is as if the leader had asked for it: openraft's own lease has no end.
        let request = VoteRequest::<TypeConfig<R>> { vote, last_log_id, leadership_transfer: true };
        Ok(self.raft.vote(request).await.map_err(text)?.into())
    }

    /// A leader says that this replica is none. It is believed when its membership is newer than
    /// what is known here.
    fn removed(&self, vote: Vote, set_at: WireLogId) -> Result<Answer, String> {
        self.not_from_here(&vote)?;
        let set_at: RaftLogId = set_at.into();
        let own = self.raft.server_metrics().borrow_watched().vote;
        let known = {
            let metrics = self.raft.server_metrics();
            let metrics = metrics.borrow_watched();
            *metrics.membership_config.log_id()
        };
        if !fits(&set_at, &vote) || own.leader_id > vote.leader_id || known >= Some(set_at) {
            return Err("this replica knows better".into());
        }
        self.removed.set(true);
        Ok(Answer::Taken)
    }

    /// Two committed entries can't have one index; openraft would panic.
    fn contradicts_nothing(&self, meta: &SnapshotMeta) -> Result<(), String> {
        let committed = self.raft.data_metrics().borrow_watched().local_committed;
        let index = |log_id: Option<RaftLogId>| log_id.map(|log_id| log_id.index);
        let last = meta.last_log_id;
        if last > committed && index(last) <= index(committed) {
            return Err(format!("a snapshot that contradicts what is committed here: {meta}"));
        }
        Ok(())
    }

    async fn begin_snapshot(
        &self,
        vote: Vote,
        transfer: Transfer,
        meta: SnapshotMeta,
    ) -> Result<Answer, String> {
        let own: Vote = self.raft.server_metrics().borrow_watched().vote;
        if own > vote {
            return Ok(Answer::Installed(own.into()));
        }
        self.contradicts_nothing(&meta)?;
        {
            let mut incoming = self.shared.incoming.borrow_mut();
            if incoming.as_ref().is_some_and(|i| i.installing) {
                return Err("a snapshot is being installed".into());
            }
            *incoming = Some(Incoming { transfer, vote, meta, next: 0, installing: false });
        }
        let slot = self.shared.slot;
        self.lanes.ask(|lanes, done| lanes.state.install_begin(slot, done)).await.map_err(text)?;
        Ok(Answer::Taken)
    }

    async fn take_chunk(
        &self,
        transfer: Transfer,
        number: u64,
        chunk: Bytes,
    ) -> Result<Answer, String> {
        {
            let mut incoming = self.shared.incoming.borrow_mut();
            let incoming = incoming
                .as_mut()
                .filter(|i| i.transfer == transfer && i.next == number && !i.installing)
                .ok_or("not the next chunk of the snapshot that is coming in")?;
            incoming.next += 1;
        }
        let slot = self.shared.slot;
        let taken =
            self.lanes.ask(|lanes, done| lanes.state.install_chunk(slot, chunk, done)).await;
        match taken {
            Ok(Outcome::Done) => Ok(Answer::Taken),
            Ok(other) => Err(format!("another outcome: {other:?}")),
            Err(error) => {
                self.forget_snapshot(transfer);
                Err(text(error))
            }
        }
    }

    async fn end_snapshot(&self, transfer: Transfer, count: u64) -> Result<Answer, String> {
        let incoming = self.shared.incoming.borrow().as_ref().map(|i| i.meta.clone());
        if let Some(meta) = incoming {
            self.contradicts_nothing(&meta)?;
        }
        let (vote, meta) = {
            let mut incoming = self.shared.incoming.borrow_mut();
            let incoming = incoming
                .as_mut()
                .filter(|i| i.transfer == transfer && i.next == count && !i.installing)
                .ok_or("not the end of the snapshot that is coming in")?;
            incoming.installing = true;
            (incoming.vote, incoming.meta.clone())
        };
        let shown = meta.last_membership.clone();
        let staged = SnapshotData::Staged(Box::new(StagedSnapshot(transfer)));
        let snapshot = Snapshot { meta, snapshot: staged };
        let response = self.raft.install_full_snapshot(vote, snapshot).await;
        self.forget_snapshot(transfer);
        if response.is_ok() {
            let index = shown.log_id().map_or(0, |set_at| set_at.index);
            let standing = self.log.borrow().standing();
            self.set_standing(standing.saw(self.shared.node, index, shown.membership()));
        }
        Ok(Answer::Installed(response.map_err(text)?.vote.into()))
    }

    fn forget_snapshot(&self, transfer: Transfer) {
        self.shared.incoming.borrow_mut().take_if(|incoming| incoming.transfer == transfer);
    }
}

/// openraft takes a snapshot that no leader can have made for a broken invariant and panics; here
/// it is a peer's fault.
fn check_meta(vote: &Vote, meta: &SnapshotMeta) -> Result<(), String> {
    let last: RaftLogId = meta.last_log_id.ok_or("a snapshot of nothing")?;
    let membership: &StoredMembership = &meta.last_membership;
    let membership_fits = membership.log_id().is_none_or(|set_at| set_at <= last);
    if !fits(&last, vote) || !membership_fits {
        return Err(format!("a snapshot that {vote} can't have: {meta}"));
    }
    check_membership(membership.membership()).map_err(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_candidate_of_the_next_term_is_not_past_the_leader() {
        let own = Vote::new_committed(4, 1);
        assert!(!is_past(&Vote::new(5, 2), &own));
        assert!(is_past(&Vote::new(6, 2), &own));
        assert!(!is_past(&Vote::new(u64::MAX, 2), &Vote::new_committed(u64::MAX, 1)));
    }
}
