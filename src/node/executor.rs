//! Performs the effects of a shard that are not about sockets or rings: proposals go to its
//! groups, rows and reads to the state lane.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use jindou_cluster::{Groups, Router, Runtime};
use jindou_core::{
    effect::{Event, Executor, Place, ReadId},
    envelope::Envelope,
    id::{LogId, NodeId, SlotId},
    link,
    notice::Telling,
    request::{Reply, RequestToken},
    row::{Persist, Read, Rows},
};
use jindou_net::{
    Handle,
    link::{LinkError, Links},
};
use jindou_storage::{Completion, CompletionSender, Outcome, StateStorage, StorageError};

use super::{
    Running,
    cluster::{LinkTransport, Post, SharedDocument},
    datasource::Datasource,
    health::NodeHealth,
    webhook::Webhooks,
};

/// The groups of a shard, on its runtime.
pub(super) type ShardGroups = Groups<Runtime, LinkTransport>;

/// Completions taken in one turn; what is left waits for the next.
const COMPLETIONS_PER_TURN_MAX: usize = 1_024;

/// See the module.
pub(super) struct NodeExecutor {
    pub(super) groups: ShardGroups,
    pub(super) state: Arc<dyn StateStorage>,
    pub(super) completions: CompletionSender,
    pub(super) links: Links,
    pub(super) router: Router,
    pub(super) health: Arc<NodeHealth>,
    pub(super) running: Arc<OnceLock<Running>>,
    pub(super) document: Arc<SharedDocument>,
    pub(super) post: Post,
    pub(super) webhooks: Webhooks,
    pub(super) datasource: Datasource,
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

    fn forward(&mut self, to: NodeId, place: Place, envelope: Envelope) {
        let mut encoded = Ok(());
        let sent = self.links.send(to, place, |out| encoded = link::push(out, &envelope));
        // Without a link it is dropped: the shard hears of every link that goes down.
        if let Err(error) = encoded {
            tracing::error!("an envelope for node {} is dropped: {error}", to.0);
        } else if let Err(error @ LinkError::TooLarge { .. }) = sent {
            tracing::error!("an envelope for node {} is dropped: {error}", to.0);
        }
    }

    /// The last group that begins to be served opens the doors of all shards.
    fn leader_known(&mut self, slot: SlotId, leader: Option<NodeId>) {
        if self.groups.status(slot).is_none() {
            self.router.learn(slot, leader);
        }
        if let Some(leader) = leader {
            self.health.note_leader(slot, leader);
        }
        let elsewhere = leader.filter(|leader| *leader != self.router.node());
        let serves = leader.is_some() && self.groups.is_leading(slot);
        self.health.set_leader(slot, elsewhere, serves);
        if let Some(running) = self.running.get().filter(|_| self.health.is_ready()) {
            running.wake();
        }
    }

    fn cluster_key(&mut self, key: String, value: Bytes) {
        self.document.apply(&key, &value);
        self.post.wake_all();
    }

    fn reply(&mut self, _token: RequestToken, _reply: Reply) {
        // The caller has gone away: nobody wants the answer.
    }

    fn warn(&mut self, text: &str) {
        tracing::warn!("{text}");
    }

    fn tell(&mut self, telling: Telling) {
        self.webhooks.tell(telling);
    }

    fn ask_systems(&mut self) {
        self.datasource.ask();
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
