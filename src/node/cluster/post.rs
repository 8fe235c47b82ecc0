//! Letters between the shards of this node: what one shard asks another about its groups. Rare, so
//! queues between threads will do.

use std::sync::{Arc, OnceLock};

use futures::channel::oneshot;
use jindou_core::id::ShardId;
use jindou_net::ShardWaker;

use super::letters::{Answer, Ask};

/// A question on its way to another shard.
pub(super) struct Letter {
    pub(super) ask: Ask,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// The way to every shard of this node.
#[derive(Clone)]
pub(in crate::node) struct Post {
    boxes: Arc<[(flume::Sender<Letter>, flume::Receiver<Letter>)]>,
    /// Known once the shards run.
    wakers: Arc<OnceLock<Vec<ShardWaker>>>,
}

impl Post {
    /// Empty boxes.
    pub(in crate::node) fn new(shard_count: u16) -> Self {
        let boxes = (0..shard_count).map(|_| flume::unbounded()).collect();
        Self { boxes, wakers: Arc::default() }
    }

    /// The shards run.
    pub(in crate::node) fn open(&self, wakers: Vec<ShardWaker>) {
        // Once per process.
        let _ = self.wakers.set(wakers);
        self.wake_all();
    }

    /// Wakes every shard: something that all of them look at has changed.
    pub(in crate::node) fn wake_all(&self) {
        for waker in self.wakers.get().into_iter().flatten() {
            waker.wake();
        }
    }

    /// What has come for a shard.
    pub(super) fn take(&self, shard: ShardId) -> Option<Letter> {
        self.boxes.get(usize::from(shard.0))?.1.try_recv().ok()
    }

    /// Asks a shard of this node.
    pub(super) async fn ask(&self, shard: ShardId, ask: Ask) -> Answer {
        let place = usize::from(shard.0);
        let Some((sender, _)) = self.boxes.get(place) else {
            return Answer::refuse(format!("there is no shard {}", shard.0));
        };
        let (answer, answered) = oneshot::channel();
        // The receiving end lives as long as this one.
        let _ = sender.send(Letter { ask, answer });
        if let Some(waker) = self.wakers.get().and_then(|wakers| wakers.get(place)) {
            waker.wake();
        }
        answered.await.unwrap_or_else(|_| Answer::later("the shard has ended"))
    }
}
