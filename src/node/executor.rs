//! Performs the effects of a shard that are not about sockets or rings: proposals go to its
//! groups, rows and reads to the state lane.

use std::sync::Arc;

use bytes::Bytes;
use jindou_cluster::{Groups, NoPeers, Runtime};
use jindou_core::{
    effect::{Event, Executor, Place, ReadId},
    envelope::Envelope,
    id::{LogId, NodeId, SlotId},
    request::{Reply, RequestToken},
    row::{Persist, Read, Rows},
};
use jindou_net::Handle;
use jindou_storage::{Completion, CompletionSender, Outcome, StateStorage, StorageError};

/// The groups of a shard, on its runtime.
pub(super) type ShardGroups = Groups<Runtime, NoPeers>;

/// Completions taken in one turn; what is left waits for the next.
const COMPLETIONS_PER_TURN_MAX: usize = 1_024;

/// See the module.
pub(super) struct NodeExecutor {
    pub(super) groups: ShardGroups,
    pub(super) state: Arc<dyn StateStorage>,
    pub(super) completions: CompletionSender,
}

impl Executor for NodeExecutor {
    fn propose(&mut self, slot: SlotId, proposal: u64, entry: Bytes) {
        self.groups.propose(slot, proposal, entry);
    }

    fn persist(&mut self, persist: Persist) {
        self.state.persist(persist, &self.completions);
    }

    fn applied(&mut self, slot: SlotId, log_id: LogId) {
        self.groups.applied(slot, log_id);
    }

    fn read(&mut self, id: ReadId, slot: SlotId, read: Read) {
        self.state.read(slot, read, self.completions.done(id.0));
    }

    fn forward(&mut self, _to: NodeId, _place: Place, _envelope: Envelope) {
        // A node without peers: nobody is there.
    }

    fn leader_known(&mut self, _slot: SlotId, _leader: Option<NodeId>) {}

    fn cluster_key(&mut self, _key: String, _value: Bytes) {}

    fn reply(&mut self, _token: RequestToken, _reply: Reply) {
        // The caller has gone away: nobody wants the answer.
    }

    fn warn(&mut self, text: &str) {
        tracing::warn!("{text}");
    }
}

/// Takes what the lanes have answered. Returns whether something is left.
pub(super) fn drain_completions(
    receiver: &flume::Receiver<Completion>,
    groups: &ShardGroups,
    handle: &Handle,
) -> bool {
    for _ in 0..COMPLETIONS_PER_TURN_MAX {
        let Ok(completion) = receiver.try_recv() else { return false };
        match completion {
            Completion::Answer { token, result } if ShardGroups::owns(token) => {
                groups.on_completion(token, result);
            }
            Completion::Answer { token, result } => {
                handle.push(Event::Read { id: ReadId(token), rows: rows_of(result) });
            }
            Completion::Persisted { size } => handle.push(Event::Persisted { size }),
        }
    }
    true
}

/// What the rules get for a read: whatever went wrong is told, nothing looks empty.
fn rows_of(result: Result<Outcome, StorageError>) -> Rows {
    match result {
        Ok(Outcome::Rows(rows)) => rows,
        Ok(_) => Rows::Failed("the state lane answered another question".to_owned()),
        Err(error) => Rows::Failed(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_that_went_wrong_never_looks_empty() {
        assert!(matches!(rows_of(Ok(Outcome::Done)), Rows::Failed(_)));
        let closed = rows_of(Err(StorageError::Closed));
        assert!(matches!(closed, Rows::Failed(text) if text == StorageError::Closed.to_string()));
        let failed = Rows::Failed("x".to_owned());
        assert!(matches!(rows_of(Ok(Outcome::Rows(failed))), Rows::Failed(text) if text == "x"));
    }
}
