//! Telling every shard of a node to drain and stop.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use crate::wake::ShardWaker;

/// Tells every shard of a node to drain and stop. From any thread; cheap to clone.
#[derive(Clone, Debug)]
pub struct Stop(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    is_draining: AtomicBool,
    /// Shards that have nothing left to do. One may wait for another, so all stop together.
    quiet_count: AtomicUsize,
    wakers: Arc<[ShardWaker]>,
}

impl Stop {
    pub(crate) fn new(wakers: Arc<[ShardWaker]>) -> Self {
        Self(Arc::new(Inner {
            is_draining: AtomicBool::new(false),
            quiet_count: AtomicUsize::new(0),
            wakers,
        }))
    }

    /// Starts the drain on every shard: nothing is accepted any more, the machines get
    /// [`jindou_core::effect::Event::Drain`], and when all shards are quiet, or after
    /// [`crate::NetSettings::drain_ms`], every driver returns. Further calls change nothing.
    pub fn drain(&self) {
        self.0.is_draining.store(true, Ordering::Release);
        for waker in self.0.wakers.iter() {
            waker.wake();
        }
    }

    /// Whether the drain has begun.
    pub fn is_draining(&self) -> bool {
        self.0.is_draining.load(Ordering::Acquire)
    }

    /// Notes that the calling shard has become quiet, or is not any more.
    pub(crate) fn set_quiet(&self, was: bool, is: bool) {
        match (was, is) {
            (false, true) => {
                self.0.quiet_count.fetch_add(1, Ordering::AcqRel);
            }
            (true, false) => {
                self.0.quiet_count.fetch_sub(1, Ordering::AcqRel);
            }
            (true, true) | (false, false) => {}
        }
    }

    /// Whether all shards are quiet.
    pub(crate) fn is_node_quiet(&self) -> bool {
        self.0.quiet_count.load(Ordering::Acquire) >= self.0.wakers.len()
    }
}
