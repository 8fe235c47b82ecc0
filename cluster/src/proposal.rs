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

struct Waiting<T> {
    group: Rc<dyn Proposals>,
    proposal: u64,
    entry: Bytes,
    judge: fn(T) -> Verdict,
}

/// Goes with a proposal through openraft. Dropped without an answer (the group stopped), it says
/// that the proposal failed. Boxed, since openraft keeps a ring of 8,192 of them per group, whose
/// every place is touched in time.
pub(crate) struct WriteResponder<T>(Option<Box<Waiting<T>>>);

impl<T> Waiting<T> {
    fn answer(self, verdict: Verdict) {
        if verdict != Verdict::Committed {
            self.group.refused(self.proposal, self.entry, verdict);
        }
    }
}

impl<T> Drop for WriteResponder<T> {
    fn drop(&mut self) {
        if let Some(waiting) = self.0.take() {
            waiting.answer(Verdict::Failed);
        }
    }
}

impl<C: RaftTypeConfig, T: 'static> Responder<C, T> for WriteResponder<T> {
    fn on_complete(mut self, result: T) {
        if let Some(waiting) = self.0.take() {
            let verdict = (waiting.judge)(result);
            waiting.answer(verdict);
        }
    }
}

/// The companion of one proposal.
pub(crate) fn responder<C: RaftTypeConfig>(
    group: Rc<dyn Proposals>,
    proposal: u64,
    entry: Bytes,
) -> WriteResponder<ClientWriteResult<C>> {
    WriteResponder(Some(Box::new(Waiting {
        group,
        proposal,
        entry,
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
    })))
}
