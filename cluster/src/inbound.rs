//! What a replica does with the frames of its peers.

use std::rc::Rc;

use bytes::Bytes;
use jindou_storage::Outcome;
use openraft::{
    AsyncRuntime,
    async_runtime::watch::WatchReceiver,
    raft::{TransferLeaderRequest, VoteRequest},
};

use crate::{
    frame::{Answer, Ask, append_request},
    group::Group,
    shared::{Incoming, Transfer},
    state_machine::{SnapshotData, StagedSnapshot},
    types::{GroupId, RaftLogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig, Vote},
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

fn text(error: impl ToString) -> String {
    error.to_string()
}

impl<R: AsyncRuntime> Group<R> {
    async fn perform(&self, ask: Ask) -> Result<Answer, String> {
        match ask {
            Ask::Append { vote, prev, entries, commit } => {
                let request = append_request::<R>(vote, prev, entries, commit).map_err(text)?;
                let response = self.raft.append_entries(request).await.map_err(text)?;
                Ok(response.into())
            }
            Ask::Vote { vote, last, leadership_transfer, pre } => {
                let request = VoteRequest::<TypeConfig<R>> {
                    vote: vote.into(),
                    last_log_id: last.map(Into::into),
                    leadership_transfer,
                };
                let response = if pre {
                    self.raft.pre_vote(request).await
                } else {
                    self.raft.vote(request).await
                };
                Ok(response.map_err(text)?.into())
            }
            Ask::Transfer { from, to, last } => {
                let request = TransferLeaderRequest::<TypeConfig<R>>::new(
                    from.into(),
                    to,
                    last.map(Into::into),
                );
                let response = self.raft.handle_transfer_leader(request).await;
                response.map_err(text)?.map_err(text)?;
                Ok(Answer::Taken)
            }
            Ask::SnapshotBegin { vote, transfer, last, membership } => {
                let meta = SnapshotMeta {
                    last_log_id: last.map(Into::into),
                    last_membership: membership.try_into().map_err(text)?,
                };
                self.begin_snapshot(vote.into(), transfer.into(), meta).await
            }
            Ask::SnapshotChunk { transfer, number, chunk } => {
                self.take_chunk(transfer.into(), number, chunk.into()).await
            }
            Ask::SnapshotEnd { transfer, count } => self.end_snapshot(transfer.into(), count).await,
        }
    }

    async fn begin_snapshot(
        &self,
        vote: Vote,
        transfer: Transfer,
        meta: SnapshotMeta,
    ) -> Result<Answer, String> {
        check_meta(&vote, &meta)?;
        let own: Vote = self.raft.server_metrics().borrow_watched().vote;
        if own > vote {
            return Ok(Answer::Installed(own.into()));
        }
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
        let (vote, meta) = {
            let mut incoming = self.shared.incoming.borrow_mut();
            let incoming = incoming
                .as_mut()
                .filter(|i| i.transfer == transfer && i.next == count && !i.installing)
                .ok_or("not the end of the snapshot that is coming in")?;
            incoming.installing = true;
            (incoming.vote, incoming.meta.clone())
        };
        let snapshot = Snapshot { meta, snapshot: SnapshotData::Staged(StagedSnapshot(transfer)) };
        let response = self.raft.install_full_snapshot(vote, snapshot).await;
        self.forget_snapshot(transfer);
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
    if last.leader_id > vote.leader_id || !membership_fits {
        return Err(format!("a snapshot that {vote} can't have: {meta}"));
    }
    Ok(())
}
