//! What becomes of a proposal: nothing is said when it commits (the shard sees its entry come
//! by), and exactly one word when it does not.

use std::rc::Rc;

use bytes::Bytes;
use openraft::{
    RaftTypeConfig,
    errors::{ClientWriteError, ForwardReason},
    raft::{ClientWriteResult, responder::Responder},
};

/// How openraft answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The entry is committed.
    Committed,
    /// The leader did not take it because it has not heard from a quorum for a while (a group
    /// that slept): wake the group and propose again.
    LeaseExpired,
    /// It is not committed by this leader, or that is not known.
    Failed,
}

/// Who is told about proposals that did not go through.
pub(crate) trait Proposals {
    /// `verdict` is never `Committed`.
    fn refused(&self, proposal: u64, entry: Bytes, verdict: Verdict);
}

struct Waiting {
    group: Rc<dyn Proposals>,
    proposal: u64,
    entry: Bytes,
}

/// Goes with a proposal through openraft. Dropped without an answer (the group stopped), it says
/// that the proposal failed.
pub(crate) struct WriteResponder<T> {
    waiting: Option<Waiting>,
    judge: fn(T) -> Verdict,
}

impl<T> WriteResponder<T> {
    fn answer(&mut self, verdict: Verdict) {
        if let Some(waiting) = self.waiting.take()
            && verdict != Verdict::Committed
        {
            waiting
                .group
                .refused(waiting.proposal, waiting.entry, verdict);
        }
    }
}

impl<T> Drop for WriteResponder<T> {
    fn drop(&mut self) {
        self.answer(Verdict::Failed);
    }
}

impl<C: RaftTypeConfig, T: 'static> Responder<C, T> for WriteResponder<T> {
    fn on_complete(mut self, result: T) {
        let verdict = (self.judge)(result);
        self.answer(verdict);
    }
}

/// The companion of one proposal.
pub(crate) fn responder<C: RaftTypeConfig>(
    group: Rc<dyn Proposals>,
    proposal: u64,
    entry: Bytes,
) -> WriteResponder<ClientWriteResult<C>> {
    WriteResponder {
        waiting: Some(Waiting {
            group,
            proposal,
            entry,
        }),
        judge: |result| match result {
            Ok(_) => Verdict::Committed,
            Err(ClientWriteError::ForwardToLeader(forward))
                if forward.reason == ForwardReason::LeaseExpired =>
            {
                Verdict::LeaseExpired
            }
            Err(
                ClientWriteError::ForwardToLeader(_)
                | ClientWriteError::LogEntryDiscarded(_)
                | ClientWriteError::ChangeMembershipError(_)
                | ClientWriteError::PreconditionFailed(_),
            ) => Verdict::Failed,
        },
    }
}
