//! Letters between the shards of this node: what one shard asks another about its groups. Rare, so
//! queues between threads will do.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use jindou_core::id::ShardId;
use jindou_net::ShardWaker;

use super::{
    figures::ShardFigures,
    letters::{Answer, Ask},
};

/// A question on its way to another shard.
pub(super) enum Letter {
    /// One that other nodes may ask too.
    Ask(Ask, flume::Sender<Answer>),
    /// How are your links and groups?
    Figures(flume::Sender<ShardFigures>),
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
        let (answer, answered) = flume::bounded(1);
        if !self.put(shard, Letter::Ask(ask, answer)) {
            return Answer::refuse(format!("there is no shard {}", shard.0));
        }
        answered.into_recv_async().await.unwrap_or_else(|_| Answer::later("the shard has ended"))
    }

    /// Asks a shard of this node for its figures. One that is not there says nothing.
    pub(super) fn ask_figures(&self, shard: ShardId) -> flume::Receiver<ShardFigures> {
        let (answer, answered) = flume::bounded(1);
        self.put(shard, Letter::Figures(answer));
        answered
    }

    /// Has every shard hand over what it leads; from a thread of its own.
    pub(in crate::node) fn hand_over(&self, time_max: Duration) {
        let end = Instant::now() + time_max;
        let (answer, answered) = flume::unbounded();
        let shards = 0..u16::try_from(self.boxes.len()).unwrap_or(u16::MAX);
        for shard in shards {
            self.put(ShardId(shard), Letter::Ask(Ask::HandOver, answer.clone()));
        }
        drop(answer);
        while answered.recv_deadline(end).is_ok() {}
    }

    fn put(&self, shard: ShardId, letter: Letter) -> bool {
        let place = usize::from(shard.0);
        let Some((sender, _)) = self.boxes.get(place) else {
            return false;
        };
        // The receiving end lives as long as this one.
        let is_put = sender.send(letter).is_ok();
        if let Some(waker) = self.wakers.get().and_then(|wakers| wakers.get(place)) {
            waker.wake();
        }
        is_put
    }
}
